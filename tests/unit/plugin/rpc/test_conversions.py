"""Conversions between protobuf and dataclasses: total both ways, no answer half-filled."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from actors.model import nomad
from plugin.rpc.conversions import (
    event_message,
    exec_response,
    exec_stream_response,
    fingerprint_response,
    inspect_response,
    network_response,
    read_exec_input,
    read_seconds,
    read_task_config,
    start_response,
    stats_response,
    wait_response,
)
from proto.errors import Code, DriverError
from proto.nomad import driver_pb2 as wire

_INT64 = st.integers(-(2**63), 2**63 - 1)
_INT32 = st.integers(-(2**31), 2**31 - 1)
# Python's strings may have half of a surrogate pair; protobuf's cannot.
_ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
_TEXT = st.text(max_size=20)
_RESULTS = st.builds(
    nomad.ExitResult,
    exit_code=st.integers(),
    signal=st.integers(),
    oom_killed=st.booleans(),
    error=_ANY_TEXT,
)


def _reparsed(message: Message) -> Any:
    return type(message).FromString(message.SerializeToString())


def test_a_whole_task_config_is_read() -> None:
    message = wire.TaskConfig(
        id="alloc/web/01234567",
        name="web",
        alloc_id="alloc",
        job_id="job",
        job_name="job name",
        task_group_name="group",
        namespace="default",
        node_name="node",
        node_id="n1",
        env={"A": "1"},
        device_env={"GPU": "0"},
        user="1000:1000",
        alloc_dir="/alloc",
        stdout_path="/out",
        stderr_path="/err",
        mounts=[{"task_path": "/t", "host_path": "/h", "readonly": True, "propagation_mode": "p"}],
        devices=[{"task_path": "/dev/t", "host_path": "/dev/h", "cgroup_permissions": "rwm"}],
        dns={"servers": ["1.1.1.1"], "searches": ["x"], "options": ["ndots:2"]},
        network_isolation_spec={
            "mode": wire.NetworkIsolationSpec.GROUP,
            "path": "/var/run/netns/alloc",
            "labels": {"l": "v"},
            "hostsConfig": {"hostname": "h", "address": "10.0.0.1"},
        },
        resources={
            "allocated_resources": {"memory": {"memory_mb": 256, "memory_max_mb": 512}},
            "linux_resources": {
                "cpu_shares": 500,
                "memory_limit_bytes": 2**29,
                "PercentTicks": 0.25,
                "cpuset_cpus": "0,1",
                "cpuset_cgroup": "/sys/fs/cgroup/x",
            },
            "ports": [{"label": "http", "value": 20000, "to": 80, "host_ip": "10.0.0.2"}],
        },
    )
    assert read_task_config(message) == nomad.TaskConfig(
        id="alloc/web/01234567",
        name="web",
        alloc_id="alloc",
        job_id="job",
        job_name="job name",
        task_group_name="group",
        namespace="default",
        node_name="node",
        node_id="n1",
        env={"A": "1"},
        device_env={"GPU": "0"},
        user="1000:1000",
        alloc_dir="/alloc",
        stdout_path="/out",
        stderr_path="/err",
        mounts=(
            nomad.MountConfig(task_path="/t", host_path="/h", readonly=True, propagation_mode="p"),
        ),
        devices=(
            nomad.DeviceConfig(task_path="/dev/t", host_path="/dev/h", cgroup_permissions="rwm"),
        ),
        dns=nomad.DnsConfig(servers=("1.1.1.1",), searches=("x",), options=("ndots:2",)),
        network=nomad.NetworkIsolation(
            mode=1,
            path="/var/run/netns/alloc",
            labels={"l": "v"},
            hostname="h",
            address="10.0.0.1",
        ),
        resources=nomad.Resources(
            cpu_shares=500,
            memory_mb=256,
            memory_max_mb=512,
            memory_limit_bytes=2**29,
            percent_ticks=0.25,
            cpuset_cpus="0,1",
            cpuset_cgroup="/sys/fs/cgroup/x",
            ports=(nomad.PortMapping(label="http", value=20000, to=80, host_ip="10.0.0.2"),),
        ),
    )


def test_the_newest_fields_have_nomads_numbers() -> None:
    labels = b"\x2a\x01Z\x32\x04data"  # Mount: field 5, "Z"; field 6, "data"
    parent = b"\xb2\x01\x06parent"  # TaskConfig: field 22
    message = wire.TaskConfig.FromString(b"\x0a\x01x\x3a" + bytes([len(labels)]) + labels + parent)
    task = read_task_config(message)
    mount = nomad.MountConfig(
        task_path="", host_path="", readonly=False, selinux_label="Z", request_name="data"
    )
    assert (task.mounts, task.parent_job_id) == ((mount,), "parent")
    network = b"\x0a\x04eth0\x12\x01c\x1a\x01i\x20\x05\x2a\x05\x0a\x01p\x10\x50\x32\x03\x0a\x01d"
    resources = wire.AllocatedTaskResources.FromString(b"\x2a" + bytes([len(network)]) + network)
    assert resources.networks[0] == wire.NetworkResource(
        device="eth0",
        cidr="c",
        ip="i",
        mbits=5,
        reserved_ports=[{"label": "p", "value": 80}],
        dynamic_ports=[{"label": "d"}],
    )


def test_the_parent_of_a_run_is_also_read_from_the_environment() -> None:
    message = wire.TaskConfig(id="x", env={"NOMAD_JOB_PARENT_ID": "nightly"})
    assert read_task_config(message).parent_job_id == "nightly"


def test_a_created_network_has_the_mode_that_nomad_connects() -> None:
    network = nomad.NetworkIsolation(mode=1, path="/var/run/netns/a", labels={"l": "v"})
    answer = network_response(network, created=True)
    assert answer.created
    assert answer.isolation_spec == wire.NetworkIsolationSpec(
        mode=wire.NetworkIsolationSpec.GROUP, path="/var/run/netns/a", labels={"l": "v"}
    )


def test_what_nomad_leaves_out_is_none_or_empty() -> None:
    task = read_task_config(wire.TaskConfig(id="x"))
    assert task == nomad.TaskConfig(id="x", name="")


def test_a_network_without_a_path_is_the_hosts() -> None:
    message = wire.TaskConfig(id="x", network_isolation_spec={"mode": 0})
    assert read_task_config(message).network is None


def test_a_task_without_an_id_is_none() -> None:
    with pytest.raises(DriverError) as refused:
        read_task_config(wire.TaskConfig(name="web"))
    assert refused.value.code is Code.INVALID


@given(_TEXT, st.dictionaries(_TEXT, _TEXT), _INT64, _INT64, st.floats(), _INT32)
def test_any_task_of_the_wire_is_read(
    word: str, env: dict[str, str], shares: int, memory: int, ticks: float, port: int
) -> None:
    message = wire.TaskConfig(
        id=f"x{word}",
        name=word,
        env=env,
        user=word,
        resources={
            "linux_resources": {"cpu_shares": shares, "PercentTicks": ticks},
            "allocated_resources": {"memory": {"memory_max_mb": memory}},
            "ports": [{"value": port}],
        },
    )
    task = read_task_config(_reparsed(message))
    assert (task.name, task.env, task.resources.cpu_shares) == (word, env, shares)
    assert task.resources.memory_max_mb == memory


@given(_RESULTS)
def test_every_end_of_a_task_is_a_whole_answer(result: nomad.ExitResult) -> None:
    answer = _reparsed(wait_response(result))
    assert answer.HasField("result")
    if 0 <= result.exit_code < 2**31:
        assert answer.result.exit_code == result.exit_code
    assert answer.result.oom_killed == result.oom_killed


@given(_RESULTS, st.binary(), st.binary())
def test_every_exec_has_a_result(result: nomad.ExitResult, out: bytes, err: bytes) -> None:
    done = nomad.ExecResult(stdout=out, stderr=err, exit=result)
    answer = _reparsed(exec_response(done))
    assert answer.HasField("result")
    assert (answer.stdout, answer.stderr) == (out, err)


@given(_RESULTS, st.integers(), st.integers(), st.sampled_from(nomad.TaskState))
def test_inspection_fills_times_and_result(
    result: nomad.ExitResult, started: int, completed: int, state: nomad.TaskState
) -> None:
    status = nomad.TaskStatus(
        id="x",
        name="web",
        state=state,
        started_at_ns=started,
        completed_at_ns=completed,
        result=result,
        driver_attributes={},
    )
    answer = _reparsed(inspect_response(status))
    for field in ("started_at", "completed_at", "result"):
        assert answer.task.HasField(field)
    assert answer.HasField("driver")
    assert answer.task.state == state.value
    if 0 <= started < 2**62:
        assert answer.task.started_at.ToNanoseconds() == started


_FIGURE = st.none() | st.integers(-(2**40), 2**63)


@given(
    st.builds(
        nomad.CpuUsage,
        percent=st.floats(),
        user_percent=st.floats(),
        system_percent=st.floats(),
        total_ticks=st.floats(),
        throttled_periods=_FIGURE,
        throttled_ns=_FIGURE,
    ),
    st.builds(
        nomad.MemoryUsage,
        usage=_FIGURE,
        rss=_FIGURE,
        cache=_FIGURE,
        swap=_FIGURE,
        max_usage=_FIGURE,
        kernel_usage=_FIGURE,
        kernel_max_usage=_FIGURE,
    ),
    st.integers(),
)
def test_every_sample_is_whole_and_says_what_was_measured(
    cpu: nomad.CpuUsage, memory: nomad.MemoryUsage, taken: int
) -> None:
    sample = nomad.TaskUsage(task_id="x", timestamp_ns=taken, cpu=cpu, memory=memory)
    stats = _reparsed(stats_response(sample)).stats
    assert stats.HasField("timestamp")
    assert stats.agg_resource_usage.HasField("cpu")
    assert stats.agg_resource_usage.HasField("memory")
    measured = set(stats.agg_resource_usage.memory.measured_fields)
    for name in ("usage", "rss", "cache", "swap", "max_usage", "kernel_usage", "kernel_max_usage"):
        known = getattr(memory, name)
        assert (wire.MemoryUsage.Fields.Value(name.upper()) in measured) == (known is not None)
        assert getattr(stats.agg_resource_usage.memory, name) == max(0, known or 0)


@given(_ANY_TEXT, st.integers(), st.dictionaries(_ANY_TEXT, _ANY_TEXT, max_size=3))
def test_every_event_is_sent(text: str, when: int, annotations: dict[str, str]) -> None:
    item = nomad.TaskEvent(
        task_id="x",
        alloc_id="a",
        task_name="web",
        timestamp_ns=when,
        message=text,
        annotations=annotations,
    )
    answer = _reparsed(event_message(item))
    assert answer.HasField("timestamp")
    assert (answer.task_id, answer.alloc_id, answer.task_name) == ("x", "a", "web")


@given(
    st.sampled_from(nomad.Health),
    _ANY_TEXT,
    st.dictionaries(_TEXT, st.booleans() | st.integers() | st.floats() | _ANY_TEXT, max_size=4),
)
def test_every_fingerprint_is_sent_with_its_types(
    health: nomad.Health, text: str, attributes: dict[str, bool | int | float | str]
) -> None:
    fingerprint = nomad.Fingerprint(health=health, description=text, attributes=attributes)
    answer = _reparsed(fingerprint_response(fingerprint))
    assert answer.health == health.value
    assert set(answer.attributes) == set(attributes)
    kinds = {bool: "bool_val", float: "float_val", str: "string_val"}
    for name, value in attributes.items():
        kind = answer.attributes[name].WhichOneof("value")
        small = isinstance(value, int) and -(2**63) <= value < 2**63
        assert kind == kinds.get(type(value), "int_val" if small else "string_val")


def test_an_exit_is_alone_in_its_message() -> None:
    output = nomad.ExecOutput(stdout=b"late", exit=nomad.ExitResult(exit_code=3))
    message = exec_stream_response(output)
    assert (message.exited, message.result.exit_code) == (True, 3)
    assert not message.HasField("stdout")


@given(st.binary(), st.binary(), st.booleans(), st.booleans())
def test_streams_carry_data_and_their_end(
    out: bytes,
    err: bytes,
    out_ends: bool,
    err_ends: bool,
) -> None:
    message = exec_stream_response(
        nomad.ExecOutput(stdout=out, stderr=err, stdout_close=out_ends, stderr_close=err_ends)
    )
    assert (message.stdout.data, message.stdout.close) == (out, out_ends)
    assert (message.stderr.data, message.stderr.close) == (err, err_ends)
    assert not message.exited
    assert not message.HasField("result")


@given(_INT32, _INT32, st.binary(), st.booleans())
def test_exec_input_takes_only_sizes_that_a_terminal_has(
    height: int,
    width: int,
    data: bytes,
    close: bool,
) -> None:
    request = wire.ExecTaskStreamingRequest(
        tty_size={"height": height, "width": width}, stdin={"data": data, "close": close}
    )
    item = read_exec_input(request)
    fits = 0 < height < 2**16 and 0 < width < 2**16
    assert item.resize == ((height, width) if fits else None)
    assert (item.stdin, item.stdin_close) == (data, close)


@given(_INT64, _INT32)
def test_seconds_are_never_negative(whole: int, nanos: int) -> None:
    duration = Duration(seconds=whole, nanos=nanos)
    assert read_seconds(duration) >= 0
    assert read_seconds(Duration(seconds=1, nanos=500_000_000)) == 1.5


def test_a_task_of_its_own_network_reports_it() -> None:
    network = nomad.NetworkOverride(addr="10.0.0.1", auto_advertise=True, port_map={"http": 80})
    answer = nomad.StartedTask(handle_version=2, driver_state=b"s", network=network)
    message = start_response(wire.TaskConfig(id="x", name="web"), answer)
    assert message.network_override.addr == "10.0.0.1"
    assert message.network_override.port_map["http"] == 80
    assert message.handle.config.id == "x"
    assert not start_response(
        wire.TaskConfig(id="x"), nomad.StartedTask(handle_version=2, driver_state=b"")
    ).HasField("network_override")
