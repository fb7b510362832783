"""What doctor says of the runtimes: which start tasks here, and which have known holes."""

from __future__ import annotations

from collections.abc import Iterator

from actors.health import runtime_programs
from actors.health.findings import Finding, fail, ok, sentence, warn
from actors.health.runtime_programs import RuntimeProgram
from actors.model.node import Node
from actors.processes import runtime_versions
from containerd import runtimes
from proto.errors import DriverError

HOLES_ADVICE = "see docs/security.md for what they let happen and what the driver does about it"


def look(node: Node) -> Iterator[Finding]:
    """Gives what is to be said of the runtimes. Blocks."""
    settings = node.settings
    programs = runtime_programs.look()
    here = ", ".join(runtime_programs.offered(programs, settings.containerd_runtime)) or "none"
    try:
        default = runtimes.resolve(settings.containerd_runtime)
    except DriverError as error:
        yield fail("runtime", sentence(error), error.resolution)
    else:
        yield ok("runtime", f"{settings.containerd_runtime}; jobs may ask for {here}")
        if lacks := runtime_versions.lacks_recursive_readonly(default):
            yield warn(
                "mounts",
                f"{lacks}: below a read-only mount other file systems stay writable",
                "use Linux 5.12 or later, and runc 1.1 or crun 1.4 or later",
            )
        for program in programs:
            yield from _program(program, is_default=program.name == default.binary)
    for name in settings.allow_runtimes:
        try:
            runtimes.resolve(name)
        except DriverError as error:
            yield warn("runtime", f"allow_runtimes: {sentence(error)}", error.resolution)


def _program(program: RuntimeProgram, *, is_default: bool) -> Iterator[Finding]:
    known = f"{program.name} {program.version}".strip()
    if program.refusal:
        judged = fail if is_default else warn
        yield judged(
            program.name,
            f"{known} at {program.path} starts nothing here: {program.refusal}",
            "jobs with this runtime do not start: see its documentation, or install a newer one",
        )
    else:
        yield ok(program.name, f"{known} at {program.path}")
    if program.holes:
        yield warn(
            "holes",
            f"{known} has known holes: {', '.join(program.holes)}",
            f"install a release, or a package of your distribution, that closes them;"
            f" {HOLES_ADVICE}",
        )
