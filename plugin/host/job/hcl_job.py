"""Job file in HCL, parsed by python-hcl2 into a tree of plain values.

References to variables and locals are replaced by values. References that Nomad resolves on the
node, such as `${NOMAD_TASK_DIR}` or `${node.datacenter}`, stay. Other expressions are refused by
name: a job with another meaning would be worse than a refused job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from plugin import environment
from plugin.host.job.hcl_text import Masked, mask, unmask
from plugin.host.job.text import Block, too_deep
from proto.errors import Code, DriverError

_BLOCK_MARK = "__is_block__"
_TEMPLATE = re.compile(r"\$\$\{|%%\{|%\{|\$\{((?:[^{}\"]|\"[^\"]*\")*)\}?")
_NAMED = re.compile(r"(var|local)\.([\w-]+)")
_RUNTIME = re.compile(r"(NOMAD_\w+|(attr|node|meta|device)\.[\w.\-]+|env\[\s*\"[^\"]+\"\s*\])")
_LITERAL = re.compile(r"-?\d+(\.\d+)?|true|false|null")
_VARIABLE_PREFIX = "NOMAD_VAR_"
_MAX_CHARACTERS = 32 << 20
_REFERENCE = 1000
"""Characters that a reference counts as: a list of references has no text, and takes time."""
_MAX_REFERENCES = 32


def parse_hcl(name: str, text: str, values: Mapping[str, str]) -> Block:
    """Returns the evaluated blocks of a file.

    Args:
        name: name of the file in errors.
        text: the HCL source.
        values: values of HCL variables by name, from the command line.

    Raises:
        DriverError: code INVALID, the text is not HCL, or has an expression that cannot be
            evaluated here; code UNSUPPORTED, python-hcl2 is missing.
    """
    tree, _ = parsed(name, text)
    tree = _without_marks(tree)
    scope = _Scope(_variables(name, tree, values), merged(tree.get("locals")))
    document: Block = {}
    try:
        document = scope.evaluated(
            {key: value for key, value in tree.items() if key not in {"variable", "locals"}}
        )
    except _TooLargeError as error:
        scope.problems.append(str(error))
    if scope.problems:
        problems = "; ".join(dict.fromkeys(scope.problems))
        raise DriverError(f"{name}: {problems}", code=Code.INVALID)
    return document


def merged(blocks: Any) -> Block:
    """Returns the body of a block; the bodies of several blocks are merged.

    Args:
        blocks: a list of bodies, or a single body.
    """
    body: Block = {}
    for block in blocks if isinstance(blocks, list) else [blocks]:
        if isinstance(block, dict):
            body.update(block)
    return body


def parsed(name: str, text: str, function: str = "loads") -> tuple[Any, Masked]:
    """Returns the result of a function of python-hcl2 for the masked source, and that source.

    Args:
        name: name of the file in errors.
        text: the HCL source.
        function: `loads` for values, or `parses_to_tree` for a tree with places.

    Raises:
        DriverError: code INVALID, the text is not HCL; code UNSUPPORTED, python-hcl2 is missing.
    """
    try:
        import hcl2  # noqa: PLC0415 - the driver does not depend on hcl2
    except ImportError:
        raise DriverError(
            "HCL needs the Python package python-hcl2",
            resolution="pip install python-hcl2, on Debian with --break-system-packages; or use"
            " the JSON of `nomad job run -output`",
            code=Code.UNSUPPORTED,
        ) from None
    try:
        masked = mask(text)
        return getattr(hcl2, function)(f"{masked.text}\n"), masked
    except RecursionError:
        raise too_deep(name) from None
    except ValueError as error:
        raise DriverError(f"{name}: {error}", code=Code.INVALID) from None
    except Exception as error:
        # The parser raises errors of several classes; most have a line.
        line = getattr(error, "line", 0)
        where = f"{name}:{line}" if isinstance(line, int) and line > 0 else name
        raise DriverError(
            f"{where}: not HCL", details=_source_line(text, line), code=Code.INVALID
        ) from error


def _source_line(text: str, line: Any) -> str:
    lines = text.splitlines()
    if isinstance(line, int) and 0 < line <= len(lines):
        return lines[line - 1].strip()[:120]
    return "unexpected end of the file, perhaps a closing brace is missing"


def _without_marks(value: Any) -> Any:
    """Removes the parser's marks of blocks and the quotes of strings."""
    if isinstance(value, dict):
        return {
            unmask(_without_quotes(key)): _without_marks(item)
            for key, item in value.items()
            if key != _BLOCK_MARK
        }
    if isinstance(value, list):
        return [_without_marks(item) for item in value]
    return _without_quotes(value) if isinstance(value, str) else value


