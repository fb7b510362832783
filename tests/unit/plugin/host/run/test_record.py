"""What a run writes down, and what a later one makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import PortMapping
from actors.model.settings import DriverSettings
from actors.orphans import peers
from actors.orphans.peers import Peer
from plugin.host.network.cni import BridgeNetwork
from plugin.host.run import record as run_record
from plugin.host.run.alloc_plan import Alloc
from plugin.host.run.allocdir import AllocDir
from plugin.host.run.record import RunRecord, own_network
from tests.support.scripted_cni import RESULT, ScriptedCni
from tests.support.services import services

PORT = PortMapping(label="http", value=25000, to=8080, host_ip="192.0.2.1")
NETNS = "/var/run/netns/a"


def record(state_dir: Path, notes: list[str] | None = None) -> RunRecord:
    said = [] if notes is None else notes
    node = services(DriverSettings(state_dir=str(state_dir)))
    return RunRecord(
        node, said.append, cni=("/cni",), root=str(state_dir / "allocs"), own_root=True, keep=False
    )


def alloc(root: Path) -> Alloc:
    return Alloc(
        id="a",
        label="g",
        directory=AllocDir(root, "a"),
        tasks=(),
        mode="bridge",
        netns=NETNS,
        ports=(PORT,),
    )


def only_peer(state_dir: Path) -> Peer:
    (peer,) = peers.peers(state_dir)
    return peer


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    own = record(tmp_path)
    own.begin([alloc(tmp_path)])
    own.bridged("a", {"result": None, "allowed": ""})
    own.bridged("a", {"result": RESULT, "allowed": "192.0.2.7"})
    own.end(clean=False)
    peer = only_peer(tmp_path)
    assert not peer.alive
    trace = run_record.read_trace(peer)
    assert trace is not None
    assert trace.name == own.name
    assert trace.containerd == ("/nowhere/containerd.sock", "nomad")
    assert (trace.network, trace.cni) == (own_network(), ("/cni",))
    assert (trace.root, trace.own_root, trace.keep) == (tmp_path / "allocs", True, False)
    (found,) = trace.allocs
    assert (found.id, found.label, found.netns, found.ports) == ("a", "g", NETNS, (PORT,))
    assert found.bridge == {"result": RESULT, "allowed": "192.0.2.7"}


def test_a_clean_end_leaves_no_record(tmp_path: Path) -> None:
    own = record(tmp_path)
    own.begin([alloc(tmp_path)])
    own.end(clean=True)
    assert peers.peers(tmp_path) == ()


def test_a_run_goes_without_a_record_where_there_is_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "live").write_text("")
    notes: list[str] = []
    own = record(tmp_path, notes)
    own.begin([alloc(tmp_path)])
    own.bridged("a", {})
    own.end(clean=True)
    assert own.name == ""
    assert "the run has no record" in notes[0]


@pytest.mark.parametrize(
    "says", [{}, {"pid": 1}, {"place": 3}, {"place": ["a"]}, {"place": ["a", "b"], "pid": "x"}]
)
def test_a_record_of_another_kind_is_not_understood(says: dict[str, Any]) -> None:
    peer = Peer(name="run-1", alive=False, since=0.0, published=says)
    assert run_record.read_trace(peer) is None


def test_a_later_host_detaches_with_the_arguments_of_the_first(tmp_path: Path) -> None:
    scripted = ScriptedCni(tmp_path)
    notes: dict[str, Any] = {}
    place = ([str(scripted.directory)], tmp_path / "cni", "cdtest-none")
    local = [PortMapping(label="http", value=25000, to=8080, host_ip="127.0.0.1")]
    first = BridgeNetwork(*place, note=notes.__setitem__)
    first.add("a", NETNS, local)
    first.delete("a", NETNS, local)
    expected = scripted.calls()[4:]
    later = BridgeNetwork(*place)
    later.resume("a", notes["a"])
    assert later.delete("a", NETNS, local) == []
    assert scripted.calls()[8:] == expected
    assert [call[3]["prevResult"] for call in expected] == [RESULT] * 4


def test_what_was_not_made_yet_is_noted_first(tmp_path: Path) -> None:
    scripted = ScriptedCni(tmp_path)
    scripted.says({"bridge ADD": {}})
    notes: list[Any] = []
    place = ([str(scripted.directory)], tmp_path / "cni", "cdtest-none")
    network = BridgeNetwork(*place, note=lambda _, trace: notes.append(trace))
    with pytest.raises(Exception, match="bridge failed at ADD"):
        network.add("a", NETNS, [])
    assert notes == [{"result": None, "allowed": ""}, {"result": {}, "allowed": ""}]
