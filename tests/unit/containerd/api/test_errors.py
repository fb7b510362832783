"""What ran out, and what to do: errors of the kernel, and containerd's words."""

from __future__ import annotations

import errno
import os

import grpc
import pytest

from containerd.api import rpc, shortage_words
from proto.errors import Code, DriverError
from proto.exhaustion import exhausted, remedy


def told(status: grpc.StatusCode, text: str) -> DriverError:
    """What a call of containerd that ended so is told as."""

    class Failed(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return status

        def details(self) -> str:
            return text

    return rpc.as_driver_error(Failed(), "do it", "/run/c.sock")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "df -i"),
        (errno.EMFILE, "LimitNOFILE"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EAGAIN, "TasksMax"),
        (errno.ENOMEM, "free memory"),
    ],
)
def test_what_ran_out_is_named_with_its_place_and_may_be_there_again(
    number: int, words: str
) -> None:
    error = exhausted("it cannot be done", OSError(number, os.strerror(number), "/some/place"))
    assert error.code is Code.EXHAUSTED
    assert error.recoverable
    assert error.details == f"/some/place: {os.strerror(number)}"
    assert words in error.resolution


def test_another_failure_is_no_shortage() -> None:
    error = PermissionError(errno.EPERM, "Operation not permitted")
    assert remedy(error) == ""
    assert not exhausted("it cannot be done", error).recoverable


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "failed to prepare: mkdir /var/lib/containerd/io.x/new-1: no space left on device",
            "make room where /var/lib/containerd/io.x/new-1 lies: see df and df -i",
        ),
        ("copy failed: write /run/a/data: disk quota exceeded", "make room where /run/a/data lies"),
        ("OCI runtime create failed: write: No space left on device", "make room on containerd's"),
        ("failed to dial: socket: too many open files", "LimitNOFILE"),
        ("pipe2: too many open files in system", "the whole machine has no open file left"),
        ("fork/exec /usr/bin/runc: resource temporarily unavailable: unknown", "TasksMax"),
        ("fork/exec /usr/bin/runc: cannot allocate memory", "free memory"),
    ],
)
def test_what_containerd_lacks_is_told_by_its_words(text: str, advice: str) -> None:
    error = told(grpc.StatusCode.UNKNOWN, text)
    assert (error.code, error.recoverable) == (Code.EXHAUSTED, True)
    assert error.details == text
    assert error.resolution.startswith(advice) or advice in error.resolution


@pytest.mark.parametrize(
    ("lack", "advice"),
    [
        ("Too many open files", "LimitNOFILE"),
        ("Too many open files in system", "fs.file-max"),
        ("Cannot allocate memory", "free memory"),
    ],
)
def test_a_lack_of_our_own_is_no_containerd_that_is_away(lack: str, advice: str) -> None:
    text = f"last error: INTERNAL: unix:/run/c.sock: socket: {lack}\ufffd"
    error = told(grpc.StatusCode.UNAVAILABLE, text)
    assert str(error).startswith(f"containerd at /run/c.sock cannot be asked to do it: {lack}")
    assert error.details == lack
    assert advice in error.resolution


def test_who_may_not_open_the_socket_is_not_told_to_start_containerd() -> None:
    text = "failed to connect; last error: UNKNOWN: unix:/run/c.sock: "
    error = told(grpc.StatusCode.UNAVAILABLE, f"{text}Permission denied")
    assert error.resolution == "the socket is root's: run it with sudo"
    error = told(grpc.StatusCode.UNAVAILABLE, f"{text}No such file or directory")
    assert error.resolution.startswith("start it (systemctl start containerd)")


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
    assert error.resolution == "name a program that the image has and its user may run"
    missing = told(grpc.StatusCode.UNKNOWN, 'exec: "runc": executable file not found in $PATH')
    assert missing.resolution == ""


def test_no_other_words_are_taken_for_a_shortage() -> None:
    assert shortage_words.advice("exec: no such file or directory") == ""
