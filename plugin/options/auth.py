"""Options of the `auth` blocks: credentials of a task, and of the driver for all tasks."""

from __future__ import annotations

from typing import Any

from actors.model.settings import Auth
from plugin.options import foreign, readers
from plugin.options.table import Option, block, read_fields

_MAX_SECRET_BYTES = 64 * 1024

_SERVER = Option(
    name="server_address",
    hcl_type="string",
    read=readers.text(),
    doc="Registry for these credentials, such as `registry.example.com`.",
)
TASK_AUTH = (
    Option(
        name="username",
        hcl_type="string",
        read=readers.text(),
        doc="User name at the registry.",
    ),
    Option(
        name="password",
        hcl_type="string",
        read=readers.text(_MAX_SECRET_BYTES, secret=True),
        doc="Password or access token at the registry.",
    ),
    _SERVER,
    *foreign.AUTH,
)
DRIVER_AUTH = (
    Option(
        name="username",
        hcl_type="string",
        read=readers.text(),
        doc="User name at the registry.",
    ),
    Option(
        name="password",
        hcl_type="string",
        read=readers.text(_MAX_SECRET_BYTES, secret=True),
        doc="Password or access token at the registry.",
    ),
    _SERVER,
    Option(
        name="config",
        hcl_type="string",
        read=readers.absolute_path,
        doc="A Docker `config.json` or Podman `auth.json`: credentials by registry or by namespace,"
        " and credential helpers by registry.",
    ),
    Option(
        name="helper",
        hcl_type="string",
        read=readers.file_name,
        doc="Credential helper: `ecr-login` runs the program `docker-credential-ecr-login`.",
    ),
)


def task_auth(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads a task's `auth` block; no credentials if the user or the password is empty.

    A template may leave both empty.
    """
    values = block(value, path, problems)
    if values is None:
        return readers.Fields()
    before = len(problems)
    fields = readers.Fields(read_fields(TASK_AUTH, values, f"{path}.", problems))
    made = readers.Fields(warnings=fields.pop(foreign.WARNINGS, ()))
    for name, other in (("username", "password"), ("password", "username")):
        if name not in fields and fields.get(other):
            problems.append(f"{path}.{name}: is required")
    if len(problems) == before and fields.get("username") and fields.get("password"):
        made["auth"] = Auth(**fields)
    return made


def driver_auth(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads the driver's `auth` block: user and password, a config file, a helper, or several."""
    values = block(value, path, problems)
    if values is None:
        return readers.Fields()
    fields = read_fields(DRIVER_AUTH, values, f"{path}.", problems)
    read = readers.Fields(
        auth_config=fields.get("config", ""), auth_helper=fields.get("helper", "")
    )
    user, password = fields.get("username", ""), fields.get("password", "")
    if bool(user) != bool(password):
        problems.append(f"{path}: username and password must both be set")
    elif user:
        server = fields.get("server_address", "")
        read["auth"] = Auth(username=user, password=password, server_address=server)
    return read
