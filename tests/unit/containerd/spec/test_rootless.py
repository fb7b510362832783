"""Changes of a spec for a containerd without root."""

from __future__ import annotations

from typing import Any

from containerd.image.config import ImageConfig
from containerd.spec.build import SpecInputs, build_spec
from containerd.spec.resources import Limits
from containerd.spec.rootless import Rootless
from containerd.spec.users import ResolvedUser


def built(rootless: Rootless | None, **more: Any) -> dict[str, Any]:
    """Builds the spec of a task with a limit of memory."""
    inputs = SpecInputs(
        image_config=ImageConfig(cmd=("/bin/true",)),
        user=ResolvedUser(uid=0, gid=0),
        hostname="h",
        cgroup_path="/nomad/t",
        limits=Limits(memory_bytes=1 << 20),
        rootless=rootless,
        **more,
    )
    return build_spec(inputs)


def test_a_task_without_cgroups_has_no_limits_of_cgroups() -> None:
    linux = built(Rootless())["linux"]
    assert (linux["cgroupsPath"], linux["resources"]) == ("", {})
    assert built(Rootless(cgroups=True))["linux"] == built(None)["linux"]


def test_an_oom_score_is_never_below_that_of_containerd() -> None:
    for wanted, least, given in ((0, 100, 100), (200, 100, 200), (0, 0, 0)):
        spec = built(Rootless(least_oom_score=least), oom_score_adj=wanted)
        assert spec["process"]["oomScoreAdj"] == given


def test_a_task_in_a_foreign_network_sees_the_sys_of_the_node() -> None:
    mounts = {mount["destination"]: mount for mount in built(Rootless())["mounts"]}
    assert mounts["/sys"]["type"] == "sysfs"
    spec = built(Rootless(foreign_network=True))
    mounts = {mount["destination"]: mount for mount in spec["mounts"]}
    assert (mounts["/sys"]["type"], mounts["/sys"]["source"]) == ("bind", "/sys")
    assert {"rbind", "ro"} <= set(mounts["/sys"]["options"])
    assert mounts["/sys/fs/cgroup"]["type"] == "cgroup"
