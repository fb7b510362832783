"""The language of docstrings and documents: STYLE.md's rules, counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import language

FOLDERS = (*language.PRODUCT, "tests")


def folders() -> list[str]:
    """Returns every folder below FOLDERS that holds a module."""
    modules = [path for place in FOLDERS for path in language.files(place)]
    return sorted({language.shown(path.parent) for path in modules})


@pytest.mark.parametrize("folder", folders())
def test_docstrings_are_plain(folder: str) -> None:
    measured = [text for path in language.files(folder) for text in language.texts(path)]
    sums = language.figures(measured)
    report = (
        f"{folder}: {sums.share:.2f} pronoun-like words in 100, at most"
        f" {language.DOCSTRING_SHARE:g}; {sums.questions} docstrings begin with a question word,"
        f" {sums.verbless} docstrings of functions begin without a verb;"
        f" `python -m tests.language {folder}` lists them"
    )
    assert sums.share <= language.DOCSTRING_SHARE, report
    assert (sums.questions, sums.verbless) == (0, 0), report


@pytest.mark.parametrize(
    "path",
    [language.shown(p) for p in language.files(*language.DOCUMENTS)],
)
def test_documents_are_plain(path: str) -> None:
    share = language.figures([language.document(language.ROOT / path)]).share
    assert share <= language.DOCUMENT_SHARE, (
        f"{path}: {share:.2f} pronoun-like words in 100, at most {language.DOCUMENT_SHARE:g}"
    )


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("Returns the state.", True),
        ("Waits until the task has exited.", True),
        ("Re-reads the file.", True),
        ("Mounts the image below the bundle.", True),
        ("Mounts of the image.", False),
        ("See `Base.close`.", True),
        ("The state.", False),
        ("Status of the task.", False),
        ("Address and port.", False),
        ("This is the state.", False),
        ("Seconds until then.", False),
        ("SIGKILL, then wait.", False),
        ("Wait for it.", False),
    ],
)
def test_a_verb_in_the_third_person_is_told_from_other_words(text: str, *, verb: bool) -> None:
    assert language.begins_with_verb(text) is verb


def test_a_file_is_measured_as_its_docstrings_read(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""What this module holds is not asked."""\n\n\n'
        "LIMIT = 1\n"
        '"""What stops."""\n\n\n'
        "class Task:\n"
        '    """One task."""\n\n'
        "    @property\n"
        "    def state(self) -> str:\n"
        '        """The state."""\n\n'
        "    async def wait(self) -> None:\n"
        '        """Whether it ended, see `it`."""\n\n\n'
        "def stop() -> None:\n"
        '    """Stops the task."""\n'
    )
    found = language.texts(file)
    assert [(text.kind, text.line, text.pronouns) for text in found] == [
        ("module", 1, ["what", "this"]),
        ("name", 5, ["what"]),
        ("class", 9, ["one"]),
        ("function", 20, []),
        ("property", 13, []),
        ("function", 16, ["it"]),
    ]
    assert language.figures(found) == language.Figures(
        words=20, share=100 * 5 / 20, questions=2, verbless=1
    )
    assert list(language.complaints(found[-1])) == [
        f"{file}:16: begins with Whether: Whether it ended, see `it`.",
        f"{file}:16: 1 of 4 words: it",
    ]


def test_code_and_link_targets_of_a_document_are_no_words(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Plain\n\n```sh\nwho --that\n```\n\nSee [a page](that/what.md), `it` too.\n")
    assert language.document(file).words == ("plain", "see", "a", "page", "too")
