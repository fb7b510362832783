"""Items of `security_opt`: the forms of Docker and nerdctl, and the errors for other items."""

from __future__ import annotations

import msgpack
import pytest

from actors.model.settings import SecurityOptions
from plugin import options
from proto.errors import Code, DriverError


def read(*items: str) -> SecurityOptions:
    return options.task_options(
        msgpack.packb({"image": "x", "security_opt": list(items)})
    ).security_opt


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((), SecurityOptions()),
        (("no-new-privileges",), SecurityOptions(no_new_privileges=True)),
        (("no-new-privileges:true",), SecurityOptions(no_new_privileges=True)),
        (("no-new-privileges=false",), SecurityOptions(no_new_privileges=False)),
        (("seccomp=unconfined",), SecurityOptions(seccomp="unconfined")),
        (("seccomp=/p/a=b:c.json",), SecurityOptions(seccomp="/p/a=b:c.json")),
        (("apparmor:docker-default",), SecurityOptions(apparmor="docker-default")),
        (("label=disable", "label:disable"), SecurityOptions(labels=("disable", "disable"))),
        (
            ("label=type:web_t", "label:level:s0:c1,c2"),
            SecurityOptions(labels=("type:web_t", "level:s0:c1,c2")),
        ),
        (("systempaths=unconfined",), SecurityOptions(system_paths=True)),
        (("writable-cgroups",), SecurityOptions(writable_cgroups=True)),
        (("writable-cgroups=false",), SecurityOptions()),
        (
            ("seccomp=a", "apparmor=b", "no-new-privileges", "seccomp=a"),
            SecurityOptions(seccomp="a", apparmor="b", no_new_privileges=True),
        ),
    ],
)
def test_items_are_read_as_docker_and_nerdctl_read_them(
    items: tuple[str, ...], expected: SecurityOptions
) -> None:
    assert read(*items) == expected


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (("seccomp=a", "seccomp=b"), "security_opt[1]: 'seccomp=b' contradicts seccomp='a'"),
        (
            ("no-new-privileges", "no-new-privileges=false"),
            "contradicts no-new-privileges=''",
        ),
        (("no-new-privileges=maybe",), "is neither true nor false"),
        (("seccomp",), "has no value: write seccomp=unconfined, or a profile"),
        (("apparmor=",), "has no value"),
        (('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',), "write its path below"),
        (("label=type",), "'type' is neither disable nor KEY:VALUE with one of user, role, type"),
        (("label=type:a b",), "'type:a b' is neither disable nor KEY:VALUE"),
        (("label=color:red",), "'color:red' is neither disable nor KEY:VALUE"),
        (("systempaths=all",), "can only be unconfined"),
        (("privileged-without-host-devices",), "is no security option: use label=disable"),
        (("nonsense",), "'nonsense' is no security option"),
    ],
)
def test_wrong_items_are_named(items: tuple[str, ...], words: str) -> None:
    with pytest.raises(DriverError) as caught:
        read(*items)
    assert caught.value.code is Code.INVALID
    assert words in str(caught.value)
