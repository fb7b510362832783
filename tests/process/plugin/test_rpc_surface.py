"""Tests of every RPC of the plugin, over the socket, with a gateway that runs no containers.

Clumsy or hostile requests must end in a clear error or a whole answer. Nomad's agent dereferences
every answer, and takes some errors for the end of a task.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest

from proto.nomad import base_pb2, driver_pb2, health_pb2, rpc_status_pb2, shared_structs_pb2
from proto.release import RELEASE
from tests.support.fakes.gateway import HANDLE_VERSION, STARTED_AT_NS
from tests.support.plugin.plugin_calls import (
    UNARIES,
    answered_or_refused,
    failure_of,
    raw_call,
    started,
    task_message,
    text_of,
    unhurt,
)
from tests.support.plugin.plugin_process import (
    BASE,
    CONTROLLER,
    DEADLINE_S,
    DRIVER,
    HEALTH,
    PluginProcess,
    make_fake_plugin,
)
from tests.support.waiting import slowed, wait_until


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginProcess]:
    """Yields one process for the whole file."""
    with unhurt(make_fake_plugin(tmp_path_factory.mktemp("fake"))) as process:
        yield process


def test_plugin_info_names_a_driver_with_the_one_api_version(plugin: PluginProcess) -> None:
    info = plugin.unary(BASE, "PluginInfo", base_pb2.PluginInfoRequest())
    assert info.type == base_pb2.DRIVER
    assert list(info.plugin_api_versions) == ["v0.1.0"]
    assert info.plugin_version == f"v{RELEASE}"
    assert info.name == "containerd-driver"


def test_health_is_serving(plugin: PluginProcess) -> None:
    request = health_pb2.HealthCheckRequest(service="plugin")
    assert plugin.unary(HEALTH, "Check", request).status == health_pb2.HealthCheckResponse.SERVING


def test_schemas_of_driver_and_task_are_objects(plugin: PluginProcess) -> None:
    driver = plugin.unary(BASE, "ConfigSchema", base_pb2.ConfigSchemaRequest())
    task = plugin.driver("TaskConfigSchema")
    assert "containerd_runtime" in driver.spec.object.attributes
    assert task.spec.object.attributes["image"].Attr.required


def test_capabilities_are_constant_and_whole(plugin: PluginProcess) -> None:
    first, second = plugin.driver("Capabilities"), plugin.driver("Capabilities")
    assert first == second
    found = first.capabilities
    assert (found.send_signals, found.exec, found.must_create_network) == (True, True, False)
    assert found.fs_isolation == driver_pb2.DriverCapabilities.IMAGE
    assert found.mount_configs == driver_pb2.DriverCapabilities.ANY_MOUNTS
    isolation = driver_pb2.NetworkIsolationSpec
    assert list(found.network_isolation_modes) == [isolation.GROUP, isolation.TASK]


@pytest.mark.parametrize("config", [b"", b"\xc0", msgpack.packb({"enabled": True, "auth": None})])
def test_set_config_may_come_often_and_as_a_probe(plugin: PluginProcess, config: bytes) -> None:
    for _ in range(3):
        plugin.unary(BASE, "SetConfig", base_pb2.SetConfigRequest(msgpack_config=config))


def test_set_config_names_every_problem(plugin: PluginProcess) -> None:
    config = msgpack.packb({"stats_intervall": "1s", "enabled": "yes", "state_dir": "run"})
    with pytest.raises(grpc.RpcError) as failed:
        plugin.unary(BASE, "SetConfig", base_pb2.SetConfigRequest(msgpack_config=config))
    text = text_of(failed)
    assert 'stats_intervall: no such option, did you mean "stats_interval"?' in text
    assert "enabled: 'yes' is not true or false" in text
    assert "state_dir: 'run' is not an absolute path" in text


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x81", b"\x93\x01", b"\x81\x90\x01", b"\xc1"])
def test_garbage_config_is_a_clear_error(plugin: PluginProcess, garbage: bytes) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        plugin.unary(BASE, "SetConfig", base_pb2.SetConfigRequest(msgpack_config=garbage))
    assert "failed to decode driver config" in text_of(failed)
    task = task_message("garbage", msgpack_driver_config=garbage)
    failure = failure_of(plugin, "StartTask", task=task)
    assert failure.code() is grpc.StatusCode.UNKNOWN
    assert "failed to decode driver config" in failure.details()


@pytest.mark.parametrize("method", UNARIES)
def test_an_empty_request_gets_an_answer_or_a_clear_error(
    plugin: PluginProcess, method: str
) -> None:
    answered_or_refused(plugin, method)


@pytest.mark.parametrize("method", UNARIES)
def test_bytes_that_are_no_message_end_the_call_and_not_the_plugin(
    plugin: PluginProcess, method: str
) -> None:
    with pytest.raises(grpc.RpcError):
        raw_call(plugin, f"/{DRIVER}/{method}", b"\x0a\xff\xff\xff\xff\xff")
    assert plugin.child.poll() is None


def test_methods_and_services_that_do_not_exist_are_unimplemented(plugin: PluginProcess) -> None:
    for path in (f"/{DRIVER}/Frobnicate", "/plugin.GRPCStdio/StreamStdio", "/x/y", "/x"):
        with pytest.raises(grpc.RpcError) as failed:
            raw_call(plugin, path, b"")
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED, path


def test_start_gives_the_request_back_in_a_handle(plugin: PluginProcess) -> None:
    task = task_message("handle", env={"A": "1"}, user="nobody")
    answer = plugin.driver("StartTask", task=task)
    assert answer.handle.config == task
    assert answer.handle.version == HANDLE_VERSION
    assert answer.handle.state == driver_pb2.RUNNING
    assert answer.handle.driver_state == task.id.encode()
    assert answer.result == driver_pb2.StartTaskResponse.SUCCESS


def test_an_environment_of_five_megabytes_arrives_whole(plugin: PluginProcess) -> None:
    events = iter(plugin.stream("TaskEvents"))
    task = task_message("huge", env={"BIG": "x" * 5_000_000})
    assert plugin.driver("StartTask", task=task).handle.config.env["BIG"][-1] == "x"
    event = next(event for event in events if event.task_id == task.id)
    assert event.message == "started with 5000000 bytes of environment"
    assert (event.alloc_id, event.task_name) == ("alloc", "huge")
    assert event.timestamp.ToNanoseconds() == STARTED_AT_NS
    assert dict(event.annotations) == {"image": "busybox"}


def test_a_final_failure_is_an_unknown_without_details(plugin: PluginProcess) -> None:
    failure = failure_of(plugin, "StartTask", task=task_message("final", image="fail-final"))
    assert failure.code() is grpc.StatusCode.UNKNOWN
    assert failure.details() == "this image is wrong for ever"
    assert "grpc-status-details-bin" not in dict(failure.trailing_metadata())


@pytest.mark.parametrize("image", ["fail-recoverable", "fail-long"])
def test_a_recoverable_failure_says_so_in_nomads_own_form(
    plugin: PluginProcess, image: str
) -> None:
    failure = failure_of(plugin, "StartTask", task=task_message("again", image=image))
    assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION
    status = rpc_status_pb2.Status()
    status.ParseFromString(dict(failure.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (9, failure.details())
    assert "\n" not in failure.details()
    recoverable = shared_structs_pb2.RecoverableError()
    # Go's ptypes.UnmarshalAny reads the type from this name.
    assert status.details[0].type_url.endswith(
        "/hashicorp.nomad.plugins.shared.structs.RecoverableError"
    )
    assert status.details[0].Unpack(recoverable)
    assert recoverable.recoverable


def test_an_unexpected_failure_is_told_and_logged_once_with_its_traceback(
    plugin: PluginProcess,
) -> None:
    failure = failure_of(plugin, "StartTask", task=task_message("defect", image="fail-unexpected"))
    assert failure.code() is grpc.StatusCode.UNKNOWN
    assert "ZeroDivisionError: a defect of two lines" in failure.details()

    def logged() -> list[dict[str, Any]]:
        return [item for item in plugin.log() if item.get("rpc") == "start_task"]

    (record,) = wait_until(logged, DEADLINE_S)
    assert record["@level"] == "error"
    assert "Traceback" in record["exception"]
    assert "fakes/gateway.py" in record["exception"]


def test_a_second_start_of_the_same_task_is_refused(plugin: PluginProcess) -> None:
    task_id = started(plugin, "twice")
    failure = failure_of(plugin, "StartTask", task=task_message("twice"))
    assert failure.details() == f'task with ID "{task_id}" already started'


def test_wait_answers_every_caller_and_never_ends_for_a_passing_failure(
    plugin: PluginProcess,
) -> None:
    task_id = started(plugin, "wait")
    call = plugin.unary_call(DRIVER, "WaitTask")
    # The fake's first two waits fail: with containerd away, and with a defect.
    waits = [
        call.future(driver_pb2.WaitTaskRequest(task_id=task_id), timeout=slowed(DEADLINE_S))
        for _ in range(3)
    ]
    wait_until(lambda: any(item.get("rpc") == "wait" for item in plugin.log()), DEADLINE_S)
    assert not any(wait.done() for wait in waits)
    plugin.driver("StopTask", task_id=task_id, timeout={"seconds": 5}, signal="15")
    for wait in waits:
        answer = wait.result()
        assert answer.HasField("result")
        assert (answer.result.exit_code, answer.err) == (15, "after 5 s")
    # And again after the end, for as long as the task is not destroyed.
    assert plugin.driver("WaitTask", task_id=task_id).result.exit_code == 15
    plugin.driver("DestroyTask", task_id=task_id, force=True)
    assert "task not found" in failure_of(plugin, "WaitTask", task_id=task_id).details()


def test_an_exit_status_beyond_nomads_range_still_ends_the_wait(plugin: PluginProcess) -> None:
    task_id = started(plugin, "status")
    plugin.driver("StopTask", task_id=task_id, signal="4294967295")
    assert plugin.driver("WaitTask", task_id=task_id).result.exit_code == -1


def test_inspect_fills_every_message_within(plugin: PluginProcess) -> None:
    answer = plugin.driver("InspectTask", task_id=started(plugin, "inspect"))
    assert answer.task.HasField("started_at")
    assert answer.task.HasField("completed_at")
    assert answer.task.HasField("result")
    assert answer.task.state == driver_pb2.RUNNING
    assert answer.task.started_at.ToNanoseconds() == STARTED_AT_NS
    assert dict(answer.driver.attributes) == {"containerName": "inspect-alloc"}


@pytest.mark.parametrize("method", ["StopTask", "DestroyTask"])
def test_an_unknown_task_is_already_stopped_and_destroyed(
    plugin: PluginProcess, method: str
) -> None:
    plugin.driver(method, task_id="alloc/nobody/00000000")


@pytest.mark.parametrize("method", ["WaitTask", "InspectTask", "SignalTask", "ExecTask"])
def test_other_calls_for_an_unknown_task_say_that_it_is_not_found(
    plugin: PluginProcess, method: str
) -> None:
    extra = {"command": ["true"]} if method == "ExecTask" else {}
    failure = failure_of(plugin, method, task_id="alloc/nobody/00000000", **extra)
    assert failure.details() == "task not found for given id"


def test_a_task_that_runs_is_destroyed_only_by_force(plugin: PluginProcess) -> None:
    task_id = started(plugin, "destroy")
    failure = failure_of(plugin, "DestroyTask", task_id=task_id)
    assert failure.details() == "cannot destroy running task"
    plugin.driver("DestroyTask", task_id=task_id, force=True)


def test_a_task_is_recovered_by_its_handle_alone(plugin: PluginProcess) -> None:
    task = task_message("recover", msgpack_driver_config=b"")
    handle = driver_pb2.TaskHandle(
        version=HANDLE_VERSION,
        config=task,
        state=driver_pb2.RUNNING,
        driver_state=task.id.encode(),
    )
    plugin.driver("RecoverTask", handle=handle)
    plugin.driver("InspectTask", task_id=task.id)


def test_recovery_without_a_handle_or_a_task_is_refused(plugin: PluginProcess) -> None:
    assert failure_of(plugin, "RecoverTask").details() == "error: handle cannot be nil"
    empty = driver_pb2.TaskHandle()
    assert "without an id" in failure_of(plugin, "RecoverTask", handle=empty).details()
    foreign = driver_pb2.TaskHandle(
        version=99, config=task_message("foreign"), driver_state=b"\x00"
    )
    failure = failure_of(plugin, "RecoverTask", handle=foreign)
    assert failure.details() == "failed to decode task state from handle"


def test_an_invalid_signal_is_named(plugin: PluginProcess) -> None:
    task_id = started(plugin, "signal")
    plugin.driver("SignalTask", task_id=task_id, signal="SIGHUP")
    failure = failure_of(plugin, "SignalTask", task_id=task_id, signal="INVALID")
    assert failure.details() == "Invalid signal: INVALID"


def test_networks_are_left_to_nomad(plugin: PluginProcess) -> None:
    created = plugin.driver("CreateNetwork", alloc_id="alloc", hostname="web")
    assert not created.HasField("isolation_spec")
    assert not created.created
    plugin.driver("DestroyNetwork", alloc_id="alloc")


def test_fingerprint_outlives_a_defect_and_says_unhealthy_meanwhile(
    plugin: PluginProcess,
) -> None:
    prints = iter(plugin.stream("Fingerprint"))
    first = next(prints)
    assert first.health == driver_pb2.FingerprintResponse.HEALTHY
    assert first.attributes["driver.fake"].bool_val
    assert first.attributes["count"].int_val == 3
    assert first.attributes["share"].float_val == 0.5
    assert first.attributes["word"].string_val == "yes"
    second = next(prints)
    assert second.health == driver_pb2.FingerprintResponse.UNHEALTHY
    assert "a defect in the fingerprint" in second.health_description
    assert not second.err, "err would clear the node's attributes"
    assert next(prints).health == driver_pb2.FingerprintResponse.HEALTHY


def test_stats_are_whole_and_end_ok_with_the_task(plugin: PluginProcess) -> None:
    task_id = started(plugin, "stats")
    samples = plugin.stream("TaskStats", task_id=task_id, collection_interval={"nanos": 1})
    sample = next(iter(samples)).stats
    assert sample.id == task_id
    assert sample.timestamp.ToNanoseconds() == STARTED_AT_NS
    cpu, memory = sample.agg_resource_usage.cpu, sample.agg_resource_usage.memory
    assert (cpu.percent, cpu.throttled_time) == (1.5, 7)
    assert cpu.total_ticks == pytest.approx(0.1), "an interval of nothing is the shortest there is"
    assert driver_pb2.CPUUsage.THROTTLED_TIME in cpu.measured_fields
    assert driver_pb2.CPUUsage.THROTTLED_PERIODS not in cpu.measured_fields
    assert memory.usage == 4096
    measured = driver_pb2.MemoryUsage
    assert list(memory.measured_fields) == [measured.USAGE, measured.SWAP]
    plugin.driver("StopTask", task_id=task_id)
    assert all(more.HasField("stats") for more in samples)
    assert samples.code() is grpc.StatusCode.OK


def test_stats_of_an_unknown_task_end_ok_but_not_at_once(plugin: PluginProcess) -> None:
    samples = plugin.stream("TaskStats", task_id="alloc/nobody/00000000")
    ended = threading.Event()
    samples.add_callback(ended.set)
    # Later calls are answered first: the stream waits, or Nomad would ask in a loop.
    plugin.driver("Capabilities")
    assert not ended.is_set()
    assert list(samples) == []
    assert samples.code() is grpc.StatusCode.OK


def test_cancelled_stats_stop_the_sampling(plugin: PluginProcess) -> None:
    samples = plugin.stream("TaskStats", task_id=started(plugin, "cancel"))
    next(iter(samples))
    samples.cancel()
    plugin.driver("Capabilities")


def test_exec_task_has_output_and_result(plugin: PluginProcess) -> None:
    task_id = started(plugin, "script")
    answer = plugin.driver(
        "ExecTask", task_id=task_id, command=["true", "x"], timeout={"nanos": 500_000_000}
    )
    assert (answer.stdout, answer.stderr) == (b"true x", b"0.5")
    assert answer.HasField("result")
    assert answer.result.exit_code == 2


def test_two_hundred_waits_and_streams_leave_room_for_a_stop(plugin: PluginProcess) -> None:
    wait = plugin.unary_call(DRIVER, "WaitTask")
    ids = [started(plugin, f"many-{number}") for number in range(100)]
    waits = [wait.future(driver_pb2.WaitTaskRequest(task_id=task_id)) for task_id in ids]
    streams = [plugin.stream("TaskStats", task_id=task_id) for task_id in ids]
    for stream in streams:
        next(iter(stream))
    for task_id in ids:
        plugin.driver("StopTask", task_id=task_id, signal="9")
    assert {each.result(slowed(DEADLINE_S)).result.exit_code for each in waits} == {9}
    for stream in streams:
        stream.cancel()


def test_the_controllers_empty_message_takes_unknown_fields(tmp_path: Path) -> None:
    with PluginProcess(make_fake_plugin(tmp_path)) as plugin:
        assert raw_call(plugin, f"/{CONTROLLER}/Shutdown", b"\x0a\x01x") == b""
        plugin.child.wait(slowed(DEADLINE_S))
        assert plugin.child.returncode == 0
