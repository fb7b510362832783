"""Tests that no image, job mount or neighbour redirects a mount onto the container's own parts.

Each attack is tried for real, without allow_privileged; correct mounts next to an attack work.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.model.nomad import MountConfig
from proto.errors import DriverError
from tests.support.daemons import runtimes
from tests.support.daemons.containerd_daemon import ContainerdDaemon
from tests.support.needs import need_containerd, need_program
from tests.support.plugin.driver import Driver, Job, launched
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import until

pytestmark = pytest.mark.containerd

SCRIPT = "echo ran"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the directory in which containerd searches first for runtimes."""
    directory = tmp_path_factory.mktemp("runtimes")
    runtimes.wrap(directory)
    return directory


@pytest.fixture(scope="module")
def daemon(programs: Path) -> Iterator[ContainerdDaemon]:
    """Yields a containerd that finds the runtimes of the test."""
    need_containerd()
    with ContainerdDaemon(path=str(programs)) as running:
        yield running


@pytest.fixture
def strict(daemon: ContainerdDaemon, tmp_path: Path) -> Iterator[Driver]:
    """Yields a driver that runs no privileged task."""
    modes = {"pid": ["host"], "ipc": ["host"], "uts": ["host"]}
    made = Driver(daemon, tmp_path, {"allow_privileged": False, "allowed_modes": modes})
    try:
        yield made
        made.wait_clean()
    finally:
        made.close()


@pytest.fixture(params=["runc", "crun", "runsc"])
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    need_program(name)
    return name


@pytest.fixture(params=["runc", "crun"])
def visible(request: pytest.FixtureRequest) -> str:
    """Returns a runtime whose mounts the kernel lists."""
    name = str(request.param)
    need_program(name)
    return name


def image_with(registry: Registry, name: str, entries: dict[str, images.Entry]) -> str:
    built = images.build([images.busybox_layer(entries)])
    return images.push(registry.host, "walls", name, built)


def mount(target: str, source: str = "local", *options: str) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "options": ["rbind", *(options or ("rw",))],
    }


async def refusal(driver: Driver, job: Job, image: str, **options: Any) -> str:
    """Returns the reason why a task does not start, and checks that nothing of the task is left."""
    with pytest.raises(DriverError) as caught:
        await driver.start(job, image, SCRIPT, **options)
    assert "the containerd driver failed inside" not in str(caught.value)
    driver.wait_clean()
    return str(caught.value)


def volume(source: Path, target: str) -> MountConfig:
    return MountConfig(task_path=target, host_path=str(source), readonly=False)


def local_of(job: Job) -> Path:
    return Path(job.config.alloc_dir) / job.config.name / "local"


async def test_w1_an_images_link_makes_no_directory_of_the_task_its_dev(
    strict: Driver, registry: Registry, runtime: str
) -> None:
    targets = ("/dev", "dev", "/dev/shm/..", "/proc", "/sys", "/x")
    async with launched(strict):
        for place, (number, to) in itertools.product(
            ("local", "secrets", "alloc"), enumerate(targets)
        ):
            entries: dict[str, images.Entry] = {place: to, "x": "/dev"}
            image = image_with(registry, f"w1-{place}-{number}", entries)
            job = strict.task()
            said = await refusal(strict, job, image, runtime=runtime)
            assert f"the image's '/{place}' is a link to '{to}'" in said
            for directory in (job.alloc.path / "t/local", job.alloc.path / "t/secrets"):
                assert list(directory.iterdir()) == []


W2_LINKS: dict[str, images.Entry] = {
    "x": "/dev",
    "y": "/",
    "z": "x",
    "null": "/dev/null",
    "pts": "/dev/pts",
    "ptmx": "/dev/ptmx",
    "mqueue": "/dev/mqueue",
    "cgroup": "/sys/fs/cgroup",
    "kernel": "/sys/kernel",
}
# By image, by the task at an earlier start or an artifact, and by a sidecar.
W2_TARGETS = (
    *("/x", "/y/dev", "/z", "/local/x", "/local/y/dev", "/alloc/x", "/secrets/x", "/y"),
    *("/null", "/pts", "/ptmx", "/mqueue", "/cgroup", "/kernel", "/x/null", "/x/pts"),
)


