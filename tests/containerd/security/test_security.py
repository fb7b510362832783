"""Capabilities, filters and privileged tasks as the kernel sees them; profile paths as attacks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containerd.security import capabilities
from containerd.spec.devices import every_host_node
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.kernel.seccomp import docker_profile, mask_of
from tests.support.plugin.driver import Driver, launched

pytestmark = pytest.mark.containerd

# No server listens at the address: an error of the pull would show that a check came too late.
NO_IMAGE = "127.0.0.1:1/none:1"
STATUS = "cat /proc/1/status; "
NEW_USER_NAMESPACE = "busybox unshare -U true && echo unshared; "
MOUNT = "mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted; "


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """Makes the operator's directory of profiles."""
    made = tmp_path / "profiles"
    made.mkdir()
    return made


@pytest.fixture
def guarded(containerd: ContainerdDaemon, tmp_path: Path, profiles: Path) -> Iterator[Driver]:
    """Yields a driver with a directory of profiles and without privileged jobs."""
    config = {"seccomp_profile_dir": str(profiles), "allow_privileged": False}
    made = Driver(containerd, tmp_path, config)
    yield made
    try:
        made.wait_clean()
    finally:
        made.close()


async def output(driver: Driver, image: str, script: str, **options: Any) -> str:
    """Returns the output of a task from start to end, errors last."""
    async with launched(driver) as session:
        job = driver.task()
        await driver.start(job, image, script, host_dns=False, **options)
        await session.wait(job.id)
        await driver.end(job)
    return (job.out + job.err).decode()


async def refusal(driver: Driver, **options: Any) -> str:
    """Returns the reason why a task did not start."""
    async with launched(driver) as session:
        with pytest.raises(DriverError) as caught:
            await session.start(driver.task().config, {"image": NO_IMAGE, **options})
    return str(caught.value)


