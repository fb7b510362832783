"""The option tables: values from Nomad's msgpack, and the errors for wrong values."""

from __future__ import annotations

import contextlib
import json
import string
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.model.gates import Gates
from actors.model.settings import Auth, DriverSettings, TaskOptions
from plugin import options
from plugin.options import gates as gate_options
from plugin.options.readers import parse_duration_s
from plugin.options.table import Option
from proto.errors import Code, DriverError

_WORD = "p"


def _task(**values: Any) -> TaskOptions:
    return options.task_options(msgpack.packb({"image": "busybox", **values}))


def fields_of(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def _refused(**values: Any) -> str:
    with pytest.raises(DriverError) as refused:
        _task(**values)
    assert refused.value.code is Code.INVALID
    assert not refused.value.recoverable
    return str(refused.value)


def test_absent_values_are_the_dataclass_defaults() -> None:
    empty = dict.fromkeys((option.name for option in options.TASK_OPTIONS), None)
    assert options.task_options(msgpack.packb({**empty, "image": "a"})) == TaskOptions(image="a")
    assert options.driver_settings(b"") == DriverSettings()
    assert options.driver_settings(msgpack.packb(None)) == DriverSettings()


def test_defaults_of_the_table_are_the_defaults_of_the_dataclasses() -> None:
    for table, make in (
        (options.DRIVER_OPTIONS, DriverSettings()),
        (options.TASK_OPTIONS, TaskOptions(image="a")),
    ):
        for option in table:
            if option.default and not option.required:
                problems: list[str] = []
                # Every HCL literal in use is JSON too.
                read = option.read(json.loads(option.default), option.name, problems)
                assert not problems
                assert read == getattr(make, option.target), option.name


def _leaves(option: Option) -> Iterator[Option]:
    yield from option.nested or (option,)


def test_every_setting_has_an_option_and_every_option_a_setting() -> None:
    # Settings which share a block or a list.
    several = {"auth_config", "auth_helper", "image_gc", "image_gc_delay_s"}
    several |= {"log_buffer_bytes", "log_drops", "log_max_files", "log_max_file_bytes"}
    of_the_node = {"total_mhz", "cores", "gates", "namespace_gates"}
    dangling = {name for name in fields_of(DriverSettings) if name.startswith("gc_dangling")}
    driver = {option.target for option in options.DRIVER_OPTIONS} - {
        "gc",
        "log_buffer",
        "log_files",
    }
    gates = {option.target for option in gate_options.OPTIONS}
    assert driver - gates == fields_of(DriverSettings) - several - dangling - of_the_node
    by_field = {name.target for option in gate_options.GATES for name in _leaves(option)}
    assert by_field - {"userns"} == fields_of(Gates)
    task = {option.target for option in options.TASK_OPTIONS} | {"cdi_devices"}
    assert task == fields_of(TaskOptions)


def test_a_whole_task_config_is_read() -> None:
    assert _task(
        image_pull_timeout="1h30m",
        command="sh",
        args=["-c", "true"],
        entrypoint=[""],
        cwd="/srv",
        hostname="web-1.example_x",
        host_network=True,
        host_dns=False,
        readonly_rootfs=True,
        auth={"username": "u", "password": "p", "server_address": "registry.example.com"},
    ) == TaskOptions(
        image="busybox",
        image_pull_timeout_s=5400.0,
        command="sh",
        args=("-c", "true"),
        entrypoint=("",),
        cwd="/srv",
        hostname="web-1.example_x",
        host_network=True,
        host_dns=False,
        readonly_rootfs=True,
        auth=Auth(username="u", password=_WORD, server_address="registry.example.com"),
    )


def test_an_empty_entrypoint_is_told_from_none() -> None:
    assert _task(entrypoint=[]).entrypoint == ()
    assert _task(entrypoint=None).entrypoint is None


@pytest.mark.parametrize(
    "auth",
    [None, [], [{}], {"username": "", "password": ""}, {"username": "u", "password": ""}],
)
def test_an_auth_without_a_user_or_a_password_is_none(auth: Any) -> None:
    assert _task(auth=auth).auth is None


def test_a_repeated_block_of_one_is_that_block() -> None:
    assert _task(auth=[{"username": "u", "password": "p"}]).auth == Auth(
        username="u", password=_WORD
    )
    assert "auth: must be a single block" in _refused(auth=[{"username": "u"}, {"username": "v"}])


def test_every_problem_comes_at_once_with_its_path() -> None:
    text = _refused(
        image="",
        image_pull_timeout="5",
        args=["ok", 7, "x\0y"],
        cwd="srv",
        hostname="two words",
        host_dns="yes",
        auth={"username": "u", "pasword": "p"},
        comand="sh",
    )
    assert text.startswith("failed to decode driver config: ")
    for part in (
        "image: must not be empty",
        'Failed to parse image_pull_timeout: invalid duration "5"',
        "args[1]: 7 is not a string",
        "args[2]: has a NUL byte",
        """cwd: 'srv' is not absolute, did you mean "/srv"?""",
        "hostname: 'two words' is not a host name",
        "host_dns: 'yes' is not true or false",
        "auth.password: is required",
        'auth.pasword: no such option, did you mean "password"?',
        'comand: no such option, did you mean "command"?',
    ):
        assert part in text, part


def test_the_image_is_required() -> None:
    with pytest.raises(DriverError, match="image: is required"):
        options.task_options(b"")


def test_a_flood_of_problems_is_counted_and_not_listed() -> None:
    text = _refused(**{f"unknown_{number}": 1 for number in range(5000)})
    assert "and 1 more" in text
    assert len(text) < 4000


def test_a_password_of_the_wrong_type_is_not_shown() -> None:
    text = _refused(auth={"username": "u", "password": ["hunter2"]})
    assert "auth.password: the value is not a string" in text
    assert "hunter2" not in text


def test_a_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(_task(auth={"username": "u", "password": "hunter2"}))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("command", "x" * (128 * 1024), "longer than 131071 bytes"),
        ("image", "x" * 5000, "longer than 4096 bytes"),
        ("group_add", ["x"] * 1025, "has 1025 items, at most 1024"),
        ("args", [""] * 700_000, "has 700000 items, at most 699050"),
        ("mount", [{"target": "/x"}] * 1025, "has 1025 blocks, at most 1024"),
        ("args", ["x" * 100_000] * 70, "longer than 6291456 bytes together"),
        ("args", "x", "is not a list of strings"),
        ("hostname", "x" * 64, "longer than 63 bytes"),
        ("hostname", "a\nb", "is not a host name"),
        ("hostname", "a\n", "is not a host name"),
        ("image_pull_timeout", "0s", "is less than"),
        ("image_pull_timeout", "-1s", "invalid duration"),
        ("image_pull_timeout", "9999999h", "longer than a year"),
        ("readonly_rootfs", 1, "is not true or false"),
    ],
)
def test_every_value_has_its_bounds(option: str, value: Any, words: str) -> None:
    assert words in _refused(**{option: value})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("containerd_namespace", "a b", "is not a containerd name"),
        ("containerd_namespace", "a..b", "is not a containerd name"),
        ("containerd_address", "tcp://x", "is not an absolute path"),
        ("state_dir", "/run/../etc", "is not an absolute path without .."),
        ("stats_interval", "1ms", "is less than 0.1s"),
        ("stats_interval", "soon", "invalid duration"),
        ("containerd_runtime", " ", "must not be empty"),
        ("containerd_address", "", "must not be empty"),
        ("state_dir", "", "must not be empty"),
    ],
)
def test_every_driver_setting_has_its_bounds(option: str, value: Any, words: str) -> None:
    with pytest.raises(DriverError) as refused:
        options.driver_settings(msgpack.packb({option: value}))
    assert words in str(refused.value)


