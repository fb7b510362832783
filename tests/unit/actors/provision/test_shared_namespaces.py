"""Namespaces of other processes: the identity of the process, and the kind of the file."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from actors.model.nomad import NetworkIsolation, TaskConfig
from actors.model.settings import TaskOptions
from actors.provision import shared_namespaces
from actors.provision.shared_namespaces import SharedNamespaces, Wish
from containerd.api.records import ContainerRecord
from proto.errors import Code, DriverError

NETWORK = Wish(option="network_mode", kind="network", mode="task:web")


def container(cgroup: str) -> ContainerRecord:
    return ContainerRecord(
        id="web-1",
        labels={},
        image="",
        runtime="io.containerd.runc.v2",
        spec_json=json.dumps({"linux": {"cgroupsPath": cgroup}}).encode(),
        snapshotter="",
        snapshot_key="",
    )


def own_cgroup() -> str:
    """Returns the last name in the path of this process's cgroup."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    names = [line.rpartition("/")[2] for line in lines if not line.endswith("/")]
    return names[0] if names else ""


@pytest.mark.parametrize("form", ["/nomad/{}", "nomad.slice:cri:{}"])
def test_the_process_in_the_containers_cgroup_is_taken(form: str) -> None:
    shared = SharedNamespaces()
    shared_namespaces._of_process(
        os.getpid(), container(form.format(own_cgroup())), NETWORK, shared
    )
    opened = os.fstat(shared.descriptors["network"]).st_ino
    assert opened == Path("/proc/self/ns/net").stat().st_ino
    shared.close()
    assert shared.descriptors == {}


def test_a_reused_pid_is_refused() -> None:
    shared = SharedNamespaces()
    with pytest.raises(DriverError) as caught:
        shared_namespaces._of_process(os.getpid(), container("/nomad/web-1"), NETWORK, shared)
    assert caught.value.code is Code.PRECONDITION
    assert caught.value.recoverable
    assert shared.descriptors == {}


@pytest.mark.parametrize(
    "spec",
    [
        *(b"", b"[]", b"{}", b'{"linux": null}', b'{"linux": {"cgroupsPath": 7}}'),
        # Every process has an empty name in the path of a cgroup.
        *(b'{"linux": {"cgroupsPath": ""}}', b'{"linux": {"cgroupsPath": "/"}}'),
    ],
)
def test_the_container_of_another_client_may_have_any_spec(spec: bytes) -> None:
    record = dataclasses.replace(container(""), spec_json=spec)
    with pytest.raises(DriverError) as caught:
        shared_namespaces._of_process(os.getpid(), record, NETWORK, SharedNamespaces())
    assert caught.value.code is Code.PRECONDITION


def test_a_process_that_is_gone_is_refused() -> None:
    with pytest.raises(DriverError, match="no task 'web' of this allocation runs"):
        shared_namespaces._of_process(
            2**22 + 1, container("/nomad/web-1"), NETWORK, SharedNamespaces()
        )


def at(path: object) -> Wish:
    return Wish(option="network_mode", kind="network", mode=f"ns:{path}")


def test_only_a_network_namespace_is_opened_at_a_path(tmp_path: Path) -> None:
    descriptor = shared_namespaces._of_path(at("/proc/self/ns/net"))
    assert os.fstat(descriptor).st_ino == Path("/proc/self/ns/net").stat().st_ino
    os.close(descriptor)
    os.mkfifo(tmp_path / "fifo")  # a FIFO would block the plugin, and a device may act
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path, words in (
        (tmp_path / "fifo", "the file is no namespace"),
        ("/dev/null", "the file is no namespace"),
        (tmp_path / "none", "No such file"),
        ("/proc/self/ns/pid", "the namespace is no network namespace"),
    ):
        with pytest.raises(DriverError, match=words):
            shared_namespaces._of_path(at(path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_task_sees_the_network_that_the_task_will_have() -> None:
    shared, task = SharedNamespaces(), TaskConfig(id="a/t/1", name="t")
    task_with = TaskConfig(id="a/t/1", name="t", network=NetworkIsolation(mode=1, path="/n"))
    plain, none = TaskOptions(image="x"), TaskOptions(image="x", network_mode="none")
    assert shared_namespaces.with_network(task_with, plain, shared) == task_with
    assert shared_namespaces.with_network(task_with, none, shared) == task
    shared.descriptors["network"] = 7
    joined = shared_namespaces.with_network(task, plain, shared).network
    assert joined is not None
    assert joined.path == "/proc/self/fd/7"
