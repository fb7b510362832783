"""Places of CNI plugins."""

from __future__ import annotations

CNI_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni")
"""Directories of CNI plugins in the order of the search: Nomad's default, then Debian's."""