def test_a_whole_plugin_block_is_read() -> None:
    block = {
        "enabled": False,
        "containerd_runtime": "io.containerd.runsc.v1",
        "stats_interval": "100ms",
        "allow_privileged": False,
        "auth": {"username": "u", "password": "p", "server_address": None},
        "containerd_address": "/tmp/c.sock",
        "containerd_namespace": "nomad.slice",
        "state_dir": "/tmp/state",
    }
    assert options.driver_settings(msgpack.packb(block), total_mhz=4000, cores=2) == DriverSettings(
        enabled=False,
        containerd_runtime="io.containerd.runsc.v1",
        stats_interval_s=0.1,
        gates=Gates(allow_privileged=False),
        auth=Auth(username="u", password=_WORD),
        containerd_address="/tmp/c.sock",
        containerd_namespace="nomad.slice",
        state_dir="/tmp/state",
        total_mhz=4000,
        cores=2,
    )


def _code(read: Callable[[bytes], object], packed: bytes) -> Code | None:
    try:
        read(packed)
    except DriverError as error:
        return error.code
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_options_or_an_invalid_config(packed: bytes) -> None:
    for read in (options.task_options, options.driver_settings):
        assert _code(read, packed) in {None, Code.INVALID}


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = sorted({o.name for o in (*options.TASK_OPTIONS, *options.DRIVER_OPTIONS)})


@given(st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=9), _VALUES, max_size=6))
def test_any_values_are_options_or_an_invalid_config(values: dict[str, Any]) -> None:
    packed = msgpack.packb(values)
    for read in (options.task_options, options.driver_settings):
        assert _code(read, packed) in {None, Code.INVALID}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1), ("5m", 300), ("1h30m", 5400), ("100ms", 0.1), ("1.5s", 1.5), (".5s", 0.5),
        ("1.s", 1), ("0", 0), ("+0", 0), ("+5m", 300), ("2us", 2e-6), ("3µs", 3e-6), ("3μs", 3e-6),
        ("10ns", 1e-8), ("1m1m", 120),
    ],
)  # fmt: skip
def test_go_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "+", "5", "s", "1", "1 s", " 1s", "1s ", "-1s", "1d", "1S", "1s1", ".s", ".", "1e3s",
     "٣s", "1s\n", "0x1s", "nan", "infs", "9" * 400 + "s", "1h" * 9000],
)  # fmt: skip
def test_what_go_or_reason_refuses_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


@given(
    st.lists(
        st.tuples(
            st.decimals(0, 99, places=3), st.sampled_from(["ns", "us", "µs", "ms", "s", "m", "h"])
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[Any, str]]) -> None:
    factor = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
    text = "".join(f"{number}{unit}" for number, unit in parts)
    total = sum(float(number) * factor[unit] for number, unit in parts)
    assert parse_duration_s(text) == pytest.approx(total)


@given(st.text(alphabet=string.digits + ".+-nsuµmh \n", max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_duration_s(text) <= 366 * 24 * 3600
