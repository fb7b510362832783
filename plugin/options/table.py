"""Declaration of an option, and the reading of blocks by a table of options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgpack

from plugin.options import readers
from plugin.texts import did_you_mean
from proto.errors import Code, DriverError
from proto.values import dataclass

_MAX_PROBLEMS = 20
MAP = "map(string)"
"""HCL type of a map that is written as a block, as an attribute, or as a list of maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a block.

    Attributes:
        name: key in HCL.
        hcl_type: HCL type expression.
        doc: row in docs/options.md.
        read: reads and checks the value; if `read` returns `Fields`, the fields are set by name.
        field: field of the dataclass, if different from `name`. The tuples of several options with
            the same field are joined; other values must be the same.
        default: HCL literal; empty for none.
        implied: value of an absent option in docs/options.md, where the schema has no default.
        required: True if a job must set the option.
        nested: options of a block; with `nested` the option is a block, not an attribute.
        repeated: True if the block may stand several times.
        labelled: True if the block has a label, and may stand once for each label.
    """

    name: str
    hcl_type: str
    doc: str
    read: readers.Reader
    field: str = ""
    default: str = ""
    implied: str = ""
    required: bool = False
    nested: tuple[Option, ...] = ()
    repeated: bool = False
    labelled: bool = False

    @property
    def target(self) -> str:
        """Field of the dataclass for the value."""
        return self.field or self.name


def decode(options: tuple[Option, ...], packed: bytes, where: str) -> dict[str, Any]:
    """Decodes a block into checked values by field of the dataclass.

    Args:
        options: the table.
        packed: msgpack of the block, as Nomad sends it; empty for an absent block.
        where: name of the block in errors.

    Raises:
        DriverError: code INVALID, `failed to decode driver config`, with every problem.
    """
    try:
        values = msgpack.unpackb(packed, raw=False, strict_map_key=False) if packed else {}
    # TypeError: a list or a map as the key of a map.
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
        # The sentences of the Go driver, and some others, end with a full stop.
        joined = re.sub(r"(?<!\.)\.; ", ". ", "; ".join(shown))
        raise DriverError(
            f"failed to decode driver config: {joined}",
            resolution=f"correct {where}",
            code=Code.INVALID,
        )
    return fields


def read_fields(
    options: tuple[Option, ...], values: Mapping[Any, Any], prefix: str, problems: list[str]
) -> dict[str, Any]:
    """Reads the values of a block by field.

    Args:
        options: the table.
        values: values by name of the option; a value of None is an absent option.
        prefix: path of the block in problems, with a dot at the end.
        problems: gets a sentence for each wrong or unknown option, with its path.
    """
    names = [option.name for option in options]
    unknown = [key for key in values if key not in names]
    # A hint costs a comparison with every name: only problems that are shown get a hint.
    problems += [_unknown(prefix, str(key)[:64], names) for key in unknown[: _MAX_PROBLEMS + 1]]
    fields: dict[str, Any] = {}
    for option in options:
        value = values.get(option.name)
        if value is None:
            if option.required:
                problems.append(f"{prefix}{option.name}: is required")
            continue
        checked = option.read(value, f"{prefix}{option.name}", problems)
        several = isinstance(checked, readers.Fields)
        for target, part in (checked if several else {option.target: checked}).items():
            before = fields.setdefault(target, part)
            if before is part:
                continue
            if isinstance(part, tuple):
                fields[target] = before + part
            elif before != part:
                problems.append(f"{prefix}{option.name}: differs from another name of the option")
    return fields


def block_fields(options: tuple[Option, ...]) -> readers.Reader:
    """Returns a reader of a block whose options set fields of the outer dataclass."""

    def read(value: Any, path: str, problems: list[str]) -> readers.Fields:
        values = block(value, path, problems)
        return readers.Fields(read_fields(options, values, f"{path}.", problems) if values else {})

    return read


def block(value: Any, path: str, problems: list[str]) -> Mapping[Any, Any] | None:
    """Returns the values of a block that may stand once; None if absent or empty."""
    # Nomad sends a block as a map, and a repeated block as a list of maps.
    if isinstance(value, list) and len(value) < 2:  # noqa: PLR2004
        value = value[0] if value else {}
        if not value:
            return None
    if not isinstance(value, Mapping):
        problems.append(f"{path}: must be a single block")
        return None
    return value


def _unknown(prefix: str, key: str, names: list[str]) -> str:
    return f"{prefix}{key}: no such option{did_you_mean(key, names)}"
