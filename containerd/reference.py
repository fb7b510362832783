"""Image references as Docker reads them: `redis:alpine` is `docker.io/library/redis:alpine`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from proto.errors import Code, DriverError

DEFAULT_REGISTRY = "docker.io"
_MAX_NAME = 255
# The grammar of distribution/reference: domain, path components, tag, digest.
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
    r"(?:\.(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*(?::[0-9]{1,5})?"
    r"|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
# Jobs of Nomad's drivers for Docker and Podman have them before a name.
_SCHEMES = ("https://", "docker://")
_MAX_PORT = 65535
# Whole as `docker inspect` prints it, short as `docker images` does.
_ID = re.compile(r"(sha256|sha384|sha512):[0-9a-f]+|[0-9a-f]{12,64}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A whole image name. digest wins over tag; one of them is always given."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{end}"

    @property
    def selector(self) -> str:
        """Returns what a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Reads and completes a reference: registry docker.io, library/, tag latest.

    With tag and digest the digest holds and the tag is dropped, as Docker does. A scheme before the
    name says nothing and is dropped too.

    Raises:
        DriverError: code INVALID, with what is wrong.
    """
    scheme = next((one for one in _SCHEMES if text.startswith(one)), "")
    bare = text.removeprefix(scheme)
    if _ID.fullmatch(bare):
        raise _image_id(text)
    rest, at, digest = bare.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, f"{digest[:80]!r} is no sha256 or sha512 digest")
    head, slash, tail = rest.rpartition("/")
    last, colon, tag = tail.partition(":")
    name = f"{head}{slash}{last}"
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag[:80]!r} is no tag")
    registry, repository = _split(name)
    if len(registry) > _MAX_NAME or not _DOMAIN.fullmatch(registry) or not _has_port(registry):
        raise _invalid(text, f"{registry[:80]!r} is no registry host")
    if not last or len(repository) > _MAX_NAME:
        raise _invalid(text, "it has no repository name, or one over 255 characters")
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            why = "names are lower case" if component != component.lower() else "not a name"
            raise _invalid(text, f"{component[:80]!r}: {why}")
    return Reference(
        registry=registry,
        repository=repository,
        tag="" if digest else tag or "latest",
        digest=digest,
    )


def _has_port(registry: str) -> bool:
    """Returns False for a host with a port that cannot be."""
    _, colon, port = registry.rpartition(":")
    return not colon or not port.isdecimal() or 0 < int(port) <= _MAX_PORT


def _split(name: str) -> tuple[str, str]:
    """A first part with a dot, a port or `localhost` is a registry; else it is Docker Hub's."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, rest
    else:
        registry, repository = DEFAULT_REGISTRY, name
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _image_id(text: str) -> DriverError:
    return DriverError(
        f"image {text[:200]!r} is not an image reference",
        details="it is an image's id, which names no registry to pull from",
        resolution="write the image's name as registry/name:tag or registry/name@sha256:…;"
        " `ctr images list` and `docker images --digests` show it",
        code=Code.INVALID,
    )


def _invalid(text: str, why: str) -> DriverError:
    return DriverError(
        f"image {text[:200]!r} is not an image reference",
        details=why,
        resolution="write it as registry/name:tag or registry/name@sha256:…",
        code=Code.INVALID,
    )
