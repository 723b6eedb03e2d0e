"""How a request finds the contracts and depth venues that the simulated gateway has (listings.py). Pure.

Contracts are the same for every seed except the made-up stocks, which follow from the seed and their name; what expires
follows from the day on which the gateway begins.
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date

from ibkr_depth_pipeline.simulation.codec import Request
from ibkr_depth_pipeline.simulation.listings import (
    DEPTH_VENUES,
    KNOWN,
    SMART_DEPTH,
    UNSET_INTEGER,
    DepthVenue,
    Listing,
    expiring,
)

__all__ = [
    "DEPTH_VENUES",
    "NASDAQ_NAMES",
    "SMART_DEPTH",
    "UNSET_INTEGER",
    "Catalogue",
    "DepthVenue",
    "Listing",
    "canonical",
    "depth_venue",
]

NASDAQ_NAMES = ("ISLAND", "NASDAQ")
"""One venue, two names: TWS 10.27 and later take both in requests and list the one that a checkbox selects."""

_ANY_DAY = date(2026, 11, 26)
"""What expires, where nobody says what day it is, is that of this one."""

_EXPIRING = ("FUT", "OPT")


def canonical(exchange: str) -> str:
    """The table's own name of an exchange: NASDAQ is found under ISLAND."""
    return "ISLAND" if exchange == "NASDAQ" else exchange


def depth_venue(exchange: str, sec_type: str) -> DepthVenue | None:
    """The venue whose depth can be had for that kind of contract, under either of its names, or None."""
    return DEPTH_VENUES.get((canonical(exchange), sec_type))


_MAKEABLE = re.compile(r"[A-Z]{1,5}")


class Catalogue:
    """Finds listings for requests.

    With `strict` only the built-in names exist; otherwise any stock name of one to five capitals is made up, the
    same one for the same seed. `NOSUCH` and every name that starts with `ZZ` never exist. `nasdaq_name` is the name
    under which the venue ISLAND / NASDAQ is listed; requests may use either. `today` decides what has not expired.
    """

    def __init__(
        self, seed: int = 0, *, strict: bool = False, nasdaq_name: str = "ISLAND", today: date = _ANY_DAY
    ) -> None:
        if nasdaq_name not in NASDAQ_NAMES:
            raise ValueError(f"nasdaq_name is {nasdaq_name!r}; allowed: {', '.join(NASDAQ_NAMES)}")
        self._seed = seed
        self._strict = strict
        self._nasdaq_name = nasdaq_name
        self._renamed: dict[str, str] = {}
        self._listings: dict[int, Listing] = {}
        self._of_symbol: dict[str, list[int]] = {}
        for listing in (*KNOWN, *expiring(today)):
            self._add(listing)

    def find(self, request: Request) -> Listing | None:
        """The one listing that a request names; None if there is none, or more than one."""
        found = self.find_all(request)
        return found[0] if len(found) == 1 else None

    def find_all(self, request: Request) -> list[Listing]:
        """The listings that a request names, by conId if it has one, else by what else it says, soonest expiry first.

        Whatever a request says must be the listing's own: otherwise it is not found.
        """
        named = self._identify(request)
        agreeing = (listing for listing in named if self._agrees(listing, request))
        return sorted(agreeing, key=lambda each: each.last_trade_date)

    def front(self, listings: list[Listing]) -> list[Listing]:
        """What stands behind a continuous future: the soonest of the futures, of each kind one."""
        fronts: dict[str, Listing] = {}
        for listing in listings:
            fronts.setdefault(listing.trading_class, listing)
        return [replace(listing, sec_type="CONTFUT") for listing in fronts.values()]

    def named(self, name: str) -> Listing | None:
        """The listing with that `Listing.name`; case and dots do not count, so that `eurusd` finds EUR.USD."""
        wanted = name.replace(".", "").upper()
        for listing in self._listings.values():
            if listing.name.replace(".", "").upper() == wanted:
                return listing
        return self._stock(name.upper())

    def rows_for(self, listing: Listing, exchange: str) -> Iterator[str]:
        """The exchange of each contract details row: the one asked for, or each of its own if none was named."""
        yield from (listing.exchanges if exchange == "" else (self._shown(self._canonical(exchange)),))

    def depth_venue(self, exchange: str, listing: Listing) -> DepthVenue | None:
        """The venue whose depth of the listing can be had, under the name that it goes by now, or None."""
        venue = DEPTH_VENUES.get((self._canonical(exchange), listing.sec_type))
        if venue is None or venue.listing_exchange in ("", canonical(listing.primary_exchange)):
            return venue
        return None

    def depth_venues(self) -> list[DepthVenue]:
        """All venues with depth, each under the name that it goes by now."""
        return [replace(venue, name=self._shown(venue.name)) for venue in DEPTH_VENUES.values()]

    def conflict(self, listing: Listing, request: Request) -> str:
        """What the request says beside its conId that is not so on its exchange, in the gateway's words; else empty."""
        if not request.integer("conId"):
            return ""
        exchange = request.text("exchange")
        pairs = (
            ("symbol", request.text("symbol"), listing.symbol),
            ("sec type", request.text("secType"), listing.sec_type),
            ("currency", request.text("currency"), listing.currency),
            ("multiplier", request.text("multiplier"), listing.multiplier),
            ("local symbol", request.text("localSymbol"), listing.local_symbol or listing.symbol),
            ("trading class", request.text("tradingClass"), _class_of(listing, exchange)),
        )
        found = [(what, asked, own) for what, asked, own in pairs if asked not in ("", own)]
        expiry = request.text("lastTradeDateOrContractMonth")
        if expiry not in ("", listing.last_trade_date, listing.contract_month):
            found.append(("expiry", expiry, listing.last_trade_date))
        return " ".join(f"requested {what} {asked}, in contract {own};" for what, asked, own in found)

    # --- what changes while the gateway runs

    def rename_venue(self, exchange: str, name: str) -> None:
        """The venue goes by that name from now on, and by no other."""
        self._renamed[exchange] = name
        for con_id, listing in self._listings.items():
            self._listings[con_id] = replace(listing, valid_exchanges=self._names(listing))

    def expire(self, listing: Listing) -> None:
        """The contract is gone, as after its last trade date."""
        self._listings.pop(listing.con_id, None)

    # --- finding

    def _identify(self, request: Request) -> list[Listing]:
        con_id = request.integer("conId")
        if con_id:
            found = self._listings.get(con_id) or self._stock(_made_up_name(con_id))
            return [] if found is None else [found]
        symbol, local, sec_type = request.text("symbol"), request.text("localSymbol"), request.text("secType")
        if not symbol and sec_type in ("STK", "CASH"):
            symbol = local.split(".")[0]
        if sec_type == "STK":
            self._stock(symbol)
        kind = "FUT" if sec_type == "CONTFUT" else sec_type
        candidates = self._with_symbol(symbol) if symbol else self._listings.values()
        return [each for each in candidates if each.sec_type == kind and (symbol or local in ("", each.local_symbol))]

    def _with_symbol(self, symbol: str) -> list[Listing]:
        return [self._listings[each] for each in self._of_symbol.get(symbol, ()) if each in self._listings]

    def _stock(self, symbol: str) -> Listing | None:
        """The stock of that name, made up if there is none and may be."""
        known = next((each for each in self._with_symbol(symbol) if each.sec_type == "STK"), None)
        if known is not None or symbol == "NOSUCH" or symbol.startswith("ZZ"):
            return known
        if self._strict or not _MAKEABLE.fullmatch(symbol):
            return None
        return self._add(_make_up(symbol, self._seed))

    def _add(self, listing: Listing) -> Listing:
        named = replace(listing, valid_exchanges=self._names(listing))
        self._listings[named.con_id] = named
        self._of_symbol.setdefault(named.symbol, []).append(named.con_id)
        return named

    def _agrees(self, listing: Listing, request: Request) -> bool:
        currency, primary = request.text("currency"), request.text("primaryExchange")
        exchange, sec_type = request.text("exchange"), request.text("secType")
        kinds = ("", "FUT", "CONTFUT") if listing.sec_type == "FUT" else ("", listing.sec_type)
        is_dated = listing.sec_type in _EXPIRING and not request.integer("conId")
        return (
            currency in ("", listing.currency)
            and sec_type in kinds
            and (primary == "" or canonical(primary) == canonical(listing.primary_exchange))
            and (exchange == "" or self._lists(listing, exchange))
            and (not is_dated or _agrees_on_expiry(listing, request))
        )

    # --- names of venues

    def _names(self, listing: Listing) -> str:
        return ",".join(self._shown(self._canonical(name) or name) for name in listing.exchanges)

    def _lists(self, listing: Listing, exchange: str) -> bool:
        """Whether the exchange is one of the contract's, under a name that it goes by now."""
        return self._canonical(exchange) in {self._canonical(valid) for valid in listing.exchanges}

    def _canonical(self, exchange: str) -> str:
        """The table's own name of an exchange; empty for one that it went by and does no more."""
        for own, name in self._renamed.items():
            if exchange == name:
                return own
            if exchange == own:
                return ""
        return canonical(exchange)

    def _shown(self, exchange: str) -> str:
        """The name under which an exchange of the table is listed now."""
        if exchange in NASDAQ_NAMES:
            return self._nasdaq_name
        return self._renamed.get(exchange, exchange)


