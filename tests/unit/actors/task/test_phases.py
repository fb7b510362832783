"""The table of a task's life: every phase with every event."""

from __future__ import annotations

import itertools

import pytest

from actors.task import phases
from actors.task.phases import ALIVE, Event, Phase
from proto.errors import Code, DriverError
from tests import states

# Events which each phase refuses; every other event leads to a phase.
REFUSED = {
    Phase.STARTING: {Event.EXITED, Event.NOT_RECOVERED, Event.DESTROYED, Event.DESTROY_FAILED},
    Phase.RECOVERING: {Event.EXITED, Event.START_FAILED, Event.DESTROYED, Event.DESTROY_FAILED},
    Phase.RUNNING: set(Event) - {Event.EXITED, Event.STOP, Event.DESTROY},
    Phase.STOPPING: set(Event) - {Event.EXITED, Event.STOP, Event.DESTROY},
    Phase.EXITED: set(Event) - {Event.EXITED, Event.STOP, Event.DESTROY},
    Phase.ABORTING: {Event.EXITED, Event.DESTROYED, Event.DESTROY_FAILED},
    Phase.DESTROYING: {Event.STARTED, Event.START_FAILED, Event.NOT_RECOVERED},
    Phase.GONE: set(Event),
}


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
def test_every_phase_takes_an_event_or_refuses_it_in_words(phase: Phase, event: Event) -> None:
    if event not in REFUSED[phase]:
        assert isinstance(phases.advance(phase, event), Phase)
        return
    with pytest.raises(DriverError, match=f"a task that is {phase.name.lower()}") as refused:
        phases.advance(phase, event)
    assert refused.value.code is Code.PRECONDITION


def test_a_task_that_is_told_to_go_while_it_starts_does_not_run_afterwards() -> None:
    for early in (Phase.STARTING, Phase.RECOVERING):
        for word in (Event.STOP, Event.DESTROY):
            told = phases.advance(early, word)
            assert phases.advance(told, Event.STARTED) is Phase.DESTROYING
    assert phases.advance(Phase.ABORTING, Event.START_FAILED) is Phase.GONE
    assert phases.advance(Phase.ABORTING, Event.NOT_RECOVERED) is Phase.DESTROYING


def test_every_phase_leads_to_the_end() -> None:
    for phase in set(Phase) - {Phase.GONE}:
        reached: set[Phase] = {phase}
        before: set[Phase] = set()
        while reached != before:
            before = set(reached)
            reached |= {
                phases.advance(one, event) for one in before for event in set(Event) - REFUSED[one]
            }
        assert Phase.GONE in reached


def test_signals_reach_only_what_runs() -> None:
    assert {Phase.RUNNING, Phase.STOPPING} == ALIVE


def test_the_drawing_in_architecture_shows_the_table() -> None:
    assert states.diagram() in states.DOCUMENT.read_text(), "run ./dev states"


def test_the_drawing_has_every_arrow_that_the_table_has() -> None:
    drawing = states.diagram()
    for phase, event in itertools.product(Phase, Event):
        if event not in REFUSED[phase]:
            following = phases.advance(phase, event).name.lower()
            arrow = next(
                line
                for line in drawing.splitlines()
                if f" {phase.name.lower()} --> {following}:" in line
            )
            assert event.name.lower() in arrow.partition(": ")[2].split(", ")
    assert drawing.count(" --> ") == len(states.arrows()) + 3


def test_a_document_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        states.drawn("# Nothing\n")
    old = f"before\n{states.BEGIN}old\n{states.END}after\n"
    assert states.drawn(old) == f"before\n{states.diagram()}after\n"
