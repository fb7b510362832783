"""The end of an exec session after the client has left."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from actors.exec import session
from actors.model.nomad import ExecInput, ExecOutput


async def test_the_outputs_end_before_their_fifos_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []
    kept: list[object] = []

    class Session:
        """Stands for an ExecSession."""

        cwd = "/"

        def __init__(self, *_: object, **__: object) -> None:
            pass

        async def open(self, *_: object) -> None:
            """Does nothing."""

        async def feed(self, _: object) -> None:
            """Does nothing."""

        def outputs(self) -> AsyncGenerator[ExecOutput, None]:
            """Returns outputs and keeps a second reference to the outputs."""
            kept.append(self._outputs())
            return kept[0]  # type: ignore[return-value]

        async def _outputs(self) -> AsyncGenerator[ExecOutput, None]:
            try:
                while True:
                    yield ExecOutput(stdout=b"more")
            finally:
                ended.append("outputs")

        async def close(self) -> None:
            """Records the close of the FIFOs."""
            ended.append("session")

    async def nothing() -> AsyncIterator[ExecInput]:
        yield ExecInput(stdin_close=True)

    monkeypatch.setattr(session, "ExecSession", Session)
    task: Any = None
    outputs = session.stream(task, ["cat"], terminal=False, inputs=nothing())
    await anext(outputs)
    await outputs.aclose()
    assert ended == ["outputs", "session"]
