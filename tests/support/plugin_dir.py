"""A plugin directory with the driver of this checkout, for an agent."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from plugin.main import main
sys.exit(main())
"""


def make_plugin_dir(directory: Path, python: Path | None = None) -> Path:
    """Writes the executable `containerd-driver` into `directory` and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "containerd-driver"
    program.write_text(SCRIPT.format(python=python or sys.executable, root=str(ROOT)))
    program.chmod(0o755)
    return program
