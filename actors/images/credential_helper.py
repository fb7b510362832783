"""Credential helpers: programs `docker-credential-NAME` that are asked for one registry's password.

The name is the operator's, never a job's. Neither what a helper prints nor what it was asked
reaches a log: a helper that fails may print half a password.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
from collections.abc import Mapping

from actors.blocking import file_servers
from actors.processes import child_process
from containerd.registry.credentials import Credentials
from proto.errors import Code, DriverError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LIMIT_BYTES = 64 * 1024
_TIMEOUT_S = 15.0
# Docker's word for Docker Hub, in config files and to helpers.
_HUB_ADDRESS = "https://index.docker.io/v1/"
_NOT_FOUND = "credentials not found"
# A helper gives this name to an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - a marker


async def ask(
    name: str,
    host: str,
    proxies: Mapping[str, str] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Credentials | None:
    """Returns what the helper of this name has for a registry; None where it knows of none.

    Args:
        name: the helper's.
        host: the registry's.
        proxies: variables for the helper's environment: a helper may ask a server of its own.
        timeout_s: how long it may take.

    Raises:
        DriverError: there is no such helper, or it fails, babbles or hangs.
    """
    if not _NAME.fullmatch(name):
        raise DriverError(
            f"credential helper {name[:64]!r} is not a name",
            resolution='write the end of the program\'s name, "ecr-login" for'
            " docker-credential-ecr-login",
            code=Code.INVALID,
        )
    program = f"docker-credential-{name}"
    path = await file_servers.looked_at(lambda: _found(program))
    if path is None:
        raise DriverError(
            f"credential helper {program} is not installed",
            details=f"looked for in {child_process.BASE_ENVIRONMENT['PATH']}",
            code=Code.INVALID,
        )
    address = _HUB_ADDRESS if host == "docker.io" else host
    status, answer = await _run(path, address.encode(), proxies or {}, timeout_s)
    if status:
        if _NOT_FOUND in answer.decode(errors="replace").lower():
            return None
        raise _failed(program, host, f"it ended with status {status}")
    return _read(program, host, answer)


def _found(program: str) -> str | None:
    for directory in child_process.BASE_ENVIRONMENT["PATH"].split(":"):
        file_servers.visit(f"{directory}/{program}", f"credential helper {program}")
    return shutil.which(program, path=child_process.BASE_ENVIRONMENT["PATH"])


async def _run(
    path: str, question: bytes, proxies: Mapping[str, str], timeout_s: float
) -> tuple[int, bytes]:
    """(exit status, stdout) of the helper; killed with all its children when it is late."""
    program = path.rpartition("/")[2]
    loop = asyncio.get_running_loop()
    home = await asyncio.to_thread(_home)
    process = await child_process.started(
        [path, "get"],
        env={**child_process.BASE_ENVIRONMENT, **proxies, "HOME": home},
        stdin=child_process.PIPE,
        stdout=child_process.PIPE,
        new_session=True,
    )
    ended = False
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _talk(process, question)
            if len(answer) <= _LIMIT_BYTES:
                status = await loop.run_in_executor(None, child_process.finish, process, timeout_s)
                ended = True
                return status, answer
    except TimeoutError:
        raise _failed(program, "", f"it did not answer within {timeout_s:g} s") from None
    finally:
        if not ended:
            await asyncio.shield(loop.run_in_executor(None, child_process.end_group, process))
    raise _failed(program, "", f"it answered more than {_LIMIT_BYTES} bytes")


def _home() -> str:
    """Returns where helpers keep their own settings; a system may have no entry for us."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


async def _talk(process: child_process.Child, question: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101 - PIPE was asked for
    assert process.stdout is not None  # noqa: S101
    try:
        # Far less than a pipe holds: this cannot block.
        process.stdin.write(question)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it does not want to know; its answer and status tell
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    answer = b""
    try:
        while len(answer) <= _LIMIT_BYTES and (data := await reader.read(8192)):
            answer += data
    finally:
        transport.close()
    return answer


def _read(program: str, host: str, answer: bytes) -> Credentials | None:
    try:
        fields = json.loads(answer)
    except (ValueError, RecursionError):
        fields = None
    user = fields.get("Username") if isinstance(fields, dict) else None
    secret = fields.get("Secret") if isinstance(fields, dict) else None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise _failed(program, host, "its answer is not JSON with Username and Secret")
    if not secret:
        return None
    token = secret if user == _TOKEN_USER else ""
    return Credentials(
        username=user,
        password="" if token else secret,
        server_address=host,
        identity_token=token,
    )


def _failed(program: str, host: str, why: str) -> DriverError:
    of = f" for {host}" if host else ""
    return DriverError(
        f"credential helper {program} gave nothing{of}",
        details=why,
        resolution=f"try it by hand: echo {host or 'REGISTRY'} | {program} get",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
