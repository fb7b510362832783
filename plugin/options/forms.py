"""Readers of values in a special form: sizes, ulimits, sysctls, labels, hosts, signals."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from actors.model import signal_names
from actors.model.identifiers import PREFIX
from actors.model.ownership import EXTRA_LABELS
from actors.provision.etc_files import HOST_GATEWAY, WORD
from plugin.options import readers
from proto.errors import DriverError

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SMALLEST_SIZE, _LARGEST_SIZE = 1024, 1 << 50
_SMALLEST_PIPE, _LARGEST_PIPE = 64 << 10, 1 << 30
_SMALLEST_WEIGHT = 10
_SMALLEST_LOG, _LARGEST_LOG = 64 << 10, 1 << 40
# The kernel's names of resource limits, as runc accepts these after RLIMIT_.
_ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
    *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)
_UNLIMITED = (1 << 64) - 1
_LIMIT = re.compile(r"unlimited|-1|[0-9]{1,19}")
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_*:@-]+)+")
# runc lets a container set these parameters: the kernel keeps a value for each namespace.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        *("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni"),
        "shm_rmid_forced",
    )
)
_RESERVED_LABELS = ("nomad-driver-containerd.io/", "com.hashicorp.nomad.", "containerd.io/")
# The shim of another container, and the pod of a container in a sandbox of gVisor or Kata.
_RESERVED_ANNOTATIONS = (f"{PREFIX}.io/", "io.containerd.", "io.kubernetes.cri")
_MAX_LABEL_BYTES = 4096  # containerd's limit of key and value together
_PLATFORM_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PLATFORM_PARTS = 3
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_OCTAL = re.compile(r"0?[0-7]{1,3}")
_CPU_LIST = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?){0,255}")
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


def size_bytes(prefix: str) -> readers.Reader:
    """Returns a reader of sizes in bytes: `128M`, `128MB`, `128MiB` or a number.

    K, M, … are powers of 1024 as in Docker.

    Args:
        prefix: begins the problem, for texts that operators search for.
    """

    def read(value: Any, path: str, problems: list[str]) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            problems.append(f"{path}: {prefix}{readers.shown(value)} is not a size")
            return 0
        written = str(value).strip()
        if not written:
            return 0
        match = _SIZE.fullmatch(written[:64])
        if match is None:
            problems.append(f"{path}: {prefix}invalid size: {readers.shown(written)}, write 64M")
            return 0
        size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
        # For tmpfs 0 means "no limit", and tmpfs counts pages of 4 KiB.
        if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
            problems.append(f"{path}: {prefix}{readers.shown(written)} is not between 1K and 1024T")
        return size

    return read


def log_buffer_bytes(value: Any, path: str, problems: list[str]) -> int:
    """Reads the size of a pipe in bytes."""
    before = len(problems)
    size: int = size_bytes("")(value, path, problems)
    if len(problems) == before and not _SMALLEST_PIPE <= size <= _LARGEST_PIPE:
        problems.append(f"{path}: {readers.shown(str(value))} is not between 64K and 1G")
    return size


def log_file_bytes(value: Any, path: str, problems: list[str]) -> int:
    """Reads the size of a log file in bytes."""
    before = len(problems)
    size: int = size_bytes("")(value, path, problems)
    if len(problems) == before and not _SMALLEST_LOG <= size <= _LARGEST_LOG:
        problems.append(f"{path}: {readers.shown(str(value))} is not between 64K and 1T")
    return size


def log_drops(value: Any, path: str, problems: list[str]) -> bool:
    """Reads `when_full`; returns True if a full log drops its oldest lines."""
    return bool(readers.choice("drop_oldest", "block")(value, path, problems) != "block")


def device_rates(kind: str) -> readers.Reader:
    """Returns a reader of limits of disks, `path:limit`, as (kind, path, limit).

    Args:
        kind: the limit, as in `containerd.spec.resources.Rate`. A limit of bytes is a size.
    """

    def read(value: Any, path: str, problems: list[str]) -> tuple[tuple[str, str, int], ...]:
        rates: list[tuple[str, str, int]] = []
        for index, text in enumerate(readers.texts(value, path, problems)):
            where = f"{path}[{index}]"
            device, _, number = text.rpartition(":")
            if kind.endswith("Bps"):
                limit = size_bytes("")(number, where, problems)
            else:
                limit = int(number) if _COUNT.fullmatch(number) else 0
            if not limit or not device.startswith("/dev/") or "/../" in device:
                problems.append(f'{where}: {readers.shown(text)} is not such as "/dev/sda:100"')
            rates.append((kind, device, limit))
        return tuple(rates)

    return read


def disk_weight(value: Any, path: str, problems: list[str]) -> int:
    """Reads the kernel's weight of input and output; 0 is none."""
    weight: int = readers.integer(0, 1000)(value, path, problems)
    if 0 < weight < _SMALLEST_WEIGHT:
        problems.append(f"{path}: {weight} is not between {_SMALLEST_WEIGHT} and 1000")
    return weight


