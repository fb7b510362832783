"""A real Nomad agent in a guest, and one job of it that tells whether something was lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.nomad.build import BuildError, build
from tests.packaging.conftest import STATE
from tests.support.guest_shell import GuestShell
from tests.support.needs import missing

IMAGE = "127.0.0.1:1/busybox:1"
EXIT_CODE = 7

# Nothing here asks beyond the guest's loopback, which is all the network that it has.
_CONFIG = """\
name = "guest"
data_dir = "/opt/nomad/data"
plugin_dir = "/usr/lib/nomad-driver-containerd/plugins"
bind_addr = "127.0.0.1"
advertise {
  http = "127.0.0.1"
  rpc = "127.0.0.1"
  serf = "127.0.0.1"
}
disable_update_check = true
disable_anonymous_signature = true
server {
  enabled = true
  bootstrap_expect = 1
}
client {
  enabled = true
  network_interface = "lo"
  cni_path = "/usr/lib/cni"
  max_kill_timeout = "10m"
  cpu_total_compute = 8000
  memory_total_mb = 4096
  options = {
    "fingerprint.denylist" = "env_aws,env_azure,env_digitalocean,env_gce,consul,vault"
  }
}
consul {
  auto_advertise = false
  client_auto_join = false
  server_auto_join = false
}
plugin "containerd-driver" {
  config {}
}
"""
_UNIT = """\
[Unit]
After=containerd.service
[Service]
ExecStart=/usr/local/bin/nomad agent -config /root/agent.hcl
KillMode=process
KillSignal=SIGINT
Restart=on-failure
RestartSec=1
[Install]
WantedBy=multi-user.target
"""
_ASK = """
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:4646" + sys.argv[1]).read().decode())
"""
# Counts until it is told to end by a file, then ends with a code that nothing else has.
_COUNT = f"""
while [ ! -e "$NOMAD_ALLOC_DIR/end" ]; do i=$((i + 1)); echo "line $i"; busybox sleep 0.05; done
exit {EXIT_CODE}
"""
_STUBBORN = f"trap : TERM; {_COUNT}"
_LEFT = f"""
namespace=nomad; [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] || namespace=nomad.slice
ls {STATE}/tasks
ctr -n $namespace containers ls -q
ctr -n $namespace tasks ls -q
ctr -n $namespace leases ls -q
ctr -n $namespace snapshots ls | grep -w Active || true
grep io.containerd.runtime.v2.task /proc/mounts || true
pgrep -a cd-worker || true
"""


def install(root: Path) -> None:
    """The agent, its configuration and its unit into a guest's root."""
    try:
        program = build("agent")
    except BuildError as error:
        missing("nomad", str(error))
    (root / "usr/local/bin/nomad").write_bytes(program.read_bytes())
    (root / "usr/local/bin/nomad").chmod(0o755)
    (root / "root/agent.hcl").write_text(_CONFIG)
    (root / "etc/systemd/system/nomad.service").write_text(_UNIT)


def ask(guest: GuestShell, path: str) -> Any:
    """What the agent's HTTP API answers; None when it does not."""
    done = guest.run("python3", "-c", _ASK, path)
    return json.loads(done.stdout) if done.returncode == 0 else None


def release(guest: GuestShell) -> str:
    """The driver's, as the server has it of a node that can take tasks; empty if it cannot."""
    nodes = ask(guest, "/v1/nodes")
    node = ask(guest, f"/v1/node/{nodes[0]['ID']}") if nodes else None
    if node is None or node["Status"] != "ready":
        return ""
    if not (node["Drivers"].get("containerd-driver") or {}).get("Healthy"):
        return ""
    return str(node["Attributes"].get("driver.containerd-driver.version", ""))


def processes(guest: GuestShell) -> str:
    """The job's process and its worker."""
    return guest.shell("pgrep -f '^/bin/sh -c .*busybox slee[p]'; pgrep -x cd-worker")


def left(guest: GuestShell) -> str:
    """What there is of tasks, anywhere."""
    return guest.shell(_LEFT)


