"""Which contract an entry of the universe means: what the gateway is asked, and the choice among its answers. Pure.

docs/ibkr-market-depth.md, "Venues and contracts": one symbol may have several contracts in one currency, and a con_id
is asked for alone, as any other field beside it may clash with it (478, 200).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.futures import Expiry, RollRule, contract_in_force, of_month

TWINS = {"ISLAND": "NASDAQ", "NASDAQ": "ISLAND"}
"""One venue, two names."""

INDEX_SYMBOLS = frozenset({"SPX", "XSP", "NDX", "RUT", "VIX", "DJX"})
"""Symbols that mean an index unless the universe sets a security type."""

US_LISTINGS = frozenset({"NASDAQ", "ISLAND", "NYSE", "ARCA", "AMEX", "BATS", "IEX", "CBOE", "NYSENAT", "CHX", "PINK"})
"""Primary exchanges of the United States."""

NO_CONTRACT = "the gateway knows no such contract (200)"

_CONTRACTS_LISTED = 5
_NO_USUAL_CURRENCY = ("FUT", "FOP")
_HAVE_EXPIRY = ("FUT", "FOP", "OPT", "WAR")


@dataclass(frozen=True, slots=True)
class ContractQuery:
    """The contract that the universe names; None or "" leaves it to the gateway's answer, or to `select_contract`.

    `name` is what it is recorded under: the symbol, unless the entry has a name of its own.
    """

    symbol: str
    sec_type: str | None = "STK"
    currency: str | None = "USD"
    exchange: str | None = None
    primary_exchange: str | None = None
    con_id: int | None = None
    name: str = ""
    local_symbol: str = ""
    trading_class: str = ""
    multiplier: str = ""
    expiry: Expiry | None = None
    strike: float = 0.0
    right: str = ""
    roll: RollRule = field(default_factory=RollRule)

    def __post_init__(self) -> None:
        """A continuous future means the front of its chain."""
        object.__setattr__(self, "name", self.name or self.symbol)
        if self.sec_type == "CONTFUT":
            object.__setattr__(self, "sec_type", "FUT")
            object.__setattr__(self, "expiry", self.expiry or Expiry())

    @property
    def kind(self) -> str:
        """The security type that is asked for."""
        return self.sec_type or ("IND" if self.symbol in INDEX_SYMBOLS else "STK")

    @property
    def not_found(self) -> str:
        """That there is no such contract, with what was asked for if that is more than a name."""
        said = (
            *(self.local_symbol, self.trading_class, str(self.expiry or ""), self.multiplier, self.right),
            *(f"{self.strike:g}" if self.strike else "", self.primary_exchange or ""),
        )
        if self.con_id is not None:
            return f"{NO_CONTRACT}: con_id {self.con_id}"
        if not any(said):
            return NO_CONTRACT
        asked = (self.symbol, self.kind, *said, self.exchange or "", self.currency or "")
        return f"{NO_CONTRACT}: {' '.join(filter(None, asked))}"

    @property
    def date(self) -> str:
        """YYYYMM or YYYYMMDD of a contract that is meant for good, else empty."""
        return self.expiry.date if self.expiry is not None else ""


@dataclass(frozen=True, slots=True)
class ContractAnswer:
    """Contract details as the gateway answers them: one row for each contract and exchange.

    expiry is the last trade date, YYYYMMDD; contract_month YYYYMM; both empty for what does not expire. min_size and
    size_increment are of sizes, None if the gateway does not name them (below server version 164).
    """

    con_id: int
    symbol: str
    sec_type: str
    currency: str
    exchange: str
    primary_exchange: str
    valid_exchanges: tuple[str, ...]
    local_symbol: str = ""
    trading_class: str = ""
    multiplier: str = ""
    expiry: str = ""
    contract_month: str = ""
    strike: float = 0.0
    right: str = ""
    time_zone: str = ""
    trading_hours: str = ""
    liquid_hours: str = ""
    min_size: float | None = None
    size_increment: float | None = None


@dataclass(frozen=True, slots=True)
class DepthExchange:
    """A venue that has market depth for one security type, by the gateway's list; of one listing exchange, or all."""

    exchange: str
    sec_type: str
    listing_exchange: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for contract details at once; empty fields are left out."""

    con_id: int = 0
    symbol: str = ""
    sec_type: str = ""
    currency: str = ""
    exchange: str = ""
    primary_exchange: str = ""
    local_symbol: str = ""
    trading_class: str = ""
    multiplier: str = ""
    expiry: str = ""
    strike: float = 0.0
    right: str = ""


def questions(query: ContractQuery) -> tuple[Question, ...]:
    """What is asked, one after the other, until one has an answer other than 200.

    The later ones find a contract whose venue was renamed, a share class under IBKR's own spelling (`BRK B`) and a
    stock of another currency than USD.
    """
    if query.con_id is not None:
        venues = (query.exchange or "", "")
        return tuple(dict.fromkeys(Question(con_id=query.con_id, exchange=venue) for venue in venues))
    asked = Question(
        sec_type=query.kind,
        primary_exchange=query.primary_exchange or "",
        local_symbol=query.local_symbol,
        trading_class=query.trading_class,
        multiplier=query.multiplier,
        expiry=query.date,
        strike=query.strike,
        right=query.right,
    )
    each = (
        replace(asked, symbol=symbol, currency=currency, exchange=exchange)
        for exchange, currency in _places(query)
        for symbol in ([""] if query.local_symbol else _spellings(query))
    )
    return tuple(dict.fromkeys(each))


def _places(query: ContractQuery) -> Iterator[tuple[str, str]]:
    """(exchange, currency) of each question."""
    named = query.exchange or ""
    usual = "" if query.kind in _NO_USUAL_CURRENCY else "USD"
    currency = query.currency or usual
    if query.kind in ("STK", "OPT"):
        yield "SMART", currency
    if named or query.primary_exchange or query.kind != "STK":
        yield named, currency
        yield "", currency
    if query.currency is None and usual and (named or query.primary_exchange):
        yield "", ""


def _spellings(query: ContractQuery) -> Iterator[str]:
    """IBKR writes a share class behind a blank; a dot is tried as well, as some exchanges have it in their symbols."""
    if query.kind == "STK" and "." in query.symbol:
        yield query.symbol.replace(".", " ", 1)
    yield query.symbol


# ---- the choice among the answers


@dataclass(frozen=True, slots=True)
class Selected:
    """The contract to record, and from which unix second on another one is; `passed_over` names what else matched."""

    answer: ContractAnswer
    rolls_at: float | None = None
    passed_over: str = ""


@dataclass(frozen=True, slots=True)
class NotSelected:
    """No contract can be recorded: why, in words for an operator. con_id is that of the only one found, or 0."""

    reason: str
    con_id: int = 0


def select_contract(
    query: ContractQuery, answers: Sequence[ContractAnswer], depth_exchanges: Iterable[DepthExchange], now: float
) -> Selected | NotSelected:
    """The contract that a person would take at the unix time `now`: see `_preferred` for several that match."""
    found = _distinct(answer for answer in answers if query.con_id in (None, answer.con_id))
    if not found:
        return NotSelected(query.not_found)
    if query.con_id is not None:
        return _checked(query, found[0])
    deep = tuple(depth_exchanges)
    matching = _narrowed(query, found)
    if query.expiry is not None and query.kind in ("FUT", "FOP"):
        return _in_chain(query, matching, deep, now)
    if len(matching) == 1:
        return _checked(query, matching[0])
    best = _preferred(matching, deep)
    if len(best) > 1:
        return NotSelected(f"several contracts match: {_choices(best)}{_front_hint(query)}")
    others = [answer for answer in matching if answer is not best[0]]
    return Selected(best[0], passed_over=_listing(others))


def _preferred(matching: Sequence[ContractAnswer], depth: Sequence[DepthExchange]) -> Sequence[ContractAnswer]:
    """Those of one currency that have a venue with depth, and of these the ones with a US listing, for USD."""
    best = matching
    if len({answer.currency for answer in matching}) == 1:
        best = [answer for answer in best if has_depth(answer, depth)] or best
        if best[0].currency == "USD":
            best = [answer for answer in best if answer.primary_exchange in US_LISTINGS] or best
    return best


def has_depth(answer: ContractAnswer, depth: Iterable[DepthExchange]) -> bool:
    """Whether one of the contract's own exchanges has depth for it."""
    deep = deep_venues(answer, depth)
    return any(is_listed(name, deep) for name in answer.valid_exchanges)


