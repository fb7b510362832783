"""Tables of all options, each declared once: name, HCL type, default, check, documentation.

The schemas for Nomad, the checked settings and docs/options.md are built from the tables.
"""

from __future__ import annotations

from plugin.options.driver import OPTIONS as DRIVER_OPTIONS
from plugin.options.driver import driver_settings
from plugin.options.table import Option
from plugin.options.task import GROUPS as TASK_GROUPS
from plugin.options.task import OPTIONS as TASK_OPTIONS
from plugin.options.task import task_options

__all__ = [
    "DRIVER_OPTIONS",
    "TASK_GROUPS",
    "TASK_OPTIONS",
    "Option",
    "driver_settings",
    "task_options",
]
