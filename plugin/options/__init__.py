"""Every option, declared once: its HCL, its default, its check and its words.

The schemas that Nomad gets, the validated settings and the README's tables come from the tables.
"""

from __future__ import annotations

from plugin.options.driver import OPTIONS as DRIVER_OPTIONS
from plugin.options.driver import driver_settings
from plugin.options.table import Option, markdown_table
from plugin.options.task import OPTIONS as TASK_OPTIONS
from plugin.options.task import task_options

__all__ = [
    "DRIVER_OPTIONS",
    "TASK_OPTIONS",
    "Option",
    "driver_settings",
    "markdown_table",
    "task_options",
]
