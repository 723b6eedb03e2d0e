"""What clients ask: every request's fields by name, as a table. Pure.

Layouts are those that ib_insync 0.9.86, ib_async 2.1.0 and ibapi 9.81.1 send. A field that only exists from some
server version on is a pair of its name and that version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

FieldRule = str | tuple[str, int]

_CONTRACT: tuple[FieldRule, ...] = (
    "conId",
    "symbol",
    "secType",
    "lastTradeDateOrContractMonth",
    "strike",
    "right",
    "multiplier",
    "exchange",
)


class MalformedRequest(Exception):
    """A request with too few fields, or with text where a number belongs. Answered with error 320."""


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    fields: tuple[FieldRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `values` are the texts as they came, by field name; what came beyond the layout is in `rest`."""

    message_id: int
    name: str
    values: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def integer(self, name: str, default: int = 0) -> int:
        """The field as an int; an empty or absent one is `default`. Raises MalformedRequest for anything else."""
        value = self.values.get(name, "")
        if value == "":
            return default
        try:
            return int(value)
        except ValueError:
            raise MalformedRequest(f"{self.name}: {name} is {value!r}, not a whole number") from None

    def flag(self, name: str) -> bool:
        return self.text(name).lower() in ("1", "true")


LAYOUTS: Mapping[int, Layout] = {
    1: Layout("reqMktData", ("version", "reqId")),
    2: Layout("cancelMktData", ("version", "reqId")),
    3: Layout("placeOrder", ("orderId",)),
    4: Layout("cancelOrder", ("version", "orderId")),
    5: Layout("reqOpenOrders", ("version",)),
    6: Layout("reqAccountUpdates", ("version", "subscribe", "account")),
    7: Layout("reqExecutions", ("version", "reqId")),
    8: Layout("reqIds", ("version", "count")),
    9: Layout(
        "reqContractDetails",
        (
            *("version", "reqId", *_CONTRACT, "primaryExchange", "currency", "localSymbol", "tradingClass"),
            *("includeExpired", "secIdType", "secId", ("issuerId", 176)),
        ),
    ),
    10: Layout(
        "reqMktDepth",
        (
            *("version", "reqId", *_CONTRACT, ("primaryExchange", 149), "currency", "localSymbol", "tradingClass"),
            *("numRows", ("isSmartDepth", 146), "options"),
        ),
    ),
    11: Layout("cancelMktDepth", ("version", "reqId", ("isSmartDepth", 146))),
    14: Layout("setServerLogLevel", ("version", "level")),
    15: Layout("reqAutoOpenOrders", ("version", "autoBind")),
    16: Layout("reqAllOpenOrders", ("version",)),
    17: Layout("reqManagedAccts", ("version",)),
    20: Layout("reqHistoricalData", ("reqId",)),
    21: Layout("exerciseOptions", ("version", "reqId")),
    25: Layout("cancelHistoricalData", ("version", "reqId")),
    49: Layout("reqCurrentTime", ("version",)),
    50: Layout("reqRealTimeBars", ("version", "reqId")),
    58: Layout("reqGlobalCancel", ("version",)),
    59: Layout("reqMarketDataType", ("version", "marketDataType")),
    61: Layout("reqPositions", ("version",)),
    62: Layout("reqAccountSummary", ("version", "reqId", "group", "tags")),
    63: Layout("cancelAccountSummary", ("version", "reqId")),
    64: Layout("cancelPositions", ("version",)),
    71: Layout("startApi", ("version", "clientId")),
    74: Layout("reqPositionsMulti", ("version", "reqId", "account", "modelCode")),
    75: Layout("cancelPositionsMulti", ("version", "reqId")),
    76: Layout("reqAccountUpdatesMulti", ("version", "reqId", "account", "modelCode", "ledgerAndNlv")),
    77: Layout("cancelAccountUpdatesMulti", ("version", "reqId")),
    80: Layout("reqFamilyCodes"),
    81: Layout("reqMatchingSymbols", ("reqId", "pattern")),
    82: Layout("reqMktDepthExchanges"),
    91: Layout("reqMarketRule", ("marketRuleId",)),
    97: Layout("reqTickByTickData", ("reqId",)),
    99: Layout("reqCompletedOrders", ("apiOnly",)),
    104: Layout("reqUserInfo", ("reqId",)),
}

_UNKNOWN = "unknown"
REQUEST_NAMES = (*(layout.name for layout in LAYOUTS.values()), _UNKNOWN)


def decode_request(fields: list[str], version: int) -> Request:
    """Names the fields of one message. Raises MalformedRequest where a field of the layout is missing.

    A message id that is not in the table becomes a request named `unknown`, with every field in `rest`.
    """
    try:
        message_id = int(fields[0])
    except (IndexError, ValueError):
        raise MalformedRequest("a message without a number at its start") from None
    layout = LAYOUTS.get(message_id)
    if layout is None:
        return Request(message_id, _UNKNOWN, rest=tuple(fields[1:]))
    names = [rule if isinstance(rule, str) else rule[0] for rule in layout.fields if _exists(rule, version)]
    values = fields[1:]
    if len(values) < len(names):
        raise MalformedRequest(f"{layout.name}: {len(values)} fields where {len(names)} belong")
    return Request(message_id, layout.name, dict(zip(names, values, strict=False)), tuple(values[len(names) :]))


def _exists(rule: FieldRule, version: int) -> bool:
    return isinstance(rule, str) or version >= rule[1]
