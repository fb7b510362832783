"""Mounts of real containers, and each attack through them tried for real."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import MountConfig
from proto.errors import DriverError
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd


def pins_are_gone(driver: Driver) -> bool:
    pins = driver.state_dir / "mounts"
    mounted = str(pins) in Path("/proc/mounts").read_text()
    return not mounted and not (pins.exists() and list(pins.iterdir()))


async def output(driver: Driver, job: Job, image: str, script: str, **options: Any) -> str:
    """Returns the output of a task from start to end."""
    await driver.start(job, image, script, **options)
    await driver.session.wait(job.id)
    await driver.end(job)
    return (job.out + job.err).decode()


def bind(source: str, target: str, *options: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "options": ["rbind", *options]}


def local_of(job: Job) -> Path:
    return Path(job.config.alloc_dir) / job.config.name / "local"


async def test_a_rendered_template_is_bound_where_the_program_looks_for_it(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task()
        (local_of(job) / "mosquitto.conf").write_text("listener 1883\n")
        said = await output(
            driver,
            job,
            busybox_image,
            "cat /mosquitto/config/mosquitto.conf; cat /shared/x; echo more > /shared/y",
            mounts=[
                bind("local/mosquitto.conf", "/mosquitto/config/mosquitto.conf", "rw"),
                bind("../alloc/data", "/shared", "rw"),
            ],
        )
        assert said.startswith("listener 1883\n")
        assert (Path(job.config.alloc_dir) / "alloc/data/y").read_text() == "more\n"
        assert pins_are_gone(driver)


async def test_volumes_of_nomad_are_writable_or_not(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "there").write_text("content\n")
    async with launched(driver):
        job = driver.task()
        both = tuple(
            MountConfig(task_path=path, host_path=str(volume), readonly=readonly)
            for path, readonly in (("/tmp/t1", False), ("/tmp/read_only_target", True))
        )
        job.config = dataclasses.replace(job.config, mounts=both)
        said = await output(
            driver,
            job,
            busybox_image,
            "cat /tmp/t1/there /tmp/read_only_target/there;"
            "echo w > /tmp/t1/written; echo w > /tmp/read_only_target/refused",
        )
        assert said.count("content") == 2
        assert "Read-only file system" in said
        assert (volume / "written").read_text() == "w\n"
        assert not (volume / "refused").exists()


async def test_all_three_ways_to_write_a_mount_work(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_text("file\n")
    source = str(tmp_path / "src")
    async with launched(driver):
        said = await output(
            driver,
            driver.task(),
            busybox_image,
            "cat /a/f /b/f /c/f; touch /a/x; touch /b/x; touch /c/x; grep ' /t ' /proc/mounts;"
            "grep ' /u ' /proc/mounts",
            mounts=[
                {"source": source, "target": "/a", "options": ["bind", "ro"]},
                {"type": "tmpfs", "target": "/u", "options": ["size=8k", "noexec"]},
            ],
            mount=[
                {"type": "bind", "source": source, "target": "/b", "readonly": True},
                {
                    "type": "tmpfs",
                    "target": "/t",
                    "tmpfs_options": [{"size": "64k", "mode": 448}],
                },
            ],
            volumes=[f"{source}:/c:ro"],
        )
        assert said.count("file\n") == 3
        assert said.count("Read-only file system") == 3
        tmpfs = [line for line in said.splitlines() if line.startswith("tmpfs")]
        assert "size=64k,mode=700" in tmpfs[0]
        assert "noexec" in tmpfs[1]
        assert "size=8k" in tmpfs[1]


async def test_a_mount_below_local_is_not_hidden_by_local(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("from the host\n")
    async with launched(driver):
        job = driver.task()
        volume = MountConfig(task_path="/alloc/vol", host_path=str(tmp_path), readonly=True)
        job.config = dataclasses.replace(job.config, mounts=(volume,))
        said = await output(
            driver,
            job,
            busybox_image,
            "cat /local/deep/er/f /secrets/s/f /alloc/vol/f",
            mounts=[
                bind(str(tmp_path), "/local/deep/er", "ro"),
                bind(str(tmp_path), "/secrets/s", "ro"),
            ],
        )
        assert said == "from the host\n" * 3


@pytest.fixture
def decoy(tmp_path: Path) -> Path:
    """Makes a stand-in for the host's files, so that a successful attack does no harm."""
    place = tmp_path / "host"
    (place / "secret").mkdir(parents=True)
    return place


@pytest.fixture
def shared_directory(tmp_path: Path) -> Iterator[Path]:
    """Yields a mount of the host that shares the mounts below."""
    base = tmp_path / "shared"
    (base / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(base)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(base)], check=True)
        (base / "sub").mkdir()
        yield base
    finally:
        subprocess.run(["umount", "-l", str(base)], check=True)


