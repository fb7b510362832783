"""A job file in HCL, through python-hcl2, as a tree of plain values.

Variables and locals are put in place. References that Nomad resolves where the task runs, such as
`${NOMAD_TASK_DIR}` or `${node.datacenter}`, stay; other expressions are refused by name, since a
job that silently means something else is worse than one that does not start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from plugin import environment
from plugin.host.job import hcl_text
from plugin.host.job.text import Block, too_deep
from proto.errors import Code, DriverError

_MARKS = frozenset({"__is_block__", "__comments__", "__inline_comments__"})
_TEMPLATE = re.compile(r"\$\$\{|%%\{|%\{|\$\{((?:[^{}\"]|\"[^\"]*\")*)\}?")
_NAMED = re.compile(r"(var|local)\.([\w-]+)")
_RUNTIME = re.compile(r"(NOMAD_\w+|(attr|node|meta|device)\.[\w.\-]+|env\[\s*\"[^\"]+\"\s*\])")
_LITERAL = re.compile(r"-?\d+(\.\d+)?|true|false|null")
_VARIABLE_PREFIX = "NOMAD_VAR_"
_MAX_MADE = 32 << 20
_REFERENCE = 1000
"""A reference counts as so many characters: lists of references have none, and take time."""
_MAX_REFERENCES = 32


def parse(name: str, text: str, given: Mapping[str, str]) -> Block:
    """The file's blocks, evaluated; `given` are the values of its variables.

    Raises:
        DriverError: code INVALID, it is not HCL or says what cannot be evaluated here; code
            UNSUPPORTED, there is no python-hcl2.
    """
    tree = _unmarked(_parsed(name, text))
    scope = _Scope(_variables(name, tree, given), merged(tree.get("locals")))
    document: Block = {}
    try:
        document = scope.evaluated(
            {key: value for key, value in tree.items() if key not in {"variable", "locals"}}
        )
    except _TooMuchError as error:
        scope.problems.append(str(error))
    if scope.problems:
        problems = "; ".join(dict.fromkeys(scope.problems))
        raise DriverError(f"{name}: {problems}", code=Code.INVALID)
    return document


def merged(blocks: Any) -> Block:
    """The body of a block that stands once, or of several made one; a map is itself."""
    found: Block = {}
    for block in blocks if isinstance(blocks, list) else [blocks]:
        if isinstance(block, dict):
            found.update(block)
    return found


def _parsed(name: str, text: str) -> Block:
    try:
        import hcl2  # noqa: PLC0415 - only for HCL jobs; it is no dependency of the driver
    except ImportError:
        raise DriverError(
            "reading HCL needs the Python package python-hcl2",
            resolution="pip install python-hcl2, on Debian with --break-system-packages; or give"
            " the JSON of `nomad job run -output`",
            code=Code.UNSUPPORTED,
        ) from None
    try:
        document: Block = hcl2.loads(f"{hcl_text.guard(text)}\n")
    except RecursionError:
        raise too_deep(name) from None
    except ValueError as error:
        raise DriverError(f"{name}: {error}", code=Code.INVALID) from None
    except Exception as error:
        # The parser's library has its own classes; what it has in common is a position.
        line = getattr(error, "line", 0)
        where = f"{name}:{line}" if isinstance(line, int) and line > 0 else name
        raise DriverError(
            f"{where}: this is not HCL", details=_source_line(text, line), code=Code.INVALID
        ) from error
    return document


def _source_line(text: str, line: Any) -> str:
    lines = text.splitlines()
    if isinstance(line, int) and 0 < line <= len(lines):
        return lines[line - 1].strip()[:120]
    return "it ends too early, perhaps a closing brace is missing"


def _unmarked(value: Any) -> Any:
    """Without the parser's marks and without the quotes that release 8 leaves on strings."""
    if isinstance(value, dict):
        return {
            hcl_text.restore(_bare(key)): _unmarked(item)
            for key, item in value.items()
            if key not in _MARKS
        }
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    return _bare(value) if isinstance(value, str) else value


