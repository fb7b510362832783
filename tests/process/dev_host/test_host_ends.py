"""Tests of the end of `containerd-driver run`: signals, lost terminals, deaths of the plugin."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.plugin.scripted_host import DEADLINE_S, Host
from tests.support.waiting import wait_until


def test_ctrl_c_stops_as_the_job_says_and_removes(host: Host) -> None:
    process = host.start(host.task("wait", KillSignal="SIGINT", KillTimeout=9 * 10**9))
    host.wait_for("start t")
    process.send_signal(signal.SIGINT)
    status, _, err = host.ended(process)
    assert status == 143
    assert host.journal()[-1] == "destroy t"
    assert "stop t SIGINT 9.0" in host.journal()
    assert "stopping (Ctrl-C again kills)" in err
    assert list(host.allocs.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ends_of_the_host_stop_too(host: Host, number: signal.Signals) -> None:
    process = host.start(host.task("wait"))
    host.wait_for("start t")
    process.send_signal(number)
    assert host.ended(process)[0] == 143
    assert host.journal()[-1] == "destroy t"


def test_a_terminal_that_goes_away_takes_no_plugin_along(host: Host) -> None:
    process = host.start(host.task("wait"))
    host.wait_for("start t")
    os.killpg(process.pid, signal.SIGHUP)
    status, _, err = host.ended(process)
    assert status == 143, err
    assert "recover t" not in host.journal()


def test_a_terminal_that_is_gone_for_writing_ends_nothing(host: Host) -> None:
    ours, terminal = os.openpty()
    process = host.start(host.task("out a\\n", "wait"), stdout=terminal)
    os.close(terminal)
    host.wait_for("start t")
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    status, _, err = host.ended(process)
    assert status == 143, err
    assert "Traceback" not in err
    assert host.journal()[-1] == "destroy t"


def test_a_second_ctrl_c_kills(host: Host) -> None:
    process = host.start(host.task("wait", image="stubborn"))
    host.wait_for("start t")
    process.send_signal(signal.SIGINT)
    host.wait_for("stop t - 5.0")
    process.send_signal(signal.SIGINT)
    status, _, err = host.ended(process)
    assert status == 137
    assert "signal t SIGKILL" in host.journal()
    assert "ended by SIGKILL" in err


def test_a_third_ctrl_c_leaves_a_driver_that_does_not_answer(host: Host) -> None:
    process = host.start(host.task("exit 0", image="hangs"))
    host.wait_for("destroy t")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not _pending(process.pid), DEADLINE_S)
    status, _, err = host.ended(process)
    assert status == 0
    assert "t: not removed, the driver does not answer" in err
    assert len(list(host.allocs.iterdir())) == 1


def _pending(pid: int) -> bool:
    """Tells whether a signal is still pending."""
    text = Path(f"/proc/{pid}/status").read_text()
    return any(
        line.startswith(("ShdPnd", "SigPnd")) and int(line.split()[1], 16)
        for line in text.splitlines()
    )


def test_ctrl_c_reaches_into_a_start(host: Host) -> None:
    process = host.start(host.task(image="late"))
    host.wait_for("start t")
    process.send_signal(signal.SIGINT)
    status, _, err = host.ended(process)
    assert status == 130
    assert "t: the start was cancelled" in err
    assert "error" not in err


def test_a_task_outlives_the_plugin(host: Host) -> None:
    status, out, err = host.run(host.task("out a\\n", "die", "out b\\n", "exit 6"))
    assert (status, out) == (6, "a\nb\n")
    assert "the plugin died and is started again; tasks go on" in err
    assert host.journal() == ["start t", "died", "recover t", "destroy t"]


def test_a_start_in_which_the_plugin_dies_is_made_again(host: Host) -> None:
    status, _, _ = host.run(host.task("exit 2", image="die-in-start"))
    assert status == 2
    assert host.journal() == ["start t", "died", "start t", "destroy t"]


def test_a_stop_in_which_the_plugin_dies_is_made_again(host: Host) -> None:
    process = host.start(host.task("out a\\n", "wait", image="die-in-stop"))
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"  # a stop during the start is made twice
    process.send_signal(signal.SIGINT)
    assert host.ended(process)[0] == 143
    assert host.journal() == [
        *("start t", "stop t - 5.0", "died", "recover t", "stop t - 5.0", "destroy t")
    ]
