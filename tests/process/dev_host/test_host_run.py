"""Tests of `containerd-driver run` as a process, on a plugin whose tasks follow a script."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plugin.plugin_dir import ROOT
from tests.support.plugin.scripted_host import DEADLINE_S, Host
from tests.support.waiting import slowed


def test_a_task_is_run_and_its_code_is_the_exit_status(host: Host) -> None:
    status, out, err = host.run(host.task("out hello\\n", "err oops\\n", "exit 7"))
    assert status == 7
    assert out == "hello\n"
    assert "t: Started in " in err
    assert "oops\n" in err
    assert "t: exit code 7 after " in err
    assert host.journal() == ["start t", "destroy t"]
    assert list(host.allocs.iterdir()) == []


def test_what_a_task_writes_comes_out_byte_for_byte(host: Host) -> None:
    job = host.task("out \\xff\\x00\\x1b[31m\\t\\n", "out last", "exit 0")
    process = host.start(job)
    assert isinstance(process.stdout, io.TextIOWrapper)
    out = process.stdout.buffer.read()
    assert process.wait(slowed(DEADLINE_S)) == 0
    assert out == b"\xff\x00\x1b[31m\t\nlast"


def test_a_line_of_any_length_comes_out_byte_for_byte(host: Host) -> None:
    long = "ö" * 300
    steps = [f"out {long}" for _ in range(400)]
    process = host.start(host.task(*steps, "out end\\nno end", "exit 0"))
    assert isinstance(process.stdout, io.TextIOWrapper)
    out = process.stdout.buffer.read()
    assert process.wait(slowed(DEADLINE_S)) == 0
    assert out == (long * 400 + "end\nno end").encode()


def test_a_script_can_put_a_long_line_of_json_together_again(host: Host) -> None:
    long = "ö" * 300
    steps = [f"out {long}" for _ in range(400)]
    _, out, _ = host.run(host.task(*steps, "out \\nx", "exit 0"), arguments=("--json",))
    lines = [json.loads(line) for line in out.splitlines()]
    logs = [line for line in lines if line["kind"] == "log"]
    text = "".join(line["line"] + ("" if line.get("partial") else "\n") for line in logs)
    assert text == f"{long * 400}\nx"


def test_a_line_without_an_end_does_not_swallow_what_the_run_says(host: Host) -> None:
    _, _, err = host.run(host.task("err half", "exit 0"))
    assert "half\nt: exit code 0" in err


def test_logs_come_between_the_start_and_the_end(host: Host) -> None:
    status, out, err = host.run(
        host.task(*[f"err {number}\\n" for number in range(50)], "exit 0"),
    )
    lines = err.splitlines()
    assert status == 0
    assert out == ""
    begun = next(i for i, line in enumerate(lines) if "Started" in line)
    ended = next(i for i, line in enumerate(lines) if "exit code" in line)
    assert lines[begun + 1 : ended] == [str(number) for number in range(50)]


def test_several_tasks_have_names_before_their_lines_and_the_first_failure_counts(
    host: Host,
) -> None:
    status, out, err = host.run(
        host.task("out a\\n", "exit 0", name="one"),
        host.task("out b\\n", "exit 3", name="two"),
        host.task("out c\\n", "exit 4", name="three"),
    )
    assert status == 3
    assert sorted(out.splitlines()) == ["one | a", "three | c", "two | b"]
    assert "two: exit code 3" in err


def test_lines_of_several_tasks_stay_apart_also_without_ends(host: Host) -> None:
    long = "x" * 500
    one = host.task(*[f"out {long}" for _ in range(400)], "out \\nlast", "exit 0", name="one")
    two = host.task(*[f"out {n}\\n" for n in range(400)], "out last", "exit 0", name="two")
    _, out, _ = host.run(one, two)
    lines = [line.split(" | ") for line in out.splitlines()]
    assert [text for name, text in lines if name == "two"] == [*map(str, range(400)), "last"]
    words = [text for name, text in lines if name == "one"]
    assert "".join(words) == long * 400 + "last"


@pytest.mark.parametrize(
    ("step", "status", "words"),
    [
        ("signal 9", 137, "ended by SIGKILL (exit code 137)"),
        ("signal 15", 143, "ended by SIGTERM (exit code 143)"),
        ("lost", 125, "failed: the shim vanished"),
    ],
)
def test_other_ends_have_their_own_status(host: Host, step: str, status: int, words: str) -> None:
    found, _, err = host.run(host.task(step))
    assert found == status
    assert words in err


def test_a_task_that_does_not_start_is_told_and_removed(host: Host) -> None:
    status, out, err = host.run(host.task(image="refused"))
    assert (status, out) == (125, "")
    assert "error: t: no such image (push it)" in err
    assert list(host.allocs.iterdir()) == []


def test_json_is_one_object_per_line(host: Host) -> None:
    status, out, err = host.run(host.task("out x\\n", "exit 5"), arguments=("--json",))
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (5, "")
    assert [line["kind"] for line in lines][-2:] == ["log", "exit"]
    del lines[-2]["time"]
    assert lines[-2] == {"kind": "log", "task": "t", "stream": "stdout", "line": "x"}
    assert lines[-1]["exit_code"] == 5


def test_stats_are_shown_when_asked_for(host: Host) -> None:
    process = host.start(host.task("wait"), arguments=("--stats",))
    assert process.stderr is not None
    line = next(line for line in process.stderr if "cpu" in line)
    assert line == "t: cpu 1.5 %, memory 0.0 MiB\n"
    process.send_signal(signal.SIGINT)
    host.ended(process)


def test_a_container_that_cannot_be_removed_keeps_its_directory(host: Host) -> None:
    status, _, err = host.run(host.task("exit 0", image="sticky"))
    assert status == 0
    assert "error: t: not removed: device or resource busy" in err
    assert len(list(host.allocs.iterdir())) == 1


def test_kept_allocations_are_kept(host: Host) -> None:
    _, _, err = host.run(host.task("exit 0"), arguments=("--keep",))
    assert f"allocation directories kept in {host.allocs}" in err
    (alloc,) = host.allocs.iterdir()
    assert (alloc / "t" / "local").is_dir()


def test_an_unhealthy_driver_says_what_to_do(host: Host) -> None:
    status, _, err = host.run(host.task(), arguments=("--config", "containerd_address=/none"))
    assert status == 125
    assert "the driver is not healthy: containerd does not answer at /none" in err
    assert err.count("systemctl start containerd") == 1
    assert "apt-get install containerd runc" in err
    assert list(host.allocs.iterdir()) == []


def test_an_unhealthy_launcher_gets_no_advice_on_containerd(host: Host) -> None:
    _, _, err = host.run(host.task(), arguments=("--config", "containerd_address=/no-launcher"))
    assert "the driver is not healthy: cannot reach the worker launcher" in err
    assert "apt-get install" not in err


@pytest.mark.parametrize(
    ("expected", "arguments", "words"),
    [
        (125, ("--config", "containerd_adress=x"), 'did you mean "containerd_address"?'),
        (2, ("--config", "x"), "--config x: is not NAME=VALUE"),
        (2, ("--var", "a"), "--var a: is not NAME=VALUE"),
        (125, ("--var", "a=b"), "job.json: a job in JSON has no variables"),
        (2, ("--config-file", "/none"), "/none: cannot be read: No such file or directory\n"),
        (2, ("--host-ip", "x"), "--host-ip x: not an IPv4 address"),
        (125, ("--plugin", "/none"), "cannot start the plugin /none: No such file"),
        (125, ("--plugin", "/bin/false"), "/bin/false did not start as a plugin: it ended with"),
        (125, ("--plugin", "/bin/echo"), "/bin/echo did not start as a plugin"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(
    host: Host, expected: int, arguments: tuple[str, ...], words: str
) -> None:
    status, out, err = host.run(host.task(), arguments=arguments)
    assert (status, out) == (expected, "")
    assert words in err
    assert "Traceback" not in err


def test_the_plugins_last_words_explain_why_it_does_not_start(host: Host) -> None:
    host.program.write_text("#!/bin/sh\necho 'no module named x' >&2\nexit 3\n")
    status, _, err = host.run(host.task())
    assert status == 125
    assert "it ended with status 3; no module named x" in err


def test_another_driver_is_refused_by_name(host: Host) -> None:
    status, _, err = host.run(host.task(Driver="docker"))
    assert status == 125
    assert 'task "t": driver "docker" cannot be run here (set driver = "conta' in err


def test_an_unknown_option_of_a_task_is_refused_by_the_served_schema(host: Host) -> None:
    status, _, err = host.run(host.task(Config={"imagge": "i"}))
    assert status == 125
    assert 'imagge: no such option, did you mean "image"?; image: is required' in err
    assert "start t" not in host.journal()


def test_a_job_in_hcl_comes_from_stdin_too(host: Host) -> None:
    text = """
    variable "code" { default = 1 }
    job "j" {
      task "t" {
        driver = "containerd-driver"
        config {
          image = "i"
          args  = ["out ${NOMAD_TASK_NAME}\\\\n", "exit ${var.code}"]
        }
      }
    }
    """
    process = host.start_file(Path("-"), ("--var", "code=4"))
    out, _ = process.communicate(text, slowed(DEADLINE_S))
    assert (process.returncode, out) == (4, "t\n")


def test_the_plugin_block_of_an_agent_file_is_taken(host: Host, tmp_path: Path) -> None:
    agent = tmp_path / "agent.hcl"
    agent.write_text('plugin "containerd-driver" {\n config {\n containerd_address = "/none"\n}\n}')
    status, _, err = host.run(host.task(), arguments=("--config-file", str(agent)))
    assert status == 125
    assert "at /none" in err


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_of_the_hosts_network_is_told_where_a_task_has_that_network(
    host: Host, shared: bool
) -> None:
    task = host.task("exit 0")
    task["Config"]["host_network"] = shared
    network = {"DynamicPorts": [{"Label": "http"}], "ReservedPorts": [{"Label": "s", "Value": 81}]}
    group = {"Name": "g", "Tasks": [task], "Networks": [network]}
    job = host.directory / "ports.json"
    job.write_text(json.dumps({"ID": "j", "TaskGroups": [group]}))
    status, _, err = host.ended(host.start_file(job))
    assert status == 0, err
    told = [line for line in err.splitlines() if line.startswith("port ")]
    assert len(told) == (2 if shared else 0)
    assert ("port s: 127.0.0.1:81" in told) == shared


def test_verbose_shows_the_plugins_log(host: Host) -> None:
    _, _, err = host.run(host.task("exit 0"), arguments=("--verbose",))
    assert "INFO the agent ends the plugin; tasks go on" in err


def test_what_the_plugin_warns_of_is_shown_only_where_asked_for(host: Host) -> None:
    first, rest = host.program.read_text().split("\n", 1)
    line = json.dumps({"@message": "coped", "@level": "warn"}) + "\n"
    warning = f"import sys; sys.stderr.write({line!r})"
    host.program.write_text(f"{first}\n{warning}\n{rest}")
    assert "coped" not in host.run(host.task("exit 0"))[2]
    assert "WARNING coped" in host.run(host.task("exit 0"), arguments=("--verbose",))[2]


def test_a_reader_that_goes_away_ends_nothing(host: Host) -> None:
    process = host.start(host.task("out a\\n", "wait"))
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(slowed(DEADLINE_S)) == 143
    assert host.journal()[-1] == "destroy t"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "j", "--statz"], '--statz: no such option, did you mean "--stats"?'),
        (["run", "j", "--alloc-dri=/x"], 'no such option, did you mean "--alloc-dir"?'),
        (["run", "j", "k"], 'unexpected argument "k"'),
        (["run", "j", "--nothing-like-it"], "--nothing-like-it: no such option\n"),
        (["doctor", "--jsno"], '--jsno: no such option, did you mean "--json"?'),
        (["gc", "--yess"], "--yess: no such option"),
        (["spec", "j", "--vra", "a=b"], 'did you mean "--var"?; unexpected argument "a=b"'),
        (["rnu"], 'did you mean "run"?'),
    ],
)
def test_an_option_that_is_unknown_is_told_with_the_one_that_was_meant(
    words: list[str], said: str
) -> None:
    argv = [sys.executable, "-I", str(ROOT / "plugin" / "main.py"), *words]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert said in ended.stderr
