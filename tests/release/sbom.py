"""Bills of materials of a release, as CycloneDX 1.6 in JSON.

An archive carries its parts: each part has an exact version and a checksum. The wheel and the
Debian package name requirements: the machine's administrator chooses the versions.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from tests.release.artefacts import ARCHITECTURES, bundle_name, sha256_of

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "containerd-driver.example")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A package inside of an archive, or a package that an installation requires.

    Attributes:
        kind: the type of a package URL: deb or pypi.
        version: the exact version; None for a requirement.
        requirement: the range of versions, in the words of pip or dpkg.
        sha256: hex digest of the package's file; None for a requirement.
    """

    kind: str
    name: str
    version: str | None = None
    requirement: str | None = None
    architecture: str | None = None
    sha256: str | None = None

    def component(self) -> Component:
        """Returns the part in CycloneDX's model."""
        qualifiers = {"arch": self.architecture} if self.architecture else None
        namespace = "debian" if self.kind == "deb" else None
        url = PackageURL(self.kind, namespace, self.name, self.version, qualifiers)
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=self.sha256)] if self.sha256 else []
        ranges = [Property(name="requirement", value=self.requirement)] if self.requirement else []
        return Component(
            name=self.name,
            version=self.version,
            type=ComponentType.LIBRARY,
            bom_ref=url.to_string(),
            purl=url,
            hashes=hashes,
            properties=ranges,
        )


def document(
    file_name: str, sha256: str, parts: Iterable[Part], version: str, made: datetime
) -> str:
    """Returns the bill of materials of a released file: the same file gives the same text."""
    subject = Component(
        name=file_name,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=file_name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        licenses=[LicenseExpression("Apache-2.0")],
    )
    components = [part.component() for part in parts]
    bom = Bom(
        components=components,
        serial_number=uuid.uuid5(_NAMESPACE, sha256),
        metadata=BomMetaData(component=subject, timestamp=made),
    )
    bom.register_dependency(subject, components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the SBOM of {file_name} is not valid CycloneDX 1.6: {error.data}")
    return text


def write(root: Path, version: str, files: Iterable[Path]) -> list[Path]:
    """Writes a bill of materials beside each file to install, and returns the new files."""
    seconds = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    made = datetime.fromtimestamp(int(seconds), UTC)
    written = []
    for file in files:
        if (parts := _parts(root, version, file.name)) is not None:
            path = file.with_name(f"{file.name}.cdx.json")
            path.write_text(document(file.name, sha256_of(file), parts, version, made))
            written.append(path)
    return written


def _parts(root: Path, version: str, name: str) -> list[Part] | None:
    """Returns the parts of a released file; None for a file that is not installed."""
    for architecture in ARCHITECTURES:
        if name == bundle_name(version, architecture):
            return bundle_parts((root / "packaging/bundle/parts").read_text(), architecture)
    if name.endswith(".whl"):
        return python_requirements((root / "pyproject.toml").read_text())
    if name.endswith(".deb"):
        return debian_requirements((root / "packaging/debian/control").read_text())
    return None


def python_requirements(pyproject: str) -> list[Part]:
    """Returns the requirements of the wheel, from the text of pyproject.toml."""
    dependencies = tomllib.loads(pyproject)["project"]["dependencies"]
    return [
        _requirement("pypi", re.split(r"(?=[<>=!~])", text, maxsplit=1)) for text in dependencies
    ]


def debian_requirements(control: str) -> list[Part]:
    """Returns the requirements of the Debian package, from the text of debian/control.

    Of alternatives, the first counts. Variables of debhelper are left out.
    """
    field = re.search(r"^Depends:\n((?: .*\n)+)", control, re.MULTILINE)
    entries = [entry.strip() for entry in field[1].split(",")] if field else []
    firsts = [entry.partition("|")[0].strip() for entry in entries if entry]
    return [_requirement("deb", first.split(maxsplit=1)) for first in firsts if "${" not in first]


def bundle_parts(listing: str, architecture: str) -> list[Part]:
    """Returns the parts of an archive, from the text of packaging/bundle/parts."""
    parts = []
    for line in listing.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name, version, built_for, sha256 = line.split()
        if built_for in (architecture, "any"):
            # Python packages of PyPI are for any architecture, Debian's are listed for each.
            kind = "pypi" if built_for == "any" else "deb"
            arch = None if built_for == "any" else architecture
            parts.append(
                Part(kind=kind, name=name, version=version, architecture=arch, sha256=sha256)
            )
    return parts


def _requirement(kind: str, words: list[str]) -> Part:
    ranges = words[1].strip("()") if len(words) > 1 else None
    return Part(kind=kind, name=words[0].strip(), requirement=ranges)
