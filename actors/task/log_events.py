"""What the user reads of a log that nobody reads, and of one that is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers import protocol

if TYPE_CHECKING:
    from workers.protocol import LogState

_REMEDY = "restart the Nomad agent, so that logmon is started again"


def sentence(state: LogState) -> str:
    """One event of the task; nothing for a state that only a newer worker knows."""
    match state.state:
        case protocol.STALLED:
            return (
                f"Log reader stalled: nobody reads {state.stream}; {_size(state.kept)} wait for a"
                f" reader, {_room(state)} may; {_REMEDY}"
            )
        case protocol.DROPPING:
            return (
                f"Nobody reads {state.stream}, and {_room(state)} are full: its oldest lines are"
                f" dropped until somebody does; {_REMEDY}"
            )
        case protocol.BLOCKED:
            return (
                f"Nobody reads {state.stream}, and {_room(state)} are full: the task waits where it"
                f" writes (log_buffer.when_full); {_REMEDY}"
            )
        case protocol.READING if state.dropped:
            return f"{state.stream} is read again; {state.dropped} bytes of it were dropped"
        case protocol.READING:
            return f"{state.stream} is read again; nothing of it was lost"
        case _:
            return ""


def _room(state: LogState) -> str:
    if state.limit >= state.wanted:
        return _size(state.limit)
    return (
        f"{_size(state.limit)} (the kernel gives no more of {_size(state.wanted)}: the launcher"
        " lacks CAP_SYS_RESOURCE, or see /proc/sys/fs/pipe-max-size)"
    )


def _size(count: int) -> str:
    for unit, power in (("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.4g} {unit}"
    return f"{count} bytes"
