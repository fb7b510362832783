"""Emulators of the node, which the kernel's binfmt_misc starts for another architecture."""

from __future__ import annotations

import contextlib
from pathlib import Path

from containerd.image import platforms
from proto.errors import Code, start_refused

BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MAGIC = b"\x7fELF"
# e_machine of <elf.h> by the architecture of an image.
_MACHINES = {
    "386": 3,
    "mipsle": 8,
    "mips64le": 8,
    "ppc64le": 21,
    "s390x": 22,
    "arm": 40,
    "amd64": 62,
    "arm64": 183,
    "riscv64": 243,
    "loong64": 258,
}
_MACHINE_OFFSET = 18
_BIG_ENDIAN = 2


def check(platform: str) -> None:
    """Refuses a platform whose programs do not run on this node.

    Where binfmt_misc is not mounted, the emulators are unknown, and each platform is allowed.

    Args:
        platform: the job's platform, normalised; empty for this machine's.

    Raises:
        DriverError: code UNSUPPORTED; the node has no emulator for the architecture.
    """
    if not platform:
        return
    wanted = platforms.machine(platform).runs[0]
    own = platforms.machine()
    if wanted in own.runs or wanted.architecture == own.runs[0].architecture:
        return
    emulated = machines(BINFMT)
    number = _MACHINES.get(wanted.architecture)
    if emulated is None or number is None or number in emulated:
        return
    raise start_refused(
        f"platform: the node is {own.name} and has no emulator for {wanted}: its programs would end"
        ' with "exec format error"',
        "install qemu-user-static on the node, or constrain the job to nodes with"
        f" ${{attr.cpu.arch}} = {wanted.architecture}",
        code=Code.UNSUPPORTED,
    )


def machines(directory: Path) -> set[int] | None:
    """Returns the numbers of emulated machines; None where binfmt_misc is not mounted."""
    if not (directory / "status").exists():
        return None
    found: set[int] = set()
    for entry in directory.iterdir():
        with contextlib.suppress(OSError, ValueError):
            lines = entry.read_text(errors="replace").splitlines()
            if lines[:1] == ["enabled"]:
                found |= {
                    _machine(bytes.fromhex(line.removeprefix("magic ")))
                    for line in lines
                    if line.startswith("magic ")
                }
    return found


def _machine(magic: bytes) -> int:
    """Returns the machine that the begin of an ELF file names; 0 for another file."""
    if not magic.startswith(_MAGIC) or len(magic) < _MACHINE_OFFSET + 2:
        return 0
    number = magic[_MACHINE_OFFSET : _MACHINE_OFFSET + 2]
    return int.from_bytes(number, "big" if magic[5] == _BIG_ENDIAN else "little")
