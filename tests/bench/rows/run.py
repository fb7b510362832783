"""The row `run`: `containerd-driver run` of `true`, beside `ctr run`."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Measured, Plot, PlotKind, ratio, samples
from tests.bench.setting import Setting
from tests.support.plugin.plugin_dir import command

_PART_OF_ROUNDS = 10
_TIMEOUT_S = 60
# 0.45 s on a machine where `ctr run` takes 0.12 s.
_LIMIT = 3.75
# HCL, as people write jobs: the parser is a part of the time.
_JOB = """
job "j" {{
  type = "batch"
  group "g" {{
    task "main" {{
      driver = "containerd-driver"
      config {{
        image   = "{image}"
        command = "true"
      }}
    }}
  }}
}}
"""


async def measure(setting: Setting) -> Measured:
    """Measures `containerd-driver run` of `true` on a present image, beside `ctr run`, in turns."""
    rounds = max(2, setting.plan.rounds // _PART_OF_ROUNDS)
    ours, ctr = [], []
    with tempfile.TemporaryDirectory() as directory:
        job = Path(directory) / "job.nomad"
        job.write_text(_JOB.format(image=setting.image))
        for number in range(rounds + 1):
            by_ctr = await asyncio.to_thread(_by_ctr, setting, f"run-{number}")
            own = await asyncio.to_thread(_ours, setting, job)
            if number:
                ctr.append(by_ctr)
                ours.append(own)
            setting.progress.step(number, rounds)
    figure = ratio("containerd-driver run of true / ctr run", ours, ctr, _LIMIT, "ctr run")
    plot = Plot(
        title="Run of `true` without Nomad",
        kind=PlotKind.BARS,
        x="",
        y="ms",
        series={"ctr run": samples(ctr), "containerd-driver run": samples(ours)},
    )
    return Measured(figures=[figure], plots=[plot])


def _ours(setting: Setting, job: Path) -> float:
    driver = setting.driver
    words = [
        *(*command(), "run", str(job)),
        *("--alloc-dir", str(driver.alloc_root)),
        *("--config", f"containerd_address={driver.containerd.address}"),
        *("--config", f"containerd_namespace={driver.containerd.namespace}"),
        *("--config", f"state_dir={driver.state_dir}"),
    ]
    return _spent_ms(words)


def _by_ctr(setting: Setting, name: str) -> float:
    begun = time.perf_counter()
    setting.driver.daemon.ctr("run", "--rm", setting.image, name, "true")
    return (time.perf_counter() - begun) * 1000


def _spent_ms(words: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    spent = (time.perf_counter() - begun) * 1000
    assert done.returncode == 0, done.stdout + done.stderr
    return spent
