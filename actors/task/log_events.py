"""Texts of the task events about a log whose reader has stopped or reads again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers import protocol

if TYPE_CHECKING:
    from workers.protocol import LogState

_ADVICE = "restart the Nomad agent to start logmon again"


def sentence(state: LogState) -> str:
    """Returns the text of a task event; empty for a state that only a newer worker knows."""
    if state.problem:
        return _unwritten(state)
    match state.state:
        case protocol.STALLED:
            return (
                f"Log reader stalled: nobody reads {state.stream}; {_size(state.kept)} wait for a"
                f" reader, the limit is {_limit(state)}; {_ADVICE}"
            )
        case protocol.DROPPING:
            return (
                f"Nobody reads {state.stream}, and {_limit(state)} are full: its oldest lines are"
                f" dropped until a reader returns; {_ADVICE}"
            )
        case protocol.BLOCKED:
            return (
                f"Nobody reads {state.stream}, and {_limit(state)} are full: the task waits in its"
                f" next write (log_buffer.when_full); {_ADVICE}"
            )
        case protocol.READING if state.dropped:
            return f"{state.stream} is read again; {state.dropped} bytes were dropped"
        case protocol.READING:
            return f"{state.stream} is read again; no bytes were lost"
        case _:
            return ""


def _unwritten(state: LogState) -> str:
    """Returns the text about a log that the worker itself cannot write."""
    cannot = f"{state.stream} cannot be written to the allocation's log: {state.problem};"
    match state.state:
        case protocol.STALLED:
            return f"{cannot} {_size(state.kept)} wait in memory, the limit is {_limit(state)}"
        case protocol.DROPPING:
            return f"{cannot} {_limit(state)} are full, and the oldest lines are dropped"
        case protocol.BLOCKED:
            return (
                f"{cannot} {_limit(state)} are full, and the task waits in its next write"
                " (log_buffer.when_full)"
            )
        case protocol.READING if state.dropped:
            return f"{state.stream} is written again; {state.dropped} bytes were dropped"
        case protocol.READING:
            return f"{state.stream} is written again; no bytes were lost"
        case _:
            return ""


def _limit(state: LogState) -> str:
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
