"""The limits of a process behind a socket, and the effects on tasks."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from containerd import daemon_process
from containerd.daemon_process import OPEN_FILES, USUAL, DaemonProcess


def test_the_process_behind_a_socket_is_looked_at(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        found = daemon_process.inspect(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    known = tuple((1 << 64) - 1 if one == resource.RLIM_INFINITY else one for one in limits)
    assert found.open_files == known


def test_another_process_behind_the_same_socket_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for open_files in ((100, 200), (300, 400)):
        with _listening(path, open_files):
            for _ in range(2):
                assert daemon_process.inspect(str(path)).open_files == open_files
        path.unlink()


@contextlib.contextmanager
def _listening(
    path: Path, open_files: tuple[int, int], prefix: Sequence[str] = ()
) -> Iterator[None]:
    script = (
        "import resource, socket, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {open_files})\n"
        f"s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen()\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


def test_a_socket_with_nobody_behind_it_is_a_usual_containerds(tmp_path: Path) -> None:
    assert daemon_process.inspect(str(tmp_path / "none")) == USUAL
    (tmp_path / "file").touch()
    assert daemon_process.inspect(str(tmp_path / "file")) == USUAL
    assert daemon_process.inspect("/x" * 200) == USUAL


def test_a_task_gets_what_newer_units_give_but_no_more_than_containerd_may_give() -> None:
    huge = (1_000_000_000, 1_000_000_000)
    for free in (True, False):
        assert DaemonProcess(open_files=huge, raises_limits=free).task_open_files() == OPEN_FILES
    small = DaemonProcess(open_files=(512, 512), raises_limits=False)
    assert small.task_open_files() == (512, 512)
    assert DaemonProcess(open_files=(512, 512), raises_limits=True).task_open_files() == OPEN_FILES


def test_a_process_in_a_user_namespace_raises_no_limits(tmp_path: Path) -> None:
    # Root there has CAP_SYS_RESOURCE, and the kernel asks for the machine's.
    program = ["unshare", "--map-root-user", "--user"]
    with _listening(tmp_path / "s", (100, 200), program):
        found = daemon_process.inspect(str(tmp_path / "s"))
    assert not found.raises_limits
    assert found.hard_limits["nofile"] == 200
    assert found.task_open_files() == (200, 200)
    assert found.oom_score_adj == int(Path("/proc/self/oom_score_adj").read_text())
