"""Errors of containerd calls: codes, advice for exhausted resources, and the log line."""

from __future__ import annotations

import logging

import grpc
import pytest

from containerd.api.errors import (
    as_driver_error,
    driver_errors,
    exhaustion_advice,
    unless_silent,
)
from proto.errors import Code, DriverError


class Failed(grpc.RpcError):
    """gRPC's error of a call."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        self._status = status
        self._text = text

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._text


def told(status: grpc.StatusCode, text: str) -> DriverError:
    """Returns the DriverError of a failed call."""
    return as_driver_error(Failed(status, text), "do it", "/run/c.sock")


@pytest.mark.parametrize(
    ("text", "resolution"),
    [
        (
            "failed to prepare: mkdir /var/lib/containerd/io.x/new-1: no space left on device",
            "make room on the disk of /var/lib/containerd/io.x/new-1: see df and df -i",
        ),
        (
            "copy failed: write /run/a/data: disk quota exceeded",
            "make room on the disk of /run/a/data",
        ),
        ("OCI runtime create failed: write: No space left on device", "make room on containerd's"),
        ("failed to dial: socket: too many open files", "LimitNOFILE"),
        ("pipe2: too many open files in system", "the whole machine has no open file left"),
        ("fork/exec /usr/bin/runc: resource temporarily unavailable: unknown", "TasksMax"),
        ("fork/exec /usr/bin/runc: cannot allocate memory", "free memory"),
    ],
)
def test_what_containerd_lacks_is_told_by_its_words(text: str, resolution: str) -> None:
    error = told(grpc.StatusCode.UNKNOWN, text)
    assert (error.code, error.recoverable) == (Code.EXHAUSTED, True)
    assert error.details == text
    assert resolution in error.resolution


@pytest.mark.parametrize(
    ("lack", "resolution"),
    [
        ("Too many open files", "LimitNOFILE"),
        ("Too many open files in system", "fs.file-max"),
        ("Cannot allocate memory", "free memory"),
    ],
)
def test_a_lack_of_our_own_is_no_containerd_that_is_away(lack: str, resolution: str) -> None:
    text = f"last error: INTERNAL: unix:/run/c.sock: socket: {lack}\ufffd"
    error = told(grpc.StatusCode.UNAVAILABLE, text)
    assert str(error).startswith(
        f"the driver cannot ask containerd at /run/c.sock to do it: {lack}"
    )
    assert error.details == lack
    assert resolution in error.resolution


def test_who_may_not_open_the_socket_is_not_told_to_start_containerd() -> None:
    text = "failed to connect; last error: UNKNOWN: unix:/run/c.sock: "
    error = told(grpc.StatusCode.UNAVAILABLE, f"{text}Permission denied")
    assert error.resolution == "only root can connect to the socket: run the command with sudo"
    error = told(grpc.StatusCode.UNAVAILABLE, f"{text}No such file or directory")
    assert error.resolution.startswith("start containerd (systemctl start containerd)")


@pytest.mark.parametrize(
    "text",
    [
        'runc create failed: unable to start container process: exec: "/x": stat /x: no such file',
        'starting container process caused: exec: "x": executable file not found in $PATH: unknown',
        "OCI runtime create failed: executable file `x` not found in $PATH: No such file",
    ],
)
def test_a_program_that_the_image_lacks_is_the_jobs_to_correct(text: str) -> None:
    error = told(grpc.StatusCode.UNKNOWN, text)
    assert error.resolution == "name a program that the image has and that its user may run"
    missing = told(grpc.StatusCode.UNKNOWN, 'exec: "runc": executable file not found in $PATH')
    assert missing.resolution == ""


def test_no_other_words_are_taken_for_a_shortage() -> None:
    assert exhaustion_advice("exec: no such file or directory") == ""


def test_a_failed_call_is_one_debug_line_without_the_text_of_a_runtime(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "containerd.api.errors")
    text = "runc: exec --token=hunter2 failed"
    with (
        pytest.raises(DriverError, match="containerd cannot create task x: runc: exec"),
        driver_errors("/containerd.services.tasks.v1.Tasks/Create", "create task x", "/run/c.sock"),
    ):
        raise Failed(grpc.StatusCode.UNAVAILABLE, f"{text}: unavailable")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.DEBUG, "containerd call failed")
    fields = vars(record)
    assert fields["method"] == "/containerd.services.tasks.v1.Tasks/Create"
    assert fields["code"] == "unavailable"
    assert type(fields["elapsed_ms"]) is int
    assert "hunter2" not in str(fields)


def test_a_call_that_succeeds_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "containerd.api.errors")
    with driver_errors("/x", "do it", "/run/c.sock"):
        pass
    assert caplog.records == []


async def failing(status: grpc.StatusCode, text: str) -> str:
    """Fails as a call of containerd does."""
    with driver_errors("/x/Get", "look up the task of container x", "/run/c.sock"):
        raise Failed(status, text)


async def test_a_containerd_that_waited_in_vain_is_no_silent_containerd() -> None:
    vain = grpc.StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded"
    assert await unless_silent(failing(*vain), "unknown") == "unknown"
    error = told(*vain)
    assert (error.code, error.recoverable) == (Code.TIMEOUT, True)
    assert "accepted the request and did not answer" not in str(error)
    with pytest.raises(DriverError, match="accepted the request and did not answer in time"):
        await unless_silent(failing(vain[0], "Deadline Exceeded"), "unknown")
    with pytest.raises(DriverError, match="no such"):
        await unless_silent(failing(grpc.StatusCode.NOT_FOUND, "no such"), "unknown")
