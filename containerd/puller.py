"""Program of the puller: a process that fetches one image into containerd and ends.

The end of the process gives back all memory of TLS and JSON. The plugin's death ends the puller
too: stdin closes then. Request and events are frames of `containerd.pull.protocol` on stdin
and stdout; the process has no log, so steps and failures are events.

With the argument `serve` the program is the pull server: stdin is the plugin's socket, and a forked
puller serves each pull. Without arguments the program serves one pull, as plugins of earlier
releases expect: an upgrade replaces this file under a running plugin.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    # Started by path with -I: the packages lie beside the directory of this file.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from containerd.pull.protocol import PullRequest
from containerd.pull.pull import Pull
from containerd.pull.pull_server import PullServer
from containerd.pull.reporter import Reporter, emit
from containerd.watchdog import Watchdog
from proto import frames
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted

# Sockets have the limit itself: a silent mirror fails first, and the next mirror gets its turn.
_WATCHDOG_LATER_S = 2.0
_IDLE_S = 60.0


def _read_request() -> PullRequest:
    decoder = frames.Decoder()
    while data := os.read(0, 65536):
        for frame in decoder.feed(data):
            return PullRequest.from_wire(frame)
    raise DriverError("the puller got no request", code=Code.INVALID)


def _end_with_stdin() -> None:
    """Ends the process when stdin ends: the plugin is dead, or has cancelled the pull.

    No later pull continues the ingests that remain; containerd drops them with the lease.
    """
    while os.read(0, 4096):
        pass
    os._exit(1)


def _fail_now(error: DriverError) -> None:
    """Reports the failure and ends the process, whose threads block for good."""
    emit({"event": "failed", "error": error.to_wire()})
    os._exit(1)


def serve() -> None:
    """Serves the plugin on stdin, until the plugin leaves or a minute passes without a pull."""
    _set_name("cd-pull-server")
    # A collection would write to the pages that all pullers share.
    gc.collect()
    gc.freeze()
    PullServer(socket.socket(fileno=0), pull, _IDLE_S).serve()


def _set_name(name: str) -> None:
    """Sets the name of this process in `ps -o comm`; the kernel keeps 15 bytes."""
    Path("/proc/self/comm").write_text(name)


def pull() -> int:
    """Serves the one request on stdin, and returns the exit status."""
    try:
        _set_name("cd-puller")
        request = _read_request()
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        reporter = Reporter()
        limit_s = request.silence_s + _WATCHDOG_LATER_S
        Watchdog(limit_s, request.timeout_s, reporter.waiting, _fail_now).start()
        emit(Pull(request, reporter).run().to_wire())
    except DriverError as error:
        emit({"event": "failed", "error": error.to_wire()})
        return 1
    except BrokenPipeError:
        return 1
    except RuntimeError as error:
        emit({"event": "failed", "error": _thread_error(error).to_wire()})
        return 1
    except Exception as error:  # noqa: BLE001 - a defect must reach the task's events as text
        emit({"event": "failed", "error": _internal(error).to_wire()})
        return 1
    return 0


def _thread_error(error: RuntimeError) -> DriverError:
    if "new thread" not in str(error):
        return _internal(error)
    return exhausted("the puller cannot run", OSError(errno.EAGAIN, str(error)))


def _internal(error: Exception) -> DriverError:
    return DriverError(
        "internal error of the puller",
        details=f"{type(error).__name__}: {error}"[:500],
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
        sys.exit()
    status = pull()
    # Does not wait for threads of cancelled downloads.
    os._exit(status)
