"""A Debian guest on an emulated machine, with a kernel of its own, cgroup v2 and reboots.

The root comes from `./dev guest SUITE-vm`. The emulation is in software: a boot takes a minute or
more. The network is loopback alone; commands use the second serial line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.guest_shell import GuestShell
from tests.support.waiting import wait_until

BOOT_S, COMMAND_S, END_S = 600.0, 300.0, 30
QEMU = "qemu-system-x86_64"
_DISK_BYTES = 4 << 30
_SHELL = r"""
import json, os, subprocess, tty
line = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY)
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
ExecStart=/usr/bin/python3 /root/shell.py
[Install]
WantedBy=multi-user.target
"""


class Machine(GuestShell):
    """One machine, from the first boot on.

    Args:
        root: the contents of the disk; the commands' server is added to the root.
        work: an empty directory for the disk and the console's log.
    """

    patience_s = 300

    def __init__(self, root: Path, work: Path) -> None:
        self._work = work
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
        (root / "etc/systemd/system/shell.service").write_text(_UNIT)
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / "shell.service").symlink_to("../shell.service")
        disk = self._work / "disk"
        with disk.open("wb") as file:
            os.truncate(file.fileno(), _DISK_BYTES)
        words = ["mkfs.ext4", "-q", "-F", "-d", str(root), str(disk)]
        subprocess.run(words, check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/sbin"})

    def _power_on(self, root: Path) -> subprocess.Popen[bytes]:
        boot = root / "boot"
        kernel, initrd = next(boot.glob("vmlinuz-*")), next(boot.glob("initrd.img-*"))
        for file in (kernel, initrd):
            shutil.copy(file, self._work / file.name.partition("-")[0])
        words = [
            *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"),
            *("-display", "none", "-nic", "none", "-monitor", "none"),
            *("-drive", f"file={self._work / 'disk'},if=virtio,format=raw,cache=unsafe"),
            *("-kernel", str(self._work / "vmlinuz"), "-initrd", str(self._work / "initrd.img")),
            *("-append", "root=/dev/vda rw console=ttyS0 quiet"),
            *("-serial", f"file:{self._work / 'console'}"),
            *("-serial", f"unix:{self._work / 'line'},server=on,wait=off"),
        ]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)

    def _connected(self) -> bool:
        with contextlib.suppress(OSError):
            self._line.connect(str(self._work / "line"))
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
        return (self._work / "console").read_text(errors="replace")[-2000:]