def forms(target: str, source: str) -> Iterator[dict[str, Any]]:
    """Returns all forms in which a job can mount a source."""
    yield {"mounts": [mount(target, source)]}
    yield {"mount": [{"type": "bind", "source": source, "target": target}]}
    yield {"volumes": [f"{source}:{target}"]}
    yield {"mounts": [{"type": "tmpfs", "target": target, "options": ["size=64k"]}]}


async def test_w2_w3_no_link_leads_a_mount_of_the_job_onto_what_the_runtime_made(
    strict: Driver, registry: Registry, runtime: str
) -> None:
    image = image_with(registry, "w2", W2_LINKS)
    async with launched(strict):
        for form in (form for target in W2_TARGETS for form in forms(target, "local/dir")):
            job = strict.task()
            (local_of(job) / "dir").mkdir()
            base = Path(job.config.alloc_dir)
            for place in ("t/local", "t/secrets", "alloc"):
                (base / place / "x").symlink_to("/dev")
                (base / place / "y").symlink_to("/")
            said = await refusal(strict, job, image, runtime=runtime, **form)
            assert "is the container's own" in said, form
            assert " -> " in said, form


async def test_w3_a_name_file_of_the_image_that_is_a_link_into_dev_gets_no_output(
    strict: Driver, registry: Registry, runtime: str
) -> None:
    async with launched(strict):
        for name in ("hosts", "hostname", "resolv.conf"):
            image = image_with(registry, f"w3-{name}", {f"etc/{name}": "/dev/null"})
            said = await refusal(strict, strict.task(), image, runtime=runtime)
            assert f"target '/etc/{name}' leads to '/dev/null' by the link" in said


async def test_w14_a_dev_that_is_a_link_of_the_image_changes_no_directory_of_the_host(
    strict: Driver, registry: Registry, runtime: str, tmp_path: Path
) -> None:
    shared = tmp_path / "volume"
    (shared / "d").mkdir(parents=True)
    async with launched(strict):
        for to in ("/local/d", "/alloc/d", "/secrets/d", "/v/d", "/elsewhere"):
            entries: dict[str, images.Entry] = {"dev": to, "elsewhere": None}
            image = image_with(registry, f"w14-{to.replace('/', '-')[1:]}", entries)
            job = strict.task()
            base = Path(job.config.alloc_dir)
            own = (base / "t/local/d", base / "t/secrets/d", base / "alloc/d")
            for place in (*own, shared / "d"):
                place.mkdir(exist_ok=True)
                (place / "ptmx").write_text("mine")
            job.config = dataclasses.replace(job.config, mounts=(volume(shared, "/v"),))
            said = await refusal(strict, job, image, runtime=runtime)
            assert f"the image's '/dev' is a link to '{to}'" in said
            for place in (*own, shared / "d"):
                files = [(path.name, path.read_text()) for path in place.iterdir()]
                assert files == [("ptmx", "mine")], (to, place)


async def test_a_sidecar_that_swaps_a_directory_for_a_link_moves_no_mount(
    strict: Driver, busybox_image: str, visible: str
) -> None:
    """Swaps the directory between the check and the runtime's mount, sooner or later."""
    swap = (
        "cd /alloc; mkdir d; ln -s /dev e; echo ready;"
        "while :; do mv -T d f; mv -T e d; mv -T d e; mv -T f d; done"
    )
    async with launched(strict) as session:
        neighbour = strict.task("n")
        await strict.start(neighbour, busybox_image, swap)
        await until(lambda: b"ready" in neighbour.out, 10)
        for number in range(15):
            config = dataclasses.replace(
                neighbour.config,
                id=f"{neighbour.config.alloc_id}/v/{number:08x}",
                name="v",
                stdout_path="",
                stderr_path="",
            )
            for name in ("local", "secrets"):
                (neighbour.alloc.path / "v" / name).mkdir(parents=True, exist_ok=True)
            options = {"image": busybox_image, "command": "/bin/sleep", "args": ["600"]}
            wanted = {"mounts": [mount("/alloc/d/pts")], "runtime": visible}
            try:
                await session.start(config, {**options, **wanted})
            except DriverError:
                continue  # both ends are fine
            listed = await session.exec(config.id, ["/bin/cut", "-d ", "-f2", "/proc/mounts"])
            await session.destroy(config.id)
            places = listed.stdout.decode().split()
            assert (places.count("/dev"), places.count("/dev/pts")) == (1, 1)
            # The swap goes on, and takes the mount along.
            assert any(path.startswith("/alloc/") and path.endswith("/pts") for path in places)
        await session.destroy(neighbour.id)
        await neighbour.logs_end()


