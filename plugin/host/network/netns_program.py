"""Network namespaces with names: a small program of its own, and the only user of pyroute2.

pyroute2 makes a namespace in a fork, which a process with gRPC's threads must not do, and it costs
32 MB: so the host starts this file, with nothing else loaded, when a job wants a namespace.

    python -I netns.py add NAME…          makes them below /var/run/netns, loopback up
    python -I netns.py remove NAME…       removes them; one that is not there is no failure
    python -I netns.py remove-link NAME   removes a network interface of this namespace

Nothing of the product is imported here: this file runs by itself.
"""

from __future__ import annotations

import contextlib
import os
import sys

_LOOPBACK_INDEX = 1


def main(argv: list[str]) -> int:
    """Does what the arguments say; a failure is one line on stderr and status 1."""
    try:
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - heavy, see above
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
