"""JSON objects as Python has them: OCI specs, CDI files, seccomp profiles."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
