"""Fixtures of the acceptance tier: three hosts, one after the other, on one containerd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.model import identifiers
from tests.acceptance.clusters.agent_cluster import AgentCluster
from tests.acceptance.clusters.cluster import Cluster
from tests.acceptance.clusters.embedded import EmbeddedCluster
from tests.acceptance.clusters.go_cluster import GoCluster
from tests.nomad.build import build
from tests.nomad.conftest import built
from tests.support.daemons import runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.go_build import BuildError
from tests.support.kernel.task_cgroup import V2
from tests.support.needs import need_containerd
from tests.support.registries import images, stand_ins
from tests.support.registries.registry import Registry

KINDS = [
    pytest.param("embedded"),
    pytest.param("go-host", marks=pytest.mark.nomad),
    pytest.param("agent", marks=pytest.mark.nomad),
]
# The newest plugin host among the built hosts, and the newest whole agent.
PROGRAMS = {"go-host": "host-1.11.0", "agent": "agent"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the programs of the chosen tests before any test's clock: minutes, the first time."""
    if session.config.option.collectonly:
        return
    callspecs = [getattr(item, "callspec", None) for item in session.items]
    kinds = {spec.params.get("_kind") for spec in callspecs if spec is not None}
    if any("agent_binary" in getattr(item, "fixturenames", ()) for item in session.items):
        kinds.add("agent")
    for kind in kinds & set(PROGRAMS):
        with contextlib.suppress(BuildError):
            build(PROGRAMS[kind])


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdDaemon]:
    """Starts a containerd with the driver's default namespace, so that paths are a user's."""
    need_containerd()
    directory = tmp_path_factory.mktemp("runtimes")
    runtimes.wrap(directory)
    with ContainerdDaemon(path=str(directory)) as daemon:
        daemon.namespace = identifiers.namespace(cgroup_v2=V2)
        yield daemon


def driver_config(containerd: ContainerdDaemon) -> dict[str, str]:
    """Returns the driver's config for every host."""
    return {"containerd_address": containerd.address, "stats_interval": "1s"}


@pytest.fixture(scope="session")
def agent_binary() -> Path:
    """Returns the path of a `nomad`."""
    return built("agent")


@pytest.fixture(scope="session", params=KINDS)
def _kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def _shared_cluster(_kind: str, containerd: ContainerdDaemon) -> Iterator[Cluster]:
    config = driver_config(containerd)
    made: Cluster
    if _kind == "embedded":
        made = EmbeddedCluster(config)
    elif _kind == "go-host":
        made = GoCluster(built(PROGRAMS[_kind]), config)
    else:
        made = AgentCluster(built(PROGRAMS[_kind]), config)
    yield made
    made.close()


@pytest.fixture
def cluster(_shared_cluster: Cluster, containerd: ContainerdDaemon) -> Iterator[Cluster]:
    """Yields a host with the driver, purges a test's tasks and checks that nothing stays."""
    yield _shared_cluster
    _shared_cluster.clean()
    for listing in ("containers", "tasks"):
        assert containerd.ctr(listing, "ls", "-q") == ""


def pushed(registry: Registry, name: str, image: images.Image) -> str:
    """Pushes an image to the tests' registry and returns the reference."""
    return images.push(registry.host, f"acceptance/{name}", "1", image)


@pytest.fixture(scope="session")
def redis_image(registry: Registry) -> str:
    """Pushes the stand-in for redis."""
    return pushed(registry, "redis", stand_ins.redis())


@pytest.fixture(scope="session")
def ubuntu_image(registry: Registry) -> str:
    """Pushes the stand-in for ubuntu."""
    return pushed(registry, "ubuntu", stand_ins.ubuntu())


@pytest.fixture(scope="session")
def mosquitto_image(registry: Registry) -> str:
    """Pushes the stand-in for mosquitto."""
    return pushed(registry, "mosquitto", stand_ins.mosquitto())
