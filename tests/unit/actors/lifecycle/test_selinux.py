"""SELinux from the job to the spec and to the files; the policy of the kernel is a stand-in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from actors.files import relabel
from actors.images.messages import ImageReady
from actors.lifecycle import plan, preparation
from actors.lifecycle.plan import Preparation
from actors.model.gates import Gates
from actors.model.nomad import MountConfig, TaskConfig
from actors.model.settings import DriverSettings, MountOption, SecurityOptions, TaskOptions
from actors.provision.pinned_sources import PinnedSources
from containerd.image.config import ImageConfig
from containerd.security import selinux
from containerd.spec.build import build_spec
from containerd.spec.users import ResolvedUser
from proto.errors import Code, DriverError
from tests.support.plugin.services import services

CONTEXTS = {
    "process": "system_u:system_r:container_t:s0",
    "file": "system_u:object_r:container_file_t:s0",
}
LEVEL = selinux.categories("a")
PROCESS = f"system_u:system_r:container_t:{LEVEL}"
FILES = f"system_u:object_r:container_file_t:{LEVEL}"
SHARED = "system_u:object_r:container_file_t:s0"


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the driver see a policy."""
    monkeypatch.setattr(selinux, "is_enabled", lambda: True)
    monkeypatch.setattr(selinux, "of_containers", lambda: CONTEXTS)


@pytest.fixture
def alloc(tmp_path: Path) -> Path:
    """Creates an allocation and two volumes of the node."""
    for name in ("a/alloc/logs", "a/web/local", "a/web/secrets", "volume/below", "shared"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


async def prepared(
    alloc: Path, *volumes: MountConfig, gates: Gates | None = None, **more: Any
) -> Preparation:
    task = TaskConfig(
        id="a/web/1", name="web", alloc_id="a", alloc_dir=f"{alloc}/a", mounts=volumes
    )
    enabled = more.pop("selinux_enabled", True)
    state_dir = more.pop("state_dir", "/run/x")
    settings = DriverSettings(
        selinux_enabled=enabled, gates=gates or Gates(), state_dir=state_dir, cdi_spec_dirs=()
    )
    options = TaskOptions(image="x", **more)
    return await preparation.prepare(services(settings), task, options)


def volume(path: Path | str, label: str = "") -> MountConfig:
    target = f"/volumes{path}"
    return MountConfig(task_path=target, host_path=str(path), readonly=False, selinux_label=label)


def spec(made: Preparation) -> Any:
    ready = ImageReady(
        name="x", digest="sha256:0", chain_id="sha256:0", config=ImageConfig(cmd=("/x",))
    )
    return build_spec(plan.spec_inputs(made, ready, ResolvedUser(uid=0, gid=0)))


def context(path: Path) -> str:
    try:
        return os.getxattr(path, relabel.ATTRIBUTE).decode()
    except OSError:
        return ""


@pytest.mark.usefixtures("policy")
async def test_a_task_and_its_root_have_the_allocations_categories(alloc: Path) -> None:
    made = await prepared(alloc)
    document = spec(made)
    assert document["process"]["selinuxLabel"] == PROCESS
    assert document["linux"]["mountLabel"] == FILES
    assert made.plan.contexts.root_options == (f'context="{FILES}"',)


async def test_without_a_policy_or_without_the_option_nothing_is_labelled(
    alloc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {
        "selinux_opts": ("type:web_t",),
        "security_opt": SecurityOptions(labels=("level:s0",)),
    }
    etc = volume("/etc", "Z")
    without = spec(await prepared(alloc, etc, selinux_enabled=False))
    assert spec(await prepared(alloc, etc, **asked)) == without
    monkeypatch.setattr(selinux, "is_enabled", lambda: True)
    made = await prepared(alloc, etc, **asked, selinux_enabled=False)
    assert spec(made) == without
    assert made.parts.relabels == ()
    assert "selinuxLabel" not in without["process"]
    assert "mountLabel" not in without["linux"]


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    "options", [{"privileged": True}, {"pid_mode": "host"}, {"ipc_mode": "host"}], ids=str
)
async def test_a_task_that_shares_much_with_the_node_is_not_confined_unless_the_job_asks(
    alloc: Path, options: dict[str, Any]
) -> None:
    made = await prepared(alloc, volume(alloc / "volume", "Z"), **options)
    document = spec(made)
    assert "selinuxLabel" not in document["process"]
    assert document["linux"]["mountLabel"].endswith(":s0:c1022,c1023")
    assert made.parts.relabels == ()
    wished = await prepared(alloc, selinux_opts=("level:s0:c1,c2",), **options)
    assert spec(wished)["process"]["selinuxLabel"].endswith("container_t:s0:c1,c2")


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    "options",
    [{"selinux_opts": ("disable",)}, {"security_opt": SecurityOptions(labels=("type:spc_t",))}],
    ids=str,
)
async def test_no_job_leaves_its_context_where_privileged_jobs_are_forbidden(
    alloc: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(DriverError, match="is not allowed on this node") as refused:
        await prepared(alloc, gates=Gates(allow_privileged=False), **options)
    assert refused.value.code is Code.DENIED
    assert spec(await prepared(alloc, **options))["process"].get("selinuxLabel") != PROCESS


@pytest.mark.usefixtures("policy")
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone pins sources and sets the attribute")
async def test_sources_get_their_contexts_before_the_runtime_mounts(alloc: Path) -> None:
    made = await prepared(
        alloc,
        volume(alloc / "volume", "Z"),
        volume("/etc"),
        state_dir=str(alloc / "state"),
        gates=Gates(volume_label="z"),
    )
    pinned = PinnedSources(made.task, made.parts, made.plan.contexts)
    pinned.begin()
    try:
        await pinned.finished()
    finally:
        await pinned.release()
    own = alloc / "a"
    assert [context(own / name) for name in ("alloc/logs", "web/local", "web/secrets")] == [
        SHARED
    ] * 3
    assert context(own / "web/.etc/hosts") == FILES
    assert [context(alloc / name) for name in ("volume", "volume/below")] == [FILES, FILES]
    assert [context(path) for path in (alloc, alloc / "shared", own / "web")] == ["", "", ""]


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("place", "label", "words"),
    [
        ("/etc", "Z", "volume_mount: '/etc' cannot get another SELinux context"),
        ("/usr/share", "z", "the host needs the context"),
        ("/proc/self/root/etc", "z", "cannot get another SELinux context"),
        ("/srv", "shared", "the SELinux label 'shared' is neither z nor Z"),
    ],
)
async def test_a_context_that_a_volume_cannot_get_is_refused_before_any_work(
    alloc: Path, place: str, label: str, words: str
) -> None:
    with pytest.raises(DriverError, match=words):
        await prepared(alloc, volume(place, label))


