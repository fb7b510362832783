"""Custom profiles on a real disk, with attacks by the profile's name in a job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from containerd.security import seccomp_files
from proto.errors import Code, DriverError

SECRET = "root:$6$s3cr3t:19000:0:99999:7:::"
PROFILE = json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}).encode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Creates a profile directory beside a file which no profile name may reach."""
    made = tmp_path / "profiles"
    (made / "team").mkdir(parents=True)
    (made / "web.json").write_bytes(PROFILE)
    (made / "team" / "db.json").write_bytes(PROFILE)
    (tmp_path / "shadow").write_text(SECRET)
    (tmp_path / "profiles-too").mkdir()
    (tmp_path / "profiles-too" / "web.json").write_bytes(PROFILE)
    return made


def refused(directory: Path, written: str) -> DriverError:
    with pytest.raises(DriverError) as caught:
        seccomp_files.load(str(directory), written)
    assert SECRET not in str(caught.value)
    sentence = caught.value.brief
    prefix = "Error in creating container: cannot load seccomp profile "
    assert sentence.startswith(prefix + json.dumps(written[:256]) + ": ")
    return caught.value


@pytest.mark.parametrize(
    "written", ["web.json", "{}/web.json", "{}//web.json", "team/db.json", "team/../web.json"]
)
def test_a_file_below_the_directory_is_read_by_either_path(directory: Path, written: str) -> None:
    found = seccomp_files.load(str(directory), written.format(directory))
    assert found.default_action == "SCMP_ACT_ALLOW"


def test_the_directory_itself_may_be_a_link_of_the_operators(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(directory)
    assert seccomp_files.read(str(tmp_path / "link") + "/", "web.json") == PROFILE


@pytest.mark.parametrize(
    "written",
    [
        "/etc/shadow",
        "/dev/zero",
        "/proc/self/environ",
        "../shadow",
        "{}/../shadow",
        "team/../../shadow",
        "{}-too/web.json",
        "../profiles-too/web.json",
        "/nowhere/at/all",
        "../nothing",
    ],
)
def test_a_path_that_leads_out_is_denied_and_says_nothing_about_its_end(
    directory: Path, written: str
) -> None:
    error = refused(directory, written.format(directory))
    assert error.code is Code.DENIED
    assert error.brief.endswith(f"the path is not below {directory}")


@pytest.mark.parametrize("target", ["../shadow", "/dev/zero", "web.json", "nothing", "/etc"])
def test_links_are_not_followed_wherever_they_lead(directory: Path, target: str) -> None:
    (directory / "link").symlink_to(target)
    for written in ("link", "link/passwd"):
        error = refused(directory, written)
        assert error.code is Code.DENIED
        assert "links are not followed" in error.brief


@pytest.mark.timeout(20)
def test_a_fifo_is_refused_without_waiting_for_its_writer(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    assert "the path is not a regular file" in str(refused(directory, "fifo"))


@pytest.mark.timeout(20)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_an_endless_device_is_refused(directory: Path) -> None:
    os.mknod(directory / "zero", 0o20666, os.makedev(1, 5))
    assert "the path is not a regular file" in str(refused(directory, "zero"))


@pytest.mark.parametrize("written", ["team", ".", "team/", "{}/"])
def test_a_directory_is_no_profile(directory: Path, written: str) -> None:
    assert refused(directory, written.format(directory)).code is Code.INVALID


@pytest.mark.parametrize("written", ["a\0b", "web.json\0", "a\nb", "x" * 5000, "none.json"])
def test_names_of_no_file_are_refused(directory: Path, written: str) -> None:
    assert refused(directory, written).code is Code.INVALID


def test_a_megabyte_is_read_and_one_byte_more_is_not(directory: Path) -> None:
    huge = directory / "huge.json"
    huge.write_bytes(PROFILE.ljust(seccomp_files.LIMIT_BYTES))
    assert seccomp_files.load(str(directory), "huge.json").default_action == "SCMP_ACT_ALLOW"
    os.truncate(huge, seccomp_files.LIMIT_BYTES + 1)
    assert "larger than 1 MiB" in str(refused(directory, "huge.json"))
    os.truncate(huge, 1 << 40)
    assert "larger than 1 MiB" in str(refused(directory, "huge.json"))


def test_a_directory_that_nobody_made_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "none", "web.json")
    assert f"seccomp_profile_dir {tmp_path / 'none'}: No such file or directory" in error.brief
    assert "operator" in error.resolution


def test_a_file_that_is_no_profile_gives_its_name_and_none_of_its_words(directory: Path) -> None:
    (directory / "shadow").write_text(SECRET)
    with pytest.raises(DriverError, match="decoding seccomp profile failed") as caught:
        seccomp_files.load(str(directory), "shadow")
    assert "root" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
