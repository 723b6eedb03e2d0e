"""The systemd units as they are in the repository, read as systemd reads them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from ibkr_depth_pipeline_tests.conftest import REPOSITORY

SYSTEMD = REPOSITORY / "deploy" / "systemd"
SERVICES = ("code", "web", "daemon")
INSTALLED = "/opt/ibkr_depth_pipeline"


def unit_path(service: str) -> Path:
    return SYSTEMD / f"ibkr-depth-{service}.service"


def unit_values(service: str, key: str) -> list[str]:
    """The values of `key`, in the order of the file."""
    lines = unit_path(service).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def command(service: str) -> list[str]:
    """ExecStart, with this checkout and this interpreter's scripts in the place of the installed ones."""
    (line,) = unit_values(service, "ExecStart")
    scripts = str(Path(sys.executable).parent)
    return shlex.split(line.replace(f"{INSTALLED}/.venv/bin", scripts).replace(INSTALLED, str(REPOSITORY)))
