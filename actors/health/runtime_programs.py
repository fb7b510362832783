"""Runtime programs on this machine: versions, known holes, and a probe that starts a container.

An installed program may refuse every start: crun on a host with both versions of cgroups, an old
gVisor on a new kernel. The probe starts a container with a program that does not exist. A runtime
that names the missing program in the error has done every other step. The results are kept until a
program's file changes or the machine boots.

A probe of all runtimes uses a processor for up to a second. So a plugin begins a second after its
first fingerprint: the first start, and a whole `run` of a short job, have the processors.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shlex
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actors.files import tree_removal
from actors.processes import runtime_versions, short_program
from containerd import runtimes
from containerd.security import known_holes
from proto.errors import DriverError
from proto.release import RELEASE
from proto.values import dataclass

HOME = Path("/run/nomad-driver-containerd")
"""Directory of the machine; the same for every state_dir."""
_NAMES = ("runc", "crun", "runsc")
_RUNS_IN = {
    "io.containerd.runc.v1": "runc",
    "io.containerd.runc.v2": "runc",
    "io.containerd.runsc.v1": "runsc",
}
_log = logging.getLogger(__name__)
_ABSENT = "/containerd-driver-probe"
_LIMIT_S = 15.0
_PROBE_AFTER_S = 1.0
_MAX_REASON = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeProgram:
    """A runtime's program.

    Attributes:
        name: runc, crun or runsc.
        path: path of the program.
        version: version in the program's output, with a distribution's revision.
        refusal: error of the probe; empty if the probe succeeded or was not possible.
        holes: CVE names of known holes.
    """

    name: str
    path: str
    version: str
    refusal: str = ""
    holes: tuple[str, ...] = ()


FileStates = tuple[tuple[str, str, int, int], ...]


def file_states() -> FileStates:
    """Returns (name, path, mtime_ns, size) of each installed program, to detect changed files."""
    states: list[tuple[str, str, int, int]] = []
    for name in _NAMES:
        path = runtimes.program(name)
        with contextlib.suppress(OSError):
            if path is not None:
                status = path.stat()
                states.append((name, str(path), status.st_mtime_ns, status.st_size))
    return tuple(states)


def offered(programs: tuple[RuntimeProgram, ...], default: str) -> list[str]:
    """Returns the names of runtimes that a job may use and that start tasks here.

    Args:
        programs: result of `probe`.
        default: name of the default runtime; always in the result if available.
    """
    work = {program.name for program in programs if not program.refusal}
    return [
        name
        for name in runtimes.available()
        if name == default or (runs := _RUNS_IN.get(name, name)) in work or runs not in _NAMES
    ]


def probe(home: Path | None = None) -> tuple[RuntimeProgram, ...]:
    """Returns the installed programs. Probes the programs if no stored result is valid. Blocks."""
    files, home = file_states(), home or HOME
    if os.geteuid() != 0:
        return tuple(_described(name, path) for name, path, *_ in files)
    try:
        with _stored(home) as file:
            return _read_stored(file, files) or _probe_all(file, files, home)
    except OSError:
        return tuple(_described(name, path) for name, path, *_ in files)


def stored(files: FileStates, home: Path | None = None) -> tuple[RuntimeProgram, ...]:
    """Returns the stored results; empty if none are valid, or if another plugin probes now."""
    try:
        with _stored(home or HOME, fcntl.LOCK_EX | fcntl.LOCK_NB) as file:
            return _read_stored(file, files)
    except OSError:
        return ()


@contextlib.contextmanager
def _stored(home: Path, lock: int = fcntl.LOCK_EX) -> Generator[int, None, None]:
    """Locks the file of results inside the block: two plugins never probe at the same time."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(home / "runtimes.json", flags, 0o600)
    try:
        fcntl.flock(file, lock)
        yield file
    finally:
        os.close(file)


def _read_stored(file: int, files: FileStates) -> tuple[RuntimeProgram, ...]:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        document: Any = json.loads(os.pread(file, 1 << 16, 0))
        if document["of"] == _key(files):
            return tuple(_program(fields) for fields in document["programs"])
    return ()


