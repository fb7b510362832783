"""Jobs of docker and podman become jobs of the driver; the rest of a file stays."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.model.settings import TaskOptions
from plugin import options
from plugin.convert.findings import Finding, Kind
from plugin.convert.job_file import converted
from plugin.host.agent import hcl_config
from plugin.host.job import jobfile
from plugin.options import hcl_schema
from proto.errors import DriverError

WEB = """\
variable "tag" { default = "7" }   # a comment, "docker" in a string

job   "web" {
\tdatacenters = [ "dc1" ,"dc2" ]
  group "cache" {
    /* docker { driver = "docker" } */
    network {
      port "db" { to = 6379 }
    }

    task "redis" {
      driver = "docker"   // the driver
      config {
        image   = "redis:${var.tag}"
        args    = [for a in ["x"] : upper(a)]
        ports   = ["db"]
        labels { a = "1" }
        work_dir = "${NOMAD_TASK_DIR}"
      }
      template {
        destination = "local/x"
        data = <<-EOT
          driver = "docker" }
          {{ key "a" }} "unbalanced
          EOT
      }
    }
  }
}
"""


def changed(before: str, after: str) -> list[str]:
    """Returns the lines that a conversion removes and adds, without blanks around."""
    lines = difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True))
    return [f"{line[0]} {line[2:].strip()}" for line in lines if line[0] in "+-"]


def task_hcl(config: str, *, driver: str = "docker", group: str = "") -> str:
    return (
        f'job "j" {{\n  group "g" {{\n{group}    task "t" {{\n      driver = "{driver}"\n'
        f"      config {{\n{config}\n      }}\n    }}\n  }}\n}}\n"
    )


BRIDGE = '    network {\n      mode = "bridge"\n    }\n\n'


def kinds(findings: list[Finding], kind: Kind) -> list[tuple[str, str, int]]:
    return [(f.place, f.option, f.line) for f in findings if f.kind is kind]


def decoded(text: str) -> list[TaskOptions]:
    """Decodes the config of each task as a plugin does."""
    job = jobfile.parse("j", text, {})
    made: list[TaskOptions] = []
    for group in job.groups:
        for task in group.tasks:
            assert task.driver == "containerd-driver"
            schema = hcl_schema.schema(options.TASK_OPTIONS)
            made.append(options.task_options(hcl_config.encode(schema, task.config)))
    return made


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_the_driver_and_the_network_change_in_a_job_in_hcl(newline: str) -> None:
    before = WEB.replace("\n", newline)
    after, findings = converted("web", before)
    assert changed(before, after) == [
        '+ mode = "bridge"',
        '- driver = "docker"   // the driver',
        '+ driver = "containerd-driver"   // the driver',
    ]
    assert after.count("\r") == after.count("\n") * (newline == "\r\n")
    assert kinds(findings, Kind.CHANGED) == [
        ('group "cache"', "network", 7),
        ('task "redis"', "driver", 12),
    ]
    assert kinds(findings, Kind.LOST) == []


def test_a_converted_job_is_a_job_of_this_driver_and_stays_as_it_is() -> None:
    text = task_hcl(
        'image = "redis:7"\nports = ["db"]\nwork_dir = "/srv"\nnetwork_mode = "bridge"\n'
        'mount {\n type = "bind"\n source = "local/x"\n target = "/x"\n}\n'
        'logging { type = "json-file" }\nsysctl = { "net.core.somaxconn" = "16384" }\n'
        'ulimit { nofile = "1024" }\nshm_size = 67108864\n',
        group='    network { port "db" {} }\n'.replace("{ port", "{\nport").replace(
            "{} }", "{}\n}"
        ),
    )
    after, findings = converted("j", text)
    assert kinds(findings, Kind.LOST) == []
    (task,) = decoded(after)
    assert (task.image, task.cwd) == ("redis:7", "/srv")
    again, findings = converted("j", after)
    assert (again, kinds(findings, Kind.CHANGED)) == (after, [])


def test_a_task_with_the_bridge_network_of_docker_gets_a_group_network() -> None:
    after, _ = converted("j", task_hcl('image = "i"'))
    assert after == task_hcl('image = "i"', driver="containerd-driver", group=BRIDGE)
    kept = task_hcl('image = "i"', driver="containerd-driver", group=BRIDGE)
    assert converted("j", task_hcl('image = "i"', group=BRIDGE))[0] == kept


def test_a_task_on_the_host_network_leaves_the_group_network_alone() -> None:
    text = task_hcl('image = "i"\nnetwork_mode = "host"', group="    network {}\n")
    after, findings = converted("j", text)
    assert changed(text, after) == ['- driver = "docker"', '+ driver = "containerd-driver"']
    assert kinds(findings, Kind.LOST) == []
    (task,) = decoded(after)
    assert task.host_network


@pytest.mark.parametrize(("mode", "network"), [("none", 0), ("bridge", 1), ("default", 1)])
def test_only_a_bridge_of_a_task_needs_a_network_of_the_group(mode: str, network: int) -> None:
    after, findings = converted("j", task_hcl(f'image = "i"\nnetwork_mode = "{mode}"'))
    assert kinds(findings, Kind.LOST) == []
    assert after.count(BRIDGE) == network
    assert not decoded(after)[0].host_network


@pytest.mark.parametrize("mode", ["container:x", "task:other", "my-network"])
def test_networks_that_nomad_does_not_know_are_not_carried_over(mode: str) -> None:
    text = task_hcl(f'image = "i"\nnetwork_mode = "{mode}"', group=BRIDGE)
    assert kinds(converted("j", text)[1], Kind.LOST) == [('task "t"', "network_mode", 11)]


@pytest.mark.parametrize("mode", ["host", "bridge"])
def test_ports_that_the_group_does_not_have_are_not_carried_over(mode: str) -> None:
    network = '    network {\n      port "db" {}\n    }\n'
    config = f'image = "i"\nnetwork_mode = "{mode}"\nports = ["db", "web"]'
    _, findings = converted("j", task_hcl(config, group=network))
    (lost,) = [finding for finding in findings if finding.kind is Kind.LOST]
    assert (lost.option, lost.text) == ("ports", "the group's network has no port web")


def test_tasks_on_two_networks_in_a_group_are_not_carried_over() -> None:
    text = """\
