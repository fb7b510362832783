"""Tests of read-only mounts, which cover all mounts below the source, in every form of mount."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model.nomad import MountConfig
from actors.processes import runtime_versions
from tests.support.daemons import containerd_versions, runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd, need_program
from tests.support.plugin.driver import Driver, launched

pytestmark = pytest.mark.containerd


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Makes a directory with another file system below."""
    base = tmp_path / "tree"
    (base / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", str(base / "below")], check=True)
    try:
        (base / "below/file").write_text("content\n")
        yield base
    finally:
        subprocess.run(["umount", str(base / "below")], check=True)


@pytest.mark.parametrize("runtime", ["runc", "crun", "runsc"])
async def test_what_is_mounted_below_a_read_only_mount_is_read_only_too(
    tree: Path, tmp_path: Path, busybox_image: str, runtime: str
) -> None:
    need_containerd()
    need_program(runtime)
    path = containerd_versions.program(runtime, containerd_versions.bin_dir())
    found = runtime_versions.version(Path(path or runtime))
    if runtime == "runc" and found.lstrip("v").startswith("1.0."):
        pytest.skip(f"the runc of this containerd is {found}: it has no rro")
    programs = tmp_path / "runtimes"
    programs.mkdir()
    runtimes.wrap(programs)
    source = str(tree)
    script = "for d in a b c d; do cat /$d/below/file; echo x > /$d/below/new && echo wrote; done"
    with ContainerdDaemon(path=str(programs)) as daemon:
        driver = Driver(daemon, tmp_path)
        try:
            async with launched(driver):
                job = driver.task()
                volume = MountConfig(task_path="/d", host_path=source, readonly=True)
                job.config = dataclasses.replace(job.config, mounts=(volume,))
                await driver.start(
                    job,
                    busybox_image,
                    script,
                    runtime=runtime,
                    mounts=[
                        {
                            "type": "bind",
                            "source": source,
                            "target": "/a",
                            "options": ["rbind", "ro"],
                        }
                    ],
                    mount=[{"type": "bind", "source": source, "target": "/b", "readonly": True}],
                    volumes=[
                        f"{source}:/c:ro",
                        "/etc/hostname:/etc/file:ro",
                        "/dev/null:/dev/other:ro",
                    ],
                    readonly_rootfs=True,
                )
                await driver.session.wait(job.id)
                await driver.end(job)
                assert job.out.decode() == "content\n" * 4, job.err.decode()
                assert job.err.decode().count("Read-only file system") == 4
                assert not (tree / "below/new").exists()
            driver.wait_clean()
        finally:
            driver.close()
