"""The log of a soak's task, and the check that each line arrives once and in order.

A line is `RUN NUMBER WORD`. The container draws RUN at its start, so the log shows a second copy of
a task, and a copy that replaced the first.
"""

from __future__ import annotations

import shlex

PULSE = "-"
SIGNAL = "signal"
END = "end"
BURST = 5
"""Lines of a task in each second."""

# A trap may run between any two commands, so a trap only sets a variable.
_SCRIPT = """\
read run < /proc/sys/kernel/random/uuid; i=0 signalled= told=
say() { i=$((i+1)); echo "$run $i $1"; }
trap signalled=yes USR1
trap told=yes TERM
while :; do
  for n in LINES; do say -; done
  test $signalled && signalled= && say signal
  test -e /local/stop && told=yes
  test $told && say end && exit CODE
  sleep 1 & wait
done
"""


def script(code: int) -> str:
    """Returns a shell script that logs until SIGTERM or /local/stop, then exits with `code`."""
    numbers = shlex.join(str(number) for number in range(BURST))
    return _SCRIPT.replace("CODE", str(code)).replace("LINES", numbers)


class LogCheck:
    """A checker of a task's output; `faults` has the errors.

    The agent repeats a start whose answer was lost, and the driver removes the task of the first
    start: the log then goes on with a new run, and the end of the run before may be absent.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.signals = 0
        self.runs: list[str] = []
        self.ended = False
        self.faults: list[str] = []
        self._number = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Checks the next bytes of the FIFO."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))

    def finish(self, *, starts: int) -> None:
        """Checks the whole log at its end.

        Args:
            starts: the number of requested starts of the task.
        """
        if self._rest:
            self.faults.append(f"half a line: {self._rest[:80]!r}")
        if not self.ended:
            self.faults.append(f"no last line: the log ends with {self._number}")
        if len(self.runs) > starts:
            self.faults.append(f"{len(self.runs)} copies of {starts} starts")

    def _take(self, line: str) -> None:
        self.lines += 1
        words = line.split(" ")
        if len(words) != len(("run", "number", "word")) or not words[1].isdecimal():
            self.faults.append(f"no line of the task's: {line[:80]!r}")
            return
        run, number, word = words[0], int(words[1]), words[2]
        if not self.runs or run != self.runs[-1]:
            if run in self.runs:
                self.faults.append(f"two copies write by turns: {line[:80]!r}")
            self.runs.append(run)
            self._number = 0
            self.ended = False
        if number != self._number + 1:
            self.faults.append(f"line {number} comes after {self._number}")
        if self.ended:
            self.faults.append(f"line {number} comes after the end")
        self._number = number
        self.signals += word == SIGNAL
        self.ended = self.ended or word == END
