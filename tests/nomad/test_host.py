"""The plugin under Nomad's own loader, driver manager and driver client, of two versions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.go_host import DRIVER, GoHost, HostError, Json
from tests.support.nomad.leftovers import cgroups_named, pids_with
from tests.support.nomad.scripts import TICKING, Scripts, finish, in_containerd
from tests.support.registries import images
from tests.support.registries.ports import free_port
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]
UNKNOWN = f"{uuid.UUID(int=7)}/main/00000000"


# Launch, configuration, schema


def test_the_loader_probes_configures_and_launches_the_plugin(nomad_host: GoHost) -> None:
    nomad_host.quit()
    nomad_host.start()
    answer = nomad_host.launch()
    (found,) = answer["catalog"]
    assert found["Name"] == DRIVER
    assert found["PluginApiVersions"] == ["v0.1.0"]
    capabilities = answer["capabilities"]
    assert capabilities["SendSignals"]
    assert capabilities["Exec"]
    assert capabilities["FSIsolation"] == "image"
    assert not capabilities["MustInitiateNetwork"]
    # Three starts of the plugin, two of them probes; each would cost 2 s more without a Shutdown.
    assert answer["seconds"] < 6


def test_the_first_fingerprint_is_healthy_and_has_attributes(nomad_host: GoHost) -> None:
    first = nomad_host.wait_event(lambda event: event["event"] == "fingerprint", "a fingerprint")
    assert first["detected"]
    assert first["healthy"]
    assert first["attributes"][f"driver.{DRIVER}"] in ("1", "true")


def test_the_agents_config_is_read_and_an_unknown_option_named(
    make_host: Callable[[], GoHost],
) -> None:
    host = make_host()
    host.start()
    with pytest.raises(HostError, match="no_such_option"):
        host.launch(config_hcl=host.plugin_config + 'no_such_option = "x"')


def test_the_plugin_blocks_of_other_drivers_are_read(make_host: Callable[[], GoHost]) -> None:
    host = make_host()
    host.start()
    with pytest.raises(HostError, match="endpoint: is not supported"):
        host.launch(config_hcl=host.plugin_config + 'endpoint = "unix:///var/run/docker.sock"')
    sockets = 'socket {\n name = "a"\n socket_path = "/b"\n}\n'
    with pytest.raises(HostError, match="socket: is not supported"):
        host.launch(config_hcl=host.plugin_config + sockets)
    block = """
        extra_labels = ["job_name"]
        logging {
          type = "json-file"
          config {
            max-file = "2"
          }
        }
        gc {
          container = true
        }
        nvidia_runtime = "nvidia"
        image_pull_timeout = "9m"
    """
    host.launch(config_hcl=host.plugin_config + block)
    host.wait_event(lambda event: event["event"] == "fingerprint", "a fingerprint")


def test_a_bad_value_in_the_agents_config_is_refused_with_its_name(
    make_host: Callable[[], GoHost],
) -> None:
    host = make_host()
    host.start()
    with pytest.raises(HostError, match="stats_interval"):
        host.launch(config_hcl='stats_interval = "soon"')


def test_a_disabled_driver_is_undetected_and_starts_nothing(
    make_host: Callable[[], GoHost], scripts: Scripts
) -> None:
    host = make_host()
    host.start()
    host.launch(config_hcl=host.plugin_config + "enabled = false")
    first = host.wait_event(lambda event: event["event"] == "fingerprint", "a fingerprint")
    assert not first["detected"]
    with pytest.raises(HostError, match=r"enabled|disabled"):
        host.run(scripts.config("true"))


def test_a_containerd_that_is_away_makes_the_driver_unhealthy_not_the_agent_dead(
    make_host: Callable[[], GoHost], tmp_path: Path
) -> None:
    host = make_host()
    host.start()
    state = next(line for line in host.plugin_config.splitlines() if "state_dir" in line)
    host.launch(config_hcl=f'containerd_address = "{tmp_path}/none.sock"\n{state}')
    first = host.wait_event(lambda event: event["event"] == "fingerprint", "a fingerprint")
    assert first["detected"]
    assert not first["healthy"]
    assert "none.sock" in first["description"]


# A task's life


def test_a_task_lives_through_every_call_of_the_driver(
    nomad_host: GoHost, scripts: Scripts, containerd: ContainerdDaemon
) -> None:
    task = nomad_host.task(
        scripts.config("trap 'echo usr1' USR1; trap 'exit 4' TERM; echo $WORD; " + TICKING),
        env={"WORD": "hello"},
    )
    handle = nomad_host.begin(task)["handle"]
    assert handle["Version"] >= 1
    assert handle["State"] == "running"
    assert handle["Config"]["ID"] == task.id
    task.wait_log("hello\n")
    status = nomad_host.call("inspect", task_id=task.id)["status"]
    assert (status["ID"], status["State"]) == (task.id, "running")
    samples = nomad_host.call("stats", task_id=task.id, interval_s=1, count=2)["samples"]
    assert samples[1]["Timestamp"] > samples[0]["Timestamp"]
    assert samples[1]["ResourceUsage"]["MemoryStats"]["Usage"] > 0
    assert nomad_host.exec(task, "sh", "-c", "echo out; echo err >&2; exit 7") == (
        7,
        "out\n",
        "err\n",
    )
    nomad_host.call("signal", task_id=task.id, signal="SIGUSR1")
    task.wait_log("usr1")
    result = finish(nomad_host, task)
    assert (result["exit_code"], result["oom_killed"]) == (4, False)
    with pytest.raises(HostError):
        nomad_host.call("inspect", task_id=task.id)
    wait_until(lambda: not in_containerd(containerd, task.alloc_id), 10, "left in containerd")
    wait_until(lambda: not cgroups_named(task.alloc_id), 10, "a cgroup is left")
    assert not scripts.pids()


def test_an_ended_task_keeps_its_result_for_every_waiter_until_it_is_destroyed(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config("exit 17"))
    waiters = [nomad_host.send("wait", task_id=task.id) for _ in range(3)]
    assert [waiter.result(20)["exit_code"] for waiter in waiters] == [17, 17, 17]
    assert nomad_host.call("wait", task_id=task.id)["exit_code"] == 17
    status = nomad_host.call("inspect", task_id=task.id)["status"]
    assert (status["State"], status["ExitResult"]["ExitCode"]) == ("exited", 17)
    assert status["CompletedAt"] >= status["StartedAt"]
    nomad_host.call("stop", task_id=task.id, timeout_s=5, signal="")
    nomad_host.end(task)


def test_the_stop_signal_that_was_asked_for_is_sent_and_no_longer_waited_than_needed(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    for name in ("SIGINT", "SIGHUP", "SIGUSR2"):
        task = nomad_host.run(scripts.config(f"trap 'exit 6' {name[3:]}; echo ready; {TICKING}"))
        task.wait_log("ready")
        waiting = nomad_host.send("wait", task_id=task.id)
        answer = nomad_host.call("stop", task_id=task.id, timeout_s=60, signal=name)
        assert answer["seconds"] < 2
        assert waiting.result(10)["exit_code"] == 6
        nomad_host.end(task)


def test_a_task_that_ignores_its_signal_is_killed_after_the_timeout(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config(f"trap '' TERM; echo ready; {TICKING}"))
    task.wait_log("ready")
    waiting = nomad_host.send("wait", task_id=task.id)
    answer = nomad_host.call("stop", task_id=task.id, timeout_s=1, signal="")
    assert 0.9 < answer["seconds"] < 4
    assert waiting.result(10)["exit_code"] == 137
    nomad_host.end(task)


def test_destroy_with_force_ends_a_running_task(
    nomad_host: GoHost, scripts: Scripts, containerd: ContainerdDaemon
) -> None:
    task = nomad_host.run(scripts.config(TICKING))
    nomad_host.end(task)
    wait_until(lambda: not scripts.pids(), 10)
    wait_until(lambda: not in_containerd(containerd, task.alloc_id), 10)


def test_the_logs_of_both_streams_are_whole_to_the_last_byte(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config("seq 1 20000; seq 1 20000 >&2; printf end"))
    assert nomad_host.call("wait", task_id=task.id)["exit_code"] == 0
    nomad_host.end(task)
    numbers = "".join(f"{number}\n" for number in range(1, 20_001))
    wait_until(lambda: task.log().endswith("end"), 10, lambda: task.log()[-100:])
    assert task.log() == numbers + "end"
    wait_until(lambda: len(task.log("stderr")) >= len(numbers), 10)
    assert task.log("stderr") == numbers


def test_stats_tell_processor_time_in_percent_of_a_core_and_in_mhz(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config("while true; do :; done"))
    samples = nomad_host.call("stats", task_id=task.id, interval_s=1, count=3)["samples"]
    usage = samples[-1]["ResourceUsage"]["CpuStats"]
    assert 5 < usage["Percent"] < 110
    mhz_of_a_core = usage["TotalTicks"] / usage["Percent"] * 100
    assert 500 < mhz_of_a_core < 10_000
    nomad_host.end(task)


def test_twenty_tasks_start_run_and_stop_side_by_side(nomad_host: GoHost, scripts: Scripts) -> None:
    tasks = [
        nomad_host.task(scripts.config(f"trap 'exit {number}' TERM; echo ready; {TICKING}"))
        for number in range(20)
    ]
    _all([nomad_host.send("start", task=task.to_wire()) for task in tasks])
    for task in tasks:
        task.wait_log("ready", timeout_s=30)
    waiting = [nomad_host.send("wait", task_id=task.id) for task in tasks]
    _all([nomad_host.send("stats", task_id=t.id, interval_s=1, count=1) for t in tasks])
    _all([nomad_host.send("stop", task_id=t.id, timeout_s=30, signal="") for t in tasks])
    assert [answer["exit_code"] for answer in _all(waiting)] == list(range(20))
    _all([nomad_host.send("destroy", task_id=task.id, force=True) for task in tasks])
    assert not scripts.pids()


def _all(futures: list[Future[Json]]) -> list[Json]:
    return [future.result(60) for future in futures]


# Exec


def test_a_streaming_exec_carries_stdin_both_outputs_and_the_exit_code(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config(TICKING))
    session = nomad_host.exec_stream(task, ["sh", "-c", "cat; echo done >&2; exit 9"])
    session.heartbeat()
    session.type("one ")
    session.wait_output("one ")
    session.type("two")
    session.close_stdin()
    assert session.exit_code() == 9
    assert session.output() == "one two"
    assert session.output("stderr") == "done\n"
    nomad_host.end(task)


def test_a_terminal_exec_has_its_size_and_follows_a_resize(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config(TICKING))
    session = nomad_host.exec_stream(task, ["sh"], tty=True)
    session.resize(31, 97)
    session.type("test -t 0 && echo a-$((1+1))-terminal\n")
    session.wait_output("a-2-terminal")
    wait_until(lambda: _size_seen(session.type, session.output, "31 97"), 20, session.output)
    session.resize(42, 111)
    wait_until(lambda: _size_seen(session.type, session.output, "42 111"), 20, session.output)
    session.type("exit 5\n")
    assert session.exit_code() == 5
    nomad_host.end(task)


def _size_seen(type_in: Callable[[str], None], output: Callable[[], str], size: str) -> bool:
    # A resize may come after the question: ask until the answer is the new size.
    before = output().count("size=")
    type_in("echo size=$(stty size).\n")
    wait_until(lambda: output().count("size=") >= before + 2, 10, output)
    return f"size={size}." in output()


def test_an_exec_that_takes_too_long_is_ended(nomad_host: GoHost, scripts: Scripts) -> None:
    task = nomad_host.run(scripts.config(TICKING))
    with pytest.raises(HostError):
        nomad_host.exec(task, "sleep", "600.25", timeout_s=1)
    wait_until(lambda: not pids_with("600.25"), 10, "the command runs on")
    assert nomad_host.exec(task, "echo", "next") == (0, "next\n", "")
    nomad_host.end(task)


def test_an_exec_error_is_short_enough_for_nomad_to_show(
    nomad_host: GoHost, scripts: Scripts
) -> None:
    task = nomad_host.run(scripts.config(TICKING))
    session = nomad_host.exec_stream(task, ["/no/such/program"])
    with pytest.raises(HostError, match="/no/such/program") as caught:
        session.exit_code()
    # An agent closes the websocket with the text as the reason, for which a frame has 123 bytes;
    # with a longer text the user sees only "unexpected EOF".
    assert len(str(caught.value).encode()) <= 123
    nomad_host.end(task)


# Failed starts, unknown ids


def test_a_failed_start_leaves_nothing_and_is_final_or_not_as_it_should_be(
    nomad_host: GoHost, scripts: Scripts, containerd: ContainerdDaemon
) -> None:
    absent = nomad_host.task(scripts.config("true").replace("busybox:1", "nobody/home:9"))
    with pytest.raises(HostError, match=r"pull access denied|not found") as final:
        nomad_host.begin(absent)
    assert final.value.answer["recoverable"] is False
    away = nomad_host.task(f'image = "127.0.0.1:{free_port()}/busybox:1"')
    with pytest.raises(HostError) as passing:
        nomad_host.begin(away)
    assert passing.value.answer["recoverable"] is True
    program = nomad_host.task(f'image = "{scripts.image}"\ncommand = "/no/such/program"')
    with pytest.raises(HostError, match="/no/such/program") as wrong:
        nomad_host.begin(program)
    for failed in (final, passing, wrong):
        assert failed.value.answer["seconds"] < 5
    for task in (absent, away, program):
        assert not in_containerd(containerd, task.alloc_id)
        assert not cgroups_named(task.alloc_id)
        with pytest.raises(HostError):
            nomad_host.call("inspect", task_id=task.id)


def test_an_unknown_task_is_an_error_at_once_and_gone_is_what_stop_wants(
    nomad_host: GoHost,
) -> None:
    for op, fields in (
        ("wait", {}),
        ("inspect", {}),
        ("signal", {"signal": "SIGTERM"}),
        ("exec", {"argv": ["true"], "timeout_s": 5}),
        ("exec_stream", {"argv": ["true"], "session": "unknown"}),
    ):
        with pytest.raises(HostError):
            nomad_host.call(op, task_id=UNKNOWN, **fields)
    nomad_host.call("stop", task_id=UNKNOWN, timeout_s=5, signal="")
    nomad_host.call("destroy", task_id=UNKNOWN, force=True)
    assert nomad_host.call("stats", task_id=UNKNOWN, interval_s=1, count=1)["samples"] == []


def test_the_pull_is_told_in_task_events(
    nomad_host: GoHost, scripts: Scripts, registry: Registry
) -> None:
    name = f"new-{uuid.uuid4().hex[:8]}"
    content = images.busybox_layer({"etc/new": name.encode()})
    scripts.image = images.push(registry.host, name, "1", images.build([content]))
    task = nomad_host.run(scripts.config(TICKING))
    told = nomad_host.wait_event(lambda event: event.get("task_id") == task.id, "a task event")
    assert "image" in told["message"].lower()
    assert (told["alloc_id"], told["task"]) == (task.alloc_id, "main")
    nomad_host.end(task)
