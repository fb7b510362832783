"""The launcher: a small process that is forked for every task, so that a worker costs about 1 MB.

Run as `python -I launcher.py --state-dir DIR`, by the plugin or by a systemd unit. It holds what
workers need, imported once and shared by all of them, and what it takes to speak to systemd: one
thread, no timers, no gRPC, ever. It listens on `DIR/launcher.sock` until told to retire. Workers
and tasks do not need it once they run.

It forks for every connection and reads the request only in the child. So nobody who connects can
hold it up or break it, and it writes to almost no memory between two forks: each page it writes is
lost for sharing, a copy for itself and one left over in every worker forked before.

Where systemd does not run it, it ends when for some minutes nobody has lived who would need it. A
child looks for that whenever nobody has connected for as long.
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

# Before all else: what this leaves in memory is better in one piece than between what follows.
from workers.launch.systemd import Notifier

# isort: split
from proto.errors import Code, DriverError
from proto.exhaustion import advice
from proto.release import RELEASE
from workers import c_modules, control, liveness, private_directory, procfs, protocol
from workers.launch import heap_layout, socket_activation, warm_up
from workers.launch import lock as succession
from workers.launch.child import FAILED, serve

TYPE_CHECKING = False
if TYPE_CHECKING:
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
_IDLE_LOOKS = 2
_STDERR = 2
_DESCRIPTORS = (3, 1 << 20)
_TIDY_BYTES = 100_000
"""The C library tidies its heap when 64 KiB are freed at once, and maps apart from 128 KiB."""


class Launcher:
    """Listens and forks.

    Args:
        directory: descriptor of the driver's state directory.
        lock: descriptor that holds the lock of the only launcher there.
        notifier: hears of each turn of the loop.
        given: the socket that systemd listens on, where it does.
    """

    def __init__(
        self, directory: int, lock: int, notifier: Notifier, given: c_modules.socket | None
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._notifier = notifier
        self._pid = os.getpid()
        self._given = given is not None
        self._listener = given or control.listen(directory, protocol.LAUNCHER_SOCKET)

    def run(self, idle_ms: int) -> bool:
        """Forks for every connection, until a child that was told to have us retire ends us.

        True: nobody has lived here for twice `idle_ms`, where that is not 0. False: somebody has
        shut the socket down.

        The child accepts. Its parent waits for that, or for the child's death: it closes the pipe.
        """
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        fork, pipe, read, close = os.fork, os.pipe, os.read, os.close
        alive, period_ms = self._notifier.alive, self._notifier.period_ms or idle_ms or None
        idle = 0
        while True:
            alive()
            ready = poll.poll(period_ms)
            if not ready and not idle_ms:
                continue
            if ready and ready[0][1] != select.POLLIN:  # somebody has shut it down
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
                close(accepted)  # there may be no other descriptor left for the connection
                if ready:
                    self._serve_and_end(accepting)
                self._look_and_end(accepting)
            close(accepting)
            idle = idle + 1 if read(accepted, 1) else 0
            close(accepted)
            if idle == _IDLE_LOOKS:
                return True

    def _refuse(self, error: DriverError) -> None:
        sock = control.accept(self._listener)
        if sock is not None:
            control.refuse(sock, error)

    def _serve_and_end(self, accepting: int) -> NoReturn:
        """The child's life. The launcher's frames and objects stay as they are, never used again.

        To unwind them and to close them one by one would cost every worker 0.2 MB.
        """
        status = FAILED
        try:
            sock = control.accept(self._listener)
            os.close(accepting)
            if sock is not None:
                status = serve(sock, self._answer, _DESCRIPTORS)
        except BaseException as error:  # noqa: BLE001 - the log is the only one left to tell
            procfs.say_crash(error)
        finally:
            os._exit(status)

    def _look_and_end(self, found: int) -> NoReturn:
        """The life of a child that looks whether anybody lives here; it writes a byte if not."""
        try:
            if liveness.is_gone(self._directory):
                os.write(found, b"0")
        finally:
            os._exit(0)

    def _answer(self, request: Frame) -> Frame:
        if request.get("op") == protocol.RETIRE:  # a successor of any version may ask for it
            self._retire()
            return {"ok": True}
        protocol.agree(request)
        match request.get("op"):
            case protocol.HELLO:
                return {"ok": True, **protocol.STATED, "release": RELEASE, "pid": self._pid}
            case other:
                raise DriverError(
                    f"the launcher does not know the request {other!r:.80}",
                    resolution="the plugin is newer: restart the launcher; tasks go on meanwhile",
                    code=Code.UNSUPPORTED,
                )

    def _retire(self) -> None:
        """A successor may start at once: the name and the lock are free, the parent ends.

        The lock's descriptor is shared with the parent, and so is what is done to it. For systemd
        this signal is a good end: it starts another one when somebody connects.
        """
        if not self._given:
            control.unlink(self._directory, protocol.LAUNCHER_SOCKET)
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        if os.getppid() == self._pid:
            os.kill(self._pid, c_modules.SIGTERM)


def main(argv: list[str]) -> int:
    """The launcher's life.

    Returns:
        The exit status: 0 when another launcher serves, 1 when this one cannot, 2 for arguments
        that make no sense.
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
        why = f"{error} ({resolution})" if resolution else str(error)
        notifier.status(f"cannot serve in {state_dir}: {why}")
        procfs.say(f"launcher: cannot serve in {state_dir}: {why}")
        return _EXIT_FAILED


