"""A config block against the schema that the plugin serves, into the bytes that Nomad would send.

Nomad decodes HCL with the schema and sends every key of it, nil where the job gives nothing
(go-cty's msgpack form of the hcldec result).
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
    """The msgpack bytes of a block.

    Raises:
        DriverError: code INVALID, with every key that does not fit.
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


def _value(spec: Spec, given: Any, path: str, problems: list[str]) -> Any:
    match spec.WhichOneof("block"):
        case "Attr":
            return _attribute(spec.Attr, given, path, problems)
        case "default":
            found = _value(spec.default.primary, given, path, problems)
            # A literal is HCL text; what schemas use of it is JSON as well.
            return json.loads(spec.default.default.literal.value) if found is None else found
        case "literal":
            return json.loads(spec.literal.value)
        case "block_value":
            return _block(spec.block_value, given, path, problems)
        case "block_list" | "block_set" as kind:
            return _block_list(getattr(spec, kind), given, path, problems)
        case "block_attrs":
            return _block_attrs(spec.block_attrs, given, path, problems)
        case kind:
            problems.append(f"{path}: the schema has {kind}, which this host does not know")
            return None


def _block(spec: hclspec_pb2.Block, given: Any, path: str, problems: list[str]) -> Any:
    blocks = _blocks(given, path, problems)
    if len(blocks) > 1:
        problems.append(f"{path}: stands more than once")
    if not blocks:
        if spec.required:
            problems.append(f"{path}: is required")
        return None
    return _object(spec.nested.object, blocks[0], f"{path}.", problems)


def _block_list(
    spec: hclspec_pb2.BlockList | hclspec_pb2.BlockSet, given: Any, path: str, problems: list[str]
) -> list[Any]:
    blocks = _blocks(given, path, problems)
    if len(blocks) < spec.min_items or 0 < spec.max_items < len(blocks):
        problems.append(
            f"{path}: stands {len(blocks)} times, not {spec.min_items} to {spec.max_items or 'any'}"
        )
    return [
        _object(spec.nested.object, block, f"{path}[{index}].", problems)
        for index, block in enumerate(blocks)
    ]


def _block_attrs(
    spec: hclspec_pb2.BlockAttrs, given: Any, path: str, problems: list[str]
) -> dict[str, Any] | None:
    blocks = _blocks(given, path, problems)
    if not blocks and spec.required:
        problems.append(f"{path}: is required")
    merged = {key: item for block in blocks for key, item in block.items()}
    single = hclspec_pb2.Attr(type=spec.type or "string")
    found = {
        key: _attribute(single, item, f"{path}.{key}", problems) for key, item in merged.items()
    }
    return found if blocks else None


def _blocks(given: Any, path: str, problems: list[str]) -> list[dict[str, Any]]:
    items = given if isinstance(given, list) else [] if given is None else [given]
    blocks = [item for item in items if isinstance(item, dict)]
    if len(blocks) < len(items):
        problems.append(f"{path}: is a block, write {path} {{ … }}")
    return blocks


def _attribute(attribute: hclspec_pb2.Attr, given: Any, path: str, problems: list[str]) -> Any:
    if given is None:
        if attribute.required:
            problems.append(f"{path}: is required")
        return None
    try:
        return _convert(attribute.type, given)
    except (ValueError, TypeError, KeyError):
        # Without the value: it may be a password in the wrong place.
        problems.append(f"{path}: a {_kind(given)} is not a {attribute.type}")
        return None


def _kind(given: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(given), "block")


def _convert(kind: str, given: Any) -> Any:
    outer, _, inner = kind.strip().partition("(")
    match outer:
        case "string":
            return _string(given)
        case "bool":
            return _bool(given)
        case "number":
            return _number(given)
        case "list" | "set":
            # Nomad takes a block where a list of maps is wanted as a list of one.
            items = given if isinstance(given, list) else [_mapping(given)]
            return [_convert(inner[:-1], item) for item in items]
        case "map":
            return {str(k): _convert(inner[:-1], item) for k, item in _mapping(given).items()}
    return given


def _mapping(given: Any) -> dict[Any, Any]:
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        return {key: item for block in given for key, item in block.items()}
    if not isinstance(given, dict):
        raise TypeError
    return given


def _string(given: Any) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    if isinstance(given, str | int | float):
        return str(given)
    raise TypeError


def _bool(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    return {"true": True, "false": False, "1": True, "0": False}[str(given)]


def _number(given: Any) -> int | float | str:
    """As go-cty packs it: what neither an int64 nor a float64 holds exactly goes as text."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise TypeError
    try:
        exact = Decimal(str(given))
    except ArithmeticError:
        raise ValueError from None
    if not exact.is_finite() or abs(exact.adjusted()) > _MAX_EXPONENT:
        raise ValueError
    if exact == exact.to_integral_value():
        return int(exact) if -(2**63) <= exact < 2**63 else str(int(exact))
    return float(exact) if Decimal(float(exact)) == exact else str(exact)
