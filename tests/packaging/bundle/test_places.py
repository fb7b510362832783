"""install.sh of the archive where a machine differs from Debian: places, mounts, modes of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging.bundle.bare_guest import HOME, NEWER, NEWER_HOME, PREFIX, bare_root
from tests.support.guests.guest import without_systemd

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

INSTALL = f"sh {HOME}/install.sh"
VERSION = f"containerd-driver v{RELEASE}"


@pytest.fixture
def root(archive: Path) -> Iterator[Path]:
    """Yields a root of Debian 12 without Python."""
    with bare_root("bookworm", archive) as made:
        yield made


def output(root: Path, script: str) -> str:
    """Runs a script that must succeed, and returns its output."""
    done = without_systemd(root, script)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_directory_of_other_programs_is_refused_and_kept(root: Path) -> None:
    said = output(
        root,
        f"""
        mkdir -p /opt/7zip /opt/own
        ! {INSTALL} --prefix /opt
        {INSTALL} --prefix /opt/own
        touch /opt/own/notes /opt/own/2notes
        sh /opt/own/current/install.sh --uninstall --prefix /opt/own
        echo left: /opt/* /opt/own/*
        """,
    )
    assert "/opt has files of other programs" in said
    assert "/opt/own stays: the directory has other files" in said
    assert "left: /opt/7zip /opt/own /opt/own/2notes /opt/own/notes" in said


def test_an_archive_on_a_noexec_mount_is_installed_and_a_noexec_prefix_is_refused(
    root: Path,
) -> None:
    said = output(
        root,
        f"""
        mount -t tmpfs -o noexec tmpfs /mnt
        cp -R {HOME} /mnt/archive
        ! /mnt/archive/plugins/containerd-driver --version
        ! sh /mnt/archive/install.sh --prefix /mnt/driver
        sh /mnt/archive/install.sh
        containerd-driver --version
        echo left: /mnt/*
        """,
    )
    assert VERSION in said.splitlines()
    assert "does not start in /mnt/driver" in said
    assert "noexec" in said
    assert "left: /mnt/archive" in said.splitlines()


def test_a_read_only_usr_gets_a_link_in_opt_bin_and_without_that_none(root: Path) -> None:
    said = output(
        root,
        f"""
        mount --bind /usr /usr
        mount -o remount,ro,bind /usr
        {INSTALL}
        mkdir /opt/bin
        {INSTALL}
        /opt/bin/containerd-driver --version
        sh {PREFIX}/current/install.sh --uninstall
        echo left: /opt/* /opt/bin/*
        """,
    )
    assert "no link: neither /usr/local/bin nor /opt/bin can be written" in said
    assert VERSION in said.splitlines()
    assert "left: /opt/bin /opt/bin/*" in said.splitlines()


def test_a_place_that_cannot_be_written_is_named_before_the_first_change(root: Path) -> None:
    said = output(
        root,
        f"""
        mkdir -p /run/systemd/system /opt/plugins
        mount --bind /etc /etc
        mount -o remount,ro,bind /etc
        ! {INSTALL}
        ln -s /bin/true /opt/plugins/containerd-driver
        ! {INSTALL} --no-systemd --plugin-dir /opt/plugins
        ln -sfn /bin/nothing /opt/plugins/containerd-driver
        touch /usr/local/bin/containerd-driver
        ! {INSTALL} --no-systemd --plugin-dir /opt/plugins
        echo left: /opt/*
        """,
    )
    assert "cannot write /etc/systemd/system. With --no-systemd" in said
    assert "/opt/plugins/containerd-driver belongs to another program" in said
    assert "/usr/local/bin/containerd-driver belongs to another program" in said
    assert "left: /opt/plugins" in said.splitlines()


def test_a_release_in_use_stays_also_behind_a_link(root: Path) -> None:
    said = output(
        root,
        f"""
        mkdir /data
        ln -s /data /link
        {INSTALL} --prefix /link/driver
        /link/driver/current/python/bin/python3 -c 'import signal; signal.pause()' &
        pid=$!
        sh {NEWER_HOME}/install.sh --prefix /link/driver
        echo both: /data/driver/[0-9]*
        kill $pid
        wait $pid || true
        sh {HOME}/install.sh --prefix /link/driver
        echo one: /data/driver/[0-9]*
        """,
    )
    assert f"/data/driver/{RELEASE} stays: a process runs from there" in said
    assert f"both: /data/driver/{RELEASE} /data/driver/{NEWER}" in said.splitlines()
    assert f"one: /data/driver/{RELEASE}" in said.splitlines()


def test_the_files_belong_to_root_and_are_readable_whoever_unpacked_the_archive(
    root: Path,
) -> None:
    said = output(
        root,
        f"""
        chown -R nobody {HOME}
        chmod -R go= {HOME}
        umask 077
        {INSTALL}
        echo wrong: $(find {PREFIX}/ ! -type l \\( ! -user root -o ! -perm -044 -o -perm /022 \\))
        setpriv --reuid=65534 --clear-groups containerd-driver --version
        """,
    )
    assert "wrong:" in said.splitlines()
    assert VERSION in said.splitlines()
