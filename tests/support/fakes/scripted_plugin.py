"""A plugin whose tasks follow a script, for tests of the dev host's reactions.

The `args` of a task are the script, one step each: `out TEXT`, `err TEXT`, `exit N`, `signal N`,
`lost`, `die` (the plugin, once), `wait`. The image decides about start and stop: `late` starts
only after a stop, `die-in-start` kills the plugin in the first start, `refused` does not start,
`stubborn` follows SIGKILL alone, `sticky` cannot be destroyed. All calls go to `journal` in the
state directory, which outlives the plugin.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

from actors.model.nomad import ExitResult, Fingerprint, Health, StartedTask, TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from proto.errors import Code, DriverError
from tests.support.fakes.gateway import HANDLE_VERSION, FakeGateway, FakeTask
from tests.support.plugin.plugin_dir import ROOT

_UNHEALTHY = {
    "/none": "containerd does not answer at /none"
    " (start containerd (systemctl start containerd), or set containerd_address)",
    "/no-launcher": "cannot reach the worker launcher: no socket after 60 s"
    " (see /run/nomad-driver-containerd/launcher.log)",
}
_SCRIPT = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from plugin import json_logging, serve
json_logging.install()
from tests.support.fakes.scripted_plugin import ScriptedGateway
serve.run(ScriptedGateway)
"""


def make_scripted_plugin(directory: Path) -> Path:
    """Writes an executable that serves a `ScriptedGateway`."""
    program = directory / "containerd-driver"
    program.write_text(_SCRIPT.format(python=sys.executable, root=str(ROOT)))
    program.chmod(0o755)
    return program


class ScriptedGateway(FakeGateway):
    """The gateway of the scripted plugin."""

    def __init__(self) -> None:
        super().__init__()
        self._journal = Path(os.devnull)
        self._unhealthy = ""
        self._images: dict[str, str] = {}
        self._runs: set[asyncio.Task[None]] = set()

    async def configure(self, settings: DriverSettings) -> None:
        """See `Gateway`."""
        await super().configure(settings)
        self._journal = Path(settings.state_dir) / "journal"
        self._waits: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._unhealthy = _UNHEALTHY.get(settings.containerd_address, "")

    def _note(self, *words: object) -> None:
        with self._journal.open("a") as journal:
            journal.write(" ".join(map(str, words)) + "\n")

    def _once(self, word: str) -> bool:
        """Returns True in the first call, also over deaths of the plugin."""
        if self._journal.exists() and word in self._journal.read_text().splitlines():
            return False
        self._note(word)
        return True

    async def fingerprints(self):  # type: ignore[no-untyped-def] # noqa: ANN201
        """See `Gateway`."""
        health = Health.UNHEALTHY if self._unhealthy else Health.HEALTHY
        description = self._unhealthy or "Healthy"
        yield Fingerprint(health=health, description=description, attributes={})
        await asyncio.Event().wait()

    async def start_task(self, task: TaskConfig, options: TaskOptions) -> StartedTask:
        """See `Gateway`."""
        self._note("start", task.name)
        held = FakeTask(task)
        self.tasks[task.id] = held
        self._images[task.id] = options.image
        match options.image:
            case "refused":
                del self.tasks[task.id]
                raise DriverError("no such image", resolution="push it")
            case "late":
                await held.ended.wait()
                raise DriverError("the start was cancelled", code=Code.CANCELLED)
            case "die-in-start" if self._once("died"):
                os._exit(9)
        self._follow(held, list(options.args))
        state = json.dumps([options.image, options.args])
        return StartedTask(handle_version=HANDLE_VERSION, driver_state=state.encode())

    async def recover_task(self, task: TaskConfig, version: int, driver_state: bytes) -> None:
        """See `Gateway`. Continues after the step in which the plugin died."""
        assert version == HANDLE_VERSION
        self._note("recover", task.name)
        held = self.tasks.setdefault(task.id, FakeTask(task))
        self._images[task.id], steps = json.loads(driver_state)
        self._follow(held, steps[steps.index("die") + 1 :] if "die" in steps else ["wait"])

    def _follow(self, held: FakeTask, steps: list[str]) -> None:
        run = asyncio.create_task(self._run(held, steps))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)

    async def _run(self, held: FakeTask, steps: list[str]) -> None:
        files = {
            "out": os.open(held.config.stdout_path, os.O_WRONLY),
            "err": os.open(held.config.stderr_path, os.O_WRONLY),
        }
        for step in steps:
            verb, _, rest = step.partition(" ")
            match verb:
                case "out" | "err":
                    os.write(files[verb], rest.encode().decode("unicode_escape").encode("latin-1"))
                case "exit":
                    held.result = ExitResult(exit_code=int(rest))
                case "signal":
                    held.result = ExitResult(exit_code=128 + int(rest), signal=int(rest))
                case "lost":
                    held.result = ExitResult(exit_code=137, error="the shim vanished")
                case "die":
                    # Not before the answer of its start has reached the host.
                    await self._waits[held.config.id].wait()
                    if self._once("died"):
                        os._exit(9)
                case "wait":
                    await held.ended.wait()
        for file in files.values():
            os.close(file)
        held.ended.set()

    async def wait_task(self, task_id: str) -> ExitResult:
        """See `Gateway`."""
        held = self._task(task_id)
        self._waits[task_id].set()
        await held.ended.wait()
        assert held.result is not None
        return held.result

    async def stop_task(self, task_id: str, timeout_s: float, signal: str) -> None:
        """See `Gateway`."""
        held = self.tasks.get(task_id)
        self._note("stop", held.config.name if held else "unknown", signal or "-", timeout_s)
        if held is None:
            return
        if self._images[task_id] == "die-in-stop":
            # Not before the answer of its start has reached the host.
            await self._waits[task_id].wait()
            if self._once("died"):
                os._exit(9)
        if self._images[task_id] == "stubborn":
            await held.ended.wait()
        held.result = held.result or ExitResult(exit_code=143, signal=15)
        held.ended.set()

    async def signal_task(self, task_id: str, signal: str) -> None:
        """See `Gateway`."""
        held = self._task(task_id)
        self._note("signal", held.config.name, signal)
        held.result = ExitResult(exit_code=137, signal=9)
        held.ended.set()

    async def destroy_task(self, task_id: str, *, force: bool) -> None:
        """See `Gateway`."""
        held = self.tasks.get(task_id)
        assert force
        self._note("destroy", held.config.name if held else "unknown")
        if self._images.get(task_id) == "sticky":
            raise DriverError("device or resource busy")
        if self._images.get(task_id) == "hangs":
            await asyncio.Event().wait()
        if held is not None:
            held.ended.set()
            del self.tasks[task_id]
