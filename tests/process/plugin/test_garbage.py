"""Processes of the driver collect garbage again after the load of their modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.plugin.plugin_dir import ROOT

_SAY = "print(gc.isenabled(), gc.get_freeze_count() > 1000)"
_BEGIN = f"import gc, sys; sys.path.insert(0, {str(ROOT)!r}); from plugin import garbage;"
_PLUGIN = f"""
from unittest.mock import Mock
from plugin import serve
garbage.pause()
serve.LazyServices(Mock(), Mock()).load()
{_SAY}
"""
_DEV_HOST = f"""
from plugin.cli import arguments, dev_host
dev_host._run = lambda *_: {_SAY} or 0
garbage.pause()
dev_host.run(arguments.parse("run", [sys.argv[1]]), None)
"""
_COMMAND = f"""
from plugin import main
main._loaded = lambda _: lambda _: {_SAY} or 0
sys.argv[1:] = ["spec", sys.argv[1]]
main.main()
"""


@pytest.mark.parametrize("script", [_PLUGIN, _DEV_HOST, _COMMAND], ids=["plugin", "run", "spec"])
def test_garbage_is_collected_after_the_load_without_the_loaded_objects(script: str) -> None:
    job = str(ROOT / "example" / "hello.nomad")
    words = [sys.executable, "-c", f"{_BEGIN}\n{script}", job]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "True True", done.stderr
