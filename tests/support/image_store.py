"""The plugin's image side alone: real puller processes, a real containerd, no plugin process."""

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
from tests.support.containerd_daemon import ContainerdDaemon
from tests.support.services import services


class Images:
    """Asks for images as starts do. `events` are what the tasks would be told.

    Args:
        daemon: a real containerd.
        directory: where registry hosts files go, below hosts/, and tasks' directories.
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
        """Where `load` looks."""
        return self._directory / "t"

    def hosts_file(self, registry: str, text: str) -> Path:
        """Writes a registry's hosts.toml."""
        path = self._hosts / registry / "hosts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def get(self, image: str, **options: Any) -> ImageReady:
        """The image by the driver's and the task's options."""

        async def ensure(containerd: Containerd) -> ImageReady:
            store = ImageStore(containerd, self.settings, proxies=self._proxies)
            task = TaskConfig(id="a/t/1", name="t", alloc_id="a", alloc_dir=str(self._directory))
            chosen = TaskOptions(image=image, **options)
            request = image_plan.request(services(self.settings), task, chosen)
            return await store.ensure(request, self.events.append)

        return self._daemon.ask(ensure)

    def record(self, name: str) -> ImageRecord | None:
        """What containerd has by this name."""
        return self._daemon.ask(lambda containerd: containerd.images.get(name))
