"""SELinux contexts of tasks, on machines of files: the test's kernel has no policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from containerd.security import selinux
from containerd.security.selinux import Contexts
from proto.errors import Code, DriverError

LXC_CONTEXTS = """\
# of container-selinux
process = "system_u:system_r:container_t:s0"
; another comment
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
"""
OF_CONTAINERS = {
    "process": "system_u:system_r:container_t:s0",
    "file": "system_u:object_r:container_file_t:s0",
}
ALLOC = "1b5a665c-8f6d-41b2-9c2e-000000000001"
LEVEL = selinux.categories(ALLOC)


def machine(root: Path, **files: str) -> Path:
    """Writes files; a name has `__` for each slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "enabled"),
    [
        ({}, False),
        ({"sys__fs__selinux__enforce": "1", "proc__self__attr__current": "kernel\0"}, False),
        ({"proc__self__attr__current": "system_u:system_r:init_t:s0\0"}, False),
        (
            {
                "sys__fs__selinux__enforce": "0",
                "proc__self__attr__current": "system_u:system_r:init_t:s0\0",
            },
            True,
        ),
    ],
)
def test_selinux_is_enabled_with_a_policy_only(
    tmp_path: Path, files: dict[str, str], enabled: bool
) -> None:
    assert selinux.is_enabled(machine(tmp_path, **files)) is enabled


def test_the_contexts_are_the_policys_own_or_the_containers_package_wins(tmp_path: Path) -> None:
    config = "# x\nSELINUX=enforcing\nSELINUXTYPE=mls\n"
    root = machine(
        tmp_path,
        etc__selinux__config=config,
        etc__selinux__mls__contexts__lxc_contexts=LXC_CONTEXTS,
    )
    assert selinux.of_containers(root).items() >= OF_CONTAINERS.items()
    other = LXC_CONTEXTS.replace("container_t", "own_t")
    machine(root, usr__share__containers__selinux__contexts=other)
    assert selinux.of_containers(root)["process"] == "system_u:system_r:own_t:s0"


def test_a_policy_without_contexts_is_refused_with_the_package(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="'targeted' has no contexts of containers") as refused:
        selinux.of_containers(tmp_path)
    assert refused.value.code is Code.PRECONDITION
    assert "install container-selinux" in (refused.value.resolution or "")


def test_the_tasks_of_an_allocation_share_two_categories() -> None:
    contexts = selinux.of_task(OF_CONTAINERS, ALLOC, ())
    assert contexts == Contexts(
        process=f"system_u:system_r:container_t:{LEVEL}",
        files=f"system_u:object_r:container_file_t:{LEVEL}",
    )
    assert contexts.shared_files == "system_u:object_r:container_file_t:s0"
    assert contexts.root_options == (f'context="{contexts.files}"',)
    assert selinux.of_task(OF_CONTAINERS, "another", ()) != contexts


def test_each_level_has_two_different_categories_in_order() -> None:
    for number in range(3000):
        sensitivity, _, pair = selinux.categories(str(number)).partition(":")
        first, second = (int(word.removeprefix("c")) for word in pair.split(","))
        assert sensitivity == "s0"
        assert 0 <= first < second < 1022


def test_options_change_parts_as_dockers_do() -> None:
    options = (
        "type:web_t",
        "level:s0:c1,c2",
        "user:u",
        "role:r",
        "filetype:web_file_t",
        "type:z_t",
    )
    assert selinux.of_task(OF_CONTAINERS, ALLOC, options) == Contexts(
        process="u:r:z_t:s0:c1,c2", files="u:object_r:web_file_t:s0:c1,c2"
    )


def test_an_unconfined_task_has_files_that_no_confined_task_reads() -> None:
    contexts = selinux.of_task(OF_CONTAINERS, ALLOC, ("type:x_t", "disable"))
    files = "system_u:object_r:container_file_t:s0:c1022,c1023"
    assert contexts == Contexts(process="", files=files)


def test_a_policy_without_levels_gets_none() -> None:
    plain = {"process": "u:r:container_t", "file": "u:r:file_t"}
    assert selinux.of_task(plain, ALLOC, ()) == Contexts(
        process="u:r:container_t", files="u:r:file_t"
    )


def test_without_selinux_a_root_has_no_option() -> None:
    assert Contexts().root_options == ()


def test_the_kernel_knows_the_contexts_of_its_policy_alone(tmp_path: Path) -> None:
    contexts = Contexts(process="u:r:container_t:s0", files="u:r:container_file_t:s0")
    assert selinux.unknown(contexts, tmp_path) == ""
    file = tmp_path / "sys/fs/selinux/context"
    file.parent.mkdir(parents=True)
    file.touch()
    assert selinux.unknown(contexts, tmp_path) == ""
    assert file.read_bytes() == f"{contexts.files}\0".encode()
    # This file of the kernel takes numbers alone, and answers with EINVAL as selinuxfs does.
    file.unlink()
    file.symlink_to("/proc/self/coredump_filter")
    assert selinux.unknown(contexts, tmp_path) == contexts.process
    assert selinux.unknown(Contexts(files=contexts.files), tmp_path) == contexts.files
    assert selinux.unknown(Contexts(), tmp_path) == ""


@pytest.mark.parametrize(
    ("enforce", "text", "has_advice"),
    [
        ("1", "open /run/x/0: permission denied", True),
        ("1", "no such file or directory", False),
        ("0", "permission denied", False),
        (None, "permission denied", False),
    ],
)
def test_a_refusal_of_a_policy_in_force_has_advice(
    tmp_path: Path, enforce: str | None, text: str, has_advice: bool
) -> None:
    if enforce is not None:
        (tmp_path / "sys/fs/selinux").mkdir(parents=True)
        (tmp_path / "sys/fs/selinux/enforce").write_text(enforce)
    assert ("ausearch" in selinux.advice(text, tmp_path)) is has_advice
