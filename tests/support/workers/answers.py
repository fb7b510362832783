"""Errors in a worker's answers, and the end of a worker."""

from __future__ import annotations

from tests.support.workers.peers import Peer


def finish(worker: Peer) -> None:
    """Ends a worker and closes the connection."""
    assert worker.ask("end")["ok"] is True
    assert worker.receive() is None
    worker.socket.close()


def error_of(answer: dict[str, object]) -> tuple[str, str]:
    """Returns the code and the text of a refusal."""
    error = answer["error"]
    assert isinstance(error, dict)
    return str(error["code"]), f"{error['brief']}: {error['details']}"
