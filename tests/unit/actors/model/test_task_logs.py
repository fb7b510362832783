"""The collector of a task's log: paths for shim and worker, and the collector in the handle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgpack
import pytest

from actors.handles.handle import VERSION, HandleState
from actors.lifecycle import plan
from actors.model.nomad import TaskConfig
from actors.model.settings import DriverSettings, LogOptions, TaskOptions
from actors.model.task_logs import (
    NOMAD_LOG,
    NONE,
    LogTarget,
    shim_paths,
    target_of,
    unused,
    worker_fields,
)
from proto.errors import DriverError
from tests.support.plugin.services import services
from workers.protocol import FILES, JOURNALD

NOMAD = ("/a/alloc/logs/.web.stdout.fifo", "/a/alloc/logs/.web.stderr.fifo")
COLLECTS = DriverSettings(log_collection="driver", log_max_files=3, log_max_file_bytes=1 << 20)
DIRECTORY = Path("/run/d/tasks/web")


TASK = TaskConfig(
    id="a1/web/1",
    name="web",
    alloc_id="a1",
    job_id="shop",
    job_name="shop\nPRIORITY=0",
    task_group_name="front",
    namespace="default",
)


def target(settings: DriverSettings, logging: LogOptions | None = None) -> LogTarget:
    """Chooses the collector of a task."""
    options = TaskOptions(image="redis:7", logging=logging)
    return target_of(settings, options, TASK, "web-0123456789abcdef")


def test_by_default_shim_and_worker_have_the_fifos_of_nomad() -> None:
    chosen = target(DriverSettings())
    assert chosen == NOMAD_LOG
    assert shim_paths(chosen, DIRECTORY, NOMAD) == NOMAD
    assert worker_fields(chosen, NOMAD) == {"stdout": NOMAD[0], "stderr": NOMAD[1]}


def test_a_collected_log_has_own_fifos_and_the_files_of_logmon() -> None:
    chosen = target(COLLECTS)
    own = (f"{DIRECTORY}/stdout.fifo", f"{DIRECTORY}/stderr.fifo")
    assert shim_paths(chosen, DIRECTORY, NOMAD) == own
    assert worker_fields(chosen, NOMAD) == {
        "stdout": "/a/alloc/logs/web.stdout",
        "stderr": "/a/alloc/logs/web.stderr",
        "log_type": FILES,
        "log_files": 3,
        "log_file_bytes": 1 << 20,
    }


def test_the_plugin_block_has_the_log_of_tasks_without_their_own() -> None:
    journal = LogOptions(type=JOURNALD, tag="{{.Name}}")
    settings = dataclasses.replace(COLLECTS, logging=journal)
    assert target(settings).type == JOURNALD
    assert target(settings, LogOptions(type=FILES, max_files=2)).max_files == 2
    small = dataclasses.replace(DriverSettings(), logging=LogOptions(type=FILES, max_files=2))
    assert target(small) == NOMAD_LOG


@pytest.mark.parametrize("none", ["/dev/null", ""])
def test_a_job_without_logs_has_none_with_either_collector(none: str) -> None:
    task = TaskConfig(id="a/t/1", name="t", alloc_id="a", stdout_path=none, stderr_path=none)
    made = plan.make(services(COLLECTS), task, TaskOptions(image="redis"))
    assert (made.stdout, made.stderr) == ("", "")
    fields = worker_fields(target(COLLECTS), (none, none))
    assert (fields["stdout"], fields["stderr"]) == (none, none)


def test_one_stream_without_log_goes_to_dev_null() -> None:
    task = TaskConfig(id="a/t/1", name="t", alloc_id="a", stdout_path=NOMAD[0])
    made = plan.make(services(COLLECTS), task, TaskOptions(image="redis"))
    assert made.stdout.endswith("/stdout.fifo")
    assert made.stderr == "/dev/null"


def test_the_numbers_of_a_task_win() -> None:
    wanted = LogOptions(type=FILES, max_files=7)
    assert target(COLLECTS, wanted) == LogTarget(type=FILES, max_files=7, max_file_bytes=1 << 20)


def test_none_has_neither_fifo_nor_collector() -> None:
    chosen = target(COLLECTS, LogOptions(type=NONE))
    assert not chosen.has_collector
    assert shim_paths(chosen, DIRECTORY, NOMAD) == ("", "")
    assert worker_fields(chosen, NOMAD) == {}


def test_the_journal_gets_fields_of_container_and_task_with_a_line_each() -> None:
    wanted = LogOptions(type=JOURNALD, tag="{{.Name}}/{{ .ID }}/{{.ImageName}}")
    fields = worker_fields(target(COLLECTS, wanted), (NOMAD[0], "/dev/null"))
    assert (fields["stdout"], fields["stderr"]) == ("stdout", "")
    lines = str(fields["journal_fields"]).splitlines()
    assert lines == [
        "CONTAINER_NAME=web-0123456789abcdef",
        "CONTAINER_ID=web-01234567",
        "CONTAINER_ID_FULL=web-0123456789abcdef",
        "CONTAINER_TAG=web/web-01234567/redis:7",
        "SYSLOG_IDENTIFIER=web/web-01234567/redis:7",
        "IMAGE_NAME=redis:7",
        "NOMAD_ALLOC_ID=a1",
        "NOMAD_TASK_NAME=web",
        "NOMAD_GROUP_NAME=front",
        "NOMAD_JOB_ID=shop",
        "NOMAD_JOB_NAME=shop PRIORITY=0",
        "NOMAD_NAMESPACE=default",
    ]
    plain = target(COLLECTS, LogOptions(type=JOURNALD))
    assert "\nSYSLOG_IDENTIFIER=web\n" in plain.journal_fields


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (LogOptions(type=NONE), "the type none has no effect where Nomad collects the logs"),
        (LogOptions(type=JOURNALD), "the type journald is not possible where Nomad collects"),
    ],
)
def test_what_nomads_collector_cannot_do_is_refused_with_the_remedy(
    wanted: LogOptions, text: str
) -> None:
    with pytest.raises(DriverError) as caught:
        target(DriverSettings(), wanted)
    assert text in str(caught.value)
    assert "log_collection" in caught.value.resolution
    assert target(DriverSettings(), LogOptions(type=FILES, tag="x")) == NOMAD_LOG


def test_limits_of_files_that_nomad_writes_are_no_obstacle_and_one_warning() -> None:
    docker_job = TaskOptions(image="redis:7", logging=LogOptions(type=FILES, max_files=2))
    made = plan.make(services(), TASK, docker_job)
    assert made.log == NOMAD_LOG
    (warning,) = made.warnings
    assert "max-file and max-size" in warning
    assert "logs block" in warning
    assert unused(COLLECTS, docker_job) == ()
    assert unused(DriverSettings(), TaskOptions(image="redis:7")) == ()


def handle(log: LogTarget) -> HandleState:
    return HandleState(
        container_id="c",
        containerd_namespace="nomad",
        snapshotter="overlayfs",
        boot_id="boot",
        started_at_ns=1,
        pid=1,
        stdout_path=NOMAD[0],
        stderr_path=NOMAD[1],
        stop_signal="",
        image="busybox",
        log=log,
    )


def test_the_handle_has_the_collector_and_an_older_handle_means_nomad() -> None:
    state = handle(target(COLLECTS))
    assert HandleState.decode(VERSION, state.encode()) == state
    fields = msgpack.unpackb(state.encode())
    del fields["log"]
    assert HandleState.decode(VERSION, msgpack.packb(fields)).log == NOMAD_LOG
    fields["log"] = {"type": "files", "unknown": 1}
    assert HandleState.decode(VERSION, msgpack.packb(fields)).log == LogTarget(type="files")


@pytest.mark.parametrize("log", ["files", None, {"type": 1}, {"max_files": "3"}])
def test_a_damaged_collector_in_a_handle_is_refused(log: object) -> None:
    fields = msgpack.unpackb(handle(NOMAD_LOG).encode())
    with pytest.raises(DriverError, match="failed to decode task state from handle"):
        HandleState.decode(VERSION, msgpack.packb({**fields, "log": log}))