@pytest.mark.parametrize(("mode", "seen"), [("host-to-task", True), ("private", False)])
async def test_a_task_sees_later_mounts_of_the_host_if_its_volume_says_so(
    driver: Driver, busybox_image: str, shared_directory: Path, mode: str, seen: bool
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        volume = MountConfig(
            task_path="/v",
            host_path=str(shared_directory),
            readonly=False,
            propagation_mode=mode,
        )
        job.config = dataclasses.replace(job.config, mounts=(volume,))
        await driver.start(job, busybox_image, "echo ready; sleep 600")
        await until(lambda: b"ready" in job.out, 10)
        later = str(shared_directory / "sub")
        subprocess.run(["mount", "-t", "tmpfs", "later", later], check=True)
        (shared_directory / "sub" / "new").touch()
        listed = await session.exec(job.id, ["ls", "/v/sub"])
        assert (b"new" in listed.stdout) is seen
        subprocess.run(["umount", later], check=True)
        await driver.end(job)


async def test_the_host_sees_later_mounts_of_a_task_whose_volume_is_bidirectional(
    driver: Driver, busybox_image: str, shared_directory: Path
) -> None:
    async with launched(driver):
        job = driver.task()
        volume = MountConfig(
            task_path="/v",
            host_path=str(shared_directory),
            readonly=False,
            propagation_mode="bidirectional",
        )
        job.config = dataclasses.replace(job.config, mounts=(volume,))
        await driver.start(job, busybox_image, "echo ready; sleep 600")
        await until(lambda: b"ready" in job.out, 10)
        pid = driver.daemon.ctr("tasks", "list").split(job.container)[1].split()[0]
        # As a CSI node plugin does, with the right to mount.
        subprocess.run(
            ["nsenter", "-t", pid, "-m", "mount", "-t", "tmpfs", "from-task", "/v/sub"],
            check=True,
        )
        assert "from-task" in Path("/proc/mounts").read_text()
        await driver.end(job)
        subprocess.run(["umount", str(shared_directory / "sub")], check=False)


@pytest.mark.parametrize(
    "source",
    ["local/../../../../../etc", "localX", "local/../../../../../../../", "../../other/local"],
)
async def test_s2_no_relative_source_leaves_the_allocation(
    driver: Driver, busybox_image: str, source: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        options = {"image": busybox_image, "mounts": [bind(source, "/h", "ro")]}
        with pytest.raises(DriverError, match="mounts: source"):
            await session.start(job.config, options)
        driver.wait_clean()


async def test_s3_a_link_that_the_task_made_is_not_followed_at_its_next_start(
    driver: Driver, busybox_image: str, decoy: Path
) -> None:
    """Covers a task that turns the mount source into an outward link and is restarted."""
    async with launched(driver) as session:
        job = driver.task()
        (local_of(job) / "x").mkdir()
        mount = [bind("local/x", "/h", "rw")]
        said = await output(
            driver,
            job,
            busybox_image,
            f"rm -r /local/x && ln -s {decoy} /local/x && ls -l /local/x",
            mounts=mount,
        )
        assert (local_of(job) / "x").is_symlink(), said
        again = dataclasses.replace(job.config, id=f"{job.config.id[:-8]}ffffffff")
        for source in ("local/x", "local/x/secret", f"{local_of(job)}/x"):
            options = {"image": busybox_image, "mounts": [bind(source, "/h", "ro")]}
            with pytest.raises(DriverError, match="goes through a link"):
                await session.start(again, options)
        driver.wait_clean()
        assert pins_are_gone(driver)


async def test_s3_a_running_neighbour_that_swaps_the_source_gains_nothing(
    driver: Driver, busybox_image: str, decoy: Path
) -> None:
    """Exchanges alloc/data/x for an outward link in a neighbour while another task starts."""
    swap = (
        f"cd /alloc/data; mkdir x; echo mine > x/mark; ln -s {decoy} evil; echo ready;"
        "while :; do mv -T x y; mv -T evil x; mv -T x evil; mv -T y x; done"
    )
    async with launched(driver) as session:
        neighbour = driver.task("n")
        await driver.start(neighbour, busybox_image, swap)
        await until(lambda: b"ready" in neighbour.out, 10)
        alloc_dir = neighbour.config.alloc_dir
        for number in range(12):
            config = dataclasses.replace(
                neighbour.config,
                id=f"{neighbour.config.alloc_id}/v/{number:08x}",
                name="v",
                stdout_path="",
                stderr_path="",
            )
            for name in ("local", "secrets"):
                (Path(alloc_dir) / "v" / name).mkdir(parents=True, exist_ok=True)
            options = {
                "image": busybox_image,
                "command": "/bin/sleep",
                "args": ["600"],
                "mounts": [bind("../alloc/data/x", "/h", "ro")],
            }
            try:
                await session.start(config, options)
            except DriverError as error:
                assert "mounts: source" in str(error)  # noqa: PT017 - both ends are fine
                continue
            listed = (await session.exec(config.id, ["ls", "/h"])).stdout
            await session.destroy(config.id)
            assert b"secret" not in listed
        await session.destroy(neighbour.id)
        await neighbour.logs_end()
        assert pins_are_gone(driver)


async def test_s3_the_log_directory_made_a_link_is_not_followed(
    driver: Driver, busybox_image: str, tmp_path: Path, decoy: Path
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        logs = Path(job.config.alloc_dir) / "alloc/logs"
        logs.rename(tmp_path / "logs")
        logs.symlink_to(decoy)
        with pytest.raises(DriverError, match=r"logs: source .*/alloc/logs' goes through a"):
            await session.start(job.config, {"image": busybox_image})


async def test_the_logs_cannot_be_written_through_a_mount_of_the_jobs_own(
    driver: Driver, busybox_image: str
) -> None:
    async with launched(driver):
        job = driver.task()
        said = await output(
            driver,
            job,
            busybox_image,
            "rm /x/logs/.t.stdout.fifo; rm /y/.t.stdout.fifo; touch /x/ok; mv /x/logs /x/old",
            mounts=[bind("../alloc", "/x", "rw"), bind("alloc/logs", "/y", "rw")],
        )
        assert said.count("Read-only file system") == 2
        assert "busy" in said
        assert (Path(job.config.alloc_dir) / "alloc/ok").exists()
        assert job.alloc.fifo("t", "stdout").is_fifo()


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"type": "ext4", "source": "/dev/sda1", "target": "/x", "options": ["rw"]}, "type"),
        ({"type": "proc", "source": "proc", "target": "/x", "options": ["rw"]}, "type"),
        ({"type": "cgroup", "source": "cgroup", "target": "/x", "options": ["rw"]}, "type"),
        (bind("/", "/x", "lowerdir=/"), "is no option of a bind"),
        ({"type": "tmpfs", "target": "/x", "options": ["rbind"]}, "is no option of a tmpfs"),
        (bind("/srv", "/proc", "rw"), "container's own"),
        (bind("/srv", "/proc/sys/kernel", "rw"), "container's own"),
        (bind("/srv", "/sys", "rw"), "container's own"),
        (bind("/srv", "/dev", "rw"), "container's own"),
        (bind("/srv", "/x/../../y", "rw"), "'..'"),
        (bind("/srv", "relative", "rw"), "not an absolute path"),
        ({"source": "pgdata", "target": "/x", "options": ["rbind", "rw"]}, "no named volumes"),
        ({"type": "bind", "source": "/srv", "target": "/x", "options": []}, "atleast pass rbind"),
    ],
)
async def test_s4_s5_a_wrong_mount_is_refused_before_anything_is_pulled(
    driver: Driver, registry: Registry, mount: dict[str, Any], text: str
) -> None:
    async with launched(driver) as session:
        job = driver.task()
        options = {"image": f"{registry.host}/never-there:1", "mounts": [mount]}
        with pytest.raises(DriverError, match=text):
            await session.start(job.config, options)
        driver.wait_clean()


