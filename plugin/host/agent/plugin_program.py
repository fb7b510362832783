"""Start of a plugin's program, as an agent starts one.

The module is small: a run starts its plugin first, and loads the dev host while the plugin loads.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence

from actors.processes import child_process
from actors.processes.child_process import Child
from plugin import environment


def default_program() -> list[str]:
    """Returns the command that starts the driver of this process as a plugin."""
    return [sys.executable, "-I", str(child_process.ROOT / "plugin" / "main.py")]


def start(program: Sequence[str]) -> Child:
    """Starts a plugin that ends with this process; its stdout and stderr are pipes.

    Args:
        program: the executable and its arguments.

    Raises:
        OSError: the program cannot be started.
        DriverError: code EXHAUSTED; no process, descriptor or memory is left.
    """
    return child_process.start(
        program,
        env=environment.for_plugin_of_this_process(),
        stdout=child_process.PIPE,
        stderr=child_process.PIPE,
        # The dev host gets Ctrl-C and the hang-up of the terminal: stops need the plugin.
        new_session=True,
    )


@contextlib.contextmanager
def started(program: Sequence[str]) -> Generator[Child, None, None]:
    """Starts a plugin for the block. A plugin that still runs at the end of the block is ended.

    Raises:
        OSError: the program cannot be started.
        DriverError: code EXHAUSTED; no process, descriptor or memory is left.
    """
    child = start(program)
    try:
        yield child
    finally:
        child_process.dismiss(child)
