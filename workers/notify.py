"""What the launcher tells systemd: that it serves, what it does, that its loop still turns.

Not by the sdnotify package: it brings in the Python half of `socket`, 0.04 to 0.1 MB of each worker
(see `bare`), and finds systemd in the environment, which would show in every worker's. The unit
hands the address over as an argument.
"""

from __future__ import annotations

from workers import bare

WATCHDOG = b"WATCHDOG=1"
_MICROSECONDS = 1000
_PINGS = 3


class Notifier:
    """Sends datagrams to systemd; nobody waits for it, and without an address nobody hears.

    Args:
        address: what a unit has as NOTIFY_SOCKET; "@" stands for an abstract socket's zero byte.
        watchdog_us: within which systemd wants a sign of life; 0 where it wants none.

    Attributes:
        period_ms: how often to call `alive` at least; None is never.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self.period_ms: int | None = None
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: bare.socket | None = None
        if address:
            kind = bare.SOCK_DGRAM | bare.SOCK_CLOEXEC | bare.SOCK_NONBLOCK
            self._socket = bare.socket(bare.AF_UNIX, kind)
            if watchdog_us > 0:
                self.period_ms = max(1, watchdog_us // _MICROSECONDS // _PINGS)

    @property
    def wanted(self) -> bool:
        """Whether systemd runs this."""
        return self._socket is not None

    def status(self, line: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(b"STATUS=" + line.encode())

    def ready(self, line: str) -> None:
        """The unit has started, with its first status."""
        self._send(b"READY=1\nSTATUS=" + line.encode())

    def alive(self) -> None:
        """A sign of life, where one is wanted."""
        if self.period_ms is not None:
            self._send(WATCHDOG)

    def close(self) -> None:
        """Says no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(data, self._address)
        except OSError:
            return  # systemd is being replaced; the next sign of life comes in time
