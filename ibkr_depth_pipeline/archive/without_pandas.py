"""Keeps pandas out of a process that makes Arrow arrays of Python's own lists: the archiver.

With the first array that it makes pyarrow imports pandas, if that is installed, to know whether it is given a Series:
40 MB for nothing. It tries once, and goes on without. This module is the only user of that, which is not documented. An
array of no stated type has it try once more, so that all of the archiver's have one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """As if pandas were not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def keep_pandas_out() -> None:
    """Lets pyarrow find no pandas, unless it is imported already. `import pandas` and `to_pandas` work afterwards."""
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([], pa.int64())
    finally:
        sys.meta_path.remove(finder)