def storage_bytes(value: Any, path: str, problems: list[str]) -> int:
    """Reads `size` of Docker's storage options in bytes; 0 if absent."""
    size = 0
    for name, text in pairs(value, path, problems):
        if name == "size":
            size = size_bytes("")(text, f"{path}.size", problems)
        else:
            problems.append(f"{path}.{name[:64]}: is not supported: only size is; remove the key")
    return size


def ulimits(value: Any, path: str, problems: list[str]) -> dict[str, tuple[int, int]]:
    """Reads limits as (soft, hard) by lower-case name; "unlimited" is 2**64 - 1."""
    limits: dict[str, tuple[int, int]] = {}
    for name, text in pairs(value, path, problems):
        key = name.lower().removeprefix("rlimit_")
        if key not in _ULIMITS:
            problems.append(f"{path}.{name[:64]}: no such limit, known: {', '.join(_ULIMITS)}")
            continue
        soft, colon, hard = text.partition(":")
        if not _LIMIT.fullmatch(soft) or (colon and not _LIMIT.fullmatch(hard)):
            problems.append(
                f'{path}.{name}: {readers.shown(text)} is not a number, "soft:hard" or "unlimited"'
            )
            continue
        pair = _limit(soft), _limit(hard if colon else soft)
        if pair[0] > pair[1]:
            problems.append(f"{path}.{name}: the soft limit {soft} is above the hard limit {hard}")
        limits[key] = pair
    return limits


def _limit(text: str) -> int:
    return _UNLIMITED if text in {"unlimited", "-1"} else int(text)


def sysctls(value: Any, path: str, problems: list[str]) -> dict[str, str]:
    """Reads kernel parameters by dotted name; only namespaced parameters are allowed."""
    parameters: dict[str, str] = {}
    for name, text in pairs(value, path, problems):
        key = name.replace("/", ".") if "/" in name and "." not in name else name
        if not _SYSCTL.fullmatch(key):
            problems.append(f"{path}: {readers.shown(name)} is not a kernel parameter's name")
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
            parameters[key] = text
    return parameters


def extra_labels(value: Any, path: str, problems: list[str]) -> readers.Fields:
    """Reads patterns of labels; a pattern without a label is a warning, as a typo has no effect."""
    patterns = readers.texts(value, path, problems)
    longest = max(map(len, EXTRA_LABELS))
    # Each pattern costs time and memory of the plugin.
    if len(patterns) > len(EXTRA_LABELS) or any(len(word) > 2 * longest for word in patterns):
        problems.append(
            f"{path}: at most {len(EXTRA_LABELS)} patterns, each of at most {2 * longest} letters"
        )
        return readers.Fields()
    useless = [word for word in patterns if not fnmatch.filter(EXTRA_LABELS, word)]
    return readers.Fields(
        extra_labels=patterns,
        warnings=tuple(f"{path}: {readers.shown(word)} matches no label" for word in useless),
    )


def annotation_texts(value: Any, path: str, problems: list[str]) -> dict[str, str]:
    """Reads annotations; refuses those by which the driver and containerd steer a shim."""
    allowed: dict[str, str] = {}
    for name, text in pairs(value, path, problems):
        if not name or name.startswith(_RESERVED_ANNOTATIONS):
            problems.append(f"{path}: {readers.shown(name)} is not an annotation of a job")
        else:
            allowed[name] = text
    return allowed


def labels(value: Any, path: str, problems: list[str]) -> dict[str, str]:
    """Reads labels for containerd's container; refuses labels of driver, Nomad and containerd."""
    allowed: dict[str, str] = {}
    for name, text in pairs(value, path, problems):
        if not name or name.startswith(_RESERVED_LABELS):
            problems.append(f"{path}: {readers.shown(name)} is not a label that a job may set")
        elif len(f"{name}{text}".encode(errors="surrogatepass")) > _MAX_LABEL_BYTES:
            problems.append(f"{path}: {name[:64]!r} is longer than {_MAX_LABEL_BYTES} bytes")
        else:
            allowed[name] = text
    return allowed


