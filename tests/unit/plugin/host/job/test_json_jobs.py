"""Jobs in Nomad's JSON."""

from __future__ import annotations

import json

import pytest

from plugin.host.job import jobfile
from plugin.host.job.jobfile import JobTask, Template
from plugin.host.job.network import GroupNetwork, Port
from proto.errors import DriverError

JSON_JOB = {
    "ID": "web",
    "Name": "web one",
    "Datacenters": ["dc9"],
    "Namespace": None,
    "Meta": {"a": "b"},
    "TaskGroups": [
        {
            "Name": "g",
            "Count": 2,
            "Networks": [
                {"Mode": "host", "ReservedPorts": [{"Label": "http", "Value": 80, "To": 0}]}
            ],
            "RestartPolicy": {"Attempts": 3},
            "Tasks": [
                {
                    "Name": "t",
                    "Driver": "containerd-driver",
                    "Config": {"image": "i:1", "args": ["${x}"], "auth": [{"username": "u"}]},
                    "Env": {"A": "$${b}"},
                    "KillTimeout": 20_000_000_000,
                    "KillSignal": "SIGQUIT",
                    "User": "",
                    "Artifacts": None,
                    "Vault": None,
                    "Resources": {"CPU": 7, "Cores": 0, "MemoryMB": 8, "MemoryMaxMB": 9},
                    "Templates": [
                        {
                            "EmbeddedTmpl": "text",
                            "DestPath": "local/t",
                            "Perms": "0640",
                            "ChangeMode": "restart",
                            "Envvars": False,
                            "SourcePath": "",
                        }
                    ],
                }
            ],
        }
    ],
}


@pytest.mark.parametrize("document", [JSON_JOB, {"Job": JSON_JOB}])
def test_nomads_json_is_read_bare_and_as_the_api_takes_it(document: dict[str, object]) -> None:
    read = jobfile.parse("j.json", json.dumps(document), {})
    assert (read.id, read.name, read.datacenter, read.namespace) == (
        "web",
        "web one",
        "dc9",
        "default",
    )
    assert read.ignored == ()
    (group,) = read.groups
    assert (group.count, read.meta) == (2, {"a": "b"})
    assert group.network == GroupNetwork(ports=(Port(label="http", static=80),))
    assert group.tasks == (
        JobTask(
            name="t",
            driver="containerd-driver",
            config={"image": "i:1", "args": ["${x}"], "auth": [{"username": "u"}]},
            env={"A": "$${b}"},
            cpu_mhz=7,
            memory_mb=8,
            memory_max_mb=9,
            kill_timeout_s=20.0,
            kill_signal="SIGQUIT",
            templates=(Template(data="text", destination="local/t", permissions=0o640),),
        ),
    )


def test_a_count_of_zero_is_zero() -> None:
    document = {"TaskGroups": [{"Name": "g", "Count": 0, "Tasks": [{"Name": "t"}]}]}
    assert jobfile.parse("j", json.dumps(document), {}).groups[0].count == 0


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "is not JSON"),
        ('{"Job": null}', "has no TaskGroups"),
        ('{"Job": {"TaskGroups": {}}}', "has no TaskGroups"),
        ('{"TaskGroups": []}', "has no group"),
        ('{"TaskGroups": [{"Tasks": 5}]}', "Tasks is not a list of objects"),
        ('{"TaskGroups": [{"Networks": ["bridge"]}]}', "Networks is not a list of objects"),
        (
            '{"TaskGroups": [{"Tasks": [{"Templates": [null]}]}]}',
            "Templates is not a list of objects",
        ),
        (
            '{"TaskGroups": [{"Tasks": [{"Name": "t", "Vault": {"Policies": ["p"]}}]}]}',
            "vault needs a Nomad agent",
        ),
        (
            '{"TaskGroups": [{"Tasks": [{"Resources": {"Cores": 2}}]}]}',
            "cores are reserved by a Nomad agent; use cpu",
        ),
        (
            '{"TaskGroups": [], "ParameterizedJob": {"Payload": "required"}}',
            "parameterized needs a Nomad server",
        ),
    ],
)
def test_json_that_cannot_be_run_is_refused(document: str, words: str) -> None:
    with pytest.raises(DriverError) as error:
        jobfile.parse("j.nomad", document, {})
    assert words in str(error.value)