job "j" {
  group "g" {
    task "a" {
      driver = "docker"
      config {
        image = "i"
        network_mode = "host"
      }
    }
    task "b" {
      driver = "podman"
      config { image = "i" }
    }
  }
}
"""
    after, findings = converted("j", text)
    assert {line[2:].split()[0] for line in changed(text, after)} == {"driver"}
    assert kinds(findings, Kind.LOST) == [('group "g"', "network_mode", 2)]


def test_an_option_that_is_not_carried_over_stays_in_the_file_with_its_line() -> None:
    text = task_hcl('image = "i"\nmac_address = "a:b"\nnetwork_aliases = ["x"]\nwrok_dir = "/"')
    after, findings = converted("j", text)
    assert kinds(findings, Kind.LOST) == [
        ('task "t"', "mac_address", 7),
        ('task "t"', "network_aliases", 8),
        ('task "t"', "wrok_dir", 9),
    ]
    assert 'mac_address = "a:b"' in after
    by_option = {finding.option: str(finding) for finding in findings}
    assert by_option["mac_address"].startswith(
        'not carried over: task "t", option mac_address, line 7: is not supported: '
    )
    assert by_option["wrok_dir"].endswith('did you mean "work_dir"?')


def test_an_option_without_effect_is_a_note() -> None:
    _, findings = converted("j", task_hcl('image = "i"\ncontainer_exists_attempts = 3'))
    assert kinds(findings, Kind.NOTE) == [('task "t"', "container_exists_attempts", 7)]
    assert kinds(findings, Kind.LOST) == []


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ('mac_address = "${meta.mac}"', "mac_address"),
        ("ipv4_address = var.address", "ipv4_address"),
        ("volume_driver = var.driver", "volume_driver"),
        ('mount {\n type = "nfs"\n target = var.target\n}', "mount"),
    ],
)
def test_an_option_with_an_expression_is_checked_as_far_as_known(config: str, option: str) -> None:
    _, findings = converted("j", task_hcl(f"image = var.image\n{config}"))
    assert [place[1] for place in kinds(findings, Kind.LOST)] == [option]


def test_known_options_with_expressions_are_no_problem() -> None:
    text = task_hcl(
        'image = "${var.image}"\nwork_dir = "${NOMAD_TASK_DIR}/x"\nargs = concat(["a"], var.more)\n'
        'mount {\n type = "bind"\n target = var.target\n source = "${NOMAD_TASK_DIR}"\n}\n'
        'labels = { a = var.a, "b" = 1 }\nvolumes = ["${var.v}:/x", "local:/y"]\npids_limit = var.n'
    )
    assert kinds(converted("j", text)[1], Kind.LOST) == []


def test_tasks_of_other_drivers_are_left_alone() -> None:
    text = task_hcl('command = "x"\nports = ["a"]', driver="raw_exec")
    assert converted("j", text) == (text, [])
    docker = task_hcl('image = "i"')
    assert converted("j", docker, ["podman"]) == (docker, [])
    named = docker.replace('"docker"', "var.driver")
    after, (finding,) = converted("j", named)
    assert (after, finding.kind, finding.option) == (named, Kind.NOTE, "driver")


def test_tasks_in_dynamic_blocks_and_directly_in_a_job_are_converted() -> None:
    text = """\
