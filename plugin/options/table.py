"""One option as it is declared, and how a block of options is read and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from plugin.options import readers as types
from plugin.texts import did_you_mean
from proto.errors import Code, DriverError

_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    hcl_type is an HCL type expression; nested makes it a block instead, repeated a block that may
    stand several times. default is an HCL literal, or empty for none. field is the dataclass
    field that takes the value; several options of one field add up to one tuple. A reader that
    returns `types.Fields` fills those fields instead.
    """

    name: str
    hcl_type: str
    doc: str
    read: types.Reader
    field: str = ""
    default: str = ""
    required: bool = False
    nested: tuple[Option, ...] = ()
    repeated: bool = False

    @property
    def target(self) -> str:
        """The dataclass field that takes the value."""
        return self.field or self.name


def decode(options: tuple[Option, ...], packed: bytes, where: str) -> dict[str, Any]:
    """Nomad's msgpack of a block as checked values by dataclass field.

    Raises:
        DriverError: code INVALID, `failed to decode driver config`, with every problem.
    """
    try:
        values = msgpack.unpackb(packed, raw=False, strict_map_key=False) if packed else {}
    # TypeError: a map whose key is a list or a map.
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise DriverError(
            f"failed to decode driver config: {where} is not msgpack",
            details=type(error).__name__,
            code=Code.INVALID,
        ) from error
    problems: list[str] = []
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        problems.append(f"{where} is not a block")
        values = {}
    fields = read_fields(options, values, "", problems)
    if problems:
        shown = problems[:_MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise DriverError(
            f"failed to decode driver config: {'; '.join(shown)}",
            resolution=f"correct {where}",
            code=Code.INVALID,
        )
    return fields


def read_fields(
    options: tuple[Option, ...], values: Mapping[Any, Any], prefix: str, problems: list[str]
) -> dict[str, Any]:
    """The values of one block by field; what is wrong goes to problems with its path."""
    names = [option.name for option in options]
    unknown = [key for key in values if key not in names]
    # A hint costs a comparison with every name; what nobody reads gets none.
    problems += [_unknown(prefix, str(key)[:64], names) for key in unknown[: _MAX_PROBLEMS + 1]]
    fields: dict[str, Any] = {}
    for option in options:
        value = values.get(option.name)
        if value is None:
            if option.required:
                problems.append(f"{prefix}{option.name}: is required")
            continue
        read = option.read(value, f"{prefix}{option.name}", problems)
        if isinstance(read, types.Fields):
            fields.update(read)
        elif option.target in fields:
            fields[option.target] += read
        else:
            fields[option.target] = read
    return fields


def block(value: Any, path: str, problems: list[str]) -> Mapping[Any, Any] | None:
    """The values of a block that may stand once; None where it is absent or empty."""
    # Nomad gives a block as a map, or as a list of maps where a job repeats it.
    if isinstance(value, list) and len(value) < 2:  # noqa: PLR2004
        value = value[0] if value else {}
        if not value:
            return None
    if not isinstance(value, Mapping):
        problems.append(f"{path}: is not one block")
        return None
    return value


def _unknown(prefix: str, key: str, names: list[str]) -> str:
    return f"{prefix}{key}: no such option{did_you_mean(key, names)}"
