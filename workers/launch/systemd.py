"""Messages of the launcher to systemd: start, status, and signs of life of the loop.

Protocol: sd_notify(3), by the sdnotify package.
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
    """Sends datagrams to systemd without waiting; sends nothing without an address.

    Args:
        address: value of NOTIFY_SOCKET of a unit; "@" stands for the zero byte of an abstract
            socket.
        watchdog_us: largest time between two signs of life, in µs; 0 for no signs of life.

    Attributes:
        wanted: True if systemd runs this process.
        period_ms: largest time between two calls of `alive`; None without a watchdog.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self.wanted = bool(address)
        self.period_ms: int | None = None
        if self.wanted and watchdog_us > 0:
            self.period_ms = min(_LONGEST_MS, max(1, watchdog_us // _MICROSECONDS // _PINGS))
        self._address = address
        self._systemd: SystemdNotifier | None = None

    def status(self, line: str) -> None:
        """Sets the line that `systemctl status` shows."""
        self._send(f"STATUS={line}")

    def ready(self, line: str) -> None:
        """Reports the start of the unit, with a first status."""
        self._send(f"READY=1\nSTATUS={line}")

    def alive(self) -> None:
        """Sends a sign of life, if systemd wants signs of life."""
        if self.period_ms is not None:
            self._send(WATCHDOG)

    def close(self) -> None:
        """Closes the socket; a later message opens another socket."""
        if self._systemd is not None and self._systemd.socket is not None:
            self._systemd.socket.close()
        self._systemd = None

    def _send(self, text: str) -> None:
        if not self.wanted:
            return
        # sdnotify encodes as Latin-1 and sends no other text. So each byte of the UTF-8 text, and
        # each byte of a path that is not UTF-8, becomes a character of Latin-1.
        data = text.encode(errors="surrogateescape").decode("latin-1")
        for known in (self._systemd, None):  # the earlier receiver may have been replaced
            try:
                self._systemd = known or _connect(self._address)
                self._systemd.notify(data)
            except BlockingIOError:
                return  # systemd does not read now; the next sign of life comes in time
            except OSError:
                self.close()
            else:
                return


def _connect(address: str) -> SystemdNotifier:
    """Connects; sets NOTIFY_SOCKET in the environment while sdnotify reads the variable."""
    os.environ[_ADDRESS] = address
    try:
        systemd = SystemdNotifier(debug=True)
    finally:
        del os.environ[_ADDRESS]
    if systemd.socket is not None:
        systemd.socket.setblocking(False)
    return systemd
