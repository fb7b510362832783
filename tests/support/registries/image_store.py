"""The plugin's image store alone: real puller processes, a real containerd, no plugin process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actors.images import request as image_plan
from actors.images.messages import ImageReady
from actors.images.pullers import Pullers
from actors.images.store import ImageStore
from actors.model.nomad import TaskConfig
from actors.model.settings import DriverSettings, TaskOptions
from containerd.api.client import Containerd
from containerd.api.records import ImageRecord
from proto.errors import DriverError
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.plugin.services import services
from tests.support.registries.archives import (
    File,
    tar_of,
)
from tests.support.registries.recording_server import RecordingServer


class KeptServer:
    """A pull server in an event loop that stays: the start of a server takes 0.3 s of CPU."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.pullers = Pullers()

    def close(self) -> None:
        """Ends the server and the loop."""
        self.runner.run(self.pullers.close())
        self.runner.close()


class Images:
    """A store that serves images as to a start. `events` has the tasks' events.

    Args:
        daemon: a real containerd.
        directory: the parent of hosts/ (registries' hosts files) and of the tasks' directories.
        proxies: variables of the environment.
        settings: options of the driver.
    """

    kept: ClassVar[KeptServer] = KeptServer()
    """The pull server of all stores, see `own_server`."""

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
            store = ImageStore(containerd, self.settings, self.kept.pullers, proxies=self._proxies)
            task = TaskConfig(id="a/t/1", name="t", alloc_id="a", alloc_dir=str(self._directory))
            chosen = TaskOptions(image=image, **options)
            request = image_plan.request(services(self.settings), task, chosen)
            return await store.ensure(request, self.events.append)

        return self._daemon.ask(ensure, self.kept.runner)

    def record(self, name: str) -> ImageRecord | None:
        """Returns containerd's record of an image."""
        return self._daemon.ask(lambda containerd: containerd.images.get(name))


@contextlib.contextmanager
def own_server() -> Iterator[None]:
    """Gives all stores another pull server for a `with` block."""
    before, Images.kept = Images.kept, KeptServer()
    try:
        yield
    finally:
        Images.kept.close()
        Images.kept = before


@pytest.fixture(scope="module", autouse=True)
def server_of_a_file() -> Iterator[None]:
    """Gives the stores of a test file one pull server. A conftest.py imports the fixture."""
    with own_server():
        yield


def collected(containerd: ContainerdDaemon) -> None:
    """Makes containerd collect unreferenced objects."""

    async def collect(client: Containerd) -> None:
        await client.leases.create("collects", expire_s=60, labels={})
        await client.leases.delete("collects", collect=True)

    containerd.ask(collect)


def got(store: Images, containerd: ContainerdDaemon, image: str) -> ImageReady:
    """Pulls the image, and checks that containerd's stored objects lead to the same image."""
    ready = store.get(image)
    collected(containerd)
    again = Images(containerd, store.task_directory.parent)
    assert again.get(image, image_pull_policy="never") == ready
    return ready


def refusal(store: Images, server: RecordingServer, tag: str = "1") -> DriverError:
    """Returns the permanent error of a pull that fails before a request for a layer."""
    with pytest.raises(DriverError) as caught:
        store.get(f"{server.host}/x:{tag}")
    assert not caught.value.recoverable
    assert "internal error of the puller" not in str(caught.value)
    assert store.record(f"{server.host}/x:{tag}") is None
    return caught.value


def loaded(store: Images, files: list[File], name: str = "mine:1") -> ImageReady:
    """Loads an archive's image with the name, or the only image."""
    local = store.task_directory / "local"
    local.mkdir(parents=True, exist_ok=True)
    (local / "img.tar").write_bytes(tar_of(files))
    return store.get(name, load="img.tar")
