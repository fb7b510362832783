"""Hostile job files: the reader refuses each with a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plugin.host.agent import hcl_config, hclog
from plugin.host.job import jobfile, template_path
from plugin.host.job.jobfile import Template
from plugin.host.job.text import read_text
from plugin.host.run.allocdir import AllocDir
from proto.errors import DriverError
from proto.nomad import hclspec_pb2
from tests.support.plugin.plugin_dir import ROOT
from tests.support.waiting import slowed

LEVELS = "a/" * 1500


def refused(text: str) -> str:
    with pytest.raises(DriverError) as error:
        jobfile.parse("j", text, {})
    return str(error.value)


def as_json(**task: Any) -> str:
    whole = {"Name": "t", "Driver": "d", "Config": {}, **task}
    return json.dumps({"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": [whole]}]})


def as_hcl(body: str, more: str = "") -> str:
    return f'job "j" {{\ngroup "g" {{\n{more}\ntask "t" {{\ndriver = "d"\n{body}\n}}\n}}\n}}\n'


def template(destination: str) -> dict[str, Any]:
    return {"Templates": [{"EmbeddedTmpl": "x", "DestPath": destination}]}


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("../alloc/logs/.t.stdout.fifo", "is a task's log"),
        ("${NOMAD_ALLOC_DIR}/logs/.other.stderr.fifo", "is a task's log"),
        ("local/../../alloc/logs/.t.stdout.fifo", "is a task's log"),
        ("local/a\0b", "has a NUL character"),
        ("local/\ud800", "has half of a surrogate pair"),
        (f"local/{LEVELS}x", "deeper than 32 levels"),
        (f"local/{'x' * 256}", "a name of more than 255 bytes"),
        (f"local/{('é' * 100 + '/') * 8}x", "longer than 1024 bytes"),
        ("local", "is a directory"),
        ("local/", "is a directory"),
        ("${NOMAD_ALLOC_DIR}/data", "is a directory"),
        ("../other/local/x", "leaves the task directory"),
        ("../../../etc/passwd", "leaves the task directory"),
        (".", "leaves the task directory"),
        ("../alloc", "leaves the task directory"),
        (".etc/hosts", "the directory of the driver"),
    ],
)
def test_a_template_at_a_wrong_destination_is_refused(destination: str, words: str) -> None:
    assert words in refused(as_json(**template(destination)))


@pytest.mark.parametrize(
    "destination",
    ["local/a", "secrets/a.env", "x", "/local/a", "${NOMAD_ALLOC_DIR}/data/x", "../alloc/logs/x"],
)
def test_a_template_at_a_good_destination_is_accepted(destination: str) -> None:
    jobfile.parse("j", as_json(**template(destination)), {})


def test_templates_in_each_others_way_are_refused() -> None:
    def two(first: str, second: str) -> str:
        templates = [{"EmbeddedTmpl": "x", "DestPath": path} for path in (first, second)]
        return refused(as_json(Templates=templates))

    assert "'task/local/a/b' is below the destination 'task/local/a'" in two("local/a/b", "local/a")
    assert "'task/local/a' is set twice" in two("local/a", "/local//a")


@pytest.mark.parametrize("destination", ["${meta.x}", '${env["NOMAD_META_x"]}/y'])
def test_a_destination_with_a_reference_is_checked_in_the_allocation(
    tmp_path: Path, destination: str
) -> None:
    job = jobfile.parse("j", as_json(**template(destination)), {})
    (wanted,) = job.groups[0].tasks[0].templates
    alloc = AllocDir(tmp_path, "a")
    alloc.build(["t"])
    for place in ("../alloc/logs/.t.stdout.fifo", "local/a\0b", LEVELS, "../../x"):
        assert template_path.problem(place)
        with pytest.raises(DriverError, match="template: destination"):
            alloc.write("t", wanted, place, "text")


def test_a_template_never_replaces_a_link_a_fifo_or_a_directory(tmp_path: Path) -> None:
    alloc = AllocDir(tmp_path, "a")
    alloc.build(["t"])
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (alloc.path / "t/local/link").symlink_to(outside)
    os.mkfifo(alloc.path / "t/local/fifo")
    (alloc.path / "t/local/directory").mkdir()
    for name in ("link", "fifo", "directory"):
        wanted = Template(data="", destination=f"local/{name}")
        with pytest.raises(DriverError, match="cannot write the template's file"):
            alloc.write("t", wanted, wanted.destination, "text")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize(
    "text",
    [
        '{"Job":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"ID":"j","TaskGroups":[{"Tasks":[{"Config":' + '{"a":' * 300 + "1" + "}" * 304,
        as_json(Meta=json.loads('{"a":' * 90 + "1" + "}" * 90)),
        'job "j" {' * 1500 + "}" * 1500,
        as_hcl("x = " + "[" * 300 + "]" * 300),
        as_hcl("x = " + "(" * 3000 + "1" + ")" * 3000),
        as_hcl('x = "' + '${"' * 3000 + '"}' * 3000 + '"'),
    ],
)
def test_a_deep_file_is_refused(text: str) -> None:
    words = refused(text)
    assert "nested deeper than 64 levels" in words or "is not JSON" in words


def test_references_that_multiply_are_refused() -> None:
    lines = [f'a{i} = "${{local.a{i + 1}}}${{local.a{i + 1}}}"' for i in range(30)]
    laughs = "\n".join(["locals {", *lines, 'a30 = "xxxxxxxxxxxxxxxx"', "}"])
    assert "more than 32 MiB" in refused(laughs + as_hcl("env { X = local.a0 }"))
    lists = [f"a{i} = [local.a{i + 1}, local.a{i + 1}]" for i in range(30)]
    laughs = "\n".join(["locals {", *lines[:1], *lists[1:], 'a30 = "x"', "}"])
    assert "more than 32 MiB" in refused(laughs + as_hcl("env { X = local.a1 }"))
    chain = [f"a{i} = local.a{i + 1}" for i in range(3000)]
    chained = "\n".join(["locals {", *chain, 'a3000 = "x"', "}"])
    assert "in a chain" in refused(chained + as_hcl("env { X = local.a0 }"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (as_hcl("", more='task "t" { driver = "d" }'), 'task "t": appears more than once'),
        (
            'job "j" { group "g" { task "t" {} }\ngroup "g" { task "t" {} } }',
            'group "g": appears more',
        ),
        (as_hcl("config {}\nconfig {}"), "config appears more than once"),
        (as_hcl('user = "a"\n  user= "b"'), "user is set twice"),
        ('{"ID": "a", "ID": "b", "TaskGroups": []}', "the key 'ID' appears twice"),
    ],
)
def test_a_name_that_appears_twice_is_refused(text: str, words: str) -> None:
    assert words in refused(text)


def test_equal_names_in_different_blocks_are_no_mistake() -> None:
    body = 'config { a = [{\nx = 1\n}, {\nx = 1\n}] }\nenv {\nuser = "a"\n}\nuser = "a" == "a"\n'
    jobfile.parse("j", as_hcl(body.replace(' == "a"', "")), {})


@pytest.mark.parametrize(
    "task",
    [
        {"Env": ["a"]},
        {"Config": "x"},
        {"Meta": [1]},
        {"User": "a\0b"},
        {"Env": {"a\0b": "x"}},
        {"Env": {"a": "x\ud800"}},
        {"Name": "a\x1bb"},
        {"Name": "x" * 200},
        {"Name": "a\nb"},
    ],
)
def test_an_impossible_value_is_refused_and_not_ignored(task: Mapping[str, Any]) -> None:
    refused(as_json(**task))


@pytest.mark.parametrize(
    "text",
    [
        as_hcl('volume_mount = ["a"]'),
        as_hcl('env = ["a"]'),
        as_hcl(r'user = "\ud800"'),
        as_hcl(r'user = "\U00110000"'),
        as_hcl('user = "\U0010ff41"'),
        as_hcl('user = "a\0b"'),
        '{"ID":"j","TaskGroups":[{"Name":"g","Count":Infinity,"Tasks":[]}]}',
        '{"ID":"j","TaskGroups":[{"Name":"g","Count":1e999,"Tasks":[{"Name":"t"}]}]}',
    ],
)
def test_an_invalid_value_is_refused(text: str) -> None:
    refused(text)


def test_a_template_may_have_any_character() -> None:
    job = jobfile.parse(
        "j", as_json(Templates=[{"EmbeddedTmpl": "\0\x1b\U000f0041", "DestPath": "x"}]), {}
    )
    assert job.groups[0].tasks[0].templates[0].data == "\0\x1b\U000f0041"
    job = jobfile.parse("j", as_hcl('user = "\U000f0041"'), {})
    assert job.groups[0].tasks[0].user == "\U000f0041"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "1e999999999", "-1e999999999"])
def test_a_number_without_bounds_is_no_number(value: object) -> None:
    number = hclspec_pb2.Spec(Attr=hclspec_pb2.Attr(name="n", type="number"))
    spec = hclspec_pb2.Spec(object=hclspec_pb2.Object(attributes={"n": number}))
    with pytest.raises(DriverError, match="is not a number"):
        hcl_config.encode(spec, {"n": value})


def test_a_file_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="is larger than 4 MiB"):
        read_text(Path("/dev/zero"))
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DriverError, match="is larger than 4 MiB"):
        read_text(large)
    for path in (tmp_path, tmp_path / "none", Path("a\0b")):
        with pytest.raises(DriverError, match="cannot be read"):
            read_text(path)


def test_a_deep_line_of_a_plugin_is_a_line_like_any_other() -> None:
    assert hclog.parse_line(b"[" * 100_000).text.startswith("[[")


@pytest.mark.parametrize("command", ["run", "spec"])
def test_the_commands_end_with_a_sentence(command: str, tmp_path: Path) -> None:
    job = tmp_path / "j.nomad"
    for text in ('{"Job":' + "[" * 100_000, as_json(**template("../alloc/logs/.t.stdout.fifo"))):
        job.write_text(text)
        words = [sys.executable, "-I", str(ROOT / "plugin/main.py"), command, str(job)]
        ended = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=slowed(60)
        )
        assert ended.returncode in {1, 125}
        assert "Traceback" not in ended.stderr
        assert ended.stderr.startswith("error: j.nomad: ")
