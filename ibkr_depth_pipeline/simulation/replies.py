"""What the simulated gateway answers: messages per version, the texts of error codes, a session's commands. Pure.

Field orders are those that the decoders of ib_insync 0.9.86, ib_async 2.1.0 and ibapi 9.81.1 read; a function that
returns bytes returns one whole frame. Times are unix seconds. Clients must match error codes, never texts: the texts
are those of one TWS version (docs/ibkr-market-depth.md, "Error codes").
"""

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from ibkr_depth_pipeline.simulation.catalogue import DepthVenue, Listing
from ibkr_depth_pipeline.simulation.codec import FieldValue, Request, ascii_text, frame, message, size_text
from ibkr_depth_pipeline.simulation.hours import hours_of
from ibkr_depth_pipeline.simulation.rows import WireRow

NO_REQUEST = -1
"""The request id of messages that answer no request: farm notices, refusals of a whole connection."""

_ORDER_TYPES = "ACTIVETIM,AD,ADJUST,ALERT,ALGO,ALLOC,AON,AVGCOST,BASKET,COND,DAY,GTC,GTD,IOC,LMT,MKT,STP,TRAIL"
_EASTERN = timezone(timedelta(hours=-5), "EST")


def handshake(version: int, now: float) -> bytes:
    """The agreed version and the gateway's clock; the only message of exactly two fields."""
    return message(version, datetime.fromtimestamp(now, _EASTERN).strftime("%Y%m%d %H:%M:%S EST"))


def next_valid_id(order_id: int) -> bytes:
    return message(9, 1, order_id)


def managed_accounts(accounts: Iterable[str]) -> bytes:
    return message(15, 1, ",".join(accounts))


def error_message(request_id: int, code: int, text: str, version: int) -> bytes:
    fields: list[FieldValue] = [4, 2, request_id, code, ascii_text(text) if version >= 153 else text]
    if version >= 166:
        fields.append("")  # advancedOrderRejectJson
    return message(*fields)


def current_time(now: float) -> bytes:
    return message(49, 1, int(now))


def contract_details(
    request_id: int, listing: Listing, exchange: str, version: int, now: float, hours_text: str | None = None
) -> bytes:
    """One row of contract details: the listing as it is routed to `exchange`; hours_text in place of its own hours."""
    hours, liquid_hours = hours_of(listing, now) if hours_text is None else (hours_text, hours_text)
    fields: list[FieldValue] = [10]
    if version < 164:
        fields.append(8)
    fields += [request_id, listing.symbol, listing.sec_type, _last_trade(listing), _strike(listing), listing.right]
    fields += [exchange, listing.currency]
    market_name = _market_name(listing)
    fields += [listing.local_symbol or listing.symbol, market_name, listing.class_on(exchange) or market_name]
    fields += [listing.con_id, repr(listing.min_tick)]
    if 110 <= version < 164:
        fields.append(1)  # mdSizeMultiplier
    name = ascii_text(listing.long_name) if version >= 153 else listing.long_name
    fields += [listing.multiplier, _ORDER_TYPES, listing.valid_exchanges, 1, 0, name]
    fields += [listing.primary_exchange, listing.contract_month]
    fields += [listing.industry, listing.category, listing.subcategory, listing.time_zone, hours, liquid_hours]
    fields += ["", 0, 0]  # evRule, evMultiplier, number of security ids
    return message(*fields, *_later_details(listing, version))


def _later_details(listing: Listing, version: int) -> list[FieldValue]:
    """The fields that later versions appended to contract details."""
    fields: list[FieldValue] = []
    if version >= 121:
        fields.append(4 if listing.sec_type == "CASH" else 1)  # aggGroup
    if version >= 122:
        fields += _underlying(listing)
    if version >= 126:
        fields.append(",".join([listing.market_rules] * len(listing.exchanges)))
    if version >= 134:
        fields.append(listing.last_trade_date)  # realExpirationDate
    if version >= 152:
        fields.append(listing.stock_type)
    if version == 163:
        fields.append(100)  # suggestedSizeIncrement
    if version >= 164:
        fields += [1, 1, 100]  # minSize, sizeIncrement, suggestedSizeIncrement
    return fields


def depth_exchanges(version: int, venues: Collection[DepthVenue]) -> bytes:
    """The venues that depth can be had from, some of them for contracts of one listing exchange alone."""
    fields: list[FieldValue] = [80, len(venues)]
    for venue in venues:
        fields += [venue.name, venue.sec_type]
        if version >= 120:
            fields += [venue.listing_exchange, venue.service, venue.aggregate_group]
        else:
            fields.append(venue.names_market_makers)
    return message(*fields)


