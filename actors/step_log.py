"""Logs the story of a task: one DEBUG line for each step of a start, a recovery or a removal.

All lines have the same keys, so a filter for a task or a container shows the whole story. A line
costs a level check while DEBUG is off. The agent decides which levels it writes.
"""

from __future__ import annotations

import logging
import time

from actors.model.log_keys import elapsed_ms


class StepLog:
    """Logs the steps of one piece of work. Safe to use from several threads.

    Args:
        logger: the logger of the module that does the work.
        reason: why the work is done; a line about a failure has the failure instead.
        container_id: the container that the work is about.
        task_id: Nomad's id of the task; empty where only the container is known.
        alloc_id: the task's allocation; empty where only the container is known.
    """

    def __init__(
        self,
        logger: logging.Logger,
        reason: str,
        *,
        container_id: str,
        task_id: str = "",
        alloc_id: str = "",
    ) -> None:
        self._logger = logger
        self._keys = {
            "task_id": task_id,
            "alloc_id": alloc_id,
            "container_id": container_id,
            "reason": reason,
        }
        self._begun = time.monotonic()

    def __call__(self, step: str, *, reason: str = "") -> None:
        """Logs a finished step, with the milliseconds since the work began.

        Args:
            step: a statement that stands alone, as "lease created".
            reason: for this line; empty is the reason of the work.
        """
        if self._logger.isEnabledFor(logging.DEBUG):
            keys = {**self._keys, "reason": reason} if reason else self._keys
            self._logger.debug(step, extra={**keys, "elapsed_ms": elapsed_ms(self._begun)})

    def warning(self, text: str, *, reason: str) -> None:
        """Logs a failure of the work that the driver copes with."""
        self._logger.warning(text, extra={**self._keys, "reason": reason})
