"""The driver as a package of pip: the folders of the checkout, below one name.

Other packages own top-level modules named `proto`, `containerd`, and so on. Imports inside the
folders do not name this package. So the directory of this package is on the module path, as the
private directory of the Debian package is, in the driver's processes alone.
"""

from __future__ import annotations

import os
import site
import sys

_USER_INSTALL = """\
containerd-driver: {place} belongs to one user, and Nomad's plugin reads no module there.
Install containerd-driver into a virtual environment: see docs/install.md
"""


def main() -> int:
    """Runs the command `containerd-driver` and returns its exit status.

    pip writes a script without Python's isolated mode. In this mode neither the environment of an
    agent nor a file beside the script replaces a module.
    """
    package = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    if not sys.flags.isolated:
        if site.ENABLE_USER_SITE and package.startswith(site.getusersitepackages()):
            sys.stderr.write(_USER_INSTALL.format(place=package))
            return 1
        os.execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606
    sys.path.insert(0, package)
    from plugin.main import main as command  # noqa: PLC0415

    return command()
