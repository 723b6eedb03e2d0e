"""Contract details -> one concrete venue with market depth, never SMART. The choice is pure.

IBKR knows one venue under two names, ISLAND and NASDAQ; which of the two it lists depends on a checkbox of TWS, so the
configured name is taken where it is listed and its twin where only that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ibkr_depth_pipeline.model import Instrument, Unresolved

NOT_A_VENUE = frozenset({"SMART", ""})
_TWINS = {"ISLAND": "NASDAQ", "NASDAQ": "ISLAND"}

_WELL_KNOWN = {"SPY": ("ARCA", "ARCA"), "IWM": ("ARCA", "ARCA"), "QQQ": ("ISLAND", "NASDAQ")}
"""symbol -> (exchange, primary exchange) of the US ETFs whose most liquid book is known beforehand."""

INDEX_SYMBOLS = frozenset({"SPX", "XSP", "NDX", "RUT", "VIX", "DJX"})
"""Names that mean an index unless the operator says otherwise. Cboe is where depth of one may be had, if anywhere."""

INDEX_VENUE = "CBOE"

_LISTING_VENUE = {"NASDAQ": "ISLAND", "ISLAND": "ISLAND"}
"""listing exchange -> the name its book is requested under, where the two differ."""

_BEST_FIRST = ("ISLAND", "ARCA", "NYSE", "BATS", "EDGX", "IEX", "BYX", "BEX", "DRCTEDGE", "CBOE")
"""Real venues in the order they are tried in where the listing's own venue has no depth."""

NO_CONTRACT = "the gateway knows no such contract (200)"

_CONTRACTS_LISTED = 5


@dataclass(frozen=True, slots=True)
class ContractQuery:
    """What the operator asks for; None means: choose."""

    symbol: str
    sec_type: str = "STK"
    currency: str = "USD"
    exchange: str | None = None
    primary_exchange: str | None = None
    con_id: int | None = None


@dataclass(frozen=True, slots=True)
class ContractAnswer:
    """What the gateway said of one contract."""

    con_id: int
    symbol: str
    sec_type: str
    currency: str
    exchange: str
    primary_exchange: str
    valid_exchanges: tuple[str, ...]
    local_symbol: str = ""
    trading_class: str = ""


@dataclass(frozen=True, slots=True)
class DepthExchange:
    """A venue that the gateway has market depth for, by security type."""

    exchange: str
    sec_type: str


Resolution = Instrument | Unresolved


def resolve(
    wanted: ContractQuery, answers: Sequence[ContractAnswer], depth_exchanges: Iterable[DepthExchange]
) -> Resolution:
    """Choose the contract among `answers` and its venue, or say why there is none."""
    matching = _matching(wanted, answers)
    distinct = {answer.con_id for answer in matching}
    if not distinct:
        return Unresolved(wanted.symbol, NO_CONTRACT)
    if len(distinct) > 1:
        return Unresolved(wanted.symbol, f"several contracts match ({_listing(matching)}); set con_id")
    answer = matching[0]
    if not _is_named(wanted.symbol, answer):
        return Unresolved(wanted.symbol, f"contract {answer.con_id} is {answer.symbol}", answer.con_id)
    deep = {venue.exchange for venue in depth_exchanges if venue.sec_type == answer.sec_type}
    venues = choose_venues(wanted, answer, deep)
    if not venues:
        return _without_venue(wanted, answer)
    primary = wanted.primary_exchange or _primary_of(answer)
    return Instrument(
        symbol=wanted.symbol,
        con_id=answer.con_id,
        sec_type=answer.sec_type,
        currency=answer.currency,
        exchange=venues[0],
        primary_exchange=primary,
        valid_exchanges=answer.valid_exchanges,
        local_symbol=answer.local_symbol,
        trading_class=answer.trading_class,
        alternatives=venues[1:],
    )


def choose_venue(wanted: ContractQuery, answer: ContractAnswer, deep: set[str]) -> str | None:
    """The best of `choose_venues`, or None."""
    return next(iter(choose_venues(wanted, answer, deep)), None)