def _launch(state_dir: str, notifier: Notifier, listen_fds: str, idle_ms: int) -> int:
    _detach()
    directory = private_directory.opened(state_dir)
    lock = succession.lock(directory, notifier)
    if lock is None:
        _log_to(directory)
        procfs.say(f"launcher: another one serves in {state_dir}; this one has nothing to do")
        return 0
    procfs.set_name(procfs.LAUNCHER)
    c_modules.signal(c_modules.SIGCHLD, c_modules.SIG_IGN)  # the kernel reaps the workers
    c_modules.signal(c_modules.SIGTERM, c_modules.SIG_DFL)  # whatever who started this does with it
    # For debugging: the stack goes to launcher.log. Workers inherit this handler and the log.
    faulthandler.register(c_modules.SIGUSR1, _STDERR)
    used = heap_layout.calls_of(lambda: warm_up.rehearse(state_dir, 1))
    kept = [heap_layout.fill_gaps(), heap_layout.gather_code(used)]
    # Whoever started this has heard by now why it does not serve. Not later: what is made after the
    # last rehearsal costs each worker pages.
    _log_to(directory)
    warm_up.rehearse(state_dir)
    given = socket_activation.listener(listen_fds, directory, protocol.LAUNCHER_SOCKET)
    launcher = Launcher(directory, lock, notifier, given)
    notifier.ready(f"forks the workers of tasks; its log is {state_dir}/{protocol.LAUNCHER_LOG}")
    # What is here now is shared with every worker as long as nobody writes to it, and a garbage
    # collection writes to the header of every object.
    gc.collect()
    kept.append(heap_layout.fill_gaps())
    gc.disable()
    gc.freeze()
    bytearray(_TIDY_BYTES)
    idle = launcher.run(idle_ms)
    kept.clear()
    if not idle:
        raise DriverError(
            f"its socket {protocol.LAUNCHER_SOCKET} was shut down", code=Code.INTERNAL
        )
    control.unlink(directory, protocol.LAUNCHER_SOCKET)
    procfs.say(f"launcher: ends, for no plugin, run or task lives in {state_dir} any more")
    return 0


def _cannot_fork(error: OSError) -> DriverError:
    return DriverError(
        "the launcher cannot fork a worker",
        details=error.strerror or str(error),
        resolution=advice(error) or "see the launcher's limits of processes and memory",
        recoverable=True,
        code=Code.EXHAUSTED,
    )


def _detach() -> None:
    """Keeps nothing of whoever started this: no working directory, no session, no output."""
    os.chdir("/")
    os.umask(0o077)
    procfs.new_session()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _log_to(directory: int) -> None:
    """From here on stderr, the workers' too, is a file that nobody has to read for us to live."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(protocol.LAUNCHER_LOG, flags, 0o600, dir_fd=directory)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
