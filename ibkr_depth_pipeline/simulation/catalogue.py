"""The depth venues and the contracts that the simulated gateway has, and how a request finds them. Pure.

The service of a venue decides the message of its rows: `Deep2` names market makers and sends mktDepthL2 (13), `Deep`
sends mktDepth (12). The row style of a venue is this simulator's own choice; both occur among the default symbols on
purpose. Contracts are the same for every seed except the made-up stocks, which follow from the seed and their name.
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ibkr_depth_pipeline.simulation.codec import Request
from ibkr_depth_pipeline.simulation.rows import RowStyle

UNSET_INTEGER = 2147483647
"""What a gateway sends for an aggregate group that is not set; ib_insync cannot read an empty one."""


@dataclass(frozen=True, slots=True)
class DepthVenue:
    name: str
    sec_type: str
    style: RowStyle
    market_makers: tuple[str, ...] = ()
    """Names that rows carry; none means rows without one, in mktDepth (12)."""
    aggregate_group: int = UNSET_INTEGER

    @property
    def names_market_makers(self) -> bool:
        return bool(self.market_makers)

    @property
    def service(self) -> str:
        return "Deep2" if self.market_makers else "Deep"


_STOCK_VENUES = (
    DepthVenue("ISLAND", "STK", RowStyle.SHIFT, ("NSDQ", "NSDQ", "NSDQ", "GSCO", "CDRG", "JPMS", "UBSS")),
    DepthVenue("ARCA", "STK", RowStyle.CASCADE, ("ARCA",)),
    DepthVenue("NYSE", "STK", RowStyle.SHIFT),
    DepthVenue("BATS", "STK", RowStyle.SHIFT, ("BATS",)),
    DepthVenue("IEX", "STK", RowStyle.CASCADE),
    DepthVenue("EDGX", "STK", RowStyle.SHIFT),
    DepthVenue("DRCTEDGE", "STK", RowStyle.SHIFT),
    DepthVenue("BEX", "STK", RowStyle.CASCADE),
    DepthVenue("BYX", "STK", RowStyle.CASCADE),
    DepthVenue("AMEX", "STK", RowStyle.CASCADE),
)
_OTHER_VENUES = (
    DepthVenue("IDEALPRO", "CASH", RowStyle.CASCADE, aggregate_group=4),
    DepthVenue("GLOBEX", "FUT", RowStyle.CASCADE),
)

SMART_DEPTH = DepthVenue("SMART", "STK", RowStyle.CASCADE, ("NSDQ", "ARCA", "BATS", "EDGX", "IEX", "NYSE"))
"""The aggregate of all venues (isSmartDepth true): the name in a row is the venue it rests on."""

NASDAQ_NAMES = ("ISLAND", "NASDAQ")
"""One venue, two names: TWS 10.27 and later take both in requests and list the one that a checkbox selects."""

DEPTH_VENUES: Mapping[tuple[str, str], DepthVenue] = {
    (venue.name, venue.sec_type): venue for venue in (*_STOCK_VENUES, *_OTHER_VENUES)
}


def canonical(exchange: str) -> str:
    """The table's own name of an exchange: NASDAQ is found under ISLAND."""
    return "ISLAND" if exchange == "NASDAQ" else exchange


def depth_venue(exchange: str, sec_type: str) -> DepthVenue | None:
    """The venue whose depth can be had for that kind of contract, under either of its names, or None."""
    return DEPTH_VENUES.get((canonical(exchange), sec_type))


# ---- contracts


_MAKEABLE = re.compile(r"[A-Z]{1,5}")
_UNITED_STATES = "SMART,AMEX,NYSE,CBOE,PHLX,CHX,ARCA,ISLAND,DRCTEDGE,BEX,BATS,EDGEA,BYX,IEX,EDGX,PSX"


