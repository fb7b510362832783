"""Events before the first subscriber, and after."""

from __future__ import annotations

import asyncio

from actors.events import QUEUE_LENGTH, EventActor, Publish, Subscribe, Unsubscribe
from actors.model.nomad import TaskEvent


async def test_the_first_subscriber_gets_what_came_before_it_and_the_second_does_not() -> None:
    actor = EventActor.start()
    queues: list[asyncio.Queue[TaskEvent]] = [asyncio.Queue(QUEUE_LENGTH) for _ in range(2)]
    try:
        actor.tell(Publish(event=event("early")))
        for queue in queues:
            actor.tell(Subscribe(queue=queue))
        actor.tell(Publish(event=event("late")))
        assert [(await queues[0].get()).message for _ in range(2)] == ["early", "late"]
        assert (await queues[1].get()).message == "late"
        for queue in queues:
            actor.tell(Unsubscribe(queue=queue))
            assert queue.empty()
    finally:
        await asyncio.to_thread(actor.stop)


def event(text: str) -> TaskEvent:
    return TaskEvent(task_id="a/t/1", alloc_id="a", task_name="t", timestamp_ns=1, message=text)