def _class_of(listing: Listing, exchange: str) -> str:
    own = listing.class_on(exchange)
    return own or {"NASDAQ": "NMS", "ISLAND": "NMS"}.get(listing.primary_exchange, listing.symbol)


def _agrees_on_expiry(listing: Listing, request: Request) -> bool:
    """Whether what a request says of expiry, multiplier, strike and so on is the listing's; what it leaves out is."""
    expiry, strike = request.text("lastTradeDateOrContractMonth"), request.values.get("strike", "")
    right = request.text("right")[:1]
    own: Mapping[str, str] = {
        "localSymbol": listing.local_symbol,
        "tradingClass": listing.trading_class,
        "multiplier": listing.multiplier,
    }
    return (
        expiry in ("", listing.last_trade_date, listing.contract_month)
        and all(request.text(name) in ("", value) for name, value in own.items())
        and (float(strike or 0) in (0.0, listing.strike))
        and right in ("", "0", "?", listing.right)
    )


_FIRST_MADE_UP = 900_000_000
"""Made-up conIds are this plus the name read as a number in base 27, so that either leads to the other."""


def _make_up(symbol: str, seed: int) -> Listing:
    dice = random.Random(f"{seed}:{symbol}")
    number = 0
    for letter in symbol:
        number = number * 27 + ord(letter) - ord("@")
    return Listing(
        con_id=_FIRST_MADE_UP + number,
        symbol=symbol,
        primary_exchange=dice.choice(("NASDAQ", "NASDAQ", "NYSE", "NYSE", "ARCA")),
        price=round(dice.uniform(8, 400), 2),
        long_name=f"{symbol} SIMULATED INC",
        typical_size=dice.choice((100, 200, 400, 1000)),
    )


def _made_up_name(con_id: int) -> str:
    """The name behind a made-up conId; for any other number a text that is no name."""
    number, letters = con_id - _FIRST_MADE_UP, ""
    while number > 0:
        number, letter = divmod(number, 27)
        letters = chr(letter + ord("@")) + letters
    return letters
