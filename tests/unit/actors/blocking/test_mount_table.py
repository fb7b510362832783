"""The age of a mount table: cheap tables are always new, expensive ones are used again."""

from __future__ import annotations

from actors.blocking.mount_table import MountTable

LINE = b"36 1 0:32 / /mnt/share rw,relatime shared:1 - nfs4 host:/export rw\n"
LOCAL = b"37 1 0:33 / /run/rootfs rw - overlay overlay rw,lowerdir=/a\n"


class Machine:
    """A machine whose mount table takes `cost_s` seconds of CPU to read."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.now = self.cpu = 0.0
        self.readings = 0
        self.mounts = LOCAL
        self.table = MountTable(self.read, lambda: self.now, lambda: self.cpu)

    def read(self) -> bytes:
        self.readings += 1
        self.cpu += self.cost_s
        return self.mounts

    def points(self) -> list[str]:
        return list(self.table.servers())


def test_a_table_that_costs_nothing_is_read_each_time() -> None:
    machine = Machine(0.0)
    assert machine.points() == []
    machine.mounts += LINE
    assert machine.points() == ["/mnt/share"]


def test_a_table_is_used_again_for_a_hundred_times_its_cost() -> None:
    machine = Machine(0.002)
    machine.points()
    machine.mounts += LINE
    machine.now = 0.19
    assert machine.points() == []
    machine.now = 0.21
    assert machine.points() == ["/mnt/share"]
    assert machine.readings == 2


def test_no_table_is_older_than_a_second() -> None:
    machine = Machine(0.5)
    machine.points()
    machine.now = 0.99
    machine.points()
    assert machine.readings == 1
    machine.now = 1.01
    machine.points()
    assert machine.readings == 2


def test_starts_in_a_row_read_at_most_one_hundredth_of_the_time() -> None:
    machine = Machine(0.004)
    for start in range(2000):
        machine.now = start * 0.02
        machine.points()
        machine.points()
    assert machine.cpu <= machine.now / 100 + 2 * machine.cost_s
