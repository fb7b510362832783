"""Packages of any suite and architecture of Debian, without a change to this machine's apt."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_MIRROR = "http://deb.debian.org"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def own_apt(work: Path, suites: Iterable[str], architecture: str = "") -> list[str]:
    """Returns an apt-get command with its own lists and sources, which checks all signatures.

    Args:
        work: an empty directory for lists and sources.
        suites: archive and suite of each source, as "debian bookworm".
        architecture: Debian's name, as arm64; this machine's without a name.
    """
    (work / "state" / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    sources = work / "sources.list"
    lines = (suite.split() for suite in suites)
    sources.write_text(
        "".join(f"deb [signed-by={_KEYS}] {_MIRROR}/{base} {name} main\n" for base, name in lines)
    )
    options = {
        "Dir::State": work / "state",
        "Dir::State::status": os.devnull,
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    if architecture:
        options |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    return [
        "apt-get",
        "-q",
        *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
    ]
