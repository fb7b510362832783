"""The image request of a job: name, time and source of the pull."""

from __future__ import annotations

import pytest

from actors.images import request
from actors.images.messages import ImageRequest, PullPolicy
from actors.model.nomad import TaskConfig
from actors.model.settings import Auth, DriverSettings, TaskOptions
from containerd.pull.protocol import Archive
from proto.errors import Code, DriverError
from tests.support.plugin.services import services

TASK = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir="/allocs/a")


def asked(options: TaskOptions, settings: DriverSettings | None = None) -> ImageRequest:
    """Returns the image request for the options."""
    return request.request(services(settings), TASK, options)


@pytest.mark.parametrize(
    ("image", "policy", "force", "expected"),
    [
        ("redis", "", False, PullPolicy.FRESH),
        ("redis:latest", "", False, PullPolicy.FRESH),
        ("redis:7", "", False, PullPolicy.MISSING),
        (f"redis:latest@sha256:{'a' * 64}", "", False, PullPolicy.MISSING),
        ("redis:latest", "missing", False, PullPolicy.MISSING),
        ("redis:latest", "never", False, PullPolicy.NEVER),
        ("redis:latest", "always", False, PullPolicy.ALWAYS),
        ("redis:7", "always", False, PullPolicy.ALWAYS),
        ("redis:7", "", True, PullPolicy.ALWAYS),
        ("redis:7", "always", True, PullPolicy.ALWAYS),
    ],
)
def test_the_policy_is_the_jobs_or_follows_the_tag(
    image: str, policy: str, force: bool, expected: PullPolicy
) -> None:
    options = TaskOptions(image=image, image_pull_policy=policy, force_pull=force)
    assert asked(options).policy is expected


@pytest.mark.parametrize("policy", ["missing", "never"])
def test_force_pull_does_not_go_with_another_policy(policy: str) -> None:
    options = TaskOptions(image="redis", image_pull_policy=policy, force_pull=True)
    with pytest.raises(DriverError, match="exclude each other") as caught:
        asked(options)
    assert caught.value.code is Code.INVALID


def test_requests_share_a_pull_unless_their_credentials_differ() -> None:
    plain = asked(TaskOptions(image="redis:7"))
    assert plain == asked(TaskOptions(image="docker.io/library/redis:7"))
    alice = TaskOptions(image="redis:7", auth=Auth(username="alice", password="a"))
    wrong = TaskOptions(image="redis:7", auth=Auth(username="alice", password="b"))
    assert len({plain, asked(alice), asked(wrong)}) == 3
    assert asked(TaskOptions(image="redis:7", snapshotter="native")) != plain


def test_the_snapshotter_is_the_tasks_else_the_drivers_else_containerds() -> None:
    driver = DriverSettings(snapshotter="native")
    assert asked(TaskOptions(image="redis", snapshotter="zfs"), driver).snapshotter == "zfs"
    assert asked(TaskOptions(image="redis"), driver).snapshotter == "native"
    assert asked(TaskOptions(image="redis")).snapshotter == "overlayfs"


def test_an_archive_lies_beneath_the_tasks_directory() -> None:
    options = TaskOptions(image="redis", load="local//./redis.tar")
    assert asked(options).archive == Archive(root="/allocs/a/web", path="local/redis.tar")
    assert asked(TaskOptions(image="redis")).archive is None


@pytest.mark.parametrize(
    "load", ["/etc/shadow", "../other/local/x.tar", "local/../../x", "..", ".", "local/.."]
)
def test_an_archive_elsewhere_is_refused(load: str) -> None:
    with pytest.raises(DriverError, match="is not a path beneath the task's directory"):
        asked(TaskOptions(image="redis", load=load))


@pytest.mark.parametrize("name", ["..", ".", "", "../b", "web/local", "/etc"])
def test_s25_a_task_whose_name_is_a_path_has_no_archive(name: str) -> None:
    task = TaskConfig(id="a/web/1", name=name, alloc_id="a", alloc_dir="/allocs/a")
    with pytest.raises(DriverError, match="beneath the task's directory"):
        request.request(services(), task, TaskOptions(image="redis", load="local/x.tar"))


def test_a_task_without_a_directory_has_no_archive() -> None:
    task = TaskConfig(id="a/web/1", name="web", alloc_id="a")
    with pytest.raises(DriverError, match="beneath the task's directory"):
        request.request(services(), task, TaskOptions(image="redis", load="x.tar"))


@pytest.mark.parametrize(
    ("options", "platform"),
    [
        ({}, ""),
        ({"platform": "linux/arm64"}, "linux/arm64"),
        ({"platform": "ARM64"}, "linux/arm64"),
        ({"platform": "linux/aarch64/v8"}, "linux/arm64/v8"),
        ({"arch": "arm", "variant": "v6"}, "linux/arm/v6"),
        ({"os": "linux", "arch": "s390x"}, "linux/s390x"),
    ],
)
def test_a_platform_is_written_as_for_docker_or_for_podman(
    options: dict[str, str], platform: str
) -> None:
    assert asked(TaskOptions(image="redis", **options)).platform == platform  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"platform": "linux/arm64", "arch": "arm"}, "write one of both forms"),
        ({"platform": "windows/amd64"}, "images for 'windows' do not run here"),
        ({"os": "wasi", "arch": "wasm"}, "images for 'wasi' do not run here"),
    ],
)
def test_a_platform_that_cannot_run_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(DriverError, match=words):
        asked(TaskOptions(image="redis", **options))  # type: ignore[arg-type]
