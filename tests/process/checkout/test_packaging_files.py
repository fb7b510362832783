"""Tests of the Debian package's statements about the program."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from actors.model.settings import DriverSettings
from plugin.cli import plugin_block
from plugin.host.job import jobfile
from proto.release import RELEASE
from workers import protocol

ROOT = Path(__file__).resolve().parents[3]
DEBIAN = ROOT / "packaging" / "debian"
UNIT = DEBIAN / "nomad-driver-containerd.nomad-driver-containerd-launcher.service"
COMMANDS = ("run", "spec", "convert", "doctor", "gc")
COMPLETE = """
_init_completion() {
  words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
  cur=${words[cword]} prev=${words[cword-1]}
}
_filedir() { echo "files $1"; }
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_containerd_driver
printf '%s\\n' "${COMPREPLY[@]}"
"""


def options(command: str) -> set[str]:
    """Returns the long options of the program's help."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugin" / "main.py"), command, "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(re.findall(r"^ +(?:-\w(?: [A-Z]+)?, )?(--[\w-]+)", done.stdout, re.MULTILINE))


def completed(*words: str) -> set[str]:
    """Returns the completions that bash offers for the last word."""
    script = DEBIAN / "system" / "bash-completion" / "containerd-driver"
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(script), "containerd-driver", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes_the_options_that_there_are(command: str) -> None:
    assert completed(command, "--") == options(command)


def test_bash_completes_commands_and_job_files() -> None:
    assert completed("") >= set(COMMANDS)
    assert completed("run", "") == {"files @(nomad|hcl|json)"}
    assert completed("doctor", "") == completed("gc", "") == set()
    assert completed("run", "--config", "x") == set()


def test_the_manual_page_has_every_command_and_option() -> None:
    page = (DEBIAN / "system" / "containerd-driver.1").read_text().replace("\\-", "-")
    for command in COMMANDS:
        assert f".B {command}" in page
        for option in options(command):
            assert re.search(rf"^\.B[IR]? .*{option}\b", page, re.MULTILINE), option
    assert f"containerd-driver {RELEASE}" in page


def test_the_package_is_of_this_release() -> None:
    assert (DEBIAN / "changelog").read_text().startswith(f"nomad-driver-containerd ({RELEASE})")


def test_the_licence_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert f"License: {project['license']}\n" in (DEBIAN / "copyright").read_text()
    (file,) = project["license-files"]
    text = (ROOT / file).read_text()
    standard = Path("/usr/share/common-licenses") / project["license"]
    assert text == standard.read_text() if standard.exists() else "Version 2.0" in text


def test_the_package_depends_on_what_the_project_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {line.replace(">=", " (>= ") + ")," for line in project["project"]["dependencies"]}
    control = (DEBIAN / "control").read_text()
    assert wanted == set(re.findall(r"^ python3-(\w+ \(>= .*\),)$", control, re.MULTILINE))


def test_the_unit_starts_the_launcher_with_arguments_that_it_knows(tmp_path: Path) -> None:
    line = re.search(r"^ExecStart=.*/workers/launcher\.py (.*)$", UNIT.read_text(), re.MULTILINE)
    assert line is not None
    # A missing directory: the program fails, but has understood the arguments (status 2).
    words = line[1].replace("/run/nomad-driver-containerd", str(tmp_path / "absent"))
    given = {"NOTIFY_SOCKET": str(tmp_path / "x"), "WATCHDOG_USEC": "1", "LISTEN_FDS": "1"}
    for name, value in given.items():
        words = words.replace(f"${{{name}}}", value)
    launcher = ROOT / "workers" / "launcher.py"
    done = subprocess.run(
        [sys.executable, "-I", str(launcher), *words.split()], check=False, capture_output=True
    )
    assert done.returncode == 1


def test_the_unit_and_the_plugin_agree_on_the_state_directory() -> None:
    state = str(DriverSettings().state_dir)
    assert f"--state-dir {state} " in UNIT.read_text()
    assert f"RuntimeDirectory={Path(state).name} " in UNIT.read_text()
    socket = UNIT.with_suffix(".socket").read_text()
    assert f"\nListenStream={state}/{protocol.LAUNCHER_SOCKET}\n" in socket


def test_the_sample_configuration_is_one_that_the_driver_takes() -> None:
    settings = plugin_block.settings(DEBIAN / "example" / "nomad-agent.hcl", [])
    assert settings.gates.allow_privileged is False


def test_the_sample_job_is_one_that_runs_without_hcl() -> None:
    job = jobfile.load(DEBIAN / "example" / "hello.json", {})
    assert job.task_count == 1


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm", "tests/life"])
def test_the_package_scripts_parse(script: str) -> None:
    subprocess.run(["sh", "-n", str(DEBIAN / script)], check=True)
