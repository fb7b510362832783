"""Tests of rules of a bridge network that another program has removed, or left."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containerd.deaths.test_killed_runs import Runs
from tests.containerd.network.test_bridge import SERVE, group, task
from tests.support.kernel.own_network import OwnNetwork
from tests.support.plugin.driver import Driver
from tests.support.plugin.host_run import Run
from tests.support.plugin.plugin_dir import ROOT

pytestmark = pytest.mark.containerd
NETWORK = {"Mode": "bridge", "DynamicPorts": [{"Label": "http", "To": 8080}]}


@pytest.fixture
def runs(network: OwnNetwork, driver: Driver, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(network, driver, tmp_path)
    yield made
    for run in made.runs:
        if run.process is not None and not run.ended():
            run.stop()


CHAINS: dict[str, list[tuple[str, ...]]] = {
    "nat flushed": [("-t", "nat", "-F")],
    "nat gone": [("-t", "nat", "-F"), ("-t", "nat", "-X")],
    "filter flushed": [("-F",)],
    "filter gone": [("-F",), ("-X",)],
    "everything gone": [("-F",), ("-X",), ("-t", "nat", "-F"), ("-t", "nat", "-X")],
}


@pytest.mark.parametrize("what", CHAINS)
@pytest.mark.parametrize("host_ip", ["127.0.0.1", "192.0.2.1"])
def test_an_allocation_whose_rules_somebody_has_removed_ends_in_silence(
    run: Run, image: str, what: str, host_ip: str
) -> None:
    run.network.must("ip", "addr", "add", "192.0.2.1/24", "dev", "lo")
    run.start([group(NETWORK, task(image, SERVE))], "--host-ip", host_ip)
    (port,) = run.wait_said("port")
    assert run.page(f"{host_ip}:{port['port']}", "/env")
    for words in CHAINS[what]:
        run.network.must("iptables", *words)
    assert run.stop() == 137
    assert run.said("error") == []
    assert run.left() == []


def test_doctor_names_a_redirection_that_stands_in_front_of_a_port(runs: Runs, image: str) -> None:
    reserved = {"Mode": "bridge", "ReservedPorts": [{"Label": "http", "Value": 18080, "To": 8080}]}
    first = runs.new()
    first.start([group(reserved, task(image, SERVE))], "--host-ip", "127.0.0.1")
    first.wait_said("port")
    assert first.page("127.0.0.1:18080", "/env")
    saved = runs.network.rules()
    assert first.stop() == 137
    # A firewall's restart brings back saved rules like these.
    runs.network.must("sh", "-c", 'printf %s "$1" | iptables-restore', "sh", saved)

    second = runs.new()
    second.start([group(reserved, task(image, SERVE))], "--host-ip", "127.0.0.1")
    second.wait_said("event")
    told = [line for line in doctor(runs) if line["subject"] == "ports"]
    assert told
    assert {line["verdict"] for line in told} == {"warn"}
    for line in told:
        assert "18080" in line["text"]
        assert any(alloc_id in line["text"] for alloc_id in first.alloc_ids)
    for line in told:
        runs.network.must("sh", "-c", line["advice"])
    assert [line for line in doctor(runs) if line["subject"] == "ports"] == []
    assert second.page("127.0.0.1:18080", "/env")
    assert second.stop() == 137


def doctor(runs: Runs) -> list[dict[str, Any]]:
    """Runs the doctor in the test's network and returns the report."""
    daemon = runs.driver.containerd
    done = runs.network.run(
        *(sys.executable, "-I", str(ROOT / "plugin/main.py"), "doctor", "--json"),
        *("--config", f"containerd_address={daemon.address}"),
        *("--config", f"state_dir={runs.driver.state_dir}"),
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
