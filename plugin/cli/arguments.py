"""Arguments of the commands `run`, `spec`, `convert`, `doctor` and `gc`.

The module loads none of the commands: help and mistakes are shown at once, and `run` starts its
plugin before it loads the dev host.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from actors.model.cni import CNI_DIRECTORIES
from plugin.cli.parser import Parser

_RUN = """\
exit status: the exit code of the task, or with several tasks the first code that is not 0; 128+n
for a task that signal n ended; 125 when the driver failed, a health check ended the task, the job
is wrong or output was lost; 130 when Ctrl-C came before the first start; 2 when the options are
wrong

Ctrl-C stops the tasks as Nomad would (kill_signal, SIGKILL after kill_timeout), a second Ctrl-C
kills the tasks, a third Ctrl-C leaves. An ended task is not restarted: agents restart tasks.
"""
_SPEC = """\
The command asks containerd about the image, and pulls, starts and leaves nothing. For a job with
one task the output is a spec, for several tasks an object with a spec for each. Identifiers and
paths of an allocation differ from run to run.

exit status: 0; 1 when a task could not start; 2 when the options are wrong
"""
_CONVERT = """\
The file is a job in HCL or in Nomad's JSON, or an agent's file with the plugin block of docker or
podman. Only the parts that this driver needs otherwise change: the driver's name, the network of a
group, and the proxies of Consul Connect. Comments, formatting and expressions stay.

The report has a line for each change, for each option without effect (note), and for each part that
is not carried over. Such an option stays in the file, and the driver refuses the job until the
author removes or replaces the option. The report goes to stderr, with --check to stdout.

exit status: 0; 1 when a part is not carried over, or the file cannot be read or written; 2 when the
options are wrong
"""
_DOCTOR = """\
exit status: 0 when tasks can run, with or without warnings; 1 when no task can run; 2 when the
options are wrong
"""
_GC = """\
gc removes objects of killed runs of `containerd-driver run`, and objects of plugins that have
ended. A Nomad agent may come back for its tasks at any time, so gc only shows the objects of a
node, unless --node says that the node will not come back. A running plugin searches for orphans of
its node, see gc.dangling_containers in the configuration.

exit status: 0; 1 when an object could not be removed, or no search was possible; 2 when the options
are wrong
"""


def parse(command: str, words: list[str]) -> argparse.Namespace:
    """Parses the arguments of a command.

    Raises:
        SystemExit: after `--help`, with status 0; after a wrong argument, with status 2.
    """
    parsers = {"run": _run, "spec": _spec, "convert": _convert, "doctor": _doctor, "gc": _gc}
    parsed: argparse.Namespace = parsers[command]().parse_args(words)
    return parsed


def _run() -> Parser:
    parser = Parser("run", "Runs a Nomad job file on this machine, without Nomad.", _RUN)
    add = parser.add_argument
    add("job", type=Path, help="job file, HCL or JSON; - reads stdin")
    add("--var", action="append", default=[], metavar="NAME=VALUE", help="an HCL variable")
    _add_plugin_arguments(parser)
    add_host_arguments(parser)
    add(
        "--alloc-dir",
        type=Path,
        metavar="DIR",
        help="directory of allocations (default: temporary)",
    )
    add("--keep", action="store_true", help="keep the allocation directories")
    add("--stats", action="store_true", help="show each second the usage of the tasks")
    add("--json", action="store_true", help="one JSON object per line")
    add("--plugin", type=Path, metavar="PATH", help="plugin executable (default: this driver)")
    add("--verbose", action="store_true", help="show the log of the plugin")
    return parser


def _spec() -> Parser:
    parser = Parser("spec", "Prints the OCI spec that the tasks of a job file would get.", _SPEC)
    add = parser.add_argument
    add("job", type=Path, help="job file, HCL or JSON; - reads stdin")
    add("--task", default="", metavar="NAME", help="only this task")
    add("--var", action="append", default=[], metavar="NAME=VALUE", help="an HCL variable")
    _add_plugin_arguments(parser)
    add_host_arguments(parser)
    return parser


def _convert() -> Parser:
    parser = Parser(
        "convert",
        "Rewrites a job file of Nomad's docker or podman driver for this driver, and reports each"
        " part that cannot be carried over.",
        _CONVERT,
    )
    add = parser.add_argument
    add("job", type=Path, help="job file, HCL or JSON; - reads stdin")
    add("--check", action="store_true", help="write no file, only the report")
    add("-o", "--output", type=Path, metavar="FILE", help="write FILE (default: stdout)")
    add("-i", "--in-place", action="store_true", help="write the job file itself")
    add(
        "--driver",
        action="append",
        default=[],
        metavar="NAME",
        help="convert only the tasks of this driver: docker, podman or containerd-driver, whose"
        " options are checked (default: all three)",
    )
    add("--json", action="store_true", help="one JSON object per line of the report")
    return parser


def _doctor() -> Parser:
    parser = Parser("doctor", "Checks whether tasks can run on this machine, and advises.", _DOCTOR)
    _add_plugin_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser


def _gc() -> Parser:
    parser = Parser(
        "gc",
        "Removes orphans: containers, snapshots, leases, workers, state directories and networks of"
        " runs that no live task owns.",
        _GC,
    )
    _add_plugin_arguments(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="only show the orphans")
    add(
        "--node",
        action="append",
        default=[],
        metavar="ID",
        help="id of a Nomad node that will not come back, as shown in WHY: its tasks are stopped"
        " and removed",
    )
    add(
        "--grace",
        default="",
        metavar="TIME",
        help="keep younger objects (default: gc.dangling_containers.creation_grace, 5m)",
    )
    add("--json", action="store_true", help="one JSON object per line")
    return parser


def _add_plugin_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the plugin block, such as containerd_address=/run/x.sock",
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="read the plugin block of an agent's HCL file",
    )


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that stand for the client block of an agent to a parser."""
    add = parser.add_argument
    add(
        "--host-volume",
        action="append",
        default=[],
        metavar="NAME=PATH[:ro]",
        help="a volume for volume blocks of type host; the client block of --config-file also has"
        " volumes",
    )
    add(
        "--host-ip",
        metavar="ADDRESS",
        help="address of this machine for the ports of the job (default: 127.0.0.1)",
    )
    add(
        "--cni-path",
        default=":".join(CNI_DIRECTORIES),
        metavar="DIR[:DIR]",
        help=f"directories of CNI plugins (default: {':'.join(CNI_DIRECTORIES)})",
    )
