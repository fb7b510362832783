"""Emulators in binfmt_misc, and platforms of jobs that need one."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.images import emulators
from containerd.image import platforms
from proto.errors import DriverError

# Entries as the kernel shows them: the begin of an ELF file for arm64, s390x and a script.
ARM64 = "7f454c460201010000000000000000000200b700"
S390X = "7f454c4602020100000000000000000000020016"


def binfmt(directory: Path, **magics: str) -> Path:
    (directory / "status").write_text("enabled\n")
    for name, magic in magics.items():
        state, _, digits = magic.rpartition(" ")
        (directory / name).write_text(
            f"{state or 'enabled'}\ninterpreter /usr/bin/{name}\noffset 0\nmagic {digits}\n"
        )
    return directory


def test_emulated_machines_are_read_from_the_magic_of_enabled_entries(tmp_path: Path) -> None:
    place = binfmt(tmp_path, arm=ARM64, s390x=S390X, off=f"disabled {ARM64[:-4]}f300", sh="2321")
    assert emulators.machines(place) == {183, 22, 0}
    assert emulators.machines(tmp_path / "none") is None


def test_a_platform_without_an_emulator_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulators, "BINFMT", binfmt(tmp_path, s390x=S390X))
    own = platforms.machine().runs[0].architecture
    emulators.check("")
    emulators.check(f"linux/{own}")
    emulators.check("linux/s390x")
    emulators.check("linux/other")
    with pytest.raises(DriverError, match="has no emulator for linux/riscv64"):
        emulators.check("linux/riscv64")
