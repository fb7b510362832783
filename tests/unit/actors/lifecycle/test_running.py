"""Releases that answered starts finish in the background, and the watch of a task."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from actors.lifecycle.running import Releases, watch


async def test_a_start_waits_for_the_release_of_an_earlier_start_of_its_container() -> None:
    releases, gate, order = Releases(), asyncio.Event(), list[str]()

    async def release() -> None:
        await gate.wait()
        order.append("released")

    async def start(container: str) -> None:
        await releases.finished(container)
        order.append(f"started {container}")

    releases.begin("t-a", release)
    again = asyncio.create_task(start("t-a"))
    await start("t-b")
    gate.set()
    await again
    assert order == ["started t-b", "released", "started t-a"]
    await releases.finished("t-a")


async def test_a_new_worker_of_a_running_task_tells_the_health_with_its_watch() -> None:
    answers: list[dict[str, Any]] = [{"health": "healthy"}, {"pid": 1}]

    async def shim(*_: object) -> SimpleNamespace:
        return SimpleNamespace(address="unix:///s", api=2)

    async def request(_op: str, **_fields: object) -> dict[str, Any]:
        return answers.pop(0)

    services = SimpleNamespace(
        containerd=SimpleNamespace(shim=shim), namespace="nomad", cgroups=True
    )
    link = SimpleNamespace(health="", request=request)
    for _ in range(2):  # a worker without a check says nothing
        assert await watch(cast("Any", services), "c", 1, cast("Any", link), host_kernel=True)
        assert link.health == "healthy"
