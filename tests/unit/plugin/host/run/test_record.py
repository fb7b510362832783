"""Record of a run, and a later run which reads the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import PortMapping
from actors.model.settings import DriverSettings
from actors.orphans import peers
from actors.orphans.peers import Peer
from plugin.host.network.cni import BridgeNetwork
from plugin.host.run.alloc_plan import Alloc
from plugin.host.run.allocdir import AllocDir
from plugin.host.run.record import RunRecord, own_network, read_trace
from tests.support.fakes.scripted_cni import RESULT, ScriptedCni
from tests.support.plugin.services import services

PORT = PortMapping(label="http", value=25000, to=8080, host_ip="192.0.2.1")
NETNS = "/var/run/netns/a"


def record(state_dir: Path, notes: list[str] | None = None) -> RunRecord:
    shown = [] if notes is None else notes
    node = services(DriverSettings(state_dir=str(state_dir)))
    return RunRecord(
        node, shown.append, cni=("/cni",), root=state_dir / "allocs", own_root=True, keep=False
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


def test_a_written_record_is_read_again(tmp_path: Path) -> None:
    run = record(tmp_path)
    run.begin([alloc(tmp_path)])
    run.bridged("a", {"result": None, "allowed": ""})
    run.bridged("a", {"result": RESULT, "allowed": "192.0.2.7"})
    run.end(clean=False)
    peer = only_peer(tmp_path)
    assert not peer.alive
    trace = read_trace(peer)
    assert trace is not None
    assert trace.name == run.name
    assert trace.containerd == ("/nowhere/containerd.sock", "nomad")
    assert (trace.network, trace.cni) == (own_network(), ("/cni",))
    assert (trace.root, trace.own_root, trace.keep) == (tmp_path / "allocs", True, False)
    (read,) = trace.allocs
    assert (read.id, read.label, read.netns, read.ports) == ("a", "g", NETNS, (PORT,))
    assert read.bridge == {"result": RESULT, "allowed": "192.0.2.7"}


def test_a_clean_end_leaves_no_record(tmp_path: Path) -> None:
    run = record(tmp_path)
    run.begin([alloc(tmp_path)])
    run.end(clean=True)
    assert peers.peers(tmp_path) == ()


def test_a_run_goes_on_without_a_record_if_the_state_directory_is_not_writable(
    tmp_path: Path,
) -> None:
    (tmp_path / "live").write_text("")
    notes: list[str] = []
    run = record(tmp_path, notes)
    run.begin([alloc(tmp_path)])
    run.bridged("a", {})
    run.end(clean=True)
    assert run.name == ""
    assert "the run has no record" in notes[0]


@pytest.mark.parametrize(
    "fields", [{}, {"pid": 1}, {"place": 3}, {"place": ["a"]}, {"place": ["a", "b"], "pid": "x"}]
)
def test_a_record_in_another_form_is_not_read(fields: dict[str, Any]) -> None:
    peer = Peer(name="run-1", alive=False, since=0.0, published=fields)
    assert read_trace(peer) is None


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


def test_an_attachment_is_noted_before_the_first_change(tmp_path: Path) -> None:
    scripted = ScriptedCni(tmp_path)
    scripted.says({"bridge ADD": {}})
    notes: list[Any] = []
    place = ([str(scripted.directory)], tmp_path / "cni", "cdtest-none")
    network = BridgeNetwork(*place, note=lambda _, trace: notes.append(trace))
    with pytest.raises(Exception, match="bridge failed at ADD"):
        network.add("a", NETNS, [])
    assert notes == [{"result": None, "allowed": ""}, {"result": {}, "allowed": ""}]
