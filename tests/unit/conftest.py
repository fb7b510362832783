"""Makes a unit test fail if the test leaves an unclosed connection; no later test fails."""

from tests.support.garbage import pytest_runtest_teardown

__all__ = ["pytest_runtest_teardown"]
