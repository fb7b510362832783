"""Shims forgotten by containerd are found by their arguments, killed, and waited for."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.lifecycle import leaked_shims
from containerd.api import shims
from containerd.api.client import Containerd
from tests.support.waiting import wait_until

ADDRESS, NAMESPACE, ID = "/nowhere/containerd.sock", "tests", "web-1"


class Shims:
    """Processes with the arguments of shims, and their bundles."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, id: str = ID, *words: str, namespace: str = NAMESPACE) -> ShimLike:
        """Starts a process for a container; `words` are its last arguments."""
        bundle = self.directory / f"{id}{len(self.processes)}"
        bundle.mkdir()
        process = subprocess.Popen(
            [
                *("/usr/bin/containerd-shim-runc-v2", "-c", "read -r _", "shim"),
                *("-namespace", namespace, "-id", id, "-address", ADDRESS, *words),
            ],
            executable="/bin/sh",
            cwd=bundle,
            stdin=subprocess.PIPE,
        )
        self.processes.append(process)
        # Popen returns during exec: /proc shows the arguments a moment later.
        wait_until(Path(f"/proc/{process.pid}/cmdline").read_bytes, 10)
        return ShimLike(process, bundle)


class ShimLike:
    """A process with the arguments of a shim."""

    def __init__(self, process: subprocess.Popen[bytes], bundle: Path) -> None:
        self.process = process
        self.bundle = bundle

    def runs(self) -> bool:
        """Returns whether the process runs."""
        return self.process.poll() is None


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Shims]:
    every = Shims(tmp_path)
    yield every
    for process in every.processes:
        process.kill()
        process.communicate()


async def end(made: Shims) -> None:
    """Ends the forgotten shims of ID, and removes a dead shim's bundle as containerd does."""
    containerd = Containerd(ADDRESS, NAMESPACE)
    ending = asyncio.create_task(leaked_shims.end(containerd, ID))
    while not ending.done():
        for process in made.processes:
            if process.poll() is not None:
                shutil.rmtree(made.directory, ignore_errors=True)
        await asyncio.sleep(0.01)
    await ending


async def test_a_forgotten_shim_is_killed_and_its_bundle_waited_for(made: Shims) -> None:
    shim = made.start()
    await end(made)
    assert not shim.runs()
    assert not shim.bundle.exists()


async def test_shims_of_others_are_left_alone(made: Shims) -> None:
    others = [made.start("web-12"), made.start(namespace="other")]
    await end(made)
    assert all(other.runs() for other in others)


async def test_a_process_that_cleans_up_for_containerd_is_waited_for_and_not_killed(
    made: Shims,
) -> None:
    errand = made.start(ID, "-bundle", "/b", "delete")
    (found,) = shims.find_processes(ADDRESS, NAMESPACE, {ID})
    assert found == shims.ShimProcess(
        pid=errand.process.pid, id=ID, bundle=errand.bundle, is_command=True
    )
    ending = asyncio.create_task(leaked_shims.end(Containerd(ADDRESS, NAMESPACE), ID))
    await asyncio.wait([ending], timeout=0.1)
    assert not ending.done()
    assert errand.runs()
    errand.process.kill()
    await asyncio.to_thread(errand.process.wait)
    await ending


def test_a_shim_that_has_become_another_process_is_not_killed(made: Shims) -> None:
    shim = made.start()
    other = Path("/elsewhere")
    shims.kill(shims.ShimProcess(pid=shim.process.pid, id=ID, bundle=other, is_command=False))
    assert shim.runs()
