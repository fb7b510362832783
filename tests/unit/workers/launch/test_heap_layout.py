"""The layout of the launcher's memory: functions work as before, and gaps are filled."""

from __future__ import annotations

import subprocess
import sys

from tests.support.plugin.plugin_dir import ROOT

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from proto import frames
from workers import control, protocol
from workers.launch import heap_layout
from workers.shim import ttrpc

def functions():
    return [control.listen, protocol.Record.from_wire.__func__, control.exit_event,
            control.Connection.closed.fget, ttrpc.Decoder.feed]

def work(stop):
    frames.encode({{}})
    stop()
    frames.socket_path(0, "")

before = functions()
codes = [function.__code__ for function in before]
used = heap_layout.calls_of(work)
assert frames.encode.__code__ in used
assert frames.socket_path.__code__ not in used and control.listen.__code__ not in used
kept = heap_layout.gather(used)
for new, old, code in zip(functions(), before, codes):
    assert new is not old and new.__code__ is not code
    assert new.__code__.co_code.startswith(code.co_code)
    assert new.__code__.replace(co_code=code.co_code) == code
    assert code.__sizeof__() > 512 or 512 >= new.__code__.__sizeof__() > 496
    for name in ("name", "qualname", "module", "doc", "defaults", "kwdefaults", "annotations"):
        assert getattr(new, f"__{{name}}__") == getattr(old, f"__{{name}}__")
assert min(code.__sizeof__() for code in codes) < 400 and max(map(sys.getsizeof, codes)) > 512
kept_codes = [code for _, code in kept[0]]
assert set(map(id, codes)) <= set(map(id, kept_codes))
called = [frames.encode, frames.pack]
assert abs(id(called[0]) - id(called[1])) < 1024
record = protocol.ExitRecord(code=3, at_ns=4)
body = frames.encode(record.to_wire())
assert protocol.ExitRecord.from_wire(next(frames.Decoder().feed(body))) == record
print(len(kept_codes))
"""


def test_functions_run_copies_of_their_code_that_do_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) > 50


GAPS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from workers.launch import heap_layout
kept = heap_layout.fill_gaps()
made = [bytes(64 - 33) for _ in range(40)]
steps = [id(b) - id(a) for a, b in zip(made, made[1:])]
print(sum(step == 64 for step in steps))
"""


LARGE_GAPS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from workers.launch import heap_layout
apart = []
for size in (600, 667, 800, 2000):
    created = [b"x" * size for _ in range(40)]
    apart += created[1::2]
    del created
kept = heap_layout.fill_large_gaps()
size = 700 - 33
made = [b"x" * size for _ in range(40)]
steps = [id(b) - id(a) for a, b in zip(made, made[1:])]
print(sum(700 <= step < 730 for step in steps))
"""


def test_large_objects_created_after_the_gaps_are_filled_lie_side_by_side() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LARGE_GAPS], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) >= 35


def test_objects_created_after_the_gaps_are_filled_lie_side_by_side() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", GAPS], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) >= 35
