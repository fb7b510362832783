"""Options before a command in a task: `exec:/ user=app cwd=/srv env=DEBUG=1 -- sh -l`.

Nomad's protocol has no field for the user, the directory or the environment of a command. So the
command carries the options. The first word can be no program: execve refuses each path that ends
with a slash. A node takes the options that `exec_options` in the plugin block names.

An error of `nomad alloc exec` has space for 90 bytes, so the sentences are short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from actors.model.gates import EXEC_OPTIONS
from containerd.spec.build import working_directory
from proto.errors import Code, DriverError
from proto.values import dataclass

MARK = "exec:/"
"""The first word of a command with options."""
_KEYS = EXEC_OPTIONS[:3]
_SHOWN = 24
"""Bytes of a caller's word in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """A command in a task, with its options.

    Attributes:
        command: program and arguments.
        user: as in a job's `user`; empty for the task's own.
        cwd: working directory; empty for the task's own.
        env: variables beside the task's own.
    """

    command: tuple[str, ...]
    user: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


def read(words: Sequence[str], allowed: Sequence[str]) -> ExecOptions:
    """Reads the options before a command that begins with `MARK`.

    Args:
        words: the words of the caller.
        allowed: the options that the operator allows.

    Raises:
        DriverError: code INVALID, an option is wrong; code DENIED, an option is not allowed.
    """
    if not allowed:
        raise _refused("is off here: exec_options of the plugin block is empty", Code.DENIED)
    if "--" not in words:
        raise _refused("needs -- before the command, as in exec:/ user=app -- sh")
    end = words.index("--")
    command = tuple(words[end + 1 :])
    if not command or not command[0]:
        raise _refused("needs a command after --")
    values: dict[str, str] = {}
    env: dict[str, str] = {}
    for word in words[1:end]:
        key, equals, value = word.partition("=")
        if key not in _KEYS or not equals:
            raise _refused(f"{_cut(word)}: write user=NAME, cwd=PATH or env=NAME=VALUE")
        if key not in allowed:
            raise _refused(
                f"{key}: the node's exec_options allow {', '.join(allowed)}", Code.DENIED
            )
        if key == "env":
            name, equals, text = value.partition("=")
            if not name or not equals or "\0" in value:
                raise _refused(f"{_cut(word)}: write env=NAME=VALUE")
            env[name] = text
        elif key in values:
            raise _refused(f"{key} is set twice")
        else:
            values[key] = value
    return ExecOptions(command=command, env=env, **_checked(values))


def _checked(values: dict[str, str]) -> dict[str, str]:
    for key, value in values.items():
        if not value or "\0" in value:
            raise _refused(f"{key}= needs a value")
    cwd = values.get("cwd")
    if cwd is None:
        return values
    clean = working_directory(cwd)
    if not clean:
        raise _refused(f"cwd={_cut(cwd)}: write an absolute path outside /proc and /sys")
    return {**values, "cwd": clean}


def _cut(text: str) -> str:
    return text.encode()[:_SHOWN].decode(errors="ignore")


def _refused(text: str, code: Code = Code.INVALID) -> DriverError:
    return DriverError(f"{MARK} {text}", code=code)
