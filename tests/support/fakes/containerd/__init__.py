"""A containerd without containers, for events that a real containerd does not produce on demand.

`FakeContainerd` serves the API of `containerd.api.client` on a socket of its own. The fake keeps
its metadata in memory and runs tasks as processes of the tests' user behind `fakes.shim`. The fake
passes tests/contract/test_containerd*.py, as the real containerd does. Unlike the real containerd,
the fake collects only snapshots of containers as garbage, mounts nothing, and reads only the
arguments of the process from a spec.
"""

from tests.support.fakes.containerd.daemon import FakeContainerd
from tests.support.fakes.containerd.faults import Fault

__all__ = ["FakeContainerd", "Fault"]
