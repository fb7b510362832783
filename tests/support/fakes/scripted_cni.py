"""CNI plugins that record their calls, and fail in the calls that a test chooses."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = ("loopback", "bridge", "host-local", "firewall", "portmap")
RESULT = {
    "cniVersion": "0.4.0",
    "interfaces": [{"name": "eth0"}],
    "ips": [{"version": "4", "address": "192.0.2.7/20", "interface": 0}],
}

_PLUGIN = """\
#!{python} -I
import json, os, sys

home, name = {home!r}, os.path.basename(sys.argv[0])
config = json.load(sys.stdin)
asked = {{key: value for key, value in os.environ.items() if key.startswith(("CNI_", "PATH"))}}
with open(home + "/journal", "a") as journal:
    journal.write(json.dumps([name, asked["CNI_COMMAND"], asked, config]) + "\\n")
with open(home + "/answers") as answers:
    says = json.load(answers).get(name + " " + asked["CNI_COMMAND"])
if says is not None:
    sys.stdout.write(says["out"])
    sys.stderr.write(says["err"])
    sys.exit(says["status"])
if asked["CNI_COMMAND"] == "ADD":
    json.dump({result!r} if name == "bridge" else config.get("prevResult", {{}}), sys.stdout)
"""


class ScriptedCni:
    """A directory of CNI plugins that follow `says`."""

    def __init__(self, directory: Path) -> None:
        self._home = directory
        self.directory = directory / "plugins"
        self.directory.mkdir()
        for name in NAMES:
            plugin = self.directory / name
            plugin.write_text(
                _PLUGIN.format(python=sys.executable, home=str(directory), result=RESULT)
            )
            plugin.chmod(0o755)
        self._answers: dict[str, Any] = {}
        self.says({})

    def says(self, answers: Mapping[str, Any]) -> None:
        """Sets the answers of plugins, by "NAME COMMAND"."""
        for key, answer in answers.items():
            self._answers[key] = {"out": "", "err": "", "status": 1, **answer}
        (self._home / "answers").write_text(json.dumps(self._answers))

    def calls(self) -> list[tuple[str, str, dict[str, str], dict[str, Any]]]:
        """Lists all calls: plugin, command, environment, configuration."""
        journal = self._home / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    def order(self) -> list[str]:
        """Lists the plugins and commands of all calls, in their order."""
        return [f"{name} {command}" for name, command, _, _ in self.calls()]
