"""Checks of the runtimes: do they start tasks on this machine, and do they have known holes?"""

from __future__ import annotations

from collections.abc import Iterator

from actors.health import runtime_programs
from actors.health.findings import Finding, fail, ok, sentence, warn
from actors.health.runtime_programs import RuntimeProgram
from actors.model.node import Node
from actors.processes import runtime_versions
from containerd import runtimes
from containerd.security import known_holes
from proto.errors import DriverError

HOLES_ADVICE = "see docs/security.md for the attacks and for the driver's defence"


def check(node: Node) -> Iterator[Finding]:
    """Yields findings about the runtimes. Blocks."""
    settings = node.settings
    programs = runtime_programs.probe()
    offered = ", ".join(runtime_programs.offered(programs, settings.containerd_runtime)) or "none"
    try:
        default = runtimes.resolve(settings.containerd_runtime)
    except DriverError as error:
        yield fail("runtime", sentence(error), error.resolution)
    else:
        yield ok("runtime", f"{settings.containerd_runtime}; jobs may use {offered}")
        if lacks := runtime_versions.lacks_recursive_readonly(default):
            yield warn(
                "mounts",
                f"{lacks}: file systems below a read-only mount stay writable",
                "use Linux 5.12 or later, and runc 1.1 or crun 1.4 or later",
            )
        for program in programs:
            yield from _program(
                program,
                is_default=program.name == default.binary,
                allowed=settings.gates.allow_known_holes,
            )
    for name in settings.gates.allow_runtimes:
        try:
            runtimes.resolve(name)
        except DriverError as error:
            yield warn("runtime", f"allow_runtimes: {sentence(error)}", error.resolution)


def _program(program: RuntimeProgram, *, is_default: bool, allowed: bool) -> Iterator[Finding]:
    known = f"{program.name} {program.version}".strip()
    if program.refusal:
        finding = fail if is_default else warn
        yield finding(
            program.name,
            f"{known} at {program.path} starts no container here: {program.refusal}",
            "jobs with this runtime do not start: install a newer release of the runtime",
        )
    else:
        yield ok(program.name, f"{known} at {program.path}")
    if program.holes:
        reason = known_holes.refusal(program.name, program.version)
        yield holes(
            f"{known} has known holes: {', '.join(program.holes)}",
            refuses=bool(reason) and is_default and not allowed,
        )


def holes(text: str, *, refuses: bool) -> Finding:
    """Returns the finding about a program's known holes.

    Args:
        text: the holes.
        refuses: True if the driver starts no task because of the holes.
    """
    advice = f"install a release or a distribution package without these holes; {HOLES_ADVICE}"
    if refuses:
        return fail("holes", f"{text}: allow_known_holes is false, no task starts", advice)
    return warn("holes", text, advice)
