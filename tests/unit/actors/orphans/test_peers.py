"""Living and dead peers: a lock ends with its process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.model.ownership import PLUGIN, RUN
from actors.orphans import peers
from actors.orphans.peers import Presence
from proto.errors import DriverError
from tests.support.kernel.scarce import SmallDisk
from tests.support.plugin.plugin_dir import ROOT

_HOLDER = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from actors.orphans.peers import Presence
own = Presence(Path(sys.argv[2]), "plugin-")
own.publish(nodes=["n"])
print(own.name, flush=True)
sys.stdin.read()
"""


def names(state_dir: Path, *, alive: bool) -> list[str]:
    return [peer.name for peer in peers.peers(state_dir) if peer.alive is alive]


def test_a_killed_process_is_dead_and_what_it_said_stays(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-I", "-c", _HOLDER, str(ROOT), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        name = holder.stdout.readline().strip()
        assert names(tmp_path, alive=True) == [name]
        assert not peers.remove(tmp_path, name)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    (peer,) = peers.peers(tmp_path)
    assert not peer.alive
    assert peer.published == {"pid": holder.pid, "nodes": ["n"]}
    assert peers.remove(tmp_path, name)
    assert peers.peers(tmp_path) == ()
    assert peers.remove(tmp_path, name)


def test_a_line_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    own = Presence(tmp_path, RUN)
    assert peers.peers(tmp_path)[0].published == {}
    own.publish(a=1)
    own.publish(a=2)
    with (tmp_path / "live" / own.name).open("a") as file:
        file.write('{"a": 3')
    assert peers.peers(tmp_path)[0].published["a"] == 2
    own.close()
    assert names(tmp_path, alive=False) == [own.name]


def test_who_leaves_is_forgotten(tmp_path: Path) -> None:
    own, other = Presence(tmp_path, PLUGIN), Presence(tmp_path, PLUGIN)
    own.withdraw()
    assert names(tmp_path, alive=True) == [other.name]
    other.withdraw()


def test_a_file_that_a_task_could_not_have_made_is_for_root_alone(tmp_path: Path) -> None:
    own = Presence(tmp_path / "state", PLUGIN)
    for path in (tmp_path / "state", tmp_path / "state/live"):
        assert path.stat().st_mode & 0o077 == 0
    (tmp_path / "state/live/plugin-x").symlink_to("/etc/passwd")
    assert names(tmp_path / "state", alive=True) == [own.name]
    assert not peers.remove(tmp_path / "state", "plugin-x")
    own.withdraw()


def test_a_directory_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "live").write_text("")
    with pytest.raises(DriverError, match="cannot write to the driver's state directory") as caught:
        Presence(tmp_path, PLUGIN)
    assert "set state_dir" in str(caught.value.resolution)


def test_what_finds_no_room_leaves_the_last_word_as_it_was(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, "16k")
    try:
        own = Presence(tmp_path, RUN)
        own.publish(a=1)
        with pytest.raises(DriverError, match=r"No space left on device \(make room there") as full:
            own.publish(a="x" * 65536)
        assert full.value.recoverable
        assert peers.peers(tmp_path)[0].published["a"] == 1
        own.publish(a=2)
        assert peers.peers(tmp_path)[0].published["a"] == 2
        own.withdraw()
    finally:
        disk.close()
