"""Every RPC of the plugin, over its socket, with a gateway that runs no containers behind it.

What a clumsy or hostile caller sends must end in a clear error or a whole answer: Nomad's agent
dereferences what it gets, and takes some errors for the end of a task.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest

from proto.nomad import base_pb2, driver_pb2, health_pb2, rpc_status_pb2, shared_structs_pb2
from proto.release import RELEASE
from tests.support.fake_gateway import HANDLE_VERSION, STARTED_AT_NS
from tests.support.plugin_dir import make_plugin_dir
from tests.support.plugin_process import (
    BASE,
    CONTROLLER,
    DEADLINE_S,
    DRIVER,
    HEALTH,
    PluginProcess,
    make_fake_plugin,
)
from tests.support.waiting import wait_until

UNARIES = [
    "TaskConfigSchema",
    "Capabilities",
    "RecoverTask",
    "StartTask",
    "WaitTask",
    "StopTask",
    "DestroyTask",
    "InspectTask",
    "Shutdown",
    "SignalTask",
    "ExecTask",
    "CreateNetwork",
    "DestroyNetwork",
    "Init",
]
Exec = driver_pb2.ExecTaskStreamingRequest


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginProcess]:
    """One process for the whole file; at its end it must still be one that nothing has hurt."""
    with PluginProcess(make_fake_plugin(tmp_path_factory.mktemp("fake"))) as process:
        yield process
        process.driver("Init")
        process.shut_down()
        assert process.rest_of_stdout() == b""
        process.log()  # every line is one that an agent survives


def _task(name: str, *, image: str = "busybox", **fields: Any) -> driver_pb2.TaskConfig:
    fields.setdefault("msgpack_driver_config", msgpack.packb({"image": image}))
    return driver_pb2.TaskConfig(id=f"alloc/{name}/0123abcd", name=name, alloc_id="alloc", **fields)


def _started(plugin: PluginProcess, name: str) -> str:
    task = _task(name)
    plugin.driver("StartTask", task=task)
    return task.id


def _failure(plugin: PluginProcess, method: str, **fields: Any) -> Any:
    with pytest.raises(grpc.RpcError) as failed:
        plugin.driver(method, **fields)
    return failed.value


def _text(failed: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return failed.value.details() or ""


def _raw(plugin: PluginProcess, path: str, request: bytes) -> bytes:
    channel: Any = plugin.channel
    answer: bytes = channel.unary_unary(path)(request, timeout=DEADLINE_S)
    return answer


def _answered_or_refused(plugin: PluginProcess, method: str, **fields: Any) -> None:
    request = getattr(driver_pb2, f"{method}Request")(**fields)
    call = plugin.unary_call(DRIVER, method).future(request, timeout=DEADLINE_S)
    # FAILED_PRECONDITION: it may work when tried again.
    refused = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.FAILED_PRECONDITION}
    assert call.code() in {grpc.StatusCode.OK, *refused}, call.details()
    if call.code() in refused:
        assert call.details()
        assert "the containerd driver failed inside" not in call.details()


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
    text = _text(failed)
    assert 'stats_intervall: no such option, did you mean "stats_interval"?' in text
    assert "enabled: 'yes' is not true or false" in text
    assert "state_dir: 'run' is not an absolute path" in text


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x81", b"\x93\x01", b"\x81\x90\x01", b"\xc1"])
def test_garbage_config_is_a_clear_error(plugin: PluginProcess, garbage: bytes) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        plugin.unary(BASE, "SetConfig", base_pb2.SetConfigRequest(msgpack_config=garbage))
    assert "failed to decode driver config" in _text(failed)
    task = _task("garbage", msgpack_driver_config=garbage)
    failure = _failure(plugin, "StartTask", task=task)
    assert failure.code() is grpc.StatusCode.UNKNOWN
    assert "failed to decode driver config" in failure.details()


@pytest.mark.parametrize("method", UNARIES)
def test_an_empty_request_gets_an_answer_or_a_clear_error(
    plugin: PluginProcess, method: str
) -> None:
    _answered_or_refused(plugin, method)


@pytest.mark.parametrize("method", UNARIES)
def test_bytes_that_are_no_message_end_the_call_and_not_the_plugin(
    plugin: PluginProcess, method: str
) -> None:
    with pytest.raises(grpc.RpcError):
        _raw(plugin, f"/{DRIVER}/{method}", b"\x0a\xff\xff\xff\xff\xff")
    assert plugin.child.poll() is None


def test_methods_and_services_that_do_not_exist_are_unimplemented(plugin: PluginProcess) -> None:
    for path in (f"/{DRIVER}/Frobnicate", "/plugin.GRPCStdio/StreamStdio", "/x/y", "/x"):
        with pytest.raises(grpc.RpcError) as failed:
            _raw(plugin, path, b"")
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED, path


def test_start_gives_the_request_back_in_a_handle(plugin: PluginProcess) -> None:
    task = _task("handle", env={"A": "1"}, user="nobody")
    answer = plugin.driver("StartTask", task=task)
    assert answer.handle.config == task
    assert answer.handle.version == HANDLE_VERSION
    assert answer.handle.state == driver_pb2.RUNNING
    assert answer.handle.driver_state == task.id.encode()
    assert answer.result == driver_pb2.StartTaskResponse.SUCCESS


def test_an_environment_of_five_megabytes_arrives_whole(plugin: PluginProcess) -> None:
    events = iter(plugin.stream("TaskEvents"))
    task = _task("huge", env={"BIG": "x" * 5_000_000})
    assert plugin.driver("StartTask", task=task).handle.config.env["BIG"][-1] == "x"
    event = next(event for event in events if event.task_id == task.id)
    assert event.message == "started with 5000000 bytes of environment"
    assert (event.alloc_id, event.task_name) == ("alloc", "huge")
    assert event.timestamp.ToNanoseconds() == STARTED_AT_NS
    assert dict(event.annotations) == {"image": "busybox"}


def test_a_final_failure_is_an_unknown_without_details(plugin: PluginProcess) -> None:
    failure = _failure(plugin, "StartTask", task=_task("final", image="fail-final"))
    assert failure.code() is grpc.StatusCode.UNKNOWN
    assert failure.details() == "this image is wrong for ever"
    assert "grpc-status-details-bin" not in dict(failure.trailing_metadata())


@pytest.mark.parametrize("image", ["fail-recoverable", "fail-long"])
def test_a_recoverable_failure_says_so_in_nomads_own_form(
    plugin: PluginProcess, image: str
) -> None:
    failure = _failure(plugin, "StartTask", task=_task("again", image=image))
    assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION
    status = rpc_status_pb2.Status()
    status.ParseFromString(dict(failure.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (9, failure.details())
    assert "\n" not in failure.details()
    recoverable = shared_structs_pb2.RecoverableError()
    # Go's ptypes.UnmarshalAny goes by this name.
    assert status.details[0].type_url.endswith(
        "/hashicorp.nomad.plugins.shared.structs.RecoverableError"
    )
    assert status.details[0].Unpack(recoverable)
    assert recoverable.recoverable


def test_an_unexpected_failure_is_told_and_logged_once_with_its_traceback(
    plugin: PluginProcess,
) -> None:
    failure = _failure(plugin, "StartTask", task=_task("defect", image="fail-unexpected"))
    assert failure.code() is grpc.StatusCode.UNKNOWN
    assert "ZeroDivisionError: a defect of two lines" in failure.details()

    def logged() -> list[dict[str, Any]]:
        return [item for item in plugin.log() if item.get("rpc") == "start_task"]

    (record,) = wait_until(logged, DEADLINE_S)
    assert record["@level"] == "error"
    assert "Traceback" in record["exception"]
    assert "fake_gateway.py" in record["exception"]


def test_a_second_start_of_the_same_task_is_refused(plugin: PluginProcess) -> None:
    task_id = _started(plugin, "twice")
    failure = _failure(plugin, "StartTask", task=_task("twice"))
    assert failure.details() == f'task with ID "{task_id}" already started'


def test_wait_answers_every_caller_and_never_ends_for_a_passing_failure(
    plugin: PluginProcess,
) -> None:
    task_id = _started(plugin, "wait")
    call = plugin.unary_call(DRIVER, "WaitTask")
    # The fake's first two waits fail: with containerd away, and with a defect.
    waits = [
        call.future(driver_pb2.WaitTaskRequest(task_id=task_id), timeout=DEADLINE_S)
        for _ in range(3)
    ]
    wait_until(lambda: any(item.get("call") == "wait" for item in plugin.log()), DEADLINE_S)
    assert not any(wait.done() for wait in waits)
    plugin.driver("StopTask", task_id=task_id, timeout={"seconds": 5}, signal="15")
    for wait in waits:
        answer = wait.result()
        assert answer.HasField("result")
        assert (answer.result.exit_code, answer.err) == (15, "after 5 s")
    # And again after the end, for as long as the task is not destroyed.
    assert plugin.driver("WaitTask", task_id=task_id).result.exit_code == 15
    plugin.driver("DestroyTask", task_id=task_id, force=True)
    assert "task not found" in _failure(plugin, "WaitTask", task_id=task_id).details()


def test_an_exit_status_beyond_nomads_range_still_ends_the_wait(plugin: PluginProcess) -> None:
    task_id = _started(plugin, "status")
    plugin.driver("StopTask", task_id=task_id, signal="4294967295")
    assert plugin.driver("WaitTask", task_id=task_id).result.exit_code == -1


def test_inspect_fills_every_message_within(plugin: PluginProcess) -> None:
    answer = plugin.driver("InspectTask", task_id=_started(plugin, "inspect"))
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
    failure = _failure(plugin, method, task_id="alloc/nobody/00000000", **extra)
    assert failure.details() == "task not found for given id"


def test_a_task_that_runs_is_destroyed_only_by_force(plugin: PluginProcess) -> None:
    task_id = _started(plugin, "destroy")
    failure = _failure(plugin, "DestroyTask", task_id=task_id)
    assert failure.details() == "cannot destroy running task"
    plugin.driver("DestroyTask", task_id=task_id, force=True)


def test_a_task_is_recovered_by_its_handle_alone(plugin: PluginProcess) -> None:
    task = _task("recover", msgpack_driver_config=b"")
    handle = driver_pb2.TaskHandle(
        version=HANDLE_VERSION,
        config=task,
        state=driver_pb2.RUNNING,
        driver_state=task.id.encode(),
    )
    plugin.driver("RecoverTask", handle=handle)
    plugin.driver("InspectTask", task_id=task.id)


def test_recovery_without_a_handle_or_a_task_is_refused(plugin: PluginProcess) -> None:
    assert _failure(plugin, "RecoverTask").details() == "error: handle cannot be nil"
    empty = driver_pb2.TaskHandle()
    assert "without an id" in _failure(plugin, "RecoverTask", handle=empty).details()
    foreign = driver_pb2.TaskHandle(version=99, config=_task("foreign"), driver_state=b"\x00")
    failure = _failure(plugin, "RecoverTask", handle=foreign)
    assert failure.details() == "failed to decode task state from handle"


def test_an_invalid_signal_is_named(plugin: PluginProcess) -> None:
    task_id = _started(plugin, "signal")
    plugin.driver("SignalTask", task_id=task_id, signal="SIGHUP")
    failure = _failure(plugin, "SignalTask", task_id=task_id, signal="INVALID")
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
    task_id = _started(plugin, "stats")
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
    # Calls that came later are answered first: the stream waits, or Nomad would ask in a loop.
    plugin.driver("Capabilities")
    assert not ended.is_set()
    assert list(samples) == []
    assert samples.code() is grpc.StatusCode.OK


def test_cancelled_stats_stop_the_sampling(plugin: PluginProcess) -> None:
    samples = plugin.stream("TaskStats", task_id=_started(plugin, "cancel"))
    next(iter(samples))
    samples.cancel()
    plugin.driver("Capabilities")


def test_exec_task_has_output_and_result(plugin: PluginProcess) -> None:
    task_id = _started(plugin, "script")
    answer = plugin.driver(
        "ExecTask", task_id=task_id, command=["true", "x"], timeout={"nanos": 500_000_000}
    )
    assert (answer.stdout, answer.stderr) == (b"true x", b"0.5")
    assert answer.HasField("result")
    assert answer.result.exit_code == 2


def _setup(task_id: str, *command: str, tty: bool = False) -> Exec:
    return Exec(setup=Exec.Setup(task_id=task_id, command=list(command), tty=tty))


def test_exec_carries_streams_and_sizes_and_ends_with_the_exit_alone(
    plugin: PluginProcess,
) -> None:
    requests = [
        _setup(_started(plugin, "cat"), "cat", tty=True),
        Exec(tty_size=Exec.TerminalSize(height=24, width=80)),
        Exec(tty_size=Exec.TerminalSize(height=-1, width=99_999)),
        Exec(),
        Exec(stdin={"data": b"one"}),
        Exec(stdin={"data": b"two" * 100_000}),
        Exec(stdin={"close": True}),
    ]
    answers = list(plugin.execute(iter(requests)))
    assert answers[0].stderr.data == b"True (24, 80)"
    assert b"".join(answer.stdout.data for answer in answers) == b"one" + b"two" * 100_000
    assert answers[-2].stdout.close
    last = answers[-1]
    assert last.exited
    assert last.result.exit_code == 7
    assert not last.HasField("stdout")
    assert not last.HasField("stderr")


@pytest.mark.parametrize(
    "requests",
    [[], [Exec()], [Exec(stdin={"data": b"x"})], [Exec(setup=Exec.Setup(task_id="x"))]],
    ids=["nothing", "heartbeat", "stdin", "no command"],
)
def test_exec_that_does_not_begin_with_a_setup_is_refused(
    plugin: PluginProcess, requests: list[Exec]
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        list(plugin.execute(iter(requests)))
    assert failed.value.code() is grpc.StatusCode.UNKNOWN
    assert "exec" in _text(failed)


def test_exec_in_an_unknown_task_says_not_found(plugin: PluginProcess) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        list(plugin.execute(iter([_setup("alloc/nobody/00000000", "true")])))
    assert _text(failed) == "task not found for given id"


@pytest.mark.parametrize(
    ("command", "text"), [("half", "without an exit code"), ("break", "ZeroDivisionError")]
)
def test_an_exec_that_breaks_off_is_an_error_and_no_success(
    plugin: PluginProcess, command: str, text: str
) -> None:
    requests: queue.Queue[Exec] = queue.Queue()
    requests.put(_setup(_started(plugin, f"exec-{command}"), command))
    with pytest.raises(grpc.RpcError) as failed:
        list(plugin.execute(iter(requests.get, None)))
    requests.put(Exec())
    requests.put(None)  # type: ignore[arg-type]
    assert failed.value.code() is grpc.StatusCode.UNKNOWN
    assert text in _text(failed)


def test_an_exec_whose_caller_cancels_is_closed(plugin: PluginProcess) -> None:
    requests: queue.Queue[Exec | None] = queue.Queue()
    requests.put(_setup(_started(plugin, "leave"), "forever"))
    answers = plugin.execute(iter(requests.get, None))
    assert next(answers).stdout.data == b"running"
    answers.cancel()
    requests.put(None)
    wait_until(
        lambda: any(item.get("command") == "forever" for item in plugin.log()),
        DEADLINE_S,
        "the exec was not closed",
    )


def test_two_hundred_waits_and_streams_leave_room_for_a_stop(plugin: PluginProcess) -> None:
    wait = plugin.unary_call(DRIVER, "WaitTask")
    ids = [_started(plugin, f"many-{number}") for number in range(100)]
    waits = [wait.future(driver_pb2.WaitTaskRequest(task_id=task_id)) for task_id in ids]
    streams = [plugin.stream("TaskStats", task_id=task_id) for task_id in ids]
    for stream in streams:
        next(iter(stream))
    for task_id in ids:
        plugin.driver("StopTask", task_id=task_id, signal="9")
    assert {each.result(DEADLINE_S).result.exit_code for each in waits} == {9}
    for stream in streams:
        stream.cancel()


def test_the_controllers_empty_message_takes_unknown_fields(tmp_path: Path) -> None:
    with PluginProcess(make_fake_plugin(tmp_path)) as plugin:
        assert _raw(plugin, f"/{CONTROLLER}/Shutdown", b"\x0a\x01x") == b""
        plugin.child.wait(DEADLINE_S)
        assert plugin.child.returncode == 0


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginProcess]:
    """The product's own actors, with no containerd anywhere."""
    directory = tmp_path_factory.mktemp("product")
    with PluginProcess(make_plugin_dir(directory / "plugins")) as process:
        yield process
        process.shut_down()
        assert process.rest_of_stdout() == b""
        process.log()


