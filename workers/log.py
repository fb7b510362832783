"""Log of the launcher and its workers: lines on standard error, which is the file launcher.log."""

from __future__ import annotations

import os
import sys
import time

from proto.errors import cut

_LINE, _REASON = 2000, 500


def log(line: str) -> None:
    """Writes a line with the time and the pid. On a full disk the line is lost."""
    line = cut(line, _LINE)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    try:
        sys.stderr.write(f"{moment} [{os.getpid()}] {line}\n")
        sys.stderr.flush()
    except OSError:
        return


def log_crash(error: BaseException) -> None:
    """Logs the defect that ends the process. The text is cut: a peer may have sent a part."""
    places = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{step.tb_lineno}")
        step = step.tb_next
    reason = cut(str(error), _REASON)
    log(f"unexpected failure: {type(error).__name__}: {reason} (at {', '.join(places)})")
