"""Program that creates and removes named network namespaces: the only user of pyroute2.

pyroute2 forks to create a namespace, and a process with gRPC's threads must not fork. pyroute2 also
costs 32 MB. So the dev host starts the file as a program for each job with namespaces.

    python -I netns_program.py add NAME…         creates namespaces in /var/run/netns, loopback up
    python -I netns_program.py remove NAME…      removes namespaces; a missing one is no failure
    python -I netns_program.py remove-link NAME  removes a network interface of this namespace

The file imports no other module of the product.
"""

from __future__ import annotations

import contextlib
import os
import sys

_LOOPBACK_INDEX = 1


def main(argv: list[str]) -> int:
    """Runs an action; writes a line to stderr for each failure and returns status 1."""
    try:
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - 32 MB
    except ImportError:
        sys.stderr.write("the Python package pyroute2 is missing\n")
        return 1
    action = {"add": _add, "remove": _remove, "remove-link": _remove_link}[argv[0]]
    status = 0
    for name in argv[1:]:
        try:
            action(name)
        except NetlinkError as error:
            sys.stderr.write(f"{name}: {os.strerror(error.code)}\n")
            status = 1
        except OSError as error:
            sys.stderr.write(f"{name}: {error.strerror or error}\n")
            status = 1
    return status


def _add(name: str) -> None:
    from pyroute2 import NetNS, netns  # noqa: PLC0415

    netns.create(name)
    with contextlib.closing(NetNS(name, flags=0)) as inside:
        inside.link("set", index=_LOOPBACK_INDEX, state="up")


def _remove(name: str) -> None:
    from pyroute2 import netns  # noqa: PLC0415

    with contextlib.suppress(FileNotFoundError):
        netns.remove(name)


def _remove_link(name: str) -> None:
    from pyroute2 import IPRoute  # noqa: PLC0415

    with contextlib.closing(IPRoute()) as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