def choose_venues(wanted: ContractQuery, answer: ContractAnswer, deep: set[str]) -> tuple[str, ...]:
    """The venues that may be requested, best first, under the names that the gateway lists.

    `deep` are the venues that the gateway's depth exchanges name for this security type. The operator's own choice is
    taken even where the gateway does not list it as deep, as long as the contract is valid there: the refusal, if one
    comes, then says more than a guess here; and it is the only one.
    """
    valid = [name for name in answer.valid_exchanges if name not in NOT_A_VENUE]
    if wanted.exchange is not None:
        named = _listed(wanted.exchange, valid)
        return () if named is None else (named,)
    if answer.sec_type == "IND" and _listed(INDEX_VENUE, valid) is not None:
        return (INDEX_VENUE,)  # not listed as deep even where an account may have it: the gateway's answer decides
    listed = (_listed(candidate, valid) for candidate in _candidates(wanted, answer, valid))
    return tuple(dict.fromkeys(name for name in listed if name is not None and _listed(name, deep) is not None))


def _candidates(wanted: ContractQuery, answer: ContractAnswer, valid: Sequence[str]) -> list[str]:
    known = _well_known(answer)
    first = [known[0]] if known else []
    listing = wanted.primary_exchange or answer.primary_exchange
    own = [_LISTING_VENUE.get(listing, listing)] if listing else []
    return [*first, *own, *_BEST_FIRST, *valid]


def _listed(name: str, names: Iterable[str]) -> str | None:
    known = set(names)
    for candidate in (name, _TWINS.get(name, name)):
        if candidate in known:
            return candidate
    return None


def _well_known(answer: ContractAnswer) -> tuple[str, str] | None:
    """(exchange, primary exchange), where the contract is one of the well-known ETFs and not a namesake elsewhere."""
    return _WELL_KNOWN.get(answer.symbol) if (answer.sec_type, answer.currency) == ("STK", "USD") else None


def _primary_of(answer: ContractAnswer) -> str:
    known = _well_known(answer)
    if known is not None:
        return known[1]
    # ISLAND is a venue; the listing exchange is NASDAQ whatever the gateway's compatibility setting calls it.
    return "NASDAQ" if answer.primary_exchange == "ISLAND" else answer.primary_exchange


def _is_named(symbol: str, answer: ContractAnswer) -> bool:
    """Whether the contract goes by that symbol. A con_id of another one must not fill this symbol's stream."""
    names = {name.replace(".", " ") for name in (answer.symbol, answer.local_symbol, answer.trading_class)}
    return symbol.replace(".", " ") in names


def _listing(answers: Sequence[ContractAnswer]) -> str:
    """The first few distinct contracts, for an operator who has to choose."""
    lines = {a.con_id: f"{a.con_id} {a.local_symbol} {a.primary_exchange or a.exchange} {a.currency}" for a in answers}
    more = f" and {len(lines) - _CONTRACTS_LISTED} more" if len(lines) > _CONTRACTS_LISTED else ""
    return ", ".join(list(lines.values())[:_CONTRACTS_LISTED]) + more


def _matching(wanted: ContractQuery, answers: Sequence[ContractAnswer]) -> list[ContractAnswer]:
    found = [answer for answer in answers if wanted.con_id in (None, answer.con_id)]
    if wanted.primary_exchange is not None:
        listed = [a for a in found if _listed(wanted.primary_exchange, [a.primary_exchange]) is not None]
        found = listed or found
    return found


def _without_venue(wanted: ContractQuery, answer: ContractAnswer) -> Unresolved:
    listed = ", ".join(answer.valid_exchanges) or "none"
    if wanted.exchange is not None:
        reason = f"{wanted.exchange} is not among the contract's exchanges ({listed})"
    else:
        reason = f"none of the contract's exchanges has market depth ({listed})"
    return Unresolved(wanted.symbol, reason, answer.con_id, "", _primary_of(answer), answer.valid_exchanges)
