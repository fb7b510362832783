"""A worker of another release, played from recorded frames of the release's real workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

from proto import frames
from proto.frames import Frame
from tests.support.fakes import vectors
from workers import protocol

REQUESTS = frozenset({protocol.HELLO, protocol.WATCH, protocol.KILL, protocol.STATS, protocol.END})


class ScriptedWorker:
    """A worker that listens in a task's state directory; a signal ends the task.

    Args:
        release: the release of the frames.
        directory: the task's state directory.
        knows: the requests that the worker does not refuse.
        adds: fields for every frame of the worker; they replace recorded fields.
    """

    def __init__(
        self,
        release: str,
        directory: Path,
        *,
        knows: Collection[str] = REQUESTS,
        adds: Mapping[str, object] | None = None,
    ) -> None:
        self.asked: list[Frame] = []
        self._plays = vectors.load(release, "worker to plugin")
        self._refusals = vectors.load(release, "launcher to plugin")
        self._directory = directory
        self._knows = knows
        self._adds = dict(adds or {})
        self._peers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._directory / protocol.CONTROL_SOCKET
        self._server = await asyncio.start_unix_server(self._serve, place)
        return self

    async def __aexit__(self, *_: object) -> None:
        peers = list(self._peers)
        self.close()
        for peer in peers:
            with contextlib.suppress(OSError):  # it hung up in the middle of what was played
                await peer.wait_closed()

    def close(self) -> None:
        """Closes the connection, as a worker does at its end."""
        if self._server is not None:
            self._server.close()
        for peer in self._peers:
            peer.close()

    def ops(self) -> list[object]:
        """Lists the received requests, in order."""
        return [request["op"] for request in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peers.add(writer)
        decoder = frames.Decoder()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for request in decoder.feed(data):
                    self.asked.append(request)
                    self._answer(writer, request)
        self._peers.discard(writer)
        writer.close()

    def _answer(self, writer: asyncio.StreamWriter, request: Frame) -> None:
        own = self._adds.get("v", self._plays["ready, while a task starts"].reads["v"])
        newest = self._adds.get("v_max", own)
        op, stated = request["op"], request.get("v")
        if stated is not None and not own <= stated <= newest:  # type: ignore[operator]
            self._play(writer, self._refusals["refusal of hello, refused"], request)
        elif op not in self._knows:
            self._play(writer, self._plays["refusal of no-such-request, refused"], request)
        else:
            when = "after a task's end" if op == protocol.END else "while a task runs"
            when = "while a task starts" if op == protocol.WATCH else when
            self._play(writer, self._plays[f"answer to {op}, {when}"], request)
            self._follow(writer, str(op))

    def _follow(self, writer: asyncio.StreamWriter, op: str) -> None:
        match op:
            case protocol.STATS:
                self._play(writer, self._plays["stats, while a task runs"])
            case protocol.KILL:
                for peer in self._peers:
                    self._play(peer, self._plays["exit, while a task runs"])
                    self._play(peer, self._plays["drained, while a task runs"])
            case protocol.END:
                self.close()

    def _play(
        self, writer: asyncio.StreamWriter, vector: vectors.Vector, request: Frame | None = None
    ) -> None:
        frame = {**vector.frame(), **self._adds}
        if request is not None:
            frame["re"] = request["id"]
        elif self._adds:
            writer.write(frames.encode({"event": "of-a-later-release", **self._adds}))
        writer.write(frames.encode(frame))
