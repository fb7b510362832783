"""The driver under test: this checkout, or the executable that `PLUGIN_PROGRAM` names.

    PLUGIN_PROGRAM=/opt/bundle/plugins/containerd-driver ./dev bench

measures the driver of an unpacked archive.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from plugin.main import main
sys.exit(main())
"""


def command() -> list[str]:
    """Returns the command `containerd-driver` under test."""
    program = os.environ.get("PLUGIN_PROGRAM", "")
    return [program] if program else [sys.executable, "-I", str(ROOT / "plugin/main.py")]


def make_plugin_dir(directory: Path, python: Path | None = None) -> Path:
    """Puts the executable `containerd-driver` into `directory` and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "containerd-driver"
    if named := os.environ.get("PLUGIN_PROGRAM", ""):
        program.symlink_to(Path(named).absolute())
        return program
    program.write_text(SCRIPT.format(python=python or sys.executable, root=str(ROOT)))
    program.chmod(0o755)
    return program
