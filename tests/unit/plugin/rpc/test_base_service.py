"""SetConfig: the agent's values beside the plugin block, and the single home of the release."""

from __future__ import annotations

import asyncio
import tomllib

import pytest

from plugin.rpc.base_service import BaseService
from proto.nomad import base_pb2
from proto.release import RELEASE
from tests.support.fakes.gateway import FakeGateway
from tests.support.plugin.plugin_dir import ROOT

Core = base_pb2.ClientTopologyCore


def _configured(topology: base_pb2.ClientTopology | None) -> tuple[int, int]:
    gateway = FakeGateway()
    service = BaseService(lambda: gateway)
    request = base_pb2.SetConfigRequest(
        nomad_config={"driver": {"Topology": topology}} if topology is not None else None
    )
    asyncio.run(service.set_config(request))
    assert gateway.settings is not None
    return gateway.settings.total_mhz, gateway.settings.cores


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (None, (0, 0)),
        (base_pb2.ClientTopology(), (0, 0)),
        (base_pb2.ClientTopology(cores=[Core(base_speed=2000, max_speed=3000)]), (2000, 1)),
        (
            base_pb2.ClientTopology(cores=[Core(max_speed=3000, guess_speed=1), Core()]),
            (3000, 2),
        ),
        (base_pb2.ClientTopology(cores=[Core(guess_speed=1500), Core(disable=True)]), (1500, 2)),
        (
            base_pb2.ClientTopology(
                cores=[Core(base_speed=1000), Core(base_speed=1000, disable=True)]
            ),
            (2000, 2),
        ),
        (
            base_pb2.ClientTopology(cores=[Core(base_speed=1000)] * 4, override_total_compute=500),
            (500, 4),
        ),
    ],
)
def test_compute_is_counted_as_nomads_own_ticks_are(
    topology: base_pb2.ClientTopology | None, expected: tuple[int, int]
) -> None:
    assert _configured(topology) == expected


def test_the_distances_of_nodes_have_nomads_numbers() -> None:
    wire = b"\x12\x08\x08\x02\x12\x04\x0a\x14\x14\x0a"  # field 2: 2 rows of packed numbers
    distances = base_pb2.ClientTopology.FromString(wire).distances
    assert (distances.dimension, list(distances.values)) == (2, [10, 20, 20, 10])


def test_the_release_has_one_home_and_the_package_agrees() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == RELEASE
