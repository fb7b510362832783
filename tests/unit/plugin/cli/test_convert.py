"""The command `convert`: targets, report and exit status."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from plugin.cli import arguments, convert

JOB = 'job "j" {\r\n  group "g" {\r\n    network { mode = "bridge" }\r\n%s  }\r\n}\r\n'
TASK = '    task "t" {\r\n      driver = "docker"\r\n      config {\r\n        image = "i"\r\n%s'
END = "      }\r\n    }\r\n"
GOOD = JOB % (TASK % END)
BAD = JOB % (TASK % f'        mac_address = "m"\r\n{END}')


def command(*words: str) -> int:
    return convert.run(arguments.parse("convert", list(words)))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "web.nomad"
    path.write_bytes(GOOD.encode())
    path.chmod(0o640)
    return path


def converted(text: str) -> bytes:
    return text.replace('"docker"', '"containerd-driver"').encode()


def test_the_job_goes_to_stdout_and_the_report_to_stderr(
    job: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert command(str(job)) == 0
    shown, said = capfdbinary.readouterr()
    assert shown == converted(GOOD)
    assert said.decode().splitlines() == [
        'changed: task "t", option driver, line 5: "docker" becomes "containerd-driver"',
        "web.nomad: 1 changed, 0 notes, 0 not carried over",
    ]
    assert job.read_bytes() == GOOD.encode()


def test_a_part_that_is_not_carried_over_makes_the_status_1_and_the_file_is_written(
    job: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    job.write_bytes(BAD.encode())
    target = job.with_name("new.nomad")
    assert command(str(job), "-o", str(target)) == 1
    assert target.read_bytes() == converted(BAD)
    shown, said = capfdbinary.readouterr()
    assert shown == b""
    assert b'not carried over: task "t", option mac_address, line 8: ' in said


def test_check_writes_only_the_report(job: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert command(str(job), "--check", "--json") == 0
    job.write_bytes(BAD.encode())
    assert command(str(job), "--check", "--json") == 1
    shown, said = capfdbinary.readouterr()
    assert said == b""
    rows = [json.loads(line) for line in shown.splitlines()]
    assert [(row["kind"], row["option"], row["line"]) for row in rows] == [
        ("changed", "driver", 5),
        ("changed", "driver", 5),
        ("not carried over", "mac_address", 8),
    ]
    assert job.read_bytes() == BAD.encode()
    assert [path.name for path in job.parent.iterdir()] == [job.name]


def test_in_place_keeps_the_mode_and_follows_a_link(job: Path) -> None:
    link = job.with_name("link.nomad")
    link.symlink_to(job)
    assert command(str(link), "--in-place") == 0
    assert job.read_bytes() == converted(GOOD)
    assert job.stat().st_mode & 0o7777 == 0o640
    assert link.is_symlink()
    assert sorted(path.name for path in job.parent.iterdir()) == ["link.nomad", "web.nomad"]


def test_the_job_may_come_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode()), "utf-8"))
    assert command("-") == 0
    shown, said = capfdbinary.readouterr()
    assert shown == converted(GOOD)
    assert b"standard input: 1 changed" in said


def test_only_the_tasks_of_a_driver_may_be_converted(
    job: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert command(str(job), "--driver", "podman") == 0
    assert capfdbinary.readouterr()[0] == GOOD.encode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--driver", "docekr"], 'did you mean "docker"?'),
        (["--check", "-i"], "exclude each other"),
        (["--check", "-o", "x"], "exclude each other"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    job: Path, words: list[str], said: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert command(str(job), *words) == 2
    assert said.encode() in capfdbinary.readouterr()[1]
    assert command("-", "-i") == 2