def _program(fields: Any) -> RuntimeProgram:
    return RuntimeProgram(
        name=str(fields["name"]),
        path=str(fields["path"]),
        version=str(fields["version"]),
        refusal=str(fields["refusal"]),
        holes=tuple(map(str, fields["holes"])),
    )


def _key(files: FileStates) -> list[Any]:
    """Returns the key of stored results. Another release of the driver may know more holes."""
    return [RELEASE, *(list(state) for state in files)]


def _probe_all(file: int, files: FileStates, home: Path) -> tuple[RuntimeProgram, ...]:
    programs = tuple(_described(name, path, home) for name, path, *_ in files)
    document = {"of": _key(files), "programs": [asdict(program) for program in programs]}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(document).encode(), 0)
    return programs


def _described(name: str, path: str, home: Path | None = None) -> RuntimeProgram:
    refusal = ""
    with contextlib.suppress(DriverError, OSError):
        if home is not None:
            refusal = _refusal(name, path, home / "probe")
    version = runtime_versions.version(Path(path))
    holes = tuple(hole.cve for hole in known_holes.of(name, version))
    return RuntimeProgram(name=name, path=path, version=version, refusal=refusal, holes=holes)


def _refusal(name: str, path: str, home: Path) -> str:
    """Starts a container with a missing program; returns any error except the missing program."""
    tree_removal.remove(home)
    (home / "rootfs").mkdir(mode=0o700, parents=True)
    (home / "config.json").write_text(json.dumps(_SPEC))
    command = [path, "--root", str(home / "root")]
    container_id = f"containerd-driver-probe-{name}"
    try:
        arguments = ["run", "--bundle", str(home), container_id]
        ended = short_program.run([*command, *arguments], timeout_s=_LIMIT_S)
        short_program.run([*command, "delete", "--force", container_id], timeout_s=_LIMIT_S)
    finally:
        tree_removal.remove(home)
    output = f"{ended.stdout}\n{ended.stderr}".strip()
    return "" if ended.status == 0 or _ABSENT in output else _reason(output)


def _reason(output: str) -> str:
    line = output.splitlines()[-1] if output else "the runtime printed no error"
    with contextlib.suppress(ValueError):
        fields = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
        line = fields.get("msg", line)
    return line[:_MAX_REASON]


_SPEC = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 0, "gid": 0}, "args": [_ABSENT], "cwd": "/"},
    "root": {"path": "rootfs", "readonly": True},
    # The runtime makes device nodes in /dev and opens them. The root lies below /run, and systemd
    # mounts /run with nodev, so /dev is a file system of its own.
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    ],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
}


class RuntimeWatch:
    """Results of the probe for the fingerprint, which asks often and must never wait long."""

    def __init__(self) -> None:
        self._files: FileStates | None = None
        self._programs: tuple[RuntimeProgram, ...] = ()
        self._probe: asyncio.Task[tuple[RuntimeProgram, ...]] | None = None

    async def read_stored(self) -> None:
        """Reads the results of an earlier probe. A program without a result is probed later."""
        files = file_states()
        programs = await asyncio.to_thread(stored, files)
        if programs:
            self._files, self._programs = files, programs

    def programs(self) -> tuple[RuntimeProgram, ...]:
        """Returns the latest results. Schedules a probe if a program's file has changed."""
        if self._probe is not None and self._probe.done():
            error = self._probe.exception()
            if error is None:
                self._programs = self._probe.result()
            else:
                _log.error("probe of the runtimes failed", extra={"reason": repr(error)})
            self._probe = None
        files = file_states()
        if self._probe is None and files != self._files:
            self._files = files
            self._probe = asyncio.create_task(_probe_later())
        return self._programs

    async def pause(self, seconds: float) -> None:
        """Waits for so many seconds, or until the end of a scheduled probe."""
        if self._probe is None:
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait([self._probe], timeout=seconds)


async def _probe_later() -> tuple[RuntimeProgram, ...]:
    await asyncio.sleep(_PROBE_AFTER_S)
    return await asyncio.to_thread(probe)
