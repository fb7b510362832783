"""`./dev soak`: tasks that start, log, are sampled, signalled, exec'ed, stopped and recovered.

Meanwhile the plugin is killed every few seconds. The report has the resources of each kind of
process in the first, the middle and the last third of the run, all exit codes, all log lines, and a
verdict. Growth decides: of memory that a process alone has written (own), of file descriptors and
of threads. The report shows containerd and shims too, without a verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

from tests.soak import gauges
from tests.soak.gauges import MB, Gauge
from tests.soak.story import Outcome, Plan, Story
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.driver import Driver
from tests.support.registries import images
from tests.support.registries.registry import Registry

_LONGEST_S = 1200
_FAULTS_SHOWN = 20


def soak(plan: Plan) -> Outcome:
    """Runs one soak on a containerd and a registry of its own."""
    # Each task needs two FIFOs and a stream in the soak's process.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        ContainerdDaemon() as containerd,
        Registry() as registry,
        tempfile.TemporaryDirectory() as directory,
    ):
        image = images.build([images.busybox_layer()], {"Cmd": ["/bin/sh"]})
        reference = images.push(registry.host, "busybox", "1", image)
        driver = Driver(containerd, Path(directory))
        try:
            story = Story(driver, reference, plan, _tell)
            return asyncio.run(asyncio.wait_for(story.play(), _LONGEST_S))
        finally:
            driver.close()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def show(outcome: Outcome) -> None:
    """Prints the table and the verdict."""
    head = ("", "PSS MB start", "middle", "end", "own start", "middle", "end", "fds", "threads")
    rows = [[*head, "zombies", "judged"], *(_row(outcome, gauge) for gauge in outcome.gauges)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        sys.stdout.write("  ".join(cells) + "\n")
    counts = outcome.counts
    sys.stdout.write(
        f"\n{counts.tasks} tasks of {counts.starts} starts, {counts.exits} exits as they had to be,"
        f" {counts.stopped} of them stopped; {counts.lines} lines, {counts.samples} samples,"
        f" {counts.signals} signals, {counts.execs} execs\n"
        f"{outcome.kills} kills of the plugin, {outcome.recovered} recoveries, the slowest of"
        f" {outcome.plan.tasks} at once {outcome.slowest_recovery_s:.2f} s\n"
    )
    for fault in outcome.faults[:_FAULTS_SHOWN]:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write(f"{verdict(outcome)}\n")


def verdict(outcome: Outcome) -> str:
    """Returns the outcome in a sentence."""
    if outcome.faults:
        return f"Failed: {len(outcome.faults)} faults. Again with --seed {outcome.plan.seed}."
    return "Passed: every line and exit came, nothing has grown, nothing is left."


def _row(outcome: Outcome, gauge: Gauge) -> list[str]:
    parts = gauge.thirds()
    pss = [f"{gauge.value(part, lambda one: one.pss) / MB:.2f}" for part in parts]
    own = [f"{gauge.value(part, lambda one: one.own) / MB:.2f}" for part in parts]
    counts = [
        f"{gauge.value(parts[0], of):.0f} > {gauge.value(parts[2], of):.0f}"
        for of in (lambda one: one.fds, lambda one: one.threads)
    ]
    judged = ("flat" if not gauge.faults else "GREW") if gauge.kind in gauges.OURS else "-"
    name = f"{gauge.kind} ({len(gauge.stay())})"
    return [name, *pss, *own, *counts, str(outcome.zombies.get(gauge.kind, 0)), judged]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Returns the outcome for programs."""
    table = [
        {
            "kind": gauge.kind,
            "processes": len(gauge.stay()),
            "zombies": outcome.zombies.get(gauge.kind, 0),
            "thirds": [
                {
                    name: gauge.value(part, attrgetter(name))
                    for name in ("pss", "rss", "own", "fds", "threads")
                }
                for part in gauge.thirds()
            ],
            "faults": gauge.faults,
        }
        for gauge in outcome.gauges
    ]
    return {
        "plan": asdict(outcome.plan),
        "counts": asdict(outcome.counts),
        "kills": outcome.kills,
        "recovered": outcome.recovered,
        "slowest_recovery_s": outcome.slowest_recovery_s,
        "processes": table,
        "faults": outcome.faults,
        "verdict": verdict(outcome),
    }


def main() -> int:
    """Soaks and prints; the exit status is 1 after a fault."""
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    usual = Plan(seed=random.SystemRandom().getrandbits(32))
    parser.add_argument("--tasks", type=int, default=usual.tasks, help="at the same time")
    parser.add_argument(
        "--seconds", type=float, default=usual.seconds, help="from the last start to the first end"
    )
    parser.add_argument(
        "--kill-every", type=float, default=usual.kill_every_s, metavar="SECONDS", help="on average"
    )
    parser.add_argument("--seed", type=int, default=usual.seed, help="of what happens by chance")
    parser.add_argument("--json", action="store_true", help="figures and verdict for programs")
    arguments = parser.parse_args()
    plan = Plan(
        tasks=arguments.tasks,
        seconds=arguments.seconds,
        seed=arguments.seed,
        kill_every_s=arguments.kill_every,
    )
    _tell(f"seed {plan.seed}")
    outcome = soak(plan)
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(outcome), indent=1) + "\n")
    else:
        show(outcome)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
