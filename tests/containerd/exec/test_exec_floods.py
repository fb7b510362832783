"""Tests of script checks that print without end: many at once cost the plugin little."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.exec.tail import LEAST_BYTES, MOST_BYTES
from tests.support.plugin.driver import Driver, launched

pytestmark = pytest.mark.containerd

MIB = 1 << 20
PRINTS_8_MIB = "head -c 8388608 /dev/zero; head -c 8388608 /dev/zero >&2; echo end; echo END >&2"


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_the_ends_of_what_many_print_are_kept_in_little_memory(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, "sleep 600")
        await session.exec(job.id, ["true"])
        before = peak_bytes(session.pid)
        command = ["sh", "-c", PRINTS_8_MIB]
        done = await asyncio.gather(*(session.exec(job.id, command, 100) for _ in range(15)))
        for one in done:
            assert one.exit.exit_code == 0
            assert one.stdout.endswith(b"\0end\n")
            assert one.stderr.endswith(b"\0END\n")
            assert LEAST_BYTES <= len(one.stdout) <= MOST_BYTES
        assert peak_bytes(session.pid) - before < 60 * MIB
        await driver.end(job)
