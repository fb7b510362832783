"""Proxies of Consul Connect move to the driver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugin.convert.job_file import converted
from plugin.host.job.hcl_job import parse_hcl

ARGS = [
    "-c",
    "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json",
    "-l",
    "${meta.connect.log_level}",
    "--concurrency",
    "${meta.connect.proxy_concurrency}",
    "--disable-hot-restart",
]


def service(connect: str, *, mode: str = "bridge", driver: str = "docker") -> str:
    return f"""\
job "j" {{
  group "g" {{
    network {{
      mode = "{mode}"
    }}
    service {{
      name = "api"
      connect {{
        {connect}
      }}
    }}
    task "t" {{
      driver = "{driver}"
    }}
  }}
}}
"""


def sidecar(text: str) -> dict[str, Any]:
    group = parse_hcl("j", text, {})["job"][0]["j"]["group"][0]["g"]
    (task,) = group["service"][0]["connect"][0]["sidecar_task"]
    return {**task, "config": task["config"][0]}


@pytest.mark.parametrize(
    "connect",
    [
        "sidecar_service {}",
        "sidecar_service {}\n        sidecar_task {}",
        'sidecar_service {}\n        sidecar_task { driver = "docker" }',
        "sidecar_service {}\n        sidecar_task {\n          config {\n          }\n        }",
    ],
)
@pytest.mark.parametrize("driver", ["docker", "podman", "raw_exec"])
def test_a_proxy_gets_this_driver_with_the_image_and_arguments_of_nomad(
    connect: str, driver: str
) -> None:
    after, _ = converted("j", service(connect, driver=driver))
    assert sidecar(after) == {
        "driver": "containerd-driver",
        "config": {"image": "${meta.connect.sidecar_image}", "args": ARGS},
    }
    assert converted("j", after)[0] == after


def test_options_of_the_job_win_over_those_of_nomad() -> None:
    own = (
        'sidecar_service {}\nsidecar_task {\nkill_timeout = "9s"\nconfig {\nimage = "envoy:1"\n}\n}'
    )
    task = sidecar(converted("j", service(own))[0])
    assert task["kill_timeout"] == "9s"
    assert task["config"] == {"image": "envoy:1", "args": ARGS}


def test_a_gateway_on_the_host_network_stays_there() -> None:
    after, _ = converted("j", service("gateway {}", mode="host", driver="exec"))
    config = sidecar(after)["config"]
    assert config["image"] == "${meta.connect.gateway_image}"
    assert config["network_mode"] == "host"


@pytest.mark.parametrize(
    "connect", ["native = true", 'sidecar_service {}\nsidecar_task { driver = "exec2" }']
)
def test_a_service_without_a_proxy_of_docker_is_left_alone(connect: str) -> None:
    text = service(connect, driver="exec")
    assert converted("j", text) == (text, [])


@pytest.mark.parametrize("indent", [None, 4])
def test_a_proxy_in_json_has_the_names_of_nomads_api(indent: int | None) -> None:
    connect = {"Native": False, "SidecarService": {"Port": ""}, "SidecarTask": None}
    group = {
        "Name": "g",
        "Networks": [{"Mode": "bridge"}],
        "Services": [{"Name": "api", "Connect": connect}],
        "Tasks": [{"Name": "t", "Driver": "docker", "Config": {"image": "i"}}],
    }
    after, _ = converted("j", json.dumps({"ID": "j", "TaskGroups": [group]}, indent=indent))
    assert json.loads(after)["TaskGroups"][0]["Services"][0]["Connect"]["SidecarTask"] == {
        "Driver": "containerd-driver",
        "Config": {"image": "${meta.connect.sidecar_image}", "args": ARGS},
    }
