"""Objects of a `with` block, which end with the block."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """An object of a `with` block; also a failed `enter` closes the object."""

    def enter(self) -> None:
        """Starts the parts that the block needs; does nothing without such parts."""

    def close(self) -> None:
        """Ends the object and everything that the object has started."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.enter()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