def _configure(product: PluginProcess, directory: Path) -> None:
    config = {"containerd_address": f"{directory}/nowhere.sock", "state_dir": f"{directory}/state"}
    request = base_pb2.SetConfigRequest(msgpack_config=msgpack.packb(config))
    product.unary(BASE, "SetConfig", request)


MEANINGLESS: list[dict[str, str]] = [
    {},
    {"task_id": "a/b/00000000"},
    {"task_id": "\n../\0"},
    {"task_id": "/" * 100_000},
]


def _ask_everything(product: PluginProcess, fields: dict[str, str]) -> None:
    for method in UNARIES:
        known = getattr(driver_pb2, f"{method}Request").DESCRIPTOR.fields_by_name
        _answered_or_refused(product, method, **{k: v for k, v in fields.items() if k in known})


@pytest.mark.parametrize("fields", MEANINGLESS, ids=["empty", "unknown", "hostile", "long"])
def test_the_products_actors_answer_or_refuse_what_means_nothing(
    product: PluginProcess, tmp_path: Path, fields: dict[str, str]
) -> None:
    _configure(product, tmp_path)
    _ask_everything(product, fields)


def test_the_products_actors_answer_or_refuse_before_they_are_configured(tmp_path: Path) -> None:
    with PluginProcess(make_plugin_dir(tmp_path)) as product:
        for fields in MEANINGLESS:
            _ask_everything(product, fields)
        product.shut_down()


def test_without_containerd_the_product_is_unhealthy_with_the_reason(
    product: PluginProcess, tmp_path: Path
) -> None:
    _configure(product, tmp_path)
    look = next(iter(product.stream("Fingerprint")))
    assert look.health == driver_pb2.FingerprintResponse.UNHEALTHY
    assert f"{tmp_path}/nowhere.sock" in look.health_description
    failure = _failure(product, "StartTask", task=_task("nowhere"))
    assert failure.code() in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNKNOWN}
    assert "the containerd driver failed inside" not in failure.details()
