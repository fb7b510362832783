"""`network { mode = "bridge" }` by the embedded host: real CNI plugins, real containers.

Everything happens in a network namespace of the test's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugin.host.network import cni, namespaces
from tests.support.kernel.own_network import OwnNetwork
from tests.support.plugin.host_run import Run
from tests.support.waiting import wait_until

pytestmark = pytest.mark.containerd

STATIC = 18080
PLUGINS = Path("/usr/lib/cni")
# Two servers of one directory; the task knows the network only by the published ports.
SERVE = (
    "env | grep NOMAD_ >/local/env; busybox httpd -p 8080 -h /local;"
    " exec busybox httpd -f -p 9090 -h /local"
)


def task(image: str, script: str, name: str = "web") -> dict[str, Any]:
    config = {"image": image, "command": "/bin/sh", "args": ["-c", script]}
    return {"Name": name, "Driver": "containerd-driver", "Config": config, "KillSignal": "SIGKILL"}


def group(network: dict[str, Any], *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Name": "g", "Networks": [network], "Tasks": tasks, **more}


def variables(page: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in page.splitlines())


class HeldPlugin:
    """A directory of CNI plugins in which one waits in ADD and then runs `script`."""

    def __init__(self, directory: Path, name: str, script: str) -> None:
        home = directory / "cni-plugins"
        home.mkdir()
        for plugin in PLUGINS.iterdir():
            (home / plugin.name).symlink_to(plugin)
        self.path = str(home)
        self._called, self._go_on = directory / "called", directory / "go-on"
        os.mkfifo(self._go_on)
        (home / name).unlink()
        (home / name).write_text(
            f"#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exec {PLUGINS}/{name}\n"
            f"touch {self._called}; read -r _ <{self._go_on}\n{script}\n"
        )
        (home / name).chmod(0o755)

    def wait_called(self) -> None:
        """Waits until the plugin is called."""
        wait_until(self._called.exists, 60)

    def release(self) -> None:
        """Lets the plugin continue."""
        self._go_on.write_text("\n")


def test_a_task_in_a_bridge_is_reached_at_its_ports(run: Run, image: str) -> None:
    network = {
        "Mode": "bridge",
        "DynamicPorts": [{"Label": "http", "To": 8080}],
        "ReservedPorts": [{"Label": "more", "Value": STATIC, "To": 9090}],
    }
    run.start([group(network, task(image, SERVE))])
    ports = {line["label"]: line for line in run.wait_said("port", 2)}
    assert 20000 <= ports["http"]["port"] <= 32000
    assert (ports["http"]["to"], ports["more"]["port"], ports["more"]["to"]) == (8080, STATIC, 9090)

    dynamic = f"127.0.0.1:{ports['http']['port']}"
    page = run.page(dynamic, "/env")
    assert run.page(f"127.0.0.1:{STATIC}", "/env") == page
    env = variables(page)
    assert env["NOMAD_ADDR_http"] == dynamic
    assert env["NOMAD_PORT_http"] == "8080"
    assert env["NOMAD_HOST_PORT_more"] == str(STATIC)
    # The address inside is reached directly as well, as from another task of the bridge.
    assert run.page(env["NOMAD_ALLOC_ADDR_more"], "/env") == page
    assert run.network.links().count(cni.BRIDGE) == 1

    assert run.stop() == 137
    assert run.left() == []


def test_allocations_of_one_bridge_have_ports_and_addresses_of_their_own(
    run: Run, image: str
) -> None:
    network = {"Mode": "bridge", "DynamicPorts": [{"Label": "http", "To": 8080}]}
    run.start([group(network, task(image, SERVE), Count=2)])
    ports = run.wait_said("port", 2)
    assert [port["alloc"] for port in ports] == ["g[0]", "g[1]"]
    pages = [variables(run.page(f"127.0.0.1:{port['port']}", "/env")) for port in ports]
    assert [page["NOMAD_ALLOC_INDEX"] for page in pages] == ["0", "1"]
    assert len({page["NOMAD_ALLOC_IP_http"] for page in pages}) == 2
    run.stop()
    assert run.left() == []


def test_another_machine_reaches_a_published_port_through_a_closed_firewall(
    run: Run, image: str
) -> None:
    wanted = {"Mode": "bridge", "DynamicPorts": [{"Label": "http", "To": 8080}]}
    with OwnNetwork() as other:
        run.network.join(other, "192.0.2.1", "192.0.2.2")
        run.network.must("iptables", "-P", "FORWARD", "DROP")
        run.start([group(wanted, task(image, SERVE))], "--host-ip", "192.0.2.1")
        (port,) = run.wait_said("port")
        address = f"192.0.2.1:{port['port']}"
        env = variables(run.page(address, "/env"))
        assert env["NOMAD_ADDR_http"] == address
        assert variables(other.fetch(address, "/env")) == env
        # An unpublished port stays closed, also to a peer that knows the route.
        inside = env["NOMAD_ALLOC_IP_http"]
        other.must("ip", "route", "add", inside, "via", "192.0.2.1")
        assert run.network.fetch(f"{inside}:9090", "/env") != ""
        assert other.fetch(f"{inside}:9090", "/env") == ""
        run.stop()
        assert run.left() == []


@pytest.mark.parametrize(("mode", "links"), [("none", {"lo"}), ("bridge", {"lo", "eth0"})])
def test_the_tasks_of_a_group_share_one_network(
    run: Run, image: str, mode: str, links: set[str]
) -> None:
    server = task(image, SERVE)
    ask = "until wget -qO- 127.0.0.1:8080/env >/dev/null; do sleep 0.1; done; ls /sys/class/net"
    run.start([group({"Mode": mode}, server, task(image, ask, "ask"))])
    run.wait_said("exit")
    assert {line["line"] for line in run.said("log") if line["stream"] == "stdout"} == links
    run.stop()
    assert run.left() == []


def test_a_start_that_fails_leaves_no_network(run: Run) -> None:
    network = {"Mode": "bridge", "DynamicPorts": [{"Label": "http"}]}
    broken = task("127.0.0.1:1/nowhere:1", "true")
    broken["Config"]["image_pull_policy"] = "never"
    run.start([group(network, broken)])
    run.wait_said("port")
    assert run.finish() == 125
    assert run.left() == []


def test_a_plugin_that_fails_is_named_and_what_was_made_is_undone(run: Run, tmp_path: Path) -> None:
    says = """{"cniVersion":"0.4.0","code":7,"msg":"there is no nat"}"""
    plugin = HeldPlugin(tmp_path, "portmap", f"echo '{says}'; exit 1")
    run.start([group({"Mode": "bridge"}, task("i", "true"))], "--cni-path", plugin.path)
    plugin.wait_called()
    run.note_allocations()
    plugin.release()
    assert run.finish() == 125
    (error,) = run.said("error")
    assert "the CNI plugin portmap failed at ADD: there is no nat" in error["text"]
    assert run.left() == []
    assert run.said("event") == []


def test_ctrl_c_while_a_network_is_made_lets_the_plugin_end_and_undoes_it(
    run: Run, tmp_path: Path
) -> None:
    plugin = HeldPlugin(tmp_path, "firewall", f"exec {PLUGINS}/firewall")
    run.start([group({"Mode": "bridge"}, task("i", "true"))], "--cni-path", plugin.path)
    plugin.wait_called()
    run.note_allocations()
    (alloc_id,) = run.alloc_ids
    assert Path(namespaces.path(alloc_id)).exists()
    run.interrupt()
    run.wait_said("note")
    plugin.release()
    assert run.finish() == 130
    assert run.left() == []
    assert run.said("port") == run.said("event") == run.said("error") == []


def test_without_the_plugins_nothing_is_started(run: Run) -> None:
    run.start([group({"Mode": "bridge"}, task("i", "true"))], "--cni-path", "/nonexistent")
    assert run.finish() == 125
    (error,) = run.said("error")
    assert "apt-get install containernetworking-plugins" in error["text"]
    assert run.said("port") == run.said("event") == []


def test_a_published_port_that_is_in_use_stops_the_job_first(run: Run) -> None:
    taken = "import socket,sys; s=socket.create_server(('127.0.0.1',18080)); print(1,flush=True)"
    holder = run.network.popen(
        [sys.executable, "-I", "-c", f"{taken}; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder.stdout, holder.stdin:
        holder.stdout.readline()
        network = {"Mode": "bridge", "ReservedPorts": [{"Label": "http", "Value": STATIC}]}
        run.start([group(network, task("i", "true"))])
        assert run.finish() == 125
    holder.wait()
    (error,) = run.said("error")
    assert 'group "g": port "http": 127.0.0.1:18080 is in use' in error["text"]
