"""The plan of a start, complete before the driver creates an object."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.lifecycle import plan
from actors.model.nomad import NetworkIsolation, PortMapping, Resources, TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from containerd.api.records import Streams
from proto.errors import DriverError
from tests.support.plugin.services import services

TASK = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir="/allocs/a")


def test_a_disabled_driver_starts_nothing() -> None:
    with pytest.raises(DriverError, match="disabled on this node"):
        plan.make(services(DriverSettings(enabled=False)), TASK, TaskOptions(image="redis"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "a/", "/etc", "a\0b"])
def test_a_name_that_is_no_directory_is_no_tasks(name: str) -> None:
    task = TaskConfig(id=f"a/{name}/1", name=name, alloc_id="a")
    with pytest.raises(DriverError, match="invalid task name"):
        plan.make(services(), task, TaskOptions(image="redis"))


def test_host_network_and_a_bridge_exclude_each_other() -> None:
    bridge = NetworkIsolation(mode=1, path="/var/run/netns/a")
    task = TaskConfig(id="a/web/1", name="web", alloc_id="a", network=bridge)
    with pytest.raises(DriverError, match="host_network and bridge network mode are mutually"):
        plan.make(services(), task, TaskOptions(image="redis", host_network=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Streams(stdout="[/f/out]", stderr="[/f/err]")),
        ({"tty": True}, Streams(stdout="[/f/out]", terminal=True)),
        (
            {"interactive": True},
            Streams(stdin="/s/tasks/t-a/stdin.fifo", stdout="[/f/out]", stderr="[/f/err]"),
        ),
    ],
)
def test_a_terminal_has_one_stream_and_an_open_stdin_a_fifo(
    options: dict[str, Any], expected: Streams
) -> None:
    task = replace(TASK, name="t", stdout_path="/f/out", stderr_path="/f/err")
    chosen = TaskOptions(image="redis", **options)
    made = plan.make(services(DriverSettings(state_dir="/s")), task, chosen)
    assert plan.streams(made, chosen, lambda path: f"[{path}]") == expected


def test_a_terminal_without_a_log_writes_to_the_null_device() -> None:
    chosen = TaskOptions(image="redis", tty=True)
    made = plan.make(services(), TASK, chosen)
    assert plan.streams(made, chosen, str) == Streams(stdout="/dev/null", terminal=True)


PORT = PortMapping(label="http", value=20000, to=80, host_ip="10.0.0.1")
BRIDGE = NetworkIsolation(mode=1, path="/var/run/netns/a")


def in_a_bridge() -> TaskConfig:
    return replace(TASK, network=BRIDGE, resources=Resources(ports=(PORT,)))


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (TASK, {"network_mode": "bridge"}, "the group has no network of its own"),
        (TASK, {"ports": ("http",)}, "Port 'http' not found, check network block"),
        (in_a_bridge(), {"ports": ("http", "db")}, "Port 'db' not found"),
        (TASK, {"host_network": True, "network_mode": "none"}, "are mutually exclusive"),
        (
            TASK,
            {"network_mode": "task:a", "sysctl": {"net.core.somaxconn": "1"}},
            "would change another network's value with network_mode",
        ),
        (
            TASK,
            {"ipc_mode": "task:a", "sysctl": {"kernel.shmmax": "1"}},
            "would change another task's value with ipc_mode",
        ),
    ],
)
def test_a_network_that_the_job_cannot_have_is_refused(
    task: TaskConfig, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DriverError) as caught:
        plan.make(services(), task, TaskOptions(image="redis", **options))
    assert words in str(caught.value)


def test_ports_of_the_groups_network_are_mapped_already() -> None:
    options = TaskOptions(image="redis", network_mode="bridge", ports=("http",))
    assert plan.make(services(), in_a_bridge(), options).container_id


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        ("/f/out", "/f/err", ("/f/out", "/f/err")),
        ("/dev/null", "/dev/null", ("", "")),
        ("", "", ("", "")),
        ("/f/out", "", ("/f/out", "/dev/null")),
    ],
)
def test_containerd_gets_both_log_paths_or_none(
    stdout: str, stderr: str, expected: tuple[str, str]
) -> None:
    task = TaskConfig(id="a/t/1", name="t", alloc_id="a", stdout_path=stdout, stderr_path=stderr)
    made = plan.make(services(), task, TaskOptions(image="redis"))
    assert (made.stdout, made.stderr) == expected


def test_ports_on_the_hosts_network_are_those_of_the_group() -> None:
    task = replace(TASK, resources=Resources(ports=(PORT,)))
    own = TaskOptions(image="redis", host_network=True, ports=("http",))
    assert plan.make(services(), task, own).container_id
    with pytest.raises(DriverError, match="Port 'db' not found"):
        plan.make(services(), task, replace(own, ports=("db",)))


def test_the_plugin_block_gives_values_to_jobs_without_their_own() -> None:
    settings = DriverSettings(
        image_pull_timeout_s=9.0, oom_score_adj=7, extra_labels=("job_*", "task_name", "node_id")
    )
    task = TaskConfig(
        id="a/web/1", name="web", alloc_id="a", job_id="shop", job_name="Shop", node_id="n1"
    )
    made = plan.make(services(settings), task, TaskOptions(image="redis"))
    assert (made.image.timeout_s, made.oom_score_adj) == (9.0, 7)
    nomad = {name: text for name, text in made.labels.items() if name.startswith("com.hashicorp.")}
    assert nomad == {
        "com.hashicorp.nomad.alloc_id": "a",
        "com.hashicorp.nomad.job_id": "shop",
        "com.hashicorp.nomad.job_name": "Shop",
        "com.hashicorp.nomad.task_name": "web",
        "com.hashicorp.nomad.node_id": "n1",
    }
    own = TaskOptions(image="redis", image_pull_timeout_s=3.0, oom_score_adj=0)
    made = plan.make(services(settings), task, own)
    assert (made.image.timeout_s, made.oom_score_adj) == (3.0, 0)


@pytest.mark.parametrize(
    ("plugin", "job", "names"),
    [
        ((), None, set()),
        (("job_*",), None, {"job_name", "job_id"}),
        (("*",), ("task_name",), {"task_name"}),
        (("*",), (), set()),
        ((), ("*",), {"job_name", "job_id", "task_name", "namespace"}),
    ],
)
def test_extra_labels_have_nomads_names_of_the_task(
    plugin: tuple[str, ...], job: tuple[str, ...] | None, names: set[str]
) -> None:
    task = TaskConfig(
        id="a/web/1", name="web", alloc_id="a", job_id="j", job_name="job", namespace="default"
    )
    node = services(DriverSettings(extra_labels=plugin))
    labels = plan.make(node, task, TaskOptions(image="redis", extra_labels=job)).labels
    prefix = "com.hashicorp.nomad."
    found = {key.removeprefix(prefix) for key in labels if key.startswith(prefix)}
    assert found == {"alloc_id", *names}
