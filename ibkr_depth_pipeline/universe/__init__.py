"""The universe: what is recorded. config/ibkr_symbols.yaml -> Universe of SymbolSpec, followed while it changes.

spec.py is an entry as everything past the file has it, terms.py what an entry may say of its contract, file.py reads
and checks a file, changes.py follows it.
"""

from __future__ import annotations

from ibkr_depth_pipeline.universe.file import OPTIONAL_KEYS, Universe, load_universe, parse_universe
from ibkr_depth_pipeline.universe.spec import SymbolSpec

__all__ = ["OPTIONAL_KEYS", "SymbolSpec", "Universe", "load_universe", "parse_universe"]
