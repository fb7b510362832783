"""Services of jobs with Consul Connect."""

from __future__ import annotations

import re

from tests.support.plugin.plugin_dir import ROOT

_SERVICE = """
    network {
      mode = "bridge"
    }
    service {
      name = "NAME"
      port = "PORT"
      connect {
        sidecar_service {
          PROXY
        }
        SIDECAR_TASK
      }
    }
"""


def service(name: str, port: int, proxy: str = "") -> str:
    """Returns a group's network and service, with a proxy that is a task of the driver.

    Args:
        name: name of the service.
        port: the service's port in the group's network.
        proxy: the `proxy` block.
    """
    block = _SERVICE.replace("NAME", name).replace("PORT", str(port)).replace("PROXY", proxy)
    return block.replace("SIDECAR_TASK", _sidecar_task())


def _sidecar_task() -> str:
    """Returns the block of docs/networking.md which makes a proxy a task of the driver."""
    page = (ROOT / "docs/networking.md").read_text()
    block = re.search(r"^```hcl\n(sidecar_task \{.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert block is not None, "docs/networking.md has no sidecar_task"
    return block[1]
