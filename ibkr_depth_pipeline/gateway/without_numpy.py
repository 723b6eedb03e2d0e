"""Imports eventkit, which ib_insync needs, without numpy, which it has for operators that nobody uses here.

That saves 10 MB, and a tenth of a second of each start. To be imported before ib_insync. What eventkit imports is not
documented, and of concern to this module alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _OnDemand(ModuleType):
    """Stands for numpy within eventkit, which gets the real one with the first use of anything of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module("numpy"), name)


if "numpy" not in sys.modules and "eventkit" not in sys.modules:
    sys.modules["numpy"] = _OnDemand("numpy")
    try:
        import_module("eventkit")
    finally:
        del sys.modules["numpy"]
