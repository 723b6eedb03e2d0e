"""Chooses the venue of a contract: one with market depth, never SMART, and the next one while venues refuse. Pure.

docs/ibkr-market-depth.md, "Venues and contracts": ISLAND and NASDAQ are one venue, and a checkbox of TWS decides which
name it lists. The configured name is requested if it is listed, else its twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.gateway.contracts import (
    INDEX_SYMBOLS,
    NO_CONTRACT,
    TWINS,
    ContractAnswer,
    ContractQuery,
    DepthExchange,
    NotSelected,
    deep_venues,
    select_contract,
)
from ibkr_depth_pipeline.model import ContractHours, Instrument, Unresolved

__all__ = [
    "INDEX_SYMBOLS",
    "NO_CONTRACT",
    "ContractAnswer",
    "ContractQuery",
    "DepthExchange",
    "FallbackBudget",
    "Resolution",
    "VenueFallback",
    "choose_venues",
    "resolve",
]

NOT_A_VENUE = frozenset({"SMART", ""})

_WELL_KNOWN = {"SPY": ("ARCA", "ARCA"), "IWM": ("ARCA", "ARCA"), "QQQ": ("ISLAND", "NASDAQ")}
"""Symbol -> (exchange, primary exchange) of US ETFs whose most liquid book is known beforehand."""

INDEX_VENUE = "CBOE"
"""The only venue that may have depth of an index."""

_LISTING_VENUE = {"NASDAQ": "ISLAND", "ISLAND": "ISLAND"}
"""Listing exchange -> venue of its book, if the two names differ."""

_BEST_FIRST = ("ISLAND", "ARCA", "NYSE", "BATS", "EDGX", "IEX", "BYX", "BEX", "DRCTEDGE", "CBOE")
"""Venues in the order in which they are tried if the listing's own venue has no depth."""

REMEMBERED_SECS = 12 * 3600.0
"""How long a venue's refusal is remembered: a trading day."""

PROOFS = 2
"""Refusals in a row that it takes to leave a venue that has delivered rows, or any venue while the feed is degraded."""

MOST_VENUES = 8
"""Number of venues that are tried at most, the best ones."""

MOST_FRUITLESS = 40
"""Refusals in a row, over all symbols, after which FallbackBudget limits the requests at other venues."""

FALLBACK_SECS = 10.0
"""Interval at which one more symbol may then be requested at its other venues."""


Resolution = Instrument | Unresolved


def resolve(
    query: ContractQuery,
    answers: Sequence[ContractAnswer],
    depth_exchanges: Iterable[DepthExchange],
    now: float = 0.0,
) -> Resolution:
    """The contract among `answers` and its venues, best first; Unresolved with the reason if there is none.

    `now` is unix seconds, for contracts that roll.
    """
    depth = tuple(depth_exchanges)
    selected = select_contract(query, answers, depth, now)
    if isinstance(selected, NotSelected):
        return Unresolved(query.name, selected.reason, selected.con_id)
    answer = selected.answer
    venues = choose_venues(query, answer, deep_venues(answer, depth))
    if not venues:
        return _without_venue(query, answer)
    rows = [each for each in answers if each.con_id == answer.con_id]
    line = next((each for each in rows if each.exchange == venues[0]), answer)
    return Instrument(
        symbol=query.name,
        con_id=answer.con_id,
        sec_type=answer.sec_type,
        currency=answer.currency,
        exchange=venues[0],
        primary_exchange=query.primary_exchange or _primary_of(answer),
        valid_exchanges=answer.valid_exchanges,
        local_symbol=line.local_symbol,
        trading_class=line.trading_class,
        expiry=answer.expiry,
        alternatives=venues[1:],
        rolls_at=selected.rolls_at,
        passed_over=selected.passed_over,
        hours=ContractHours(line.trading_hours, line.liquid_hours, line.time_zone),
        min_size=line.min_size,
        size_increment=line.size_increment,
    )


def choose_venues(query: ContractQuery, answer: ContractAnswer, deep: set[str]) -> tuple[str, ...]:
    """The venues that may be requested, best first, under the names that the gateway lists.

    `deep` are the venues with depth for this security type. A venue that the operator named is the only one, and is
    taken even if it is not among them, as long as the contract is valid there: the gateway's answer decides.
    """
    valid = [name for name in answer.valid_exchanges if name not in NOT_A_VENUE]
    if query.exchange is not None:
        named = _listed(query.exchange, valid)
        return () if named is None else (named,)
    if answer.sec_type == "IND" and _listed(INDEX_VENUE, valid) is not None:
        return (INDEX_VENUE,)  # listed as deep for no account, granted to some: the gateway's answer decides
    listed = (_listed(candidate, valid) for candidate in _candidates(query, answer, valid))
    return tuple(dict.fromkeys(name for name in listed if name is not None and _listed(name, deep) is not None))