@pytest.mark.usefixtures("policy")
async def test_a_jobs_mount_has_dockers_words_and_these_win_over_the_operators(
    alloc: Path,
) -> None:
    def mount(*words: str) -> MountOption:
        return MountOption(target="/v", type="bind", source=f"{alloc}/shared", options=words)

    for operators, words, expected in (("", ("Z",), "Z"), ("z", (), "z"), ("Z", ("z",), "z")):
        made = await prepared(alloc, gates=Gates(volume_label=operators), mounts=(mount(*words),))
        found = {wanted.source.path: wanted.words for wanted in made.parts.relabels}
        assert found[f"{alloc}/shared"] == expected
    with pytest.raises(DriverError, match="the SELinux label 'zZ' is neither z nor Z"):
        await prepared(alloc, mounts=(mount("z", "Z"),))


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"selinux_opts": ("type:no_t",)}, Code.INVALID, "correct selinux_opts"),
        ({}, Code.PRECONDITION, "install container-selinux"),
        ({"privileged": True}, Code.PRECONDITION, "install container-selinux"),
    ],
    ids=str,
)
async def test_a_context_that_the_policy_does_not_know_is_refused_before_any_work(
    alloc: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    code: Code,
    words: str,
) -> None:
    monkeypatch.setattr(selinux, "unknown", lambda contexts: contexts.process or contexts.files)
    with pytest.raises(DriverError, match="does not know the context system_u:") as refused:
        await prepared(alloc, **options)
    assert refused.value.code is code
    assert words in str(refused.value)
