"""Attacks on the operator's gates: refused by a closed gate, and possible with an open gate."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.node import this_node
from actors.model.nomad import Health
from actors.processes import known_escapes
from containerd import runtimes
from containerd.security import capabilities
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.seccomp import mask_of
from tests.support.plugin.driver import Driver, Job, launched

pytestmark = pytest.mark.containerd

# No server listens at the address: an error of the pull would show that a check came too late.
NO_IMAGE = "127.0.0.1:1/none:1"
MakeDriver = Callable[..., Driver]


@pytest.fixture
def with_gates(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[MakeDriver]:
    """Yields a function that makes a driver with options of the plugin block."""
    made: list[Driver] = []

    def make(**block: Any) -> Driver:
        made.append(Driver(containerd, tmp_path / str(len(made)), block))
        return made[-1]

    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    yield make
    for driver in made:
        try:
            driver.wait_clean()
        finally:
            driver.close()


async def refusal(driver: Driver, job: Job | None = None, **options: Any) -> str:
    """Returns the reason why a task does not start."""
    async with launched(driver) as session:
        with pytest.raises(DriverError) as caught:
            await session.start((job or driver.task()).config, {"image": NO_IMAGE, **options})
    return str(caught.value)


async def output(driver: Driver, image: str, script: str, **options: Any) -> str:
    """Returns the output of a task."""
    async with launched(driver):
        return await driver.output(image, script, **options)


@pytest.mark.parametrize("mode", ["pid_mode", "ipc_mode", "uts_mode"])
async def test_without_privileged_jobs_no_job_gets_a_namespace_of_the_host(
    with_gates: MakeDriver, busybox_image: str, mode: str
) -> None:
    kind = mode.removesuffix("_mode")
    script = f"readlink /proc/self/ns/{kind}"
    closed = with_gates(allow_privileged=False)
    said = await refusal(closed, None, **{mode: "host"})
    assert f'cannot apply "{mode}" configuration' in said
    inner = await output(closed, busybox_image, script)
    allowed = with_gates(allow_privileged=False, allowed_modes={kind: ["host"]})
    assert await output(allowed, busybox_image, script, **{mode: "host"}) != inner


async def test_hardened_names_the_open_gates_and_runs_a_plain_task(
    with_gates: MakeDriver, busybox_image: str
) -> None:
    hardened = with_gates(hardened=True, allow_known_holes=True)
    async with launched(hardened) as session:
        node = (await session.fingerprint()).attributes
    assert set(str(node["driver.containerd-driver.open_gates"]).split(",")) == {
        *("allow_registries", "allow_snapshotters", "allow_known_holes")
    }
    said = await refusal(hardened, pids_limit=100_000)
    assert "pids_limit cannot be greater than nomad plugin config" in said
    status = await output(
        hardened,
        busybox_image,
        "cat /proc/1/status; echo here >/alloc/x; cat /mine/x",
        volumes=["../alloc:/mine"],
    )
    allowed = set(capabilities.DEFAULT) - {"CAP_NET_RAW"}
    assert f"CapBnd:\t{mask_of(allowed):016x}" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert status.endswith("here\n")


async def test_a_node_with_a_known_hole_runs_a_task_only_with_the_operators_leave(
    with_gates: MakeDriver, busybox_image: str
) -> None:
    closed = with_gates(allow_known_holes=False)
    version = (await this_node(closed.settings).containerd.version()).version
    reason = known_escapes.of_node(runtimes.resolve(runtimes.DEFAULT), version)
    async with launched(closed) as session:
        health = await session.fingerprint()
    if reason:  # the runc of this machine is old
        assert (health.health, health.description) == (Health.UNHEALTHY, reason)
        assert reason in await refusal(closed)
        opened = with_gates(hardened=True, allow_known_holes=True)
        assert await output(opened, busybox_image, "echo here") == "here\n"
    else:
        assert health.health is Health.HEALTHY
        assert await output(closed, busybox_image, "echo here") == "here\n"


async def test_a_namespace_opens_a_gate_for_its_own_jobs(
    with_gates: MakeDriver, busybox_image: str
) -> None:
    driver = with_gates(allow_host_network=False, namespace={"infra": {"allow_host_network": True}})
    mine = driver.task(namespace="infra")
    inner = str(Path("/proc/self/ns/net").readlink())
    script = "readlink /proc/self/ns/net"
    said = await output(driver, busybox_image, script, job=mine, host_network=True)
    assert said.strip() == inner
    assert "allow_host_network is false" in await refusal(driver, host_network=True)


async def test_security_opt_opens_the_nodes_paths_with_the_gate_of_privileged_jobs_only(
    with_gates: MakeDriver, busybox_image: str
) -> None:
    # A task that may write to the host's kernel.core_pattern runs its program as root of the host.
    script = "f=/proc/sys/kernel/core_pattern; v=$(cat $f); echo $v >$f && echo way"
    script += "; grep NoNewPrivs /proc/self/status"
    ways = ["systempaths=unconfined", "writable-cgroups", "no-new-privileges"]
    closed = with_gates(allow_privileged=False)
    for way in ways[:2]:
        assert "allow_privileged is false" in await refusal(closed, security_opt=[way])
    said = await output(closed, busybox_image, script)
    assert "way" not in said
    assert "NoNewPrivs:\t0" in said
    said = await output(with_gates(), busybox_image, script, security_opt=ways)
    assert "way" in said
    assert "NoNewPrivs:\t1" in said


async def test_a_link_below_an_allowed_path_leads_to_no_other_place(
    with_gates: MakeDriver, busybox_image: str, tmp_path: Path
) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder in (allowed / "data", secret):
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.name)
    (allowed / "way").symlink_to(secret)
    (allowed / "inner").symlink_to(allowed / "data")
    closed = with_gates(volumes={"allowed_paths": [str(allowed)]})
    for path in (allowed / "way", secret, Path("/"), allowed / "../secret"):
        said = await refusal(closed, volumes=[f"{path}:/x"])
        assert f"volumes {{ allowed_paths }} is {allowed}" in said
    for path in (allowed / "data", allowed / "inner"):
        said = await output(closed, busybox_image, "cat /x/file", volumes=[f"{path}:/x"])
        assert said == "data"
    opened = with_gates()
    said = await output(opened, busybox_image, "cat /x/file", volumes=[f"{allowed}/way:/x"])
    assert said == "secret"


async def test_an_allowed_path_is_mounted_with_all_mounts_below_which_stay_on_the_node(
    with_gates: MakeDriver, busybox_image: str, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", allowed], check=True)
    try:
        subprocess.run(["mount", "--make-shared", allowed], check=True)
        (allowed / "below").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", allowed / "below"], check=True)
        (allowed / "below" / "file").write_text("inner")
        closed = with_gates(volumes={"allowed_paths": [str(allowed)]})
        script = "cat /x/below/file; echo more >>/x/below/file"
        said = await output(closed, busybox_image, script, volumes=[f"{allowed}:/x"])
        assert said == "inner"
        assert (allowed / "below" / "file").read_text() == "innermore\n"
        assert os.path.ismount(allowed / "below")
    finally:
        subprocess.run(["umount", "-R", allowed], check=True)


async def test_the_nodes_limit_of_pids_holds_for_a_job_without_one(
    with_gates: MakeDriver, busybox_image: str
) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all"
    limited = with_gates(pids_limit=5)
    async with launched(limited) as session:
        job = limited.task()
        await limited.start(job, busybox_image, script, host_dns=False)
        await session.wait(job.id)
        await limited.end(job)
    assert b"all" not in job.out
    assert "all" in await output(with_gates(), busybox_image, script)
