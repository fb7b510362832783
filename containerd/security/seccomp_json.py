"""Parses a seccomp profile: OCI's `linux.seccomp`, or the JSON of Docker and Podman.

The second form is the first with more keys, so the parser does not distinguish the forms. Errors
name the position of a mistake, never a value: the author of a job must not learn the content of a
file by naming the file. An unknown key is an error, because a misspelled condition would make a
rule unconditional.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from containerd.security.capabilities import NAMES
from containerd.security.seccomp import Argument, Condition, Profile, Rule

_T = TypeVar("_T")

_ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in (
        *("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG"),
        "NOTIFY",
    )
)
_OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
_ARCHITECTURES = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        *("X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "RISCV64", "S390", "S390X"),
        *("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32"),
        *("PPC", "PPC64", "PPC64LE", "PARISC", "PARISC64", "M68K", "SH", "SHEB"),
    )
)
_FLAGS = frozenset(
    f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)
_ERRNO_NUMBERS = {name: number for number, name in errno.errorcode.items()}
_MAX_ERRNO = 4095
_MAX_U64 = 2**64 - 1
_MAX_INDEX = 5
_MAX_ENTRIES = 10_000
_MAX_TEXT = 4096
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_KERNEL = re.compile(r"(\d{1,6})\.(\d{1,6})")
_PROFILE_KEYS = frozenset(
    {
        *("defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap"),
        *("flags", "listenerPath", "listenerMetadata", "syscalls"),
    }
)
_RULE_KEYS = frozenset(
    {"name", "names", "action", "errnoRet", "errno", "args", "includes", "excludes"}
)
_ARGUMENT_KEYS = frozenset({"index", "value", "valueTwo", "op"})
_CONDITION_KEYS = frozenset({"caps", "arches", "minKernel"})
_ARCH_MAP_KEYS = frozenset({"architecture", "subArchitectures"})
_COMMENTS = frozenset({"comment", "comments"})


class MalformedProfileError(Exception):
    """A mistake in a profile: the position, and the expected form."""

    def __init__(self, where: str, expected: str) -> None:
        super().__init__(f"{where} {expected}")


def parse(text: bytes) -> Profile:
    """Parses a file's content.

    Raises:
        MalformedProfileError: the text is no profile; the message has no part of the content.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise MalformedProfileError("the file", f"is not JSON: {position}") from None
    except (ValueError, RecursionError):
        raise MalformedProfileError("the file", "is not JSON") from None
    profile = _object(document, "the file", _PROFILE_KEYS)
    if profile.get("architectures") and profile.get("archMap"):
        raise MalformedProfileError("the file", "has both architectures and archMap; keep one")
    arch_map = profile.get("archMap")
    return Profile(
        default_action=_word(profile.get("defaultAction"), _ACTIONS, "defaultAction"),
        default_errno=_errno(profile, "defaultErrno", "defaultErrnoRet", ""),
        rules=tuple(_list(profile.get("syscalls"), "syscalls", _rule)),
        # With archMap the native table decides; OCI's form has only the list.
        architectures=None
        if arch_map
        else tuple(_list(profile.get("architectures"), "architectures", _architecture)),
        arch_map=tuple(_list(arch_map, "archMap", _arch_map_entry)) if arch_map else None,
        flags=tuple(
            _list(profile.get("flags"), "flags", lambda value, at: _word(value, _FLAGS, at))
        ),
        listener_path=_text(profile.get("listenerPath"), "listenerPath"),
        listener_metadata=_text(profile.get("listenerMetadata"), "listenerMetadata"),
    )