def extra_hosts(value: Any, path: str, problems: list[str]) -> tuple[tuple[str, str], ...]:
    """Reads lines `name:address` as (name, address).

    The address may be `host-gateway`, or stand in brackets.
    """
    hosts: list[tuple[str, str]] = []
    for index, text in enumerate(readers.words(value, path, problems)):
        name, colon, written = text.partition(":")
        # root writes the line into a file: a newline in the name would make two lines.
        if not colon or not _HOST_NAME.fullmatch(name):
            problems.append(
                f'{path}[{index}]: bad format for add-host: {_quoted(text)}, write "name:address"'
            )
            continue
        address = written.removeprefix("[").removesuffix("]")
        try:
            hosts.append((name, _address(address)))
        except ValueError:
            problems.append(f"{path}[{index}]: invalid IP address in add-host: {_quoted(written)}")
    return tuple(hosts)


def _address(text: str) -> str:
    if text == HOST_GATEWAY:
        return text
    if "%" in text:
        raise ValueError(text)
    return str(ipaddress.ip_address(text))


def _quoted(text: str) -> str:
    return json.dumps(text[:64])


def umask(value: Any, path: str, problems: list[str]) -> int | None:
    """Reads permission bits in octal; None for an empty text."""
    text: str = readers.text()(value, path, problems)
    if text and not _OCTAL.fullmatch(text):
        problems.append(f"{path}: {readers.shown(text)} is not an octal number up to 0777")
        return None
    return int(text, 8) if text else None


def cpu_list(value: Any, path: str, problems: list[str]) -> str:
    """Reads a list of numbers and ranges, as `0-2,5`, or an empty text."""
    text: str = readers.text()(value, path, problems)
    if text and not _CPU_LIST.fullmatch(text):
        problems.append(f"{path}: {readers.shown(text)} is not a list of numbers such as 0-2,5")
        return ""
    for first, last in (part.split("-") for part in text.split(",") if "-" in part):
        if int(first) > int(last):
            problems.append(f"{path}: the range {first}-{last} is empty")
    return text


def platform(value: Any, path: str, problems: list[str]) -> str:
    """Reads `os/architecture/variant`; system and variant may be absent."""
    text: str = readers.text(128)(value, path, problems)
    parts = text.split("/")
    if text and (len(parts) > _PLATFORM_PARTS or not all(map(_PLATFORM_WORD.fullmatch, parts))):
        problems.append(f"{path}: {readers.shown(text)} is not a platform such as linux/arm64")
        return ""
    return text


def platform_word(value: Any, path: str, problems: list[str]) -> str:
    """Reads a part of a platform."""
    text: str = readers.text(64)(value, path, problems)
    if text and not _PLATFORM_WORD.fullmatch(text):
        problems.append(f"{path}: {readers.shown(text)} is not a word such as arm64")
        return ""
    return text


def addresses(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads a list of IP addresses."""
    written = readers.texts(value, path, problems)
    for index, text in enumerate(written):
        try:
            _address(text if text != HOST_GATEWAY else "")
        except ValueError:
            problems.append(f"{path}[{index}]: {readers.shown(text)} is not an IP address")
    return written


def resolver_words(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads words for /etc/resolv.conf: root writes the file, and a blank would make two words."""
    written = readers.texts(value, path, problems)
    for index, text in enumerate(written):
        if not WORD.fullmatch(text):
            problems.append(f"{path}[{index}]: {readers.shown(text)} is not a single word")
    return written


def entrypoint(value: Any, path: str, problems: list[str]) -> tuple[str, ...]:
    """Reads a list of words, or a single word as Podman's driver writes an entrypoint."""
    return readers.words([value] if isinstance(value, str) else value, path, problems)


def signal_name(value: Any, path: str, problems: list[str]) -> str:
    """Reads the name or the number of a signal, or an empty text."""
    name: str = readers.text()(value, path, problems)
    if name:
        try:
            signal_names.number(name)
        except DriverError as error:
            problems.append(f"{path}: {error}")
    return name


def pairs(value: Any, path: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of each entry; in HCL an attribute is a map, a block a list of maps."""
    maps = [value] if isinstance(value, Mapping) else value
    if not isinstance(maps, list | tuple) or not all(isinstance(item, Mapping) for item in maps):
        problems.append(f"{path}: {readers.shown(value)} is not a map of strings")
        return
    merged = {key: text for item in maps for key, text in item.items()}
    if len(merged) > readers.MAX_ITEMS:
        problems.append(f"{path}: has {len(merged)} entries, at most {readers.MAX_ITEMS}")
        return
    read = readers.text()
    for key, text in merged.items():
        before = len(problems)
        name = read(key, path, problems)
        # A job has numbers and truth values here; HCL's conversion to a string writes them so.
        if isinstance(text, bool):
            text = "true" if text else "false"  # noqa: PLW2901
        elif isinstance(text, int | float):
            text = str(int(text)) if text == text // 1 else str(text)  # noqa: PLW2901
        checked = read(text, f"{path}.{str(key)[:64]}", problems)
        if len(problems) == before:
            yield name, checked
