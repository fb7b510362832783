"""A task of a real agent moves from the Debian package to the archive and back, and never stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging import agent
from tests.packaging.agent import EXIT_CODE, Job, processes
from tests.packaging.bundle.bare_guest import HOME, NEWER, NEWER_HOME, unpack
from tests.packaging.conftest import PACKAGE, SOCKET, STATE, UNIT
from tests.support.guests.guest import Guest

pytestmark = [pytest.mark.packaging, pytest.mark.nomad, pytest.mark.timeout(300)]

PLUGINS = "/opt/nomad/plugins"
TO_ARCHIVE = f"dpkg -r {PACKAGE}; {NEWER_HOME}/install.sh --plugin-dir {PLUGINS}"
# Debian keeps the units of a package disabled that was removed, but not purged.
TO_PACKAGE = (
    f"{NEWER_HOME}/install.sh --uninstall; dpkg -i /root/package.deb;"
    f" systemctl enable --quiet --now {SOCKET} {UNIT}"
)


def moved(guest: Guest, script: str, release: str, job: Job) -> None:
    """Replaces the driver, restarts the agent and checks that the task goes on."""
    guest.shell(script)
    job.goes_on()
    guest.shell("systemctl restart nomad")
    guest.wait(lambda: agent.release(guest) == release, f"the agent has no driver {release}")
    assert guest.show(UNIT, "ActiveState") == "active"
    job.goes_on()
    job.answers()


def test_a_task_lives_through_package_archive_and_package(
    installed: Guest, root: Path, archive: Path
) -> None:
    unpack(archive, root)
    agent.install(root)
    default = f"/etc/default/{PACKAGE}"
    installed.shell(
        f"sed -i 's,^plugin_dir.*,plugin_dir = \"{PLUGINS}\",' /root/agent.hcl;"
        f"sed -i '/^NOMAD_PLUGIN_DIR/s,=.*,={PLUGINS},' {default}; dpkg-reconfigure {PACKAGE};"
        "systemctl daemon-reload; systemctl start nomad"
    )
    refused = installed.run(f"{HOME}/install.sh")
    assert "the Debian package nomad-driver-containerd is installed" in refused.stdout
    job = Job(installed)
    job.goes_on()
    before = processes(installed)
    moved(installed, TO_ARCHIVE, NEWER, job)
    assert "/opt/nomad-driver-containerd/" in installed.shell(
        f"readlink /proc/$(systemctl show -P MainPID {UNIT})/exe"
    )
    moved(installed, TO_PACKAGE, RELEASE, job)
    assert processes(installed) == before
    job.finish()
    assert job.codes() == [EXIT_CODE]
    printed = job.lines()
    assert printed == list(range(1, len(printed) + 1)), "lines are lost or doubled"
    job.purge()
    installed.shell(f"systemctl stop nomad; ls {STATE}")
