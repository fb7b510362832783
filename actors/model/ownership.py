"""Owner labels: the agent, plugin and state directory that an object in containerd belongs to."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from actors.model.identifiers import PREFIX

LABEL_TASK_ID = f"{PREFIX}.io/task-id"
LABEL_TASK_NAME = f"{PREFIX}.io/task-name"
LABEL_OWNER = f"{PREFIX}.io/owner"
"""Whose task it is, see `owners`."""
LABEL_MAKER = f"{PREFIX}.io/maker"
"""The plugin process that made it."""
LABEL_STATE_DIR = f"{PREFIX}.io/state-dir"
LABEL_KEPT_FOR = f"{PREFIX}.io/kept-for"
"""The image whose failed pull a lease keeps blobs of, as a digest of its name."""
LABEL_ALLOC_ID = "com.hashicorp.nomad.alloc_id"


def labels(
    task_id: str, alloc_id: str, task_name: str, *, owner: str, maker: str, state_dir: Path
) -> dict[str, str]:
    """Labels on everything that the driver makes in containerd for a task."""
    return {
        LABEL_TASK_ID: task_id,
        LABEL_ALLOC_ID: alloc_id,
        LABEL_TASK_NAME: task_name,
        LABEL_OWNER: owner,
        LABEL_MAKER: maker,
        LABEL_STATE_DIR: str(state_dir),
    }


def owners(node_id: str, alloc_dir: str) -> tuple[str, ...]:
    """Names of the agent that a task is of, the best first; none where it does not say.

    Agents before Nomad 1.6 may send no id of their node, but no two have their allocations in
    one directory. A `containerd-driver run` gives its own name for a node.
    """
    root = posixpath.dirname(posixpath.normpath(alloc_dir)) if alloc_dir.startswith("/") else ""
    return tuple(name for name in (node_id, root) if name.strip("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Whose a thing is, as it says itself: owner is the agent or the run, maker the plugin.

    Empty where it does not say: it was made by a release before these marks.
    """

    owner: str = ""
    maker: str = ""
    state_dir: str = ""


def mark(labels: Mapping[str, str]) -> Mark:
    """The mark in the labels of something in containerd."""
    return Mark(
        owner=labels.get(LABEL_OWNER, ""),
        maker=labels.get(LABEL_MAKER, ""),
        state_dir=labels.get(LABEL_STATE_DIR, ""),
    )


PLUGIN = "plugin-"
RUN = "run-"
