"""Directories of killed plugins are removed, and directories of living plugins stay."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.handshake import Rendezvous


@pytest.fixture
def rendezvous(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rendezvous]:
    """Creates a rendezvous in a temporary directory with a path short enough for a socket."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("p")))
    made = Rendezvous()
    yield made
    made.remove()


def listening(directory: Path) -> socket.socket:
    directory.mkdir(mode=0o700)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(directory / "plugin.sock"))
    sock.listen()
    return sock


def test_only_places_where_nobody_listens_are_removed(rendezvous: Rendezvous) -> None:
    parent = Path(rendezvous.socket).parent.parent
    listening(parent / "nomad-cd-dead").close()
    listening(parent / "another-dead").close()
    (parent / "nomad-cd-new").mkdir()
    (parent / "nomad-cd-link").symlink_to(parent / "another-dead")
    with listening(parent / "nomad-cd-alive"):
        rendezvous.sweep()
        assert sorted(path.name for path in parent.iterdir()) == sorted(
            [
                Path(rendezvous.socket).parent.name,
                "another-dead",
                "nomad-cd-alive",
                "nomad-cd-link",
                "nomad-cd-new",
            ]
        )
        assert (parent / "nomad-cd-alive" / "plugin.sock").exists()
        assert (parent / "another-dead" / "plugin.sock").exists()