def depth_row(request_id: int, row: WireRow, venue: DepthVenue, version: int) -> bytes:
    """One depth row: mktDepthL2 (13) if the venue names market makers, else mktDepth (12)."""
    position, operation, side, price, size, market_maker = row
    tail = f"{operation}\0{side}\0{price!r}\0{size_text(size)}\0"
    if not venue.market_makers:
        return frame(f"12\x001\0{request_id}\0{position}\0{tail}".encode())
    smart = f"{int(venue.name == 'SMART')}\0" if version >= 146 else ""
    return frame(f"13\x001\0{request_id}\0{position}\0{market_maker}\0{tail}{smart}".encode())


def raw_depth_row(request_id: int, fields: Mapping[str, str], market_maker: bool, smart: bool, version: int) -> bytes:
    """A depth row of any texts at all: `fields` has position, operation, side, price, size and market_maker.

    A name is sent in Latin-1, which for ASCII is the same as UTF-8.
    """
    tail = (fields["operation"], fields["side"], fields["price"], fields["size"])
    if not market_maker:
        return message(12, 1, request_id, fields["position"], *tail)
    flag = (smart,) if version >= 146 else ()
    return message(13, 1, request_id, fields["position"], fields["market_maker"], *tail, *flag, encoding="latin-1")


def account_value(key: str, value: str, currency: str, account: str) -> bytes:
    return message(6, 2, key, value, currency, account)


def account_time(now: float) -> bytes:
    return message(8, 1, datetime.fromtimestamp(now, _EASTERN).strftime("%H:%M"))


def account_download_end(account: str) -> bytes:
    return message(54, 1, account)


def account_update_multi(request_id: int, account: str, model: str, key: str, value: str, currency: str) -> bytes:
    return message(73, 1, request_id, account, model, key, value, currency)


def account_summary(request_id: int, account: str, key: str, value: str, currency: str) -> bytes:
    return message(63, 1, request_id, account, key, value, currency)


def end_of(message_id: int, request_id: int | None = None) -> bytes:
    """The closing message of a list, with a version field and the request id if the list has one."""
    return message(message_id, 1) if request_id is None else message(message_id, 1, request_id)


def completed_orders_end() -> bytes:
    return message(102)


def family_codes(accounts: tuple[str, ...]) -> bytes:
    return message(78, len(accounts), *(field for account in accounts for field in (account, "")))


def no_matching_symbols(request_id: int) -> bytes:
    return message(79, request_id, 0)


def market_rule(rule_id: int) -> bytes:
    increment = "0.00005" if rule_id == 239 else "0.01"
    return message(93, rule_id, 1, 0, increment)


def user_info(request_id: int) -> bytes:
    return message(107, request_id, "")


def _market_name(listing: Listing) -> str:
    if listing.sec_type == "CASH":
        return listing.local_symbol
    return {"NASDAQ": "NMS"}.get(listing.primary_exchange, listing.trading_class or listing.symbol)


def _last_trade(listing: Listing) -> str:
    """The last trade date, with a time of day and its zone where the contract is a future."""
    if listing.sec_type in ("FUT", "CONTFUT"):
        return f"{listing.last_trade_date} 08:30:00 {listing.time_zone}"
    return listing.last_trade_date


def _strike(listing: Listing) -> FieldValue:
    return repr(listing.strike) if listing.strike else 0


def _underlying(listing: Listing) -> list[FieldValue]:
    """underSymbol and underSecType of what is derived."""
    kind = {"FUT": "IND", "CONTFUT": "IND", "OPT": "STK"}.get(listing.sec_type, "")
    return [listing.symbol if kind else "", kind]


# ---- the texts of error codes


