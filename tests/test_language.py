"""The language of docstrings and documents: STYLE.md's rules, counted.

LIMITS are a ratchet. An entry counts all files below its folder. REWRITTEN names the folders and
files with the final limits; a folder's entry of LIMITS goes with the folder's entry here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import language


def final(share: float) -> language.Figures:
    """Returns the limits that hold in the end."""
    return language.Figures(words=0, share=share, questions=0, verbless=0)


def now(share: float, questions: int, verbless: int) -> language.Figures:
    """Returns the limits of the present state."""
    return language.Figures(words=0, share=share, questions=questions, verbless=verbless)


LIMITS = {
    "actors": now(10.2, 28, 175),
}
REWRITTEN: tuple[str, ...] = (
    "actors/__init__.py",
    "actors/actor_gateway.py",
    "actors/asyncio_bridge.py",
    "actors/events.py",
    "actors/exec",
    "actors/gateway.py",
    "actors/health",
    "actors/images",
    "actors/messages.py",
    "actors/orphans",
    "actors/processes",
    "actors/supervisor.py",
    "actors/task",
    "actors/blocking",
    "actors/files",
    "actors/handles",
    "actors/lifecycle",
    "actors/model",
    "actors/provision",
    "actors/step_log.py",
    "containerd",
    "plugin",
    "plugin/cli",
    "plugin/host",
    "plugin/options",
    "plugin/rpc",
    "proto",
    "workers",
    "tests/acceptance",
    "tests/bench.py",
    "tests/conftest.py",
    "tests/containerd",
    "tests/contract",
    "tests/halves.py",
    "tests/language.py",
    "tests/matrix.py",
    "tests/nomad",
    "tests/options_page.py",
    "tests/process",
    "tests/record.py",
    "tests/soak",
    "tests/states.py",
    "tests/support",
    "tests/test_architecture.py",
    "tests/test_documents.py",
    "tests/test_house_rules.py",
    "tests/unit",
)


@pytest.mark.parametrize("folder", sorted({*LIMITS, *REWRITTEN, *language.PRODUCT}))
def test_docstrings_are_plain(folder: str) -> None:
    found = [text for path in language.files(folder) for text in language.texts(path)]
    assert found, f"{folder} has no docstrings: is its name right?"
    limits = LIMITS.get(folder, final(language.DOCSTRING_SHARE))
    sums = language.figures(found)
    told = (
        f"{folder}: {sums.share:.2f} pronoun-like words in 100 (limit {limits.share:g}, in the end"
        f" {language.DOCSTRING_SHARE:g}), {sums.questions} docstrings begin with a question word"
        f" (limit {limits.questions}), {sums.verbless} of functions begin without a verb"
        f" (limit {limits.verbless}); `python -m tests.language {folder}` lists them"
    )
    assert sums.share <= limits.share, told
    assert sums.questions <= limits.questions, told
    assert sums.verbless <= limits.verbless, told


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
        ("class", 5, ["one"]),
        ("function", 16, []),
        ("property", 9, []),
        ("function", 12, ["it"]),
    ]
    assert language.figures(found) == language.Figures(
        words=18, share=100 * 4 / 18, questions=1, verbless=1
    )
    assert list(language.complaints(found[-1])) == [
        f"{file}:12: begins with Whether: Whether it ended, see `it`.",
        f"{file}:12: 1 of 4 words: it",
    ]


def test_code_and_link_targets_of_a_document_are_no_words(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Plain\n\n```sh\nwho --that\n```\n\nSee [a page](that/what.md), `it` too.\n")
    assert language.document(file).words == ("plain", "see", "a", "page", "too")
