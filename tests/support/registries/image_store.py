"""The plugin's image store alone: real puller processes, a real containerd, no plugin process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.images import request as image_plan
from actors.images.messages import ImageReady
from actors.images.store import ImageStore
from actors.model.nomad import TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from containerd.api.client import Containerd
from containerd.api.records import ImageRecord
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.services import services


class Images:
    """A store that serves images as to a start. `events` has the tasks' events.

    Args:
        daemon: a real containerd.
        directory: the parent of hosts/ (registries' hosts files) and of the tasks' directories.
        proxies: variables of the environment.
        settings: options of the driver.
    """

    def __init__(
        self,
        daemon: ContainerdDaemon,
        directory: Path,
        proxies: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._proxies = proxies
        self._daemon = daemon
        self._hosts = directory / "hosts"
        self._directory = directory
        self.settings = DriverSettings(registry_config_path=str(self._hosts), **settings)
        self.events: list[str] = []

    @property
    def task_directory(self) -> Path:
        """The task directory that `load` reads from."""
        return self._directory / "t"

    def hosts_file(self, registry: str, text: str) -> Path:
        """Writes a registry's hosts.toml."""
        path = self._hosts / registry / "hosts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def get(self, image: str, **options: Any) -> ImageReady:
        """Returns the image for the options of driver and task."""

        async def ensure(containerd: Containerd) -> ImageReady:
            store = ImageStore(containerd, self.settings, proxies=self._proxies)
            task = TaskConfig(id="a/t/1", name="t", alloc_id="a", alloc_dir=str(self._directory))
            chosen = TaskOptions(image=image, **options)
            request = image_plan.request(services(self.settings), task, chosen)
            try:
                return await store.ensure(request, self.events.append)
            finally:
                await store.close()

        return self._daemon.ask(ensure)

    def record(self, name: str) -> ImageRecord | None:
        """Returns containerd's record of an image."""
        return self._daemon.ask(lambda containerd: containerd.images.get(name))
