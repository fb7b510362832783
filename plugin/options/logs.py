"""Options of the `logging` block of a task, with the names of Docker and of Podman."""

from __future__ import annotations

import re
from typing import Any

from actors.model.settings import LogOptions
from actors.model.task_logs import FILES, JOURNALD, NONE, TAG_FIELDS
from plugin.options import readers
from plugin.options.forms import log_file_bytes, pairs
from plugin.options.table import MAP, Option, block, read_fields

_TYPES = {
    **dict.fromkeys(("json-file", "local", "k8s-file", "nomad", "files"), FILES),
    "journald": JOURNALD,
    "none": NONE,
}
_KEYS = ("max-file", "max-size", "tag")
_MAX_FILES = 10_000
_MAX_TAG_BYTES = 256
_FIELD = re.compile(r"\{\{\s*\.([A-Za-z]+)\s*\}\}")


def _type(value: Any, path: str, problems: list[str]) -> str:
    word: str = readers.text()(value, path, problems)
    if word and word not in _TYPES:
        problems.append(
            f"{path}: {readers.shown(word)} is not supported: use one of {', '.join(_TYPES)}; or"
            " leave the log in files and let a log shipper read these"
        )
    return _TYPES.get(word, "")


def _driver(value: Any, path: str, problems: list[str]) -> readers.Fields:
    kind = _type(value, path, problems)
    return readers.Fields(type=kind) if kind else readers.Fields()


def _config(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads Docker's `config` or Podman's `options`."""
    fields = readers.Fields()
    for key, text in pairs(value, path, problems):
        where = f"{path}.{key[:64]}"
        if key == "max-file":
            fields["max_files"] = _count(text, where, problems)
        elif key == "max-size":
            fields["max_file_bytes"] = log_file_bytes(text, where, problems)
        elif key == "tag":
            fields["tag"] = _tag(text, where, problems)
        else:
            problems.append(f"{where}: no such option, known: {', '.join(_KEYS)}")
    return fields


def _count(text: str, path: str, problems: list[str]) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= _MAX_FILES:
        problems.append(f"{path}: {readers.shown(text)} is not a number from 1 to {_MAX_FILES}")
        return 0
    return int(text)


def _tag(text: str, path: str, problems: list[str]) -> str:
    unknown = [name for name in _FIELD.findall(text) if name not in TAG_FIELDS]
    if unknown or "{{" in _FIELD.sub("", text):
        known = ", ".join("{{.%s}}" % name for name in TAG_FIELDS)  # noqa: UP031 - braces
        problems.append(f"{path}: {readers.shown(text)} has an unknown field, known: {known}")
    elif not text.isprintable() or len(text.encode(errors="surrogatepass")) > _MAX_TAG_BYTES:
        problems.append(f"{path}: {readers.shown(text)} is longer than {_MAX_TAG_BYTES} bytes, or")
        problems[-1] += " has a line break"
    return text


LOGGING = (
    Option(
        name="type",
        hcl_type="string",
        read=_type,
        doc="`json-file` (also `local`, `k8s-file`, `nomad`): log files for `nomad alloc logs`, as"
        ' without the block; `journald` or `none`: only with `log_collection = "driver"`.',
    ),
    Option(
        name="driver",
        hcl_type="string",
        read=_driver,
        doc="Another name of `type`.",
    ),
    Option(
        name="config",
        hcl_type=MAP,
        read=_config,
        doc="`max-file`, `max-size`: instead of the driver's `log_files`. `tag`: CONTAINER_TAG and"
        " SYSLOG_IDENTIFIER in the journal, by default the task's name; may have `{{.Name}}`,"
        " `{{.ID}}`, `{{.FullID}}`, `{{.ImageName}}`.",
    ),
    Option(
        name="options",
        hcl_type=MAP,
        read=_config,
        doc="Podman's name of `config`.",
    ),
)


def logging_block(value: Any, path: str, problems: list[str]) -> LogOptions | None:
    """Reads a task's `logging` block; None if the block is empty."""
    values = block(value, path, problems)
    if values is None:
        return None
    fields = read_fields(LOGGING, values, f"{path}.", problems)
    kind = fields.pop("type", "")
    return LogOptions(type=kind or FILES, **fields)
