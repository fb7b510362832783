"""The OCI spec for jobs and images with forbidden or odd values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.image.config import ImageConfig
from containerd.spec.build import (
    SpecInputs,
    build_and_encode,
    build_spec,
    shim_group,
    with_shim_group,
)
from containerd.spec.exec_process import Command, process_for_exec
from containerd.spec.users import ResolvedUser
from proto.errors import Code, DriverError


def process(image: ImageConfig | None = None, uid: int = 0, **options: Any) -> dict[str, Any]:
    """Builds the spec and returns the process of a task."""
    inputs = SpecInputs(
        image_config=image or ImageConfig(cmd=("/bin/true",)),
        user=ResolvedUser(uid=uid, gid=0),
        hostname="h",
        cgroup_path="/nomad/t",
        **options,
    )
    found: dict[str, Any] = build_spec(inputs)["process"]
    return found


def refused(image: ImageConfig | None = None, **options: Any) -> str:
    with pytest.raises(DriverError) as caught:
        process(image, **options)
    assert caught.value.code is Code.INVALID
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize(
    "cwd",
    [
        "/proc/self/fd/8",
        "//proc/self/fd/8",
        "///proc/self/fd/8",
        "/./proc/self/fd/8",
        "/x/../proc/self/fd/8",
        "//x//..//..//proc/1/cwd",
        "/proc",
        "//sys",
        "/sys/fs/cgroup",
        "relative",
        "../../..",
        "/a\0b",
        f"/{'a/' * 2048}",
    ],
)
def test_s16_no_working_directory_lies_below_proc(cwd: str) -> None:
    image = ImageConfig(cmd=("/bin/true",), working_dir=cwd)
    assert "cwd: " in refused(cwd=cwd)
    assert "cwd: " in refused(image)


@given(st.lists(st.sampled_from(["/", ".", "..", "proc", "x", "self", "//"]), max_size=8))
def test_s16_however_it_is_written(parts: list[str]) -> None:
    written = "/" + "/".join(parts)
    place: list[str] = []
    for part in written.split("/"):
        if part == "..":
            place[-1:] = []
        elif part not in {"", "."}:
            place.append(part)
    if place[:1] == ["proc"]:
        assert "cwd: " in refused(cwd=written)
    else:
        assert process(cwd=written)["cwd"] == "/" + "/".join(place)


def test_a_string_that_no_program_takes_is_named_and_not_shown() -> None:
    text = refused(env={"SECRET_KEY": "hush" * 40_000})
    assert "env: 'SECRET_KEY' has 160011 bytes" in text
    assert "hush" not in text
    assert "args: an argument has 131072 bytes" in refused(args=("x" * 128 * 1024,))
    whole = "x" * (128 * 1024 - 1)
    assert process(args=(whole,), entrypoint=("a",))["args"] == ["a", whole]


def test_more_than_any_program_takes_is_refused() -> None:
    many = {f"A{number}": "x" * 100_000 for number in range(70)}
    assert "more than 6 MiB together" in refused(env=many)


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_name_that_the_environment_cannot_have_is_refused(name: str) -> None:
    assert "env: " in refused(env={name: "x"})
    assert "env: " in refused(env={"A": f"x\0{name}"})


def test_a_variable_of_an_image_without_a_name_is_left_out() -> None:
    image = ImageConfig(cmd=("/bin/true",), env=("=x", "", "A=1"))
    env = process(image)["env"]
    assert "A=1" in env
    assert all(not entry.startswith("=") for entry in env)


IMAGE = ImageConfig(entrypoint=("/entry",), cmd=("cmd",))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"entrypoint": ("sh", "-c", "")}, ["sh", "-c", ""]),
        ({"entrypoint": ("sh", "", "-x"), "args": ("", "a")}, ["sh", "", "-x", "", "a"]),
        ({"entrypoint": ("",), "args": ("a",)}, ["a"]),
        ({"entrypoint": ("e",), "command": "c", "args": ("a",)}, ["e", "c", "a"]),
        ({"entrypoint": ("", ""), "args": ("a", "")}, ["a", ""]),
        ({"entrypoint": ()}, ["/entry", "cmd"]),
        ({"args": ("",)}, ["/entry", ""]),
    ],
)
def test_an_empty_word_is_a_word_unless_there_is_no_other(
    options: dict[str, Any], words: list[str]
) -> None:
    assert process(IMAGE, **options)["args"] == words


def test_a_command_whose_first_word_is_empty_is_refused() -> None:
    assert "first word of the command is empty" in refused(entrypoint=("", "x"))
    assert "first word of the command is empty" in refused(entrypoint=("",), args=("", "x"))
    blank = ImageConfig(entrypoint=("",), cmd=("/bin/true",))
    assert process(blank)["args"] == ["/bin/true"]


def test_only_root_has_more_than_the_bounding_set() -> None:
    assert set(process(uid=0)["capabilities"]) == {"bounding", "effective", "permitted"}
    assert set(process(uid=1)["capabilities"]) == {"bounding"}


def test_an_exec_in_a_task_of_an_earlier_release_has_the_rights_of_one_of_this() -> None:
    sets = {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "ambient")}
    task: dict[str, Any] = {
        "process": {"user": {"uid": 1000, "gid": 0}, "capabilities": sets, "env": ["A=b"]}
    }
    document = process_for_exec(task, Command(words=["sh"], terminal=False))
    assert document["capabilities"] == {"bounding": ["CAP_CHOWN"]}
    assert document["oomScoreAdj"] == 0
    task["process"]["user"]["uid"] = 0
    assert process_for_exec(task, Command(words=["sh"], terminal=False))["capabilities"] == sets


def test_no_program_has_a_name_that_is_too_long_for_the_error_of_a_runtime() -> None:
    # runc's error has the name, and a full pipe blocked runc, with every later call for the task.
    reason = "the program's name has 4096 bytes; the kernel's limit is 4095"
    assert reason in refused(entrypoint=("é" * 2048,))
    assert reason in refused(ImageConfig(entrypoint=("x" * 4096,)), init="/init")
    assert process(command="x" * 4095, args=("y" * 4096,))["args"] == ["x" * 4095, "y" * 4096]
    with pytest.raises(DriverError) as caught:
        process_for_exec({"process": {}}, Command(words=["x" * 4096]))
    assert (str(caught.value), caught.value.code) == (reason, Code.INVALID)


def test_no_environment_is_so_large_that_runc_needs_minutes() -> None:
    many = {f"A{number}": "" for number in range(20_000)}
    assert "variables, at most 16384" in refused(env=many)
    assert "variables, at most 16384" in refused(
        ImageConfig(cmd=("a",), env=tuple(f"{name}=" for name in many))
    )
    with pytest.raises(DriverError, match="env has 20000 variables, at most 16384"):
        process_for_exec({"process": {}}, Command(words=["a"], env=many))


@pytest.mark.parametrize(("uid", "kinds"), [(0, 3), (7, 1)])
def test_another_user_gets_the_bounding_set_of_the_task_and_a_home(uid: int, kinds: int) -> None:
    task = {
        "process": {
            "user": {"uid": 1000, "gid": 1000},
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_CHOWN"]},
            "env": ["HOME=/home/app", "A=b"],
        }
    }
    user = ResolvedUser(uid=uid, gid=5, additional_gids=(5, 6), home="/other")
    command = Command(words=["sh"], user=user, cwd="/srv", env={"A": "c", "B": "d"})
    made = process_for_exec(task, command)
    assert made["user"] == {"uid": uid, "gid": 5, "additionalGids": [5, 6]}
    assert list(made["capabilities"].values()) == [["CAP_CHOWN"]] * kinds
    assert (made["cwd"], made["env"]) == ("/srv", ["HOME=/other", "A=c", "B=d"])
    assert process_for_exec(task, Command(words=["sh"], env={"HOME": "/x"}))["env"][-1] == "HOME=/x"


@pytest.mark.parametrize(("env", "term"), [([], "xterm"), (["TERM=vt100"], "vt100")])
def test_a_terminal_is_the_tasks_own_or_xterm(env: list[str], term: str) -> None:
    task = {"process": {"user": {"uid": 0}, "env": [*env, "TERMINAL=x"]}}
    document = process_for_exec(task, Command(words=["sh"], terminal=True, size=(24, 80)))
    assert [entry for entry in document["env"] if entry.startswith("TERM=")] == [f"TERM={term}"]


@pytest.mark.parametrize(("env", "term"), [({}, "TERM=xterm"), ({"TERM": "vt100"}, "TERM=vt100")])
def test_a_task_with_a_terminal_has_a_kind_of_terminal(env: dict[str, str], term: str) -> None:
    made = process(terminal=True, env=env)
    assert made["terminal"] is True
    assert [entry for entry in made["env"] if entry.startswith("TERM=")] == [term]
    assert "terminal" not in process(env=env)


def test_namespaces_of_other_processes_have_paths_and_their_shared_memory() -> None:
    inputs = SpecInputs(
        image_config=ImageConfig(cmd=("a",)),
        user=ResolvedUser(uid=0, gid=0),
        hostname="h",
        cgroup_path="/nomad/t",
        namespaces={"pid": "/pins/pid", "ipc": "/pins/ipc", "shm": "/pins/shm"},
        netns_path="/pins/network",
    )
    made = build_spec(inputs)
    paths = {entry["type"]: entry.get("path") for entry in made["linux"]["namespaces"]}
    assert paths == {
        "pid": "/pins/pid",
        "ipc": "/pins/ipc",
        "network": "/pins/network",
        **dict.fromkeys(("uts", "mount", "cgroup")),
    }
    [memory] = [point for point in made["mounts"] if point["destination"] == "/dev/shm"]
    assert (memory["type"], memory["source"]) == ("bind", "/pins/shm")


def test_arguments_may_be_a_quarter_of_the_stack() -> None:
    words = ("x" * 100_000,) * 25
    assert "a quarter of the stack of 8388608" in refused(args=words)
    many = ("x",) * 150_000
    assert len(process(args=many, entrypoint=("a",))["args"]) == 150_001
    larger = {"stack": (16 << 20, 16 << 20)}
    assert (
        process(args=words, entrypoint=("a",), rlimits=larger)["rlimits"][0]["type"]
        == "RLIMIT_STACK"
    )


def test_a_spec_names_the_group_of_its_shim_and_is_otherwise_unchanged() -> None:
    inputs = SpecInputs(
        image_config=ImageConfig(cmd=("/bin/true",)),
        user=ResolvedUser(uid=0, gid=0),
        hostname="h",
        cgroup_path="/nomad/t",
    )
    document, alone = build_and_encode(inputs)
    grouped = with_shim_group(alone, 'a"b')
    note = {"io.containerd.runc.v2.group": 'a"b'}
    assert json.loads(grouped) == {**document, "annotations": note}
    assert (shim_group(grouped), shim_group(alone)) == ('a"b', "")


def test_the_group_of_a_shim_stands_beside_a_jobs_annotations() -> None:
    inputs = SpecInputs(
        image_config=ImageConfig(cmd=("/bin/true",)),
        user=ResolvedUser(uid=0, gid=0),
        hostname="h",
        cgroup_path="/nomad/t",
        annotations={"com.example.a": "b"},
    )
    _, alone = build_and_encode(inputs)
    assert json.loads(alone)["annotations"] == {"com.example.a": "b"}
    assert shim_group(alone) == ""
    assert shim_group(with_shim_group(alone, "g")) == "g"
