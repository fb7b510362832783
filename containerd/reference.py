"""Image references, read as by Docker: `redis:alpine` is `docker.io/library/redis:alpine`."""

from __future__ import annotations

import re

from proto.errors import Code, DriverError
from proto.values import dataclass

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
# Jobs of Nomad's drivers for Docker and Podman may have a scheme before the name.
_SCHEMES = ("https://", "docker://")
_MAX_PORT = 65535
# An image id, in the long form of `docker inspect` or the short form of `docker images`.
_ID = re.compile(r"(sha256|sha384|sha512):[0-9a-f]+|[0-9a-f]{12,64}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A complete image name. Either digest or tag is set."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{end}"

    @property
    def selector(self) -> str:
        """Digest or tag, by which a registry is asked."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Reads and completes a reference: registry docker.io, library/, tag latest.

    If tag and digest are present, the tag is dropped, as by Docker. A scheme before the name is
    dropped too.

    Raises:
        DriverError: code INVALID; the details name the mistake.
    """
    scheme = next((prefix for prefix in _SCHEMES if text.startswith(prefix)), "")
    bare = text.removeprefix(scheme)
    if _ID.fullmatch(bare):
        raise _image_id(text)
    rest, at, digest = bare.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, f"{digest[:80]!r} is not a sha256 or sha512 digest")
    head, slash, tail = rest.rpartition("/")
    last, colon, tag = tail.partition(":")
    name = f"{head}{slash}{last}"
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag[:80]!r} is not a tag")
    registry, repository = _split(name)
    if len(registry) > _MAX_NAME or not _DOMAIN.fullmatch(registry) or not _has_port(registry):
        raise _invalid(text, f"{registry[:80]!r} is not a registry host")
    if not last or len(repository) > _MAX_NAME:
        raise _invalid(text, "the repository name is missing or longer than 255 characters")
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            reason = "names are lower case" if component != component.lower() else "not a name"
            raise _invalid(text, f"{component[:80]!r}: {reason}")
    return Reference(
        registry=registry,
        repository=repository,
        tag="" if digest else tag or "latest",
        digest=digest,
    )


def _has_port(registry: str) -> bool:
    """Returns False for a host with an impossible port."""
    _, colon, port = registry.rpartition(":")
    return not colon or not port.isdecimal() or 0 < int(port) <= _MAX_PORT


def _split(name: str) -> tuple[str, str]:
    """Returns registry and repository.

    A first part with a dot, a port, an upper-case letter or the text `localhost` is a registry;
    any other name belongs to Docker Hub.
    """
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
        details="an image id names no registry to pull from",
        resolution="write the image's name as registry/name:tag or registry/name@sha256:…;"
        " `ctr images list` and `docker images --digests` show the name",
        code=Code.INVALID,
    )


def _invalid(text: str, reason: str) -> DriverError:
    return DriverError(
        f"image {text[:200]!r} is not an image reference",
        details=reason,
        resolution="write registry/name:tag or registry/name@sha256:…",
        code=Code.INVALID,
    )
