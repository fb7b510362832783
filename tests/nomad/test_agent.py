"""Tests of real jobs on a real Nomad agent, as a user of the driver sees the jobs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.nomad.api import DEAF, ApiError, Json, NomadApi
from tests.support.nomad.leftovers import cgroups_named, mounts_below, pids_with
from tests.support.nomad.nomad_agent import DRIVER, NomadAgent
from tests.support.nomad.workload import TICKING, Workload, event, goes_on
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

SECOND = 1_000_000_000


def seconds_between(nomad: NomadApi, alloc: str, first: str, then: str) -> float:
    """Returns the seconds from the newest event of a kind to the newest event of another kind."""
    gap: int = event(nomad, alloc, then)["Time"] - event(nomad, alloc, first)["Time"]
    return gap / SECOND


# The driver on the node


def test_the_node_lists_the_driver_as_healthy_with_its_attributes(nomad: NomadApi) -> None:
    info = nomad.driver_info(DRIVER)
    assert info["Detected"]
    assert info["Healthy"]
    assert info["HealthDescription"] == "Healthy"
    attributes = (nomad.node() or {})["Attributes"]
    assert attributes[f"driver.{DRIVER}"] in ("1", "true")
    assert "driver.containerd.containerd_version" in attributes


# A job from the text to the end


def test_a_job_in_hcl_runs_to_its_end_and_both_logs_are_whole(
    nomad: NomadApi, busybox_image: str
) -> None:
    job = nomad.parse(f"""
        job "from-text" {{
          datacenters = ["dc1"]
          type        = "batch"
          group "g" {{
            task "main" {{
              driver = "containerd-driver"
              config {{
                image   = "{busybox_image}"
                command = "sh"
                args    = ["-c", "seq 1 3000; echo complaint >&2"]
              }}
              resources {{
                cpu    = 50
                memory = 32
              }}
            }}
          }}
        }}
    """)
    alloc = nomad.start(job)
    assert nomad.wait_over(alloc)["ClientStatus"] == "complete", nomad.story(alloc)
    wait_until(lambda: nomad.logs(alloc).count("\n") >= 3000, 10)
    assert nomad.logs(alloc) == "".join(f"{number}\n" for number in range(1, 3001))
    assert nomad.wait_log(alloc, "complaint", "stderr") == "complaint\n"
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "0"


def test_the_pull_is_told_as_events_of_the_task(
    nomad: NomadApi, work: Workload, registry: Registry
) -> None:
    content = images.busybox_layer({"etc/new": work.mark.encode()})
    work.image = images.push(registry.host, "never-seen", "1", images.build([content]))
    alloc = nomad.run(work.job(TICKING))
    told = [entry["DisplayMessage"] for entry in nomad.events(alloc) if entry["Type"] == "Driver"]
    assert told, nomad.story(alloc)
    assert "image" in told[0].lower()


def test_a_task_sees_its_environment_directories_and_templates(
    nomad: NomadApi, work: Workload
) -> None:
    script = (
        'echo "$GREETING $NOMAD_TASK_NAME $NOMAD_ALLOC_DIR $NOMAD_TASK_DIR $NOMAD_SECRETS_DIR";'
        "cat /local/rendered /secrets/hidden; echo made > /alloc/data/made; test ! -e /nonsense"
    )
    templates = [
        {"EmbeddedTmpl": "from a template\n", "DestPath": "local/rendered", "ChangeMode": "noop"},
        {"EmbeddedTmpl": "a secret\n", "DestPath": "secrets/hidden", "ChangeMode": "noop"},
    ]
    job = work.job(script, kind="batch", Env={"GREETING": "hello"}, Templates=templates)
    alloc = nomad.start(job)
    assert nomad.wait_over(alloc)["ClientStatus"] == "complete", nomad.story(alloc)
    log = nomad.wait_log(alloc, "a secret")
    assert log == "hello main /alloc /local /secrets\nfrom a template\na secret\n"


# Failure and restarts


def test_an_exit_code_reaches_the_task_event_and_fails_the_allocation(
    nomad: NomadApi, work: Workload
) -> None:
    alloc = nomad.start(work.job("exit 23", kind="batch"))
    assert nomad.wait_over(alloc)["ClientStatus"] == "failed"
    details = event(nomad, alloc, "Terminated")["Details"]
    assert details["exit_code"] == "23"
    assert details["oom_killed"] == "false"


def test_a_task_that_fails_twice_is_restarted_until_it_succeeds(
    nomad: NomadApi, work: Workload
) -> None:
    script = (
        "echo run >> /alloc/data/runs; n=$(wc -l < /alloc/data/runs); echo run $n; test $n -ge 3"
    )
    alloc = nomad.start(work.job(script, kind="batch", attempts=3))
    assert nomad.wait_over(alloc)["ClientStatus"] == "complete", nomad.story(alloc)
    assert nomad.task(alloc)["Restarts"] == 2
    assert nomad.wait_log(alloc, "run 3") == "run 1\nrun 2\nrun 3\n"


def test_a_task_over_its_memory_is_reported_as_killed_for_it(
    nomad: NomadApi, work: Workload
) -> None:
    alloc = nomad.start(work.job("exec tail /dev/zero", kind="batch"))
    nomad.wait_over(alloc)
    details = event(nomad, alloc, "Terminated")["Details"]
    assert details["oom_killed"] == "true", nomad.story(alloc)
    assert details["exit_code"] == "137"


def test_an_unknown_option_is_refused_by_name_before_anything_is_made(
    nomad: NomadApi, work: Workload, containerd: ContainerdDaemon
) -> None:
    job = work.job("true", kind="batch")
    job["TaskGroups"][0]["Tasks"][0]["Config"]["imgae"] = "x"
    alloc = nomad.start(job)
    assert nomad.wait_over(alloc)["ClientStatus"] == "failed"
    assert "imgae" in nomad.story(alloc)
    assert alloc not in containerd.ctr("containers", "ls")


def test_an_image_that_does_not_exist_fails_the_task_with_a_plain_reason(
    nomad: NomadApi, work: Workload, containerd: ContainerdDaemon
) -> None:
    work.image = work.image.replace("busybox:1", "nobody/home:9")
    alloc = nomad.start(work.job("true", kind="batch"))
    assert nomad.wait_over(alloc)["ClientStatus"] == "failed"
    story = nomad.story(alloc)
    assert "pull access denied" in story or "not found" in story, story
    assert alloc not in containerd.ctr("containers", "ls")


# A running task


def test_exec_passes_stdin_output_and_the_exit_code(nomad: NomadApi, work: Workload) -> None:
    alloc = nomad.run(work.job(TICKING))
    done = nomad.exec(alloc, ["sh", "-c", "cat; echo bad >&2; exit 7"], stdin="through the pipe")
    assert (done.returncode, done.stdout, done.stderr) == (7, "through the pipe", "bad\n")
    large = "0123456789abcdef" * 20_000
    assert nomad.exec(alloc, ["cat"], stdin=large).stdout == large
    assert nomad.exec(alloc, ["echo", "again"]).stdout == "again\n"


def test_exec_of_a_program_that_does_not_exist_says_so(nomad: NomadApi, work: Workload) -> None:
    alloc = nomad.run(work.job(TICKING))
    done = nomad.exec(alloc, ["/no/such/program"])
    assert done.returncode != 0
    assert "/no/such/program" in done.stdout + done.stderr
    assert nomad.task(alloc)["State"] == "running"


def test_each_command_that_cannot_be_run_is_told_in_words(
    nomad: NomadApi, work: Workload, containerd: ContainerdDaemon
) -> None:
    job = work.job("touch /local/plain; echo ready; exec sleep 600", **DEAF)
    job["TaskGroups"][0]["Tasks"][0]["Config"]["cwd"] = "/w/d"
    alloc = nomad.run(job)
    nomad.wait_log(alloc, "ready")
    told = {
        f"/{'deep/' * 60}tool": "deep/tool: no such file or directory",
        "tool": "cannot run tool: executable file not found in $PATH",
        "/local/plain": "cannot run /local/plain: permission denied",
    }
    for program, words in told.items():
        done = nomad.exec(alloc, [program])
        assert words in done.stderr, done
    names = containerd.ctr("containers", "ls", "-q").split()
    (container,) = [name for name in names if alloc in name]
    containerd.ctr("tasks", "pause", container)
    try:
        assert "the task is paused" in nomad.exec(alloc, ["echo", "hello"]).stderr
    finally:
        containerd.ctr("tasks", "resume", container)
    assert nomad.exec(alloc, ["rm", "-r", "/w"]).returncode == 0
    done = nomad.exec(alloc, ["pwd"])
    gone = "containerd-driver: /w/d is gone, so the command runs in /\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "/\n", gone)


def test_a_signal_reaches_the_task(nomad: NomadApi, work: Workload) -> None:
    alloc = nomad.run(work.job("trap 'echo usr1 came' USR1; echo ready; " + TICKING))
    nomad.wait_log(alloc, "ready")
    nomad.signal(alloc, "SIGUSR1")
    nomad.wait_log(alloc, "usr1 came")
    with pytest.raises(ApiError, match="SIGNONSENSE"):
        nomad.signal(alloc, "SIGNONSENSE")
    assert nomad.task(alloc)["State"] == "running"


def test_stats_show_the_memory_held_and_the_processor_time_burnt(
    nomad: NomadApi, work: Workload
) -> None:
    # dd keeps a buffer of 8 MiB, touched.
    script = "dd if=/dev/zero bs=8M count=1 2>/dev/null | sleep 600 & while true; do :; done"
    alloc = nomad.run(work.job(script))

    def busy() -> Json:
        usage = nomad.stats(alloc)
        # A shared machine gives the task's loop little of a core; an idle task shows 0.
        enough = usage and usage["CpuStats"]["Percent"] > 5
        return usage if enough and usage["MemoryStats"]["RSS"] > 8 << 20 else {}

    usage = wait_until(busy, 30, lambda: f"only {nomad.stats(alloc)}")
    assert usage["CpuStats"]["Percent"] < 120 * (os.cpu_count() or 1)
    assert {"RSS", "Usage"} <= set(usage["MemoryStats"]["Measured"])
    assert usage["MemoryStats"]["RSS"] <= 32 << 20
    # `nomad alloc status` shows this figure as MHz.
    assert usage["CpuStats"]["TotalTicks"] > 0


def test_a_restart_by_the_user_gives_a_new_process_in_the_same_allocation(
    nomad: NomadApi, work: Workload
) -> None:
    alloc = nomad.run(work.job("trap 'exit 0' TERM; echo begin; " + TICKING))
    nomad.wait_log(alloc, "begin")
    before = work.pids()
    nomad.restart(alloc)
    wait_until(lambda: nomad.logs(alloc).count("begin") == 2, 30, lambda: nomad.story(alloc))
    after = wait_until(work.pids, 5)
    assert not set(before) & set(after)
    nomad.wait_state(alloc, "running")


# The end of a task


def test_stopping_a_task_that_exits_on_sigterm_does_not_wait_for_the_timeout(
    nomad: NomadApi, work: Workload
) -> None:
    job = work.job("trap 'echo bye; exit 0' TERM; echo ready; " + TICKING, KillTimeout=60 * SECOND)
    alloc = nomad.run(job)
    nomad.wait_log(alloc, "ready")
    nomad.stop_and_wait(work.name, purge=False)
    assert seconds_between(nomad, alloc, "Killing", "Terminated") < 2
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "0"
    assert nomad.wait_log(alloc, "bye").endswith("bye\n")


def test_the_kill_signal_of_the_job_is_what_the_task_gets(nomad: NomadApi, work: Workload) -> None:
    script = f"trap 'echo int; exit 9' INT; trap 'echo term; exit 8' TERM; echo ready; {TICKING}"
    alloc = nomad.run(work.job(script, KillSignal="SIGINT", KillTimeout=60 * SECOND))
    nomad.wait_log(alloc, "ready")
    nomad.stop_and_wait(work.name, purge=False)
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "9"
    assert "term" not in nomad.wait_log(alloc, "int\n")


def test_a_task_that_ignores_sigterm_is_killed_after_its_timeout(
    nomad: NomadApi, work: Workload
) -> None:
    alloc = nomad.run(work.job(f"trap '' TERM; echo ready; {TICKING}", KillTimeout=2 * SECOND))
    nomad.wait_log(alloc, "ready")
    nomad.stop_and_wait(work.name, purge=False)
    assert 1.8 < seconds_between(nomad, alloc, "Killing", "Terminated") < 5
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "137"
    wait_until(lambda: not work.pids(), 5)


def test_a_purged_job_leaves_nothing_behind(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload, containerd: ContainerdDaemon
) -> None:
    alloc = nomad.run(work.job("trap 'exit 0' TERM; " + TICKING))
    nomad.wait_log(alloc, "tick 1")
    assert alloc in containerd.ctr("containers", "ls")
    folder = nomad_agent.alloc_root / alloc
    assert mounts_below(folder)
    nomad.stop_and_wait(work.name)
    nomad.collect_garbage()
    wait_until(lambda: not folder.exists(), 20, f"{folder} stays")
    for listing in ("containers", "tasks", "snapshots", "leases"):
        assert alloc not in containerd.ctr(listing, "ls")
    assert not mounts_below(folder)
    assert not work.pids()
    wait_until(lambda: not cgroups_named(alloc), 10, lambda: f"{cgroups_named(alloc)} stay")
    assert not [shim for shim in pids_with("containerd-shim") if shim in pids_with(alloc)]
    assert not Path("/var/run/netns", alloc).exists()


def test_ten_allocations_of_one_job_start_and_stop_side_by_side(
    nomad: NomadApi, work: Workload
) -> None:
    nomad.submit(work.job("trap 'exit 0' TERM; " + TICKING, count=10))

    def running() -> bool:
        states = [nomad.task(entry["ID"]).get("State") for entry in nomad.allocs(work.name)]
        return states == ["running"] * 10

    wait_until(running, 60, lambda: str([e["ClientStatus"] for e in nomad.allocs(work.name)]))
    for entry in nomad.allocs(work.name):
        nomad.wait_log(entry["ID"], "tick 1")
    nomad.stop_and_wait(work.name, purge=False)
    for entry in nomad.allocs(work.name):
        assert nomad.task(entry["ID"])["Restarts"] == 0
        assert event(nomad, entry["ID"], "Terminated")["Details"]["exit_code"] == "0"


# The death of the host


def test_a_task_does_not_notice_that_its_agent_was_killed_and_started_again(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload
) -> None:
    alloc = nomad.run(work.job("trap 'exit 5' TERM; " + TICKING))
    nomad.wait_log(alloc, "tick 3")
    before = work.pids()
    nomad_agent.kill()
    nomad_agent.start()
    goes_on(nomad, work, alloc, before)


def test_a_task_does_not_notice_that_its_agent_and_plugin_were_killed(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload
) -> None:
    alloc = nomad.run(work.job("trap 'exit 5' TERM; " + TICKING))
    nomad.wait_log(alloc, "tick 3")
    before = work.pids()
    nomad_agent.kill()
    for pid in nomad_agent.plugin_pids():
        os.kill(pid, signal.SIGKILL)
    nomad_agent.start()
    goes_on(nomad, work, alloc, before)


def test_a_task_does_not_notice_that_its_agent_was_stopped_and_started_again(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload
) -> None:
    alloc = nomad.run(work.job("trap 'exit 5' TERM; " + TICKING))
    nomad.wait_log(alloc, "tick 3")
    before = work.pids()
    nomad_agent.kill(signal.SIGTERM)
    wait_until(lambda: not nomad_agent.plugin_pids(), 10, "the plugin outlives its agent's stop")
    nomad_agent.start()
    goes_on(nomad, work, alloc, before)


def test_an_exit_while_the_agent_is_away_is_reported_when_it_is_back(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload
) -> None:
    script = "echo begun; while test ! -e /alloc/data/end; do sleep 0.05; done; echo last; exit 12"
    alloc = nomad.run(work.job(script, kind="batch"))
    nomad.wait_log(alloc, "begun")
    nomad_agent.kill()
    (nomad_agent.alloc_root / alloc / "alloc" / "data" / "end").touch()
    wait_until(lambda: not work.pids(), 10, "the task does not end")
    nomad_agent.start()
    nomad.wait_over(alloc)
    assert event(nomad, alloc, "Terminated")["Details"]["exit_code"] == "12", nomad.story(alloc)
    assert nomad.wait_log(alloc, "last") == "begun\nlast\n"


def test_a_task_does_not_notice_that_the_plugin_was_killed(
    nomad: NomadApi, nomad_agent: NomadAgent, work: Workload
) -> None:
    alloc = nomad.run(work.job("trap 'exit 5' TERM; " + TICKING))
    nomad.wait_log(alloc, "tick 3")
    before = work.pids()
    old = set(nomad_agent.plugin_pids())
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(nomad_agent.plugin_pids()) - old, 20, "no new plugin comes up")
    goes_on(nomad, work, alloc, before)