def deep_venues(answer: ContractAnswer, depth: Iterable[DepthExchange]) -> set[str]:
    """The venues with depth for the contract's type and listing; a listing exchange in the list restricts a venue."""
    return {
        venue.exchange
        for venue in depth
        if venue.sec_type == answer.sec_type
        and (not venue.listing_exchange or is_listed(venue.listing_exchange, {answer.primary_exchange}))
    }


def is_listed(name: str, names: Iterable[str]) -> bool:
    """Whether the venue is among `names`, under either of its names."""
    known = set(names)
    return name in known or TWINS.get(name, name) in known


def _in_chain(
    query: ContractQuery, matching: Sequence[ContractAnswer], depth: Sequence[DepthExchange], now: float
) -> Selected | NotSelected:
    """The contract of a futures chain that its expiry means."""
    assert query.expiry is not None
    chains: dict[tuple[str, str, str], list[ContractAnswer]] = {}
    for answer in matching:
        chains.setdefault((answer.trading_class, answer.multiplier, answer.currency), []).append(answer)
    several = len(chains) > 1
    if several:
        chains = _preferred_chains(query, chains, depth)
    if len(chains) > 1:
        return NotSelected(_several_chains(chains))
    ((chosen, chain),) = chains.items()
    in_force = contract_in_force(chain, query.expiry, query.roll, now)
    if in_force is None or (query.date and len(of_month(chain, query.date)) > 1):
        dates = ", ".join(f"{answer.expiry} ({answer.local_symbol})" for answer in _by_expiry(chain))
        what = "no contract has" if in_force is None else "several contracts have"
        return NotSelected(f"{what} the expiry {query.expiry} now; listed are {dates}")
    others = ", ".join(sorted({answer.trading_class for answer in matching} - {chosen[0]}))
    return Selected(in_force.contract, in_force.rolls_at, others if several else "")


