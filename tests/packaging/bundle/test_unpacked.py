"""The unpacked archive on Debian without Python and without systemd: tasks, names, CAs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.bundle.bare_guest import BARE_SUITES, HOME, IMPORT, bare_root
from tests.support.guests.guest import ROOT, without_systemd
from tests.support.needs import missing

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

# No module of the first three is there, or fits the archive's C library.
NAMES = "hosts: sss nowhere [!UNAVAIL=return] resolve [!UNAVAIL=return] files myhostname dns"
LOOK_UP = """
import pwd, socket
assert socket.getaddrinfo("registry.example", 443)[0][4][0] == "192.0.2.7"
assert pwd.getpwnam("nobody").pw_uid == 65534
try:
    socket.getaddrinfo("absent.example", 443)
except socket.gaierror:
    print("resolves")
"""
CAS = """
import sys
sys.path.insert(0, sys.argv[1])
from containerd.registry.hosts import Endpoint
from containerd.registry.tls import context
print(context(Endpoint(host="r.example")).cert_store_stats()["x509_ca"])
"""


@pytest.fixture(scope="module", params=BARE_SUITES)
def root(request: pytest.FixtureRequest, archive: Path) -> Iterator[Path]:
    """Yields a root of each suite without Python."""
    with bare_root(str(request.param), archive) as made:
        yield made


def test_names_resolve_whatever_the_machine_names_for_look_ups(root: Path) -> None:
    (root / "etc/nsswitch.conf").write_text(f"passwd: sss nowhere files\n{NAMES}\n")
    (root / "root/look_up.py").write_text(LOOK_UP)
    script = f"""
    echo 192.0.2.7 registry.example >>/etc/hosts
    {HOME}/python/bin/python3 -I /root/look_up.py
    """
    done = without_systemd(root, script)
    assert "resolves" in done.stdout.splitlines()


def test_the_systems_cas_are_found_where_rhel_has_them(root: Path) -> None:
    file = next(Path("/etc/ssl/certs").glob("*.pem"), None)
    if file is None:
        missing("packaging", "this machine has no CAs: install ca-certificates")
    place = root / "etc/pki/tls/certs"
    place.mkdir(parents=True)
    shutil.copy(file, place / "ca-bundle.crt")
    (root / "root/cas.py").write_text(CAS)
    done = without_systemd(root, f"{HOME}/python/bin/python3 -I /root/cas.py {HOME}/driver")
    assert "1" in done.stdout.splitlines()


def test_an_unpacked_archive_runs_tasks_without_systemd_and_writes_nothing(root: Path) -> None:
    script = f"""
    find {HOME} | sort >/root/before
    containerd >/var/log/containerd.log 2>&1 &
    until ctr version >/dev/null 2>&1; do sleep 0.1; done
    {IMPORT}
    mkdir -p /opt/plugins
    ln -s {HOME}/plugins/containerd-driver /opt/plugins/
    PATH=$PATH:/opt/plugins
    containerd-driver doctor
    containerd-driver run --plugin /opt/plugins/containerd-driver /root/job.json
    pgrep -x cd-launcher
    find {HOME} | sort | diff /root/before -
    echo all is well
    """
    words = [
        str(ROOT / "packaging/debian/tests/make-job"),
        "127.0.0.1:1/busybox:1",
        "echo hello from the task",
    ]
    made = subprocess.run(words, check=True, capture_output=True)
    (root / "root/job.json").write_bytes(made.stdout)
    done = without_systemd(root, script)
    assert done.returncode == 0, done.stdout
    assert "hello from the task" in done.stdout
    assert "all is well" in done.stdout.splitlines()
    assert "Traceback" not in done.stdout
