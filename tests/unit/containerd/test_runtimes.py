"""Names of runtimes, and the runtimes of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from containerd import runtimes
from containerd.runtimes import Runtime
from proto.errors import Code, DriverError


def _machine(directory: Path, *programs: str) -> tuple[str, ...]:
    for program in programs:
        (directory / program).touch()
    return (str(directory),)


def test_short_names_stand_for_a_shim_and_a_program(tmp_path: Path) -> None:
    here = _machine(tmp_path, "containerd-shim-runc-v2", "runc", "crun")
    assert runtimes.resolve("runc", here) == Runtime(name="io.containerd.runc.v2")
    crun = Runtime(name="io.containerd.runc.v2", binary_name="crun")
    assert runtimes.resolve("crun", here) == crun
    assert runtimes.available(here) == ("runc", "crun", "io.containerd.runc.v2")


def test_jobs_need_the_operators_leave_for_nvidias_runtime(tmp_path: Path) -> None:
    here = _machine(tmp_path, "containerd-shim-runc-v2", "runc", "nvidia-container-runtime")
    assert runtimes.resolve("nvidia", here).adds_gpus
    assert not runtimes.resolve("runc", here).adds_gpus
    assert "nvidia" not in runtimes.KNOWN


def test_gvisors_own_shim_is_preferred_and_its_program_will_do(tmp_path: Path) -> None:
    here = _machine(tmp_path, "containerd-shim-runc-v2", "runsc")
    through_runc = Runtime(name="io.containerd.runc.v2", binary_name="runsc")
    assert runtimes.resolve("runsc", here) == through_runc
    assert runtimes.resolve("io.containerd.runsc.v1", here) == through_runc
    here = _machine(tmp_path, "containerd-shim-runsc-v1")
    assert runtimes.resolve("runsc", here) == Runtime(name="io.containerd.runsc.v1")


def test_what_is_not_installed_is_named_with_what_is(tmp_path: Path) -> None:
    here = _machine(tmp_path, "containerd-shim-runc-v2", "runc")
    with pytest.raises(DriverError) as refused:
        runtimes.resolve("kata", here)
    assert refused.value.code is Code.INVALID
    assert "no containerd-shim-kata-v2" in str(refused.value)
    assert "runc, io.containerd.runc.v2" in str(refused.value)


@pytest.mark.parametrize("written", ["docker", "", "../runc", "io.containerd.runc", "a b"])
def test_other_names_are_unknown(written: str) -> None:
    with pytest.raises(DriverError, match="is unknown"):
        runtimes.resolve(written)


def test_an_operators_path_is_a_shim_if_it_is_a_file(tmp_path: Path) -> None:
    shim = tmp_path / "containerd-shim-own-v1"
    with pytest.raises(DriverError, match="is not installed"):
        runtimes.resolve(str(shim))
    shim.touch()
    assert runtimes.resolve(str(shim)) == Runtime(name=str(shim))


@pytest.mark.parametrize(
    ("runtime", "groups"),
    [
        (Runtime(name="io.containerd.runc.v2"), True),
        (Runtime(name="io.containerd.runc.v2", binary_name="crun"), True),
        (Runtime(name="/opt/bin/containerd-shim-runc-v2"), True),
        (Runtime(name="io.containerd.runc.v2", binary_name="runsc"), False),
        (Runtime(name="io.containerd.runc.v1"), False),
        (Runtime(name="io.containerd.runsc.v1"), False),
        (Runtime(name="io.containerd.kata.v2"), False),
    ],
    ids=str,
)
def test_only_runc_and_crun_share_shims(runtime: Runtime, groups: bool) -> None:
    assert runtime.groups is groups
