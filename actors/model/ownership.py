"""Owner labels: the agent, plugin and state directory that an object in containerd belongs to."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.model.identifiers import PREFIX
from proto.values import dataclass

if TYPE_CHECKING:
    from actors.model.node import Node
    from actors.model.nomad import TaskConfig

LABEL_TASK_ID = f"{PREFIX}.io/task-id"
LABEL_TASK_NAME = f"{PREFIX}.io/task-name"
LABEL_OWNER = f"{PREFIX}.io/owner"
"""The agent or the run that a task belongs to, see `owners`."""
LABEL_MAKER = f"{PREFIX}.io/maker"
"""The plugin process that created the object."""
LABEL_STATE_DIR = f"{PREFIX}.io/state-dir"
LABEL_KEPT_FOR = f"{PREFIX}.io/kept-for"
"""On a lease: a digest of the name of the image whose failed pull left blobs."""
LABEL_QUOTA = f"{PREFIX}.io/quota"
"""On a container: the limit of its files, see `containerd.rootfs.quota`."""

_NOMAD = "com.hashicorp.nomad."
LABEL_ALLOC_ID = f"{_NOMAD}alloc_id"
EXTRA_LABELS = (
    *("job_name", "job_id", "parent_job_id", "task_group_name", "task_name", "namespace"),
    *("node_name", "node_id"),
)
"""Names of the labels that `extra_labels` chooses, as in Nomad's docker driver."""

PLUGIN = "plugin-"
"""Begins the name of a plugin process under an agent."""
RUN = "run-"
"""Begins the name of a `containerd-driver run`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLabels:
    """The owner of an object: `owner` is the agent or the run, `maker` the plugin process.

    A field is empty where the object has no such label: a release before these labels created the
    object.
    """

    owner: str = ""
    maker: str = ""
    state_dir: str = ""


def owner_of(node: Node, task: TaskConfig) -> OwnerLabels:
    """Returns the owner of all objects that this plugin creates for a task."""
    return OwnerLabels(
        owner=next(iter(owners(task.node_id, task.alloc_dir)), ""),
        maker=node.maker,
        state_dir=str(node.state_dir),
    )


def labels(task: TaskConfig, owner: OwnerLabels) -> dict[str, str]:
    """Returns the labels of every object that the driver creates in containerd for a task.

    Args:
        task: Nomad's description of the task.
        owner: the result of `owner_of`.

    Returns:
        Values by LABEL_TASK_ID, LABEL_ALLOC_ID, LABEL_TASK_NAME, LABEL_OWNER, LABEL_MAKER and
        LABEL_STATE_DIR.
    """
    return {
        LABEL_TASK_ID: task.id,
        LABEL_ALLOC_ID: task.alloc_id,
        LABEL_TASK_NAME: task.name,
        LABEL_OWNER: owner.owner,
        LABEL_MAKER: owner.maker,
        LABEL_STATE_DIR: owner.state_dir,
    }


def extra_labels(task: TaskConfig, patterns: tuple[str, ...]) -> dict[str, str]:
    """Returns the labels about the job that the operator or the job wants on the container.

    A label without a value is left out.

    Args:
        task: Nomad's description of the task.
        patterns: globs of EXTRA_LABELS.
    """
    names = {name for pattern in patterns for name in fnmatch.filter(EXTRA_LABELS, pattern)}
    values = {
        name: task.name if name == "task_name" else getattr(task, name) for name in sorted(names)
    }
    return {f"{_NOMAD}{name}": value for name, value in values.items() if value}


def read_labels(labels: Mapping[str, str]) -> OwnerLabels:
    """Reads the owner from the labels of an object in containerd."""
    return OwnerLabels(
        owner=labels.get(LABEL_OWNER, ""),
        maker=labels.get(LABEL_MAKER, ""),
        state_dir=labels.get(LABEL_STATE_DIR, ""),
    )


def owners(node_id: str, alloc_dir: str) -> tuple[str, ...]:
    """Returns names of the agent that a task belongs to, the best name first; may be empty.

    Agents before Nomad 1.6 send no node id in some cases, but no two agents keep their allocations
    in one directory. A `containerd-driver run` sends a name of its own as the node id.

    Args:
        node_id: the agent's id of the node; may be empty.
        alloc_dir: the allocation's directory; may be empty.
    """
    root = posixpath.dirname(posixpath.normpath(alloc_dir)) if alloc_dir.startswith("/") else ""
    return tuple(name for name in (node_id, root) if name.strip("/"))
