"""The load of the driver's AppArmor profile, by a stand-in for the parser and by the real one."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from actors.processes import apparmor_loader
from actors.processes.apparmor_loader import ProfileLoader
from containerd.security import apparmor
from proto.errors import Code, DriverError
from tests.support.needs import need_program


def parser(directory: Path, script: str) -> str:
    """Writes a stand-in for `apparmor_parser`, and returns a PATH that ends with its directory."""
    directory.mkdir()
    program = directory / "apparmor_parser"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(directory)


async def test_the_parser_gets_the_profile_in_a_file_that_only_root_reads(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = parser(tmp_path / "bin", f'echo "$@" >{tmp_path}/said; cat "$2" >{tmp_path}/loaded')
    loader = ProfileLoader(state, path)
    await loader.loaded()
    await loader.loaded()
    file = state / "apparmor.profile"
    assert (tmp_path / "said").read_text() == f"-Kr {file}\n"
    assert (tmp_path / "loaded").read_text() == file.read_text() == apparmor_loader.text()
    assert [entry.name for entry in state.iterdir()] == ["apparmor.profile"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert loader.problem == ""


async def test_a_profile_is_loaded_once_and_again_after_a_failure(tmp_path: Path) -> None:
    count = tmp_path / "count"
    path = parser(tmp_path / "bin", f"echo >>{count}; test -e {tmp_path}/fixed || exit 3")
    loader = ProfileLoader(tmp_path / "state", path)
    for _ in range(2):
        with pytest.raises(DriverError) as caught:
            await loader.loaded()
        assert caught.value.code is Code.PRECONDITION
        assert caught.value.recoverable
        assert "cannot load the AppArmor profile containerd-driver-default" in loader.problem
    (tmp_path / "fixed").touch()
    for _ in range(3):
        await loader.loaded()
    assert loader.problem == ""
    assert len(count.read_text()) == 3


async def test_without_a_parser_the_advice_names_the_package(tmp_path: Path) -> None:
    loader = ProfileLoader(tmp_path / "state", str(tmp_path))
    with pytest.raises(DriverError, match="no program apparmor_parser in ") as caught:
        await loader.loaded()
    assert "apt-get install apparmor" in caught.value.resolution


async def test_the_parsers_own_words_are_in_the_error(tmp_path: Path) -> None:
    path = parser(tmp_path / "bin", "echo 'syntax error,\n line 3' >&2; exit 1")
    with pytest.raises(DriverError, match=r"apparmor_parser: syntax error, line 3"):
        await ProfileLoader(tmp_path / "state", path).loaded()


@pytest.mark.parametrize("files", [(), apparmor.FILES])
@pytest.mark.parametrize("driver", ["unconfined (enforce)\n", "/usr/bin/nomad (enforce)\n", "a,b}"])
def test_the_real_parser_accepts_the_profile(
    tmp_path: Path, files: tuple[str, ...], driver: str
) -> None:
    program = need_program("apparmor", "apparmor_parser")
    for name in files:
        (tmp_path / "etc/apparmor.d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/apparmor.d" / name).touch()
    (tmp_path / "proc/self/attr").mkdir(parents=True)
    (tmp_path / "proc/self/attr/current").write_text(driver)
    text = apparmor_loader.text(tmp_path)
    assert ("abi <abi/3.0>" in text) == bool(files)
    for arguments in (["-QK"], ["-N"]):
        done = subprocess.run(
            [program, *arguments], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "containerd-driver-default\n"


def test_the_programs_that_send_signals_are_named() -> None:
    text = apparmor.profile("/usr/bin/nomad", ())
    assert "signal (receive) peer={unconfined,runc,crun,/usr/bin/nomad}" in text
    assert text.count("deny mount,") == 1
