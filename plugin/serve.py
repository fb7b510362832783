"""The plugin process: what starts in which order, and how it leaves.

    socket directory → gRPC server → handshake line → [first call: services] → [SetConfig: actors]

Nomad starts the program three times and two of them are probes, so what a call needs is loaded by
the call. Leaving has no steps: an orderly end would answer WaitTask with an error while the
process still lives, and Nomad takes that for the end of the task; a process that is gone it
starts again, and recovers every task. Nothing that a task needs lives in here.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from plugin import environment, parent_watch, rlimit, stack_dump
from plugin.handshake import Rendezvous

if TYPE_CHECKING:
    from actors.gateway import Gateway

    # The stubs are generic, gRPC's own classes are not.
    Handler = grpc.RpcMethodHandler[Any, Any]

_SERVER_OPTIONS: list[tuple[str, Any]] = [
    # A job's environment may be megabytes; the host sends up to 2 GiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
# For the answer to Shutdown to leave before the process does.
_LAST_WORDS_S = 0.02
# Late enough that an agent's probes are gone by then.
_SWEEP_S = 5.0


def _actors() -> Gateway:
    from actors.actor_gateway import ActorGateway  # noqa: PLC0415 - a probe ends before it needs them

    return ActorGateway(environment.proxies())


def run(make_gateway: Callable[[], Gateway] = _actors) -> None:
    """Serves one Nomad agent until it says Shutdown or the process gets SIGTERM.

    Raises:
        OSError: there is no place for the socket.
        RuntimeError: gRPC cannot listen on it.
    """
    # Ctrl-C on an agent in the foreground reaches its plugins too; the agent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rlimit.allow_all()
    rendezvous = Rendezvous()

    def leave() -> NoReturn:
        rendezvous.remove()
        os._exit(0)

    try:
        asyncio.run(_serve(rendezvous, make_gateway, leave))
    finally:
        rendezvous.remove()


async def _serve(
    rendezvous: Rendezvous, make_gateway: Callable[[], Gateway], leave: Callable[[], NoReturn]
) -> None:
    loop = asyncio.get_running_loop()
    # Not signal.signal: the kernel may choose one of gRPC's threads, or the moment before the loop
    # sleeps, and only the loop's own wake-up gets through then.
    loop.add_signal_handler(signal.SIGTERM, leave)
    stack_dump.install(loop)
    parent_watch.leave_with_host(leave)
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    services = LazyServices(
        functools.cache(make_gateway), lambda: loop.call_later(_LAST_WORDS_S, leave)
    )
    server.add_generic_rpc_handlers((services,))
    if not server.add_insecure_port(f"unix:{rendezvous.socket}"):
        raise RuntimeError(f"cannot listen on {rendezvous.socket}")
    await server.start()
    rendezvous.announce()
    loop.call_later(_SWEEP_S, rendezvous.sweep)
    await server.wait_for_termination()


class LazyServices(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The handlers of each service, made when its first call comes.

    Args:
        gateway: gives the one gateway of the process, which the first use makes.
        leave: ends the process once the answer under way is out.
    """

    def __init__(self, gateway: Callable[[], Gateway], leave: Callable[[], object]) -> None:
        self._gateway = gateway
        self._leave = leave
        self._loaded: dict[str, Mapping[str, Handler]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of one method; None makes gRPC answer UNIMPLEMENTED."""
        name, _, method = handler_call_details.method.removeprefix("/").rpartition("/")
        if name not in self._loaded:
            from plugin.rpc import handlers as tables  # noqa: PLC0415 - see the module

            if name in tables.BASE_SERVICES:
                self._loaded |= tables.base(self._gateway, self._leave)
            elif name == tables.DRIVER_SERVICE:
                self._loaded |= tables.driver(self._gateway())
                # What is loaded stays: a collection that looks through it all stops a start for
                # 10 ms.
                gc.collect()
                gc.freeze()
        return self._loaded.get(name, {}).get(method)
