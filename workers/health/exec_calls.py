"""Calls to the shim for the exec of a health check, by the Task service of containerd's shims.

The exec has a fixed name. So a shim never has two execs of checks for a task, and a worker finds
the exec of a killed worker.
"""

from __future__ import annotations

from workers import c_modules
from workers.shim import ttrpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workers.shim.client import Answer, Shim

EXEC_ID = "nomad-health-check"
_PROCESS_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_TIMEOUT_NS = 10_000_000_000
_NO_LIMIT = 0


class ExecCalls:
    """The calls for one container.

    Args:
        shim: the connection.
        container_id: the container.
    """

    def __init__(self, shim: Shim, container_id: str) -> None:
        self._shim = shim
        self._id = container_id

    @property
    def connected(self) -> bool:
        """True while the connection is open."""
        return self._shim.connected

    def create(self, output: str, process: bytes, answer: Answer) -> None:
        """Creates the exec, without a start.

        Args:
            output: path of the FIFO for stdout and stderr.
            process: JSON of the OCI process.
            answer: called with the answer.
        """
        spec = ttrpc.message({1: _PROCESS_URL, 2: process})
        fields: dict[int, int | str | bytes] = {1: self._id, 2: EXEC_ID, 5: output, 6: output}
        fields[7] = spec
        self._shim.call("Exec", ttrpc.message(fields), _TIMEOUT_NS, answer)

    def start(self, answer: Answer) -> None:
        """Starts the exec; `started_pid` reads the answer. The caller limits the time."""
        self._shim.call("Start", self._name(), _NO_LIMIT, answer)

    def wait(self, answer: Answer) -> None:
        """Asks for the exit, see `ttrpc.wait_answer`. The answer comes at the end of the exec."""
        self._shim.call("Wait", self._name(), _NO_LIMIT, answer)

    def state(self, answer: Answer) -> None:
        """Asks for pid and status, see `ttrpc.state_answer`."""
        self._shim.call("State", self._name(), _TIMEOUT_NS, answer)

    def task_state(self, answer: Answer) -> None:
        """Asks for pid and status of the task itself."""
        self._shim.state(answer)

    def kill(self, answer: Answer) -> None:
        """Sends SIGKILL to the first process of the exec."""
        payload = ttrpc.message({1: self._id, 2: EXEC_ID, 3: c_modules.SIGKILL})
        self._shim.call("Kill", payload, _TIMEOUT_NS, answer)

    def delete(self, answer: Answer) -> None:
        """Deletes the ended exec, after its output is in the FIFO."""
        self._shim.call("Delete", self._name(), _NO_LIMIT, answer)

    def _name(self) -> bytes:
        return ttrpc.message({1: self._id, 2: EXEC_ID})


def started_pid(payload: bytes) -> int:
    """Reads the answer to `ExecCalls.start`: the pid on the host."""
    return ttrpc.number(ttrpc.parse(payload), 1)
