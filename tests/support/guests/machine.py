"""A Debian guest on an emulated machine, with a kernel of its own, cgroup v2 and reboots.

The root comes from `./dev guest SUITE-vm` or `./dev guest SUITE-arm64`. The emulation is in
software: a boot takes a minute or more. The network is loopback alone; commands use a second serial
line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.guests.guest_shell import GuestShell
from tests.support.waiting import wait_until

BOOT_S, COMMAND_S, END_S = 1200.0, 900.0, 30
_DISK_BYTES = 4 << 30
_SHELL = r"""
import json, os, subprocess, sys, tty
line = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(line)
for text in os.fdopen(os.dup(line), "rb"):
    try:
        request = json.loads(text)
    except ValueError:
        continue
    done = subprocess.run(
        request["words"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    answer = {"id": request["id"], "status": done.returncode, "said": done.stdout.decode()}
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(line, data):]
"""
_UNIT = """\
[Service]
Type=exec
Environment=HOME=/root LANG=C.UTF-8
ExecStart=/usr/bin/python3 /root/shell.py /dev/{line}
[Install]
WantedBy=multi-user.target
"""
# Process 1 of a machine that is too slow for the timeouts of systemd's units.
_INIT = """\
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
containerd >/root/containerd.log 2>&1 &
while :; do python3 /root/shell.py /dev/{line}; done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """An emulated computer.

    Attributes:
        qemu: the emulator.
        words: its arguments for board, CPU and memory.
        console: the kernel's serial line.
        line: the serial line of commands.
        device: arguments that connect the chardev `line` to the line of commands.
        disk: qemu's interface and device of the drive `disk`.
        root: the kernel's name of the disk.
        initrd: True if the kernel needs modules to reach the disk.
        systemd: True if systemd is process 1, False for a script that starts containerd alone.
    """

    qemu: str
    words: tuple[str, ...]
    console: str
    line: str
    device: tuple[str, str]
    disk: tuple[str, ...]
    root: str
    initrd: bool
    systemd: bool


AMD64 = Hardware(
    qemu="qemu-system-x86_64",
    words=("-cpu", "max", "-m", "2048"),
    console="ttyS0",
    line="ttyS1",
    device=("-serial", "chardev:line"),
    disk=("-device", "virtio-blk-pci,drive=disk"),
    root="/dev/vda",
    initrd=True,
    systemd=True,
)
# An emulated CPU with pointer authentication, such as `max`, is several times slower.
ARM64 = Hardware(
    qemu="qemu-system-aarch64",
    words=("-M", "virt", "-cpu", "neoverse-n1", "-m", "3072"),
    console="ttyAMA0",
    line="ttyS0",
    device=("-device", "pci-serial,chardev=line"),
    # Debian's cloud kernel has NVMe and ext4 built in; the making of an initrd takes minutes here.
    disk=("-device", "nvme,drive=disk,serial=disk"),
    root="/dev/nvme0n1",
    initrd=False,
    systemd=False,
)


class Machine(GuestShell):
    """One machine, from the first boot on.

    Args:
        root: the contents of the disk; the commands' server is added to the root.
        work: an empty directory for the disk and the console's log.
        hardware: the computer.
        kernel: further words of the kernel's command line.
    """

    patience_s = 300

    def __init__(
        self, root: Path, work: Path, hardware: Hardware = AMD64, kernel: str = ""
    ) -> None:
        self._hardware = hardware
        self._kernel = kernel
        self.work = work
        self._number = 0
        self._pending = b""
        self._prepare(root)
        self._process = self._power_on(root)
        self._line = socket.socket(socket.AF_UNIX)
        try:
            wait_until(self._connected, END_S, "no serial line")
            self.wait_for_boot("")
        except BaseException:
            self.close()
            raise

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, whatever the exit status."""
        answer = self._ask(words, COMMAND_S)
        assert answer is not None, f"no answer to {words}: {self._console()}"
        return subprocess.CompletedProcess(words, answer["status"], answer["said"], "")

    def boot_id(self) -> str:
        """Returns the id of the present boot; empty while the machine does not answer."""
        answer = self._ask(("cat", "/proc/sys/kernel/random/boot_id"), 5.0)
        return str(answer["said"]).strip() if answer else ""

    def wait_for_boot(self, before: str) -> None:
        """Waits until the machine answers in another boot than `before`."""

        def is_up() -> bool:
            assert self._process.poll() is None, f"qemu ended: {self._console()}"
            return self.boot_id() not in {"", before}

        wait_until(is_up, BOOT_S, lambda: f"no boot: {self._console()}")
        self.wait(
            lambda: self.run("systemctl", "is-system-running").stdout.strip() != "starting",
            "it does not get through its start",
        )

    def reboot(self, script: str) -> None:
        """Reboots the machine by a script, orderly or not."""
        before = self.boot_id()
        self._send(("sh", "-c", script))
        self.wait_for_boot(before)

    def close(self) -> None:
        """Switches the machine off."""
        self._line.close()
        self._process.kill()
        self._process.wait(END_S)

    def _prepare(self, root: Path) -> None:
        (root / "root/shell.py").write_text(_SHELL)
        (root / "etc/systemd/system/shell.service").write_text(
            _UNIT.format(line=self._hardware.line)
        )
        (root / "root/init.sh").write_text(_INIT.format(line=self._hardware.line))
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / "shell.service").symlink_to("../shell.service")
        disk = self.work / "disk"
        with disk.open("wb") as file:
            os.truncate(file.fileno(), _DISK_BYTES)
        words = ["mkfs.ext4", "-q", "-F", "-d", str(root), str(disk)]
        subprocess.run(words, check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/sbin"})

    def _power_on(self, root: Path) -> subprocess.Popen[bytes]:
        boot = root / "boot"
        made = self._hardware
        shutil.copy(next(boot.glob("vmlinuz-*")), self.work / "vmlinuz")
        initrd: tuple[str, ...] = ()
        init = "" if made.systemd else " init=/bin/sh -- /root/init.sh"
        if made.initrd:
            shutil.copy(next(boot.glob("initrd.img-*")), self.work / "initrd.img")
            initrd = ("-initrd", str(self.work / "initrd.img"))
        words = [
            *(made.qemu, *made.words, "-accel", "tcg,thread=multi", "-smp", "2"),
            *("-display", "none", "-nic", "none", "-monitor", "none"),
            *("-drive", f"id=disk,file={self.work / 'disk'},if=none,format=raw,cache=unsafe"),
            *(*made.disk, "-kernel", str(self.work / "vmlinuz"), *initrd),
            *("-append", f"root={made.root} rw console={made.console} quiet {self._kernel}{init}"),
            *("-serial", f"file:{self.work / 'console'}"),
            *("-chardev", f"socket,id=line,path={self.work / 'line'},server=on,wait=off"),
            *made.device,
        ]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)

    def _connected(self) -> bool:
        with contextlib.suppress(OSError):
            self._line.connect(str(self.work / "line"))
            return True
        return False

    def _send(self, words: tuple[str, ...]) -> int:
        self._number += 1
        # A boot that comes between leaves half a line behind.
        data = json.dumps({"id": self._number, "words": words}).encode()
        self._line.settimeout(COMMAND_S)
        self._line.sendall(b"\n" + data + b"\n")
        return self._number

    def _ask(self, words: tuple[str, ...], timeout_s: float) -> dict[str, Any] | None:
        number = self._send(words)
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._line.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                self._pending += self._line.recv(65536)
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    answer = json.loads(line)
                    if answer["id"] == number and "said" in answer:  # not the line's echo
                        return dict(answer)
        return None

    def _console(self) -> str:
        return (self.work / "console").read_text(errors="replace")[-2000:]