def _candidates(query: ContractQuery, answer: ContractAnswer, valid: Sequence[str]) -> list[str]:
    known = _well_known(answer)
    first = [known[0]] if known else []
    listing = query.primary_exchange or answer.primary_exchange
    own = [_LISTING_VENUE.get(listing, listing)] if listing else []
    return [*first, *own, *_BEST_FIRST, *valid]


def _listed(name: str, names: Iterable[str]) -> str | None:
    known = set(names)
    for candidate in (name, TWINS.get(name, name)):
        if candidate in known:
            return candidate
    return None


def _well_known(answer: ContractAnswer) -> tuple[str, str] | None:
    """(exchange, primary exchange) if the contract is a well-known ETF and not its namesake in another currency."""
    return _WELL_KNOWN.get(answer.symbol) if (answer.sec_type, answer.currency) == ("STK", "USD") else None


def _primary_of(answer: ContractAnswer) -> str:
    known = _well_known(answer)
    if known is not None:
        return known[1]
    # ISLAND is a venue; the listing exchange is NASDAQ under either compatibility setting of the gateway.
    return "NASDAQ" if answer.primary_exchange == "ISLAND" else answer.primary_exchange


def _without_venue(query: ContractQuery, answer: ContractAnswer) -> Unresolved:
    listed = ", ".join(answer.valid_exchanges) or "none"
    if query.exchange is not None:
        reason = f"{query.exchange} is not among the contract's exchanges ({listed})"
    else:
        reason = f"none of the contract's exchanges has market depth ({listed})"
    return Unresolved(query.name, reason, answer.con_id, "", _primary_of(answer), answer.valid_exchanges)


class FallbackBudget:
    """Limits the requests at other venues while no symbol gets rows: then it is not the venue that refuses.

    After MOST_FRUITLESS refusals in a row one symbol every FALLBACK_SECS may try its other venues, the rest their best.
    """

    def __init__(self) -> None:
        self._fruitless = 0
        self._allowed = ""
        self._next_at = float("-inf")

    def granted(self) -> None:
        """Rows came for any symbol, or the gateway has announced that they will."""
        self._fruitless = 0

    def refused(self, symbol: str, now: float) -> bool:
        """Counts a refusal of `symbol`; returns whether its next venue may be tried."""
        self._fruitless += 1
        if self._fruitless <= MOST_FRUITLESS or symbol == self._allowed:
            return True
        if now < self._next_at:
            return False
        self._allowed, self._next_at = symbol, now + FALLBACK_SECS
        return True


@dataclass
class VenueFallback:
    """Which venue of one symbol is requested; changes with `refused` and `update_instrument`. `now` is in seconds.

    Most accounts have no subscription for the best venue of a contract, and one for another (docs/ibkr-market-depth.md,
    "Error codes": 354 and its kind). So a refusal leads to the next venue. A venue that has delivered rows takes PROOFS
    refusals, and so does any venue while the feed is degraded: gateways refuse valid requests then.
    """

    instrument: Instrument
    _requested: str = ""
    _refused: dict[str, tuple[str, float]] = field(default_factory=dict)  # venue -> reason, when; of this round or kept
    _granted: set[str] = field(default_factory=set)
    _refusals: int = 0  # in a row, of the venue requested

    def __post_init__(self) -> None:
        self._requested = self.instrument.exchange

    @property
    def venues(self) -> tuple[str, ...]:
        """Every venue that may be requested, best first."""
        return (self.instrument.exchange, *self.instrument.alternatives)[:MOST_VENUES]

    @property
    def requested(self) -> Instrument:
        """The contract, at the venue to request now."""
        return replace(self.instrument, exchange=self._requested)

    @property
    def refusing_venues(self) -> set[str]:
        """The venues whose refusal is remembered."""
        return set(self._refused)

    @property
    def refusal_summary(self) -> str:
        """Each refusing venue with its reason, for an operator; empty if none refuses."""
        return "; ".join(f"{venue} {reason}" for venue, (reason, _) in self._refused.items())

    def update_instrument(self, instrument: Instrument, now: float) -> None:
        """Takes the contract as it was resolved last. Refusals of its venues are kept."""
        self.instrument = instrument
        self._refused = {venue: why for venue, why in self._refused.items() if venue in self.venues}
        self._forget_expired(now)
        if self._requested not in self.venues:
            self._requested, self._refusals = self._best(), 0

    def refused(self, reason: str, now: float, *, is_well: bool, elsewhere: bool = True) -> bool:
        """Counts a refusal by the venue requested; returns whether another venue is to be requested now.

        is_well: the feed is known to work. elsewhere: another venue may grant what this one refuses. After all venues
        have refused, the best one is requested next.
        """
        self._refused[self._requested] = (reason, now)
        self._refusals += 1
        believed = is_well and self._requested not in self._granted
        if not elsewhere or not (believed or self._refusals >= PROOFS):
            return False
        self._forget_expired(now)
        following = next((venue for venue in self.venues if venue not in self._refused), None)
        self._requested = following or self.venues[0]
        self._refusals = 0
        return following is not None

    def granted(self) -> bool:
        """Rows came from the venue requested; returns whether that ends a refusal."""
        self._granted.add(self._requested)
        self._refusals = 0
        return self._refused.pop(self._requested, None) is not None

    def start_over(self) -> None:
        """Forgets all refusals after every venue has refused: each is requested again."""
        self._refused.clear()
        self._requested, self._refusals = self.venues[0], 0

    def _forget_expired(self, now: float) -> None:
        kept = {venue: why for venue, why in self._refused.items() if now - why[1] < REMEMBERED_SECS}
        self._refused = kept

    def _best(self) -> str:
        return next((venue for venue in self.venues if venue not in self._refused), self.venues[0])


