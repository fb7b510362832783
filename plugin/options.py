"""Every option, declared once: its HCL, its default, its check and its words.

The schemas that Nomad gets, the validated settings and the README's tables come from the tables.
"""

from __future__ import annotations

from plugin.driver_options import OPTIONS as DRIVER_OPTIONS
from plugin.driver_options import driver_settings
from plugin.option import Option, markdown_table
from plugin.task_options import OPTIONS as TASK_OPTIONS
from plugin.task_options import task_options

__all__ = [
    "DRIVER_OPTIONS",
    "TASK_OPTIONS",
    "Option",
    "driver_settings",
    "markdown_table",
    "task_options",
]
