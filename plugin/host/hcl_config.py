"""A config block against the schema that the plugin serves, into the bytes that Nomad would send.

Nomad decodes HCL with the schema and sends every key of it, nil where the job gives nothing
(go-cty's msgpack form of the hcldec result).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from proto import frames
from proto.errors import Code, DriverError
from proto.nomad import hclspec_pb2

Spec = hclspec_pb2.Spec


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
            near = difflib.get_close_matches(str(key), list(spec.attributes), 1)
            hint = f', did you mean "{near[0]}"?' if near else ""
            problems.append(f"{prefix}{key}: no such option{hint}")
    return {
        name: _value(inner, name, values.get(name), f"{prefix}{name}", problems)
        for name, inner in spec.attributes.items()
    }


def _value(spec: Spec, name: str, given: Any, path: str, problems: list[str]) -> Any:
    match spec.WhichOneof("block"):
        case "Attr":
            return _attribute(spec.Attr, given, path, problems)
        case "default":
            found = _value(spec.default.primary, name, given, path, problems)
            return json.loads(spec.default.default.literal.value) if found is None else found
        case "block_value":
            blocks = _blocks(given)
            if len(blocks) > 1:
                problems.append(f"{path}: stands more than once")
            if not blocks:
                return None
            nested = spec.block_value.nested.object
            return _object(nested, blocks[0], f"{path}.", problems)
        case "block_list":
            nested = spec.block_list.nested.object
            return [
                _object(nested, block, f"{path}[{index}].", problems)
                for index, block in enumerate(_blocks(given))
            ]
        case "block_attrs":
            merged: dict[str, Any] = {}
            for block in _blocks(given):
                merged.update({key: _string(item) for key, item in block.items()})
            return merged or None
        case kind:
            problems.append(f"{path}: the schema has {kind}, which this host does not know")
            return None


def _blocks(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, dict):
        return [given]
    return [item for item in given or [] if isinstance(item, dict)]


def _attribute(attribute: hclspec_pb2.Attr, given: Any, path: str, problems: list[str]) -> Any:
    if given is None:
        if attribute.required:
            problems.append(f"{path}: is required")
        return None
    try:
        return _convert(attribute.type, given)
    except (ValueError, TypeError, KeyError):
        problems.append(f"{path}: {given!r} is not {attribute.type}")
        return None


def _convert(kind: str, given: Any) -> Any:
    if kind == "string":
        return _string(given)
    if kind == "bool":
        return _bool(given)
    if kind == "number":
        if isinstance(given, bool):
            raise ValueError
        return given if isinstance(given, int | float) else int(given)
    if kind.startswith("list(") and kind.endswith(")"):
        if not isinstance(given, list | dict):
            raise ValueError
        items = [given] if isinstance(given, dict) else given
        return [_convert(kind[5:-1], item) for item in items]
    if kind.startswith("map(") and kind.endswith(")"):
        if not isinstance(given, dict):
            raise ValueError
        return {str(key): _convert(kind[4:-1], item) for key, item in given.items()}
    return given


def _string(given: Any) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, str | int | float):
        return str(given)
    raise ValueError


def _bool(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    return {"true": True, "false": False, "1": True, "0": False}[str(given)]