def _preferred_chains(
    query: ContractQuery, chains: dict[tuple[str, str, str], list[ContractAnswer]], depth: Sequence[DepthExchange]
) -> dict[tuple[str, str, str], list[ContractAnswer]]:
    """Those with depth, and of these the one whose trading class is the symbol."""
    deep = {key: chain for key, chain in chains.items() if any(has_depth(answer, depth) for answer in chain)} or chains
    own = {key: chain for key, chain in deep.items() if key[0] == query.symbol}
    return own if len(own) == 1 else deep


def _several_chains(chains: Iterable[tuple[str, str, str]]) -> str:
    each = [
        f"{name} (write trading_class: {name}, or multiplier: {multiplier!r}; {currency})"
        for name, multiplier, currency in sorted(chains)
    ]
    return f"several kinds of contract match: {', '.join(each)}"


def _by_expiry(answers: Iterable[ContractAnswer]) -> list[ContractAnswer]:
    return sorted(answers, key=lambda answer: answer.expiry)


def _distinct(answers: Iterable[ContractAnswer]) -> list[ContractAnswer]:
    """One row for each contract, the first."""
    found: dict[int, ContractAnswer] = {}
    for answer in answers:
        found.setdefault(answer.con_id, answer)
    return list(found.values())


def _narrowed(query: ContractQuery, found: Sequence[ContractAnswer]) -> Sequence[ContractAnswer]:
    """Those that match the universe, if any does."""
    narrowed = found
    if query.primary_exchange is not None:
        narrowed = [a for a in found if is_listed(query.primary_exchange, [a.primary_exchange])] or narrowed
    if query.exchange is not None:
        narrowed = [a for a in narrowed if is_listed(query.exchange, a.valid_exchanges)] or narrowed
    return narrowed


