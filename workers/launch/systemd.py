"""What the launcher tells systemd: that it serves, what it does, that its loop still turns.

Protocol: sd_notify(3), spoken by the sdnotify package.
"""

from __future__ import annotations

import os

from sdnotify import SystemdNotifier

WATCHDOG = "WATCHDOG=1"
_ADDRESS = "NOTIFY_SOCKET"
_MICROSECONDS = 1000
_PINGS = 3
_LONGEST_MS = 3_600_000


class Notifier:
    """Sends datagrams to systemd; nobody waits for it, and without an address nobody hears.

    Args:
        address: what a unit has as NOTIFY_SOCKET; "@" stands for an abstract socket's zero byte.
        watchdog_us: within which systemd wants a sign of life; 0 where it wants none.

    Attributes:
        wanted: whether systemd runs this.
        period_ms: how often to call `alive` at least; None is never.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self.wanted = bool(address)
        self.period_ms: int | None = None
        if self.wanted and watchdog_us > 0:
            self.period_ms = min(_LONGEST_MS, max(1, watchdog_us // _MICROSECONDS // _PINGS))
        self._address = address
        self._systemd: SystemdNotifier | None = None

    def status(self, line: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(f"STATUS={line}")

    def ready(self, line: str) -> None:
        """The unit has started, with its first status."""
        self._send(f"READY=1\nSTATUS={line}")

    def alive(self) -> None:
        """A sign of life, where one is wanted."""
        if self.period_ms is not None:
            self._send(WATCHDOG)

    def close(self) -> None:
        """Lets the socket go; what is said later opens another."""
        if self._systemd is not None and self._systemd.socket is not None:
            self._systemd.socket.close()
        self._systemd = None

    def _send(self, text: str) -> None:
        if not self.wanted:
            return
        # sdnotify sends Latin-1, and nothing of a text that is not: these are the bytes of UTF-8,
        # and of a path's that are none.
        data = text.encode(errors="surrogateescape").decode("latin-1")
        for known in (self._systemd, None):  # who listened before may have been replaced
            try:
                self._systemd = known or _connect(self._address)
                self._systemd.notify(data)
            except BlockingIOError:
                return  # it does not read; the next sign of life comes in time
            except OSError:
                self.close()
            else:
                return


def _connect(address: str) -> SystemdNotifier:
    """Names systemd in the environment as long as sdnotify looks there."""
    os.environ[_ADDRESS] = address
    try:
        systemd = SystemdNotifier(debug=True)
    finally:
        del os.environ[_ADDRESS]
    if systemd.socket is not None:
        systemd.socket.setblocking(False)
    return systemd
