"""Jobs of every kind, from the config's bytes to the runtime's document: started, or refused.

No container is created: the tests cover all decisions of the driver itself about a job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.files.state_dir import pins_directory
from actors.images.messages import ImageReady
from actors.lifecycle import plan
from actors.model import confinement
from actors.model.nomad import DeviceConfig, MountConfig, Resources, TaskConfig
from actors.model.settings import DriverSettings
from actors.provision import host_resources
from containerd.image.config import ImageConfig
from containerd.security.policy import for_task
from containerd.spec.build import build_spec
from containerd.spec.users import Accounts, lookup
from plugin import options
from plugin.options.table import Option
from proto.errors import Code, DriverError
from tests.support.plugin.services import services

NASTY = (
    *(
        "",
        " ",
        "/",
        "//",
        "///x",
        ".",
        "..",
        "../..",
        "/..",
        "a\nb",
        "a\tb",
        "\x1b[0m",
        "☃",
        "\u202e",
    ),
    *(
        "-1",
        "0",
        "1",
        "65",
        "4294967295",
        "9" * 30,
        "9" * 5000,
        "1e9",
        "NaN",
        "٣",
        "0x10",
        "1:2",
        ":",
    ),
    *("/proc", "/proc/self/fd/8", "//proc//self", "/sys", "/dev", "/dev/null", "/dev/shm", "/etc"),
    *("/dev/null:/dev/x:rwm", "/dev/null:m", "/no/such", "/dev/../etc", "x" * 300, "x" * 5000),
    *(
        "local",
        "local/x",
        "local/../..",
        "secrets",
        "../alloc",
        "alloc/logs",
        "localX",
        "%s",
        "$(id)",
    ),
    *(
        "rbind",
        "ro",
        "rw",
        "rshared",
        "bind",
        "size=0",
        "size=1k",
        "lowerdir=/",
        "remount",
        "tmpfs",
    ),
    *("host", "runc", "/bin/sh", "all", "SYS_ADMIN", "CAP_SYS_ADMIN", "SIGKILL", "unlimited", "1M"),
    *("vendor.com/class=device", "a:1.2.3.4", "a:host-gateway", "net.ipv4.ip_forward", "nofile"),
    "\0",
    *("io.containerd.runc.v2", "never", "30s", "volume", "local/a:/b", "local/a:/b:ro,z", "64M"),
)
TEXT = st.sampled_from(NASTY) | st.text(max_size=12)
NUMBER = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.sampled_from([0, 1, 100, 1000, 0o7777])


def values(option: Option) -> st.SearchStrategy[Any]:
    """Draws a value for an option, mostly of the right type: later checks see such a value too."""
    if option.nested:
        block = st.fixed_dictionaries({}, optional={o.name: values(o) for o in option.nested})
        return st.lists(block, max_size=3) if option.repeated else block
    kinds: Mapping[str, st.SearchStrategy[Any]] = {
        "string": TEXT,
        "bool": st.booleans(),
        "number": NUMBER,
        "list(string)": st.lists(TEXT, max_size=4),
        "map(string)": st.lists(st.dictionaries(TEXT, TEXT, max_size=3), max_size=2),
        "any": st.lists(TEXT | st.dictionaries(TEXT, TEXT, max_size=3), max_size=3),
    }
    return kinds[option.hcl_type]


IMAGE = next(option for option in options.TASK_OPTIONS if option.name == "image")
OTHERS = [option for option in options.TASK_OPTIONS if option.name != "image"]
# At most two hostile options at a time: with more, the first refusal hides the rest.
CONFIGS = st.lists(st.sampled_from(OTHERS), max_size=2, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {"image": st.just("busybox") | TEXT, **{o.name: values(o) for o in chosen}}
    )
)
IMAGES = st.builds(
    ImageConfig,
    entrypoint=st.lists(TEXT, max_size=2).map(tuple),
    cmd=st.just(("/bin/true",)) | st.lists(TEXT, max_size=2).map(tuple),
    env=st.lists(TEXT, max_size=3).map(tuple),
    user=st.just("") | TEXT,
    working_dir=st.just("") | TEXT,
)
PASSWD = st.just("root:x:0:0::/root:\n") | st.lists(TEXT, max_size=9).map(":".join)


@pytest.fixture(scope="module")
def alloc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates an allocation with the directories of the task `web`."""
    base = tmp_path_factory.mktemp("allocs") / "a"
    for name in ("alloc/logs", "alloc/data", "web/local/x", "web/secrets"):
        (base / name).mkdir(parents=True)
    (base / "web/local/out").symlink_to("/etc")
    return base


