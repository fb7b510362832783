"""Readers of values with a form of their own: sizes, ulimits, sysctls, labels, devices, signals."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from actors.model.settings import DeviceOption
from actors.provision.etc_files import HOST_GATEWAY
from actors.task import signal_names
from plugin.options import readers as types
from proto.errors import DriverError

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SMALLEST_SIZE, _LARGEST_SIZE = 1024, 1 << 50
_SMALLEST_PIPE, _LARGEST_PIPE = 64 << 10, 1 << 30
# The kernel's names of resource limits, as runc takes them behind RLIMIT_.
_ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
    *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)
_UNLIMITED = (1 << 64) - 1
_LIMIT = re.compile(r"unlimited|-1|[0-9]{1,19}")
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_*:@-]+)+")
# What runc lets a container set, because the kernel keeps it per namespace.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        *("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni"),
        "shm_rmid_forced",
    )
)
_OWN_LABELS = ("nomad-driver-containerd.io/", "com.hashicorp.nomad.", "containerd.io/")
_MAX_LABEL_BYTES = 4096  # containerd: key and value together
_CDI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9_.:-]+")
_PERMISSIONS = re.compile(r"r?w?m?")
_DEVICE_KEYS = ("host_path", "container_path", "cgroup_permissions")
_SHORT_DEVICE_PARTS = 3
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


def size_bytes(prefix: str) -> types.Reader:
    """Bytes of `128M`, `128MB`, `128MiB` or a number; K, M, … are powers of 1024 as in Docker."""

    def read(value: Any, path: str, problems: list[str]) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            problems.append(f"{path}: {prefix}{types.shown(value)} is not a size")
            return 0
        written = str(value).strip()
        if not written:
            return 0
        match = _SIZE.fullmatch(written[:64])
        if match is None:
            problems.append(f"{path}: {prefix}invalid size: {types.shown(written)}, write 64M")
            return 0
        size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
        # tmpfs takes 0 for "no limit", and shares pages of 4 KiB.
        if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
            problems.append(f"{path}: {prefix}{types.shown(written)} is not between 1K and 1024T")
        return size

    return read


def log_buffer_bytes(value: Any, path: str, problems: list[str]) -> int:
    """A size that a pipe can have."""
    before = len(problems)
    size: int = size_bytes("")(value, path, problems)
    if len(problems) == before and not _SMALLEST_PIPE <= size <= _LARGEST_PIPE:
        problems.append(f"{path}: {types.shown(str(value))} is not between 64K and 1G")
    return size


def log_drops(value: Any, path: str, problems: list[str]) -> bool:
    """Returns what is done with a log that is full."""
    return bool(types.choice("drop_oldest", "block")(value, path, problems) != "block")


def ulimits(value: Any, path: str, problems: list[str]) -> dict[str, tuple[int, int]]:
    """(soft, hard) by name."""
    found: dict[str, tuple[int, int]] = {}
    for name, text in _pairs(value, path, problems):
        key = name.lower().removeprefix("rlimit_")
        if key not in _ULIMITS:
            problems.append(f"{path}.{name[:64]}: no such limit; known: {', '.join(_ULIMITS)}")
            continue
        soft, colon, hard = text.partition(":")
        if not _LIMIT.fullmatch(soft) or (colon and not _LIMIT.fullmatch(hard)):
            problems.append(
                f'{path}.{name}: {types.shown(text)} is not a number, "soft:hard" or "unlimited"'
            )
            continue
        pair = _limit(soft), _limit(hard if colon else soft)
        if pair[0] > pair[1]:
            problems.append(f"{path}.{name}: the soft limit {soft} is above the hard limit {hard}")
        found[key] = pair
    return found


def _limit(text: str) -> int:
    return _UNLIMITED if text in {"unlimited", "-1"} else int(text)


def sysctls(value: Any, path: str, problems: list[str]) -> dict[str, str]:
    """Kernel parameters by dotted name; only those that a container may have of its own."""
    found: dict[str, str] = {}
    for name, text in _pairs(value, path, problems):
        key = name.replace("/", ".") if "/" in name and "." not in name else name
        if not _SYSCTL.fullmatch(key):
            problems.append(f"{path}: {types.shown(name)} is not a kernel parameter's name")
        elif not key.startswith(("net.", "fs.mqueue.")) and key not in (
            _IPC_SYSCTLS | {"kernel.domainname"}
        ):
            problems.append(
                f"{path}: {key[:64]} belongs to the whole host; a task may set net.*, fs.mqueue.*,"
                " kernel.msg*, kernel.sem, kernel.shm* and kernel.domainname"
            )
        elif "\n" in text:
            problems.append(f"{path}.{key}: has more than one line")
        else:
            found[key] = text
    return found


def labels(value: Any, path: str, problems: list[str]) -> dict[str, str]:
    """Labels for containerd's container, none of them the driver's own."""
    found: dict[str, str] = {}
    for name, text in _pairs(value, path, problems):
        if not name or name.startswith(_OWN_LABELS):
            problems.append(f"{path}: {types.shown(name)} is not a label that a job may set")
        elif len(f"{name}{text}".encode(errors="surrogatepass")) > _MAX_LABEL_BYTES:
            problems.append(f"{path}: {name[:64]!r} is longer than {_MAX_LABEL_BYTES} bytes")
        else:
            found[name] = text
    return found


def devices(value: Any, path: str, problems: list[str]) -> types.Fields:
    """Devices as Docker's command line or its blocks write them, and names of CDI devices."""
    items: Any = [value] if isinstance(value, Mapping | str) else value
    if not isinstance(items, list | tuple) or len(items) > types.MAX_ITEMS:
        problems.append(f"{path}: {types.shown(value)} is not a list of devices")
        return types.Fields()
    plain: list[DeviceOption] = []
    names: list[str] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if isinstance(item, str) and _CDI_NAME.fullmatch(item):
            names.append(item)
        elif isinstance(item, str):
            plain += _short_device(item, where, problems)
        elif isinstance(item, Mapping):
            plain += _device_block(item, where, problems)
        else:
            problems.append(f"{where}: {types.shown(item)} is not a device")
    return types.Fields(devices=tuple(plain), cdi_devices=tuple(names))


