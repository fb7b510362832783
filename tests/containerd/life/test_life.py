"""The whole life of a task: real plugin process, real workers, real containerd, real registry."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from actors.model.nomad import Health, TaskState
from proto.errors import DriverError
from tests.support.plugin.driver import SLEEPER, Driver, launched
from tests.support.registries.registry import Registry
from tests.support.waiting import until
from tests.support.workers.launcher import worker_pid

pytestmark = pytest.mark.containerd


async def test_a_task_is_pulled_runs_logs_and_is_cleaned_up(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        look = await session.fingerprint()
        assert look.health is Health.HEALTHY, look.description
        assert look.attributes["driver.containerd.containerd_version"]
        job = driver.task(env={"GREETING": "hello"})
        await driver.start(job, busybox_image, 'echo "$GREETING"; echo oops >&2; exit 7')
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal, result.oom_killed) == (7, 0, False)
        assert result.error == ""
        status = await session.inspect(job.id)
        assert status.state is TaskState.EXITED
        assert 0 < status.started_at_ns <= status.completed_at_ns
        assert status.driver_attributes == {"containerName": job.container}
        # The objects that every test checks for at the end are visible while the task exists.
        kinds = {line.split()[0] for line in driver.leftovers()}
        assert kinds >= {"container", "task", "snapshot", "state"}
        await driver.end(job)
        driver.wait_clean()
        assert (bytes(job.out), bytes(job.err)) == (b"hello\n", b"oops\n")
        with pytest.raises(DriverError, match="task not found for given id"):
            await session.inspect(job.id)


async def test_twenty_tasks_live_side_by_side(driver: Driver, busybox_image: str) -> None:
    async def one(number: int) -> None:
        job = driver.task(f"t{number}")
        await driver.start(
            job, busybox_image, f"for i in $(seq 500); do echo {number}:$i; done; exit {number}"
        )
        result = await driver.session.wait(job.id)
        assert result.exit_code == number
        await driver.end(job)
        assert job.out.decode().splitlines() == [f"{number}:{i}" for i in range(1, 501)]

    async with launched(driver):
        await asyncio.gather(*(one(number) for number in range(20)))


async def test_a_task_that_follows_sigterm_stops_with_its_own_code(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        await until(lambda: b"ready" in job.out, 10)
        await session.stop(job.id, timeout_s=60)
        assert (await session.wait(job.id)).exit_code == 0
        await session.stop(job.id)  # once more is fine
        await driver.end(job)
        await session.stop(job.id)  # as is a removed task


async def test_a_task_that_ignores_its_signal_is_killed_after_its_timeout(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, 'trap "" TERM; echo ready; sleep 600')
        await until(lambda: b"ready" in job.out, 10)
        await session.stop(job.id, timeout_s=0.3)
        result = await session.wait(job.id)
        assert (result.exit_code, result.signal) == (137, 9)
        await driver.end(job)


async def test_the_jobs_kill_signal_is_what_a_task_gets(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = 'trap "exit 3" USR1; trap "" TERM; echo ready; while :; do sleep 0.1; done'
        await driver.start(job, busybox_image, script)
        await until(lambda: b"ready" in job.out, 10)
        await session.stop(job.id, timeout_s=60, signal="SIGUSR1")
        assert (await session.wait(job.id)).exit_code == 3
        await driver.end(job)


async def test_signals_reach_the_task_and_wrong_names_are_refused(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = 'trap "echo got hup" HUP; echo ready; while :; do sleep 0.1; done'
        await driver.start(job, busybox_image, script)
        await until(lambda: b"ready" in job.out, 10)
        await session.signal(job.id, "SIGHUP")
        await until(lambda: b"got hup" in job.out, 10)
        await session.signal(job.id, "SIGNULL")
        with pytest.raises(DriverError, match="Invalid signal: SIGNONSENSE"):
            await session.signal(job.id, "SIGNONSENSE")
        await driver.end(job)


async def test_stats_are_the_kernels_own_numbers(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = "head -c 20000000 /dev/zero > /dev/shm/x; while :; do :; done"
        await driver.start(job, busybox_image, script)
        samples = []
        async for sample in session.stats(job.id, 0.2):
            samples.append(sample)
            full = (sample.memory.usage or 0) > 20_000_000
            # On a shared machine, the task's loop may get little of a core for a while.
            if len(samples) > 2 and full and sample.cpu.percent > 5:
                break
        assert samples[0].cpu.percent == 0
        assert samples[-1].cpu.percent < 130
        assert 20_000_000 <= (samples[-1].memory.usage or 0) <= 64 * 1024 * 1024
        await driver.end(job)


async def test_a_task_out_of_memory_is_reported_as_such(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = driver.task(memory_mb=16)
        await driver.start(job, busybox_image, "exec tail /dev/zero")
        result = await session.wait(job.id)
        assert result.oom_killed
        assert result.exit_code == 137
        await driver.end(job)


async def test_a_task_sees_its_directories_and_not_its_logs_writable(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = (
            "echo a > /alloc/data/f; echo l > /local/f; echo s > /secrets/f;"
            "rm /alloc/logs/.t.stdout.fifo 2>&1;"
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
        )
        await driver.start(job, busybox_image, script)
        await session.wait(job.id)
        await driver.end(job)
        assert b"Read-only file system" in job.out
        assert str(64 * 1024 * 1024).encode() in job.out
        base = Path(job.config.alloc_dir)
        assert (base / "alloc/data/f").read_text() == "a\n"
        assert (base / "t/local/f").read_text() == "l\n"
        assert (base / "t/secrets/f").read_text() == "s\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image": "Not/Valid:1"}, "is not an image reference"),
        ({"command": "/no/such/program"}, "no such file"),
        ({"cwd": "/proc/self/fd/8"}, "cwd"),
        ({"hostname": "a" * 60 + " b"}, "hostname"),
        ({"image_pull_timeout": "5"}, "Failed to parse image_pull_timeout"),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(
    driver: Driver, busybox_image: str, options: dict[str, object], text: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        with pytest.raises(DriverError, match=text) as caught:
            await session.start(job.config, {"image": busybox_image, **options})
        assert not caught.value.recoverable
        driver.wait_clean()


async def test_an_unknown_user_is_named_and_leaves_nothing(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task(user="nobody-here")
        with pytest.raises(DriverError, match=r"no users found.*nobody-here"):
            await session.start(job.config, {"image": busybox_image})
        driver.wait_clean()


async def test_an_image_that_is_not_there_is_final_and_an_absent_registry_is_not(
    driver: Driver, registry: Registry
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        with pytest.raises(DriverError, match="pull access denied, repository") as caught:
            await session.start(job.config, {"image": f"{registry.host}/nothing:1"})
        assert not caught.value.recoverable
        with pytest.raises(DriverError, match="cannot be read") as caught:
            await session.start(job.config, {"image": "127.0.0.1:1/nothing:1"})
        assert caught.value.recoverable


async def test_the_same_task_is_not_started_twice(driver: Driver, busybox_image: str) -> None:
    async with launched(driver):
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        with pytest.raises(DriverError, match=r'task with ID ".*" already started'):
            await driver.session.start(job.config, {"image": busybox_image})
        await driver.end(job)


async def test_a_running_task_is_not_destroyed_without_force(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        with pytest.raises(DriverError, match="cannot destroy running task"):
            await session.destroy(job.id, force=False)
        await driver.end(job)


async def test_a_killed_plugin_loses_neither_task_nor_log_nor_exit(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; sleep 0.5; exit 9"
        handle = await driver.start(job, busybox_image, script)
        pid = _task_pid(driver, job.container)
        session.kill_plugin()
        await session.launch()
        await session.recover(handle)
        assert int(driver.daemon.ctr("tasks", "list").split(job.container)[1].split()[0]) == pid
        assert (await session.wait(job.id)).exit_code == 9
        await driver.end(job)
        assert job.out.decode().splitlines() == [f"line {i}" for i in range(1, 3001)]


def _task_pid(driver: Driver, container: str) -> int:
    return int(driver.daemon.ctr("tasks", "list").split(container)[1].split()[0])


async def test_an_exit_while_no_plugin_runs_is_told_after_recovery(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        handle = await driver.start(job, busybox_image, "sleep 0.3; exit 4")
        session.kill_plugin()
        await job.logs_end()
        await session.launch()
        await session.recover(handle)
        assert (await session.wait(job.id)).exit_code == 4
        await driver.end(job)


async def test_a_killed_worker_is_replaced(driver: Driver, busybox_image: str) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(
            job, busybox_image, 'trap "exit 6" USR1; echo ready; while :; do sleep 0.1; done'
        )
        await until(lambda: b"ready" in job.out, 10)
        worker = _worker_pid(driver, job.container)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        await until(lambda: _worker_pid(driver, job.container) not in {None, worker}, 10)
        await session.signal(job.id, "SIGUSR1")
        assert (await session.wait(job.id)).exit_code == 6
        await driver.end(job)


def _worker_pid(driver: Driver, container: str) -> int | None:
    return worker_pid(driver.state_dir / "tasks" / container)


async def test_a_task_that_nobody_recovers_is_destroyed_by_its_id(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        session.kill_plugin()
        await session.launch()
        with pytest.raises(DriverError, match="task not found for given id"):
            await session.inspect(job.id)
        await session.destroy(job.id)
        await job.logs_end()


async def test_a_shim_that_is_killed_is_a_lost_task_with_a_reason(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        await until(lambda: b"ready" in job.out, 10)
        listing = Path("/proc").iterdir()
        shims = [p for p in listing if p.name.isdigit() and _is_shim_of(p, job.container)]
        assert len(shims) == 1
        os.kill(int(shims[0].name), signal.SIGKILL)
        result = await session.wait(job.id)
        assert result.exit_code == 137
        assert "shim" in result.error
        await driver.end(job)


def _is_shim_of(process: Path, container: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"containerd-shim" in words[0] and container.encode() in words


async def test_containerd_away_is_unhealthy_with_the_reason_and_no_exit(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, busybox_image, SLEEPER)
        await until(lambda: b"ready" in job.out, 10)
        waiter = asyncio.create_task(session.wait(job.id))
        driver.daemon.kill()
        try:
            look = await session.fingerprint()
            assert look.health is Health.UNHEALTHY
            assert driver.containerd.address in look.description
            await session.signal(job.id, "SIGCONT")  # the worker reaches the shim by itself
            with pytest.raises(DriverError, match="containerd does not answer") as caught:
                await session.start(driver.task().config, {"image": busybox_image})
            assert caught.value.recoverable
            assert not waiter.done()
        finally:
            driver.containerd.start()
        async for look in session.fingerprints():
            if look.health is Health.HEALTHY:
                break
        await session.stop(job.id)
        assert (await waiter).exit_code == 0
        await driver.end(job)


async def test_another_namespace_in_the_options_loses_no_task(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        handle = await driver.start(job, busybox_image, "echo ready; exec sleep 600")
        await until(lambda: job.out, 10)
        await session.close()
        changed = Driver(
            driver.containerd,
            tmp_path,
            {"containerd_namespace": "elsewhere"},
        ).session
        await changed.launch()
        try:
            await changed.recover(handle)
            assert (await changed.exec(job.id, ["echo", "here"])).stdout == b"here\n"
            await changed.destroy(job.id)
            await job.logs_end()
        finally:
            await changed.close()
