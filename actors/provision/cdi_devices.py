"""CDI devices of a task: the names in the job's `devices`, and GPUs of Nomad's device plugin.

Nomad's device plugin for NVIDIA names the task's GPUs in a variable, which nvidia's runtime reads.
Here the GPUs become CDI devices, so each runtime has them. Only the device plugin's own variables
count: a job that sets the variable itself gets no GPU, also under nvidia's runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from containerd.spec import cdi

if TYPE_CHECKING:
    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings, TaskOptions
    from containerd.runtimes import Runtime

GPUS = "NVIDIA_VISIBLE_DEVICES"
_KIND = "nvidia.com/gpu"
# Values of the variable for no GPU. With `void`, nvidia's runtime changes nothing.
_VOID = "void"
_NO_GPUS = frozenset({"", "none", _VOID})


def edits(
    settings: DriverSettings, task: TaskConfig, options: TaskOptions, runtime: Runtime
) -> cdi.Edits:
    """Returns the additions of the task's CDI devices. Blocks: reads the CDI files.

    Raises:
        DriverError: code INVALID; no CDI file describes a device, or the file cannot be used.
    """
    names = options.cdi_devices if runtime.adds_gpus else (*gpus(task), *options.cdi_devices)
    for directory in settings.cdi_spec_dirs if names else ():
        file_servers.visit(directory, "cdi_spec_dirs")
    found = cdi.edits(names, settings.cdi_spec_dirs)
    return dataclasses.replace(found, env={**found.env, **_variable(task, runtime)})


def gpus(task: TaskConfig) -> tuple[str, ...]:
    """Returns the CDI names of the GPUs of Nomad's device plugin."""
    listed = (gpu.strip() for gpu in task.device_env.get(GPUS, "").split(","))
    return tuple(f"{_KIND}={gpu}" for gpu in listed if gpu not in _NO_GPUS)


def _variable(task: TaskConfig, runtime: Runtime) -> Mapping[str, str]:
    """Returns the task's variable: the device plugin's for nvidia's runtime, else void.

    Nvidia's runtime reads the variable, also from the image.
    """
    if runtime.adds_gpus:
        return {GPUS: task.device_env.get(GPUS, _VOID)}
    return {GPUS: _VOID} if GPUS in task.device_env else {}