def _short_device(text: str, path: str, problems: list[str]) -> list[DeviceOption]:
    parts = text.split(":")
    host, inside, permissions = (*parts, "", "")[:_SHORT_DEVICE_PARTS]
    if len(parts) == 2 and inside and not inside.startswith("/"):  # noqa: PLR2004
        inside, permissions = "", inside
    if len(parts) > _SHORT_DEVICE_PARTS:
        problems.append(f"{path}: {types.shown(text)} is not host:container:permissions")
        return []
    return _device(path, problems, host, inside, permissions)


def _device_block(block: Mapping[Any, Any], path: str, problems: list[str]) -> list[DeviceOption]:
    unknown = [str(key)[:64] for key in block if key not in _DEVICE_KEYS]
    problems += [f"{path}.{key}: no such option" for key in unknown[:10]]
    texts = [block.get(key) or "" for key in _DEVICE_KEYS]
    if unknown or not all(isinstance(text, str) for text in texts):
        problems.append(f"{path}: host_path, container_path and cgroup_permissions are strings")
        return []
    return _device(path, problems, *texts)


def _device(
    path: str, problems: list[str], host: str, inside: str, permissions: str
) -> list[DeviceOption]:
    before = len(problems)
    for what in (host, inside or host):
        types.absolute_path(what or "nothing", path, problems)
    if not _PERMISSIONS.fullmatch(permissions):
        problems.append(f"{path}: permissions {types.shown(permissions)} are not some of rwm")
    if len(problems) > before:
        return []
    return [
        DeviceOption(
            host_path=host,
            container_path=inside or host,
            cgroup_permissions=permissions or "rwm",
        )
    ]


def extra_hosts(value: Any, path: str, problems: list[str]) -> tuple[tuple[str, str], ...]:
    """(name, address) of `name:address`; the address may be `host-gateway` or in brackets."""
    found: list[tuple[str, str]] = []
    for index, text in enumerate(types.words(value, path, problems)):
        name, colon, written = text.partition(":")
        # The line of a file that root writes: a name with a newline would be two.
        if not colon or not _HOST_NAME.fullmatch(name):
            problems.append(
                f'{path}[{index}]: bad format for add-host: {_quoted(text)}, write "name:address"'
            )
            continue
        address = written.removeprefix("[").removesuffix("]")
        try:
            found.append((name, _address(address)))
        except ValueError:
            problems.append(f"{path}[{index}]: invalid IP address in add-host: {_quoted(written)}")
    return tuple(found)


def _address(text: str) -> str:
    if text == HOST_GATEWAY:
        return text
    if "%" in text:
        raise ValueError(text)
    return str(ipaddress.ip_address(text))


def _quoted(text: str) -> str:
    return json.dumps(text[:64])


def signal_name(value: Any, path: str, problems: list[str]) -> str:
    """A signal by name or number, or nothing."""
    found: str = types.text()(value, path, problems)
    if found:
        try:
            signal_names.number(found)
        except DriverError as error:
            problems.append(f"{path}: {error}")
    return found


def _pairs(value: Any, path: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each entry. HCL gives a map, or a list of maps where it is a block."""
    maps = [value] if isinstance(value, Mapping) else value
    if not isinstance(maps, list | tuple) or not all(isinstance(item, Mapping) for item in maps):
        problems.append(f"{path}: {types.shown(value)} is not a map of strings")
        return
    merged = {key: text for item in maps for key, text in item.items()}
    if len(merged) > types.MAX_ITEMS:
        problems.append(f"{path}: has {len(merged)} entries, at most {types.MAX_ITEMS}")
        return
    read = types.text()
    for key, text in merged.items():
        before = len(problems)
        name = read(key, path, problems)
        if isinstance(text, int) and not isinstance(text, bool):
            text = str(text)  # noqa: PLW2901 - a job file in JSON has numbers here
        found = read(text, f"{path}.{str(key)[:64]}", problems)
        if len(problems) == before:
            yield name, found
