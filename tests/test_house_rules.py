"""The house rules; each test names the places which break a rule."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from proto.release import RELEASE
from tests import options_page

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("plugin", "actors", "containerd", "workers", "proto")
MAY_IMPORT = {
    "plugin": {"plugin", "actors", "proto"},
    "actors": {"actors", "containerd", "workers", "proto"},
    "containerd": {"containerd", "proto"},
    "workers": {"workers", "proto"},
    "proto": {"proto"},
}
# Each of these packages has a single home among the modules.
ONE_HOME = {
    "subprocess": {"actors/processes/child_process.py"},
    "psutil": {"actors/provision/netns.py"},
    "pyroute2": {"plugin/host/network/netns_program.py"},
    "sdnotify": {"plugin/host/run/systemd.py", "workers/launch/systemd.py"},
}
SPEAKS_PROTOBUF = {
    "containerd/api/",
    "containerd/pull/calls.py",
    "containerd/pull/content_store.py",
    "containerd/pull/unpack.py",
    "containerd/pull/pull.py",
    "plugin/",
}
MAX_LINES = 400
MAX_FILES = 16
"""Modules in one folder, `__init__.py` aside."""
NUMBERED = {"tests/acceptance"}
"""Folders without a limit: the numbers of the tests are the numbers of the jobs in `example/`."""


@cache
def sources() -> dict[str, ast.Module]:
    """Returns every product module, parsed, by path."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if not path.name.endswith("_pb2.py"):
                found[str(path.relative_to(ROOT))] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Yields the full names of a module's imports, also in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_layers_import_only_what_stands_below_them() -> None:
    broken = [
        f"{path} imports {name}"
        for path, tree in sources().items()
        for name in imports(tree)
        if name.split(".")[0] in ROOMS and name.split(".")[0] not in MAY_IMPORT[path.split("/")[0]]
    ]
    assert broken == []


def test_each_outside_thing_has_one_home() -> None:
    broken = [
        f"{path} imports {name}, whose home is {sorted(ONE_HOME[name.split('.')[0]])}"
        for path, tree in sources().items()
        for name in imports(tree)
        if name.split(".")[0] in ONE_HOME and path not in ONE_HOME[name.split(".")[0]]
    ]
    assert broken == []


def attributes(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted names of a module, such as os.environ."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def test_the_environment_is_read_in_one_place() -> None:
    users = {path for path, tree in sources().items() if "os.environ" in attributes(tree)}
    # The second module sets a variable for a moment: the sdnotify package reads the environment.
    assert users == {"plugin/environment.py", "workers/launch/systemd.py"}


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Yields each name that a module uses or imports, also behind a dot."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name


def test_grpc_errors_are_known_in_one_place_for_each_peer() -> None:
    errors = {"RpcError", "AioRpcError"}
    users = {path for path, tree in sources().items() if errors & set(identifiers(tree))}
    assert users == {"containerd/api/errors.py", "plugin/host/agent/plugin_calls.py"}


def test_protobuf_stays_in_the_modules_that_speak_it() -> None:
    users = {
        path
        for path, tree in sources().items()
        if any("_pb2" in name for name in imports(tree)) and not path.startswith("proto/")
    }
    strangers = {p for p in users if not any(p.startswith(home) for home in SPEAKS_PROTOBUF)}
    assert strangers == set()


def protobuf_names(tree: ast.Module) -> set[str]:
    """Returns the names that a module gives to protobuf's modules and types."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if "_pb2" in f"{node.module}.{alias.name}" or str(node.module).startswith("google.")
    }


def test_no_dataclass_holds_a_protobuf_message() -> None:
    broken = [
        f"{path}:{field.lineno}: {ast.unparse(field)}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        for field in node.body
        if isinstance(field, ast.AnnAssign)
        and protobuf_names(tree)
        & {part.id for part in ast.walk(field.annotation) if isinstance(part, ast.Name)}
    ]
    assert broken == []


def test_nothing_recurses_into_a_tree_that_others_make() -> None:
    """Forbids recursion: a task, an image or another user chooses the depth.

    `tree_removal.py` removes trees.
    """
    recursive = {"shutil.rmtree", "shutil.copytree", "os.walk", "os.fwalk"}
    broken = [path for path, tree in sources().items() if recursive & set(attributes(tree))]
    assert broken == []


def test_no_actor_is_looked_up_in_a_registry() -> None:
    assert [p for p, t in sources().items() if "pykka.ActorRegistry" in set(attributes(t))] == []


@pytest.mark.parametrize("tree", [*ROOMS, "tests"])
def test_no_file_outgrows_its_room(tree: str) -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / tree).rglob("*.py")
        if not path.name.endswith("_pb2.py")
        and (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert long == {}


def test_no_folder_holds_more_than_a_reader_can_survey() -> None:
    tests = (str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py"))
    folders = Counter(
        str(Path(path).parent) for path in (*sources(), *tests) if not path.endswith("__init__.py")
    )
    broad = {folder for folder, count in folders.items() if count > MAX_FILES}
    assert broad == NUMBERED


def test_every_folder_says_in_a_sentence_what_it_holds() -> None:
    folders = {str(Path(path).parent) for path in sources()}
    silent = [f for f in sorted(folders) if not ast.get_docstring(sources()[f"{f}/__init__.py"])]
    assert silent == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Counts imports for type checkers too: readers follow such a circle as well."""
    modules = {path.removesuffix(".py").replace("/", "."): path for path in sources()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set(imports(sources()[path]))
        graph[module] = {m for n in names for m in (n, n.rpartition(".")[0]) if m in modules}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"circle of imports: {' -> '.join(error.args[1])}")


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert [path for path in sources() if Path(path).name in drawers] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path, tree in sources().items() if not ast.get_docstring(tree)]
    assert silent == []


def test_the_release_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == RELEASE
    assert f"## {RELEASE}" in (ROOT / "CHANGES.md").read_text()


def test_tests_do_not_sleep_and_hope() -> None:
    allowed = {"tests/support/waiting.py"}
    sleepers = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if "time.sleep" in set(attributes(ast.parse(path.read_text())))
        and str(path.relative_to(ROOT)) not in allowed
    ]
    assert sleepers == []


def test_the_hook_of_conftest_runs_every_coroutine_of_a_test() -> None:
    # The test of a loop's end needs an ended loop.
    allowed = {"test_a_link_of_a_loop_that_ends_at_once_is_closed"}
    by_hand = [
        f"{path.relative_to(ROOT)}:{test.lineno} {test.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for test in ast.parse(path.read_text()).body
        if isinstance(test, ast.FunctionDef)
        and test.name.startswith("test_")
        and test.name not in allowed
        and any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(test))
        and {"asyncio.run", "stage.play"} & set(attributes(test))
    ]
    assert by_hand == []


def test_nothing_binary_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True
    ).stdout.split(b"\0")
    binaries = [
        name.decode()
        for name in listed
        if name and (path := ROOT / name.decode()).is_file() and b"\0" in path.read_bytes()
    ]
    assert binaries == []


def test_the_options_page_is_the_one_of_the_tables() -> None:
    assert options_page.PAGE.read_text() == options_page.page(), "run ./dev options"
