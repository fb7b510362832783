"""A test here that leaves an unclosed connection fails itself, and not a later test."""

from tests.support.garbage import pytest_runtest_teardown

__all__ = ["pytest_runtest_teardown"]
