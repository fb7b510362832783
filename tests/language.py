"""Measures the language of docstrings and documents, for the rule test and for authors.

    python -m tests.language [PATH…]

prints a line for each file and each docstring that breaks a rule of STYLE.md. A PATH is a file or
a folder of Python or Markdown; without a PATH the whole product and its documents are measured.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("plugin", "actors", "containerd", "workers", "proto")
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "HACKING.md", "STYLE.md", "docs")


def listed(text: str) -> frozenset[str]:
    """Returns the words of a list."""
    return frozenset(text.split())


PRONOUNS = listed("it its this that what who whose one those nobody somebody whoever there")
QUESTIONS = listed("What Who Whose Where Whether When How")
# Words with the ending of a verb in the third person which are no verbs.
NO_VERBS = listed(
    """
    This Its Is Was As Us Always Perhaps Plus Across Towards Besides Sometimes Yes
    Arguments Bytes Containers Credentials Devices Directories Fields Files Ids Layers Lines
    Milliseconds Objects Options Paragraphs Parents Paths Seconds Sockets Ways Words
    """
)
AFTER_NOUNS = listed("of which who whose")
# A document may have this many of PRONOUNS in a hundred words, docstrings this many.
DOCUMENT_SHARE = 4.0
DOCSTRING_SHARE = 5.0


@dataclass(frozen=True, kw_only=True)
class Text:
    """A docstring of a module, class, property, function or name, or one Markdown document."""

    path: str
    line: int
    kind: str
    words: tuple[str, ...]
    beginning: str

    @property
    def pronouns(self) -> list[str]:
        """The pronoun-like words, in their order."""
        return [word for word in self.words if word in PRONOUNS]

    @property
    def asks(self) -> bool:
        """True if the docstring begins with a question word."""
        return self.kind not in {"module", "document"} and first_word(self) in QUESTIONS

    @property
    def lacks_verb(self) -> bool:
        """True if a function's docstring does not begin with a verb in the third person."""
        return self.kind == "function" and not begins_with_verb(self.beginning)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Sums over several texts."""

    words: int
    share: float
    questions: int
    verbless: int


def first_word(text: Text) -> str:
    """Returns the first word of the text without punctuation."""
    return next(iter(re.findall(r"[\w-]+", text.beginning)), "")


def begins_with_verb(text: str) -> bool:
    """Tells whether the first word has the form of a verb in the third person.

    A plural noun has the same form: frequent nouns are listed in NO_VERBS, and a word such as "of"
    follows other nouns. "See `Base.method`." stands in overriding methods.
    """
    if text.startswith("See `"):
        return True
    match = re.match(r"([A-Z][a-z]+(?:-[a-z]+)?)\b ?([a-z]*)", text)
    if match is None:
        return False
    word, following = match.groups()
    if word in NO_VERBS or following in AFTER_NOUNS:
        return False
    return word.endswith("s") and not word.endswith(("ss", "us"))


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a text in lower case, without what stands in backticks."""
    return tuple(re.findall(r"[a-z]+", re.sub(r"`[^`]*`", " ", text).lower()))


def docstrings(path: Path) -> Iterator[Text]:
    """Yields every docstring of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text:
            yield Text(
                path=shown(path),
                line=node.body[0].lineno,
                kind=kind_of(node),
                words=words_of(text),
                beginning=text.splitlines()[0],
            )
        if isinstance(node, ast.Module | ast.ClassDef):
            yield from docstrings_of_names(path, node)


def docstrings_of_names(path: Path, node: ast.Module | ast.ClassDef) -> Iterator[Text]:
    """Yields every text behind an assignment, such as that of a constant."""
    for assigned, behind in itertools.pairwise(node.body):
        match behind:
            case ast.Expr(value=ast.Constant(value=str(text))) if text.strip() and isinstance(
                assigned, ast.Assign | ast.AnnAssign
            ):
                yield Text(
                    path=shown(path),
                    line=behind.lineno,
                    kind="name",
                    words=words_of(text),
                    beginning=text.strip().splitlines()[0],
                )


def kind_of(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Returns "module", "class", "property" or "function"."""
    if isinstance(node, ast.Module):
        return "module"
    if isinstance(node, ast.ClassDef):
        return "class"
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return "property" if names & {"property", "cached_property"} else "function"


def document(path: Path) -> Text:
    """Returns a Markdown document without its code blocks and link targets."""
    text = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1", "", path.read_text())
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return Text(path=shown(path), line=1, kind="document", words=words_of(text), beginning="")


def shown(path: Path) -> str:
    """Returns the path relative to the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def files(*places: str | Path) -> Iterator[Path]:
    """Yields the hand-written Python and Markdown files at and below the places that exist."""
    for place in places:
        path = ROOT / place
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (
            file
            for file in found
            if file.suffix in {".py", ".md"} and file.is_file() and "_pb2" not in file.name
        )


def texts(path: Path) -> list[Text]:
    """Returns the docstrings of a Python file, or a Markdown file as one text."""
    return [document(path)] if path.suffix == ".md" else list(docstrings(path))


def figures(of: list[Text]) -> Figures:
    """Adds up the texts."""
    words = sum(len(text.words) for text in of)
    pronouns = sum(len(text.pronouns) for text in of)
    return Figures(
        words=words,
        share=100 * pronouns / words if words else 0.0,
        questions=sum(text.asks for text in of),
        verbless=sum(text.lacks_verb for text in of),
    )


def complaints(text: Text) -> Iterator[str]:
    """Yields a line for each rule that a docstring breaks."""
    place = f"{text.path}:{text.line}:"
    if text.asks:
        yield f"{place} begins with {first_word(text)}: {text.beginning[:70]}"
    elif text.lacks_verb:
        yield f"{place} begins with no verb: {text.beginning[:70]}"
    if text.kind != "document" and figures([text]).share >= DOCSTRING_SHARE:
        found = " ".join(text.pronouns)
        yield f"{place} {len(text.pronouns)} of {len(text.words)} words: {found}"


def row(name: str, of: list[Text]) -> str:
    """Formats the figures of a file or of all files."""
    sums = figures(of)
    return f"{sums.share:6.1f} {sums.words:7} {sums.questions:9} {sums.verbless:8}  {name}"


def main(arguments: list[str]) -> None:
    """Prints the figures of each file, then the docstrings that break a rule."""
    places = [Path(argument).resolve() for argument in arguments]
    measured = {path: texts(path) for path in files(*(places or (*PRODUCT, *DOCUMENTS)))}
    everything = [text for found in measured.values() for text in found]
    lines = [
        "pronouns  words questions verbless  (pronouns: in 100 words)",
        *(row(shown(path), found) for path, found in measured.items()),
        row("all docstrings", [text for text in everything if text.kind != "document"]),
        *(line for text in everything for line in complaints(text)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
