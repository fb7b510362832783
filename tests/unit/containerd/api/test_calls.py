"""Tests of the calls to containerd, with a server that answers as containerd might."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty

from containerd.api import methods
from containerd.api.calls import AsyncCalls
from proto.errors import DriverError


async def test_an_error_may_be_longer_than_the_headers_of_most_servers(tmp_path: Path) -> None:
    async def fail(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        await context.abort(grpc.StatusCode.UNKNOWN, "OCI runtime failed: " + "%" * 16_384)
        return b""

    _, service, name = methods.VERSION.path.split("/")
    handler = grpc.unary_unary_rpc_method_handler(fail)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: handler}),)
    )
    address = f"{tmp_path}/s"
    server.add_insecure_port(f"unix:{address}")
    await server.start()
    calls = AsyncCalls(address, "nomad")
    try:
        with pytest.raises(DriverError, match="OCI runtime failed"):
            await calls(methods.VERSION, Empty(), "return its version", timeout_s=5.0)
    finally:
        await calls.close()
        await server.stop(None)