async def test_the_mounts_of_a_created_task_are_looked_at_too(
    strict: Driver, busybox_image: str, programs: Path
) -> None:
    """Uses a runtime that mounts at another place, like a link that came too late."""
    wrapper = programs / "runc"
    wrapper.write_text(
        "#!/bin/sh\n"
        'case "$*" in *" create "*) sed -i s:/mark:/dev/mark: config.json;; esac\n'
        f'exec {need_program("runc")} "$@"\n'
    )
    wrapper.chmod(0o755)
    try:
        async with launched(strict):
            said = await refusal(strict, strict.task(), busybox_image, mounts=[mount("/mark")])
            assert "'/mark': the mount went to another path" in said
    finally:
        wrapper.unlink()


async def test_w12_targets_in_a_directory_of_the_task_are_there_before_the_runtime_acts(
    strict: Driver, busybox_image: str, programs: Path, tmp_path: Path
) -> None:
    """Covers existing targets: the runtime makes none, so a later link cannot redirect it."""
    said = tmp_path / "said"
    wrapper = programs / "runc"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *" create "*) find {tmp_path}/allocs -printf "%y %P\\n" >> {said};; esac\n'
        f'exec {need_program("runc")} "$@"\n'
    )
    wrapper.chmod(0o755)
    try:
        async with launched(strict):
            job = strict.task()
            (local_of(job) / "file").write_text("content")
            wanted = [
                *(mount("/local/deep/er"), mount("/alloc/more/file", "local/file")),
                {"type": "tmpfs", "target": "/secrets/scratch", "options": ["size=64k"]},
                mount("/local/deep/er/still"),
            ]
            await strict.start(job, busybox_image, SCRIPT, mounts=wanted)
            await strict.session.wait(job.id)
            await strict.end(job)
            assert job.out == b"ran\n"
            made = set(said.read_text().splitlines())
            base = job.config.alloc_id
            for entry in (
                *(f"d {base}/t/local/deep/er", f"f {base}/alloc/more/file"),
                *(f"d {base}/t/secrets/scratch", f"d {base}/t/local/still"),
            ):
                assert entry in made
            # A link leads to the container's own path, and never to the host's.
            (job.alloc.path / "alloc/link").symlink_to(tmp_path)
            again = dataclasses.replace(
                job.config, id=f"{job.config.id[:-8]}ffffffff", stdout_path="", stderr_path=""
            )
            options = {"image": busybox_image, "command": "/bin/true"}
            wanted = [mount("/alloc/link/made")]
            await strict.session.start(again, {**options, "mounts": wanted})
            assert (await strict.session.wait(again.id)).exit_code == 0
            await strict.session.destroy(again.id)
            assert not (tmp_path / "made").exists()
    finally:
        wrapper.unlink()


PLAIN = "test -c /dev/null && test -c /dev/urandom && ls /dev/pts >/dev/null && echo ran"


