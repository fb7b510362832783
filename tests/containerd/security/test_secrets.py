"""Tests of secrets of a job (S22), which are in no log, error, file or process table."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.plugin.driver import SLEEPER, Driver, launched
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd


async def test_s22_no_secret_is_in_a_log_an_error_a_file_or_the_process_table(
    driver: Driver, busybox_image: str, registry: Registry, raw_log: list[bytes]
) -> None:
    """Covers a running task, a task that fails at each step, an exec, and a killed plugin."""
    secrets = ("s3cr3t-env", "s3cr3t-auth", "s3cr3t-exec")
    auth = [{"username": "u", "password": "s3cr3t-auth"}]
    said: list[str] = []

    async def fails(**options: Any) -> None:
        job = driver.task(env={"TOKEN": "s3cr3t-env"})
        with pytest.raises(DriverError) as caught:
            await driver.session.start(job.config, {"auth": auth, **options})
        said.append(str(caught.value))

    async with launched(driver) as session:
        await fails(image=f"{registry.host}/never-there:1")
        await fails(image="127.0.0.1:1/away:1")
        await fails(image=busybox_image, command="/bin/none")
        await fails(image=busybox_image, cwd="/proc")
        await fails(image=busybox_image, auth=[{"username": "u", "passwort": "s3cr3t-auth"}])
        await fails(image=busybox_image, auth=[{"username": 1, "password": ["s3cr3t-auth"]}])
        job = driver.task(env={"TOKEN": "s3cr3t-env"})
        handle = await driver.start(job, busybox_image, SLEEPER, auth=auth)
        await session.exec(job.id, ["/bin/echo", "s3cr3t-exec"])
        found = [line for line in _process_table() if b"s3cr3t" in line]
        # Only the task's own processes have the secrets of the environment.
        assert all(line.startswith((b"/bin/sh\0-c\0trap", b"sleep")) for line in found), found
        files = [path for path in driver.state_dir.rglob("*") if path.is_file()]
        said.extend(path.read_text(errors="replace") for path in files)
        session.kill_plugin()
        await session.launch()
        await session.recover(handle)
        await session.stop(job.id)
        await driver.end(job)
        said.append((driver.state_dir / "launcher.log").read_text(errors="replace"))
    assert len(raw_log) > 3
    for text in (*said, *(line.decode(errors="replace") for line in raw_log)):
        assert not any(secret in text for secret in secrets), text


@pytest.fixture
def raw_log(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Returns every unchanged line that plugins have written to stderr."""
    from plugin.host.agent import hclog, plugin_process

    lines: list[bytes] = []
    parse: Callable[[bytes], Any] = hclog.parse_line

    def keep(raw: bytes) -> Any:
        lines.append(raw)
        return parse(raw)

    monkeypatch.setattr(plugin_process, "parse_line", keep)
    return lines


def _process_table() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                yield (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()


async def test_s22_the_state_directory_is_roots_alone(driver: Driver, busybox_image: str) -> None:
    before = os.umask(0)  # like the most careless service manager
    try:
        async with launched(driver):
            job = driver.task()
            await driver.start(job, busybox_image, SLEEPER)
            # Descriptors held for the runtime belong to the task, and go a moment after the start.
            held = driver.state_dir / "mounts" / job.container
            await until(lambda: b"ready" in job.out and not held.exists(), 10)
            for path in (driver.state_dir, *driver.state_dir.rglob("*")):
                status = path.lstat()
                assert status.st_uid == 0
                assert not status.st_mode & 0o077, (path, oct(status.st_mode))
            await driver.end(job)
    finally:
        os.umask(before)
