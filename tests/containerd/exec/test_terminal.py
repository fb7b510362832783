"""Tasks with a terminal, and tasks whose stdin stays open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.plugin.victims import CONTAINERD, PLUGIN, WORKER, Victims, runs
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

IS_TERMINAL = "for n in 0 1 2; do test -t $n && echo $n; done; echo error >&2; echo TERM=$TERM"


async def test_the_output_of_a_terminal_is_in_stdout_and_both_logs_end(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, IS_TERMINAL, tty=True)
        assert (await session.wait(job.id)).exit_code == 0
        await driver.end(job)
        assert bytes(job.out) == b"0\r\n1\r\n2\r\nerror\r\nTERM=xterm\r\n"
        assert bytes(job.err) == b""
        plain = await driver.output(busybox_image, IS_TERMINAL + "; cat; echo end")
        assert plain == "TERM=\nend\n"


async def _has_worker(driver: Driver, job: Job) -> None:
    """Waits for a worker that runs: the plugin replaces a killed worker."""
    await until(lambda: runs(Victims(driver, job).worker), 10, "no worker")


@pytest.mark.parametrize("tty", [False, True])
async def test_stdin_stays_open_without_input(
    driver: Driver, busybox_image: str, tty: bool
) -> None:
    script = "timeout 1 cat; echo status=$?"
    async with launched(driver):
        said = await driver.output(busybox_image, script, tty=tty, interactive=True)
        assert said.split()[-1] == "status=143"  # a signal, and no end of stdin


async def test_a_task_with_a_terminal_outlives_plugin_worker_and_containerd(
    driver: Driver, busybox_image: str
) -> None:
    script = "i=0; while ! test -e /local/stop; do i=$((i+1)); echo $i; sleep 0.02; done; exit 7"
    async with launched(driver) as session:
        job = driver.task()
        handle = await driver.start(job, busybox_image, script, tty=True, interactive=True)

        async def more() -> None:
            length = len(job.out)
            await until(lambda: len(job.out) > length + 50, 10, "the task says nothing more")

        await more()
        for victims in ((PLUGIN,), (WORKER,), (CONTAINERD,), (PLUGIN, WORKER)):
            around = Victims(driver, job)
            around.kill(*victims)
            await around.bring_back(*victims, handle=handle)
            await more()
            await _has_worker(driver, job)
        said = await session.exec(job.id, ["/bin/sh", "-c", "test -t 0 || echo none"])
        assert said.stdout == b"none\n"
        Path(job.alloc.path, "t", "local", "stop").touch()
        assert (await session.wait(job.id)).exit_code == 7
        await driver.end(job)
    numbers = [int(line) for line in job.out.split()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_signal_ends_a_task_with_a_terminal(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
        await driver.start(job, busybox_image, script, tty=True)
        await until(lambda: b"ready" in job.out, 10, "the task says nothing")
        await session.stop(job.id, 5.0, "SIGTERM")
        assert (await session.wait(job.id)).exit_code == 3
        await driver.end(job)
        assert job.out.endswith(b"bye\r\n")


async def test_the_worker_collects_the_output_of_a_terminal(
    containerd: ContainerdDaemon, busybox_image: str, tmp_path: Path
) -> None:
    driver = Driver(containerd, tmp_path, {"log_collection": "driver"})
    job = driver.task()
    logs = Path(job.alloc.path, "alloc", "logs")
    for fifo in logs.iterdir():
        fifo.unlink()
    command = {"image": busybox_image, "command": "/bin/sh", "args": ["-c", IS_TERMINAL]}
    async with launched(driver) as session:
        await session.start(job.config, {**command, "tty": True})
        assert (await session.wait(job.id)).exit_code == 0
        await session.destroy(job.id)
    assert (logs / "t.stdout.0").read_bytes().endswith(b"error\r\nTERM=xterm\r\n")
    assert not (logs / "t.stderr.0").exists() or not (logs / "t.stderr.0").read_bytes()
    driver.wait_clean()
    driver.close()
