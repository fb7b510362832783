"""Table of a task's phases and events. No I/O; an event that a phase does not allow raises."""

from __future__ import annotations

from enum import Enum, auto

from proto.errors import Code, DriverError


class Phase(Enum):
    """Phase of a task in this plugin. containerd's status and Nomad's state are other words."""

    STARTING = auto()
    RECOVERING = auto()
    RUNNING = auto()
    STOPPING = auto()
    EXITED = auto()
    ABORTING = auto()  # a stop or a destroy came during the start
    DESTROYING = auto()
    GONE = auto()


class Event(Enum):
    """Events that change a task's phase."""

    STARTED = auto()
    START_FAILED = auto()
    NOT_RECOVERED = auto()
    EXITED = auto()
    STOP = auto()
    DESTROY = auto()
    DESTROYED = auto()
    DESTROY_FAILED = auto()


_NEXT: dict[Phase, dict[Event, Phase]] = {
    Phase.STARTING: {
        Event.STARTED: Phase.RUNNING,
        Event.START_FAILED: Phase.GONE,
        Event.STOP: Phase.ABORTING,
        Event.DESTROY: Phase.ABORTING,
    },
    Phase.RECOVERING: {
        Event.STARTED: Phase.RUNNING,
        Event.NOT_RECOVERED: Phase.GONE,
        Event.STOP: Phase.ABORTING,
        Event.DESTROY: Phase.ABORTING,
    },
    Phase.RUNNING: {
        Event.EXITED: Phase.EXITED,
        Event.STOP: Phase.STOPPING,
        Event.DESTROY: Phase.DESTROYING,
    },
    Phase.STOPPING: {
        Event.EXITED: Phase.EXITED,
        Event.STOP: Phase.STOPPING,
        Event.DESTROY: Phase.DESTROYING,
    },
    Phase.EXITED: {
        Event.EXITED: Phase.EXITED,
        Event.STOP: Phase.EXITED,
        Event.DESTROY: Phase.DESTROYING,
    },
    Phase.ABORTING: {
        Event.STARTED: Phase.DESTROYING,
        Event.START_FAILED: Phase.GONE,
        # A failed start has undone every step. A task that could not be recovered still exists.
        Event.NOT_RECOVERED: Phase.DESTROYING,
        Event.STOP: Phase.ABORTING,
        Event.DESTROY: Phase.ABORTING,
    },
    Phase.DESTROYING: {
        Event.EXITED: Phase.DESTROYING,
        Event.STOP: Phase.DESTROYING,
        Event.DESTROY: Phase.DESTROYING,
        Event.DESTROYED: Phase.GONE,
        Event.DESTROY_FAILED: Phase.EXITED,
    },
    Phase.GONE: {},
}

ALIVE = frozenset({Phase.RUNNING, Phase.STOPPING})
"""Phases in which signals, exec and stats reach a process."""


def advance(phase: Phase, event: Event) -> Phase:
    """Returns the phase after `event`.

    Raises:
        DriverError: code PRECONDITION; the phase does not allow the event.
    """
    following = _NEXT[phase].get(event)
    if following is None:
        raise DriverError(
            f"a task that is {phase.name.lower()} cannot take {event.name.lower()}",
            code=Code.PRECONDITION,
        )
    return following
