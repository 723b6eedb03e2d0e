"""Debian in a folder, by mmdebstrap or, if that is missing, debootstrap; pip in it finds the machine's index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

TOOLS = ("mmdebstrap", "debootstrap")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FROM_BUILDER = re.compile(r"^(PIP_.*|.*_proxy|.*_PROXY|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)$")
"""Variables that let pip reach its index, if the machine has any. They are the builder's, not the root's."""

_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


def missing_tool() -> str:
    """Why no root can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "making a Debian root needs root"
    if not any(shutil.which(tool) for tool in TOOLS):
        return f"neither {' nor '.join(TOOLS)} here (apt-get install mmdebstrap)"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "no mount and PID namespaces here"


def make_root(root: Path, suite: str, packages: Iterable[str], tool: str = "") -> None:
    """Fill the folder `root` with Debian's `suite` and these packages. tool: one of TOOLS, else the first there is."""
    tool = tool or next(name for name in TOOLS if shutil.which(name))
    # both have apt in it; each calls that variant by another name
    variant = {"mmdebstrap": "apt", "debootstrap": "minbase"}[tool]
    command = [tool, f"--variant={variant}", f"--include={','.join(packages)}", suite, str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def share_network(root: Path) -> None:
    """What names hosts and proves who they are, copied into the root."""
    for path in map(Path, _NETWORK):
        if path.is_file():
            inside = root / str(path).lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, inside)


def builder_environment() -> dict[str, str]:
    """The variables of this process by which pip reaches its index."""
    return {name: value for name, value in os.environ.items() if _FROM_BUILDER.match(name)}
