"""The services of a plugin without peers, for tests of pure functions."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from actors.lifecycle.admission import Admission
from actors.lifecycle.running import Releases, Services
from actors.model.settings import DriverSettings
from actors.processes.apparmor_loader import ProfileLoader
from actors.processes.launcher_link import LauncherLink
from containerd.api.client import Containerd


def services(settings: DriverSettings | None = None, *, cgroup_v2: bool = False) -> Services:
    """Returns services whose containerd, launcher and actors must not be reached."""
    chosen = settings or DriverSettings()
    return Services(
        settings=chosen,
        loop=cast("asyncio.AbstractEventLoop", None),
        executor=cast("ThreadPoolExecutor", None),
        containerd=Containerd("/nowhere/containerd.sock", "nomad"),
        namespace="nomad.slice" if cgroup_v2 else "nomad",
        cgroup_v2=cgroup_v2,
        boot_id="boot",
        launcher=LauncherLink(Path(chosen.state_dir)),
        images=cast("Any", None),
        events=cast("Any", None),
        admission=Admission(1),
        releases=Releases(),
        apparmor=ProfileLoader(Path(chosen.state_dir)),
    )
