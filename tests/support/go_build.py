"""Builds Go programs for tests from the module proxy. A cache folder keeps the programs.

A module is a folder with a module file, and either sources of the program or `tool` lines in the
module file. The `tool` lines name programs of other modules.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

USUAL_GO = Path("/usr/local/go/bin/go")
# With a cold cache: a thousand packages, on two shared cores.
_BUILD_TIMEOUT_S = 1800
_KEPT_UNUSED_S = 30 * 86400


class BuildError(Exception):
    """Failure to get a program; the text has the cause and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A program to build: the folder of the module, and further arguments of `go build`."""

    folder: str
    modfile: str = "go.mod"
    tags: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Builds targets whose modules are below `modules`, and keeps the programs in `cache`.

    `without_go` is the remedy for a machine without Go.
    """

    modules: Path
    cache: Path
    without_go: str

    def build(self, name: str, target: Target) -> Path:
        """Returns the path of the program, and builds the program unless the cache has a copy.

        For a module of `tool` lines, the path is a folder with a program for each line.

        Raises:
            BuildError: Go is missing or the build failed.
        """
        output = self._output(name, target)
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not output.exists():
                self._compile(target, output)
            os.utime(output)
            self._forget_unused()
        return output

    def kept(self, name: str, target: Target) -> Path | None:
        """Returns the path of the program if the cache has a copy, and builds nothing.

        Raises:
            BuildError: Go is missing.
        """
        output = self._output(name, target)
        if not output.exists():
            return None
        os.utime(output)
        return output

    def _output(self, name: str, target: Target) -> Path:
        go = find_go(self.without_go)
        return self.cache / f"{name}-{self._fingerprint(go, target)}"

    def _fingerprint(self, go: str, target: Target) -> str:
        digest = hashlib.sha256(_run([go, "version"], self.modules).encode())
        digest.update(repr(target).encode())
        for source in sorted((self.modules / target.folder).iterdir()):
            digest.update(source.name.encode())
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]

    def _compile(self, target: Target, output: Path) -> None:
        go, folder = find_go(self.without_go), self.modules / target.folder
        partial = output.with_name(f"{output.name}.partial")
        programs = "."
        if not any(folder.glob("*.go")):
            programs = "tool"
            partial.mkdir(exist_ok=True)
        command = [go, "build", "-buildvcs=false", "-mod=readonly", f"-modfile={target.modfile}"]
        _run([*command, f"-tags={target.tags}", "-o", str(partial), programs], folder)
        partial.rename(output)

    def _forget_unused(self) -> None:
        # Only after a while: an agent executes its own file again for every task's logs, and tests
        # of another checkout may be running a cached program.
        for output in self.cache.glob("*-*"):
            if time.time() - output.stat().st_mtime <= _KEPT_UNUSED_S:
                continue
            if output.is_dir():
                shutil.rmtree(output, ignore_errors=True)
            else:
                output.unlink(missing_ok=True)


def find_go(remedy: str) -> str:
    """Finds the `go` command, on PATH or at the place of Go's own installer.

    Args:
        remedy: ends the sentence of the error.

    Raises:
        BuildError: Go is missing.
    """
    found = shutil.which("go") or (str(USUAL_GO) if USUAL_GO.exists() else None)
    if found is None:
        raise BuildError(f"go is not on PATH and not at {USUAL_GO}: {remedy}")
    return found


def build_by_hand(
    arguments: Iterable[str], names: Iterable[str], build: Callable[[str], Path]
) -> int:
    """Builds the programs that a command line names, or all; returns the exit status."""
    known = list(names)
    for name in list(arguments) or known:
        if name not in known:
            _say(sys.stderr, f"no program {name!r}; there are: {', '.join(known)}")
            return 2
        try:
            _say(sys.stdout, f"{name}: {build(name)}")
        except BuildError as error:
            _say(sys.stderr, f"{name}: {error}")
            return 1
    return 0


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
