"""Messages of runtimes about a command that cannot run, and the error for the user."""

from __future__ import annotations

import pytest

from actors.exec import errors
from plugin.rpc.grpc_status import _for_a_close_frame
from proto.errors import Code, DriverError

ROOM = 123 - len("rpc error: code = Unknown desc = ")
RUNC = "OCI runtime exec failed: exec failed: unable to start container process: "
CRUN = "OCI runtime exec failed: "
RUNSC = (
    "OCI runtime exec failed: executing processes for container: executing command"
    ' "/no/such/program token=secret" in sandbox: '
)
LONG = "/opt/" + "deep/" * 60 + "program"


def failure(details: str) -> DriverError:
    brief = "containerd cannot run a command in container t-186e72f4-d16c-4480-8073-3fa01becde91"
    return DriverError(brief, details=details, resolution="name a program that the image has")


@pytest.mark.parametrize(
    ("program", "details", "text"),
    [
        (
            "/no/such/program",
            RUNC + 'exec: "/no/such/program": stat /no/such/program: no such file or directory',
            "cannot run /no/such/program: no such file or directory",
        ),
        (
            "tool",
            RUNC + 'exec: "tool": executable file not found in $PATH: unknown',
            "cannot run tool: executable file not found in $PATH",
        ),
        ("/x", RUNC + 'exec: "/x": permission denied: unknown', "cannot run /x: permission denied"),
        ("/x", RUNC + 'exec: "/x": is a directory: unknown', "cannot run /x: is a directory"),
        (
            "/x",
            CRUN + "executable file `/x` not found in $PATH: No such file or directory: unknown",
            "cannot run /x: no such file or directory",
        ),
        (
            "tool",
            CRUN + "executable file `tool` not found in $PATH: No such file or directory: unknown",
            "cannot run tool: executable file not found in $PATH",
        ),
        ("/x", CRUN + "open executable: Permission denied: unknown", "cannot run /x: permission"),
        (
            "/no/such/program",
            RUNSC + "failed to load /no/such/program: no such file or directory: unknown",
            "cannot run /no/such/program: no such file or directory",
        ),
        (
            "tool",
            RUNSC + 'error finding executable "tool" in PATH [/usr/bin /bin]: no such file or'
            " directory: unknown",
            "cannot run tool: executable file not found in $PATH",
        ),
        (
            "/x",
            RUNSC + "failed to load /x: exec format error: unknown",
            "cannot run /x: exec format error",
        ),
        (
            "/srv/permission denied",
            RUNC + 'exec: "/srv/permission denied": stat /srv/permission denied: no such file or'
            " directory: unknown",
            "cannot run /srv/permission denied: no such file or directory",
        ),
        (
            "/x",
            "cannot exec in a paused state: unknown",
            "the task is paused: no command can be run until it is resumed",
        ),
        (
            LONG,
            RUNC + f'exec: "{LONG}": stat {LONG}: no such file or directory: unknown',
            "deep/program: no such file or directory",
        ),
    ],
)
def test_an_error_is_the_program_and_the_cause(program: str, details: str, text: str) -> None:
    short = errors.in_few_words(failure(details), [program, "token=secret"], "/")
    assert text in str(short)
    assert len(str(short).encode()) <= ROOM


@pytest.mark.parametrize(
    "details",
    [
        RUNC + 'chdir to cwd ("/w/d") set in config.json failed: no such file or directory',
        CRUN + "chdir `/w/d`: No such file or directory: unknown",
        RUNSC + 'failed to find initial working directory "/w/d": no such file or directory',
    ],
)
def test_a_directory_that_is_gone_is_seen_on_each_runtime(details: str) -> None:
    assert errors.directory_is_gone(failure(details))
    short = errors.in_few_words(failure(details), ["echo"], "/w/d")
    assert str(short) == "working directory /w/d: no such file or directory"


def test_a_directory_that_the_user_may_not_enter_is_not_gone() -> None:
    denied = failure(RUNC + 'chdir to cwd ("/root") set in config.json failed: permission denied')
    assert not errors.directory_is_gone(denied)
    short = errors.in_few_words(denied, ["echo"], "/root")
    assert str(short) == "working directory /root: permission denied"


def test_an_unknown_cause_stays_without_the_commands_arguments() -> None:
    unknown = errors.in_few_words(
        failure(RUNSC + "the moon is full"), ["/no/such/program", "token=secret"], "/"
    )
    assert "the moon is full" in str(unknown)
    assert "secret" not in str(unknown)


def test_an_unknown_cause_is_cut_in_the_middle_for_nomads_close_frame() -> None:
    cut = str(_for_a_close_frame(failure("ä" * 200 + ": the moon is full")))
    assert cut.startswith("containerd cannot run a")
    assert cut.endswith(": the moon is full")
    assert len(cut.encode()) <= ROOM


def test_an_error_of_a_command_is_never_one_that_nomad_tries_again() -> None:
    away = DriverError("containerd is away", recoverable=True, code=Code.UNAVAILABLE)
    short = _for_a_close_frame(away)
    assert isinstance(short, DriverError)
    assert (str(short), short.recoverable) == ("containerd is away", False)
