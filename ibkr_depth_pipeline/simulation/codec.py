"""The TWS text protocol: frames, fields, how a number is written, and the layout of every request. Pure.

A frame is a 4-byte big-endian length and that many bytes; the bytes are fields, each ended by NUL. A client opens
with the four bytes `API\\0`, then one frame `vMIN..MAX[ options]`; everything after is frames of fields
(docs/ibkr-market-depth.md, "Wire protocol"; layouts per version as the official `ibapi` and `ib_insync` decode them).

Requests are read as ib_insync 0.9.86, ib_async 2.1.0 and ibapi 9.81.1 send them. A field that exists only from some
server version on is a pair of its name and that version.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

PREAMBLE = b"API\0"
LOWEST_VERSION = 100
"""The first server version of the length-prefixed protocol; older clients are not spoken to."""
HIGHEST_VERSION = 178
"""The last server version whose layouts were checked against a client's decoder (ib_async 2.1.0)."""
LONGEST_FRAME = 0xFFFFFF
"""Bytes. IBKR's own clients treat anything longer as a broken stream."""

_LENGTH = struct.Struct(">I")
_VERSIONS = re.compile(rb"v(\d{1,6})(?:\.\.(\d{1,6}))?(?: (.*))?", re.DOTALL)

FieldValue = str | int | float | bool | None


class ProtocolViolation(Exception):
    """The peer does not speak this protocol: the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client offers in its first frame: the protocol versions it can speak, and its connect options."""

    lowest: int
    highest: int
    options: str = ""

    def version_agreed_with(self, server_version: int) -> int | None:
        """The highest version both sides speak, or None if there is none."""
        agreed = min(self.highest, server_version)
        return agreed if agreed >= max(self.lowest, LOWEST_VERSION) else None


class InboundStream:
    """Cuts what a client sends into frames, however the network cut it. The preamble is checked and taken off."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> list[bytes]:
        """Every frame now complete, oldest first, without its length.

        Raises ProtocolViolation if the stream does not open with the preamble or announces an absurd frame.
        """
        self._data += data
        if not self._greeted and not self._take_preamble():
            return []
        frames = []
        while (frame := self._take_frame()) is not None:
            frames.append(frame)
        return frames

    def _take_preamble(self) -> bool:
        if not PREAMBLE.startswith(bytes(self._data[:4])):
            raise ProtocolViolation(f"not an API client: it opened with {bytes(self._data[:16])!r}")
        if len(self._data) < len(PREAMBLE):
            return False
        del self._data[: len(PREAMBLE)]
        self._greeted = True
        return True

    def _take_frame(self) -> bytes | None:
        if len(self._data) < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._data)
        if length > LONGEST_FRAME:
            raise ProtocolViolation(f"a frame of {length} bytes was announced")
        if len(self._data) < 4 + length:
            return None
        frame = bytes(self._data[4 : 4 + length])
        del self._data[: 4 + length]
        return frame


def parse_offer(frame: bytes) -> Offer:
    """The client's version range. Raises ProtocolViolation for anything that is not `vMIN..MAX` or `vN`."""
    match = _VERSIONS.fullmatch(frame.rstrip(b"\0"))
    if match is None:
        raise ProtocolViolation(f"not a version offer: {frame[:40]!r}")
    lowest, highest, options = match.groups()
    return Offer(int(lowest), int(highest or lowest), (options or b"").decode(errors="replace"))


def frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


def message(*fields: FieldValue, encoding: str = "utf-8") -> bytes:
    """One frame of NUL-ended fields. None is an empty field, a bool is 1 or 0, a whole float loses its `.0`."""
    return frame("".join([f"{field_text(field)}\0" for field in fields]).encode(encoding))


def fields_of(payload: bytes) -> list[str]:
    """The fields of a frame's payload; bytes that are no UTF-8 come out backslash-escaped."""
    fields = payload.decode(errors="backslashreplace").split("\0")
    if fields and fields[-1] == "":
        fields.pop()
    return fields


def field_text(value: FieldValue) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return size_text(value)
    return str(value)


def size_text(size: float) -> str:
    """A size as a gateway writes it: whole sizes without a decimal point (ibapi before version 163 wants an int)."""
    return str(int(size)) if size.is_integer() and abs(size) < 1e15 else repr(size)


def ascii_text(text: str) -> str:
    """Text as servers from version 153 on send names: ASCII, everything else as a backslash escape."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


# ---- requests


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
    """A request with too few fields, or with text in the place of a number. Answered with error 320."""


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
    """Names the fields of one message. Raises MalformedRequest if a field of the layout is missing.

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