def _checked(query: ContractQuery, answer: ContractAnswer) -> Selected | NotSelected:
    """The contract, where every word of the universe is its own: another one must not fill this entry's stream."""
    wrong = _contradictions(query, answer)
    return NotSelected(wrong, answer.con_id) if wrong else Selected(answer)


def _contradictions(query: ContractQuery, answer: ContractAnswer) -> str:
    """Each word of the universe that is not the contract's own, both shown; empty if there is none.

    Without a con_id the words were the question, and only the symbol is checked.
    """
    found = []
    if query.symbol and not is_named(query.symbol, answer):
        found.append(("symbol", query.symbol, answer.symbol))
    found += _other_contradictions(query, answer) if query.con_id is not None else []
    said = "; ".join(f"{word} is {own or 'empty'}, the universe says {said}" for word, said, own in found)
    return f"contract {answer.con_id} ({answer.symbol} {answer.sec_type}) differs: {said}" if said else ""


def _other_contradictions(query: ContractQuery, answer: ContractAnswer) -> list[tuple[str, str, str]]:
    """(word, what the universe says, what the contract has)."""
    words = (
        ("sec_type", query.sec_type, answer.sec_type),
        ("currency", query.currency, answer.currency),
        ("local_symbol", query.local_symbol, answer.local_symbol),
        ("trading_class", query.trading_class, answer.trading_class),
        ("multiplier", query.multiplier, answer.multiplier),
        ("right", query.right, answer.right[:1]),
    )
    found = [(word, said, own) for word, said, own in words if said and said != own]
    if query.strike and query.strike != answer.strike:
        found.append(("strike", f"{query.strike:g}", f"{answer.strike:g}"))
    if query.primary_exchange and not is_listed(query.primary_exchange, [answer.primary_exchange]):
        found.append(("primary_exchange", query.primary_exchange, answer.primary_exchange))
    if query.date and not of_month([answer], query.date):
        found.append(("expiry", query.date, answer.expiry))
    return found


def is_named(symbol: str, answer: ContractAnswer) -> bool:
    """Whether the contract goes by that symbol, a dot being as good as a blank."""
    names = {name.replace(".", " ") for name in (answer.symbol, answer.local_symbol, answer.trading_class)}
    return symbol.replace(".", " ") in names


# ---- for the operator


def _describe(answer: ContractAnswer) -> str:
    dated = f" {answer.expiry}" if answer.expiry else ""
    listing = answer.primary_exchange or answer.exchange or next(iter(answer.valid_exchanges), "")
    return f"{answer.con_id} {answer.local_symbol}{dated} {listing} {answer.currency}"


def _listing(answers: Sequence[ContractAnswer]) -> str:
    """The first few of them."""
    more = f" and {len(answers) - _CONTRACTS_LISTED} more" if len(answers) > _CONTRACTS_LISTED else ""
    return ", ".join(_describe(answer) for answer in answers[:_CONTRACTS_LISTED]) + more


def _choices(answers: Sequence[ContractAnswer]) -> str:
    """The first few of them, each with what makes it the only one."""
    shown = [f"{_describe(answer)} (write con_id: {answer.con_id})" for answer in answers[:_CONTRACTS_LISTED]]
    more = f" and {len(answers) - _CONTRACTS_LISTED} more" if len(answers) > _CONTRACTS_LISTED else ""
    return ", ".join(shown) + more


def _front_hint(query: ContractQuery) -> str:
    if query.kind == "FUT":
        return "; or write expiry: front, or the month, such as 202612"
    return "; or write expiry, strike and right" if query.kind in _HAVE_EXPIRY else ""
