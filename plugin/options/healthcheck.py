"""Options of the `healthcheck` block of a task, with the names of Docker's Compose files."""

from __future__ import annotations

import json
from typing import Any

from actors.model.settings import COMMAND, EVENT, LEAST_S, NONE, RESTART, SHELL, HealthCheck
from plugin.options import readers
from plugin.options.table import Option, block, read_fields

_MOST_TEST_BYTES = 1 << 20
"""A runtime takes 2 MiB for the command of a check with the environment of the task."""
_COUNT = readers.integer(1, 10_000)


def _test(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        line: str = readers.text(readers.MAX_ARGUMENT_BYTES)(value, path, problems)
        return (SHELL, line) if line.strip() else ()
    words = readers.words(value, path, problems)
    kind, rest = words[:1], words[1:]
    if not words or kind == (NONE,) or (kind == (COMMAND,) and rest and rest[0]):
        return words
    if kind == (SHELL,) and len(rest) == 1 and rest[0].strip():
        return words
    problems.append(
        f'{path}: {readers.shown(list(words))} is no test: write ["{COMMAND}", "program",'
        f' "argument"], ["{SHELL}", "line"], ["{NONE}"], or one line for the shell'
    )
    return ()


_BLOCK = (
    Option(
        name="test",
        hcl_type="any",
        read=_test,
        doc='`["CMD", "program", "argument"]`, `["CMD-SHELL", "line"]`, one line for the image\'s'
        ' shell, or `["NONE"]`. Not set: the image\'s test. Exit code 0 is a success.',
    ),
    Option(
        name="command",
        hcl_type="string",
        read=readers.text(readers.MAX_ARGUMENT_BYTES),
        doc="Program of the check, in place of `test`.",
    ),
    Option(
        name="args",
        hcl_type="list(string)",
        read=readers.words,
        doc="Arguments of `command`.",
    ),
    Option(
        name="interval",
        field="interval_s",
        hcl_type="string",
        implied='"30s"',
        read=readers.duration_s(at_least=LEAST_S),
        doc="Time from the task's start to the first check, and from the end of a check to the"
        " next.",
    ),
    Option(
        name="timeout",
        field="timeout_s",
        hcl_type="string",
        implied='"30s"',
        read=readers.duration_s(at_least=LEAST_S),
        doc="Longest time of a check; then its processes are killed, and the check has failed.",
    ),
    Option(
        name="start_period",
        field="start_period_s",
        hcl_type="string",
        implied='"0"',
        read=readers.duration_s(),
        doc="Time after the start in which failures do not count, until the first success.",
    ),
    Option(
        name="start_interval",
        field="start_interval_s",
        hcl_type="string",
        implied='"5s"',
        read=readers.duration_s(at_least=LEAST_S),
        doc="In place of `interval` within `start_period`, until the first success.",
    ),
    Option(
        name="retries",
        hcl_type="number",
        implied="3",
        read=_COUNT,
        doc="Failures in a row that make the task unhealthy.",
    ),
    Option(
        name="on_failure",
        hcl_type="string",
        default=f'"{EVENT}"',
        read=readers.choice(EVENT, RESTART),
        doc="`event`: an unhealthy task is reported; `restart`: the task is also ended as a"
        " failure, so that the job's `restart` block applies.",
    ),
    Option(
        name="kill_timeout",
        field="kill_timeout_s",
        hcl_type="string",
        default='"5s"',
        read=readers.duration_s(),
        doc="With `restart`: time from the task's stop signal to SIGKILL. Nomad does not send the"
        " job's `kill_timeout` to drivers.",
    ),
    Option(
        name="disable",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true`: no check, not even the image's.",
    ),
)


def _healthcheck(value: Any, path: str, problems: list[str]) -> HealthCheck | None:
    values = block(value, path, problems)
    if values is None:
        return None
    fields = read_fields(_BLOCK, values, f"{path}.", problems)
    command, args = fields.pop("command", ""), fields.pop("args", ())
    if command and fields.get("test"):
        problems.append(f"{path}: command and test are mutually exclusive")
    elif args and not command:
        problems.append(f"{path}: args has no effect without command")
    elif command:
        fields["test"] = (COMMAND, command, *args)
    test = fields.get("test", ())
    if (
        test[:1] == (COMMAND,)
        and len(test[1].encode(errors="surrogatepass")) > readers.MAX_NAME_BYTES
    ):
        problems.append(f"{path}: the program is longer than {readers.MAX_NAME_BYTES} bytes")
    if len(json.dumps(test)) > _MOST_TEST_BYTES:
        problems.append(f"{path}: the test is longer than {_MOST_TEST_BYTES >> 20} MiB as JSON")
    if fields.pop("disable", False):
        return HealthCheck(test=(NONE,))
    if fields.get("on_failure") == "":
        del fields["on_failure"]
    return HealthCheck(**fields)


def _disabled(value: Any, path: str, problems: list[str]) -> HealthCheck | None:
    """Reads the block of Nomad's docker driver."""
    values = block(value, path, problems) or {}
    off = read_fields(_DOCKER, values, f"{path}.", problems).get("disable", False)
    return HealthCheck(test=(NONE,)) if off else None


_DOCKER = (
    Option(
        name="disable",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` is `healthcheck { disable = true }`.",
    ),
)

OPTIONS = (
    Option(
        name="healthcheck",
        hcl_type="block",
        nested=_BLOCK,
        read=_healthcheck,
        doc="A command that runs in the task again and again, see"
        " [operations.md](operations.md#health-checks).",
    ),
    Option(
        name="healthchecks",
        field="healthcheck",
        hcl_type="block",
        nested=_DOCKER,
        read=_disabled,
        doc="The block of Nomad's docker driver.",
    ),
)
