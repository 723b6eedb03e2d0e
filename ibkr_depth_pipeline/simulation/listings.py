"""The depth venues and the contracts that the simulated gateway has. Plain data, and what follows from a date.

The service of a venue decides the message of its rows: `Deep2` names market makers and sends mktDepthL2 (13), `Deep`
sends mktDepth (12). The row style of a venue is this simulator's own choice; both occur among the default symbols on
purpose. So are the venues of options, and the con_ids of futures and options: a real gateway has other ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

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
    listing_exchange: str = ""
    """The venue has depth of contracts that are listed there alone; empty for all."""

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
    DepthVenue("AMEX", "STK", RowStyle.CASCADE, listing_exchange="AMEX"),
    DepthVenue("EBS", "STK", RowStyle.CASCADE),
    DepthVenue("TSEJ", "STK", RowStyle.CASCADE),
)
_OTHER_VENUES = (
    DepthVenue("IDEALPRO", "CASH", RowStyle.CASCADE, aggregate_group=4),
    DepthVenue("CME", "FUT", RowStyle.CASCADE),
    DepthVenue("EUREX", "FUT", RowStyle.CASCADE),
    DepthVenue("CBOE", "OPT", RowStyle.CASCADE),
)

SMART_DEPTH = DepthVenue("SMART", "STK", RowStyle.CASCADE, ("NSDQ", "ARCA", "BATS", "EDGX", "IEX", "NYSE"))
"""The aggregate of all venues (isSmartDepth true): the name in a row is the venue it rests on."""

DEPTH_VENUES: Mapping[tuple[str, str], DepthVenue] = {
    (venue.name, venue.sec_type): venue for venue in (*_STOCK_VENUES, *_OTHER_VENUES)
}

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
    last_trade_date: str = ""
    """YYYYMMDD, of what expires; contract_month is YYYYMM."""
    contract_month: str = ""
    multiplier: str = ""
    strike: float = 0.0
    right: str = ""
    alias: str = ""
    """The `name`, where the symbol's own belongs to another listing."""
    venue_classes: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Exchange -> the trading class there, where it is not that of the SMART line."""

    @property
    def name(self) -> str:
        """What this contract is called in options, journals and scenarios: `SPY`, `BRK B`, `EUR.USD`, `ESZ6`."""
        if self.alias:
            return self.alias
        if self.sec_type in ("FUT", "OPT"):
            return self.local_symbol
        return f"{self.symbol}.{self.currency}" if self.sec_type == "CASH" else self.symbol

    @property
    def exchanges(self) -> tuple[str, ...]:
        return tuple(self.valid_exchanges.split(","))

    def class_on(self, exchange: str) -> str:
        """The trading class of the line that is routed to the exchange."""
        return self.venue_classes.get(exchange, self.trading_class)


def _stock(con_id: int, symbol: str, primary: str, price: float, name: str, *sector: str) -> Listing:
    industry, category, subcategory = sector
    return Listing(
        *(con_id, symbol, primary, price, name), industry=industry, category=category, subcategory=subcategory
    )


def _fund(con_id: int, symbol: str, primary: str, price: float, name: str) -> Listing:
    return Listing(con_id, symbol, primary, price, name, typical_size=800, stock_type="ETF")


def _swiss(con_id: int, symbol: str, price: float, name: str, exchange: str) -> Listing:
    """The same name on a Swiss venue, in USD as well: one symbol and currency, two contracts."""
    return Listing(
        *(con_id, symbol, exchange, price, name),
        valid_exchanges=f"SMART,{exchange}",
        time_zone="MET",
        alias=f"{symbol}.{exchange}",
    )


def _pair(con_id: int, base: str, quote: str, price: float, name: str, tick: float = 0.00005) -> Listing:
    local = f"{base}.{quote}"
    return Listing(
        *(con_id, base, "", price, name, "CASH", quote, "IDEALPRO", tick, 1_000_000, ""),
        local_symbol=local,
        trading_class=local,
        market_rules="239",
    )


_TECH = ("Technology", "Computers", "Computers")
_INTERNET = ("Communications", "Internet", "E-Commerce/Services")
KNOWN = (
    _fund(756733, "SPY", "ARCA", 602.0, "SS SPDR S&P 500 ETF TRUST-US"),
    _fund(320227571, "QQQ", "NASDAQ", 528.0, "INVESCO QQQ TRUST SERIES 1"),
    _fund(9579970, "IWM", "ARCA", 221.0, "ISHARES RUSSELL 2000 ETF"),
    _fund(51529211, "GLD", "ARCA", 245.0, "SPDR GOLD SHARES"),
    _fund(229725622, "GDX", "ARCA", 38.0, "VANECK GOLD MINERS ETF"),
    _stock(265598, "AAPL", "NASDAQ", 229.0, "APPLE INC", *_TECH),
    _stock(272093, "MSFT", "NASDAQ", 425.0, "MICROSOFT CORP", "Technology", "Software", "Applications Software"),
    _stock(208813719, "GOOGL", "NASDAQ", 178.0, "ALPHABET INC-CL A", *_INTERNET),
    _stock(3691937, "AMZN", "NASDAQ", 205.0, "AMAZON.COM INC", *_INTERNET),
    replace(
        _stock(107113386, "META", "NASDAQ", 590.0, "META PLATFORMS INC-CLASS A", *_INTERNET),
        venue_classes=dict.fromkeys(("ISLAND", "NASDAQ", "ARCA", "BATS", "IEX", "NYSE"), "META"),
    ),
    _stock(4815747, "NVDA", "NASDAQ", 138.0, "NVIDIA CORP", "Technology", "Semiconductors", "Electronic Components"),
    _stock(76792991, "TSLA", "NASDAQ", 345.0, "TESLA INC", "Consumer, Cyclical", "Auto Manufacturers", "Electric"),
    _stock(8314, "IBM", "NYSE", 226.0, "INTL BUSINESS MACHINES CORP", *_TECH),
    _stock(1520593, "JPM", "NYSE", 243.0, "JPMORGAN CHASE & CO", "Financial", "Banks", "Diversified Banking"),
    _stock(72063691, "BRK B", "NYSE", 470.0, "BERKSHIRE HATHAWAY INC-CL B", "Financial", "Insurance", "P&C Insurance"),
    _stock(43645828, "UEC", "AMEX", 8.0, "URANIUM ENERGY CORP", "Energy", "Energy-Alternate Sources", "Uranium"),
    _swiss(480000001, "META", 590.0, "META PLATFORMS INC-CLASS A", "EBS"),
    _swiss(480000002, "MSFT", 425.0, "MICROSOFT CORP", "BX"),
    _swiss(480000003, "GLD", 245.0, "SPDR GOLD SHARES", "EBS"),
    _swiss(480000004, "GDX", 38.0, "VANECK GOLD MINERS ETF", "EBS"),
    Listing(416904, "SPX", "CBOE", 6000.0, "S&P 500 Stock Index", "IND", valid_exchanges="CBOE", stock_type=""),
    _pair(12087792, "EUR", "USD", 1.1315, "European Monetary Union Euro"),
    _pair(12087807, "EUR", "GBP", 0.8315, "European Monetary Union Euro"),
    _pair(12087797, "GBP", "USD", 1.3605, "British pound"),
    _pair(15016059, "USD", "JPY", 151.25, "United States dollar", 0.005),
    Listing(
        *(14016545, "7203", "TSEJ", 2750.0, "TOYOTA MOTOR CORP", "STK", "JPY", "SMART,TSEJ,JPNNEXT", 0.5, 300),
        time_zone="Japan",
    ),
    # Traded over the counter: details can be had, depth cannot.
    Listing(481516234, "OTCX", "PINK", 7.5, "OVER THE COUNTER EXAMPLE CO", valid_exchanges="SMART,PINK"),
)


# ---- what expires


_MONTH_LETTERS = "FGHJKMNQUVXZ"
_JUNETEENTH = (6, 19)


def third_friday(year: int, month: int) -> date:
    """The day on which equity index futures and options of the month expire: Thursday where Friday is Juneteenth."""
    first = date(year, month, 1)
    day = first + timedelta(days=(4 - first.weekday()) % 7 + 14)
    return day - timedelta(days=1) if (day.month, day.day) == _JUNETEENTH else day


def expiring(today: date) -> Iterator[Listing]:
    """The futures and options that are listed on that day."""
    yield from _futures(today, "ES", "CME", "50", 6050.0, 0.25, "E-mini S&P 500", "US/Central", quarters=5)
    for name, multiplier in (("FDAX", "25"), ("FDXM", "5"), ("FDXS", "1")):
        yield from _futures(
            *(today, "DAX", "EUREX", multiplier, 23900.0, 1.0, "DAX Performance Index", "MET"),
            quarters=3,
            trading_class=name,
        )
    for expiry in list(_quarters(today))[:2]:
        for strike in (590.0, 600.0, 610.0):
            for right in ("C", "P"):
                yield _option("SPY", expiry, strike, right)


def _quarters(today: date) -> Iterator[date]:
    """The expiries from that day on, for three years."""
    for year in range(today.year, today.year + 4):
        yield from (day for month in (3, 6, 9, 12) if (day := third_friday(year, month)) >= today)


def _futures(
    today: date,
    symbol: str,
    exchange: str,
    multiplier: str,
    price: float,
    tick: float,
    name: str,
    time_zone: str,
    *,
    quarters: int,
    trading_class: str = "",
) -> Iterator[Listing]:
    for expiry in list(_quarters(today))[:quarters]:
        traded = trading_class or symbol
        yield Listing(
            con_id=_con_id(f"{traded}{expiry:%Y%m%d}"),
            symbol=symbol,
            primary_exchange="",
            price=price,
            long_name=name,
            sec_type="FUT",
            currency="EUR" if exchange == "EUREX" else "USD",
            valid_exchanges=f"{exchange},QBALGO" if exchange == "CME" else exchange,
            min_tick=tick,
            typical_size=20,
            stock_type="",
            category="Indices",
            time_zone=time_zone,
            local_symbol=f"{traded}{_MONTH_LETTERS[expiry.month - 1]}{expiry.year % 10}",
            trading_class=traded,
            last_trade_date=f"{expiry:%Y%m%d}",
            contract_month=f"{expiry:%Y%m}",
            multiplier=multiplier,
        )


def _option(symbol: str, expiry: date, strike: float, right: str) -> Listing:
    local = f"{symbol:<6}{expiry:%y%m%d}{right}{int(strike * 1000):08d}"
    return Listing(
        con_id=_con_id(local),
        symbol=symbol,
        primary_exchange="",
        price=9.5,
        long_name="SS SPDR S&P 500 ETF TRUST-US",
        sec_type="OPT",
        valid_exchanges="SMART,CBOE,PHLX,ISE",
        typical_size=40,
        stock_type="",
        local_symbol=local,
        trading_class=symbol,
        last_trade_date=f"{expiry:%Y%m%d}",
        contract_month=f"{expiry:%Y%m}",
        multiplier="100",
        strike=strike,
        right=right,
    )


def _con_id(text: str) -> int:
    """A made-up con_id, the same for the same text: from 500 to 800 million."""
    number = 0
    for letter in text:
        number = (number * 131 + ord(letter)) % 300_000_007
    return 500_000_000 + number
