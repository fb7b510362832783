"""The command line of `containerd-driver`.

Without arguments it is Nomad's plugin; with `run` it is the embedded host, with `spec` and `doctor`
a way to look before one runs, with `gc` one to clear away what nobody owns.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started by path with -I: the packages lie beside this one's directory.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from plugin import environment, suggestion
from proto.release import RELEASE

_NOT_A_COMMAND = """\
containerd-driver is a plugin of Nomad and is started by the Nomad agent.
Put it into the agent's plugin_dir and name it in a block: plugin "containerd-driver" {}
To run a job on this machine without Nomad: containerd-driver run JOB
"""


def main(argv: list[str] | None = None) -> int:
    """Runs what the arguments ask for and returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    environment.quiet_grpc()
    if not arguments:
        return _serve()
    from plugin.cli import console  # noqa: PLC0415 - a plugin never needs the host

    return console.guarded(lambda: _swept(_command(arguments)))


def _command(arguments: list[str]) -> int:
    """Does what the arguments ask for."""
    from plugin.cli import console  # noqa: PLC0415

    match arguments:
        case ["--version" | "-v" | "version"]:
            console.show(f"containerd-driver v{RELEASE}\n")
            return 0
        case ["--help" | "-h" | "help"]:
            console.show(_USAGE)
            return 0
        case ["run", *rest]:
            from plugin.cli.run import run  # noqa: PLC0415 - each loads what it needs alone

            return run(rest)
        case ["spec", *rest]:
            from plugin.cli import spec as spec_command  # noqa: PLC0415

            return spec_command.run(rest)
        case ["doctor", *rest]:
            from plugin.cli import doctor as doctor_command  # noqa: PLC0415

            return doctor_command.run(rest)
        case ["gc", *rest]:
            from plugin.cli import gc as gc_command  # noqa: PLC0415

            return gc_command.run(rest)
        case _:
            hint = suggestion.hint(arguments[0], _COMMANDS)
            console.report(f"containerd-driver: unknown arguments {arguments!r}{hint}")
            console.write(sys.stderr, f"\n{_USAGE}".encode())
            return console.WRONG_OPTIONS


_COMMANDS = ("run", "spec", "doctor", "gc", "version", "help", "--version", "--help")
_USAGE = """\
usage: containerd-driver                 serve a Nomad agent (the agent starts it so)
       containerd-driver run JOB ...     run a job file on this machine, without Nomad
       containerd-driver spec JOB ...    print the OCI spec that a job would get
       containerd-driver doctor ...      say what on this machine will not work
       containerd-driver gc ...          remove what no live task owns
       containerd-driver --version

Each command has its options: containerd-driver run --help
"""


def _swept(status: int) -> int:
    """Ends what only a reference cycle keeps, such as a channel that an error's traceback holds.

    Python 3.14 joins no thread while it shuts down, and gRPC shows a traceback about that.
    """
    gc.collect()
    return status


def _serve() -> int:
    if not environment.launched_by_nomad():
        sys.stderr.write(_NOT_A_COMMAND)
        return 1
    if environment.wants_tls():
        sys.stderr.write(
            "containerd-driver: this host asks for TLS (PLUGIN_CLIENT_CERT), which Nomad never does"
            " for a driver and which this one does not speak\n"
        )
        return 1
    from plugin import json_logging  # noqa: PLC0415 - only now is it a plugin

    json_logging.install()
    from plugin import serve  # noqa: PLC0415 - a gRPC that does not load is told to the agent

    serve.run()
    return 1  # the server ended by itself


if __name__ == "__main__":
    sys.exit(main())
