"""Builds the real parts of the tests: two Nomad agents, plugin hosts, a CSI plugin.

Each part is a Go program with a separate folder, built from the module proxy. A cache folder, named
after all inputs of the build, keeps the program. By hand:

    python tests/nomad/build.py            builds all, prints their paths
    python tests/nomad/build.py agent      builds the agent of the oldest supported Nomad only

`NOMAD_BIN` names a `nomad` to use instead of both agents.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parent
CACHE = Path("~/.cache/containerd-driver/nomad").expanduser()
_USUAL_GO = Path("/usr/local/go/bin/go")
# With a cold cache: a thousand packages, on two shared cores.
_BUILD_TIMEOUT_S = 1800
_KEPT_UNUSED_S = 30 * 86400


class BuildError(Exception):
    """Failure to get a Nomad part; the text has the cause and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A program to build: the folder of the module, and further arguments of `go build`."""

    folder: str
    modfile: str = "go.mod"
    tags: str = ""


NEWER_AGENT = "agent-1.6.2"
"""An agent that asks drivers for their capability to collect logs: Nomad 1.6 or newer."""
AGENTS = ("agent", NEWER_AGENT)
# From Nomad 1.7 on an agent sends processor data to plugins: the tag adds the data.
TARGETS = {
    "agent": Target(folder="agent"),
    NEWER_AGENT: Target(folder="agent", modfile="go.v1.6.mod"),
    "host-1.5.17": Target(folder="host"),
    "host-1.11.0": Target(folder="host", modfile="go.v1.11.mod", tags="topology"),
    # The program runs in an image without a C library.
    "csi": Target(folder="csi", tags="netgo,osusergo"),
}


def find_go() -> str:
    """Finds the `go` command, on PATH or at the place of Go's own installer."""
    found = shutil.which("go") or (str(_USUAL_GO) if _USUAL_GO.exists() else None)
    if found is None:
        raise BuildError(
            f"go is not on PATH and not at {_USUAL_GO}: install Go 1.21 or newer from go.dev, "
            "or point NOMAD_BIN at a nomad to run the agent's tests with"
        )
    return found


def build(name: str) -> Path:
    """Returns the path of the program, and builds the program unless the cache has a copy.

    Raises:
        BuildError: Go is missing or the build failed.
    """
    given = os.environ.get("NOMAD_BIN", "")
    if name in AGENTS and given:
        if not os.access(given, os.X_OK):
            raise BuildError(f"NOMAD_BIN={given} is not an executable file")
        return Path(given)
    go = find_go()
    target = TARGETS[name]
    program = CACHE / f"{name}-{_fingerprint(go, target)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(go, target, program)
        os.utime(program)
        _forget_unused()
    return program


def _fingerprint(go: str, target: Target) -> str:
    digest = hashlib.sha256(_run([go, "version"], HERE).encode())
    digest.update(repr(target).encode())
    for source in sorted((HERE / target.folder).iterdir()):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(go: str, target: Target, program: Path) -> None:
    partial = program.with_name(f"{program.name}.partial")
    command = [go, "build", "-buildvcs=false", "-mod=readonly", f"-modfile={target.modfile}"]
    _run([*command, f"-tags={target.tags}", "-o", str(partial), "."], HERE / target.folder)
    partial.rename(program)


def _forget_unused() -> None:
    # Only after a while: an agent executes its own file again for every task's logs, and tests of
    # another checkout may be running a cached program.
    for program in CACHE.glob("*-*"):
        if time.time() - program.stat().st_mtime > _KEPT_UNUSED_S:
            program.unlink(missing_ok=True)


def _run(command: list[str], folder: Path) -> str:
    # A user's GOFLAGS could ask for vendoring or another module file. The build uses the installed
    # tool chain: fetching another tool chain would surprise.
    environment = {**os.environ, "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(command)}: not done in {_BUILD_TIMEOUT_S} s") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)} in {folder}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _say(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def main(arguments: list[str]) -> int:
    """Builds the named programs, or all."""
    for name in arguments or list(TARGETS):
        if name not in TARGETS:
            _say(sys.stderr, f"no program {name!r}; there are: {', '.join(TARGETS)}")
            return 2
        try:
            _say(sys.stdout, f"{name}: {build(name)}")
        except BuildError as error:
            _say(sys.stderr, f"{name}: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
