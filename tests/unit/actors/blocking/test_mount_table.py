"""The table of mounted file servers is read after each change, and only then."""

from __future__ import annotations

from actors.blocking.mount_table import MountTable

LINE = b"36 1 0:32 / /mnt/share rw,relatime shared:1 - nfs4 host:/export rw\n"
LOCAL = b"37 1 0:33 / /run/rootfs rw - overlay overlay rw,lowerdir=/a\n"


def test_a_table_is_kept_until_a_mount_changes() -> None:
    answers: list[bytes | None] = [LOCAL, None, LOCAL + LINE, None, LOCAL]
    table = MountTable(lambda: answers.pop(0))
    assert [list(table.servers()) for _ in range(5)] == [
        [],
        [],
        ["/mnt/share"],
        ["/mnt/share"],
        [],
    ]
