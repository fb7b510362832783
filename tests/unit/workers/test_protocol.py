"""Records and versions of the protocol of plugin, launcher and workers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto import frames
from proto.errors import Code, DriverError
from workers.protocol import ExitRecord, Record, Sample, ShimTarget, WorkerSpec

SPEC: dict[str, Any] = {
    "name": "web-1",
    "dir": "/run/x",
    "stdout": "/logs/out",
    "stderr": "",
    "stdout_source": "",
    "stderr_source": "",
}


@given(st.integers(0, 255), st.integers(0, 2**63 - 1), st.booleans(), st.text())
def test_a_record_survives_the_wire(code: int, at_ns: int, lost: bool, reason: str) -> None:
    record = ExitRecord(code=code, at_ns=at_ns, lost=lost, reason=reason)
    (frame,) = frames.Decoder().feed(frames.encode(record.to_wire()))
    assert ExitRecord.from_wire(frame) == record


def test_defaults_replace_missing_fields() -> None:
    record = ExitRecord.from_wire({"code": 1, "at_ns": 2})
    assert (record.oom_kills, record.lost, record.reason) == (0, False, "")
    assert Sample(t_ns=1).usage is None


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (WorkerSpec, {"name": "a"}),
        (WorkerSpec, {**SPEC, "dir": b"/run/x"}),
        (WorkerSpec, {**SPEC, "stdout": None}),
        (ShimTarget, {"address": "a", "api": "2", "namespace": "n", "container_id": "c"}),
        (ExitRecord, {"code": 1.0, "at_ns": 1}),
        (ExitRecord, {"code": 1, "at_ns": 1, "lost": 1}),
        (Sample, {"t_ns": None}),
    ],
)
def test_a_missing_or_wrong_field_is_refused_by_name(
    kind: type[Record], fields: dict[str, object]
) -> None:
    with pytest.raises(DriverError, match="is not") as caught:
        kind.from_wire(fields)
    assert caught.value.code is Code.CORRUPT


def test_fields_of_a_newer_peer_are_ignored() -> None:
    assert WorkerSpec.from_wire({**SPEC, "colour": "red"}) == WorkerSpec.from_wire(SPEC)


def test_a_peer_of_release_1_0_0_is_understood_and_understands() -> None:
    first = {"name": "t", "dir": "/d", "stdout": "/d/out", "stderr": "/d/err"}
    now = WorkerSpec.from_wire(first)
    assert (now.log_buffer_bytes, now.log_drops) == (16 << 20, True)
    assert {key: now.to_wire()[key] for key in first} == first


def test_a_spec_of_an_older_plugin_relays_nothing() -> None:
    older = {name: value for name, value in SPEC.items() if not name.endswith("_source")}
    now = WorkerSpec.from_wire(older)
    assert (now.stdout_source, now.stderr_source) == ("", "")


def test_a_record_is_made_of_its_own_fields_only() -> None:
    with pytest.raises(TypeError, match="colour"):
        WorkerSpec(**{**SPEC, "colour": "red"})
    with pytest.raises(TypeError, match="dir"):
        WorkerSpec(name="a")  # type: ignore[call-arg]


def test_a_record_does_not_change() -> None:
    spec = WorkerSpec(name="a", dir="/b")
    with pytest.raises(AttributeError):
        spec.name = "c"  # type: ignore[misc]


def test_records_are_equal_by_value_and_kind() -> None:
    assert WorkerSpec(name="a", dir="/b") == WorkerSpec(name="a", dir="/b")
    assert WorkerSpec(name="a", dir="/b") != WorkerSpec(name="a", dir="/c")
    assert len({WorkerSpec(name="a", dir="/b"), WorkerSpec(name="a", dir="/b")}) == 1
    assert "name='a'" in repr(WorkerSpec(name="a", dir="/b"))
