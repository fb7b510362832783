"""The plugin block as the command line gives it: from an agent's file, and option by option."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from actors.model.settings import DriverSettings
from plugin import options
from plugin.host.agent import hcl_config
from plugin.host.job import hcl_job
from plugin.host.job import text as job_text
from plugin.options import hcl_schema
from proto.errors import Code, DriverError

_PLUGIN = "containerd-driver"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--config-file`."""
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the plugin block, such as containerd_address=/run/x.sock",
    )
    parser.add_argument(
        "--config-file", type=Path, metavar="FILE", help="take the plugin block of an agent's HCL"
    )


def settings(file: Path | None, words: list[str]) -> DriverSettings:
    """Returns what the driver would make of the block.

    Raises:
        DriverError: code INVALID, with what is wrong.
    """
    schema = hcl_schema.schema(options.DRIVER_OPTIONS)
    return options.driver_settings(hcl_config.encode(schema, read(file, words)))


def pairs(words: list[str], option: str, form: str = "NAME=VALUE") -> dict[str, str]:
    """`NAME=VALUE` words as a mapping; option and form name them in errors.

    Raises:
        DriverError: code INVALID; a word has no name or no value.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise DriverError(f"{option} {word}: is not {form}", code=Code.INVALID)
        found[name] = value
    return found


def read(file: Path | None, words: list[str]) -> dict[str, Any]:
    """Plugin options: those of a file, and over them those of the command line.

    A value that is JSON counts as such, so that blocks can be given too.

    Raises:
        DriverError: code INVALID; the file cannot be read or a word is no pair.
    """
    config = _from_file(file) if file is not None else {}
    for name, text in pairs(words, "--config").items():
        try:
            config[name] = json.loads(text)
        except (ValueError, RecursionError):
            config[name] = text
    return config


def tree(file: Path) -> dict[str, Any]:
    """The blocks of an agent's file.

    Raises:
        DriverError: code INVALID; it cannot be read or is no HCL.
    """
    return hcl_job.parse(file.name, job_text.read(file), {})


def _from_file(file: Path) -> dict[str, Any]:
    """The `config` of the block `plugin "containerd-driver"`; a file may bring volumes alone."""
    blocks = tree(file)
    for block in blocks.get("plugin") or []:
        if isinstance(block, dict) and _PLUGIN in block:
            return hcl_job.merged(block[_PLUGIN].get("config"))
    if "client" in blocks:
        return {}
    raise DriverError(f'{file}: has no block plugin "{_PLUGIN}"', code=Code.INVALID)