def document(task: TaskConfig, config: Any, image: ImageConfig, accounts: Accounts) -> Any:
    """Returns the plan and the runtime's document for a job."""
    chosen = options.task_options(msgpack.packb(config))
    node = services(DriverSettings(cdi_spec_dirs=()))
    made = plan.make(node, task, chosen)
    for_task(confinement.request(node.settings, chosen))
    pins = pins_directory(Path("/run/x"), made.container_id)
    parts = host_resources.gather(
        node.settings,
        task,
        chosen,
        hostname=made.hostname,
        pins=pins,
        runtime=made.runtime,
    )
    user = lookup(task.user or image.user, accounts, chosen.group_add)
    ready = ImageReady(name="x", digest="sha256:0", chain_id="sha256:0", config=image)
    prepared = plan.Preparation(node=node, task=task, options=chosen, plan=made, parts=parts)
    inputs = plan.spec_inputs(prepared, ready, user)
    return made, build_spec(inputs)


def judge(task: TaskConfig, config: Any, image: ImageConfig, accounts: Accounts) -> None:
    refused: DriverError | None = None
    try:
        made, found = document(task, config, image, accounts)
    except DriverError as error:
        refused = error
    if refused is not None:
        assert refused.code is not Code.INTERNAL, refused
        assert len(str(refused)) < 5000
        return
    json.dumps(found)
    assert made.directory.parent == Path("/run/nomad-driver-containerd/tasks")
    assert not found["process"]["cwd"].startswith(("/proc", "/sys", "//"))
    assert found["linux"]["cgroupsPath"].count("/") == 2
    for mount in found["mounts"]:
        if mount["type"] not in {"proc", "sysfs", "cgroup", "mqueue", "devpts"}:
            assert mount["type"] in {"bind", "tmpfs"}, mount
            assert not mount["destination"].startswith(("/proc", "/sys"))
            assert ".." not in mount["destination"].split("/")


slow = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@slow
@given(config=CONFIGS)
def test_s15_any_config_is_started_or_refused(alloc: Path, config: Any) -> None:
    task = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir=str(alloc))
    judge(task, config, ImageConfig(cmd=("/bin/true",)), Accounts("", ""))


@slow
@given(image=IMAGES, passwd=PASSWD, group=PASSWD)
def test_s19_any_image_is_started_or_refused(
    alloc: Path, image: ImageConfig, passwd: str, group: str
) -> None:
    task = TaskConfig(id="a/web/1", name="web", alloc_id="a", alloc_dir=str(alloc))
    judge(task, {"image": "x"}, image, Accounts(passwd, group))


@slow
@given(
    texts=st.tuples(TEXT, TEXT, TEXT, TEXT),
    env=st.dictionaries(TEXT | st.sampled_from(["NOMAD_TASK_DIR", "NOMAD_ALLOC_DIR"]), TEXT),
    number=st.integers(-(2**63), 2**63 - 1),
)
def test_s25_any_task_of_nomad_is_started_or_refused(
    alloc: Path, texts: tuple[str, str, str, str], env: dict[str, str], number: int
) -> None:
    name, user, source, target = texts
    task = TaskConfig(
        id=f"a/{name}/1",
        name=name,
        alloc_id="a",
        alloc_dir=str(alloc),
        user=user,
        env=env,
        mounts=(MountConfig(task_path=target, host_path=source, readonly=False),),
        devices=(DeviceConfig(task_path=target, host_path=source, cgroup_permissions=target),)
        if number % 2
        else (),
        resources=Resources(
            cpu_shares=number, memory_mb=number, memory_limit_bytes=number, cpuset_cpus=target
        ),
    )
    judge(task, {"image": "x"}, ImageConfig(cmd=("/bin/true",)), Accounts("", ""))


@pytest.mark.parametrize(
    "name",
    [
        *("hooks", "annotation", "cdi_spec_dirs", "runtime_options", "rootfs"),
        *(
            "seccomp_profile_dir",
            "allow_runtimes",
            "allow_privileged",
            "cgroup_parent",
        ),
        *("containerd_namespace", "containerd_address", "state_dir", "registry_config_path"),
    ],
)
def test_s24_a_job_has_no_say_in_what_is_the_operators(name: str) -> None:
    for value in ("x", True, ["x"], [{"io.kubernetes.cri": "x"}]):
        with pytest.raises(DriverError, match=f"{name}: no such option"):
            options.task_options(msgpack.packb({"image": "x", name: value}))
