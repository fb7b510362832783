"""Acceptance tests of an entrypoint from the job, and of the entrypoint's output in the logs."""

from __future__ import annotations

import pytest

from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_the_entrypoint_of_the_job_runs_and_its_output_is_in_the_logs(
    cluster: Cluster, ubuntu_image: str
) -> None:
    task = cluster.run("entrypoint", image=ubuntu_image)
    task.wait_log("container3")
    lines = task.log().splitlines()
    assert lines[:3] == ["container1", "container2", "container3"]
    assert task.log("stderr") == ""
