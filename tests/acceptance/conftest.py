"""Fixtures of the acceptance tier: three hosts one after the other on one containerd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import identifiers
from tests.acceptance import stand_ins
from tests.acceptance.agent_cluster import AgentCluster
from tests.acceptance.cluster import Cluster
from tests.acceptance.embedded import EmbeddedCluster
from tests.acceptance.go_cluster import GoCluster
from tests.acceptance.task_cgroup import V2
from tests.nomad.build import BuildError, build
from tests.support import images, runtimes
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.needs import missing, need_containerd
from tests.support.registry import Registry

HOST = "host-1.11.0"
KINDS = [
    pytest.param("embedded"),
    pytest.param("go-host", marks=pytest.mark.nomad),
    pytest.param("agent", marks=pytest.mark.nomad),
]
PROGRAMS = {"go-host": HOST, "agent": "agent"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds what the chosen tests need before any test's clock runs: minutes, the first time."""
    if session.config.option.collectonly:
        return
    callspecs = [getattr(item, "callspec", None) for item in session.items]
    kinds = {spec.params.get("_kind") for spec in callspecs if spec is not None}
    for kind in kinds & set(PROGRAMS):
        with contextlib.suppress(BuildError):
            build(PROGRAMS[kind])


def program(kind: str) -> Path:
    """A Nomad program; without Go the test is skipped, or fails where REQUIRE has nomad."""
    name = PROGRAMS[kind]
    try:
        return build(name)
    except BuildError as error:
        first = str(error).partition("\n")[0]
        missing("nomad", str(error), skip_as=f"{name} cannot be built: {first[:200]}")


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdDaemon]:
    """A containerd for this tier, with the driver's own namespace, so that paths are a user's."""
    need_containerd()
    directory = tmp_path_factory.mktemp("runtimes")
    runtimes.wrap(directory)
    with ContainerdDaemon(path=str(directory)) as daemon:
        daemon.namespace = identifiers.namespace(cgroup_v2=V2)
        yield daemon


def make(kind: str, containerd: ContainerdDaemon, **config: Any) -> Cluster:
    """A host of a kind, with the driver's config."""
    whole = {"containerd_address": containerd.address, "stats_interval": "1s", **config}
    if kind == "embedded":
        return EmbeddedCluster(whole)
    if kind == "go-host":
        return GoCluster(program(kind), whole)
    return AgentCluster(program(kind), whole)


@pytest.fixture(scope="session", params=KINDS)
def _kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def _shared_cluster(_kind: str, containerd: ContainerdDaemon) -> Iterator[Cluster]:
    made = make(_kind, containerd)
    yield made
    made.close()


@pytest.fixture
def cluster(_shared_cluster: Cluster, containerd: ContainerdDaemon) -> Iterator[Cluster]:
    """A host with the driver; what a test leaves running is purged, and nothing may stay."""
    yield _shared_cluster
    _shared_cluster.clean()
    for listing in ("containers", "tasks"):
        assert containerd.ctr(listing, "ls", "-q") == ""


def pushed(registry: Registry, name: str, image: images.Image) -> str:
    """The reference of an image in the tests' registry."""
    return images.push(registry.host, f"acceptance/{name}", "1", image)


@pytest.fixture(scope="session")
def redis_image(registry: Registry) -> str:
    """What runs in the place of redis."""
    return pushed(registry, "redis", stand_ins.redis())


@pytest.fixture(scope="session")
def ubuntu_image(registry: Registry) -> str:
    """What runs in the place of ubuntu."""
    return pushed(registry, "ubuntu", stand_ins.ubuntu())


@pytest.fixture(scope="session")
def mosquitto_image(registry: Registry) -> str:
    """What runs in the place of mosquitto."""
    return pushed(registry, "mosquitto", stand_ins.mosquitto())
