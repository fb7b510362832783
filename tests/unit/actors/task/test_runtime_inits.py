"""The end of a runtime's process that waits inside a task."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from actors.task import runtime_inits
from tests.support.waiting import slowed

NAMED = (
    "import sys, time; open('/proc/self/comm', 'w').write(sys.argv[1]); print(flush=True);"
    " time.sleep(99)"
)


def started(name: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["python3", "-c", NAMED, name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("place", ["", "pids"])
def test_a_waiting_init_is_killed_and_no_other_process(tmp_path: Path, place: str) -> None:
    init, program, outside = started("runc:[2:INIT]"), started("sleep"), started("runc:[2:INIT]")
    cgroup = tmp_path / place / "nomad" / "t"
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text(f"{init.pid}\n{program.pid}\n")
    try:
        runtime_inits.kill("/nomad/t", tmp_path)
        assert init.wait(slowed(10)) == -9
        assert program.poll() is None
        assert outside.poll() is None
        runtime_inits.kill("/nomad/none", tmp_path)
    finally:
        for process in (init, program, outside):
            process.kill()
            process.communicate()
