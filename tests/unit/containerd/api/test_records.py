"""containerd's objects as records."""

from __future__ import annotations

from containerd.api.records import Status
from workers.shim.ttrpc import STATUSES


def test_workers_and_client_know_the_same_states_of_a_task() -> None:
    assert [status.name.lower() for status in Status] == list(STATUSES)
    assert [status.value for status in Status] == list(range(len(STATUSES)))
