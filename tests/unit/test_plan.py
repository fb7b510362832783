"""What a start will make, worked out before anything is made."""

from __future__ import annotations

import pytest

from actors import plan
from actors.nomad_types import NetworkIsolation, TaskConfig
from actors.settings import Auth, DriverSettings, TaskOptions
from containerd.reference import parse
from proto.errors import DriverError
from tests.support.services import services

OPERATOR = Auth(username="operator", password="secret")
TASK = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir="/allocs/a")


@pytest.mark.parametrize(
    ("image", "server", "sent"),
    [
        ("redis", "", True),
        ("docker.io/library/redis:7", "", True),
        ("evil.example/redis", "", False),
        ("127.0.0.1:5000/redis", "", False),
        ("registry.example.com/redis", "registry.example.com", True),
    ],
)
def test_the_operators_password_goes_to_its_own_registry_only(
    image: str, server: str, sent: bool
) -> None:
    auth = Auth(username="operator", password="secret", server_address=server)
    made = plan.make(services(DriverSettings(auth=auth)), TASK, TaskOptions(image=image))
    assert made.image.auth == (auth if sent else None)


def test_a_jobs_own_password_wins_over_the_operators() -> None:
    own = Auth(username="job", password="own")
    options = TaskOptions(image="evil.example/x", auth=own)
    assert plan.make(services(DriverSettings(auth=OPERATOR)), TASK, options).image.auth == own


def test_only_latest_is_looked_up_each_time() -> None:
    def always(image: str) -> bool:
        return plan.make(services(), TASK, TaskOptions(image=image)).image.always_pull

    assert always("redis")
    assert always("redis:latest")
    assert not always("redis:7")
    assert not always(f"redis:latest@sha256:{'a' * 64}")
    assert parse("redis").tag == "latest"


def test_a_disabled_driver_starts_nothing() -> None:
    with pytest.raises(DriverError, match="disabled on this node"):
        plan.make(services(DriverSettings(enabled=False)), TASK, TaskOptions(image="redis"))


def test_host_network_and_a_bridge_exclude_each_other() -> None:
    bridge = NetworkIsolation(mode=1, path="/var/run/netns/a")
    task = TaskConfig(id="a/web/1", name="web", alloc_id="a", network=bridge)
    with pytest.raises(DriverError, match="host_network and bridge network mode are mutually"):
        plan.make(services(), task, TaskOptions(image="redis", host_network=True))


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
