"""Tests of the build of Go programs: errors of a failed build, the order of the sources, tools."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.nomad import build as building
from tests.nomad.conftest import built
from tests.support import go_build
from tests.support.daemons import containerd_versions
from tests.support.go_build import Builder, BuildError, Target
from tests.support.needs import missing


@pytest.fixture
def no_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulates a machine without Go."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_build, "USUAL_GO", tmp_path / "go")
    monkeypatch.delenv("NOMAD_BIN", raising=False)


@pytest.mark.usefixtures("no_go")
def test_without_go_the_reason_and_the_way_out_are_named() -> None:
    with pytest.raises(BuildError, match=r"go is not on PATH.*NOMAD_BIN"):
        building.build("agent")


@pytest.mark.usefixtures("no_go")
def test_without_go_tests_skip_unless_nomad_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="go is not on PATH"):
        built("host-1.11.0")
    monkeypatch.setenv("REQUIRE", "containerd,nomad")
    with pytest.raises(pytest.fail.Exception, match="go is not on PATH"):
        built("host-1.11.0")


def test_a_build_that_fails_is_one_line_of_a_skip_and_told_whole_where_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(name: str) -> Path:
        raise BuildError("go build in x: one\ntwo\nthree")

    monkeypatch.setattr("tests.nomad.conftest.build", fails)
    monkeypatch.delenv("REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^agent cannot be built; python -m .* agent"):
        built("agent")
    monkeypatch.setenv("REQUIRE", "nomad")
    with pytest.raises(pytest.fail.Exception, match="two"):
        built("agent")


@pytest.mark.usefixtures("no_go")
@pytest.mark.parametrize("name", building.AGENTS)
def test_a_given_nomad_takes_the_place_of_each_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    given = tmp_path / "nomad"
    monkeypatch.setenv("NOMAD_BIN", str(given))
    with pytest.raises(BuildError, match="not an executable file"):
        building.build(name)
    given.touch(mode=0o755)
    assert building.build(name) == given
    with pytest.raises(BuildError, match="go is not on PATH"):
        building.build("host-1.11.0")


@pytest.mark.parametrize(
    ("builder", "target"),
    [
        *((building.BUILDER, target) for target in building.TARGETS.values()),
        *((containerd_versions.BUILDER, target) for target in containerd_versions.TARGETS.values()),
    ],
)
def test_each_target_has_a_module_file_with_sums(builder: Builder, target: Target) -> None:
    modfile = builder.modules / target.folder / target.modfile
    assert "github.com/" in modfile.read_text()
    assert "h1:" in modfile.with_suffix(".sum").read_text()


@pytest.mark.nomad
def test_a_module_of_tools_becomes_a_folder_that_is_built_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "go.mod").write_text(f"module example.test/{name}\n\ngo 1.24\n")
        (tmp_path / name / "main.go").write_text(
            f'package main\n\nfunc main() {{ print("{name}") }}\n'
        )
    lines = [
        f"tool example.test/{name}\nrequire example.test/{name} v0.0.0\n" for name in ("one", "two")
    ]
    lines += [f"replace example.test/{name} => ../{name}\n" for name in ("one", "two")]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/go.mod").write_text(
        f"module example.test/tools\n\ngo 1.24\n{''.join(lines)}"
    )
    builder = Builder(modules=tmp_path, cache=tmp_path / "cache", without_go="install Go")
    try:
        folder = builder.build("tools", Target(folder="tools"))
    except BuildError as error:
        missing("nomad", str(error))
    for name in ("one", "two"):
        done = subprocess.run([folder / name], capture_output=True, text=True, check=True)
        assert done.stderr == name
    (folder / "mark").touch()
    assert builder.build("tools", Target(folder="tools")) == folder
    assert (folder / "mark").exists()
    (tmp_path / "tools/go.sum").write_text("")
    assert builder.build("tools", Target(folder="tools")) != folder


@pytest.mark.nomad
@pytest.mark.skipif("NOMAD_BIN" in os.environ, reason="NOMAD_BIN replaces the built agent")
def test_the_newer_agent_is_of_the_release_in_its_module_file(newer_agent: Path) -> None:
    target = building.TARGETS[building.NEWER_AGENT]
    modfile = (building.HERE / target.folder / target.modfile).read_text()
    release = building.NEWER_AGENT.removeprefix("agent-")
    assert f"\tgithub.com/hashicorp/nomad v{release}\n" in modfile
    for words in (["version"], ["--version"]):
        done = subprocess.run([newer_agent, *words], capture_output=True, text=True, check=True)
        assert release in f"{done.stdout}{done.stderr}", words


@pytest.mark.nomad
def test_the_go_sources_are_formatted() -> None:
    try:
        gofmt = Path(go_build.find_go("")).with_name("gofmt")
    except BuildError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [str(gofmt), "-l", str(building.HERE)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
