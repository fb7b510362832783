"""ARCHITECTURE.md agrees with the tree.

The drawing of the floors is the order of imports, and each path that a page names exists.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")})
    if page.name != "CHANGES.md"
]
ROOMS = ("plugin", "plugin/host", "actors", "containerd", "workers", "proto")


def drawing() -> dict[str, list[list[str]]]:
    """Returns the floors of each drawn folder, the highest floor first."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = re.search(r"<!-- floors -->\n```\n(.*?)```", text, re.DOTALL)
    assert block is not None, "ARCHITECTURE.md has no drawing of the floors"
    floors: dict[str, list[list[str]]] = {}
    for line in block[1].splitlines():
        if line and not line.startswith(" "):
            room = line.partition(" ")[0].rstrip("/")
            floors[room] = []
        elif line.strip():
            floors[room].append(line.split())
    return floors


def content(room: str) -> set[str]:
    """Returns the modules of a folder and, with a slash, the folders."""
    found = set()
    for path in (ROOT / room).iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            found.add(path.stem)
        elif (path / "__init__.py").exists() and room != "proto":
            found.add(f"{path.name}/")
    return found


def box(room: str, module: str) -> str | None:
    """Returns the drawn name for a module by its dotted path, or None for another folder's."""
    parts, inside = module.split("."), room.split("/")
    if parts[: len(inside)] != inside or len(parts) == len(inside):
        return None
    name = parts[len(inside)]
    return f"{name}/" if (ROOT / room / name).is_dir() else name


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Returns the dotted paths of a module's imports, also in functions and for type checkers."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def test_the_drawing_has_all_folders_and_modules() -> None:
    drawn = drawing()
    assert set(drawn) == set(ROOMS)
    for room, floors in drawn.items():
        names = [name for floor in floors for name in floor]
        assert len(names) == len(set(names)), f"{room}: a name is drawn twice"
        assert set(names) == content(room), room


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_down_the_drawn_floors(room: str) -> None:
    floors = drawing()[room]
    height = {name: -number for number, floor in enumerate(floors) for name in floor}
    upwards = set()
    for path in sorted((ROOT / room).rglob("*.py")):
        if path.name.endswith("_pb2.py") or path == ROOT / room / "__init__.py":
            continue
        here = box(room, ".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in imports(path):
            there = box(room, module)
            if here and there in height and there != here and height[there] >= height[here]:
                upwards.add(f"{path.relative_to(ROOT)} imports {module}")
    assert upwards == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_a_page_exists(page: Path) -> None:
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)(?::? [\w ]+)?`", page.read_text())
    product = {name for name in named if name.split("/")[0] in {*ROOMS, "tests", "packaging"}}
    missing = {name for name in product if not (ROOT / name).exists()}
    assert missing == set()
