"""The installed package on Debian with systemd: install, upgrade, downgrade, remove, purge."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests.packaging.conftest import EARLIER, NEWER, PACKAGE, STATE, UNIT, newer_package
from tests.packaging.local_task import Task
from tests.support.guests.guest import ROOT, Guest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

CONTENT = f"""
/etc/default/{PACKAGE}
/usr/bin/containerd-driver
/usr/lib/modules-load.d/{PACKAGE}.conf
/usr/lib/{PACKAGE}/plugins/containerd-driver
/usr/lib/sysctl.d/50-{PACKAGE}.conf
/usr/lib/systemd/system/containerd_driver.slice
/usr/lib/systemd/system/{PACKAGE}-launcher.service
/usr/lib/systemd/system/{PACKAGE}-launcher.socket
/usr/share/bash-completion/completions/containerd-driver
/usr/share/doc/{PACKAGE}/README.Debian
/usr/share/doc/{PACKAGE}/examples/hello.json
/usr/share/doc/{PACKAGE}/examples/hello.nomad
/usr/share/doc/{PACKAGE}/examples/nomad-agent.hcl
/usr/share/man/man1/containerd-driver.1.gz
"""


def test_the_documented_lines_install_the_package(guest: Guest, root: Path) -> None:
    page = (ROOT / "docs/install.md").read_text()
    section = page.partition("## Debian package")[2].partition("\n#")[0]
    lines = re.findall(r"^    (.+)$", section, re.MULTILINE)
    assert lines.pop(0) == "./dev deb", "which is where the package here is from"
    (root / "root/checkout/dist").mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "root/package.deb", root / f"root/checkout/dist/{PACKAGE}_{RELEASE}_all.deb")
    # Packages that the package recommends are absent: the guest has no network for a download.
    (root / "etc/apt/apt.conf.d/90here").write_text('APT::Install-Recommends "false";\n')
    guest.shell("systemctl is-active containerd")
    for line in lines:
        guest.shell(f"cd /root/checkout; {line}")
    assert guest.shell("/opt/nomad/plugins/containerd-driver --version").endswith(RELEASE)
    guest.shell(f"dpkg -P {PACKAGE}; rm -r /opt/nomad")


def test_everything_is_where_a_debian_user_looks(installed: Guest) -> None:
    listed = installed.shell(f"dpkg -L {PACKAGE}").splitlines()
    assert set(CONTENT.split()) <= set(listed)
    assert installed.shell(f"ls {' '.join(CONTENT.split())}")


def test_the_packages_own_test_passes(installed: Guest) -> None:
    said = installed.shell("/root/tests/life 2>&1")
    assert said.endswith("all is well")


def test_an_upgrade_leaves_running_tasks_alone(
    installed: Guest, package: Path, task: Task, tmp_path: Path
) -> None:
    launcher = installed.show(UNIT, "MainPID")
    installed.copy(newer_package(package, tmp_path), "/root/newer.deb")
    installed.shell("dpkg -i /root/newer.deb")
    assert installed.shell("containerd-driver --version") == f"containerd-driver v{NEWER}"
    assert installed.show(UNIT, "ActiveState") == "active"
    assert installed.show(UNIT, "MainPID") != launcher
    task.goes_on()
    assert task.has_its_worker()


def test_an_upgrade_from_an_earlier_release_leaves_running_tasks_alone(
    installed: Guest, earlier_package: Path, tmp_path: Path
) -> None:
    """Covers a move: the earlier release has modules in other folders, some with present names."""
    installed.copy(earlier_package, "/root/earlier.deb")
    installed.shell("dpkg -i /root/earlier.deb")
    assert installed.shell("containerd-driver --version") == f"containerd-driver v{EARLIER}"
    task = Task(installed, tmp_path / "out")
    installed.shell("dpkg -i /root/package.deb")
    assert installed.shell("containerd-driver --version") == f"containerd-driver v{RELEASE}"
    assert installed.show(UNIT, "ActiveState") == "active"
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()
    listed = installed.shell(f"find /usr/share/{PACKAGE} -name '*.py'").splitlines()
    owned = installed.shell(f"dpkg -L {PACKAGE}").splitlines()
    assert set(listed) <= set(owned), "files of the earlier release are left"


def test_a_downgrade_leaves_running_tasks_alone(
    installed: Guest, package: Path, tmp_path: Path
) -> None:
    installed.copy(newer_package(package, tmp_path), "/root/newer.deb")
    installed.shell("dpkg -i /root/newer.deb")
    task = Task(installed, tmp_path / "out")
    installed.shell("dpkg -i /root/package.deb")
    assert installed.shell("containerd-driver --version") == f"containerd-driver v{RELEASE}"
    assert installed.show(UNIT, "ActiveState") == "active"
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()


def test_the_plugin_is_linked_where_the_administrator_says(installed: Guest) -> None:
    installed.shell(
        f"sed -i '/^NOMAD_PLUGIN_DIR/s,=.*,=/opt/nomad/plugins,' /etc/default/{PACKAGE}"
    )
    installed.shell(f"dpkg-reconfigure {PACKAGE}")
    assert installed.shell("/opt/nomad/plugins/containerd-driver --version").startswith(
        "containerd-driver v"
    )
    installed.shell(f"dpkg -r {PACKAGE}")
    assert installed.shell("ls -A /opt/nomad/plugins") == ""


def test_removing_the_package_leaves_tasks_alone_and_purging_leaves_nothing(
    installed: Guest, tmp_path: Path
) -> None:
    task = Task(installed, tmp_path / "out")
    installed.shell(f"dpkg -r {PACKAGE}")
    task.goes_on()
    assert task.has_its_worker()
    assert "stopped" in task.stop()
    installed.wait(lambda: installed.shell(f"ls {STATE}/tasks") == "", "the task left something")
    installed.shell(f"dpkg -P {PACKAGE}; systemctl daemon-reload")
    left = installed.shell(
        f"find /etc /opt /run /usr /var /tmp -name '*{PACKAGE}*' -o -name 'containerd-driver*'"
    )
    assert left == ""
