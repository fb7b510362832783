"""Credential helpers: programs `docker-credential-NAME` that return a registry's password.

The operator names the helper, never a job. No log contains the output of a helper, because a
failing helper may print half a password.
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
# Docker's name for Docker Hub, in config files and for helpers.
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
    """Asks a helper for the credentials of a registry.

    Args:
        name: name of the helper, without `docker-credential-`.
        host: host of the registry, with a port if not the default port.
        proxies: variables for the helper's environment: a helper may contact a server.
        timeout_s: seconds until the helper is killed.

    Returns:
        The credentials, or None if the helper has no credentials for the registry.

    Raises:
        DriverError: the helper is not installed, fails, prints too much or does not end. Code
            INVALID or UNAVAILABLE.
    """
    if not _NAME.fullmatch(name):
        raise DriverError(
            f"invalid name of a credential helper: {name[:64]!r}",
            resolution='write the end of the program\'s name, "ecr-login" for'
            " docker-credential-ecr-login",
            code=Code.INVALID,
        )
    program = f"docker-credential-{name}"
    path = await file_servers.run_probed(lambda: _which(program))
    if path is None:
        raise DriverError(
            f"credential helper {program} is not installed",
            details=f"searched in {child_process.BASE_ENVIRONMENT['PATH']}",
            code=Code.INVALID,
        )
    address = _HUB_ADDRESS if host == "docker.io" else host
    status, answer = await _run(path, address.encode(), proxies or {}, timeout_s)
    if status:
        if _NOT_FOUND in answer.decode(errors="replace").lower():
            return None
        raise _failed(program, host, f"exit status {status}")
    return _parse(program, host, answer)


def _which(program: str) -> str | None:
    for directory in child_process.BASE_ENVIRONMENT["PATH"].split(":"):
        file_servers.visit(f"{directory}/{program}", f"credential helper {program}")
    return shutil.which(program, path=child_process.BASE_ENVIRONMENT["PATH"])


async def _run(
    path: str, question: bytes, proxies: Mapping[str, str], timeout_s: float
) -> tuple[int, bytes]:
    """Runs the helper; kills the helper and all children at the timeout.

    Returns:
        (exit status, stdout).
    """
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
            answer = await _exchange(process, question)
            if len(answer) <= _LIMIT_BYTES:
                status = await loop.run_in_executor(None, child_process.finish, process, timeout_s)
                ended = True
                return status, answer
    except TimeoutError:
        raise _failed(program, "", f"no answer within {timeout_s:g} s") from None
    finally:
        if not ended:
            await asyncio.shield(loop.run_in_executor(None, child_process.end_group, process))
    raise _failed(program, "", f"the answer has more than {_LIMIT_BYTES} bytes")


def _home() -> str:
    """Returns the home directory, where helpers keep settings; `/` without an entry in passwd."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


async def _exchange(process: child_process.Child, question: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101 - PIPE was asked for
    assert process.stdout is not None  # noqa: S101
    try:
        # The question is far smaller than a pipe: the write cannot block.
        process.stdin.write(question)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the helper does not read; the answer and the status decide
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


def _parse(program: str, host: str, answer: bytes) -> Credentials | None:
    try:
        fields = json.loads(answer)
    except (ValueError, RecursionError):
        fields = None
    user = fields.get("Username") if isinstance(fields, dict) else None
    secret = fields.get("Secret") if isinstance(fields, dict) else None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise _failed(program, host, "the answer is not JSON with Username and Secret")
    if not secret:
        return None
    token = secret if user == _TOKEN_USER else ""
    return Credentials(
        username=user,
        password="" if token else secret,
        server_address=host,
        identity_token=token,
    )


def _failed(program: str, host: str, reason: str) -> DriverError:
    of = f" for {host}" if host else ""
    return DriverError(
        f"credential helper {program} failed{of}",
        details=reason,
        resolution=f"run the helper by hand: echo {host or 'REGISTRY'} | {program} get",
        recoverable=True,
        code=Code.UNAVAILABLE,
    )