def fields(text: str) -> dict[str, str]:
    """Returns the lines of a status file by name."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def mask(*names: str) -> str:
    """Returns a set in the form of status files."""
    return f"{mask_of(names):016x}"


async def test_a_plain_task_has_the_default_set_no_filter_and_working_setuid_bits(
    driver: Driver, busybox_image: str
) -> None:
    become_root = (
        "sed -i s/^root:x:/root::/ /etc/passwd; cp /bin/busybox /tmp/su; chmod 4755 /tmp/su;"
        """busybox su bob -c 'echo as=$(id -u) and=$(/tmp/su -c "id -u")'"""
    )
    said = await output(driver, busybox_image, STATUS + NEW_USER_NAMESPACE + MOUNT + become_root)
    status = fields(said)
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == mask(*capabilities.DEFAULT)
    assert status["CapInh"] == status["CapAmb"] == mask()
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("0", "0")
    assert "unshared" in said
    assert "mounted" not in said
    assert "as=1000 and=0" in said


async def test_adds_and_drops_are_what_the_kernel_shows(driver: Driver, busybox_image: str) -> None:
    said = await output(
        driver,
        busybox_image,
        "chown 1:1 /tmp; " + STATUS,
        cap_add=["sys_admin", "CAP_IPC_OWNER", "IPC_LOCK"],
        cap_drop=["chown", "CAP_SYS_CHROOT", "DAC_OVERRIDE"],
    )
    left = {*capabilities.DEFAULT, "CAP_SYS_ADMIN", "CAP_IPC_OWNER", "CAP_IPC_LOCK"}
    left -= {"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"}
    status = fields(said)
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == mask(*left)
    assert status["CapInh"] == status["CapAmb"] == mask()
    assert "chown: /tmp: Operation not permitted" in said


async def test_a_task_without_any_capability_runs(driver: Driver, busybox_image: str) -> None:
    status = fields(await output(driver, busybox_image, STATUS, cap_drop=["all"], seccomp=True))
    assert status["CapBnd"] == status["CapEff"] == mask()
    assert status["Seccomp"] == "2"


async def test_the_default_filter_denies_what_capabilities_alone_would_let_through(
    driver: Driver, busybox_image: str
) -> None:
    said = await output(
        driver, busybox_image, STATUS + NEW_USER_NAMESPACE + "sleep 0 & wait", seccomp=True
    )
    assert fields(said)["Seccomp"] == "2"
    assert "unshared" not in said
    assert "Operation not permitted" in said


async def test_the_default_filter_lets_an_administrator_mount(
    driver: Driver, busybox_image: str
) -> None:
    script = STATUS + MOUNT + NEW_USER_NAMESPACE
    said = await output(driver, busybox_image, script, seccomp=True, cap_add=["SYS_ADMIN"])
    assert fields(said)["Seccomp"] == "2"
    assert "mounted" in said
    assert "unshared" in said


async def test_a_command_run_beside_the_task_has_its_filter_and_capabilities(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        options = {"seccomp": True, "cap_drop": ["KILL"], "host_dns": False}
        await driver.start(job, busybox_image, "sleep 60", **options)
        done = await session.exec(job.id, ["cat", "/proc/self/status"])
        status = fields(done.stdout.decode())
        assert status["Seccomp"] == "2"
        assert status["CapBnd"] == mask(*(set(capabilities.DEFAULT) - {"CAP_KILL"}))
        await session.stop(job.id, timeout_s=0)
        await driver.end(job)


async def test_a_profile_in_dockers_form_is_in_force_with_its_conditions(
    guarded: Driver, busybox_image: str, profiles: Path
) -> None:
    (profiles / "web.json").write_text(json.dumps(docker_profile()))
    script = (
        STATUS + "mount -t tmpfs none /tmp && echo mounted; mkdir /tmp/x;"
        "busybox chroot / true && echo rooted"
    )

    async def run(**options: Any) -> str:
        return await output(guarded, busybox_image, script, seccomp=True, **options)

    admin = await run(seccomp_profile="web.json", cap_add=["SYS_ADMIN"])
    assert fields(admin)["Seccomp"] == "2"
    assert "mounted" in admin
    assert "rooted" in admin
    assert "mkdir: can't create directory '/tmp/x': Function not implemented" in admin
    clock = await run(seccomp_profile=str(profiles / "web.json"), cap_add=["SYS_TIME"])
    assert "mounted" not in clock
    assert "rooted" not in clock


def mount_options(text: str) -> dict[str, str]:
    """Returns the options by target of the mounts in /proc/mounts below /proc or /sys."""
    words = [line.split() for line in text.splitlines() if " /proc" in line or " /sys" in line]
    return {line[1]: line[3].split(",")[0] for line in words}


async def test_a_privileged_task_has_everything_of_the_host(
    driver: Driver, busybox_image: str
) -> None:
    nodes = [node.path for node in every_host_node()]
    assert "/dev/null" in nodes
    script = (
        f"{STATUS} cat /proc/mounts; echo $(hostname) > /proc/sys/kernel/hostname && echo written;"
        'mknod /tmp/kmsg c 1 11 && test -n "$(head -c 1 /tmp/kmsg)" && echo log;'
        f"for d in {' '.join(nodes)}; do test -b $d || test -c $d || echo missing $d; done"
    )
    said = await output(driver, busybox_image, script, privileged=True)
    status = fields(said)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    own = fields(Path("/proc/self/status").read_text())
    everything = f"{int(own['CapEff'], 16) & ((2 << last) - 1):016x}"
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == everything
    assert status["CapInh"] == status["CapAmb"] == mask()
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("0", "0")
    assert {"written", "log"} <= set(said.splitlines())
    assert "missing" not in said
    shown = mount_options(said)
    assert set(shown.values()) == {"rw"}
    # Nothing covers a part of /proc, and of /sys only the cgroups.
    extra = set(shown) - {"/proc", "/sys"}
    assert all(target.startswith("/sys/fs/cgroup") for target in extra)


async def test_a_plain_task_has_no_devices_of_the_host_and_may_not_write_to_the_kernel(
    driver: Driver, busybox_image: str
) -> None:
    script = (
        "cat /proc/mounts; echo x > /proc/sys/kernel/hostname;"
        "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg"
    )
    said = await output(driver, busybox_image, script)
    shown = mount_options(said)
    assert shown["/proc/sys"] == shown["/sys"] == "ro"
    groups = [line.split()[1] for line in said.splitlines() if line.split()[2][:6] == "cgroup"]
    assert {shown[target] for target in groups} == {"ro"}
    assert "/proc/sys/kernel/hostname: Read-only file system" in said
    assert "/tmp/kmsg: Operation not permitted" in said


async def test_privileged_jobs_are_refused_before_the_pull_where_the_operator_says_so(
    guarded: Driver,
) -> None:
    assert (
        "Running privileged jobs are not allowed. Set allow_privileged to true in plugin config"
        " to allow running privileged jobs." in await refusal(guarded, privileged=True)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cap_add": ["SYS_ADMN"]}, "did you mean SYS_ADMIN?"),
        (
            {"seccomp_profile": "web.json"},
            "seccomp must be set to true, if using a custom seccomp_profile.",
        ),
    ],
)
async def test_wrong_options_are_refused_before_the_pull(
    guarded: Driver, options: dict[str, Any], words: str
) -> None:
    assert words in await refusal(guarded, **options)


@pytest.mark.skipif(
    Path("/sys/module/apparmor/parameters/enabled").exists(), reason="this host has AppArmor"
)
async def test_an_apparmor_profile_is_refused_before_the_pull_where_there_is_none(
    guarded: Driver,
) -> None:
    assert "AppArmor is not enabled" in await refusal(guarded, apparmor_profile="docker-default")


@pytest.mark.timeout(120)
async def test_no_profile_path_reads_or_hangs_what_is_not_a_profile(
    guarded: Driver, profiles: Path
) -> None:
    """Covers S10: the author of a job chooses the path, and root reads the file."""
    secret = "root:$6$s3cr3t:19000"
    outside = profiles.parent / "shadow"
    outside.write_text(secret)
    (profiles / "text").write_text(secret)
    (profiles / "link").symlink_to(outside)
    (profiles / "up").symlink_to("..")
    os.mkfifo(profiles / "fifo")
    os.mknod(profiles / "zero", 0o20666, os.makedev(1, 5))
    (profiles / "huge").touch()
    os.truncate(profiles / "huge", 1 << 40)
    attacks = {
        "/etc/shadow": f"the path is not below {profiles}",
        "/dev/zero": f"the path is not below {profiles}",
        "/proc/self/environ": f"the path is not below {profiles}",
        str(outside): f"the path is not below {profiles}",
        "../shadow": f"the path is not below {profiles}",
        f"{profiles}/../shadow": f"the path is not below {profiles}",
        "link": "links are not followed",
        "up/shadow": "links are not followed",
        "fifo": "the path is not a regular file",
        "zero": "the path is not a regular file",
        ".": "the path is not a regular file",
        "huge": "the file is larger than 1 MiB",
        "none": "No such file or directory",
        "text": "decoding seccomp profile failed",
    }
    async with launched(guarded) as session:
        for written, words in attacks.items():
            options = {"image": NO_IMAGE, "seccomp": True, "seccomp_profile": written}
            with pytest.raises(DriverError) as caught:
                await session.start(guarded.task().config, options)
            said = str(caught.value)
            assert words in said
            assert json.dumps(written) in said
            assert "s3cr3t" not in said


@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="this host has SELinux")
async def test_without_selinux_on_the_host_contexts_have_no_effect(
    containerd: ContainerdDaemon, tmp_path: Path, busybox_image: str
) -> None:
    config = {"selinux_enabled": True, "volumes": {"selinuxlabel": "z"}}
    driver = Driver(containerd, tmp_path, config)
    (tmp_path / "volume").mkdir()
    try:
        said = await output(
            driver,
            busybox_image,
            "echo written >/data/file; cat /data/file",
            selinux_opts=["type:container_t", "level:s0:c1,c2"],
            security_opt=["label=disable"],
            volumes=[f"{tmp_path}/volume:/data:Z"],
        )
        assert said == "written\n"
        assert os.listxattr(tmp_path / "volume") == []
        driver.wait_clean()
    finally:
        driver.close()