@dataclass(frozen=True, slots=True)
class Listing:
    """One contract, as contract details describe it, and what its order flow starts from."""

    con_id: int
    symbol: str
    primary_exchange: str
    price: float
    """In `currency`: where a synthetic book starts and what it keeps returning to."""
    long_name: str = ""
    sec_type: str = "STK"
    currency: str = "USD"
    valid_exchanges: str = _UNITED_STATES
    min_tick: float = 0.01
    typical_size: int = 200
    """Shares, or units of the base currency: the scale of the sizes in the synthetic book."""
    stock_type: str = "COMMON"
    industry: str = ""
    category: str = ""
    subcategory: str = ""
    time_zone: str = "US/Eastern"
    local_symbol: str = ""
    trading_class: str = ""
    market_rules: str = "26"

    @property
    def name(self) -> str:
        """What this contract is called in options, journals and scenarios: `SPY`, `BRK B`, `EUR.USD`."""
        return f"{self.symbol}.{self.currency}" if self.sec_type == "CASH" else self.symbol

    @property
    def exchanges(self) -> tuple[str, ...]:
        return tuple(self.valid_exchanges.split(","))

    def lists(self, exchange: str) -> bool:
        """Whether the exchange is one of this contract's, under either name of NASDAQ."""
        return canonical(exchange) in {canonical(valid) for valid in self.exchanges}


def _stock(con_id: int, symbol: str, primary: str, price: float, name: str, *sector: str) -> Listing:
    return Listing(con_id, symbol, primary, price, name, "STK", "USD", _UNITED_STATES, 0.01, 200, "COMMON", *sector)


def _fund(con_id: int, symbol: str, primary: str, price: float, name: str) -> Listing:
    return Listing(con_id, symbol, primary, price, name, typical_size=800, stock_type="ETF")


_TECH = ("Technology", "Computers", "Computers")
_INTERNET = ("Communications", "Internet", "E-Commerce/Services")
_KNOWN = (
    _fund(756733, "SPY", "ARCA", 602.0, "SS SPDR S&P 500 ETF TRUST-US"),
    _fund(320227571, "QQQ", "NASDAQ", 528.0, "INVESCO QQQ TRUST SERIES 1"),
    _fund(9579970, "IWM", "ARCA", 221.0, "ISHARES RUSSELL 2000 ETF"),
    _stock(265598, "AAPL", "NASDAQ", 229.0, "APPLE INC", *_TECH),
    _stock(272093, "MSFT", "NASDAQ", 425.0, "MICROSOFT CORP", "Technology", "Software", "Applications Software"),
    _stock(208813719, "GOOGL", "NASDAQ", 178.0, "ALPHABET INC-CL A", *_INTERNET),
    _stock(3691937, "AMZN", "NASDAQ", 205.0, "AMAZON.COM INC", *_INTERNET),
    _stock(107113386, "META", "NASDAQ", 590.0, "META PLATFORMS INC-CLASS A", *_INTERNET),
    _stock(4815747, "NVDA", "NASDAQ", 138.0, "NVIDIA CORP", "Technology", "Semiconductors", "Electronic Components"),
    _stock(76792991, "TSLA", "NASDAQ", 345.0, "TESLA INC", "Consumer, Cyclical", "Auto Manufacturers", "Electric"),
    _stock(8314, "IBM", "NYSE", 226.0, "INTL BUSINESS MACHINES CORP", *_TECH),
    _stock(1520593, "JPM", "NYSE", 243.0, "JPMORGAN CHASE & CO", "Financial", "Banks", "Diversified Banking"),
    _stock(72063691, "BRK B", "NYSE", 470.0, "BERKSHIRE HATHAWAY INC-CL B", "Financial", "Insurance", "P&C Insurance"),
    Listing(416904, "SPX", "CBOE", 6000.0, "S&P 500 Stock Index", "IND", valid_exchanges="CBOE", stock_type=""),
    Listing(
        con_id=12087792,
        symbol="EUR",
        primary_exchange="",
        price=1.1315,
        long_name="European Monetary Union Euro",
        sec_type="CASH",
        valid_exchanges="IDEALPRO",
        min_tick=0.00005,
        typical_size=1_000_000,
        stock_type="",
        local_symbol="EUR.USD",
        trading_class="EUR.USD",
        market_rules="239",
    ),
    # Traded over the counter: details can be had, depth cannot.
    Listing(481516234, "OTCX", "PINK", 7.5, "OVER THE COUNTER EXAMPLE CO", valid_exchanges="SMART,PINK"),
)


