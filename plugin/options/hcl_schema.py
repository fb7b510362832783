"""Schema of an option table, by which Nomad checks a job's HCL."""

from __future__ import annotations

from plugin.options.table import MAP, Option
from proto.nomad import hclspec_pb2


def schema(options: tuple[Option, ...]) -> hclspec_pb2.Spec:
    """Returns an object spec with an attribute or a block for each option."""
    attributes = {option.name: _spec(option) for option in options}
    return hclspec_pb2.Spec(object=hclspec_pb2.Object(attributes=attributes))


def _spec(option: Option) -> hclspec_pb2.Spec:
    if option.repeated:
        return hclspec_pb2.Spec(
            block_list=hclspec_pb2.BlockList(name=option.name, nested=schema(option.nested))
        )
    if option.labelled:
        return hclspec_pb2.Spec(
            block_map=hclspec_pb2.BlockMap(
                name=option.name, labels=["name"], nested=schema(option.nested)
            )
        )
    if option.nested:
        return hclspec_pb2.Spec(
            block_value=hclspec_pb2.Block(
                name=option.name, required=option.required, nested=schema(option.nested)
            )
        )
    # HCL has no type for all forms of a map: `map(string)` refuses a block, which Nomad sends as a
    # list of maps, and `list(map(string))` refuses an attribute.
    hcl_type = "any" if option.hcl_type == MAP else option.hcl_type
    attribute = hclspec_pb2.Spec(
        Attr=hclspec_pb2.Attr(name=option.name, type=hcl_type, required=option.required)
    )
    if not option.default:
        return attribute
    literal = hclspec_pb2.Spec(literal=hclspec_pb2.Literal(value=option.default))
    return hclspec_pb2.Spec(default=hclspec_pb2.Default(primary=attribute, default=literal))
