"""The launcher: a small process that is forked for every task, so that a worker costs about 1 MB.

Run as `python -I launcher.py --state-dir DIR`. It holds what workers need, imported once and shared
by all of them, and nothing else: one thread, no timers, no gRPC, ever. It listens on
`DIR/launcher.sock` until told to retire; workers and tasks do not need it once they run.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sys
import time

# Python's isolated mode leaves this program's own directory out of the module path.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

from proto.errors import Code, DriverError
from proto.release import RELEASE
from workers import control, task_worker, wire
from workers.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from proto.frames import Decoder, Frame
    from workers.control import Connection

_EXIT_FAILED = 1
_EXIT_USAGE = 2


class Forked(BaseException):
    """Raised in a process just forked: unwinds the launcher's frames before the worker begins."""

    def __init__(self, spec: object, connection: Connection) -> None:
        super().__init__()
        self.spec = spec
        self.sock: socket.socket
        self.decoder: Decoder
        self.sock, self.decoder = connection.detach()


class Launcher:
    """Listens and forks.

    Args:
        directory: descriptor of the driver's state directory.
        lock: descriptor that holds the lock of the only launcher there.
    """

    def __init__(self, directory: int, lock: int) -> None:
        self._directory = directory
        self._lock = lock
        self._loop = Loop()
        self._listener = control.Listener(self._loop, directory, wire.LAUNCHER_SOCKET, self._serve)

    def run(self) -> None:
        """Serves until told to retire.

        Raises:
            Forked: this is a worker now, and no longer the launcher.
        """
        self._loop.run()

    def _serve(self, connection: Connection, request: Frame) -> None:
        try:
            control.check_version(request)
            answer = self._answer(connection, request)
        except DriverError as error:
            answer = {"ok": False, "event": wire.FAILED, "error": error.to_wire()}
        if answer is not None:
            connection.send(answer)
        connection.close()

    def _answer(self, connection: Connection, request: Frame) -> Frame | None:
        match request.get("op"):
            case wire.HELLO:
                return {"ok": True, "v": wire.VERSION, "release": RELEASE, "pid": os.getpid()}
            case wire.RETIRE:
                # A successor may start as soon as this is answered.
                self._listener.close()
                os.close(self._lock)
                self._loop.stop()
                return {"ok": True}
            case wire.FORK:
                self._fork(connection, request.get("spec"))
                return None
            case other:
                raise DriverError(
                    f"the launcher does not know the request {other!r}", code=Code.UNSUPPORTED
                )

    def _fork(self, connection: Connection, spec: object) -> None:
        """The child keeps the connection and lets go of everything else that is the launcher's."""
        try:
            pid = os.fork()
        except OSError as error:
            raise DriverError(
                "a worker cannot be forked",
                details=error.strerror or str(error),
                resolution="see the launcher's limits of processes and memory",
                recoverable=True,
                code=Code.EXHAUSTED,
            ) from error
        if pid == 0:
            forked = Forked(spec, connection)
            self._loop.close()
            self._listener.abandon()
            os.close(self._lock)
            os.close(self._directory)
            raise forked


def main(argv: list[str]) -> int:
    """The launcher's life, and in a forked process the worker's.

    Returns:
        The exit status: 0 after retiring or when another launcher serves, 2 for bad arguments.
    """
    if len(argv) != 3 or argv[1] != "--state-dir":  # noqa: PLR2004
        sys.stderr.write("usage: launcher.py --state-dir DIR\n")
        return _EXIT_USAGE
    try:
        return _launch(argv[2])
    except OSError as error:
        _say(f"the launcher cannot serve in {argv[2]}: {error}")
        return _EXIT_FAILED


def _launch(state_dir: str) -> int:
    _detach()
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _log_to(directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(wire.LAUNCHER_LOCK, flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"another launcher serves in {state_dir}; this one has nothing to do")
        return 0
    _name("cd-launcher")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    launcher = Launcher(directory, lock)
    # What is here now is shared with every worker as long as nobody writes to it, and a garbage
    # collection writes to the header of every object.
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        launcher.run()
    except Forked as forked:
        born = (forked.spec, forked.sock, forked.decoder)
    else:
        return 0
    return _work(*born)


def _work(spec: object, sock: socket.socket, decoder: Decoder) -> int:
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    _name("cd-worker")
    return task_worker.run(spec, sock, decoder)


def _detach() -> None:
    """Keeps nothing of whoever started this: no working directory, no session, no output."""
    os.chdir("/")
    os.umask(0o077)
    if os.getsid(0) != os.getpid():
        _new_session()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _new_session() -> None:
    try:
        os.setsid()
    except PermissionError:
        return  # a group leader: a shell started us by hand, and its session is as good


def _log_to(directory: int) -> None:
    """From here on stderr, the workers' too, is a file that nobody has to read for us to live."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(wire.LAUNCHER_LOG, flags, 0o600, dir_fd=directory)
    os.dup2(log, 2)
    os.close(log)


def _name(name: str) -> None:
    """What ps -o comm shows; the kernel keeps 15 bytes."""
    with open("/proc/self/comm", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(name)


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} launcher {os.getpid()}: {line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
