"""Events of a working puller."""

from __future__ import annotations

import time

import pytest

from containerd.image.manifests import Descriptor
from containerd.pull import reporter
from proto import frames

LAYER = Descriptor(media_type="", digest="sha256:x", size=100)


def events(capfdbinary: pytest.CaptureFixture[bytes]) -> list[frames.Frame]:
    """Returns the frames on stdout."""
    return list(frames.Decoder().feed(capfdbinary.readouterr().out))


def test_a_step_has_the_time_since_the_begin_of_the_pull(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([10.0, 10.25, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    report = reporter.Reporter()
    report.step("image chosen")
    report.step("layers unpacked")
    monkeypatch.undo()
    assert [(e["event"], e["step"], e["elapsed_ms"]) for e in events(capfdbinary)] == [
        ("step", "image chosen", 250),
        ("step", "layers unpacked", 2000),
    ]


def test_progress_has_bytes_layers_and_waits(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "_REPORT_S", 0.0)
    report = reporter.Reporter()
    report.expect((LAYER, LAYER))
    report.received(60)
    report.received(-10)
    report.unpacked()
    report.waiting("https://r/x for 4 s")
    last = events(capfdbinary)[-1]
    assert (last["phase"], last["done_bytes"], last["total_bytes"]) == ("unpacking", 50, 200)
    assert (last["layers_done"], last["layers_total"]) == (1, 2)
    assert last["waiting"] == "https://r/x for 4 s"
