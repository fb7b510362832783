"""`containerd-driver run JOB`: starts the driver's plugin, then loads the dev host.

Both processes load their modules at the same time. A plugin does nothing before its first call, so
a wrong job or option still ends the run before any work.
"""

from __future__ import annotations

import contextlib
from argparse import Namespace

from plugin.host.agent import plugin_program
from proto.errors import DriverError


def run(arguments: Namespace) -> int:
    """Runs a job file and returns the exit status."""
    with contextlib.ExitStack() as stack:
        child = None
        # The dev host starts the plugin of --plugin itself.
        if arguments.plugin is None:
            # After a failure the dev host starts the plugin too, and reports the error.
            with contextlib.suppress(OSError, DriverError):
                program = plugin_program.default_program()
                child = stack.enter_context(plugin_program.started(program))
        from plugin.cli import dev_host  # noqa: PLC0415 - the plugin loads meanwhile

        return dev_host.run(arguments, child)
