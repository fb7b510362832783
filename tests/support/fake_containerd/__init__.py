"""A containerd without containers, for what a real one cannot be made to do on demand.

`FakeContainerd` serves the API that `containerd.api.client` speaks on a socket of its own. It keeps
its metadata in memory and runs tasks as processes of the tests' user behind `fake_shim`. It passes
tests/contract/test_containerd.py, as the real one does. Unlike that one it collects only snapshots
of containers as garbage, mounts nothing, and has no spec but the arguments of the process.
"""

from tests.support.fake_containerd.daemon import FakeContainerd
from tests.support.fake_containerd.faults import Fault

__all__ = ["FakeContainerd", "Fault"]