def _without_quotes(text: str) -> str:
    # Quotes inside of the string are masked: unmasked quotes are the parser's. The parser's option
    # `strip_string_quotes` is no substitute: in 8.1.2 a template loses its inner quotes too.
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted else text


def _variables(name: str, tree: Block, values: Mapping[str, str]) -> Block:
    declared: Block = {}
    for key, body in merged(tree.get("variable")).items():
        if not isinstance(body, dict):
            raise DriverError(
                f'{name}: variable "{key}" is not a block',
                resolution=f'write variable "{key}" {{ … }}',
                code=Code.INVALID,
            )
        default = body.get("default")
        text = values.get(key, environment.variable(_VARIABLE_PREFIX + key) or None)
        if text is None and "default" not in body:
            raise DriverError(
                f'{name}: variable "{key}" has no value',
                resolution=f"set --var {key}=…",
                code=Code.INVALID,
            )
        declared[key] = default if text is None else _typed(text, body.get("type"), default)
    for key in values:
        if key not in declared:
            raise DriverError(
                f'{name}: has no variable "{key}"',
                resolution=f"variables of the file: {', '.join(declared) or 'none'}",
                code=Code.INVALID,
            )
    return declared


def _typed(text: str, kind: Any, default: Any) -> Any:
    """Reads a value of the command line: JSON if the type of the variable is not a string."""
    is_string = "string" in str(kind) and "(" not in str(kind) if kind else isinstance(default, str)
    if is_string or (kind is None and default is None):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _TooLargeError(Exception):
    """Nested references that expand to too much text: a few lines can exhaust all memory."""


class _Scope:
    """Values by name, and problems of the evaluation."""

    def __init__(self, variables: Block, local_values: Block) -> None:
        self._variables = variables
        self._locals = local_values
        self._resolving: set[str] = set()
        self._characters = 0
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
        expanded = unmask(_TEMPLATE.sub(self._part, text))
        self._count(len(expanded))
        return expanded

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > _MAX_CHARACTERS:
            raise _TooLargeError(
                "the references expand to more than 32 MiB of text, or are more than 33,000"
            )

    def _part(self, match: re.Match[str]) -> str:
        if match[0] in {"$${", "%%{"}:
            return match[0][1:]
        if match[1] is None or not match[0].endswith("}"):
            self.problems.append(f"{match[0][:40]}…: only plain references are allowed in a string")
            return match[0]
        return as_text(self._expression(match[1].strip()))

    def _expression(self, text: str) -> Any:
        named = _NAMED.fullmatch(text)
        if named:
            return self._named(named[1], named[2])
        if _RUNTIME.fullmatch(text):
            return f"${{{text}}}"
        if _LITERAL.fullmatch(text):
            return json.loads(text)
        shell = re.fullmatch(r"\w+", text)
        hint = f"for a variable of the shell write $${{{text}}}" if shell else "write the value"
        self.problems.append(f"${{{unmask(text)[:60]}}} cannot be evaluated without Nomad: {hint}")
        return ""

    def _named(self, kind: str, name: str) -> Any:
        values = self._variables if kind == "var" else self._locals
        self._count(_REFERENCE)
        if len(self._resolving) > _MAX_REFERENCES:
            raise _TooLargeError(f"{kind}.{name}: more than {_MAX_REFERENCES} locals in a chain")
        if name not in values or f"{kind}.{name}" in self._resolving:
            reason = "refers to itself" if name in values else "is not defined"
            self.problems.append(f"{kind}.{name} {reason}")
            return ""
        self._resolving.add(f"{kind}.{name}")
        try:
            # A value of the command line is plain text, not an expression.
            value = values[name]
            return self.evaluated(value) if kind == "local" else _unmasked(value)
        finally:
            self._resolving.discard(f"{kind}.{name}")


def as_text(value: Any) -> str:
    """Converts a value into a string as HCL does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _unmasked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmasked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unmasked(item) for item in value]
    return unmask(value) if isinstance(value, str) else value