async def test_a_link_of_the_image_does_not_lead_a_mount_to_the_host(
    driver: Driver, busybox_image: str, tmp_path: Path
) -> None:
    """Covers /local/out as a link to /tmp: the runtime resolves the link in the container."""
    (tmp_path / "f").write_text("here\n")
    async with launched(driver):
        job = driver.task()
        (local_of(job) / "out").symlink_to("/tmp")
        said = await output(
            driver,
            job,
            busybox_image,
            "cat /tmp/place/f",
            mounts=[bind(str(tmp_path), "/local/out/place", "ro")],
        )
        assert said == "here\n"
        assert not Path("/tmp/place").exists()


async def test_what_a_killed_plugin_held_goes_with_the_next_one(
    driver: Driver, busybox_image: str
) -> None:
    pins = driver.state_dir / "mounts" / "left"
    kept = driver.alloc_root / "kept"
    kept.mkdir(parents=True)
    (kept / "file").touch()
    pins.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(kept), str(pins)], check=True)
    async with launched(driver):
        await output(driver, driver.task(), busybox_image, "true")
        assert pins_are_gone(driver)
        assert (kept / "file").exists()


async def test_shared_memory_has_the_jobs_size(driver: Driver, busybox_image: str) -> None:
    async with launched(driver):
        said = await output(
            driver, driver.task(), busybox_image, "grep /dev/shm /proc/mounts", shm_size="4M"
        )
        assert "size=4096k" in said
