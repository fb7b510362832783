"""Tests of devices of real containers: tasks can use the given devices, and no others."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import DeviceConfig
from proto.errors import DriverError
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries.registry import Registry

pytestmark = pytest.mark.containerd
NODE = "/dev/driver-test-full"


async def output(driver: Driver, job: Job, image: str, script: str, **options: Any) -> str:
    """Returns the output of a task from start to end."""
    await driver.start(job, image, script, **options)
    await driver.session.wait(job.id)
    await driver.end(job)
    return (job.out + job.err).decode()


@pytest.fixture
def node() -> Iterator[str]:
    """Makes a device of the host which no container has by default: the kernel's mem:kmsg, 1:11."""
    os.mknod(NODE, stat.S_IFCHR | 0o640, os.makedev(1, 11))
    os.chown(NODE, 0, 1000)
    try:
        yield NODE
    finally:
        Path(NODE).unlink()


async def test_every_container_has_the_usual_devices_and_no_others(
    driver: Driver, busybox_image: str
) -> None:
    script = (
        "for d in null zero full random urandom tty ptmx; do test -c /dev/$d && echo $d; done;"
        "head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c;"
        "echo x > /dev/null && echo ok;"
        "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg; ls /dev/kmsg"
    )
    async with launched(driver):
        said = await output(driver, driver.task(), busybox_image, script)
        assert said.startswith("null\nzero\nfull\nrandom\nurandom\ntty\nptmx\n4\n4\nok\n")
        # CAP_MKNOD lets the task make the node; the cgroup denies the open.
        assert "/tmp/kmsg: Operation not permitted" in said
        assert "/dev/kmsg: No such file" in said


async def test_a_device_is_there_with_its_numbers_owner_and_rights(
    driver: Driver, busybox_image: str, node: str
) -> None:
    script = (
        "stat -c '%n %t:%T %a %u:%g' /dev/*log; head -c 0 /dev/log && echo can-read;"
        "echo x > /dev/log && echo can-write"
    )
    async with launched(driver):
        said = await output(
            driver,
            driver.task(),
            busybox_image,
            script,
            cap_add=["SYSLOG"],
            devices=[f"{node}:/dev/log:r"],
        )
        assert "/dev/log 1:b 640 0:1000" in said
        assert "can-read" in said
        assert "can-write" not in said
        assert "Operation not permitted" in said


async def test_a_link_and_a_directory_lead_to_devices(
    driver: Driver, busybox_image: str, node: str, tmp_path: Path
) -> None:
    link = tmp_path / "by-id"
    link.symlink_to(node)
    async with launched(driver):
        said = await output(
            driver,
            driver.task(),
            busybox_image,
            "stat -c '%n %t:%T' /dev/mine",
            devices=[{"host_path": str(link), "container_path": "/dev/mine"}],
        )
        assert said == "/dev/mine 1:b\n"


@pytest.mark.skipif(not Path("/dev/loop0").exists(), reason="this machine has no loop devices")
async def test_loop_devices_are_there_for_a_job_that_names_them(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        said = await output(
            driver,
            driver.task(),
            busybox_image,
            "stat -c '%F %n %t:%T' /dev/loop0 /dev/loop1; head -c 0 /dev/loop0 && echo open",
            devices=["/dev/loop0", "/dev/loop1"],
        )
        assert said.splitlines() == [
            "block special file /dev/loop0 7:0",
            "block special file /dev/loop1 7:1",
            "open",
        ]


async def test_devices_and_mounts_of_nomads_device_plugins_arrive(
    driver: Driver, busybox_image: str, node: str
) -> None:
    async with launched(driver):
        job = driver.task()
        given = DeviceConfig(host_path=node, task_path="/dev/gpu0", cgroup_permissions="rw")
        job.config = dataclasses.replace(job.config, devices=(given,), device_env={"GPU_IDS": "0"})
        said = await output(
            driver, job, busybox_image, "stat -c '%n %t:%T' /dev/gpu0; echo ids $GPU_IDS"
        )
        assert said == "/dev/gpu0 1:b\nids 0\n"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("/etc/passwd", "not a device node"),
        ("/dev/no-such-device", "cannot be used: No such file"),
        ("/etc", "outside /dev: not a device node"),
        ("/dev/null:/proc/x", "cannot be the path of a device"),
        ("/dev/null:/dev/x:rwx", "rwm"),
        ("acme.com/gpu=0", "no CDI device 'acme.com/gpu=0'"),
    ],
)
async def test_s6_a_wrong_device_is_refused_before_anything_is_pulled(
    driver: Driver, registry: Registry, device: str, text: str
) -> None:
    async with launched(driver) as session:
        options = {"image": f"{registry.host}/never-there:1", "devices": [device]}
        with pytest.raises(DriverError, match=text):
            await session.start(driver.task().config, options)
        driver.wait_clean()


