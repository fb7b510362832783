"""Tests of the imports of launcher and workers: imports cost memory, in part once per task."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.workers.peers import ROOT, LauncherProcess

FORBIDDEN = {
    *("asyncio", "google", "grpc", "psutil", "pykka", "pyroute2", "ssl", "urllib3"),
    *("argparse", "concurrent", "contextlib", "dataclasses", "email", "http", "importlib.metadata"),
    *("inspect", "json", "logging", "multiprocessing", "pathlib", "re", "shutil", "subprocess"),
    *("signal", "tempfile", "threading", "traceback", "typing", "unittest", "urllib", "warnings"),
    *("actors", "containerd", "plugin"),
}
"""Third parties first, then what the standard library has that is large, then our other rooms."""

OURS = {"proto", "workers"}
NEEDED = {
    "errno",
    "faulthandler",
    "fcntl",
    "gc",
    "msgpack",
    "os",
    "select",
    "_signal",
    "_socket",
    "sdnotify",
    "struct",
    "termios",
}


def imported(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))


def at_start() -> set[str]:
    """Returns the modules of a bare Python, with the additions of the machine's site."""
    return imported("")


def test_the_launcher_imports_nothing_large() -> None:
    added = imported(f"import sys; sys.path.insert(0, {str(ROOT)!r}); import workers.launcher")
    added -= at_start()
    roots = {name.partition(".")[0] for name in added}
    assert not (added | roots) & FORBIDDEN
    assert added >= NEEDED - at_start()


def test_a_worker_imports_nothing_at_all_after_its_fork() -> None:
    with LauncherProcess(("-X", "importtime")) as launcher:
        before = launcher.log.read_text()
        assert "workers.launch.warm_up" not in before, "the log begins after the imports"
        with launcher.worker("a") as worker:
            assert worker.ask("hello")["ok"] is True
            assert worker.ask("stats", interval_ms=0)["ok"] is True
            assert worker.ask("end")["ok"] is True
            assert worker.receive() is None
        after = launcher.log.read_text()
    # With importtime every import is a line on stderr, which is the launcher's log.
    assert after == before
