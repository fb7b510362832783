"""The table "What is open by design" of docs/security.md: each gate as an attack and as a control.

A row says whether a job may do something with the default plugin block, and with `hardened = true`.
Each attack runs on a plugin where the gate is open, and on a plugin where the gate is closed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver, launched

pytestmark = pytest.mark.containerd

PAGE = Path(__file__).resolve().parents[3] / "docs" / "security.md"
# No server listens at the address: an error of the pull would show that a check came too late.
NO_IMAGE = "127.0.0.1:1/none:1"
# The runc of this machine may have known holes.
HARDENED = {"hardened": True, "allow_known_holes": True}
KERNEL_FILE = "/proc/sys/kernel/core_pattern"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A use of an open gate.

    script: prints "way" where the gate is open.
    options: of the job.
    refusal: words of the error with a closed gate; empty where the task starts, without the way.
    closed: the plugin block that closes a gate which `hardened` leaves open.
    """

    script: str
    options: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    closed: Mapping[str, Any] = field(default_factory=lambda: HARDENED)


def attacks(node: Path) -> dict[str, Attack]:
    """Returns the attacks by the gate's option.

    Args:
        node: a directory of the node with a secret and a device.
    """
    return {
        "volumes": Attack(
            options={"volumes": ["/:/host"]},
            script=f"grep -q hidden /host{node}/secret && echo way",
            refusal="volumes { enabled } is false",
        ),
        "allow_privileged": Attack(
            options={"privileged": True},
            script="mount -t tmpfs none /tmp && echo way",
            refusal="Running privileged jobs are not allowed",
        ),
        "allow_privileged (security_opt)": Attack(
            options={"security_opt": ["systempaths=unconfined"]},
            script=f'v=$(cat {KERNEL_FILE}); echo "$v" >{KERNEL_FILE} && echo way',
            refusal="allow_privileged is false",
        ),
        "allow_privileged (modes)": Attack(
            options={"pid_mode": "host"},
            script=f"[ $(readlink /proc/self/ns/pid) = {_namespace('pid')} ] && echo way",
            refusal='cannot apply "pid_mode" configuration',
        ),
        "allow_privileged (cgroupns)": Attack(
            options={"cgroupns": "host"},
            script=f"[ $(readlink /proc/self/ns/cgroup) = {_namespace('cgroup')} ] && echo way",
            refusal='cannot apply "cgroupns" configuration',
        ),
        "allow_memory_hard_limit": Attack(
            options={"memory_hard_limit": 1024},
            script="cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>&1"
            " | grep -qx 1073741824 && echo way",
            refusal="allow_memory_hard_limit is false",
        ),
        "allow_devices": Attack(
            options={"devices": [f"{node}/device"]},
            script=f"[ -c {node}/device ] && : <{node}/device && echo way",
            refusal="allow_devices is empty",
        ),
        "allow_caps": Attack(
            options={"cap_add": ["sys_admin"]},
            script="mount -t tmpfs none /tmp && echo way",
            refusal="driver does not allow the following capabilities: sys_admin",
        ),
        "no_new_privileges": Attack(script="grep -q 'NoNewPrivs:.0' /proc/self/status && echo way"),
        "default_seccomp": Attack(script="grep -q 'Seccomp:.0' /proc/self/status && echo way"),
        "default_seccomp (allow_unconfined)": Attack(
            options={"security_opt": ["seccomp=unconfined"]},
            script="unshare -U true && echo way",
            refusal="allow_unconfined is false",
        ),
        "allow_host_network": Attack(
            options={"host_network": True},
            script=f"[ $(readlink /proc/self/ns/net) = {_namespace('net')} ] && echo way",
            refusal="allow_host_network is false",
        ),
        "allow_registries": Attack(
            script="echo way",
            refusal="allow_registries is docker.io",
            closed={"allow_registries": ["docker.io"]},
        ),
        "allow_snapshotters": Attack(
            options={"snapshotter": "native"},
            script="echo way",
            refusal="allow_snapshotters is overlayfs",
            closed={"allow_snapshotters": ["overlayfs"]},
        ),
        "allow_sysctls": Attack(
            options={"sysctl": {"net.ipv4.ip_default_ttl": "7"}},
            script="grep -qx 7 /proc/sys/net/ipv4/ip_default_ttl && echo way",
            refusal="allow_sysctls is empty",
        ),
        "pids_limit": Attack(
            script="cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>&1 | grep -qx max"
            " && echo way"
        ),
    }


def _namespace(kind: str) -> str:
    return f"'{Path('/proc/self/ns', kind).readlink()}'"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Makes the secret and the device: /dev/null by another name."""
    (tmp_path / "secret").write_text("hidden")
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return tmp_path


class Drivers:
    """Makes a driver for a plugin block; a block that was used before has its driver."""

    def __init__(self, containerd: ContainerdDaemon, directory: Path) -> None:
        self._containerd = containerd
        self._directory = directory
        self.made: dict[str, Driver] = {}

    def of(self, block: Mapping[str, Any]) -> Driver:
        """Returns the driver."""
        name = str(block)
        if name not in self.made:
            directory = self._directory / f"driver{len(self.made)}"
            directory.mkdir()
            self.made[name] = Driver(self._containerd, directory, block)
        return self.made[name]


@pytest.fixture
def drivers(containerd: ContainerdDaemon, tmp_path: Path) -> Iterator[Drivers]:
    made = Drivers(containerd, tmp_path)
    yield made
    for driver in made.made.values():
        try:
            driver.wait_clean()
        finally:
            driver.close()


async def test_each_gate_lets_the_attack_pass_open_and_stops_the_attack_closed(
    drivers: Drivers, busybox_image: str, node: Path
) -> None:
    wanted = attacks(node)
    opened = drivers.of({})
    async with launched(opened):
        for gate, attack in wanted.items():
            said = await opened.output(busybox_image, attack.script, **attack.options)
            assert "way" in said, f"{gate} is closed by default"
    blocks = {str(attack.closed): attack.closed for attack in wanted.values()}
    for name, block in blocks.items():
        driver = drivers.of(block)
        async with launched(driver):
            for gate, attack in wanted.items():
                if str(attack.closed) == name:
                    await _stopped(driver, gate, attack, busybox_image)


async def _stopped(driver: Driver, gate: str, attack: Attack, image: str) -> None:
    if not attack.refusal:
        said = await driver.output(image, f"{attack.script}; true", **attack.options)
        assert "way" not in said, f"{gate} is open"
        return
    with pytest.raises(DriverError) as caught:
        await driver.session.start(driver.task().config, {"image": NO_IMAGE, **attack.options})
    assert attack.refusal in str(caught.value), gate


def test_the_page_has_a_row_for_each_gate_and_says_where_the_gate_stands(tmp_path: Path) -> None:
    rows = _rows(PAGE.read_text())
    wanted = attacks(tmp_path)
    assert [gate for gate in wanted if gate.split(" ")[0] not in rows] == []
    for gate, attack in wanted.items():
        by_default, hardened = rows[gate.split(" ")[0]]
        assert by_default == "yes", gate
        assert (hardened == "no") == ("hardened" in attack.closed), gate


def _rows(page: str) -> dict[str, tuple[str, str]]:
    """Returns (by default, hardened) of the table's rows, by the first option of the gate."""
    _, _, table = page.partition("| a job may |")
    rows: dict[str, tuple[str, str]] = {}
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        option = re.match(r"`(\w+)", cells[5])
        if option:
            rows[option[1]] = (cells[1].split(",")[0], cells[2].split(",")[0])
    return rows
