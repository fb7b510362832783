"""Command line of `containerd-driver`.

Without arguments the program is Nomad's plugin. `run` is the dev host, which runs a job without
Nomad. `spec` prints a task's OCI spec, `convert` rewrites a job of another driver, `doctor` checks
the machine, `gc` removes orphans.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if __name__ == "__main__":
    # The program is started by path with -I: the packages lie beside the folder of this file.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from plugin import environment, garbage, rootless
from plugin.texts import did_you_mean
from proto.errors import DriverError
from proto.release import RELEASE

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

_NOT_A_COMMAND = """\
containerd-driver is a plugin of Nomad and is started by the Nomad agent.
Put the program into the agent's plugin_dir and add a block: plugin "containerd-driver" {}
To run a job on this machine without Nomad: containerd-driver run JOB
"""


def main() -> int:
    """Serves a Nomad agent and returns the exit status, or runs a command and ends the process."""
    garbage.pause()
    arguments = sys.argv[1:]
    environment.quiet_grpc()
    if not arguments:
        return _serve()
    from plugin.cli import console  # noqa: PLC0415 - a plugin needs no command

    return _leave(console.guarded(lambda: _command(arguments)))


def _command(arguments: list[str]) -> int:
    """Runs a command and returns its exit status."""
    from plugin.cli import console  # noqa: PLC0415

    match arguments:
        case ["--version" | "-v" | "version"]:
            console.show(f"containerd-driver v{RELEASE}\n")
            return 0
        case ["--help" | "-h" | "help"]:
            console.show(_USAGE)
            return 0
        case [("run" | "spec" | "convert" | "doctor" | "gc") as command, *words]:
            from plugin.cli import arguments as command_line  # noqa: PLC0415

            parsed = command_line.parse(command, words)
            if command in _OF_ROOT and getattr(parsed, "plugin", None) is None:
                rootless.need_root()
            run = _loaded(command)
            if command != "run":  # the dev host loads more
                garbage.loaded()
                garbage.resume()
            return run(parsed)
        case _:
            hint = did_you_mean(arguments[0], _COMMANDS)
            console.report(f"containerd-driver: no command {arguments[0]!r}{hint}")
            console.write(sys.stderr, f"\n{_USAGE}".encode())
            return console.WRONG_OPTIONS


_COMMANDS = ("run", "spec", "convert", "doctor", "gc", "version", "help", "--version", "--help")
_OF_ROOT = ("run", "gc")
_USAGE = """\
usage: containerd-driver                 serve a Nomad agent (the agent starts the program so)
       containerd-driver run JOB ...     run a job file on this machine, without Nomad
       containerd-driver spec JOB ...    print the OCI spec that a job would get
       containerd-driver convert JOB ... rewrite a job of Nomad's docker or podman driver
       containerd-driver doctor ...      check this machine, and advise
       containerd-driver gc ...          remove orphans: objects that no live task owns
       containerd-driver --version

Each command has its options: containerd-driver run --help
"""


def _loaded(command: str) -> Callable[[Namespace], int]:
    """Loads a command, and no other command."""
    match command:
        case "run":
            from plugin.cli.run import run  # noqa: PLC0415
        case "spec":
            from plugin.cli.spec import run  # noqa: PLC0415
        case "convert":
            from plugin.cli.convert import run  # noqa: PLC0415
        case "doctor":
            from plugin.cli.doctor import run  # noqa: PLC0415
        case _:
            from plugin.cli.gc import run  # noqa: PLC0415
    return run


def _leave(status: int) -> NoReturn:
    """Ends the process at once, with its output written.

    A regular end frees each object of the process, which takes 60 ms after a run. Python 3.14 joins
    no thread then, and gRPC prints a traceback if a channel is freed.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _serve() -> int:
    if not environment.launched_by_nomad():
        sys.stderr.write(_NOT_A_COMMAND)
        return 1
    if environment.wants_tls():
        sys.stderr.write(
            "containerd-driver: PLUGIN_CLIENT_CERT asks for TLS, but the plugin serves no TLS:"
            " Nomad never asks a driver for TLS\n"
        )
        return 1
    from plugin import json_logging  # noqa: PLC0415 - only a plugin logs to an agent

    json_logging.install()
    _enter_rootless()
    from plugin import serve  # noqa: PLC0415 - the agent logs a failing import of gRPC

    serve.run()
    return 1  # the server ended by itself


def _enter_rootless() -> None:
    """Starts the plugin of an agent without root again, at the user's containerd."""
    try:
        rootless.need_root()
    except DriverError as error:  # the fingerprint reports that no containerd answers
        logging.getLogger(__name__).warning("not root", extra={"reason": str(error)})


if __name__ == "__main__":
    sys.exit(main())
