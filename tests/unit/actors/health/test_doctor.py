"""Findings of the doctor on machines with a missing need."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from actors.health import doctor
from actors.health.findings import Finding, Verdict
from actors.model.gates import HARDENED, Gates
from actors.model.node import Node, this_node
from actors.model.settings import DriverSettings
from containerd import daemon_process
from containerd.daemon_process import DaemonProcess
from plugin.cli import doctor as doctor_command
from tests.support.fakes.containerd import FakeContainerd
from workers import identity, protocol


def node(tmp_path: Path, *, cgroup_v2: bool = True, **settings: object) -> Node:
    state = tmp_path / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    chosen = {
        "containerd_address": str(tmp_path / "nobody.sock"),
        "state_dir": str(state),
        "registry_config_path": str(tmp_path / "certs.d"),
        **settings,
    }
    made = this_node(DriverSettings(**chosen))  # type: ignore[arg-type]
    return dataclasses.replace(made, cgroup_v2=cgroup_v2)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Creates the files of a machine without a fault."""
    root = tmp_path / "root"
    for path, text in (
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n"),
        ("sys/module/apparmor/parameters/enabled", "Y\n"),
        ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"),
        ("proc/sys/fs/pipe-max-size", "1048576\n"),
        ("proc/sys/fs/pipe-user-pages-soft", "16384\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
        *((f"opt/cni/bin/{name}", "") for name in ("bridge", "firewall", "host-local")),
        *((f"usr/lib/cni/{name}", "") for name in ("loopback", "portmap")),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


async def findings(
    made: Node, root: Path, proxies: dict[str, str] | None = None
) -> dict[str, list[Finding]]:
    try:
        examined = await doctor.examine(made, root, proxies)
    finally:
        await made.containerd.close()
    found: dict[str, list[Finding]] = {}
    for finding in examined:
        found.setdefault(finding.subject, []).append(finding)
    return found


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the doctor looks as root")


async def test_without_containerd_no_task_can_run(tmp_path: Path, machine: Path) -> None:
    found = await findings(node(tmp_path), machine)
    [about] = found["containerd"]
    assert about.verdict is Verdict.FAIL
    assert str(tmp_path / "nobody.sock") in about.text
    assert "No such file or directory" in about.text
    assert "grpc" not in about.text
    assert "systemctl start containerd" in about.advice


async def test_each_deprecation_that_containerd_reports_is_a_warning(
    tmp_path: Path, machine: Path
) -> None:
    with FakeContainerd() as fake:
        fake.deprecations = {"io.containerd.deprecation/a-b": "A goes with 2.9. Use B."}
        found = await findings(node(tmp_path, containerd_address=fake.address), machine)
    [about] = found["deprecated"]
    assert about.verdict is Verdict.WARN
    assert about.text == "containerd 1.6.20 warns of a-b: A goes with 2.9. Use B."
    assert about.advice


async def test_a_machine_that_has_everything_gets_no_warning_but_for_containerd(
    tmp_path: Path, machine: Path
) -> None:
    found = await findings(node(tmp_path), machine)
    unwell = [f for many in found.values() for f in many if f.verdict is not Verdict.OK]
    # The test machine's own programs are not part of the machine of files.
    assert {f.subject for f in unwell} <= {
        *("containerd", "runtime", "init", "runc", "crun", "runsc", "holes")
    }


@pytest.mark.parametrize(
    ("path", "text", "subject", "words"),
    [
        ("sys/fs/cgroup/cgroup.controllers", "cpu pids", "cgroups", "v2 without cpuset, memory"),
        ("opt/cni/bin/bridge", None, "cni", "no bridge in /opt/cni/bin or /usr/lib/cni"),
        ("proc/sys/kernel/seccomp/actions_avail", None, "seccomp", "the kernel has no seccomp"),
        ("proc/sys/net/bridge/bridge-nf-call-iptables", "0\n", "bridge", "loses packets"),
    ],
)
async def test_what_is_missing_is_named_with_advice(
    tmp_path: Path, machine: Path, path: str, text: str | None, subject: str, words: str
) -> None:
    if text is None:
        (machine / path).unlink()
    else:
        (machine / path).write_text(text)
    [about] = (await findings(node(tmp_path), machine))[subject]
    assert about.verdict is Verdict.WARN
    assert words in about.text
    assert about.advice


@pytest.mark.parametrize(
    ("enabled", "profile", "verdict", "words"),
    [
        ("Y\n", "", Verdict.OK, "tasks get no profile by default"),
        ("Y\n", "web", Verdict.OK, "tasks get web by default"),
        ("Y\n", "other", Verdict.FAIL, "the profile other of default_apparmor is not loaded"),
        ("N\n", "", Verdict.OK, "jobs with a profile do not start"),
        ("N\n", "web", Verdict.WARN, "default_apparmor has no effect"),
    ],
)
async def test_a_default_profile_is_held_against_the_kernel(
    tmp_path: Path, machine: Path, enabled: str, profile: str, verdict: Verdict, words: str
) -> None:
    (machine / "sys/module/apparmor/parameters/enabled").write_text(enabled)
    (machine / "sys/kernel/security/apparmor").mkdir(parents=True)
    (machine / "sys/kernel/security/apparmor/profiles").write_text("web (enforce)\nx (complain)\n")
    made = node(tmp_path, gates=Gates(default_apparmor=profile))
    about = (await findings(made, machine))["apparmor"][0]
    assert about.verdict is verdict
    assert words in about.text
    assert bool(about.advice) == (verdict is not Verdict.OK)


@pytest.mark.parametrize("launched", [False, True])
async def test_logs_that_cannot_grow_are_told_with_how_far_they_do(
    tmp_path: Path, machine: Path, launched: bool
) -> None:
    made, pid = node(tmp_path), os.getpid()
    here = machine / "proc" / (str(pid) if launched else "self") / "status"
    here.parent.mkdir(exist_ok=True)
    here.write_text("CapEff:\t00000000a80425fb\n")  # the default of a container
    if launched:
        lock = f"{pid} {identity.start_ticks(pid)} 1.1.0\n"
        (made.state_dir / protocol.LAUNCHER_LOCK).write_text(lock)
    [about] = (await findings(made, machine))["logs"]
    assert about.verdict is Verdict.WARN
    assert "each log holds 1 MiB without a reader, not log_buffer.size (16 MiB)" in about.text
    assert "all pipes of this user together hold 64 MiB" in about.text
    assert (f"the launcher (pid {pid})" in about.text) is launched
    assert "sysctl fs.pipe-max-size=16777216" in about.advice
    assert (
        Verdict.OK
        is (await findings(node(tmp_path, log_buffer_bytes=1 << 20), machine))["logs"][0].verdict
    )
    here.write_text("CapEff:\t0000000001000000\n")
    [about] = (await findings(made, machine))["logs"]
    assert (about.verdict, about.text) == (Verdict.OK, "each log holds 16 MiB without a reader")


@pytest.mark.parametrize(
    ("ulimits", "daemon", "finding"),
    [
        ({}, (1024, 524288, True), (Verdict.OK, "tasks get 1024 (soft) and 524288 (hard)")),
        ({}, (10**9, 10**9, False), (Verdict.OK, "524288 (hard), containerd has 1000000000")),
        ({}, (4096, 4096, True), (Verdict.OK, "containerd has 4096")),
        ({}, (4096, 4096, False), (Verdict.WARN, "4096 (hard), containerd has 4096 and cannot")),
        ({"nofile": (1, 4097)}, (4096, 4096, False), (Verdict.FAIL, "cannot grant more: no task")),
        ({"nofile": (1, 10**8)}, (1, 10**9, True), (Verdict.FAIL, "kernel allows 1048576: no")),
        ({"core": (0, 0)}, (1024, 524288, True), (Verdict.OK, "tasks get 1024 (soft)")),
    ],
)
async def test_the_open_files_of_tasks_are_told(
    tmp_path: Path,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    ulimits: dict[str, tuple[int, int]],
    daemon: tuple[int, int, bool],
    finding: tuple[Verdict, str],
) -> None:
    (machine / "proc/sys/fs/nr_open").write_text("1048576\n")
    soft, hard, raises = daemon
    process = DaemonProcess(open_files=(soft, hard), raises_limits=raises)
    monkeypatch.setattr(daemon_process, "inspect", lambda _: process)
    [about] = (await findings(node(tmp_path, default_ulimits=ulimits), machine))["open files"]
    verdict, text = finding
    assert about.verdict is verdict
    assert text in about.text
    assert bool(about.advice) is (verdict is not Verdict.OK)


async def test_every_wrong_file_of_a_registry_is_named(tmp_path: Path, machine: Path) -> None:
    for name, text in (("one:5000", "server = 1"), ("two", "][")):
        (tmp_path / "certs.d" / name).mkdir(parents=True)
        (tmp_path / "certs.d" / name / "hosts.toml").write_text(text)
    wrong, also_wrong, rest = (await findings(node(tmp_path), machine))["registries"]
    assert "one:5000" in wrong.text
    assert "server" in wrong.text
    assert "two" in also_wrong.text
    assert rest.text.startswith("0 with settings")


async def test_credentials_that_no_pull_can_read_are_told_without_showing_them(
    tmp_path: Path, machine: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"auths": "geheim"')
    made = node(tmp_path, auth_config=str(config), auth_helper="no-such-helper")
    unreadable, no_program = (await findings(made, machine))["auth"]
    assert "is not JSON" in unreadable.text
    assert "geheim" not in unreadable.text
    assert "docker-credential-no-such-helper" in no_program.text


async def test_proxies_are_told_without_their_passwords(tmp_path: Path, machine: Path) -> None:
    proxies = {"HTTPS_PROXY": "http://u:geheim@proxy.example:3128", "NO_PROXY": ".example"}
    [well] = (await findings(node(tmp_path), machine, proxies))["proxy"]
    assert well.verdict is Verdict.OK
    assert "https through http://proxy.example:3128" in well.text
    assert ".example directly" in well.text
    [wrong] = (await findings(node(tmp_path), machine, {"HTTP_PROXY": "socks5://u:geheim@p:1"}))[
        "proxy"
    ]
    assert wrong.verdict is Verdict.WARN
    assert "HTTP_PROXY" in wrong.text
    assert "geheim" not in f"{well}{wrong}"
    [none] = (await findings(node(tmp_path), machine))["proxy"]
    assert none.text.startswith("none in this environment")


async def test_a_state_directory_that_others_may_enter_is_a_failure(
    tmp_path: Path, machine: Path
) -> None:
    made = node(tmp_path)
    made.state_dir.chmod(0o755)
    (about,) = (await findings(made, machine))["state"]
    assert about.verdict is Verdict.FAIL
    assert f"chmod 700 {made.state_dir}" in about.advice


@pytest.mark.parametrize("below", ["", "state"])
async def test_a_state_directory_that_cannot_be_one_is_a_failure(
    tmp_path: Path, machine: Path, below: str
) -> None:
    (tmp_path / "file").write_text("")
    made = node(tmp_path, state_dir=str(tmp_path / "file" / below))
    (about,) = (await findings(made, machine))["state"]
    assert (about.verdict, about.text) == (Verdict.FAIL, f"{tmp_path}/file is no directory")


async def test_a_runtime_that_is_not_installed_is_a_failure(tmp_path: Path, machine: Path) -> None:
    made = node(tmp_path, containerd_runtime="io.containerd.nosuch.v2")
    about = (await findings(made, machine))["runtime"][0]
    assert about.verdict is Verdict.FAIL
    assert "containerd-shim-nosuch-v2" in about.text


def test_the_table_lines_up() -> None:
    text = doctor_command.table(
        [
            Finding(subject="a", verdict=Verdict.OK, text="one"),
            Finding(subject="longer", verdict=Verdict.FAIL, text="two", advice="do this"),
        ]
    )
    assert text == "ok    a       one\nfail  longer  two\n              → do this\n"


def test_the_table_is_as_narrow_as_the_terminal() -> None:
    finding = Finding(
        subject="a",
        verdict=Verdict.FAIL,
        text="one two three four five",
        advice="do this then that",
    )
    assert doctor_command.table([finding], width=27).splitlines() == [
        "fail  a  one two three four",
        "         five",
        "         → do this then",
        "           that",
    ]


async def test_open_gates_are_named_for_the_node_and_for_a_namespace(
    tmp_path: Path, machine: Path
) -> None:
    made = node(tmp_path, gates=HARDENED, namespace_gates={"infra": Gates()})
    hardened, infra = [about.text for about in (await findings(made, machine))["gates"]]
    assert hardened.startswith("open for jobs: allow_registries, allow_snapshotters;")
    assert infra.startswith("open for jobs of namespace infra: allow_privileged, volumes,")