class Job:
    """A job of one task, which runs when this returns.

    Args:
        guest: with an agent that has the driver.
        restarts: how often Nomad starts its task again.
        network: the mode of its group's network.
        stubborn_s: its kill_timeout, for it does not end when it is asked to; 0 for one that does.
    """

    def __init__(
        self,
        guest: GuestShell,
        restarts: int = 0,
        network: str = "host",
        stubborn_s: int = 0,
    ) -> None:
        self._guest = guest
        script = _STUBBORN if stubborn_s else _COUNT
        text = guest.shell(f"/root/tests/make-job {IMAGE} '{script}'")
        document = json.loads(text)
        group = document["Job"]["TaskGroups"][0]
        group["RestartPolicy"] = {
            "Attempts": restarts,
            "Mode": "fail",
            "Delay": 1_000_000_000,
            "Interval": 3_600_000_000_000,
        }
        group["Networks"] = [{"Mode": network}]
        if stubborn_s:
            group["Tasks"][0]["KillTimeout"] = stubborn_s * 1_000_000_000
        group["ReschedulePolicy"] = {"Attempts": 0, "Unlimited": False}
        guest.shell(f"cat >/root/job.json <<'END'\n{json.dumps(document)}\nEND")
        guest.wait(lambda: bool(release(guest)), "the node takes no tasks")
        guest.shell("nomad job run -detach -json /root/job.json")
        guest.wait(lambda: self.state() == "running", "the task does not run")
        self.alloc = str(self._allocation()["ID"])

    def _allocation(self) -> dict[str, Any]:
        allocations = ask(self._guest, "/v1/job/test/allocations") or []
        return dict(max(allocations, key=lambda one: int(one["CreateIndex"]), default={}))

    def events(self) -> list[dict[str, Any]]:
        """What happened to the task, as Nomad tells it."""
        states = self._allocation().get("TaskStates") or {}
        return list(states.get("main", {}).get("Events", []))

    def state(self) -> str:
        """Nomad's."""
        states = self._allocation().get("TaskStates") or {}
        return str(states.get("main", {}).get("State", ""))

    def lines(self) -> list[int]:
        """The numbers that the task has printed."""
        log = f"/opt/nomad/data/alloc/{self.alloc}/alloc/logs/main.stdout.0"
        said = self._guest.run("cat", log).stdout
        return [int(number) for number in re.findall(r"^line (\d+)$", said, re.MULTILINE)]

    def goes_on(self) -> None:
        """Waits for what it prints after now."""
        before = len(self.lines())
        self._guest.wait(lambda: len(self.lines()) > before + 2, "the task prints no more")

    def answers(self) -> None:
        """Waits until exec and stats work, for a task that the agent has taken over."""
        path = f"/v1/client/allocation/{self.alloc}/stats"

        def measured() -> bool:
            usage = ((ask(self._guest, path) or {}).get("Tasks") or {}).get("main") or {}
            return int(usage.get("Timestamp", 0)) > moment_ns

        moment_ns = int(self._guest.shell("date +%s%N"))
        self._guest.wait(measured, "the task has no stats")
        words = (
            "nomad",
            "alloc",
            "exec",
            "-task",
            "main",
            self.alloc,
            "/bin/sh",
            "-c",
            "echo $((6*7))",
        )
        self._guest.wait(lambda: "42" in self._guest.run(*words).stdout, "exec does not answer")

    def stop(self) -> None:
        """Has Nomad stop it; returns when it has been asked to end."""
        self._guest.shell("nomad job stop -detach test")
        self._guest.wait(
            lambda: any(one["Type"] == "Killing" for one in self.events()), "it is not stopped"
        )

    def finish(self) -> None:
        """Has it end by itself; Nomad may start it again then."""
        before = len(self.codes())
        self._guest.shell(f"touch /opt/nomad/data/alloc/{self.alloc}/alloc/end")
        self._guest.wait(lambda: len(self.codes()) > before, "the task does not end")

    def codes(self) -> list[int]:
        """With what it has ended, each time that it did."""
        return [int(one["ExitCode"]) for one in self.events() if one["Type"] == "Terminated"]

    def purge(self) -> None:
        """Has Nomad forget it; nothing is left of it."""
        self._guest.shell("nomad job stop -detach -purge test; nomad system gc")
        self._guest.wait(lambda: left(self._guest) == "", "the task left something")
