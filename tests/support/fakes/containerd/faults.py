"""The faults of a fake containerd, chosen by the test."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import grpc

EVERY_CALL = "*"


class Refused(Exception):  # noqa: N818 - what a handler answers instead of a message
    """The status of a call that containerd refuses."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(slots=True, eq=False)
class Fault:
    """The treatment of a method's calls from now on.

    `code` None delays the answer until `release`. With `after` containerd does the work, and only
    the answer is lost. `container` limits the fault to one container, by a part of the id.
    """

    path: str
    code: grpc.StatusCode | None
    text: str = ""
    after: bool = False
    container: str = ""
    calls: int = 0
    abandoned: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Lets calls go on as without a fault."""
        self.released.set()

    def befall(self, context: grpc.ServicerContext) -> None:
        """Delays a call, or refuses the call.

        Raises:
            Refused: the fault refuses calls, or the caller has given up.
        """
        self.calls += 1
        if self.code is not None and not self.released.is_set():
            raise Refused(self.code, self.text)
        ended = threading.Event()
        if not context.add_callback(ended.set):
            ended.set()
        while not self.released.wait(0.01) and not ended.is_set():
            pass
        if ended.is_set():
            self.abandoned += 1
            raise Refused(grpc.StatusCode.CANCELLED, "context canceled")


class Faults:
    """The present faults. The latest fault of a method comes first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Adds a fault."""
        self._faults.insert(0, fault)
        return fault

    def spare(self, fault: Fault) -> None:
        """Removes a fault for new calls; calls that wait go on waiting for its release."""
        self._faults.remove(fault)

    def clear(self) -> None:
        """Ends all faults; calls that wait go on."""
        faults, self._faults = self._faults, []
        for fault in faults:
            fault.release()

    def find(self, path: str, request: Any) -> Fault | None:
        """Returns the fault of a call, or None."""
        for fault in self._faults:
            if fault.path in {path, EVERY_CALL} and fault.container in str(request):
                return fault
        return None
