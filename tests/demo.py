"""`./dev demo`: runs hello.nomad with a registry and a containerd of its own, then removes both."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from actors.processes import child_process
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.workers.launcher import end_launcher

JOB = Path(__file__).resolve().parents[1] / "example" / "hello.nomad"


def main() -> int:
    """Runs the demo and returns the job's exit status."""
    if os.geteuid() != 0:
        sys.stderr.write(
            "the demo starts a containerd and a container, which needs root: sudo ./dev demo\n"
        )
        return 1
    with (
        ContainerdDaemon() as containerd,
        Registry() as registry,
        tempfile.TemporaryDirectory() as state,
    ):
        image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
        reference = images.push(registry.host, "hello", "1", image)
        say(f"a containerd at {containerd.address}")
        say(f"a registry at {registry.host}, with {reference} built a moment ago")
        say(f"containerd-driver run example/{JOB.name} --var image={reference}")
        try:
            status = subprocess.run(
                [
                    *(sys.executable, str(child_process.ROOT / "plugin" / "main.py"), "run"),
                    *(str(JOB), "--var", f"image={reference}"),
                    *("--config", f"containerd_address={containerd.address}"),
                    *("--config", f"state_dir={state}"),
                ],
                check=False,
            ).returncode
        finally:
            end_launcher(Path(state))
    if status == 0:
        say("next: what this machine lacks for jobs on a containerd of yours, as root")
        say("  .venv/bin/python plugin/main.py doctor")
    return status


def say(text: str) -> None:
    """Prints a line about the progress."""
    sys.stderr.write(f"demo: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
