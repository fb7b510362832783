"""ttrpc as bytes, checked against protobuf's own encoding."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.containerd import tasks_pb2
from proto.errors import Code, DriverError
from workers.shim import ttrpc


def framed(stream: int, body: bytes, kind: int = 2) -> bytes:
    return struct.pack(">IIBB", len(body), stream, kind, 0) + body


@given(st.text(min_size=1), st.integers(1, 64), st.booleans())
def test_a_kill_request_is_what_protobuf_would_write(
    name: str,
    number: int,
    everyone: bool,
) -> None:
    # containerd's own KillRequest has the same fields as the shim's.
    expected = tasks_pb2.KillRequest(container_id=name, signal=number, all=everyone)
    assert ttrpc.kill_request(name, number, everyone=everyone) == expected.SerializeToString()


@given(
    st.dictionaries(
        st.integers(1, 2000), st.one_of(st.integers(1, 2**64 - 1), st.binary(min_size=1))
    )
)
def test_a_message_is_read_back_as_it_was_written(fields: dict[int, int | str | bytes]) -> None:
    assert ttrpc.parse(ttrpc.message(fields)) == fields


def test_zero_and_empty_fields_are_left_out() -> None:
    assert ttrpc.message({1: 0, 2: "", 3: b""}) == b""


def test_a_wait_answer_has_status_and_time_in_ns() -> None:
    moment = ttrpc.message({1: 1_700_000_000, 2: 5})
    payload = ttrpc.message({1: 137, 2: moment})
    assert ttrpc.wait_answer(payload) == (137, 1_700_000_000_000_000_005)


def test_an_exit_status_of_zero_is_an_empty_message() -> None:
    assert ttrpc.wait_answer(b"") == (0, 0)


def test_a_state_answer_has_pid_and_status() -> None:
    assert ttrpc.state_answer(ttrpc.message({1: "id", 3: 42, 4: 2})) == (42, "running")


def test_a_status_of_a_newer_shim_is_unknown() -> None:
    assert ttrpc.state_answer(ttrpc.message({3: 42, 4: 99})) == (42, "unknown")


def test_a_request_is_framed_with_ten_bytes_and_tells_the_namespace() -> None:
    envelope = ttrpc.request("service", "Method", b"payload", "nomad", 7)
    frame = ttrpc.frame(3, envelope)
    assert struct.unpack(">IIBB", frame[:10]) == (len(envelope), 3, 1, 0)
    fields = ttrpc.parse(frame[10:])
    assert (fields[1], fields[2], fields[3], fields[4]) == (b"service", b"Method", b"payload", 7)
    pair = ttrpc.parse(ttrpc.octets(fields, 5))
    assert pair == {1: b"containerd-namespace-ttrpc", 2: b"nomad"}


def test_a_refusal_becomes_an_error_with_its_code_and_text() -> None:
    status = ttrpc.message({1: 5, 2: "process already finished"})
    payload, error = ttrpc.response(ttrpc.message({1: status}))
    assert payload == b""
    assert error is not None
    assert error.code is Code.NOT_FOUND
    assert "process already finished" in str(error)


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 7))
def test_responses_are_found_however_the_bytes_arrive(bodies: list[bytes], step: int) -> None:
    stream = b"".join(framed(2 * at + 1, body) for at, body in enumerate(bodies))
    decoder = ttrpc.Decoder()
    found: list[tuple[int, bytes]] = []
    for at in range(0, len(stream), step):
        found.extend(decoder.feed(stream[at : at + step]))
    assert found == [(2 * at + 1, body) for at, body in enumerate(bodies)]


def test_frames_that_are_no_responses_are_ignored() -> None:
    decoder = ttrpc.Decoder()
    assert list(decoder.feed(framed(1, b"x", kind=3) + framed(3, b"y"))) == [(3, b"y")]


def test_a_frame_over_the_limit_ends_the_connection() -> None:
    with pytest.raises(DriverError, match="malformed ttrpc"):
        list(ttrpc.Decoder().feed(b"\xff" * 10))


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_but_never_crashes(data: bytes) -> None:
    for read in (ttrpc.response, ttrpc.wait_answer, ttrpc.state_answer):
        with contextlib.suppress(DriverError):
            read(data)