class Catalogue:
    """Finds listings for requests.

    With `strict` only the built-in names exist; otherwise any stock name of one to five capitals is made up, the
    same one for the same seed. `NOSUCH` and every name that starts with `ZZ` never exist. `nasdaq_name` is the name
    under which the venue ISLAND / NASDAQ is listed; requests may use either.
    """

    def __init__(self, seed: int = 0, *, strict: bool = False, nasdaq_name: str = "ISLAND") -> None:
        if nasdaq_name not in NASDAQ_NAMES:
            raise ValueError(f"nasdaq_name is {nasdaq_name!r}; allowed: {', '.join(NASDAQ_NAMES)}")
        self._seed = seed
        self._strict = strict
        self._nasdaq_name = nasdaq_name
        listings = [self._named(listing) for listing in _KNOWN]
        self._by_key = {(listing.symbol, listing.sec_type): listing for listing in listings}
        self._by_con_id = {listing.con_id: listing for listing in listings}

    def find(self, request: Request) -> Listing | None:
        """The listing that a contract request names, by conId if it has one, else by symbol; None if there is none.

        A currency, primary exchange or exchange that is not the listing's own makes it not found.
        """
        listing = self._identify(request)
        if listing is None or not _agrees(listing, request):
            return None
        return listing

    def named(self, name: str) -> Listing | None:
        """The listing with that `Listing.name`; case and dots do not count, so that `eurusd` finds EUR.USD."""
        wanted = name.replace(".", "").upper()
        for listing in self._by_con_id.values():
            if listing.name.replace(".", "") == wanted:
                return listing
        return self._symbol(name.upper(), "STK")

    def rows_for(self, listing: Listing, exchange: str) -> Iterator[str]:
        """The exchange of each contract details row: the one asked for, or each of its own if none was named."""
        yield from (listing.exchanges if exchange == "" else (self._nasdaq(exchange),))

    def _identify(self, request: Request) -> Listing | None:
        con_id = request.integer("conId")
        if con_id:
            return self._by_con_id.get(con_id) or self._symbol(_made_up_name(con_id), "STK")
        symbol, sec_type = request.text("symbol"), request.text("secType")
        if not symbol and sec_type in ("STK", "CASH"):
            symbol = request.text("localSymbol").split(".")[0]
        return self._symbol(symbol, sec_type)

    def _symbol(self, symbol: str, sec_type: str) -> Listing | None:
        if symbol == "NOSUCH" or symbol.startswith("ZZ"):
            return None
        listing = self._by_key.get((symbol, sec_type))
        if listing is None and sec_type == "STK" and not self._strict and _MAKEABLE.fullmatch(symbol):
            listing = self._named(_make_up(symbol, self._seed))
            self._by_key[symbol, sec_type] = listing
            self._by_con_id[listing.con_id] = listing
        return listing

    def _named(self, listing: Listing) -> Listing:
        names = ",".join(self._nasdaq(name) for name in listing.exchanges)
        return replace(listing, valid_exchanges=names)

    def _nasdaq(self, exchange: str) -> str:
        return self._nasdaq_name if exchange in NASDAQ_NAMES else exchange


def _agrees(listing: Listing, request: Request) -> bool:
    currency, primary = request.text("currency"), request.text("primaryExchange")
    exchange, sec_type = request.text("exchange"), request.text("secType")
    return (
        currency in ("", listing.currency)
        and sec_type in ("", listing.sec_type)
        and (primary == "" or canonical(primary) == canonical(listing.primary_exchange))
        and (exchange == "" or listing.lists(exchange))
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
