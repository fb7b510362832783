"""Consul Connect's proxy as a task of the driver: the task that Nomad's server adds to a job.

Neither Consul nor Envoy is here: the server adds the task, and a stand-in for Envoy runs.
"""

from __future__ import annotations

import pytest

from tests.support.nomad.api import DEAF, NomadApi
from tests.support.nomad.connect import service
from tests.support.registries import images
from tests.support.registries.registry import Registry
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]

JOB = """
job "mesh" {
  datacenters = ["dc1"]
  group "g" {
    SERVICE
    task "main" {
      driver = "containerd-driver"
      config {
        image = "never-pulled"
      }
    }
  }
}
"""
ENVOY = '#!/bin/sh\necho "envoy $*"\nls -d /secrets\nexec sleep 600\n'


def test_the_task_that_nomad_adds_for_a_proxy_runs_with_its_own_config(
    nomad: NomadApi, registry: Registry
) -> None:
    nomad.submit(nomad.parse(JOB.replace("SERVICE", service("web", 8080))))
    added = nomad.json("GET", "/v1/job/mesh")
    nomad.stop("mesh", purge=True)
    proxy = next(task for task in added["TaskGroups"][0]["Tasks"] if task["Name"] != "main")
    assert (proxy["Name"], proxy["Driver"]) == ("connect-proxy-web", "containerd-driver")
    assert proxy["Config"]["image"] == "${meta.connect.sidecar_image}"

    layer = images.busybox_layer({"docker-entrypoint": ENVOY.encode()})
    image = images.build([layer], {"Entrypoint": ["/docker-entrypoint"]})
    stand_in = images.push(registry.host, "envoy", "1", image)
    # No node has Consul: without kind, services and constraints Nomad starts the same task.
    proxy |= {"Kind": "", "Constraints": None, "Lifecycle": None, **DEAF}
    proxy["Config"] |= {"image": stand_in}
    bare = {"Services": None, "Networks": None, "Constraints": None}
    group = {**added["TaskGroups"][0], **bare, "Tasks": [proxy]}
    job = {**added, "ID": "proxy", "Name": "proxy", "Constraints": None, "TaskGroups": [group]}
    alloc = nomad.start(job)
    started = "envoy -c /secrets/envoy_bootstrap.json -l info --concurrency 1 --disable-hot-restart"
    wait_until(
        lambda: nomad.logs(alloc, task=proxy["Name"]) == f"{started}\n/secrets\n",
        60,
        lambda: nomad.story(alloc, proxy["Name"]),
    )
