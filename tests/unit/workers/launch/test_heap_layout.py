"""The layout of the launcher's memory: functions work as before, and gaps are filled."""

from __future__ import annotations

import subprocess
import sys

from tests.support.plugin_dir import ROOT

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from proto import frames
from workers import control, protocol
from workers.launch import heap_layout
from workers.shim import ttrpc

def codes():
    return [control.listen.__code__, protocol.Record.from_wire.__func__.__code__,
            control.Connection.closed.fget.__code__, ttrpc.Decoder.feed.__code__]

before = codes()
used = heap_layout.calls_of(lambda: frames.encode({{}}))
assert frames.encode.__code__ in used
assert control.listen.__code__ not in used
kept = heap_layout.gather_code(used)
after = codes()
for new, old in zip(after, before):
    assert new is not old and new.co_code.startswith(old.co_code)
    assert new.replace(co_code=old.co_code) == old
    assert old.__sizeof__() > 512 or 512 >= new.__sizeof__() > 496
assert min(code.__sizeof__() for code in before) < 400 and max(map(sys.getsizeof, before)) > 512
assert set(map(id, before)) <= set(map(id, kept))
record = protocol.ExitRecord(code=3, at_ns=4)
body = frames.encode(record.to_wire())
assert protocol.ExitRecord.from_wire(next(frames.Decoder().feed(body))) == record
print(len(kept))
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


def test_objects_created_after_the_gaps_are_filled_lie_side_by_side() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", GAPS], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) >= 35
