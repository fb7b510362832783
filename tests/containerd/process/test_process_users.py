"""Tests of the rights of a task's user, as the kernel or gVisor shows them, in tasks and execs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.daemons import runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd, need_program
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

RUNTIMES = ("runc", "crun", "runsc")
FILES: dict[str, images.Entry] = {
    "secret": ("of root\n", 0o600),
    "etc/passwd": ("root:x:0:0::/root:\ntoor:x:0:0::/:\nbob:x:1000:1000::/home/bob:\n", 0o644),
}
READ = ["/bin/cat", "/proc/self/status", "/secret"]
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NONE, DEFAULT = 0, 0xA80425FB
NET_RAW, SYS_TIME = 1 << 13, 1 << 25
# gVisor gives no process CAP_NET_RAW unless gVisor's own flag allows the capability.
BOUNDS = {"runc": DEFAULT, "crun": DEFAULT, "runsc": DEFAULT & ~NET_RAW}


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdDaemon]:
    """Yields a daemon that finds the runtimes of the tests."""
    need_containerd()
    directory = tmp_path_factory.mktemp("runtimes")
    runtimes.wrap(directory)
    with ContainerdDaemon(path=str(directory)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def image(registry: Registry) -> str:
    built = images.build([images.busybox_layer(FILES)], {"Env": ["HOSTNAME=0.0.0.0", "TERM=vt100"]})
    return images.push(registry.host, "process-users", "1", built)


def fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def sets(text: str) -> tuple[int, ...]:
    """Returns the capability sets in a status file."""
    found = fields(text)
    return tuple(int(found.get(name, "0"), 16) for name in SETS)


async def told(driver: Driver, user: str, image: str, **options: Any) -> tuple[str, str]:
    """Returns the output of READ as task and as exec. A shell's execve would drop capabilities."""
    first, second = driver.task(user=user), driver.task(user=user)
    await driver.start(first, image, command=READ[0], args=READ[1:], **options)
    await driver.session.wait(first.id)
    await driver.end(first)
    await driver.start(second, image, "exec sleep 60", **options)
    answer = await driver.session.exec(second.id, READ, 30)
    await driver.session.stop(second.id, 10, "SIGKILL")
    await driver.end(second)
    return (first.out + first.err).decode(), (answer.stdout + answer.stderr).decode()


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_user_other_than_root_has_only_the_bounding_set(
    driver: Driver, image: str, runtime: str
) -> None:
    need_program(runtime)
    bound = BOUNDS[runtime]
    users = ("bob", "1000:0", "77")
    async with launched(driver):
        for user in users:
            for text in await told(driver, user, image, runtime=runtime):
                assert sets(text) == (NONE, NONE, NONE, bound, NONE), (user, text)
                assert "of root" not in text, user
        texts = await told(driver, "bob", image, runtime=runtime, cap_add=["sys_time"])
        for text in texts:
            assert sets(text) == (NONE, NONE, NONE, bound | SYS_TIME, NONE), text


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_root_by_any_name_has_them_in_three_sets(
    driver: Driver, image: str, runtime: str
) -> None:
    need_program(runtime)
    bound = BOUNDS[runtime]
    async with launched(driver):
        for user in ("", "toor", "0:0"):
            for text in await told(driver, user, image, runtime=runtime):
                assert sets(text) == (NONE, bound, bound, bound, NONE), (user, text)
                assert "of root" in text, user


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_the_primary_group_is_one_of_the_supplementary_groups(
    driver: Driver, image: str, runtime: str
) -> None:
    """Covers CVE-2023-25173: a process outside of a group reads a file denied to the group."""
    need_program(runtime)
    expected = {"": {0}, "bob": {1000, 4}, "1000:77": {77}}
    async with launched(driver):
        for user, groups in expected.items():
            for text in await told(driver, user, image, runtime=runtime, group_add=["9", "9"]):
                found = fields(text)["Groups"].split()
                assert sorted(map(int, found)) == sorted({*groups, 9}), (user, text)


async def test_options_that_give_such_a_user_nothing_are_told(driver: Driver, image: str) -> None:
    async with launched(driver) as session:
        events: list[str] = []

        async def listen() -> None:
            async for event in session.events():
                events.extend([event.message] * ("no capability" in event.message))

        listening = asyncio.create_task(listen())
        for user, options in (
            ("bob", {"cap_add": ["net_admin"]}),
            ("bob", {"privileged": True}),
            ("toor", {"cap_add": ["net_admin"]}),
        ):
            job = driver.task(user=user)
            await driver.output(image, "true", job, **options)
        await until(lambda: len(events) == 2, 10)
        listening.cancel()
        assert events[0].startswith("cap_add gives user 1000 no capability, as with Docker")
        assert events[1].startswith("privileged gives user 1000 no capability")


async def test_a_command_runs_as_another_user_where_the_operator_allows_options(
    containerd: ContainerdDaemon, image: str, tmp_path: Path
) -> None:
    # The attack is root for a caller in a task that is not root.
    block = {
        "exec_options": ["user", "cwd", "env"],
        "namespace": {"ops": {"exec_options": ["user", "root"]}},
    }
    driver = Driver(containerd, tmp_path, block)
    shown = 'id -u; id -g; pwd; echo "$HOME $A"; cat /secret'
    try:
        async with launched(driver) as session:
            job, root = driver.task(user="bob"), driver.task(user="bob", namespace="ops")
            for each in (job, root):
                await driver.start(each, image, "exec sleep 60")

            async def said(task: Job, *words: str) -> str:
                done = await session.exec(task.id, [*words, "/bin/sh", "-c", shown], 30)
                return done.stdout.decode()

            own = (await said(job)).split()
            assert own == ["1000", "1000", "/", "/home/bob"]
            words = ("exec:/", "user=77:78", "cwd=/etc", "env=A=b", "--")
            assert (await said(job, *words)).split() == ["77", "78", "/etc", "/", "b"]
            for user, refusal in (
                ("root", "user is root: the task is not"),
                ("toor", "user is root"),
                ("77", "user 77 has group 0"),
                ("nobody-here", "the container has no such user"),
            ):
                with pytest.raises(DriverError, match=refusal):
                    await said(job, "exec:/", f"user={user}", "--")
            with pytest.raises(DriverError, match="working directory /gone: no such file"):
                await said(job, "exec:/", "cwd=/gone", "--")
            assert (await said(root, "exec:/", "user=toor", "--")).split() == [
                *("0", "0", "/", "/", "of", "root"),
            ]
            for each in (job, root):
                await session.stop(each.id, 10, "SIGKILL")
                await driver.end(each)
        driver.wait_clean()
    finally:
        driver.close()
