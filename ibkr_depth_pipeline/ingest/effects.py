"""What the pipeline wants done, one type for each effect, and the executor that does it, in order.

The rotation's `Cancel`, `Recheck` and `Reconnect` are effects as they are. Free of I/O of its own: the executor knows
the gateway, the writer, the log and the run's tasks by what it needs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from typing_extensions import assert_never

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.rotation.events import Cancel, Recheck
from ibkr_depth_pipeline.rotation.slots import Reconnect


@dataclass(frozen=True, slots=True)
class RequestDepth:
    """Request depth of `instrument` from the gateway under the id `request`."""

    request: int
    instrument: Instrument


@dataclass(frozen=True, slots=True)
class RecordRefusal:
    """Record in the venue hash that the gateway refuses depth of `instrument`."""

    instrument: Instrument
    reason: str


@dataclass(frozen=True, slots=True)
class RecordVenue:
    """Record in the venue hash that rows come from `instrument`'s venue; refused_venues: better ones that refused."""

    instrument: Instrument
    refused_venues: str


@dataclass(frozen=True, slots=True)
class LogPersisted:
    """Log what was stored of `symbols` since the last such line."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetHeartbeatTtl:
    """Let heartbeats live `secs`; last_rows: unix ms by symbol, of those whose heartbeats are to be extended.

    own: symbol -> its own TTL, of those with another one.
    """

    secs: int
    last_rows: Mapping[str, int]
    own: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """Log one line."""

    level: str
    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DumpTape:
    """Have the flight recorder write out the last minutes of the wire. reason: one word; detail: whose, and what."""

    reason: str
    detail: str = ""


Effect = (
    RequestDepth
    | Cancel
    | Recheck
    | RecordRefusal
    | RecordVenue
    | LogPersisted
    | SetHeartbeatTtl
    | Reconnect
    | LogLine
    | DumpTape
)


class DepthRequests(Protocol):
    """The gateway, as far as subscriptions go (gateway/tws.py: TwsGateway)."""

    def subscribe(self, request: int, instrument: Instrument, rows: int, /) -> None: ...

    def cancel(self, request: int, /) -> None: ...


class VenueWriter(Protocol):
    """The writer, as far as venues and heartbeats go (sink/writer.py: RedisWriter)."""

    heartbeat_ttl: int
    own_heartbeat_ttls: Mapping[str, int]

    def record_venue(
        self, resolution: Instrument, checked_ts: int, reason: str = "", refused_venues: str | None = None
    ) -> None: ...

    def record_contract(self, instrument: Instrument) -> None: ...

    async def extend_heartbeats(self, last_rows: dict[str, int], now_ms: int) -> None: ...


class EffectLog(Protocol):
    """The log, rate-limited (figures.py: RateLimitedLog)."""

    def log(self, line: LogLine, /) -> None: ...

    def log_persisted(self, symbols: Iterable[str], /) -> None: ...


class DepthRequester:
    """Sends depth requests and cancels to the gateway, and logs each; a failure to send is logged and no more.

    rows: how many rows a side are requested.
    """

    def __init__(self, gateway: DepthRequests, rows: int, log: Callable[[LogLine], None]) -> None:
        self._gateway = gateway
        self._rows = rows
        self._log = log

    def request(self, effect: RequestDepth) -> None:
        instrument = effect.instrument
        fields = {"symbol": instrument.symbol, "request_id": effect.request}
        self._log(LogLine("info", "subscribed", {**fields, "exchange": instrument.exchange, "rows": self._rows}))
        self._send(lambda: self._gateway.subscribe(effect.request, instrument, self._rows))

    def cancel(self, effect: Cancel) -> None:
        self._log(LogLine("info", "unsubscribed", {"symbol": effect.symbol, "request_id": effect.request}))
        self._send(lambda: self._gateway.cancel(effect.request))

    def _send(self, send: Callable[[], None]) -> None:
        try:
            send()
        except (GatewayError, ConnectionError) as error:  # the loss itself is on its way as an event
            self._log(LogLine("warning", "send_failed", {"error": str(error)}))


class EffectExecutor:
    """Carries out each effect at once; what waits for an answer goes on as a task of the run.

    rows: how many rows a side are requested; start(work) runs a task; resolve_again(symbol) searches its venue again;
    reconnect(reason) closes the connection, and may execute more effects before it returns. wall_ms: unix ms.
    requested(effect) is called right before depth is requested, and its effects are executed first; cancelled(request,
    ms) right after a cancel, with the moment before it; changed() after each of both; dump_tape(reason, detail) for a
    DumpTape.
    """

    def __init__(
        self,
        gateway: DepthRequests,
        writer: VenueWriter,
        log: EffectLog,
        *,
        rows: int,
        start: Callable[[Coroutine[Any, Any, None]], None],
        resolve_again: Callable[[str], None],
        reconnect: Callable[[str], None],
        wall_ms: Callable[[], int],
        requested: Callable[[RequestDepth], Iterable[Effect]] = lambda effect: (),
        cancelled: Callable[[int, int], None] = lambda request, now_ms: None,
        dump_tape: Callable[[str, str], None] = lambda reason, detail: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._requester = DepthRequester(gateway, rows, log.log)
        self._writer = writer
        self._log = log
        self._start = start
        self._resolve_again = resolve_again
        self._reconnect = reconnect
        self._wall_ms = wall_ms
        self._requested = requested
        self._cancelled = cancelled
        self._dump_tape = dump_tape
        self._changed = changed

    def execute(self, effects: Iterable[Effect]) -> None:
        """Carry the effects out, in this order."""
        for effect in effects:
            match effect:
                case RequestDepth():
                    self._writer.record_contract(effect.instrument)
                    self.execute(self._requested(effect))
                    self._requester.request(effect)
                    self._changed()
                case Cancel():
                    before = self._wall_ms()  # once the cancel is sent, the line may be dead at any moment
                    self._requester.cancel(effect)
                    self._cancelled(effect.request, before)
                    self._changed()
                case Recheck():
                    self._resolve_again(effect.symbol)
                case Reconnect():
                    self._reconnect(effect.reason)
                case RecordRefusal():
                    self._writer.record_venue(effect.instrument, self._wall_ms(), effect.reason)
                case RecordVenue():
                    self._writer.record_venue(effect.instrument, self._wall_ms(), refused_venues=effect.refused_venues)
                case SetHeartbeatTtl():
                    self._set_heartbeat_ttl(effect)
                case LogLine():
                    self._log.log(effect)
                case LogPersisted():
                    self._log.log_persisted(effect.symbols)
                case DumpTape():
                    self._dump_tape(effect.reason, effect.detail)
                case _:
                    assert_never(effect)

    def _set_heartbeat_ttl(self, effect: SetHeartbeatTtl) -> None:
        self._writer.heartbeat_ttl = effect.secs
        self._writer.own_heartbeat_ttls = effect.own
        if effect.last_rows:
            self._start(self._writer.extend_heartbeats(dict(effect.last_rows), self._wall_ms()))
