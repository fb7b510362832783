"""Acceptance tests of a file from a template, bound to another place."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]

TEXT = "# of mosquitto\nlistener 1883\nallow_anonymous true\n"


def test_a_rendered_template_is_bound_where_the_program_reads_it(
    cluster: Cluster, mosquitto_image: str
) -> None:
    task = cluster.run("template", image=mosquitto_image)
    task.wait_log("config: allow_anonymous true")
    assert task.exec("cat", "/mosquitto/config/mosquitto.conf").out == TEXT
    # Bound to be written too: the other name of the same file.
    task.shell("echo '# more' >>/mosquitto/config/mosquitto.conf")
    assert task.exec("cat", "/local/mosquitto.conf").out == f"{TEXT}# more\n"
    assert (task.alloc_dir / task.name / "local/mosquitto.conf").read_text() == f"{TEXT}# more\n"