job "j" {
  task "alone" {
    driver = "docker"
    config { image = "i" }
  }
  dynamic "group" {
    for_each = ["a"]
    content {
      network { mode = "bridge" }
      task "t" {
        driver = "podman"
        config { image = "i" }
      }
    }
  }
}
"""
    after, _ = converted("j", text)
    assert after.count('driver = "containerd-driver"') == 2


def test_a_constraint_on_another_driver_is_not_carried_over() -> None:
    constraint = '    constraint {\n      attribute = "${attr.driver.docker.version}"\n    }\n'
    _, findings = converted("j", task_hcl('image = "i"', group=constraint + BRIDGE))
    assert kinds(findings, Kind.LOST) == [('group "g"', "constraint", 4)]


def test_the_plugin_block_of_another_driver_is_checked_by_the_options_of_this_driver() -> None:
    text = """\
plugin "docker" {
  config {
    allow_privileged = true # yes
    gc { image_delay = "3m" }
    allow_privilegde = 1
  }
}
"""
    after, findings = converted("agent.hcl", text)
    assert after == text.replace('"docker"', '"containerd-driver"')
    assert kinds(findings, Kind.LOST) == [('plugin "docker"', "allow_privilegde", 5)]


def test_a_second_plugin_block_is_not_carried_over_because_an_agent_uses_one() -> None:
    blocks = ("docker", "exec", "nomad-driver-podman")
    _, findings = converted("agent.hcl", "".join(f'plugin "{name}" {{\n}}\n' for name in blocks))
    assert kinds(findings, Kind.LOST) == [('plugin "nomad-driver-podman"', "", 5)]


PORTS = [{"Label": "db", "To": 6379}]
NETWORKS = [None, [], [{"Mode": "", "DynamicPorts": PORTS}], [{"Mode": "host"}]]


def as_json(**more: Any) -> dict[str, Any]:
    """Returns a job; a group without networks has no labels of ports."""
    config = {"image": "redis:7", "ports": ["db"], "labels": [{"a": "${x}"}], "mac_address": "m"}
    task = {"Name": "t", "Driver": "docker", "Config": config, "Meta": {"Driver": "docker"}}
    return {"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": [task], **more}]}


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("networks", NETWORKS)
def test_a_job_in_json_keeps_its_form(indent: int | None, wrapped: bool, networks: Any) -> None:
    job = as_json(Networks=networks)
    before = json.dumps({"Job": job} if wrapped else job, indent=indent)
    after, findings = converted("j", before)
    again = json.loads(after)
    (group,) = (again["Job"] if wrapped else again)["TaskGroups"]
    assert group["Networks"] == [{**(networks or [{}])[0], "Mode": "bridge"}]
    assert group["Tasks"][0]["Driver"] == "containerd-driver"
    group["Tasks"][0]["Driver"], group["Networks"] = "docker", networks
    assert again == json.loads(before)
    assert ("\n" in after) is bool(indent)
    lost = kinds(findings, Kind.LOST)[-1]
    assert lost[:2] == ('task "t"', "mac_address")
    assert '"mac_address"' in before.splitlines()[lost[2] - 1]


def test_a_job_in_json_without_a_network_gets_the_key() -> None:
    after, _ = converted("j", json.dumps(as_json()))
    assert json.loads(after)["TaskGroups"][0]["Networks"] == [{"Mode": "bridge"}]


def test_a_command_after_an_entrypoint_stays() -> None:
    values = {"image": "i", "command": "c", "entrypoint": ["/e"], "args": ["a"]}
    text = task_hcl("\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    (task,) = decoded(converted("j", text)[0])
    assert (task.command, task.entrypoint, task.args) == ("c", ("/e",), ("a",))


@pytest.mark.parametrize("text", ['job "j" {', '{"Job": 1}', "{" * 5000, 'job "j" { a = "\\q" }'])
def test_a_text_that_is_no_job_is_refused(text: str) -> None:
    with pytest.raises(DriverError):
        converted("j", text)


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["", "docker", "podman", "host", "bridge", "db", "${x}", "\ud800", "\0"])
)
_KEYS = st.sampled_from(
    [
        *("Name", "Driver", "Config", "Networks", "Mode", "Tasks", "Services", "Connect", "Label"),
        *("SidecarTask", "SidecarService", "Gateway", "Constraints", "LTarget", "DynamicPorts"),
        *("image", "ports", "network_mode", "mount", "labels", "auth", "logging", "target"),
    ]
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(group=st.dictionaries(_KEYS, _TREES, max_size=6), task=st.dictionaries(_KEYS, _TREES))
def test_a_job_of_any_shape_is_converted_or_refused(
    group: dict[str, Any], task: dict[str, Any]
) -> None:
    for tasks in ([{"Driver": "docker", **task}], [task], []):
        text = json.dumps({"ID": "j", "TaskGroups": [{**group, "Tasks": tasks}]}, indent=1)
        try:
            after, findings = converted("j", text)
        except DriverError:
            continue
        json.loads(after)
        assert all(str(finding) for finding in findings)


@pytest.mark.parametrize(
    "task",
    [
        {"Driver": "docker", "Config": {"network_mode": ["host"]}},
        {"Driver": "docker", "Config": {"network_mode": {"a": 1}}},
        {"Driver": "docker", "Config": {"ports": [["db"], {"a": 1}]}},
        {"Driver": "docker", "Config": [1]},
        {"Driver": ["docker"]},
        {"Driver": {"a": 1}, "Config": {"image": "i"}},
    ],
)
def test_values_of_wrong_types_are_reported_or_left(task: dict[str, Any]) -> None:
    connect: dict[str, Any] = {"SidecarService": {}}
    networks = [{"Mode": ["bridge"], "DynamicPorts": [{"Label": ["db"]}]}]
    for more in ({}, {"Services": [{"Connect": connect}]}, {"Networks": networks}):
        group = {"Name": "g", "Tasks": [{"Name": "t", **task}], **more}
        after, _ = converted("j", json.dumps({"ID": "j", "TaskGroups": [group]}))
        json.loads(after)
