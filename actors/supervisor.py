"""Supervisor: the actor that maps Nomad's task ids to TaskActors."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_never

from actors.asyncio_bridge import Reply, spawn, tell
from actors.lifecycle import go_takeover
from actors.lifecycle.recover import container_id
from actors.lifecycle.retry import Retry
from actors.loop_actor import LoopActor
from actors.messages import (
    Claim,
    Configure,
    DestroyUnknown,
    ForTask,
    RecoverTask,
    StartTask,
    SupervisorMessage,
    Track,
    Unclaim,
)
from actors.model import identifiers
from actors.model.log_keys import keys_of_id, task_keys
from actors.provision.log_ends import LogEnds
from actors.task.actor import TaskActor
from actors.task.messages import Begin, Destroy, Recover, TaskGone
from actors.task.phases import Phase
from actors.task.status import not_found
from proto.errors import Code, DriverError

if TYPE_CHECKING:
    from types import TracebackType

    import pykka

    from actors.lifecycle.running import Services
    from actors.model.nomad import TaskConfig
    from actors.model.settings import DriverSettings

_log = logging.getLogger(__name__)
# Time limit for the removal of a task without an actor. A sweep removes the rest later.
_UNKNOWN_AWAY_S = 10.0


class Supervisor(LoopActor):
    """Owner of the map from task id to TaskActor, and of the services of the configuration.

    The actor never blocks. A failure of the Supervisor ends the process: Nomad starts a new plugin,
    which recovers every task. A restart is safer than a damaged Supervisor.
    """

    def __init__(self, make_services: Callable[[DriverSettings], Services]) -> None:
        super().__init__()
        self._make_services = make_services
        self._services: Services | None = None
        self._tasks: dict[str, pykka.ActorRef[Any]] = {}
        self._containers: dict[str, frozenset[str]] = {}
        self._claimed: dict[str, list[tuple[pykka.ActorRef[Any], Begin | Recover]]] = {}

    def on_failure(
        self,
        exception_type: type[BaseException] | None,  # noqa: ARG002
        exception_value: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Ends the process, see the class."""
        _log.critical("supervisor failed, ending the plugin", exc_info=exception_value)
        os._exit(70)

    def on_receive(self, message: SupervisorMessage) -> None:
        """Handles one message; see `actors.messages`."""
        try:
            self._handle(message)
        except DriverError as error:
            reply = getattr(message, "reply", None)
            if not isinstance(reply, Reply):
                raise
            reply.fail(error)

    def _handle(self, message: SupervisorMessage) -> None:
        match message:
            case Configure():
                self._configure(message)
            case StartTask():
                ref = self._new(message.task, Phase.STARTING)
                logs = LogEnds(message.task)
                begin = Begin(options=message.options, logs=logs, reply=message.reply)
                self._begin(message.task, ref, begin)
            case RecoverTask():
                self._recover(message)
            case ForTask(task_id=task_id, request=request):
                actor = self._tasks.get(task_id)
                if actor is None or not tell(actor, request):
                    request.reply.fail(not_found(task_id))
            case DestroyUnknown():
                self._destroy(message)
            case TaskGone(task_id=task_id, ref=ref):
                if self._tasks.get(task_id) == ref:
                    del self._tasks[task_id]
                    del self._containers[task_id]
                # The stop comes after all earlier requests, so the actor answers each request.
                ref.stop(block=False)
            case Track(reply=reply):
                reply.answer(self._tracked())
            case Claim(container=container, reply=reply):
                free = container not in self._tracked() and container not in self._claimed
                if free:
                    self._claimed[container] = []
                reply.answer(free)
            case Unclaim(container=container):
                for ref, delayed in self._claimed.pop(container, []):
                    if not tell(ref, delayed) and isinstance(delayed, Begin):
                        delayed.logs.close()
            case _:
                assert_never(message)

    def _tracked(self) -> frozenset[str]:
        return frozenset().union(*self._containers.values())

    def _begin(self, task: TaskConfig, ref: pykka.ActorRef[Any], message: Begin | Recover) -> None:
        """Sends the first message to an actor, but delays the message during a removal.

        A sweep may be removing older objects with the same container id.
        """
        for container in self._containers[task.id]:
            if container in self._claimed:
                keys = {**task_keys(task), "container_id": container}
                _log.debug("task waits for the removal of older objects", extra=keys)
                self._claimed[container].append((ref, message))
                if isinstance(message, Begin):
                    # The removal ends the writers of the logs; the start needs open logs.
                    self._ready().executor.submit(message.logs.hold)
                return
        tell(ref, message)

    def _configure(self, message: Configure) -> None:
        if self._services is None or self._services.settings != message.settings:
            self._services = self._make_services(message.settings)
        message.reply.answer(None)

    def _new(self, task: TaskConfig, phase: Phase, *containers: str) -> pykka.ActorRef[Any]:
        services = self._ready()
        if task.id in self._tasks:
            raise DriverError(f'task with ID "{task.id}" already started', code=Code.ALREADY_EXISTS)
        ref = TaskActor.start(services, task, self.actor_ref, phase)
        self._tasks[task.id] = ref
        container = identifiers.container_id(task.alloc_id, task.name, cgroup_v2=services.cgroup_v2)
        self._containers[task.id] = frozenset((container, *containers))
        return ref

    def _recover(self, message: RecoverTask) -> None:
        if message.task.id in self._tasks:
            message.reply.answer(None)
            return
        containers: list[str] = []
        with contextlib.suppress(DriverError):  # the task's actor reports the same error
            containers.append(container_id(message.version, message.driver_state))
        ref = self._new(message.task, Phase.RECOVERING, *containers)
        recover = Recover(
            version=message.version, driver_state=message.driver_state, reply=message.reply
        )
        self._begin(message.task, ref, recover)

    def _destroy(self, message: DestroyUnknown) -> None:
        ref = self._tasks.get(message.task_id)
        if ref is not None and tell(ref, Destroy(force=message.force, reply=message.reply)):
            return
        # After a failed RecoverTask Nomad destroys an id without an actor. The container's name is
        # built from the id.
        services = self._ready()
        identifiers.split_task_id(message.task_id)
        _log.debug("removing a task without an actor", extra=keys_of_id(message.task_id))
        retry = Retry(_UNKNOWN_AWAY_S)
        work = retry(lambda: go_takeover.remove_unknown(services, message.task_id))
        spawn(services.loop, work, message.reply.settle)

    def _ready(self) -> Services:
        if self._services is None:
            raise DriverError(
                "the driver is not configured yet",
                details="Nomad must call SetConfig first",
                code=Code.PRECONDITION,
            )
        return self._services
