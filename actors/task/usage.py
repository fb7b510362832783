"""Conversion of the kernel's counters into a task's usage: arithmetic on two samples, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from actors.model.cpu_topology import NodeSpeed
from actors.model.nomad import CpuUsage, MemoryUsage, TaskUsage
from proto.frames import Frame

_Sample = Mapping[str, int | None]


class UsageTracker:
    """Converter of one task's samples, in order, into TaskUsage.

    The first sample has no predecessor, so the usage is 0 %, as in Nomad's own tracker.
    """

    def __init__(self, task_id: str, node: NodeSpeed) -> None:
        self._task_id = task_id
        self._node = node
        self._last: _Sample = {}

    def next(self, sample: Frame) -> TaskUsage:
        """Returns the usage since the previous sample.

        Args:
            sample: the worker's sample frame; times in nanoseconds, memory in bytes.
        """
        now = cast("_Sample", sample)
        before, self._last = self._last, now
        elapsed_ns = _elapsed_ns(before, now)
        percent = _percent(before, now, "cpu_total_ns", elapsed_ns)
        cpu = CpuUsage(
            percent=percent,
            user_percent=_percent(before, now, "cpu_user_ns", elapsed_ns),
            system_percent=_percent(before, now, "cpu_system_ns", elapsed_ns),
            total_ticks=percent / 100 * self._node.total_mhz / max(1, self._node.cores),
            throttled_periods=now.get("throttled_periods"),
            throttled_ns=now.get("throttled_ns"),
        )
        return TaskUsage(
            task_id=self._task_id,
            timestamp_ns=now.get("t_ns") or 0,
            cpu=cpu,
            memory=MemoryUsage(
                usage=now.get("usage"),
                rss=now.get("rss"),
                cache=now.get("cache"),
                swap=now.get("swap"),
                max_usage=now.get("max_usage"),
                kernel_usage=now.get("kernel_usage"),
                kernel_max_usage=now.get("kernel_max_usage"),
            ),
        )


def _percent(before: _Sample, now: _Sample, name: str, elapsed_ns: int) -> float:
    """Computes the CPU use between two samples; 100 is one core busy for the whole time."""
    earlier, later = before.get(name), now.get(name)
    if earlier is None or later is None or elapsed_ns <= 0 or later < earlier:
        return 0.0
    return (later - earlier) * 100 / elapsed_ns


def _elapsed_ns(before: _Sample, now: _Sample) -> int:
    """Computes the time between two samples, by the monotonic clock if the samples have one."""
    clock = "m_ns" if before.get("m_ns") and now.get("m_ns") else "t_ns"
    return (now.get(clock) or 0) - (before.get(clock) or 0)