def _bare(text: str) -> str:
    # Quotes of the string's own are masked, so these two are the parser's.
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted else text


def _variables(name: str, tree: Block, given: Mapping[str, str]) -> Block:
    declared: Block = {}
    for key, body in merged(tree.get("variable")).items():
        if not isinstance(body, dict):
            raise DriverError(
                f'{name}: variable "{key}" is no block',
                resolution=f'write variable "{key}" {{ … }}',
                code=Code.INVALID,
            )
        default = body.get("default")
        text = given.get(key, environment.variable(_VARIABLE_PREFIX + key) or None)
        if text is None and "default" not in body:
            raise DriverError(
                f'{name}: variable "{key}" has no value',
                resolution=f"give --var {key}=…",
                code=Code.INVALID,
            )
        declared[key] = default if text is None else _typed(text, body.get("type"), default)
    for key in given:
        if key not in declared:
            raise DriverError(
                f'{name}: has no variable "{key}"',
                resolution=f"it has: {', '.join(declared)}" if declared else "it declares none",
                code=Code.INVALID,
            )
    return declared


def _typed(text: str, kind: Any, default: Any) -> Any:
    """A value from the command line: JSON where the variable is not a string."""
    stringy = "string" in str(kind) and "(" not in str(kind) if kind else isinstance(default, str)
    if stringy or (kind is None and default is None):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _TooMuchError(Exception):
    """References that multiply: a few lines may stand for more text than any machine has."""


class _Scope:
    """Values by name, and what could not be evaluated."""

    def __init__(self, variables: Block, local_values: Block) -> None:
        self._variables = variables
        self._locals = local_values
        self._under_way: set[str] = set()
        self._made = 0
        self.problems: list[str] = []

    def evaluated(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.evaluated(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.evaluated(item) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> Any:
        whole = _TEMPLATE.fullmatch(text)
        if whole and whole[1] is not None and whole[0].endswith("}"):
            return self._expression(whole[1].strip())
        made = hcl_text.restore(_TEMPLATE.sub(self._part, text))
        self._count(len(made))
        return made

    def _count(self, characters: int) -> None:
        self._made += characters
        if self._made > _MAX_MADE:
            raise _TooMuchError(
                "its references come to more than 32 MiB of text, or to over 33,000"
            )

    def _part(self, match: re.Match[str]) -> str:
        if match[0] in {"$${", "%%{"}:
            return match[0][1:]
        if match[1] is None or not match[0].endswith("}"):
            self.problems.append(f"{match[0][:40]}…: only plain references can stand in a string")
            return match[0]
        return shown(self._expression(match[1].strip()))

    def _expression(self, text: str) -> Any:
        named = _NAMED.fullmatch(text)
        if named:
            return self._named(named[1], named[2])
        if _RUNTIME.fullmatch(text):
            return f"${{{text}}}"
        if _LITERAL.fullmatch(text):
            return json.loads(text)
        shell = re.fullmatch(r"\w+", text)
        hint = f"for the shell's own write $${{{text}}}" if shell else "write its value"
        self.problems.append(
            f"${{{hcl_text.restore(text)[:60]}}} cannot be evaluated without Nomad: {hint}"
        )
        return ""

    def _named(self, kind: str, name: str) -> Any:
        values = self._variables if kind == "var" else self._locals
        self._count(_REFERENCE)
        if len(self._under_way) > _MAX_REFERENCES:
            raise _TooMuchError(f"{kind}.{name}: more than {_MAX_REFERENCES} locals in a chain")
        if name not in values or f"{kind}.{name}" in self._under_way:
            why = "is defined by itself" if name in values else "is not defined"
            self.problems.append(f"{kind}.{name} {why}")
            return ""
        self._under_way.add(f"{kind}.{name}")
        try:
            # What the command line gave is text as it is, not an expression.
            value = values[name]
            return self.evaluated(value) if kind == "local" else _restored(value)
        finally:
            self._under_way.discard(f"{kind}.{name}")


def shown(value: Any) -> str:
    """How HCL turns a value into a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return hcl_text.restore(value) if isinstance(value, str) else value
