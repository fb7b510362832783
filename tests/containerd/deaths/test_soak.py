"""Short form of `./dev soak`: a dozen tasks, and a plugin that is killed every few seconds."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from tests.soak.story import Plan, Story
from tests.support.plugin.driver import Driver

pytestmark = pytest.mark.containerd
_log = logging.getLogger(__name__)


async def test_tasks_live_and_log_while_their_plugin_is_killed_again_and_again(
    driver: Driver, busybox_image: str
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    _log.warning("seed %d", seed)  # pytest shows the seed of a failure
    plan = Plan(tasks=12, seconds=20, seed=seed, kill_every_s=3)
    story = Story(driver, busybox_image, plan, _log.info)
    try:
        outcome = await asyncio.wait_for(story.play(), 150)
    except TimeoutError:
        pytest.fail(f"it does not end; so far: {story.faults()}")
    assert outcome.faults == []
    counts = outcome.counts
    assert counts.exits == counts.tasks >= plan.tasks
    assert min(outcome.recovered, counts.samples, counts.lines, counts.stopped) > 0
