"""One entry of the universe, as everything past the file has it."""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.futures import RollRule


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One entry of the universe, overrides already applied. None means: ask the gateway.

    `name` is what it is recorded under: Redis keys, asset, archive. It is the symbol unless the entry has another one;
    `symbol` is IBKR's: by default the name, but empty where a con_id or a local symbol says enough.
    pin: it keeps a slot while its market is open. weight: turns for each one of an entry of weight 1. hours: which of
    its contract's hours it is recorded in (None: liquid for a stock, trading for anything else).
    """

    symbol: str
    exchange: str | None = None
    primary_exchange: str | None = None
    sec_type: str | None = None
    currency: str | None = None
    con_id: int | None = None
    pin: bool = False
    weight: int = 1
    hours: str | None = None
    name: str = ""
    local_symbol: str | None = None
    trading_class: str | None = None
    multiplier: str | None = None
    expiry: str | None = None
    strike: float | None = None
    right: str | None = None
    roll: RollRule | None = None

    def __post_init__(self) -> None:
        """The name is the symbol unless it is given."""
        object.__setattr__(self, "name", self.name or self.symbol)