# ---- no contract under two names


Place = tuple[int, str]
"""A con_id and a venue, ISLAND and NASDAQ being one."""


def place_of(con_id: int, venue: str) -> Place:
    return con_id, min(venue, TWINS.get(venue, venue))


class ContractOwners:
    """Registers instruments as they are resolved. The first entry of a contract and venue keeps it.

    for_good: nothing is resolved again, so that an entry that rolls gives way to none.
    """

    def __init__(self, *, for_good: bool = False) -> None:
        self.for_good = for_good
        self._instruments: dict[str, Instrument] = {}
        self._displaced: dict[Place, str] = {}
        self.outdated: list[str] = []
        """Entries that roll and whose contract another one has come to: they are to be resolved again."""

    def register(self, found: Instrument) -> list[Instrument | Unresolved]:
        """What becomes of it, and of entries that may no longer fall back to its venue: they come without that.

        An Unresolved names both entries where another one has the contract on that venue already.
        """
        self._instruments.pop(found.symbol, None)
        place = place_of(found.con_id, found.exchange)
        owner = next((name for name, own in self._instruments.items() if _place(own) == place), None)
        if owner is not None and not self._gives_way(owner, found, place):
            return [refused_contract(found, repr(owner))]
        taken = {_place(own) for own in self._instruments.values()}
        kept = tuple(venue for venue in found.alternatives if place_of(found.con_id, venue) not in taken)
        self._instruments[found.symbol] = replace(found, alternatives=kept)
        return [self._instruments[found.symbol], *self._without(place)]

    def _gives_way(self, owner: str, found: Instrument, place: Place) -> bool:
        """Whether the owner is about to roll on, as of front and front+1; once for a place, as it may be an error."""
        if self.for_good or self._instruments[owner].rolls_at is None or self._displaced.get(place) == found.symbol:
            return False
        self._displaced[place] = owner
        del self._instruments[owner]
        self.outdated.append(owner)
        return True

    def forget(self, name: str) -> None:
        """The entry has no contract any more."""
        self._instruments.pop(name, None)

    def _without(self, place: Place) -> list[Instrument]:
        """The instruments that had the place among their other venues, and have it no more."""
        changed = []
        for name, own in self._instruments.items():
            kept = tuple(venue for venue in own.alternatives if place_of(own.con_id, venue) != place)
            if kept != own.alternatives:
                self._instruments[name] = replace(own, alternatives=kept)
                changed.append(self._instruments[name])
        return changed


def _place(instrument: Instrument) -> Place:
    return place_of(instrument.con_id, instrument.exchange)


def refused_contract(found: Instrument, owner: str) -> Unresolved:
    """Why this contract is not recorded: `owner`, in words, has it on that venue."""
    reason = (
        f"{owner} and {found.symbol!r} come to one and the same contract, {found.con_id} "
        f"({found.local_symbol or found.symbol}) on {found.exchange}; list it once, or name another exchange"
    )
    return Unresolved(found.symbol, reason, found.con_id, "", found.primary_exchange, found.valid_exchanges)
