"""Plugin blocks of other drivers: each option is taken, ignored with a warning, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from actors.model.settings import DriverSettings, LogOptions
from plugin import options
from plugin.host.agent import hcl_config
from plugin.options import hcl_schema
from proto.errors import DriverError

# Names and types of the plugin schemas of Nomad's drivers; the values are of these types. A map
# stands for a block, a list of maps for several blocks.
DOCKER = {
    "allow_caps": ["chown"],
    "allow_privileged": True,
    "allow_runtimes": ["runc", "nvidia"],
    "allowed_modes": {"pid": ["host"], "ipc": ["host"], "uts": ["host"], "userns": ["host"]},
    "auth": {"config": "/etc/docker-auth.json", "helper": "ecr-login"},
    "container_exists_attempts": 5,
    "disable_log_collection": True,
    "endpoint": "unix:///var/run/docker.sock",
    "extra_labels": ["job_name", "task*"],
    "gc": {
        "image": True,
        "image_delay": "3m",
        "container": True,
        "dangling_containers": {
            "enabled": True,
            "period": "5m",
            "creation_grace": "5m",
            "dry_run": False,
        },
    },
    "image_pull_timeout": "5m",
    "infra_image": "registry.k8s.io/pause-amd64:3.3",
    "infra_image_pull_timeout": "5m",
    "logging": {"type": "json-file", "config": {"max-file": "2", "max-size": "2m"}},
    "nvidia_runtime": "nvidia",
    "oom_score_adj": 9,
    "pids_limit": 100,
    "pull_activity_timeout": "2m",
    "tls": {"cert": "/a", "key": "/b", "ca": "/c"},
    "volumes": {"enabled": True, "selinuxlabel": "z"},
    "windows_allow_insecure_container_admin": True,
}
PODMAN = {
    "auth": {"config": "/etc/auth.json", "helper": "ecr-login"},
    "client_http_timeout": "60s",
    "disable_log_collection": True,
    "dns_servers": ["9.9.9.9"],
    "extra_labels": ["job_*"],
    "gc": {"container": True},
    "logging": {"driver": "nomad", "options": {"tag": "t"}},
    "networking": {"default_rootless_mode": "pasta"},
    "recover_stopped": True,
    "socket": [{"name": "app", "socket_path": "unix:///run/podman/podman.sock"}],
    "socket_path": "unix:///run/podman/podman.sock",
    "volumes": {"enabled": True, "selinuxlabel": "z"},
}
REFUSED = {"endpoint", "socket", "socket_path", "tls"}
WARNED = {
    *("client_http_timeout", "container_exists_attempts", "infra_image"),
    *("infra_image_pull_timeout", "networking", "nvidia_runtime", "recover_stopped"),
    "windows_allow_insecure_container_admin",
}


def settings(**block: Any) -> DriverSettings:
    """Reads a block as a plugin does, with the bytes of the schema's encoder."""
    schema = hcl_schema.schema(options.DRIVER_OPTIONS)
    return options.driver_settings(hcl_config.encode(schema, block))


def refusal(**block: Any) -> str:
    with pytest.raises(DriverError) as caught:
        settings(**block)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{driver}-{name}")
        for driver, block in (("docker", DOCKER), ("podman", PODMAN))
        for name, value in block.items()
    ],
)
def test_every_option_of_other_plugin_blocks_is_taken_or_refused_with_advice(
    name: str, value: Any
) -> None:
    if name in REFUSED:
        text = refusal(**{name: value})
        assert name in text
        assert "; " in text.partition("is not supported: ")[2]
        return
    read = settings(**{name: value})
    warned = [sentence.partition(":")[0].partition(".")[0] for sentence in read.warnings]
    assert warned == ([name] if name in WARNED else [])


def test_parts_of_refused_blocks_are_told_alone() -> None:
    assert "gc.container: false is not supported" in refusal(gc={"container": False})


def test_the_label_of_volumes_is_for_the_node_or_for_a_namespace() -> None:
    read = settings(
        volumes={"selinuxlabel": "z"}, namespace={"a": {"volumes": {"selinuxlabel": "Z"}}}
    )
    assert (read.gates.volume_label, read.gates_of("a").volume_label) == ("z", "Z")
    assert "'shared' is not one of z, Z" in refusal(volumes={"selinuxlabel": "shared"})


def test_defaults_for_jobs_come_from_the_block() -> None:
    assert "dns_servers[0]: 'a' is not an IP address" in refusal(dns_servers=["a"])
    read = settings(image_pull_timeout="9m", oom_score_adj=7, extra_labels=["job_*", "jbo"])
    assert (read.image_pull_timeout_s, read.oom_score_adj) == (540.0, 7)
    assert read.extra_labels == ("job_*", "jbo")
    assert read.warnings == ("extra_labels: 'jbo' matches no label",)


def test_patterns_of_labels_are_few_and_short() -> None:
    # A pattern becomes a regular expression, which stays in the plugin's memory.
    for patterns in (["*a" * 100], ["job_id"] * 9):
        problem = "extra_labels: at most 8 patterns, each of at most 30 letters"
        assert problem in refusal(extra_labels=patterns)


def test_no_log_collection_by_nomad_is_a_collection_by_the_driver() -> None:
    assert settings().log_collection == "nomad"
    assert settings(disable_log_collection=False).log_collection == "nomad"
    assert settings(disable_log_collection=True).log_collection == "driver"
    both = {"disable_log_collection": True, "log_collection": "nomad"}
    assert "disable_log_collection: differs from another name" in refusal(**both)


def test_a_default_log_that_only_the_driver_writes_needs_its_collection() -> None:
    journal = {"driver": "journald", "options": {"tag": "{{.Name}}"}}
    assert 'set log_collection = "driver"' in refusal(logging=journal)
    read = settings(logging=journal, log_collection="driver")
    assert read.logging == LogOptions(type="journald", tag="{{.Name}}")
    assert settings(logging=DOCKER["logging"]).logging is not None
