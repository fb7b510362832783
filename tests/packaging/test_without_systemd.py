"""The installed package where no systemd runs: the plugin starts the launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.guests.guest import without_systemd

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

LIFE = """
dpkg -i /root/package.deb
containerd >/var/log/containerd.log 2>&1 &
containerd=$!
until ctr version >/dev/null 2>&1; do sleep 0.1; done
/root/tests/life
/root/tests/make-job 127.0.0.1:1/absent:1 true | containerd-driver spec - >/dev/null
pkill -x cd-launcher
kill $containerd
dpkg -P nomad-driver-containerd
[ ! -e /run/nomad-driver-containerd ]
"""


def test_the_packages_own_test_passes_and_a_purge_leaves_nothing(root: Path) -> None:
    done = without_systemd(root, LIFE)
    assert done.returncode == 0, done.stdout
    assert "all is well" in done.stdout
    assert "Traceback" not in done.stdout
