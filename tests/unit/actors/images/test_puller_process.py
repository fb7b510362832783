"""A puller process which dies before the first request."""

from __future__ import annotations

import pytest

from actors.images import puller_process
from actors.processes import child_process
from proto.errors import Code, DriverError


async def test_a_puller_that_dies_before_it_is_asked_is_reported_with_its_status() -> None:
    pipe = child_process.PIPE
    process = child_process.start(["/bin/false"], stdin=pipe, stdout=pipe)
    process.wait()
    with pytest.raises(DriverError, match="the puller process ended") as failed:
        await puller_process._converse(process, {"op": "pull"}, str)
    assert failed.value.details == "exit status 1"
    assert failed.value.code is Code.UNAVAILABLE
    assert process.stdout is not None
    assert process.stdout.closed
