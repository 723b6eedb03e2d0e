"""Which contract of a futures chain is in force, and when the next one takes its place. Pure; `now` is unix seconds.

`front` is the first contract, by last trade date, whose roll has not come yet; `front+1` the one after it. The rule of
an operator counts calendar days back from the last trade date. Without one:

- 5 days before the last trade date, at 17:00 in the contract's own time zone. For CME's equity index futures, which
  expire on the third Friday, that is the Sunday evening on which Monday's session begins: CME's own roll date since
  June 2022 (cmegroup.com, "Equity Index Roll Dates"). Other cash-settled futures follow within days of their volume.
- For contracts that are delivered (CBOT, COMEX, NYMEX and their like): 5 days before the last trade date or before the
  first day of the contract month, whichever is earlier. Notices of delivery begin on the last business day before that
  month, and the volume has moved on by then (the exchanges' rulebooks, "first notice day").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Generic, Protocol, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DEFAULT_DAYS_BEFORE = 5
DEFAULT_AT = time(17, 0)
DEFAULT_ZONE = "America/Chicago"
"""Where neither the rule nor the contract names a zone that is known."""

MOST_AHEAD = 20
MOST_DAYS_BEFORE = 365

DELIVERED_ON = frozenset({"CBOT", "ECBOT", "COMEX", "NYMEX", "NYBOT", "IPE", "LMEOTC", "MATIF"})
"""Exchanges (as IBKR calls them) whose futures are delivered, apart from `CASH_SETTLED`."""

CASH_SETTLED = frozenset({"YM", "MYM", "DJUSRE"})
"""Trading classes on those exchanges that are equity indices all the same."""

_FRONT = re.compile(r"front(?:\s*\+\s*(\d{1,2}))?", re.IGNORECASE)
_RULE = "use front, front+1, a month such as 202612, or a last trade date such as 20261218"


class Expiring(Protocol):
    """What is needed of a contract. expiry is its last trade date, YYYYMMDD; contract_month YYYYMM, or empty."""

    @property
    def expiry(self) -> str: ...
    @property
    def contract_month(self) -> str: ...
    @property
    def exchange(self) -> str: ...
    @property
    def trading_class(self) -> str: ...
    @property
    def time_zone(self) -> str: ...


_C = TypeVar("_C", bound=Expiring)


@dataclass(frozen=True, slots=True)
class Expiry:
    """Which contract is wanted: the one of a month or date (YYYYMM, YYYYMMDD), else the front or one `ahead` of it."""

    ahead: int = 0
    date: str = ""

    @classmethod
    def parse(cls, value: object) -> Expiry:
        """`front`, `front+1`, 202612 or 20261218, the numbers also unquoted. Raises ValueError with the rule."""
        text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        front = _FRONT.fullmatch(text)
        if front is not None:
            ahead = int(front[1] or 0)
            if ahead > MOST_AHEAD:
                raise ValueError(f"at most front+{MOST_AHEAD} can be asked for")
            return cls(ahead)
        if not re.fullmatch(r"[0-9]{6}|[0-9]{8}", text) or last_day(text) is None:
            raise ValueError(_RULE)
        return cls(0, text)

    @property
    def rolls(self) -> bool:
        """Whether another contract takes its place by and by."""
        return not self.date

    def __str__(self) -> str:
        """As the universe has it."""
        return self.date or ("front" if self.ahead == 0 else f"front+{self.ahead}")


@dataclass(frozen=True, slots=True)
class RollRule:
    """When a contract gives way to the next: days before its last trade date, at a wall-clock time in a zone.

    None for each: the module describes it for its kind.
    """

    days_before: int | None = None
    at: time | None = None
    timezone: str | None = None

    def moment(self, contract: Expiring) -> float | None:
        """Unix seconds of the roll of `contract`; None where its last trade date can't be read."""
        last = last_day(contract.expiry)
        if last is None:
            return None
        if self.days_before is None:
            day = _reference_day(contract, last) - timedelta(days=DEFAULT_DAYS_BEFORE)
        else:
            day = last - timedelta(days=self.days_before)
        zone = zone_named(self.timezone or contract.time_zone) or ZoneInfo(DEFAULT_ZONE)
        return datetime.combine(day, self.at or DEFAULT_AT, zone).timestamp()


def _reference_day(contract: Expiring, last: date) -> date:
    """The day that the default rule counts from."""
    is_delivered = contract.exchange in DELIVERED_ON and contract.trading_class not in CASH_SETTLED
    month = first_day(contract.contract_month) if is_delivered else None
    return last if month is None else min(last, month)


@dataclass(frozen=True, slots=True)
class InForce(Generic[_C]):
    """The contract to record now, and the unix seconds from which on another one is; None for never."""

    contract: _C
    rolls_at: float | None = None


def contract_in_force(chain: Iterable[_C], expiry: Expiry, rule: RollRule, now: float) -> InForce[_C] | None:
    """The contract that `expiry` means at `now`, of the contracts of one chain; None if there is none.

    With a month or date that one contract is meant for good. Contracts whose last trade date can't be read don't count.
    """
    dated = sorted(_dated(chain, rule), key=lambda each: (each[0].expiry, each[1]))
    if expiry.date:
        found = next((contract for contract, _ in dated if _is_of(contract, expiry.date)), None)
        return None if found is None else InForce(found)
    ahead = [(contract, rolls_at) for contract, rolls_at in dated if rolls_at > now]
    if len(ahead) <= expiry.ahead:
        return None
    return InForce(ahead[expiry.ahead][0], min(rolls_at for _, rolls_at in ahead))


def _dated(chain: Iterable[_C], rule: RollRule) -> Iterable[tuple[_C, float]]:
    for contract in chain:
        moment = rule.moment(contract)
        if moment is not None:
            yield contract, moment


def _is_of(contract: Expiring, wanted: str) -> bool:
    if len(wanted) == 8:
        return contract.expiry == wanted
    return (contract.contract_month or contract.expiry[:6]) == wanted


def of_month(chain: Iterable[_C], wanted: str) -> Sequence[_C]:
    """The contracts of that month or last trade date."""
    return [contract for contract in chain if _is_of(contract, wanted)]


def last_day(text: str) -> date | None:
    """The date of YYYYMMDD, or the last day of the month of YYYYMM; None if it is neither."""
    first = first_day(text)
    if first is None or len(text) == 8:
        return first
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return following - timedelta(days=1)


def first_day(text: str) -> date | None:
    """The date of YYYYMMDD, or the first day of the month of YYYYMM; None if it is neither."""
    if not re.fullmatch(r"(19|20)[0-9]{4}([0-9]{2})?", text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8] or 1))
    except ValueError:
        return None


def zone_named(name: str | None) -> ZoneInfo | None:
    """The time zone of that name, such as US/Central; None where none is known."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
