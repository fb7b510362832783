"""The plugin process: its start in the order below, and its end.

    socket directory → gRPC server → handshake line → [first call: services] → [SetConfig: actors]

Nomad starts the program three times, twice as a probe, so a service is loaded by its first call.

The process ends at once, by `os._exit`. During an orderly shutdown WaitTask would fail while the
process still lives, and Nomad takes such a failure for the end of the task. If the process is gone,
Nomad starts a new plugin, which recovers every task. No task depends on the plugin process.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from plugin import environment, garbage, json_logging, process, stack_dump
from plugin.handshake import Rendezvous

if TYPE_CHECKING:
    from actors.gateway import Gateway

    # The stubs are generic, gRPC's own classes are not.
    Handler = grpc.RpcMethodHandler[Any, Any]

_SERVER_OPTIONS: list[tuple[str, Any]] = [
    # A job's environment may have megabytes; an agent sends up to 2 GiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
# An agent's probes have ended by then.
_SWEEP_S = 5.0


def _actors() -> Gateway:
    from actors.actor_gateway import ActorGateway  # noqa: PLC0415 - a probe needs no actors

    return ActorGateway(environment.proxies())


def run(make_gateway: Callable[[], Gateway] = _actors) -> None:
    """Serves one Nomad agent until the agent calls Shutdown or the process gets SIGTERM.

    Raises:
        OSError: no directory for the socket can be created.
        RuntimeError: gRPC cannot listen on the socket.
    """
    # Ctrl-C on an agent in the foreground also reaches the plugin; the agent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.raise_file_limit()
    asyncio.run(_serve(make_gateway))


async def _serve(make_gateway: Callable[[], Gateway]) -> None:
    loop = asyncio.get_running_loop()
    rendezvous: Rendezvous | None = None

    def leave() -> NoReturn:
        if rendezvous is not None:
            rendezvous.remove()
        logging.shutdown()
        os._exit(0)

    # Not signal.signal: the kernel may deliver the signal to a thread of gRPC, or just before the
    # loop sleeps. Only the wake-up descriptor of the loop works in both cases.
    # And before the directory exists: the default action would leave the directory behind.
    loop.add_signal_handler(signal.SIGTERM, leave)
    rendezvous = Rendezvous()
    try:
        await _served(loop, rendezvous, make_gateway, leave)
    finally:
        rendezvous.remove()


async def _served(
    loop: asyncio.AbstractEventLoop,
    rendezvous: Rendezvous,
    make_gateway: Callable[[], Gateway],
    leave: Callable[[], NoReturn],
) -> None:
    json_logging.write_together(loop)
    stack_dump.install(loop)
    process.leave_with_dev_host(leave)
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    services = LazyServices(functools.cache(make_gateway), leave)
    server.add_generic_rpc_handlers((services,))
    if not server.add_insecure_port(f"unix:{rendezvous.socket}"):
        raise RuntimeError(f"cannot listen on {rendezvous.socket}")
    await server.start()
    rendezvous.announce()
    if environment.dev_host_pid():
        # A dev host calls each service, and loads its own modules meanwhile.
        loop.call_soon(services.load)
    loop.call_later(_SWEEP_S, rendezvous.sweep)
    await server.wait_for_termination()


class LazyServices(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Handlers of the gRPC services; the first call of a service loads the service.

    Args:
        gateway: returns the gateway of the process; the first call creates the gateway.
        leave: ends the process.
    """

    def __init__(self, gateway: Callable[[], Gateway], leave: Callable[[], object]) -> None:
        self._gateway = gateway
        self._leave = leave
        self._loaded: dict[str, Mapping[str, Handler]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Returns the handler of a method; with None gRPC answers UNIMPLEMENTED."""
        name, _, method = handler_call_details.method.removeprefix("/").rpartition("/")
        if name not in self._loaded:
            self._load(name)
        return self._loaded.get(name, {}).get(method)

    def load(self) -> None:
        """Loads the services of a task driver."""
        from plugin.rpc import handlers  # noqa: PLC0415 - as below

        for name in (*handlers.BASE_SERVICES, handlers.DRIVER_SERVICE):
            if name not in self._loaded:
                self._load(name)

    def _load(self, name: str) -> None:
        from plugin.rpc import handlers  # noqa: PLC0415 - the first call loads the service

        if name in handlers.BASE_SERVICES:
            self._loaded |= handlers.base(self._gateway, self._leave)
        elif name == handlers.DRIVER_SERVICE:
            self._loaded |= handlers.driver(self._gateway())
            garbage.loaded()
            garbage.resume()