def _rule(value: object, where: str) -> Rule:
    rule = _object(value, where, _RULE_KEYS)
    names = _list(rule.get("names"), f"{where}.names", _name)
    if rule.get("name"):
        if names:
            raise MalformedProfileError(where, "has both name and names; keep one")
        names = [_name(rule["name"], f"{where}.name")]
    if not names:
        raise MalformedProfileError(where, "names no system call")
    return Rule(
        names=tuple(names),
        action=_word(rule.get("action"), _ACTIONS, f"{where}.action"),
        errno=_errno(rule, "errno", "errnoRet", f"{where}."),
        arguments=tuple(_list(rule.get("args"), f"{where}.args", _argument)),
        only_if=_condition(rule.get("includes"), f"{where}.includes"),
        unless=_condition(rule.get("excludes"), f"{where}.excludes"),
    )


def _argument(value: object, where: str) -> Argument:
    argument = _object(value, where, _ARGUMENT_KEYS)
    return Argument(
        index=_integer(argument.get("index"), _MAX_INDEX, f"{where}.index"),
        value=_integer(argument.get("value"), _MAX_U64, f"{where}.value"),
        value_two=_integer(argument.get("valueTwo"), _MAX_U64, f"{where}.valueTwo"),
        op=_word(argument.get("op"), _OPERATORS, f"{where}.op"),
    )


def _condition(value: object, where: str) -> Condition:
    if value is None:
        return Condition()
    condition = _object(value, where, _CONDITION_KEYS)
    kernel = _text(condition.get("minKernel"), f"{where}.minKernel")
    version = _KERNEL.fullmatch(kernel)
    if kernel and not version:
        raise MalformedProfileError(f"{where}.minKernel", "is not a kernel version such as 4.8")
    return Condition(
        capabilities=tuple(_list(condition.get("caps"), f"{where}.caps", _capability)),
        architectures=tuple(_list(condition.get("arches"), f"{where}.arches", _name)),
        min_kernel=(int(version[1]), int(version[2])) if version else None,
    )


def _arch_map_entry(value: object, where: str) -> tuple[str, tuple[str, ...]]:
    entry = _object(value, where, _ARCH_MAP_KEYS)
    more = _list(entry.get("subArchitectures"), f"{where}.subArchitectures", _architecture)
    return _architecture(entry.get("architecture"), f"{where}.architecture"), tuple(more)


def _architecture(value: object, where: str) -> str:
    return _word(value, _ARCHITECTURES, where)


def _errno(entry: dict[str, Any], by_name: str, by_number: str, where: str) -> int | None:
    """Reads an error number; Podman writes a name, and the number for older readers."""
    name = _text(entry.get(by_name), where + by_name)
    if name:
        if name not in _ERRNO_NUMBERS:
            raise MalformedProfileError(where + by_name, "is not the name of an error number")
        return _ERRNO_NUMBERS[name]
    number = entry.get(by_number)
    return None if number is None else _integer(number, _MAX_ERRNO, where + by_number)


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise MalformedProfileError(where, "is not a name")
    return value


def _capability(value: object, where: str) -> str:
    # A misspelled name in `excludes` would exclude no task.
    if not isinstance(value, str) or value not in NAMES:
        raise MalformedProfileError(where, "is not a capability such as CAP_SYS_ADMIN")
    return value


def _word(value: object, known: Collection[str], where: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise MalformedProfileError(where, f"is not one of {', '.join(sorted(known))}")
    return value


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise MalformedProfileError(where, f"is not a text of at most {_MAX_TEXT} characters")
    return value


def _integer(value: object, most: int, where: str) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MalformedProfileError(where, f"is not a whole number from 0 to {most}")
    return value


def _list(value: object, where: str, read: Callable[[object, str], _T]) -> list[_T]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        raise MalformedProfileError(where, f"is not a list of at most {_MAX_ENTRIES} entries")
    return [read(entry, f"{where}[{number}]") for number, entry in enumerate(value)]


def _object(value: object, where: str, known: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedProfileError(where, "is not an object")
    strange = [key for key in value if key not in known and key not in _COMMENTS]
    if any(not key.startswith(("$", "_")) for key in strange):
        raise MalformedProfileError(
            where, f"has a key that is not one of {', '.join(sorted({*known, 'comment'}))}"
        )
    return value