async def test_a_cdi_device_brings_its_node_mount_variable_and_hook(
    driver: Driver, busybox_image: str, node: str, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/acme.so").write_text("library\n")
    hook = {
        "hookName": "createRuntime",
        "path": "/bin/sh",
        "args": ["sh", "-c", f"cat > {tmp_path}/hook"],
    }
    mount = {
        "hostPath": str(tmp_path / "lib"),
        "containerPath": "/usr/lib/acme",
        "options": ["ro", "nosuid", "nodev", "bind"],
    }
    document = {
        "cdiVersion": "0.5.0",
        "kind": "acme.com/gpu",
        "containerEdits": {"env": ["ACME_VISIBLE=void"], "mounts": [mount], "hooks": [hook]},
        "devices": [
            {
                "name": "0",
                "containerEdits": {"deviceNodes": [{"path": "/dev/acme0", "hostPath": node}]},
            }
        ],
    }
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/acme.json").write_text(json.dumps(document))
    mine = Driver(
        driver.containerd, tmp_path / "second", {"cdi_spec_dirs": [str(tmp_path / "cdi")]}
    )
    (tmp_path / "second").mkdir(exist_ok=True)
    try:
        async with launched(mine):
            job = mine.task()
            said = await output(
                mine,
                job,
                busybox_image,
                "stat -c '%n %t:%T' /dev/acme0; cat /usr/lib/acme/acme.so; touch /usr/lib/acme/x;"
                "echo $ACME_VISIBLE",
                devices=["acme.com/gpu=0"],
            )
            assert said.startswith("/dev/acme0 1:b\nlibrary\nvoid\n")
            assert "Read-only file system" in said
            assert json.loads((tmp_path / "hook").read_text())["id"] == job.container
        mine.wait_clean()
    finally:
        mine.close()


async def test_gpus_of_the_device_plugin_appear_and_the_jobs_own_variable_brings_none(
    driver: Driver, busybox_image: str, node: str, tmp_path: Path
) -> None:
    edits = {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": node}]}
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": name, "containerEdits": edits} for name in ("0", "GPU-8f6d", "all")],
    }
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/nvidia.json").write_text(json.dumps(document))
    (tmp_path / "second").mkdir()
    settings = {"cdi_spec_dirs": [str(tmp_path / "cdi")], "allow_devices": []}
    mine = Driver(driver.containerd, tmp_path / "second", settings)
    script = "stat -c '%n %t:%T' /dev/nvidia* 2>/dev/null; echo $NVIDIA_VISIBLE_DEVICES"

    async def started(gpu: str | None, own: str) -> str:
        job = mine.task(env={"NVIDIA_VISIBLE_DEVICES": own})
        given = {} if gpu is None else {"NVIDIA_VISIBLE_DEVICES": gpu}
        job.config = dataclasses.replace(job.config, device_env=given)
        return await output(mine, job, busybox_image, script)

    try:
        async with launched(mine):
            assert await started("GPU-8f6d", "GPU-8f6d") == "/dev/nvidia0 1:b\nvoid\n"
            assert await started(None, "all") == "all\n"
            assert await started("none", "all") == "void\n"
            with pytest.raises(DriverError, match=r"no CDI device .*=GPU-77'"):
                await started("GPU-77", "0")
        mine.wait_clean()
    finally:
        mine.close()
