"""A real Nomad agent in a guest, and a job that shows whether anything was lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.nomad.build import build
from tests.packaging.conftest import STATE
from tests.support.go_build import BuildError
from tests.support.guests.guest_shell import GuestShell
from tests.support.needs import missing

IMAGE = "127.0.0.1:1/busybox:1"
EXIT_CODE = 7

# All requests stay on the guest's loopback, which is the guest's only network.
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
# Counts until a file requests the end, then ends with a code that no other program uses.
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
    """Installs the agent, the agent's configuration and unit into a guest's root."""
    try:
        program = build("agent")
    except BuildError as error:
        missing("nomad", str(error))
    (root / "usr/local/bin/nomad").write_bytes(program.read_bytes())
    (root / "usr/local/bin/nomad").chmod(0o755)
    (root / "root/agent.hcl").write_text(_CONFIG)
    (root / "etc/systemd/system/nomad.service").write_text(_UNIT)


def ask(guest: GuestShell, path: str) -> Any:
    """Returns the answer of the agent's HTTP API; None if the agent does not answer."""
    done = guest.run("python3", "-c", _ASK, path)
    return json.loads(done.stdout) if done.returncode == 0 else None


def release(guest: GuestShell) -> str:
    """Returns the driver's release on a node that can take tasks; "" if the node cannot."""
    nodes = ask(guest, "/v1/nodes")
    node = ask(guest, f"/v1/node/{nodes[0]['ID']}") if nodes else None
    if node is None or node["Status"] != "ready":
        return ""
    if not (node["Drivers"].get("containerd-driver") or {}).get("Healthy"):
        return ""
    return str(node["Attributes"].get("driver.containerd-driver.version", ""))


def processes(guest: GuestShell) -> str:
    """Returns the job's process and the process's worker."""
    return guest.shell("pgrep -f '^/bin/sh -c .*busybox slee[p]'; pgrep -x cd-worker")


def left(guest: GuestShell) -> str:
    """Returns everything that exists of tasks, anywhere."""
    return guest.shell(_LEFT)


class Job:
    """A job of a single task, which runs when the constructor returns.

    Args:
        guest: guest with an agent that has the driver.
        restarts: number of restarts by Nomad.
        network: mode of the group's network.
        stubborn_s: kill_timeout of a task which ignores the stop signal; 0 for a task which obeys.
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
        """Returns the task's events as Nomad reports them."""
        states = self._allocation().get("TaskStates") or {}
        return list(states.get("main", {}).get("Events", []))

    def state(self) -> str:
        """Returns Nomad's state of the task."""
        states = self._allocation().get("TaskStates") or {}
        return str(states.get("main", {}).get("State", ""))

    def lines(self) -> list[int]:
        """Returns the numbers that the task has printed."""
        log = f"/opt/nomad/data/alloc/{self.alloc}/alloc/logs/main.stdout.0"
        said = self._guest.run("cat", log).stdout
        return [int(number) for number in re.findall(r"^line (\d+)$", said, re.MULTILINE)]

    def goes_on(self) -> None:
        """Waits for output that the task prints from now on."""
        before = len(self.lines())
        self._guest.wait(lambda: len(self.lines()) > before + 2, "the task prints no more")

    def answers(self) -> None:
        """Waits until exec and stats work, for a task that the agent has recovered."""
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
        """Stops the job through Nomad; returns once Nomad has accepted the stop."""
        self._guest.shell("nomad job stop -detach test")
        self._guest.wait(
            lambda: any(one["Type"] == "Killing" for one in self.events()), "it is not stopped"
        )

    def finish(self) -> None:
        """Ends the task from inside; Nomad may restart the task then."""
        before = len(self.codes())
        self._guest.shell(f"touch /opt/nomad/data/alloc/{self.alloc}/alloc/end")
        self._guest.wait(lambda: len(self.codes()) > before, "the task does not end")

    def codes(self) -> list[int]:
        """Returns the exit codes of all ends of the task."""
        return [int(one["ExitCode"]) for one in self.events() if one["Type"] == "Terminated"]

    def purge(self) -> None:
        """Purges the job in Nomad and checks that nothing of the job is left."""
        self._guest.shell("nomad job stop -detach -purge test; nomad system gc")
        self._guest.wait(lambda: left(self._guest) == "", "the task left something")
