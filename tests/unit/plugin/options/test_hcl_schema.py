"""The schemas by which Nomad checks HCL."""

from __future__ import annotations

import json

import pytest

from plugin import options
from plugin.options import hcl_schema
from plugin.options.table import Option


@pytest.mark.parametrize("table", [options.DRIVER_OPTIONS, options.TASK_OPTIONS])
def test_every_option_is_in_the_schema_under_its_name(table: tuple[Option, ...]) -> None:
    spec = hcl_schema.schema(table)
    assert spec.WhichOneof("block") == "object"
    assert set(spec.object.attributes) == {option.name for option in table}


def test_an_option_without_a_default_is_a_plain_attribute() -> None:
    spec = hcl_schema.schema(options.TASK_OPTIONS).object.attributes["args"]
    assert (spec.Attr.name, spec.Attr.type, spec.Attr.required) == ("args", "list(string)", False)


def test_a_default_wraps_an_attribute_that_carries_its_own_name() -> None:
    # Nomad's decoder takes an attribute's name in a default only from the attribute itself.
    spec = hcl_schema.schema(options.TASK_OPTIONS).object.attributes["cpu_cfs_period"]
    assert spec.WhichOneof("block") == "default"
    assert spec.default.primary.Attr.name == "cpu_cfs_period"
    assert spec.default.default.literal.value == "100000"


def test_literals_are_hcl_expressions_of_their_type() -> None:
    kinds = {"bool": bool, "string": str, "number": int, "list(string)": list}
    for option in (*options.DRIVER_OPTIONS, *options.TASK_OPTIONS):
        if option.default:
            # Every literal in use is JSON too.
            assert isinstance(json.loads(option.default), kinds[option.hcl_type]), option.name


@pytest.mark.parametrize("table", [options.DRIVER_OPTIONS, options.TASK_OPTIONS])
def test_auth_is_a_block_whose_attributes_are_optional(table: tuple[Option, ...]) -> None:
    spec = hcl_schema.schema(table).object.attributes["auth"]
    assert spec.WhichOneof("block") == "block_value"
    assert (spec.block_value.name, spec.block_value.required) == ("auth", False)
    inner = spec.block_value.nested.object.attributes
    assert not any(attribute.Attr.required for attribute in inner.values())


def test_a_map_may_be_a_block_or_an_attribute() -> None:
    spec = hcl_schema.schema(options.TASK_OPTIONS).object.attributes["labels"]
    assert spec.Attr.type == "any"


def test_mounts_are_blocks_that_may_stand_several_times() -> None:
    for name in ("mounts", "mount"):
        spec = hcl_schema.schema(options.TASK_OPTIONS).object.attributes[name]
        assert spec.WhichOneof("block") == "block_list"
        assert spec.block_list.name == name
        assert spec.block_list.nested.object.attributes["target"].Attr.required


def test_only_the_image_is_required_of_a_job_and_nothing_of_an_agent() -> None:
    task = {option.name for option in options.TASK_OPTIONS if option.required}
    driver = {option.name for option in options.DRIVER_OPTIONS if option.required}
    assert (task, driver) == ({"image"}, set())
