"""Conversion of the kernel's counters into a task's usage: arithmetic on two samples, no I/O."""

from __future__ import annotations

from typing import cast

from actors.model.cpu_topology import NodeSpeed
from actors.model.nomad import CpuUsage, MemoryUsage, TaskUsage
from proto.frames import Frame


class UsageTracker:
    """Converter of one task's samples, in order, into TaskUsage.

    The first sample has no predecessor, so the usage is 0 %, as in Nomad's own tracker.
    """

    def __init__(self, task_id: str, node: NodeSpeed) -> None:
        self._task_id = task_id
        self._node = node
        self._last: Frame | None = None

    def next(self, sample: Frame) -> TaskUsage:
        """Returns the usage since the previous sample.

        Args:
            sample: the worker's sample frame; times in nanoseconds, memory in bytes.
        """
        percent = self._percent(sample, "cpu_total_ns")
        cpu = CpuUsage(
            percent=percent,
            user_percent=self._percent(sample, "cpu_user_ns"),
            system_percent=self._percent(sample, "cpu_system_ns"),
            total_ticks=percent / 100 * self._node.total_mhz / max(1, self._node.cores),
            throttled_periods=_int(sample, "throttled_periods"),
            throttled_ns=_int(sample, "throttled_ns"),
        )
        self._last = sample
        return TaskUsage(
            task_id=self._task_id,
            timestamp_ns=_int(sample, "t_ns") or 0,
            cpu=cpu,
            memory=MemoryUsage(
                usage=_int(sample, "usage"),
                rss=_int(sample, "rss"),
                cache=_int(sample, "cache"),
                swap=_int(sample, "swap"),
                max_usage=_int(sample, "max_usage"),
                kernel_usage=_int(sample, "kernel_usage"),
                kernel_max_usage=_int(sample, "kernel_max_usage"),
            ),
        )

    def _percent(self, sample: Frame, name: str) -> float:
        """Computes the CPU use between two samples; 100 is one core busy for the whole time."""
        if self._last is None:
            return 0.0
        before, now = _int(self._last, name), _int(sample, name)
        elapsed = _elapsed_ns(self._last, sample)
        if before is None or now is None or elapsed <= 0 or now < before:
            return 0.0
        return (now - before) * 100 / elapsed


def _elapsed_ns(before: Frame, now: Frame) -> int:
    """Computes the time between two samples, by the monotonic clock if the samples have one."""
    clock = "m_ns" if _int(before, "m_ns") and _int(now, "m_ns") else "t_ns"
    return (_int(now, clock) or 0) - (_int(before, clock) or 0)


def _int(sample: Frame, name: str) -> int | None:
    return cast("int | None", sample.get(name))
