"""Tests of the build of Nomad parts: errors of a failed build, and the order of the sources."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.nomad import build as building
from tests.nomad.conftest import built


@pytest.fixture
def no_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulates a machine without Go."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(building, "_USUAL_GO", tmp_path / "go")
    monkeypatch.delenv("NOMAD_BIN", raising=False)


@pytest.mark.usefixtures("no_go")
def test_without_go_the_reason_and_the_way_out_are_named() -> None:
    with pytest.raises(building.BuildError, match=r"go is not on PATH.*NOMAD_BIN"):
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
        raise building.BuildError("go build in x: one\ntwo\nthree")

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
    with pytest.raises(building.BuildError, match="not an executable file"):
        building.build(name)
    given.touch(mode=0o755)
    assert building.build(name) == given
    with pytest.raises(building.BuildError, match="go is not on PATH"):
        building.build("host-1.11.0")


@pytest.mark.parametrize("target", building.TARGETS.values(), ids=building.TARGETS)
def test_each_target_has_a_module_file_with_sums(target: building.Target) -> None:
    modfile = building.HERE / target.folder / target.modfile
    assert "github.com/" in modfile.read_text()
    assert "h1:" in modfile.with_suffix(".sum").read_text()


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
        gofmt = Path(building.find_go()).with_name("gofmt")
    except building.BuildError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [str(gofmt), "-l", str(building.HERE)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
