"""Kernel parameters of a task's network: set once, and only if the kernel has the parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.provision import network_sysctls

PORTS, PING = "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"
BOTH = {PORTS: "0", PING: "0 2147483647"}


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates the parameters of a new network, as /proc/sys shows a network."""
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / "net/ipv4/ip_unprivileged_port_start").write_text("1024\n")
    (tmp_path / "net/ipv4/ping_group_range").write_text("1\t0\n")
    monkeypatch.setattr(network_sysctls, "_PARAMETERS", tmp_path)
    return tmp_path / "net/ipv4"


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates an id map with all ids, as the initial user namespace has."""
    made = tmp_path / "gid_map"
    made.write_text("         0          0 4294967295\n")
    monkeypatch.setattr(network_sysctls, "_GID_MAP", made)
    return made


@pytest.mark.usefixtures("ids")
def test_a_new_network_gets_both(parameters: Path) -> None:
    assert network_sysctls.for_this_network() == BOTH
    (parameters / "ip_unprivileged_port_start").write_text("512\n")
    assert network_sysctls.for_new_network() == BOTH, "what the host has is not the new one's"


@pytest.mark.usefixtures("ids")
def test_what_somebody_has_set_stays(parameters: Path) -> None:
    (parameters / "ip_unprivileged_port_start").write_text("81\n")
    assert network_sysctls.for_this_network() == {PING: BOTH[PING]}
    (parameters / "ping_group_range").write_text("0\t5\n")
    assert network_sysctls.for_this_network() == {}


@pytest.mark.usefixtures("ids")
def test_a_kernel_without_them_is_left_alone(parameters: Path) -> None:
    (parameters / "ping_group_range").unlink()
    assert network_sysctls.for_new_network() == {PORTS: "0"}
    assert network_sysctls.for_this_network() == {PORTS: "0"}


@pytest.mark.usefixtures("parameters")
@pytest.mark.parametrize("text", ["0 100000 65536\n", "0 1000 1\n1 100000 65536\n", ""])
def test_a_machine_that_has_not_all_groups_cannot_let_all_ping(ids: Path, text: str) -> None:
    ids.write_text(text)
    assert network_sysctls.for_new_network() == {PORTS: "0"}
