"""Contract tests of containerd's tasks: the fake and a real daemon behave alike."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from containerd.api.records import Status, Streams
from proto.errors import Code, DriverError
from tests.support.fakes.either import Daemon, Place, refused, until_stopped
from tests.support.waiting import until
from tests.support.workers.peers import LogReader, has_ended


async def test_a_task_is_created_started_waited_for_and_deleted(place: Place) -> None:
    client = place.client
    pid = await place.task("exit 3")
    record = await client.tasks.get("c")
    assert record is not None
    assert (record.pid, record.status) == (pid, Status.CREATED)
    waiting = asyncio.create_task(client.tasks.wait("c"))
    assert await client.tasks.start("c") == pid
    ended = await waiting
    assert ended.code == 3
    await until_stopped(client, "c")
    record = await client.tasks.get("c")
    assert record is not None
    assert (record.status, record.exit_status) == (Status.STOPPED, 3)
    assert await client.tasks.wait("c") == ended
    assert await client.tasks.delete("c") == ended
    assert await client.tasks.get("c") is None
    assert await client.tasks.delete("c") is None


async def test_a_container_has_one_task(place: Place) -> None:
    await place.task("sleep 60")
    again = place.client.tasks.create("c", (), Streams())
    await refused(again, Code.ALREADY_EXISTS)
    await place.end()


async def test_a_task_that_runs_is_not_deleted_and_not_started_again(place: Place) -> None:
    await place.task("sleep 60")
    await place.client.tasks.start("c")
    # containerd gives no better code for these.
    error = await refused(place.client.tasks.delete("c"), Code.INTERNAL)
    assert "cannot delete a running process" in error.details
    error = await refused(place.client.tasks.start("c"), Code.INTERNAL)
    assert "cannot start a running process" in error.details
    await place.end()


async def test_a_signal_ends_a_task_with_128_and_its_number(place: Place) -> None:
    await place.task("sleep 60 & exec sleep 60")
    await place.client.tasks.start("c")
    await place.client.tasks.kill("c", signal.SIGKILL, everyone=True)
    assert (await place.client.tasks.wait("c")).code == 128 + signal.SIGKILL
    await until_stopped(place.client, "c")
    again = place.client.tasks.kill("c", signal.SIGKILL, everyone=False)
    await refused(again, Code.NOT_FOUND)
    await place.client.tasks.delete("c")


async def test_a_task_that_was_never_started_can_be_killed_and_deleted(place: Place) -> None:
    await place.task("sleep 60", "killed")
    await place.end("killed")
    assert await place.client.tasks.get("killed") is None
    pid = await place.task("sleep 60", "deleted")
    assert await place.client.tasks.delete("deleted") is not None
    assert await place.client.tasks.get("deleted") is None
    await until(lambda: has_ended(pid), 10)


async def test_ids_that_nobody_has_are_not_found(place: Place) -> None:
    client = place.client
    assert await client.tasks.get("none") is None
    assert await client.tasks.delete("none") is None
    create = client.tasks.create("none", (), Streams())
    await refused(create, Code.NOT_FOUND)
    await refused(client.tasks.start("none"), Code.NOT_FOUND)
    await refused(client.tasks.wait("none"), Code.NOT_FOUND)
    await refused(client.tasks.kill("none", 9, everyone=False), Code.NOT_FOUND)
    await place.container()
    assert await client.tasks.get("c") is None
    await refused(client.tasks.start("c"), Code.NOT_FOUND)


async def test_a_task_is_out_of_reach_without_its_containers_record(place: Place) -> None:
    client = place.client
    await place.task("sleep 60")
    await client.containers.delete("c")
    assert await client.tasks.get("c") is None
    await client.containers.create(place.record())
    assert await client.tasks.get("c") is not None
    await place.end()


async def test_the_logs_get_all_that_the_task_wrote_and_then_their_end(place: Place) -> None:
    out, err = place.logs / "out", place.logs / "err"
    readers = []
    for fifo in (out, err):
        os.mkfifo(fifo)
        readers.append(LogReader(fifo))
    await place.task("echo hello; echo oops >&2", stdout=str(out), stderr=str(err))
    await place.client.tasks.start("c")
    written = [await asyncio.to_thread(reader.finish) for reader in readers]
    assert written == [b"hello\n", b"oops\n"]
    await until_stopped(place.client, "c")
    await place.client.tasks.delete("c")


async def test_the_shims_address_is_in_the_tasks_bundle(place: Place, daemon: Daemon) -> None:
    pid = await place.task("sleep 60")
    shim = await place.client.shim("c", pid)
    assert shim is not None
    assert Path(shim.address.removeprefix("unix://")).exists()
    await place.end()


# --- exec


async def _exec(place: Place, args: list[str]) -> list[LogReader]:
    """Prepares a command in the running task, with FIFOs as streams."""
    for name in ("in", "o", "e"):
        os.mkfifo(place.logs / name)
    process = json.loads(place.spec("").decode())["process"] | {"args": args}
    await place.client.tasks.create_exec(
        "c",
        "x",
        json.dumps(process).encode(),
        Streams(
            stdin=str(place.logs / "in"), stdout=str(place.logs / "o"), stderr=str(place.logs / "e")
        ),
    )
    return [LogReader(place.logs / name) for name in ("o", "e")]


async def test_a_command_in_a_task_has_streams_and_an_exit_of_its_own(place: Place) -> None:
    client = place.client
    await place.task("sleep 60")
    await client.tasks.start("c")
    readers = await _exec(place, ["/bin/sh", "-c", "cat; echo oops >&2; exit 4"])
    stdin = os.open(place.logs / "in", os.O_RDWR)
    assert await client.tasks.start_exec("c", "x")
    os.write(stdin, b"words")
    os.close(stdin)
    await client.tasks.close_stdin("c", "x")
    assert (await client.tasks.wait("c", "x")).code == 4
    written = [await asyncio.to_thread(reader.finish) for reader in readers]
    assert written == [b"words", b"oops\n"]
    for _ in range(2):
        await client.tasks.delete_exec("c", "x")
    await place.end()


async def test_a_command_that_cannot_be_run_is_refused(place: Place) -> None:
    client = place.client
    await place.task("sleep 60")
    await client.tasks.start("c")
    readers = await _exec(place, ["/no/such/program"])
    stdin = os.open(place.logs / "in", os.O_RDWR)
    with pytest.raises(DriverError) as failed:
        await client.tasks.start_exec("c", "x")
    os.close(stdin)
    assert "no such file or directory" in failed.value.details.lower()
    for name in ("o", "e"):  # the shim has not opened them, and the readers still wait
        os.close(await asyncio.to_thread(os.open, place.logs / name, os.O_WRONLY))
    assert [await asyncio.to_thread(reader.finish) for reader in readers] == [b"", b""]
    await client.tasks.delete_exec("c", "x")
    await place.end()
