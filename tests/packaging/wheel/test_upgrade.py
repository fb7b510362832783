"""Upgrades below a running task: pip replaces the files, and then the plugin starts again."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging.wheel.conftest import NEWER, install, link
from tests.support.needs import missing
from tests.support.plugin.driver import Driver, launched
from tests.support.plugin.plugin_dir import ROOT, SCRIPT
from tests.support.waiting import until
from tests.support.workers.launcher import launcher_pid, worker_pids

pytestmark = pytest.mark.containerd

EARLIER, EARLIER_COMMIT = "1.3.0", "9cfad8d7d69ed45d33469452a80a95e7045786fe"
"""The last release without a wheel, and its last commit."""
COUNTER = (
    "i=0; until test -e /local/stop; do i=$((i+1)); echo line $i; usleep 2000; done;"
    "echo $i > /local/last; exit 23"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Lays out a checkout of release EARLIER."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", EARLIER_COMMIT], check=False, capture_output=True
    )
    if archive.returncode != 0:
        missing("packaging", f"the history of this clone has no {EARLIER_COMMIT[:7]}")
    directory = tmp_path / "checkout"
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)
    return directory


async def task_outlives(
    upgrade: Callable[[], object], driver: Driver, image: str, before: str, after: str
) -> None:
    """Upgrades the plugin below a task: the task keeps its worker, its whole log and its exit."""
    job = driver.task()
    async with launched(driver) as session:
        assert session.info.version == f"v{before}"
        handle = await driver.start(job, image, COUNTER)
        await until(lambda: b"line 100\n" in job.out, 20, lambda: f"{bytes(job.out)!r}")
        workers, launcher = worker_pids(driver.state_dir), launcher_pid(driver.state_dir)
        upgrade()
        # The plugin of before still serves the task.
        assert (await session.exec(job.id, ["/bin/echo", "on"])).stdout == b"on\n"
    async with launched(driver) as session:
        assert session.info.version == f"v{after}"
        await driver.healthy()
        assert launcher_pid(driver.state_dir) != launcher, "the launcher is of the earlier release"
        await session.recover(handle)
        seen = len(job.out)
        await until(lambda: len(job.out) > seen + 1000, 20, "the task does not go on")
        assert worker_pids(driver.state_dir) == workers
        assert await driver.output(image, "echo next") == "next\n"
        await session.exec(job.id, ["/bin/touch", "/local/stop"])
        assert (await session.wait(job.id)).exit_code == 23
        await driver.end(job)
    local = Path(job.alloc.path, job.config.name, "local")
    last = int((local / "last").read_text())
    assert job.out.decode().splitlines() == [f"line {number}" for number in range(1, last + 1)]


async def test_a_task_outlives_an_upgrade_of_the_wheel(
    driver: Driver, busybox_image: str, make_environment: Callable[..., Path], newer_wheel: Path
) -> None:
    environment = make_environment()
    link(environment, driver.program.parent)
    await task_outlives(
        functools.partial(install, environment, newer_wheel),
        *(driver, busybox_image),
        *(RELEASE, NEWER),
    )


async def test_a_task_outlives_the_move_from_an_earlier_checkout_to_the_wheel(
    driver: Driver, busybox_image: str, environment: Path, checkout: Path
) -> None:
    driver.program.write_text(SCRIPT.format(python=sys.executable, root=str(checkout)))
    await task_outlives(
        functools.partial(link, environment, driver.program.parent),
        *(driver, busybox_image),
        *(EARLIER, RELEASE),
    )
