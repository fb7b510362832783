"""Replies to requests that wait for the same event of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from actors.asyncio_bridge import Reply

T = TypeVar("T")


class Waiters(Generic[T]):
    """Requests without an answer. Answering or failing empties the list."""

    def __init__(self) -> None:
        self._replies: list[Reply[T]] = []

    def add(self, reply: Reply[T]) -> None:
        """Adds a request."""
        self._replies.append(reply)

    def answer(self, value: T) -> None:
        """Answers every request with `value`."""
        for reply in self._take():
            reply.answer(value)

    def fail(self, error: BaseException) -> None:
        """Fails every request with `error`."""
        for reply in self._take():
            reply.fail(error)

    def _take(self) -> list[Reply[T]]:
        replies, self._replies = self._replies, []
        return replies
