"""After a task's end: until its logs are in the FIFOs for good, or it is plain that they get stuck.

containerd's Delete gives the shim two seconds to copy what is left and then drops the rest, so the
plugin deletes only when told that the keepers have seen the shim close its ends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.logs.keeper import Keeper
    from workers.loop import Loop, Timer

_LOOK_S = 0.25
_STUCK_S = 2.0
_LONGEST_S = 30.0


class Drain:
    """Watches the keepers of one task from its end on.

    Args:
        loop: the worker's loop.
        keepers: of the task; none is fine.
        done: called once, with whether all that the task wrote has been passed on.
    """

    def __init__(self, loop: Loop, keepers: Sequence[Keeper], done: Callable[[bool], None]) -> None:
        self._loop = loop
        self._keepers = keepers
        self._done = done
        self._timer: Timer | None = None
        self._began = False
        self._over = False
        self._unread: list[int] = []
        self._still_s = 0.0
        self._total_s = 0.0

    def begin(self) -> None:
        """The task has ended: `done` is called now or later."""
        if self._began:
            return
        self._began = True
        for keeper in self._keepers:
            keeper.nudge()
        self.look()
        if not self._over:
            self._timer = self._loop.later(_LOOK_S, self._tick)

    def look(self) -> None:
        """A keeper saw its shim close."""
        if self._began and all(keeper.hung_up for keeper in self._keepers):
            self._finish(complete=True)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        """Somebody who reads shows as a FIFO whose filling changes."""
        unread = [keeper.unread() for keeper in self._keepers]
        if unread != self._unread:
            self._still_s = 0.0
        else:
            self._still_s += _LOOK_S
            for keeper in self._keepers:
                keeper.make_room()
        self._total_s += _LOOK_S
        self._unread = unread
        if self._still_s >= _STUCK_S or self._total_s >= _LONGEST_S:
            self._finish(complete=False)
        else:
            self._timer = self._loop.later(_LOOK_S, self._tick)

    def _finish(self, *, complete: bool) -> None:
        if self._over:
            return
        self.cancel()
        self._done(complete)
