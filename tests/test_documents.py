"""The documents are right: every link leads to a target, and each quote is in the program.

STYLE.md has the rules for the text itself; tests/test_language.py counts pronouns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from containerd.registry import hosts
from plugin import options
from plugin.cli import plugin_block
from plugin.host.agent import hcl_config
from plugin.host.job import jobfile
from plugin.options import hcl_schema
from tests import language, options_page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "example" / "README.md"})
MAX_README_LINES = 150
FIRST_JOB_LINES = 40
OTHERS_TEXTS = {
    "Error starting agent: … parsing plugin configurations failed",  # Nomad's
    "Failed Validation",
    "No argument or block type is named …",
    "duplicate allocation is not allowed",
    "already exists",  # the Go driver's
    "no space left on device",  # the kernel's, through containerd
    "exec: …: no such file or directory",  # the runtime's
}


def prose(text: str) -> str:
    """Returns a page without its blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", text)


def headings(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a page.

    A heading is lower case, without punctuation, with a hyphen for each blank. The second heading
    of one name gets the ending -1, the third -2.
    """
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", prose(page.read_text())):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = found.get(name, 0)
        found[name] = count + 1
        anchors.add(f"{name}-{count}" if count else name)
    return anchors


def links(page: Path) -> Iterator[str]:
    """Yields the targets of a page's links, but not addresses of the web."""
    text = re.sub(r"`[^`\n]*`", "", prose(page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "http://")):
            yield target


def fault(page: Path, target: str) -> str:
    """Returns why a link leads nowhere, or an empty text."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"there is no {file}"
    if anchor and anchor not in headings(file):
        return f"{file.name} has no heading #{anchor}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    faults = {target: fault(page, target) for target in links(page)}
    assert {target: why for target, why in faults.items() if why} == {}


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c-d\n\n```sh\n# no heading\n```\n\n## What's up?\n\n## A b c-d\n")
    assert headings(page) == {"a-b-c-d", "whats-up", "a-b-c-d-1"}
    page.write_text("[x](#y) [z](other.md#w) `[c](d)` [web](https://example.com)\n")
    assert list(links(page)) == ["#y", "other.md#w"]
    assert fault(page, "#y") == "page.md has no heading #y"
    assert fault(page, "other.md#w").startswith("there is no ")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_readme_leads_to_every_page(page: Path) -> None:
    assert f"docs/{page.name}" in set(links(README))


def test_the_page_of_options_has_a_row_for_every_option() -> None:
    page = rows(options_page.page())
    for option in (*options.DRIVER_OPTIONS, *options.TASK_OPTIONS):
        assert f"`{option.name}`" in page
        assert {f"`{option.name}.{inner.name}`" for inner in option.nested} <= set(page)
    assert page["`image`"][:2] == ["string", "**required**"]
    assert page["`image_pull_timeout`"][:2] == ["string", '`"5m"`']
    assert all(len(row) == 3 for name, row in page.items() if name.startswith("`"))


def code_lines(text: str) -> list[str]:
    """Returns the commands of a page: lines with four blanks before them, without comments."""
    return [line.partition("  #")[0].strip() for line in text.splitlines() if line[:4] == "    "]


def test_the_readme_is_short_and_begins_with_a_job() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= MAX_README_LINES
    commands = code_lines("\n".join(lines[:FIRST_JOB_LINES]))
    assert "containerd-driver run hello.json" in commands
    assert "nomad job run hello.nomad" in commands
    install = (DOCS / "install.md").read_text().partition("## Debian package")[2]
    assert commands[:3] == code_lines(install)[:3]


JOB = 'job "x" {{ group "x" {{ {} task "x" {{ driver = "containerd-driver"\n {} }} }} }}'


def rows(text: str) -> dict[str, list[str]]:
    """Returns the rows of all tables of a page by their first column."""
    found = {}
    for line in re.findall(r"(?m)^\| (.*) \|$", text):
        first, *rest = line.split(" | ")
        found[first] = rest
    return found


def test_the_readme_has_the_figures_of_the_page_about_performance() -> None:
    table = README.read_text().partition("| two cores")[2].partition("\n\n")[0]
    shown = {figure: values for figure, values in rows(table).items() if values[0][0].isdecimal()}
    measured = rows((DOCS / "performance.md").read_text())
    assert len(shown) == 4
    for figure, values in shown.items():
        driver, docker, _podman, go, raw_exec = measured[figure]
        assert values == [driver, docker, go, raw_exec]


def hcl_blocks() -> Iterator[tuple[str, str]]:
    """Yields (page, text) of each job, part of a job, and plugin block in the documents."""
    for page in PAGES:
        for text in re.findall(r"(?ms)^```hcl\n(.*?)^```$", page.read_text()):
            if re.search(r"^(job|plugin|config|network) ", text, re.MULTILINE):
                yield page.name, text


@pytest.mark.parametrize(("page", "text"), list(hcl_blocks()))
def test_the_program_accepts_the_configuration_in_the_documents(
    page: str, text: str, tmp_path: Path
) -> None:
    file = tmp_path / f"{page}.hcl"
    if re.search(r"^plugin ", text, re.MULTILINE):
        file.write_text(text)
        assert plugin_block.settings(file, [])
        return
    first = text.partition(" ")[0]
    config = 'config { image = "x:1" }'
    jobs = {"job": text, "config": JOB.format("", text), "network": JOB.format(text, config)}
    file.write_text(jobs[first])
    for group in jobfile.load(file, {}).groups:
        for task in group.tasks:
            packed = hcl_config.encode(hcl_schema.schema(options.TASK_OPTIONS), task.config)
            assert options.task_options(packed).image


def test_the_hosts_file_in_the_documents_is_one_that_pulls_read(tmp_path: Path) -> None:
    (tmp_path / "mirror-ca.pem").touch()
    page = (DOCS / "images.md").read_text().replace("/etc/ssl/", f"{tmp_path}/")
    text = re.findall(r"(?ms)^```toml\n(.*?)^```$", page)[0]
    mirror, hub = hosts.parse(text, tmp_path / "hosts.toml", "docker.io")
    assert (mirror.host, hub.host) == ("mirror.example:5000", "registry-1.docker.io")
    assert mirror.ca == (str(tmp_path / "mirror-ca.pem"),)


@cache
def texts_of_the_program() -> str:
    """Returns all texts in the product's code, a blank line between them and "…" for values."""
    found = []
    for path in language.files(*language.PRODUCT):
        for node in ast.walk(ast.parse(path.read_text())) if path.suffix == ".py" else ():
            if isinstance(node, ast.JoinedStr):
                parts = [str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n\n".join(found)


def quoted_errors() -> Iterator[str]:
    """Yields the error texts in the first column of the tables of symptoms."""
    page = (DOCS / "operations.md").read_text()
    section = page.partition("## Trouble, by symptom")[2].partition("\n## ")[0]
    for cell in re.findall(r"(?m)^\| ([^|]*) \|", section):
        for text in re.findall(r"`([^`]+)`", cell):
            if " " in text and not text.startswith("nomad "):  # a command
                yield text


@pytest.mark.parametrize("text", sorted(set(quoted_errors()) - OTHERS_TEXTS))
def test_an_error_that_the_documents_explain_is_one_of_the_program(text: str) -> None:
    pattern = ".{0,200}?".join(re.escape(part) for part in re.split(r" ?… ?|…", text))
    assert re.search(pattern, texts_of_the_program()), text
