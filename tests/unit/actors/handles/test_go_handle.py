"""Handles of the Go driver, byte for byte."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.handles.go_handle import GoHandle
from proto.errors import Code, DriverError
from tests.support.plugin.go_task import go_handle

ALLOC = "22c500fc-aa74-4d11-b52c-26ca85af328c"
LOGS = f"/var/tmp/nomad/allocs/{ALLOC}/alloc/logs"
WRITTEN = (  # by releases 0.9.3 and 0.9.4, for a task "web"
    b"\x84\xadContainerName\xda\x00(web-" + ALLOC.encode() + b"\xa9StartedAt\xaf\x01\x00\x00"
    b"\x00\x0e\xe2\x99U\xb96\x1e\xfb\x00\x00\x00\xaaStderrPath\xda\x00V"
    + f"{LOGS}/.web.stderr.fifo".encode()
    + b"\xaaStdoutPath\xda\x00V"
    + f"{LOGS}/.web.stdout.fifo".encode()
)
WEB = GoHandle(
    container_id=f"web-{ALLOC}",
    started_at_ns=1_795_645_113_908_000_000,
    stdout_path=f"{LOGS}/.web.stdout.fifo",
    stderr_path=f"{LOGS}/.web.stderr.fifo",
)
FIELDS: dict[bytes, object] = msgpack.unpackb(WRITTEN, raw=True)


def changed(**fields: object) -> bytes:
    """Encodes the handle with other values; None leaves a field out."""
    values = FIELDS | {name.encode(): value for name, value in fields.items()}
    kept = {name: value for name, value in values.items() if value is not None}
    packed = msgpack.packb(kept, use_bin_type=False)
    assert isinstance(packed, bytes)
    return packed


def test_what_the_go_driver_wrote_is_read() -> None:
    assert GoHandle.decode(WRITTEN) == WEB


def test_the_tests_write_what_the_go_driver_writes() -> None:
    assert (
        go_handle(WEB.container_id, WEB.stdout_path, WEB.stderr_path, WEB.started_at_ns) == WRITTEN
    )


def test_its_containers_are_where_its_releases_put_them() -> None:
    assert WEB.containerd_namespace == "nomad"
    on_v2 = GoHandle.decode(changed(ContainerName=f"{ALLOC}.web.scope"))
    assert on_v2.containerd_namespace == "nomad.slice"


def test_logs_that_a_job_turned_off_are_fine() -> None:
    assert GoHandle.decode(changed(StdoutPath="/dev/null")).stdout_path == "/dev/null"


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert GoHandle.decode(changed(Colour="red")) == WEB


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WRITTEN[:-1],
        WRITTEN + b"\0",
        b"\xc0",
        b"\x90",
        b"\x93\x01\x02\x03",
        b"\x81\x90\x01",
        b"\xc1",
        b"\x91" * 5000,
        *(changed(**{name.decode(): None}) for name in FIELDS),
        *(changed(**{name.decode(): 5}) for name in FIELDS),
        *(changed(**{name.decode(): ["a"]}) for name in FIELDS),
        *(changed(**{name.decode(): b"\xff\xfe"}) for name in FIELDS),
        *(changed(**{name.decode(): msgpack.Timestamp(1)}) for name in FIELDS),
        changed(StartedAt=b"\x02" + bytes(14)),
        changed(StartedAt=b"\x01" + bytes(13)),
        *(changed(ContainerName=name) for name in ("", "..", "a/b", "/etc", "a\nb", "a" * 77)),
        *(changed(StdoutPath=path) for path in ("", "logs/a", "/a\0b", "/" + "a" * 5000)),
    ],
)
def test_a_handle_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(DriverError, match="failed to decode task state from handle") as caught:
        GoHandle.decode(data)
    assert caught.value.code is Code.CORRUPT
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_fail(data: bytes) -> None:
    with pytest.raises(DriverError):
        GoHandle.decode(data)


@given(st.integers(0, len(WRITTEN) - 1), st.integers(0, 255))
def test_a_flipped_byte_gives_a_handle_or_a_refusal(at: int, value: int) -> None:
    data = WRITTEN[:at] + bytes([value]) + WRITTEN[at + 1 :]
    with contextlib.suppress(DriverError):  # and no other error
        assert "/" not in GoHandle.decode(data).container_id
