"""Foreign text on a terminal: made harmless in messages, unchanged in a task's output."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from actors.health.findings import Finding, Verdict
from actors.model.nomad import CpuUsage, ExitResult, MemoryUsage, PortMapping, TaskUsage
from actors.orphans.reconciler import Outcome
from plugin.cli import console, dev_host, doctor, gc
from plugin.cli.screens import JsonScreen, PlainScreen
from plugin.cli.terminal_screen import TerminalScreen
from plugin.host.run.screen import Screen
from plugin.host.run.sweep import Row
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed

# Clears the screen, sets the title, moves up, rings, C1's own CSI, right to left, DEL, half a pair.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x1b[1A\r\x9b31mb\u202ec\x7f\x00\ud800\u2028d"
FORGED = f"{EVIL}\nerror: everything is lost"
PORT = PortMapping(label=EVIL, value=1, to=2, host_ip=EVIL)


def quiet(shown: bytes) -> None:
    """Checks that a text is printable, and that every line end is ours."""
    text = shown.decode()
    assert {c for c in text if not c.isprintable()} <= {"\n"}
    assert not any(line.startswith("error: everything") for line in text.splitlines())


def say_all(screen: Screen) -> None:
    usage = TaskUsage(
        task_id="t",
        timestamp_ns=0,
        cpu=CpuUsage(percent=1.0, user_percent=1.0, system_percent=0.0, total_ticks=1.0),
        memory=MemoryUsage(usage=1),
    )
    screen.note(FORGED)
    screen.event(FORGED, FORGED)
    screen.event(FORGED, f"Downloading image {FORGED}")
    screen.stats(FORGED, usage)
    screen.port(FORGED, PORT)
    screen.error(FORGED)
    screen.ended(FORGED, ExitResult(exit_code=1, error=FORGED), 1.0)
    screen.close()


def test_a_plain_screen_shows_text_alone(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    say_all(PlainScreen(prefix=True))
    shown = capfdbinary.readouterr()
    assert shown.out == b""
    assert b"owned" in shown.err
    quiet(shown.err)


def test_what_a_task_writes_stays_as_it_is_behind_a_plain_name(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    screen = PlainScreen(prefix=True)
    screen.log("a\x1b[2Jb\n", "stdout", b"\x1b[31mred\xff\x00\n")
    assert capfdbinary.readouterr().out == "a\ufffd[2Jb | ".encode() + b"\x1b[31mred\xff\x00\n"


def test_a_terminal_gets_no_sequence_that_is_not_ours() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    for out, terminal in ((plain, False), (coloured, True)):
        drawn = Console(file=out, force_terminal=terminal, highlight=False, width=500)
        screen = TerminalScreen(prefix=True, console=drawn)
        say_all(screen)
        screen.log(EVIL, "stdout", b"hello")
    quiet(plain.getvalue().encode())
    for sequence in ("\x1b[2J", "\x1b]0", "\x1b[1A\r\x9b", "\x9b", "\x07", "\u202e"):
        assert sequence not in coloured.getvalue()


def test_json_says_it_exactly(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    JsonScreen().note(FORGED)
    out = capfdbinary.readouterr().out
    assert out.count(b"\n") == 1
    assert json.loads(out)["text"] == FORGED
    row = Row(kind="run", name=FORGED, since=0, outcome=Outcome.FAILED, why=EVIL, error=EVIL)
    console.show(console.json_lines([{"name": row.name}]))
    assert json.loads(capfdbinary.readouterr().out)["name"] == FORGED


@pytest.mark.parametrize("width", [0, 40, 500])
def test_tables_have_text_in_their_cells(width: int) -> None:
    row = Row(kind="run", name=FORGED, since=0, outcome=Outcome.FAILED, why=FORGED, error=FORGED)
    quiet(gc.table([row], width=width).encode())
    finding = Finding(subject="auth", verdict=Verdict.WARN, text=FORGED, advice=FORGED)
    quiet(doctor.table([finding], width=width).encode())


def test_errors_and_log_lines_are_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    console.complain(FORGED)
    handler = logging.StreamHandler(sys.stderr)
    record = logging.makeLogRecord({"msg": "%s", "args": (FORGED,)})
    shown = dev_host._PlainFormatter("%(message)s").format(record)
    handler.close()
    quiet(capfdbinary.readouterr().err)
    quiet(shown.encode())


@pytest.mark.parametrize("words", [("run",), ("spec",), ("doctor", "--x"), ("gc", "--grace")])
def test_the_commands_show_text_alone(words: tuple[str, ...], tmp_path: Path) -> None:
    evil = EVIL.replace("\0", "").replace("\ud800", "")
    job = tmp_path / f"{evil}.nomad"
    name = json.dumps(evil)
    job.write_text(f'{{"ID": {name}, "TaskGroups": [{{"Name": {name}, "Tasks": {name}}}]}}')
    for file in (job, tmp_path / evil):
        done = subprocess.run(
            [sys.executable, "-I", str(ROOT / "plugin/main.py"), *words, str(file)],
            check=False,
            capture_output=True,
            timeout=slowed(60),
        )
        assert done.returncode
        assert done.stderr
        quiet(done.stderr)