TEXTS: Mapping[int, str] = {
    100: "Max rate of messages per second has been exceeded:max={allowed} rec={received} ({violation})",
    101: "Max number of tickers has been reached",
    200: "No security definition has been found for the request",
    309: "Max number ({limit}) of market depth requests has been reached",
    310: "Can't find the subscribed market depth with tickerId:{request_id}",
    316: "Market depth data has been HALTED. Please re-subscribe.",
    317: "Market depth data has been RESET. Please empty deep book contents before applying any new entries.",
    320: "Error reading request.-'{short}' : cause - {cause}",
    321: "Error validating request.-'{short}' : cause - {cause}",
    322: "Error processing request.-'{short}' : cause - Duplicate ticker id",
    326: "Unable to connect as the client id is already in use. Retry with a unique client id.",
    354: "Requested market data is not subscribed.",
    478: "Parameters in request conflicts with contract parameters received by contract id: {conflict}",
    1100: "Connectivity between IB and Trader Workstation has been lost.",
    1101: "Connectivity between IB and Trader Workstation has been restored - data lost.",
    1102: "Connectivity between IB and Trader Workstation has been restored - data maintained.",
    1300: "Socket port has been reset and this connection is being dropped. Please reconnect on the new port - {port}",
    2103: "Market data farm connection is broken:usfarm",
    2104: "Market data farm connection is OK:usfarm",
    2105: "HMDS data farm connection is broken:ushmds",
    2106: "HMDS data farm connection is OK:ushmds",
    2108: "Market data farm connection is inactive but should be available upon demand.usfarm",
    2110: "Connectivity between Trader Workstation and server is broken. It will be restored automatically.",
    2152: "Exchanges - Depth: {depth}; Top: BYX; AMEX; PEARL; T24X; MEMX; EDGEA; OVERNIGHT; CHX; NYSENAT; IBEOS; PSX; "
    "LTSE; ISE; DRCTEDGE; Need additional market data permissions - Depth: {lacking}; ",
    2158: "Sec-def data farm connection is OK:secdefil",
    10089: "Requested market data requires additional subscription for API. See link in 'Market Data Connections' "
    "dialog for more details.",
    10090: "Part of requested market data is not subscribed. Subscription-independent ticks are still active.",
    10092: "Deep market data is not supported for this combination of security type/exchange",
    10197: "No market data during competing live session",
}

READ_ONLY = "The API interface is currently in Read-Only mode."
NO_EXCHANGE = "Please enter exchange."
NO_SECURITY_TYPE = "Please enter a valid security type"
NO_ORDERS = "The simulated gateway accepts no order."
NOT_SIMULATED = "The simulated gateway does not serve this request."
UNKNOWN_MESSAGE = "Unknown message id."
UNREADABLE = "Unable to parse data. {reason}"


_DEPTH = ("IEX", "BATS", "ARCA", "ISLAND", "BEX", "NYSE")
"""Venues whose depth 2152 speaks of."""


def permissions(lacking: Container[str]) -> dict[str, str]:
    """The names in 2152 for an account that lacks the depth of those venues."""
    return {
        "depth": "; ".join(venue for venue in _DEPTH if venue not in lacking),
        "lacking": "; ".join("NASDAQ" if venue == "ISLAND" else venue for venue in _DEPTH if venue in lacking),
    }


_PLACEHOLDERS: dict[str, object] = {
    **{"short": "bR", "cause": "", "conflict": "", "port": "", "allowed": 50, "received": 51, "violation": 1},
    **{"limit": 3, "request_id": -1, "depth": "IEX", "lacking": "BATS; ARCA; NASDAQ; BEX; NYSE"},
}


def text_of(code: int, **names: object) -> str:
    """The text of a code with its placeholders filled in; a code without a text of its own gets a plain one."""
    template = TEXTS.get(code, "Simulated error {code}")
    return template.format_map({**_PLACEHOLDERS, "code": code, **names})


# ---- what a session has the server carry out, in order


@dataclass(slots=True, eq=False)
class Subscription:
    """One accepted depth request. The server sets `first_row_sent` as soon as it is true."""

    request_id: int
    smart: bool
    listing: Listing
    venue: DepthVenue
    depth: int
    """Rows a side."""
    first_row_sent: bool = False
    cancel_lost: bool = False

    @property
    def key(self) -> tuple[int, bool]:
        """Smart and direct requests are separate name spaces."""
        return self.request_id, self.smart


@dataclass(frozen=True, slots=True)
class Received:
    """A request came in whole."""

    request: Request


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the client; `name` and `detail` describe them in the journal."""

    data: bytes
    name: str
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more is to be read; close once what was sent is out."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartDepth:
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class StopDepth:
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Later:
    """After so many seconds ask `then`, with the time it is by then, for more commands."""

    seconds: float
    then: "Callable[[float], Iterable[Command]]"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request gets no answer, on purpose."""

    request: Request
    reason: str


Command = Received | Send | Close | StartDepth | StopDepth | Later | Unanswered


def error(version: int, request_id: int, code: int, texts: Mapping[int, str] | None = None, **names: object) -> Send:
    """An error message with the code's own text, or that of `texts`; `names` fill the text's placeholders."""
    own = (texts or {}).get(code)
    text = text_of(code, request_id=request_id, **names)
    text = text if own is None else own.replace("{request_id}", str(request_id))
    detail: dict[str, object] = {"request_id": request_id, "code": code, "text": text}
    return Send(error_message(request_id, code, text, version), "error", detail)
