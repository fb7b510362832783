"""Tests of a killed `containerd-driver run`: the leftovers, and the sweep of the leftovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containerd import syscalls
from plugin.host.network import cni, namespaces
from tests.containerd.network.test_bridge import HeldPlugin, group, task
from tests.support.kernel.own_network import OwnNetwork
from tests.support.plugin.driver import Driver
from tests.support.plugin.host_run import Run
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import wait_until
from tests.support.workers.launcher import worker_pids

pytestmark = pytest.mark.containerd

BRIDGE = {"Mode": "bridge", "DynamicPorts": [{"Label": "http", "To": 8080}]}
SLEEPER = "echo up; exec sleep 600"


class Runs:
    """Several runs in one network, on one driver's state directory."""

    def __init__(self, network: OwnNetwork, driver: Driver, directory: Path) -> None:
        self.network = network
        self.driver = driver
        self._directory = directory
        self.runs: list[Run] = []

    def new(self) -> Run:
        directory = self._directory / f"run-{len(self.runs)}"
        directory.mkdir()
        self.runs.append(Run(self.network, self.driver, directory))
        return self.runs[-1]

    def started(self, image: str, *words: str) -> Run:
        """Starts a run and returns once the task runs and the start has released the pins."""
        before = self.allocations()
        run = self.new()
        run.start([group(BRIDGE, task(image, SLEEPER))], *words)
        run.wait_said("log")
        # A start releases the pins after the answer; a kill before would leave them to the sweep.
        pins = self.driver.state_dir / "mounts"
        wait_until(lambda: not list(pins.glob("*")), 10, "the pins of the start stay")
        run.alloc_ids = sorted(self.allocations() - before)
        return run

    def allocations(self) -> set[str]:
        return {entry.name for entry in self.driver.alloc_root.glob("*")}

    def gc(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `containerd-driver gc` in the test's network."""
        daemon = self.driver.containerd
        return self.network.run(
            *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "gc", *words),
            *("--config", f"containerd_address={daemon.address}"),
            *("--config", f"containerd_namespace={daemon.namespace}"),
            *("--config", f"state_dir={self.driver.state_dir}"),
        )

    def rows(self, *words: str) -> list[tuple[str, str]]:
        """Returns (kind, outcome) from the output of `gc`."""
        done = self.gc("--json", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [(line["kind"], line["outcome"]) for line in lines]

    def peers(self) -> set[str]:
        """Returns the existing records of runs."""
        return {entry.name for entry in (self.driver.state_dir / "live").glob("run-*")}


@pytest.fixture
def runs(network: OwnNetwork, driver: Driver, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(network, driver, tmp_path)
    yield made
    for run in made.runs:
        if run.process is not None and not run.ended():
            run.stop()


def kill(run: Run) -> None:
    """Kills only the host with SIGKILL; the plugin ends by itself."""
    assert run.process is not None
    (plugin,) = children(run.process.pid)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    wait_until(lambda: not running(plugin), 10, "the plugin outlives its host")


def children(pid: int) -> list[int]:
    """Returns the plugins that any thread of a host has started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (thread / "children").read_text().split()]
    return sorted({child for child in found if b"plugin/main.py" in command_of(child)})


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def containers(runs: Runs, run: Run) -> list[str]:
    left = runs.driver.containerd.leftovers()
    return [line for line in left for alloc_id in run.alloc_ids if alloc_id in line]


def test_the_next_run_sweeps_up_after_one_that_was_killed(runs: Runs, image: str) -> None:
    first = runs.started(image)
    kill(first)
    assert len(containers(runs, first)) >= 3
    assert any(cni.BRIDGE in line for line in first.left())
    assert len(worker_pids(runs.driver.state_dir)) == 1
    assert len(runs.peers()) == 1

    second = runs.started(image)
    assert containers(runs, first) == []
    assert [line for line in first.left() if first.alloc_ids[0] in line] == []
    assert first.alloc_ids[0] not in runs.allocations()
    notes = " ".join(note["text"] for note in second.said("note"))
    assert "removed, the `containerd-driver run` is gone: container" in notes
    assert f"network {first.alloc_ids[0]}" in notes
    assert len(runs.peers()) == 1
    assert second.stop() == 137
    assert second.left() == []
    assert runs.peers() == set()
    assert not (cni.STATE / cni.NETWORK).exists()


def test_gc_sweeps_up_and_leaves_a_run_alone_that_lives(runs: Runs, image: str) -> None:
    killed, alive = runs.started(image), runs.started(image)
    kill(killed)
    found = [("container", "orphan"), ("network", "orphan"), ("allocation", "orphan")]
    assert runs.rows("--dry-run") == [*found, ("run", "orphan")]
    assert len(containers(runs, killed)) >= 3

    said = runs.gc().stdout.splitlines()
    assert said[0].split() == ["KIND", "NAME", "SINCE", "WHAT", "WHY"]
    assert [line.split()[0] for line in said[1:]] == ["container", "network", "allocation", "run"]
    assert all("removed" in line and "is gone" in line for line in said[1:])
    assert containers(runs, killed) == []
    assert [line for line in killed.left() if killed.alloc_ids[0] in line] == []
    assert runs.gc().stdout == "nothing is left over\n"

    assert len(containers(runs, alive)) >= 2
    assert cni.BRIDGE in runs.network.links()
    assert alive.stop() == 137
    assert alive.left() == []


def test_a_run_that_was_killed_while_its_network_was_made_is_swept(
    runs: Runs, tmp_path: Path
) -> None:
    plugin = HeldPlugin(tmp_path, "portmap", "cat")
    run = runs.new()
    run.start([group(BRIDGE, task("i", "true"))], "--cni-path", plugin.path)
    plugin.wait_called()
    run.note_allocations()
    kill(run)
    plugin.release()
    assert run.left() != []
    kinds = [("network", "removed"), ("allocation", "removed"), ("run", "removed")]
    assert runs.rows() == kinds
    assert run.left() == []
    assert runs.allocations() == set()


def test_what_is_of_another_network_is_left_to_who_is_there(runs: Runs, image: str) -> None:
    killed = runs.started(image)
    kill(killed)
    with OwnNetwork() as elsewhere:
        mine, runs.network = runs.network, elsewhere
        assert runs.rows() == [("container", "removed"), ("run", "kept")]
        assert "run gc in that namespace" in runs.gc().stdout
        runs.network = mine
    assert killed.left() != []
    assert runs.rows() == [("network", "removed"), ("allocation", "removed"), ("run", "removed")]
    assert killed.left() == []


def test_a_published_port_of_a_killed_run_is_free_again(runs: Runs, image: str) -> None:
    reserved: dict[str, Any] = {"Mode": "bridge", "ReservedPorts": [{"Label": "a", "Value": 18080}]}
    first = runs.new()
    first.start([group(reserved, task(image, SLEEPER))], "--host-ip", "127.0.0.1")
    first.wait_said("log")
    kill(first)
    assert "18080" in runs.network.rules()
    second = runs.new()
    second.start([group(reserved, task(image, SLEEPER))])
    second.wait_said("log")
    assert "18080" in runs.network.rules()
    assert second.stop() == 137
    assert "18080" not in runs.network.rules()


def test_an_allocation_that_was_to_be_kept_is_kept(runs: Runs, image: str) -> None:
    killed = runs.started(image, "--keep")
    kill(killed)
    assert runs.rows() == [("container", "removed"), ("network", "removed"), ("run", "removed")]
    assert set(killed.alloc_ids) <= runs.allocations()


def test_a_network_whose_namespace_somebody_has_removed_is_swept_all_the_same(
    runs: Runs, image: str
) -> None:
    run = runs.started(image)
    kill(run)
    place = Path(namespaces.path(run.alloc_ids[0]))
    syscalls.unmount(str(place))
    place.unlink()
    assert "MASQUERADE" in runs.network.rules()
    assert ("network", "removed") in runs.rows()
    assert run.left() == []
    assert runs.peers() == set()


NESTED = "cd /local; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d; i=$((i + 1)); done; echo up"


def test_a_task_that_nests_1500_directories_ends_and_is_swept_like_any_other(
    runs: Runs, image: str
) -> None:
    before = runs.allocations()
    ending = runs.new()
    ending.start([group({"Mode": "none"}, task(image, NESTED))])
    assert ending.finish() == 0
    assert runs.allocations() == before
    assert ending.said("error") == []

    killed = runs.new()
    killed.start([group({"Mode": "none"}, task(image, f"{NESTED}; exec sleep 600"))])
    killed.wait_said("log")
    kill(killed)
    assert ("allocation", "removed") in runs.rows()
    assert runs.allocations() == before
    assert runs.peers() == set()
