"""What differs between two universes: who is new, who left, whose wishes and whose contract changed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ibkr_depth_pipeline.universe import SymbolSpec, Universe, load_universe


@dataclass(frozen=True, slots=True)
class UniverseChange:
    """From one universe to `universe`: names of the removed entries, and the new text of all others that differ.

    wishes: only pin, weight or hours differ. contracts: what is asked of IBKR differs, so it is resolved again.
    """

    universe: Universe
    added: tuple[SymbolSpec, ...] = ()
    removed: tuple[str, ...] = ()
    wishes: tuple[SymbolSpec, ...] = ()
    contracts: tuple[SymbolSpec, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing that matters differs; the order of the entries may."""
        return not (self.added or self.removed or self.wishes or self.contracts)

    def in_words(self) -> dict[str, list[str]]:
        """The names, for the log."""
        return {
            "added": [spec.name for spec in self.added],
            "removed": list(self.removed),
            "changed": [spec.name for spec in (*self.contracts, *self.wishes)],
        }


def change_between(before: Universe, after: Universe) -> UniverseChange:
    """What leads from `before` to `after`."""
    old = {spec.name: spec for spec in before.specs}
    new = {spec.name: spec for spec in after.specs}
    kept = [(old[name], spec) for name, spec in new.items() if name in old]
    contracts = [spec for was, spec in kept if _without_wishes(was) != _without_wishes(spec)]
    return UniverseChange(
        universe=after,
        added=tuple(spec for name, spec in new.items() if name not in old),
        removed=tuple(name for name in old if name not in new),
        wishes=tuple(spec for was, spec in kept if was != spec and spec not in contracts),
        contracts=tuple(contracts),
    )


def contract_text(spec: SymbolSpec) -> str:
    """The entry as text, as far as the contract goes: the same text means the same question to IBKR."""
    return repr(_without_wishes(spec))


def _without_wishes(spec: SymbolSpec) -> SymbolSpec:
    return replace(spec, pin=False, weight=1, hours=None)


@dataclass(frozen=True, slots=True)
class UniverseFile:
    """Where a run's universe comes from: the file, and the symbols that it is restricted to, if any.

    slots: IBKR_MAX_CONCURRENT_DEPTH of the run, which bounds the pins.
    """

    path: Path
    symbols: tuple[str, ...] = ()
    slots: int = 60

    def load(self) -> Universe:
        """The universe as the file has it now. Raises ConfigurationError."""
        universe = load_universe(self.path)
        if self.symbols:
            universe = universe.subset(self.symbols)
        universe.check_pins(self.slots, str(self.path.absolute()))
        return universe
