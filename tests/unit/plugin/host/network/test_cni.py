"""The chain of CNI plugins: arguments and environment of each plugin, and failures."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from actors.model.nomad import PortMapping
from plugin.host.network import iptables
from plugin.host.network.cni import Attached, BridgeNetwork
from proto.errors import Code, DriverError
from tests.support.fakes.scripted_cni import RESULT, ScriptedCni

ALLOC = "0d4c3f5e"
NETNS = "/proc/self/ns/net"
"""A namespace of an allocation; no scripted plugin enters a namespace."""
PORTS = [
    PortMapping(label="http", value=25000, to=8080, host_ip="127.0.0.1"),
    PortMapping(label="same", value=25001, to=0, host_ip="127.0.0.1"),
]
FORWARDS = ["loopback", "bridge", "firewall", "portmap"]
ADDS = [f"{name} ADD" for name in FORWARDS]
DELETES = [f"{name} DEL" for name in reversed(FORWARDS)]


@pytest.fixture
def scripted(tmp_path: Path) -> ScriptedCni:
    return ScriptedCni(tmp_path)


@pytest.fixture
def network(scripted: ScriptedCni, tmp_path: Path) -> BridgeNetwork:
    # No interface has this name: the last allocation's end removes the bridge.
    return BridgeNetwork(["/nonexistent", str(scripted.directory)], tmp_path / "cni", "cdtest-none")


def failed_add(network: BridgeNetwork) -> DriverError:
    with pytest.raises(DriverError) as error:
        network.add(ALLOC, NETNS, PORTS)
    return error.value


def test_an_allocation_goes_through_the_chain_and_back(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    assert network.add(ALLOC, NETNS, PORTS) == Attached(interface="eth0", address="192.0.2.7")
    assert network.delete(ALLOC, NETNS, PORTS) == []
    assert scripted.order() == [*ADDS, *DELETES]
    for _, command, env, config in scripted.calls():
        assert env == {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": ALLOC,
            "CNI_NETNS": NETNS,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"/nonexistent:{scripted.directory}",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        assert (config["cniVersion"], config["name"]) == ("0.4.0", "containerd-driver")


@pytest.mark.parametrize("left", [True, False], ids=["plain file", "nothing"])
def test_a_namespace_that_is_gone_has_no_name_at_the_end(
    network: BridgeNetwork,
    scripted: ScriptedCni,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: bool,
) -> None:
    removed: list[tuple[str, str]] = []
    monkeypatch.setattr(
        iptables, "remove_masquerading", lambda *arguments: removed.append(arguments)
    )
    network.add(ALLOC, NETNS, PORTS)
    gone = tmp_path / "gone"
    if left:
        gone.touch()
    assert network.delete(ALLOC, str(gone), PORTS) == []
    assert [env["CNI_NETNS"] for _, _, env, _ in scripted.calls()] == [NETNS] * 4 + [""] * 4
    assert removed == [("containerd-driver", ALLOC)]


def test_each_plugin_gets_the_result_before_it_and_the_last_one_at_the_end(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    network.add(ALLOC, NETNS, PORTS)
    network.delete(ALLOC, NETNS, PORTS)
    results = [config.get("prevResult") for _, _, _, config in scripted.calls()]
    assert results == [None, {}, RESULT, RESULT, *[RESULT] * 4]


def test_a_port_is_published_for_both_protocols(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    network.add(ALLOC, NETNS, PORTS)
    network.delete(ALLOC, NETNS, PORTS)
    wanted = [
        {"hostPort": outer, "containerPort": inner, "protocol": kind, "hostIP": "127.0.0.1"}
        for outer, inner in ((25000, 8080), (25001, 25001))
        for kind in ("tcp", "udp")
    ]
    for name, _, _, config in scripted.calls():
        arguments = config.get("runtimeConfig")
        assert arguments == ({"portMappings": wanted} if name == "portmap" else None)


def test_a_failure_names_the_plugin_and_the_reason(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    answer = {"cniVersion": "0.4.0", "code": 999, "msg": "no room", "details": "at all"}
    scripted.says({"firewall ADD": {"out": json.dumps(answer)}})
    error = failed_add(network)
    assert "the CNI plugin firewall failed at ADD: no room: at all" in str(error)
    assert "containerd-driver doctor" in error.resolution
    assert scripted.order() == ADDS[:3]


def test_a_failed_chain_is_undone_with_the_last_result(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    scripted.says({"portmap ADD": {"err": "broken\n"}})
    assert "portmap failed at ADD: broken" in str(failed_add(network))
    assert network.delete(ALLOC, NETNS, PORTS) == []
    assert scripted.order() == [*ADDS, *DELETES]
    assert all(config["prevResult"] == RESULT for _, _, _, config in scripted.calls()[4:])


def test_the_first_plugins_failure_leaves_no_result_and_is_undone_too(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    scripted.says({"loopback ADD": {"status": 3}})
    assert "loopback failed at ADD: status 3" in str(failed_add(network))
    assert network.delete(ALLOC, NETNS, PORTS) == []
    assert all("prevResult" not in config for _, _, _, config in scripted.calls())


def test_a_failure_of_one_plugin_stops_no_other_plugin_at_the_end(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    network.add(ALLOC, NETNS, PORTS)
    scripted.says({"firewall DEL": {"out": "{}", "err": "stuck"}, "portmap DEL": {}})
    failures = network.delete(ALLOC, NETNS, PORTS)
    assert [error.brief for error in failures] == [
        "the CNI plugin portmap failed at DEL",
        "the CNI plugin firewall failed at DEL",
    ]
    assert scripted.order()[4:] == DELETES


@pytest.mark.parametrize("out", ["", "no JSON", "[]"])
def test_a_plugin_without_a_result_has_failed(
    network: BridgeNetwork, scripted: ScriptedCni, out: str
) -> None:
    scripted.says({"bridge ADD": {"out": out, "status": 0}})
    assert "bridge failed at ADD: the plugin returned no result" in str(failed_add(network))


def test_a_result_without_an_address_is_a_failure(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    scripted.says({"portmap ADD": {"out": "{}", "status": 0}})
    assert "the plugin returned no address" in str(failed_add(network))


def test_a_plugin_that_a_signal_ended_is_named(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    (scripted.directory / "bridge").write_text("#!/bin/sh\nkill -9 $$\n")
    assert "bridge did not end by itself: signal 9" in str(failed_add(network))


def test_a_plugin_that_cannot_run_is_named(network: BridgeNetwork, scripted: ScriptedCni) -> None:
    (scripted.directory / "bridge").write_text("#!/nonexistent\n")
    assert "bridge does not start: No such file" in str(failed_add(network))


def test_missing_plugins_are_reported_before_the_start(
    network: BridgeNetwork, scripted: ScriptedCni
) -> None:
    for name in ("host-local", "portmap"):
        (scripted.directory / name).unlink()
    with pytest.raises(DriverError, match="no CNI plugin host-local, portmap in /non") as error:
        network.check()
    assert "containernetworking-plugins" in error.value.resolution
    assert "--cni-path" in error.value.resolution
    assert error.value.code is Code.UNSUPPORTED


def test_the_state_goes_with_the_last_address(network: BridgeNetwork, tmp_path: Path) -> None:
    state = tmp_path / "cni"
    network.add(ALLOC, NETNS, PORTS)
    addresses = state / "containerd-driver"
    addresses.mkdir()
    (addresses / "last_reserved_ip.0").write_text("172.26.80.3")
    others = addresses / "172.26.80.3"
    others.write_text("another allocation")
    assert network.delete(ALLOC, NETNS, PORTS) == []
    assert others.exists()
    others.unlink()
    network.add(ALLOC, NETNS, PORTS)
    assert network.delete(ALLOC, NETNS, PORTS) == []
    assert not state.exists()


def test_hosts_wait_for_each_other_even_when_one_removes_the_state(
    scripted: ScriptedCni, tmp_path: Path
) -> None:
    hosts = [
        BridgeNetwork([str(scripted.directory)], tmp_path / "cni", "cdtest-none") for _ in range(4)
    ]
    failures: list[DriverError] = []

    def life(number: int) -> None:
        hosts[number].add(f"alloc-{number}", NETNS, [])
        failures.extend(hosts[number].delete(f"alloc-{number}", NETNS, []))

    threads = [threading.Thread(target=life, args=(number,)) for number in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    asked = [(command, env["CNI_CONTAINERID"]) for _, command, env, _ in scripted.calls()]
    # No host calls a plugin between the four calls of another host.
    turns = [asked[start : start + 4] for start in range(0, len(asked), 4)]
    assert len(turns) == 2 * len(hosts)
    assert all(len(set(turn)) == 1 for turn in turns)
