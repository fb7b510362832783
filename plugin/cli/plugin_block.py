"""Plugin block from the command line: from an agent's file, and option by option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actors.model.settings import DriverSettings
from plugin import options
from plugin.host.agent import hcl_config
from plugin.host.job.hcl_job import merged, parse_hcl
from plugin.host.job.text import read_text
from plugin.options import hcl_schema
from proto.errors import Code, DriverError

_PLUGIN = "containerd-driver"


def settings(file: Path | None, words: list[str]) -> DriverSettings:
    """Returns the driver's settings for the block, see `read`.

    Raises:
        DriverError: code INVALID, with every problem.
    """
    schema = hcl_schema.schema(options.DRIVER_OPTIONS)
    return options.driver_settings(hcl_config.encode(schema, read(file, words)))


def pairs(words: list[str], option: str, form: str = "NAME=VALUE") -> dict[str, str]:
    """Splits words `NAME=VALUE` into a mapping.

    Args:
        words: the values of the option.
        option: name of the option in errors.
        form: form of a word in errors.

    Raises:
        DriverError: code INVALID, a word has no name or no value.
    """
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise DriverError(f"{option} {word}: is not {form}", code=Code.INVALID)
        values[name] = value
    return values


def read(file: Path | None, words: list[str]) -> dict[str, Any]:
    """Reads plugin options from a file and from words `OPTION=VALUE`; a word wins over the file.

    A JSON value is decoded, so a word can set a block.

    Raises:
        DriverError: code INVALID, the file cannot be read or a word is no pair.
    """
    config = _from_file(file) if file is not None else {}
    for name, text in pairs(words, "--config").items():
        try:
            config[name] = json.loads(text)
        except (ValueError, RecursionError):
            config[name] = text
    return config


def tree(file: Path) -> dict[str, Any]:
    """Returns the blocks of an agent's file.

    Raises:
        DriverError: code INVALID, the file cannot be read or is not HCL.
    """
    return parse_hcl(file.name, read_text(file), {})


def _from_file(file: Path) -> dict[str, Any]:
    """Returns the `config` of the block `plugin "containerd-driver"`.

    A file with a client block, for its volumes, needs no plugin block.
    """
    blocks = tree(file)
    for block in blocks.get("plugin") or []:
        if isinstance(block, dict) and _PLUGIN in block:
            return merged(block[_PLUGIN].get("config"))
    if "client" in blocks:
        return {}
    raise DriverError(f'{file}: has no block plugin "{_PLUGIN}"', code=Code.INVALID)
