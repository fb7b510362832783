"""Commands in a running task: on a terminal, and as script checks and change scripts run them."""

from __future__ import annotations

import uuid

import pytest

from tests.acceptance.clusters.agent_cluster import AgentCluster
from tests.acceptance.clusters.cluster import Cluster

pytestmark = [pytest.mark.acceptance, pytest.mark.containerd]


def test_an_exec_on_a_terminal_has_its_size_its_echo_and_its_keys(
    cluster: Cluster, busybox_image: str
) -> None:
    task = cluster.run("signal", image=busybox_image)
    terminal = task.terminal("/bin/sh", rows=33, columns=101)
    terminal.type("until stty size | grep -q 33; do :; done; tty; stty size; echo $((40+2))\n")
    terminal.expect("33 101")
    terminal.expect("42")
    assert "/dev/pts/" in terminal.output()
    terminal.resize(44, 202)
    terminal.type("until stty size | grep '44 202'; do sleep 0.05; done\n")
    terminal.expect("44 202\r\n")
    # Ctrl-C ends the command, not the shell; the terminal echoes input.
    terminal.type("echo waits; sleep 600\n")
    terminal.expect("\r\nwaits\r\n")
    terminal.type("\x03")
    terminal.type("echo goes $((1)) on; exit 7\n")
    terminal.expect("goes 1 on\r\n")
    assert "echo goes $((1)) on" in terminal.output()
    assert terminal.exit_code() == 7
    assert task.state == "running"


def test_an_exec_without_a_terminal_keeps_its_streams_apart(
    cluster: Cluster, busybox_image: str
) -> None:
    task = cluster.run("signal", image=busybox_image)
    done = task.exec("/bin/sh", "-c", "cat; echo bad >&2; exit 5", stdin="through the pipe")
    assert (done.code, done.out, done.err) == (5, "through the pipe", "bad\n")
    missing = task.exec("/no/such/program")
    assert missing.code != 0
    assert "/no/such/program" in missing.out + missing.err


def test_a_script_that_the_host_runs_in_the_task_has_its_exit_code_and_output(
    cluster: Cluster, busybox_image: str
) -> None:
    if isinstance(cluster, AgentCluster):
        # Script checks report to a Consul; a template's change script takes the same way.
        return _changed_template(cluster, busybox_image)
    task = cluster.run("signal", image=busybox_image)
    done = task.script("/bin/sh", "-c", "echo fine; echo but >&2; exit 2")
    assert (done.code, done.out, done.err) == (2, "fine\n", "but\n")
    return None


def _changed_template(cluster: AgentCluster, image: str) -> None:
    path = f"acceptance/{uuid.uuid4().hex}"
    put(cluster, path, "first")
    task = cluster.run("change_script", image=image, path=path)
    task.wait_log("ready")
    put(cluster, path, "second")
    task.wait_log("seen: second")
    assert "seen: first" not in task.log()


def put(cluster: AgentCluster, path: str, greeting: str) -> None:
    """Writes a variable of Nomad."""
    body = {"Path": path, "Items": {"greeting": greeting}}
    cluster.api.text("PUT", f"/v1/var/{path}", body)
