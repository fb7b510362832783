"""Checks of containerd: does it answer, does it have holes, a snapshotter and space?"""

from __future__ import annotations

import asyncio
import os

from actors.health import runtime_checks
from actors.health.findings import Finding, fail, ok, sentence, warn
from actors.model.node import Node
from containerd.api import features
from containerd.security import known_holes
from proto.errors import DriverError

_LOW_BYTES = 2 * 1024**3


async def check(node: Node) -> list[Finding]:
    """Returns the findings about containerd; the first finding says whether containerd answers."""
    address = node.settings.containerd_address
    try:
        version = await node.containerd.version()
        working = await node.containerd.snapshotters()
        snapshotter = node.settings.snapshotter or node.containerd.default_snapshotter
        root = await node.containerd.snapshotter_root(snapshotter)
        deprecations = await node.containerd.deprecations()
    except DriverError as error:
        advice = error.resolution or "apt-get install containerd runc; systemctl start containerd"
        return [fail("containerd", sentence(error), advice)]
    findings = [ok("containerd", f"{version.version} at {address}, namespace {node.namespace}")]
    holes = await asyncio.to_thread(known_holes.of, "containerd", version.version)
    if holes:
        names = ", ".join(f"{hole.cve} ({hole.effect})" for hole in holes)
        text = f"containerd {version.version} has known holes: {names}"
        refuses = any(hole.escape for hole in holes)
        refuses = refuses and not node.settings.gates.allow_known_holes
        findings.append(runtime_checks.holes(text, refuses=refuses))
    lacking = features.lacking(version.version)
    if lacking:
        findings.append(
            warn(
                "layers",
                f"containerd {version.version} cannot {lacking}",
                "install a newer release",
            )
        )
    findings += [
        warn(
            "deprecated",
            f"containerd {version.version} warns of {one.id}: {one.message}",
            "follow the message before an upgrade of containerd",
        )
        for one in deprecations
    ]
    if snapshotter not in working:
        findings.append(
            fail(
                "snapshotter",
                f"containerd has no working {snapshotter}; it has {', '.join(working) or 'none'}",
                "set another snapshotter in the plugin block, or see containerd's log",
            )
        )
    else:
        findings.append(ok("snapshotter", snapshotter))
    if root:
        findings.append(_disk(root))
    return findings


async def snapshots(node: Node) -> str:
    """Returns the directory of the snapshotter; empty if containerd does not name the directory."""
    snapshotter = node.settings.snapshotter or node.containerd.default_snapshotter
    try:
        return await node.containerd.snapshotter_root(snapshotter)
    except DriverError:
        return ""


def _disk(root: str) -> Finding:
    try:
        space = os.statvfs(root)
    except OSError as error:
        return warn("disk", f"{root}: {error.strerror}", "check the directory's file system")
    free = space.f_bavail * space.f_frsize
    text = f"{free / 1e9:.1f} GB free for images and containers in {root}"
    if free < _LOW_BYTES:
        return warn("disk", text, "free disk space: pulls fail on a full disk")
    if space.f_files and space.f_favail * 100 < space.f_files:
        return warn("disk", f"under 1 % of the inodes are free in {root}", "remove files")
    return ok("disk", text)
