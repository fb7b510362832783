"""Child processes after the end of their caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from actors.processes import child_process
from tests.support.waiting import slowed, until

ANSWER_S = 10.0


async def test_a_start_that_is_cancelled_meanwhile_leaves_no_child_and_no_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go = threading.Event(), threading.Event()
    children: list[child_process.Child] = []
    start = child_process.start

    def slowly(argv: Sequence[str], **options: Any) -> child_process.Child:
        begun.set()
        assert go.wait(slowed(ANSWER_S))
        children.append(start(argv, **options))
        return children[0]

    monkeypatch.setattr(child_process, "start", slowly)
    pipe = child_process.PIPE
    starting = asyncio.create_task(
        child_process.started(["/bin/sleep", "600"], stdin=pipe, stdout=pipe, stderr=pipe)
    )
    await until(begun.is_set, ANSWER_S)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    go.set()
    await until(lambda: children and children[0].poll() is not None, ANSWER_S, "it lives")
    child = children[0]
    assert all(pipe is not None and pipe.closed for pipe in (child.stdin, child.stdout))
    assert child.stderr is not None
    assert child.stderr.closed
