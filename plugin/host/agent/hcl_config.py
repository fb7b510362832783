"""Encoder of a config block, by the schema of the plugin, into the bytes that Nomad would send.

Nomad decodes HCL with the schema and sends every key of the schema; an absent key is nil (go-cty's
msgpack form of the hcldec result).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from plugin.texts import did_you_mean
from proto import frames
from proto.errors import Code, DriverError
from proto.nomad import hclspec_pb2

Spec = hclspec_pb2.Spec
_MAX_EXPONENT = 400


def encode(spec: Spec, values: Mapping[str, Any]) -> bytes:
    """Returns the msgpack bytes of a block.

    Raises:
        DriverError: code INVALID, with every unknown key and every wrong value.
    """
    problems: list[str] = []
    document = _object(spec.object, values, "", problems)
    if problems:
        raise DriverError("; ".join(problems), code=Code.INVALID)
    return frames.pack(document)


def _object(
    spec: hclspec_pb2.Object, values: Mapping[str, Any], prefix: str, problems: list[str]
) -> dict[str, Any]:
    for key in values:
        if key not in spec.attributes:
            hint = did_you_mean(str(key), spec.attributes)
            problems.append(f"{prefix}{key}: no such option{hint}")
    return {
        name: _value(inner, values.get(name), f"{prefix}{name}", problems)
        for name, inner in spec.attributes.items()
    }


def _value(spec: Spec, value: Any, path: str, problems: list[str]) -> Any:
    match spec.WhichOneof("block"):
        case "Attr":
            return _attribute(spec.Attr, value, path, problems)
        case "default":
            converted = _value(spec.default.primary, value, path, problems)
            if converted is not None:
                return converted
            # A literal is HCL text; the literals of schemas are valid JSON too.
            return json.loads(spec.default.default.literal.value)
        case "literal":
            return json.loads(spec.literal.value)
        case "block_value":
            return _block(spec.block_value, value, path, problems)
        case "block_list" | "block_set" as kind:
            return _block_list(getattr(spec, kind), value, path, problems)
        case "block_map":
            return _block_map(spec.block_map, value, path, problems)
        case "block_attrs":
            return _block_attrs(spec.block_attrs, value, path, problems)
        case kind:
            problems.append(f"{path}: the schema has {kind}, which the dev host does not support")
            return None


def _block(spec: hclspec_pb2.Block, value: Any, path: str, problems: list[str]) -> Any:
    blocks = _blocks(value, path, problems)
    if len(blocks) > 1:
        problems.append(f"{path}: appears more than once")
    if not blocks:
        if spec.required:
            problems.append(f"{path}: is required")
        return None
    return _object(spec.nested.object, blocks[0], f"{path}.", problems)


def _block_list(
    spec: hclspec_pb2.BlockList | hclspec_pb2.BlockSet, value: Any, path: str, problems: list[str]
) -> list[Any]:
    blocks = _blocks(value, path, problems)
    if len(blocks) < spec.min_items or 0 < spec.max_items < len(blocks):
        allowed = f"to {spec.max_items}" if spec.max_items else "or more"
        problems.append(f"{path}: appears {len(blocks)} times, not {spec.min_items} {allowed}")
    return [
        _object(spec.nested.object, block, f"{path}[{index}].", problems)
        for index, block in enumerate(blocks)
    ]


def _block_map(
    spec: hclspec_pb2.BlockMap, value: Any, path: str, problems: list[str]
) -> dict[str, Any]:
    labelled = _blocks(value, path, problems)
    blocks: dict[str, Any] = {}
    for label, inner in ((name, inner) for block in labelled for name, inner in block.items()):
        here = f"{path}.{label}"
        if label in blocks:
            problems.append(f"{here}: appears more than once")
        found = _blocks(inner, here, problems)
        blocks[label] = _object(spec.nested.object, found[0] if found else {}, f"{here}.", problems)
    return blocks


def _block_attrs(
    spec: hclspec_pb2.BlockAttrs, value: Any, path: str, problems: list[str]
) -> dict[str, Any] | None:
    blocks = _blocks(value, path, problems)
    if not blocks and spec.required:
        problems.append(f"{path}: is required")
    merged = {key: item for block in blocks for key, item in block.items()}
    single = hclspec_pb2.Attr(type=spec.type or "string")
    attributes = {
        key: _attribute(single, item, f"{path}.{key}", problems) for key, item in merged.items()
    }
    return attributes if blocks else None


def _blocks(value: Any, path: str, problems: list[str]) -> list[dict[str, Any]]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    blocks = [item for item in items if isinstance(item, dict)]
    if len(blocks) < len(items):
        problems.append(f"{path}: is a block, write {path} {{ … }}")
    return blocks


def _attribute(attribute: hclspec_pb2.Attr, value: Any, path: str, problems: list[str]) -> Any:
    if value is None:
        if attribute.required:
            problems.append(f"{path}: is required")
        return None
    try:
        return _convert(attribute.type, value)
    except (ValueError, TypeError, KeyError):
        # The problem does not show the value, which may be a misplaced password.
        problems.append(f"{path}: a {_kind(value)} is not a {attribute.type}")
        return None


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(value), "block")


def _convert(kind: str, value: Any) -> Any:
    outer, _, inner = kind.strip().partition("(")
    match outer:
        case "string":
            return _string(value)
        case "bool":
            return _bool(value)
        case "number":
            return _number(value)
        case "list" | "set":
            # Nomad reads a block as a list with one map.
            items = value if isinstance(value, list) else [_mapping(value)]
            return [_convert(inner[:-1], item) for item in items]
        case "map":
            return {str(k): _convert(inner[:-1], item) for k, item in _mapping(value).items()}
    return value


def _mapping(value: Any) -> dict[Any, Any]:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {key: item for block in value for key, item in block.items()}
    if not isinstance(value, dict):
        raise TypeError
    return value


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False, "1": True, "0": False}[str(value)]


def _number(value: Any) -> int | float | str:
    """Packs a number as go-cty does: as text if neither int64 nor float64 is exact."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    try:
        exact = Decimal(str(value))
    except ArithmeticError:
        raise ValueError from None
    if not exact.is_finite() or abs(exact.adjusted()) > _MAX_EXPONENT:
        raise ValueError
    if exact == exact.to_integral_value():
        return int(exact) if -(2**63) <= exact < 2**63 else str(int(exact))
    return float(exact) if Decimal(float(exact)) == exact else str(exact)
