"""Releases that answered starts finish in the background."""

from __future__ import annotations

import asyncio

from actors.lifecycle.running import Releases


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
