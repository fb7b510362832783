"""Opens the two streams of a task's log, as the worker's spec wants."""

from __future__ import annotations

from workers import protocol
from workers.logs.collector import Collector, open_own_fifo
from workers.logs.journal import Journal
from workers.logs.keeper import Keeper
from workers.logs.log_files import LogFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.logs.buffer import LogBuffer
    from workers.loop import Loop
    from workers.protocol import WorkerSpec

    Stream = Keeper | Collector

_NO_LOG = {"", "/dev/null"}


def open_streams(
    loop: Loop,
    spec: WorkerSpec,
    directory: int,
    on_hang_up: Callable[[], None],
    on_stall: Callable[[str, LogBuffer], None],
) -> list[Stream]:
    """Opens the streams that have a log.

    Args:
        loop: the worker's loop.
        spec: spec of the worker.
        directory: descriptor of the task's state directory.
        on_hang_up: see `Keeper`.
        on_stall: see `Keeper`.

    Raises:
        DriverError: a FIFO or the directory of the logs cannot be opened.
    """
    streams: list[Stream] = []
    names = iter((protocol.STDOUT_FIFO, protocol.STDERR_FIFO))
    for path in (spec.stdout, spec.stderr):
        name = next(names)
        if path in _NO_LOG or (streams and path == streams[0].path):
            continue
        if not spec.log_type:
            streams.append(Keeper(loop, path, spec, on_hang_up, on_stall))
            continue
        sink = _sink(spec, path)
        fifo = open_own_fifo(directory, name)
        streams.append(Collector(loop, fifo, spec, sink, on_hang_up, on_stall))
    return streams


def _sink(spec: WorkerSpec, path: str) -> LogFiles | Journal:
    if spec.log_type == protocol.JOURNALD:
        priority = b"PRIORITY=6\n" if path == spec.stdout else b"PRIORITY=3\n"  # info, err
        return Journal(path, spec.journal, spec.journal_fields.encode() + priority)
    return LogFiles(path, spec.log_files, spec.log_file_bytes)