def neighbours(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Returns correct mounts, which stand next to an attack."""
    return {
        "plain": {},
        "a mount at /dev/shm": {"mounts": [mount("/dev/shm")]},
        "a mount below /dev": {"mounts": [mount("/dev/more"), mount("/dev/shm/x")]},
        "a tmpfs": {"mounts": [{"type": "tmpfs", "target": "/dev/shm", "options": ["size=64k"]}]},
        "a link of the image": {"mounts": [mount("/var/run/app"), mount("/run/shm")]},
        "a chain of links": {"mounts": [mount("/chain/app")]},
        "nested": {"mounts": [mount("/local/a/b"), mount("/a"), mount("/a/b")]},
        "a blank": {"mounts": [mount("/with blank/and\\slash")]},
        "a tree": {"mounts": [mount("/host", "/", "ro")]},
        "a slave": {"mounts": [mount("/host", "/run", "ro", "rslave")]},
        "devices": {"devices": [{"host_path": "/dev/null", "container_path": "/dev/other"}]},
        "read-only root": {"readonly_rootfs": True},
        "init": {"init": True},
        "the host's namespaces": {"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host"},
        "the host's network": {"host_network": True},
        "seccomp": {"seccomp": True},
        "a size": {"shm_size": "1M"},
        "a user": {"user": "bob"},
        "cAdvisor": {
            "volumes": [
                *("/:/rootfs:ro", "/var/run:/var/run:ro", "/sys:/sys:ro"),
                *("/var/lib:/var/lib/docker:ro", "/dev/shm:/dev/disk:ro"),
            ]
        },
        "cgroups": {"volumes": ["/sys/fs/cgroup:/sys/fs/cgroup:ro"]},
        "sys by a link": {"mounts": [mount("/hostsys", "/sys", "ro")]},
    }


GVISOR_CANNOT = {"a slave", "the host's namespaces"}


async def test_what_stands_next_to_an_attack_runs(
    strict: Driver, registry: Registry, runtime: str, tmp_path: Path
) -> None:
    links: dict[str, images.Entry] = {
        "var": None,
        "run": None,
        "var/run": "/run",
        "run/shm": "/dev/shm",
        "chain": "link",
        "link": "var/run",
        "etc/mtab": "/proc/mounts",
    }
    image = image_with(registry, "right", links)
    async with launched(strict):
        for name, options in neighbours(tmp_path).items():
            if runtime == "runsc" and name in GVISOR_CANNOT:
                continue
            job = strict.task(user=options.pop("user", ""))
            await strict.start(job, image, PLAIN, runtime=runtime, **options)
            await strict.session.wait(job.id)
            await strict.end(job)
            assert (bytes(job.out), bytes(job.err)) == (b"ran\n", b""), name


async def test_a_privileged_task_and_one_with_cdi_hooks_run(
    daemon: ContainerdDaemon, registry: Registry, visible: str, tmp_path: Path
) -> None:
    edits = {
        "deviceNodes": [{"path": "/dev/acme0", "hostPath": "/dev/full"}],
        "hooks": [{"hookName": "createRuntime", "path": "/bin/true", "args": ["true"]}],
        "mounts": [{"hostPath": "/usr", "containerPath": "/acme", "options": ["ro"]}],
    }
    document = {
        "cdiVersion": "0.5.0",
        "kind": "acme.com/gpu",
        "devices": [{"name": "0", "containerEdits": edits}],
    }
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/acme.json").write_text(json.dumps(document))
    driver = Driver(
        daemon, tmp_path, {"allow_privileged": True, "cdi_spec_dirs": [str(tmp_path / "cdi")]}
    )
    image = image_with(registry, "right", {})
    wishes: list[dict[str, Any]] = [
        {"privileged": True},
        {"privileged": True, "readonly_rootfs": True, "mounts": [mount("/host", "/", "rslave")]},
        {"devices": ["acme.com/gpu=0"]},
    ]
    try:
        async with launched(driver):
            for options in wishes:
                job = driver.task()
                await driver.start(job, image, PLAIN, runtime=visible, **options)
                await driver.session.wait(job.id)
                await driver.end(job)
                assert (bytes(job.out), bytes(job.err)) == (b"ran\n", b""), options
        driver.wait_clean()
    finally:
        driver.close()
