"""Launcher: a small process that forks a worker for every task, so that a worker costs about 1 MB.

The plugin or a systemd unit runs `python -I launcher.py --state-dir DIR`. The launcher imports the
modules of workers once, for all workers to share, and the module for messages to systemd. The
launcher has one thread, no timers and no gRPC. The launcher listens on `DIR/launcher.sock` until
the request `retire`. Running workers and tasks do not need the launcher.

The launcher forks for every connection, and only the child reads the request. So no peer can block
or break the launcher, and the launcher writes to almost no memory between two forks. Each written
page is no longer shared: the launcher gets a copy, and every earlier worker keeps a page alone.

Without systemd, the launcher ends after some minutes without a live plugin, run or task in the
state directory. A child checks the state directory after each such time without a connection.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import os
import select
import sys

# Python's isolated mode leaves this program's own directory out of the module path.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

# The first import: the memory that sdnotify leaves behind is then in one piece.
from workers.launch.systemd import Notifier

# isort: split
from proto.errors import Code, DriverError
from proto.exhaustion import advice, exhausted
from proto.release import RELEASE
from workers import c_modules, control, liveness, private_directory, procfs, protocol
from workers.launch import heap_layout, socket_activation, warm_up
from workers.launch import lock as succession
from workers.launch.child import FAILED, serve
from workers.log import log, log_crash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from proto.frames import Frame

_EXIT_FAILED = 1
_EXIT_USAGE = 2
_OPTIONS = {"--state-dir", "--notify", "--watchdog-us", "--listen-fds", "--idle-ms"}
_USAGE = (
    "usage: launcher.py --state-dir DIR [--idle-ms INTERVAL]"
    " [--notify ADDRESS [--watchdog-us INTERVAL] [--listen-fds COUNT]]\n"
)
_IDLE_MS, _MOST_IDLE_MS = "150000", 86_400_000
_IDLE_CHECKS = 2
_STDERR = 2
_DESCRIPTORS = (3, 1 << 20)
_TIDY_BYTES = 100_000
"""The C library tidies the heap when 64 KiB are freed at once, and maps 128 KiB or more apart."""


class Launcher:
    """Listens and forks.

    Args:
        directory: descriptor of the driver's state directory.
        lock: descriptor with the lock of the launcher.
        notifier: receives a sign of life at each turn of the loop.
        inherited: systemd's listening socket, if the socket unit is active.
    """

    def __init__(
        self, directory: int, lock: int, notifier: Notifier, inherited: c_modules.socket | None
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._notifier = notifier
        self._pid = os.getpid()
        self._is_inherited = inherited is not None
        self._listener = inherited or control.listen(directory, protocol.LAUNCHER_SOCKET)

    def run(self, idle_ms: int) -> bool:
        """Forks for every connection, until a child with the request `retire` ends the launcher.

        The child accepts the connection. The parent waits until the child has accepted or is dead:
        both close the pipe.

        Args:
            idle_ms: time without a connection until the next check for live users; 0: no checks.

        Returns:
            True if two checks in a row found no live user. False if the socket was shut down.
        """
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        fork, pipe, read, close = os.fork, os.pipe, os.read, os.close
        # Looked up here, because the first look-up of a method writes to a cache.
        serve_and_end, answer = self._serve_and_end, self._answer
        alive, period_ms = self._notifier.alive, self._notifier.period_ms or idle_ms or None
        idle = 0
        while True:
            alive()
            ready = poll.poll(period_ms)
            if not ready and not idle_ms:
                continue
            if ready and ready[0][1] != select.POLLIN:  # the socket was shut down
                return False
            try:
                accepted, accepting = pipe()
            except OSError as error:
                if ready:
                    control.turn_away(self._listener, error)
                continue
            try:
                pid = fork()
            except OSError as error:
                if ready:
                    self._refuse(_cannot_fork(error))
                pid = -1
            if pid == 0:
                close(accepted)  # may be the only descriptor left for the connection
                if ready:
                    serve_and_end(accepting, answer)
                self._check_and_end(accepting)
            close(accepting)
            idle = idle + 1 if read(accepted, 1) else 0
            close(accepted)
            if idle == _IDLE_CHECKS:
                return True

    def _refuse(self, error: DriverError) -> None:
        sock = control.accept(self._listener)
        if sock is not None:
            control.refuse(sock, error)

    def _serve_and_end(self, accepting: int, answer: Callable[[Frame], Frame]) -> NoReturn:
        """Serves the connection in the child, and ends the process.

        The launcher's frames and objects stay unused in the child. Unwinding and closing would cost
        every worker 0.2 MB.
        """
        status = FAILED
        try:
            sock = control.accept(self._listener)
            os.close(accepting)
            if sock is not None:
                status = serve(sock, answer, _DESCRIPTORS)
        except BaseException as error:  # noqa: BLE001 - nothing but the log is left
            log_crash(error)
        finally:
            os._exit(status)

    def _check_and_end(self, pipe: int) -> NoReturn:
        """Writes a byte to the pipe if no user of the state directory is alive, and ends."""
        try:
            if liveness.is_unused(self._directory):
                os.write(pipe, b"0")
        finally:
            os._exit(0)

    def _answer(self, request: Frame) -> Frame:
        if request.get("op") == protocol.RETIRE:  # of a launcher of any version
            self._retire()
            return {"ok": True}
        protocol.agree(request)
        match request.get("op"):
            case protocol.HELLO:
                return {"ok": True, **protocol.STATED, "release": RELEASE, "pid": self._pid}
            case other:
                raise DriverError(
                    f"the launcher does not know the request {other!r:.80}",
                    resolution="the plugin is newer: restart the launcher; tasks are not affected",
                    code=Code.UNSUPPORTED,
                )

    def _retire(self) -> None:
        """Frees the socket's name and the lock for the next launcher, and ends the parent.

        Parent and child share the open lock file, so the child can drop the lock. For systemd the
        signal is a successful end: systemd starts the next launcher at the next connection.
        """
        if not self._is_inherited:
            control.unlink(self._directory, protocol.LAUNCHER_SOCKET)
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        if os.getppid() == self._pid:
            os.kill(self._pid, c_modules.SIGTERM)


def main(argv: list[str]) -> int:
    """Runs the launcher.

    Returns:
        The exit status: 0 if another launcher serves or no user is left; 1 if this launcher cannot
        serve; 2 for invalid arguments.
    """
    options = dict(zip(argv[1::2], argv[2::2], strict=False))
    watchdog = options.get("--watchdog-us", "") or "0"  # empty in a unit without WatchdogSec
    listen_fds = options.get("--listen-fds", "")  # empty where the socket unit is not active
    idle = options.get("--idle-ms", _IDLE_MS)
    known = len(argv) % 2 and options.keys() <= _OPTIONS and (watchdog + idle).isdecimal()
    if not known or listen_fds not in {"", "1"} or not options.get("--state-dir"):
        sys.stderr.write(_USAGE)
        return _EXIT_USAGE
    state_dir = options["--state-dir"]
    notifier = Notifier(options.get("--notify", ""), int(watchdog))
    try:
        idle_ms = 0 if notifier.wanted else min(int(idle), _MOST_IDLE_MS)
        return _launch(state_dir, notifier, listen_fds, idle_ms)
    except (OSError, DriverError) as error:
        resolution = advice(error) if isinstance(error, OSError) else ""
        reason = f"{error} ({resolution})" if resolution else str(error)
        notifier.status(f"cannot serve in {state_dir}: {reason}")
        log(f"launcher: cannot serve in {state_dir}: {reason}")
        return _EXIT_FAILED


def _launch(state_dir: str, notifier: Notifier, listen_fds: str, idle_ms: int) -> int:
    _detach()
    directory = private_directory.opened(state_dir)
    lock = succession.lock(directory, notifier)
    if lock is None:
        _log_to(directory)
        log(f"launcher: another launcher serves in {state_dir}; this launcher ends")
        return 0
    procfs.set_name(procfs.LAUNCHER)
    c_modules.signal(c_modules.SIGCHLD, c_modules.SIG_IGN)  # the kernel reaps the workers
    c_modules.signal(c_modules.SIGTERM, c_modules.SIG_DFL)  # whatever the parent set
    # For debugging: the stack goes to launcher.log. Workers inherit this handler and the log.
    faulthandler.register(c_modules.SIGUSR1, _STDERR)
    used = heap_layout.calls_of(lambda stop: warm_up.run(state_dir, 1, stop))
    gc.collect()  # not later: garbage in between would leave gaps
    kept = [heap_layout.fill_gaps(), heap_layout.fill_large_gaps(), heap_layout.gather(used)]
    # A failure before this line is on the parent's stderr. The log is not opened later, because
    # objects created after the last warm-up cost each worker pages.
    _log_to(directory)
    # Only workers of tasks with a health check use the module. An import before the gathering would
    # mix the module with the code of all workers. An import in a worker could find the files of
    # another release.
    from workers.health import monitor  # noqa: PLC0415

    kept.append([monitor])
    warm_up.run(state_dir)
    inherited = socket_activation.listener(listen_fds, directory, protocol.LAUNCHER_SOCKET)
    launcher = Launcher(directory, lock, notifier, inherited)
    notifier.ready(f"forks the workers of tasks; log: {state_dir}/{protocol.LAUNCHER_LOG}")
    # Workers share all present objects as long as no process writes to the objects' pages, and a
    # garbage collection writes to the header of every object.
    gc.collect()
    kept += [heap_layout.fill_gaps(), heap_layout.fill_large_gaps()]
    gc.disable()
    gc.freeze()
    bytearray(_TIDY_BYTES)
    idle = launcher.run(idle_ms)
    kept.clear()
    if not idle:
        raise DriverError(
            f"the socket {protocol.LAUNCHER_SOCKET} was shut down", code=Code.INTERNAL
        )
    control.unlink(directory, protocol.LAUNCHER_SOCKET)
    log(f"launcher: ends: no plugin, run or task is alive in {state_dir}")
    return 0


def _cannot_fork(error: OSError) -> DriverError:
    return exhausted(
        "the launcher cannot fork a worker",
        error,
        resolution="see the launcher's limits of processes and memory",
        code=Code.EXHAUSTED,
    )


def _detach() -> None:
    """Leaves the working directory, the session and the standard output of the parent."""
    os.chdir("/")
    os.umask(0o077)
    procfs.new_session()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _log_to(directory: int) -> None:
    """Sends standard error of launcher and workers to the log file, which needs no reader."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(protocol.LAUNCHER_LOG, flags, 0o600, dir_fd=directory)
    os.dup2(file, 2)
    os.close(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
