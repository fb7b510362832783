"""GPUs of Nomad's device plugin, as CDI devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.model.nomad import TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from actors.provision import cdi_devices
from containerd.runtimes import Runtime
from containerd.spec import cdi
from proto.errors import DriverError

RUNC = Runtime(name="io.containerd.runc.v2")
NVIDIA = Runtime(name="io.containerd.runc.v2", binary_name="nvidia-container-runtime")
GPUS = "NVIDIA_VISIBLE_DEVICES"


@pytest.fixture
def settings(tmp_path: Path) -> DriverSettings:
    """Writes the files of nvidia and of another vendor."""
    names = ("0", "GPU-8f6d", "MIG-41b2", "all")
    for vendor in ("nvidia", "acme"):
        devices = [{"name": name, "containerEdits": {"env": [f"{vendor}=1"]}} for name in names]
        document = {"cdiVersion": "0.5.0", "kind": f"{vendor}.com/gpu", "devices": devices}
        (tmp_path / f"{vendor}.json").write_text(json.dumps(document))
    return DriverSettings(cdi_spec_dirs=(str(tmp_path),))


def edits(
    settings: DriverSettings,
    value: str | None,
    *,
    runtime: Runtime = RUNC,
    env: str = "",
    devices: tuple[str, ...] = (),
) -> cdi.Edits:
    task = TaskConfig(
        id="a/t/1",
        name="t",
        env={GPUS: env} if env else {},
        device_env={} if value is None else {GPUS: value},
    )
    return cdi_devices.edits(settings, task, TaskOptions(image="x", cdi_devices=devices), runtime)


@pytest.mark.parametrize("value", ["0", "all", "GPU-8f6d", "GPU-8f6d,MIG-41b2", " 0 ,GPU-8f6d,"])
def test_gpus_of_the_device_plugin_are_cdi_devices(settings: DriverSettings, value: str) -> None:
    assert edits(settings, value).env == {"nvidia": "1", GPUS: "void"}


@pytest.mark.parametrize("value", ["", "none", "void"])
def test_no_gpu_is_no_device(settings: DriverSettings, value: str) -> None:
    assert edits(settings, value).env == {GPUS: "void"}


@pytest.mark.parametrize("env", ["all", "0", "GPU-8f6d"])
def test_the_jobs_own_variable_brings_no_gpu(settings: DriverSettings, env: str) -> None:
    assert edits(settings, None, env=env) == cdi.Edits()
    assert edits(settings, None, env=env, runtime=NVIDIA).env == {GPUS: "void"}
    assert edits(settings, "none", env=env).env == {GPUS: "void"}


def test_devices_of_the_job_are_there_too(settings: DriverSettings) -> None:
    both = {"nvidia": "1", "acme": "1", GPUS: "void"}
    assert edits(settings, "0", devices=("acme.com/gpu=0",)).env == both


def test_nvidias_runtime_gets_the_variable_and_no_cdi_device(settings: DriverSettings) -> None:
    assert edits(settings, "GPU-8f6d", runtime=NVIDIA).env == {GPUS: "GPU-8f6d"}


def test_a_gpu_without_a_file_is_refused_with_the_way_to_make_the_file(
    settings: DriverSettings,
) -> None:
    with pytest.raises(DriverError, match=r"no CDI device .*=GPU-77'") as refused:
        edits(settings, "GPU-8f6d,GPU-77")
    advice = "nvidia-ctk cdi generate --format=json --output=/etc/cdi/nvidia.json; known: acme.com"
    assert advice in (refused.value.resolution or "")
