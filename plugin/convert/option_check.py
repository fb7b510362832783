"""Judgement about options of another driver's block, by the tables of this driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugin.convert.document import Unknown
from plugin.host.agent import hcl_config
from plugin.options import Option, foreign, hcl_schema
from plugin.options.table import decode
from plugin.texts import did_you_mean
from proto.errors import DriverError

_PREFIX = "failed to decode driver config: "


def check(table: tuple[Option, ...], name: str, value: Any) -> tuple[str, tuple[str, ...]]:
    """Checks an option's value as far as the file has the value.

    Args:
        table: the options of the block.
        name: name of the option.
        value: the value; `Unknown` in place of each expression.

    Returns:
        The problem, empty for none; and notes about parts without effect.
    """
    option = next((option for option in table if option.name == name), None)
    if option is None:
        known = [option.name for option in table]
        return f"no driver has this option{did_you_mean(name, known)}", ()
    if isinstance(value, Unknown):
        # Nobody sets an option without effect: the value of an expression counts as set.
        if option.field != foreign.WARNINGS or option.nested:
            return "", ()
        value = [str(value)] if option.hcl_type.startswith("list") else str(value)
    try:
        given = {name: _known(value, option.nested)}
        packed = hcl_config.encode(hcl_schema.schema((option,)), given)
        fields = decode((option,), packed, "")
    except DriverError as error:
        return error.brief.removeprefix(_PREFIX).removeprefix(f"{name}: "), ()
    notes = fields.get(foreign.WARNINGS, ())
    return "", tuple(note.removeprefix(f"{name}: ") for note in notes)


def _known(value: Any, nested: tuple[Option, ...]) -> Any:
    """Returns a value without its expressions; a required option keeps its source as the value."""
    if isinstance(value, Mapping):
        inner = {option.name: option for option in nested}
        required = {name for name, option in inner.items() if option.required}
        return {
            key: _known(item, inner[key].nested if key in inner else ())
            for key, item in value.items()
            if key in required or not isinstance(item, Unknown)
        }
    if isinstance(value, list):
        return [_known(item, nested) for item in value if not isinstance(item, Unknown)]
    return str(value) if isinstance(value, Unknown) else value
