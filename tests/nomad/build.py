"""Builds the real parts of the tests: two Nomad agents, plugin hosts, a CSI plugin, Consul.

Each part is a Go program with a separate folder, see `tests.support.go_build`. By hand:

    python -m tests.nomad.build            builds all, prints their paths
    python -m tests.nomad.build agent      builds the agent of the oldest supported Nomad only

`NOMAD_BIN` names a `nomad` to use instead of both agents.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.go_build import Builder, BuildError, Target, build_by_hand

HERE = Path(__file__).resolve().parent
REMEDY = (
    "install Go 1.21 or newer from go.dev, or point NOMAD_BIN at a nomad to run the agent's tests"
    " with"
)
BUILDER = Builder(
    modules=HERE,
    cache=Path("~/.cache/containerd-driver/nomad").expanduser(),
    without_go=REMEDY,
)
NEWER_AGENT = "agent-1.6.2"
"""An agent that asks drivers for their capability to collect logs: Nomad 1.6 or newer."""
AGENTS = ("agent", NEWER_AGENT)
CONSUL = "consul"
"""Built by hand only: the first build takes as long as a Nomad agent's."""
# From Nomad 1.7 on an agent sends processor data to plugins: the tag adds the data.
TARGETS = {
    "agent": Target(folder="agent"),
    NEWER_AGENT: Target(folder="agent", modfile="go.v1.6.mod"),
    "host-1.5.17": Target(folder="host"),
    "host-1.11.0": Target(folder="host", modfile="go.v1.11.mod", tags="topology"),
    # The program runs in an image without a C library.
    "csi": Target(folder="csi", tags="netgo,osusergo"),
    CONSUL: Target(folder="consul"),
}


def build(name: str) -> Path:
    """Returns the path of the program, and builds the program unless the cache has a copy.

    Raises:
        BuildError: Go is missing or the build failed.
    """
    given = os.environ.get("NOMAD_BIN", "")
    if name in AGENTS and given:
        if not os.access(given, os.X_OK):
            raise BuildError(f"NOMAD_BIN={given} is not an executable file")
        return Path(given)
    return BUILDER.build(name, TARGETS[name])


def built_consul() -> Path | None:
    """Returns the path of `CONSUL_BIN`, or of the program in the cache; None without either.

    Raises:
        BuildError: Go is missing, or `CONSUL_BIN` is no program.
    """
    given = os.environ.get("CONSUL_BIN", "")
    if given:
        if not os.access(given, os.X_OK):
            raise BuildError(f"CONSUL_BIN={given} is not an executable file")
        return Path(given)
    return BUILDER.kept(CONSUL, TARGETS[CONSUL])


if __name__ == "__main__":
    sys.exit(build_by_hand(sys.argv[1:], TARGETS, build))
