"""What is known of the unit of a symbol's sizes: lots or shares, and the contract's increments. Pure.

A gateway sends sizes of US stocks in shares or in lots of a round lot, by a box in its settings, and no message says
which. So the unit is judged by the sizes themselves: depth leaves odd lots out, so that sizes in shares are seldom
below a round lot and often a multiple of it (or of 100 shares, which it was at every price until 2025), whereas most
sizes in lots are small numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SHARES, LOTS, CONTRACTS, CURRENCY = "shares", "lots", "contracts", "currency"

UNIT_FIELDS = ("size_unit", "size_fractional", "min_size", "size_increment", "server_version")
"""Fields of the venue hash and of intervals. Those that are not known are left out."""

_UNITS = {"FUT": CONTRACTS, "CONTFUT": CONTRACTS, "OPT": CONTRACTS, "FOP": CONTRACTS, "CASH": CURRENCY}
_JUDGED = ("STK", "ETF")
_MOST_ODD = 0.1  # of sizes in shares, below a round lot
_LEAST_ROUND = 0.25  # of sizes in shares, multiples of one: in lots few are, also of a busy stock
_LEAST_SMALL = 0.8  # of sizes in lots, below what a round lot is in shares

ROUND_LOTS = ((250.0, 100), (1000.0, 40), (10_000.0, 10))
"""US stocks up to this price have this round lot since 2025-11-03, dearer ones 1 (SEC, Regulation NMS, rule 600)."""


class SizeUnit(NamedTuple):
    """The unit of a symbol's sizes, as far as known. size_unit: one of SHARES, LOTS, CONTRACTS, CURRENCY, or empty.

    fractional: a size that is not whole was seen, or the increment is not; server_version: of the gateway, 0: unknown.
    """

    size_unit: str = ""
    size_fractional: bool = False
    min_size: float | None = None
    size_increment: float | None = None
    server_version: int = 0

    def fields(self) -> dict[str, str]:
        """As stored."""
        known = {name: value for name, value in self._asdict().items() if value not in (None, "", 0)}
        return {name: str(int(value) if isinstance(value, bool) else value) for name, value in known.items()}


def unit_of_fields(fields: Mapping[str, str]) -> SizeUnit:
    """Reads what `fields` gave. Raises ValueError for other texts."""
    sizes = {name: float(fields[name]) for name in ("min_size", "size_increment") if name in fields}
    version = int(fields.get("server_version", "0"))
    return SizeUnit(fields.get("size_unit", ""), fields.get("size_fractional") == "1", **sizes, server_version=version)


def unit_of_kind(sec_type: str) -> str:
    """The unit that the kind of contract fixes; empty if it does not."""
    return _UNITS.get(sec_type, "")


def is_judged(sec_type: str, currency: str) -> bool:
    """Whether the unit of such a contract is judged by its sizes: round lots are known of US stocks."""
    return sec_type in _JUDGED and currency == "USD"


def round_lot(price: float) -> int:
    """The round lot of a US stock at this price."""
    return next((lot for most, lot in ROUND_LOTS if price <= most), 1)


def unit_of_sizes(levels: Sequence[tuple[float, float]]) -> str:
    """SHARES or LOTS, judged by many (price, size) of one stock; empty if they leave it open."""
    lots = [(size, round_lot(price)) for price, size in levels if size > 0]
    if not lots or any(lot == 1 for _, lot in lots):
        return ""
    small = _share(size < lot for size, lot in lots)
    round_ones = max(_share(size % lot == 0 for size, lot in lots), _share(size % 100 == 0 for size, _ in lots))
    if small <= _MOST_ODD and round_ones >= _LEAST_ROUND:
        return SHARES
    return LOTS if small >= _LEAST_SMALL else ""


def _share(answers: Iterable[bool]) -> float:
    found = list(answers)
    return sum(found) / len(found)


def change_of(before: SizeUnit, now: SizeUnit) -> str:
    """What changed between two, in words; empty if nothing did that is known of both. A new version alone is none."""
    told = []
    if before.size_unit and now.size_unit and before.size_unit != now.size_unit:
        told.append(f"sizes are in {now.size_unit}, they were in {before.size_unit}")
    for name, words in (("min_size", "the least size"), ("size_increment", "the increment of sizes")):
        was, is_now = getattr(before, name), getattr(now, name)
        if was is not None and is_now is not None and was != is_now:
            told.append(f"{words} is {is_now:g}, it was {was:g}")
    return "; ".join(told)
