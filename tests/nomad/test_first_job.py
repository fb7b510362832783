"""README's commands for a first job, on a real agent."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.nomad.api import NomadApi
from tests.support.nomad.nomad_agent import NomadAgent
from tests.support.plugin.plugin_dir import ROOT

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]


def test_nomad_runs_the_first_job_and_has_its_log(
    nomad_agent: NomadAgent, nomad: NomadApi, busybox_image: str
) -> None:
    def run(*words: str) -> str:
        return subprocess.run(
            [nomad_agent.binary, *words],
            check=True,
            capture_output=True,
            text=True,
            env={"NOMAD_ADDR": nomad.address},
            timeout=90,
        ).stdout

    run("job", "run", "-var", f"image={busybox_image}", str(ROOT / "example" / "hello.nomad"))
    assert nomad.wait_over(nomad.allocs("hello")[0]["ID"])["ClientStatus"] == "complete"
    lines = run("alloc", "logs", "-job", "hello").splitlines()
    assert [line.rpartition(" from ")[0] for line in lines] == [f"hello {n}" for n in range(1, 6)]
