"""The product's own actors behind every RPC, with no containerd to ask."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import msgpack
import pytest

from proto.nomad import base_pb2, driver_pb2
from tests.support.plugin.plugin_calls import (
    UNARIES,
    answered_or_refused,
    failure_of,
    task_message,
    unhurt,
)
from tests.support.plugin.plugin_dir import make_plugin_dir
from tests.support.plugin.plugin_process import (
    BASE,
    PluginProcess,
)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginProcess]:
    """Yields the product's own actors, without a containerd on the machine."""
    with unhurt(make_plugin_dir(tmp_path_factory.mktemp("product"))) as process:
        yield process


def _configure(product: PluginProcess, directory: Path, **options: str) -> None:
    config = {"containerd_address": f"{directory}/nowhere.sock", "state_dir": f"{directory}/state"}
    config |= options
    request = base_pb2.SetConfigRequest(msgpack_config=msgpack.packb(config))
    product.unary(BASE, "SetConfig", request)


MEANINGLESS: list[dict[str, str]] = [
    {},
    {"task_id": "a/b/00000000"},
    {"task_id": "\n../\0"},
    {"task_id": "/" * 100_000},
]


def _ask_everything(product: PluginProcess, fields: dict[str, str]) -> None:
    for method in UNARIES:
        known = getattr(driver_pb2, f"{method}Request").DESCRIPTOR.fields_by_name
        answered_or_refused(product, method, **{k: v for k, v in fields.items() if k in known})


@pytest.mark.parametrize("fields", MEANINGLESS, ids=["empty", "unknown", "hostile", "long"])
def test_the_products_actors_answer_or_refuse_what_means_nothing(
    product: PluginProcess, tmp_path: Path, fields: dict[str, str]
) -> None:
    _configure(product, tmp_path)
    _ask_everything(product, fields)


def test_the_products_actors_answer_or_refuse_before_they_are_configured(tmp_path: Path) -> None:
    with PluginProcess(make_plugin_dir(tmp_path)) as product:
        for fields in MEANINGLESS:
            _ask_everything(product, fields)
        product.shut_down()


def test_without_containerd_the_product_is_unhealthy_with_the_reason(
    product: PluginProcess, tmp_path: Path
) -> None:
    _configure(product, tmp_path)
    look = next(iter(product.stream("Fingerprint")))
    assert look.health == driver_pb2.FingerprintResponse.UNHEALTHY
    assert f"{tmp_path}/nowhere.sock" in look.health_description
    failure = failure_of(product, "StartTask", task=task_message("nowhere"))
    assert failure.code() in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNKNOWN}
    assert "the containerd driver failed inside" not in failure.details()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone creates network namespaces")
def test_a_network_survives_the_plugin_and_is_removed_by_its_allocations_id(
    tmp_path: Path,
) -> None:
    alloc_id, plugins = str(uuid.uuid4()), make_plugin_dir(tmp_path)
    path = Path("/var/run/netns") / alloc_id
    with PluginProcess(plugins) as first:
        _configure(first, tmp_path, network_creation="driver")
        assert first.driver("Capabilities").capabilities.must_create_network
        answer = first.driver("CreateNetwork", alloc_id=alloc_id, hostname="db")
        assert (answer.created, answer.isolation_spec.path) == (True, str(path))
        assert dict(answer.isolation_spec.labels) == {"docker_sandbox_hostname": "db"}
        first.shut_down()
    with PluginProcess(plugins) as second:
        _configure(second, tmp_path, network_creation="driver")
        again = second.driver("CreateNetwork", alloc_id=alloc_id, hostname="db")
        assert (again.created, again.isolation_spec) == (False, answer.isolation_spec)
        second.driver("DestroyNetwork", alloc_id=alloc_id)
        assert not path.exists()
        second.shut_down()
