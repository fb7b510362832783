"""Writes a task's network files and pins the sources of its mounts, for the length of a start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.blocking import file_servers
from actors.files import private_files
from actors.provision import lost_network, mount_sources

if TYPE_CHECKING:
    from actors.model.nomad import TaskConfig
    from actors.provision.host_resources import HostParts
    from actors.provision.shared_namespaces import SharedNamespaces
    from containerd.security.selinux import Contexts


class PinnedSources:
    """The network files and the pins of one start. Used on the event loop.

    Args:
        task: Nomad's description of the task.
        parts: the texts of the files, and the sources to pin.
        contexts: the task's SELinux contexts, for the sources to relabel.
        shared: the namespaces of other processes to pin.
    """

    def __init__(
        self,
        task: TaskConfig,
        parts: HostParts,
        contexts: Contexts,
        shared: SharedNamespaces | None = None,
    ) -> None:
        self._task = task
        self._parts = parts
        self._contexts = contexts
        self._shared = shared
        self._earlier_network = ""

    def begin(self) -> None:
        """Starts a thread that writes and pins; from now on `release` is needed."""
        self._pinning = asyncio.ensure_future(asyncio.to_thread(self._pin))

    async def finished(self) -> None:
        """Waits for the thread, and sets the SELinux contexts of the sources.

        Raises:
            DriverError: a file cannot be written, or a source cannot be pinned. Code UNAVAILABLE;
                the kernel gives no answer.
        """
        await file_servers.until(self._pinning, self._allocation)
        for wanted in self._parts.relabels:
            # A volume with many files takes minutes, so without a limit of time.
            await asyncio.to_thread(mount_sources.set_context, wanted, self._contexts)

    async def remove_files(self) -> None:
        """Removes the network files of a failed start.

        Keeps the files where an earlier start of the task had an address: the next start must know
        the address.
        """
        if not self._earlier_network:
            await file_servers.in_time(
                lambda: private_files.remove(self._task.alloc_dir, self._task.name),
                self._allocation,
            )

    async def release(self) -> None:
        """Releases the pins."""
        # A cancelled start does not stop the thread that pins.
        await asyncio.wait([self._pinning], timeout=file_servers.LATE_S)
        pins, loop = self._parts.pins, asyncio.get_running_loop()
        if self._pinning.done():
            await asyncio.to_thread(mount_sources.release, pins)
        else:  # the thread waits for a file server, and pins when the server answers
            self._pinning.add_done_callback(
                lambda _: loop.run_in_executor(None, mount_sources.release, pins)
            )

    def _pin(self) -> None:
        task, parts = self._task, self._parts
        self._earlier_network = private_files.read(task.alloc_dir, task.name, lost_network.FILE)
        private_files.write(task.alloc_dir, task.name, parts.files)
        mount_sources.pin(parts.pins, parts.pinned, self._shared)

    def _allocation(self) -> str:
        return f"the allocation {self._task.alloc_dir}"
