"""The agent's side of a plugin process."""

from __future__ import annotations

import asyncio

import pytest

from plugin.host.agent.plugin_process import PluginProcess
from tests.support.waiting import until

ANSWER_S = 10.0


async def test_a_start_that_is_cancelled_before_the_handshake_leaves_no_pipe() -> None:
    process = PluginProcess(["/bin/sleep", "600"])
    starting = asyncio.create_task(process.start())
    await until(lambda: process._pumps, ANSWER_S, "the plugin does not start")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    child = process._child
    assert child is not None
    stdout = child.stdout
    assert stdout is not None
    await until(lambda: stdout.closed, ANSWER_S, "the plugin's stdout stays open")
    await process.finish(0)
    assert not process.alive
