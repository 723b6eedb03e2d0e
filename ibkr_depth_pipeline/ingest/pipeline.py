"""Pure wiring: gateway events -> books and rotation -> effects.

`row` is the hot path: one row in, one snapshot out. Everything else goes through `handle` and `tick`, which return what
is to be done. `now` is monotonic seconds, `now_ms` unix milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest.effects import (
    Cancel,
    Effect,
    Publish,
    Recheck,
    Reconnect,
    RecordRefusal,
    ReportPersisted,
    Say,
    SetHeartbeatTtl,
    Subscribe,
)
from ibkr_depth_pipeline.model import BookSnapshot, DepthRow, Instrument, RowFault, Unresolved
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.rotation.controller import RotationController, RotationPlan
from ibkr_depth_pipeline.sink.encoding import StreamPosition

LEAST_HEARTBEAT_TTL_SECS = 30

_REQUESTS_REMEMBERED = 1000

_DEPTH_AILMENTS = frozenset({2103, 2108, 2110, 10197})
"""Feed health codes that speak of live market data; the others are about historical data."""


@dataclass(slots=True)
class _Subscription:
    symbol: str
    venue: str
    book: OrderBook
    last_row_ms: int = 0


@dataclass(slots=True)
class _Numbering:
    """Where a symbol's stream stands: its newest snapshot's time and number."""

    ts: int
    seq: int


@dataclass
class PipelineFigures:
    """What has happened since the start; `dropped` counts rows by (symbol, reason)."""

    rows: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused_309: int = 0
    refused_309_of: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    turns: int = 0


class DepthPipeline:
    """Books and rotation of one gateway.

    rows is how many rows a side are requested; heartbeat_ttl the operator's, in seconds. It begins without symbols:
    `number_from` says where their numbering goes on, and `resolved` brings each into the rotation.
    """

    def __init__(self, plan: RotationPlan, request_ids: Iterator[int], *, rows: int, heartbeat_ttl: int) -> None:
        self._rows = rows
        self._configured_ttl = heartbeat_ttl
        self._rotation = RotationController((), plan, request_ids)
        self._instruments: dict[str, Instrument] = {}
        self._numbering: dict[str, _Numbering] = {}
        self._subscriptions: dict[int, _Subscription] = {}
        self._symbol_of: dict[int, str] = {}  # the newest requests of this connection, retired ones as well
        self._last_rows: dict[str, int] = {}
        self._ailments: set[int] = set()
        self._suspended = False
        self._ttl = 0
        self.awaited: set[int] = set()  # requests whose next row the rotation wants to hear of
        self.figures = PipelineFigures()

    # ---- the hot path

    def row(self, request: int, row: DepthRow, now_ms: int) -> BookSnapshot | None:
        """Apply one row. Returns the snapshot to store, or None where the row was dropped (and counted)."""
        subscription = self._subscriptions.get(request)
        if subscription is None:
            self._drop(request, RowFault.RETIRED_REQUEST)
            return None
        fault = subscription.book.apply(row)
        if fault is not None:
            self._drop(request, fault)
            return None
        self.figures.rows[subscription.symbol] += 1
        snapshot = self._snapshot(subscription, now_ms)
        subscription.last_row_ms = snapshot.ts  # as it is stored: it never falls
        return snapshot

    def _snapshot(self, subscription: _Subscription, now_ms: int) -> BookSnapshot:
        numbering = self._numbering[subscription.symbol]
        numbering.seq += 1
        if now_ms > numbering.ts:  # a clock that was set back must not make ids fall
            numbering.ts = now_ms
        book = subscription.book
        return BookSnapshot(subscription.symbol, numbering.seq, numbering.ts, subscription.venue, book.bids, book.asks)

    def _drop(self, request: int, fault: RowFault) -> None:
        self.figures.dropped[self._symbol_of.get(request, "unknown"), fault.value] += 1

    # ---- what can be asked

    def next_deadline(self) -> float | None:
        """When `handle(rotation.Deadline(), ...)` is due."""
        return self._rotation.next_deadline()

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription."""
        return self._rotation.subscribed

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._rotation.batch_size

    @property
    def suspended(self) -> bool:
        """Whether the gateway has said that it lost IBKR."""
        return self._suspended

    @property
    def ailments(self) -> tuple[int, ...]:
        """The codes of the troubles with live market data that still stand."""
        return tuple(sorted(self._ailments & _DEPTH_AILMENTS))

    def last_rows(self) -> dict[str, int]:
        """symbol -> unix ms of its last row of this run."""
        now = {each.symbol: each.last_row_ms for each in self._subscriptions.values() if each.last_row_ms}
        return {**self._last_rows, **now}

    def venues(self) -> dict[str, str]:
        """symbol -> the venue it is asked for at."""
        return {symbol: instrument.exchange for symbol, instrument in self._instruments.items()}

    def live_books(self) -> dict[str, int]:
        """symbol -> unix ms of the last row, of every subscription that has a book that can be trusted to be live.

        Whether the gateway still answers is the caller's to know.
        """
        if self._suspended or self._ailments & _DEPTH_AILMENTS:
            return {}
        return {
            subscription.symbol: subscription.last_row_ms
            for request, subscription in self._subscriptions.items()
            if not subscription.book.is_empty and request not in self.awaited
        }

    # ---- everything but rows

    def first_row(self, request: int, now: float) -> list[Effect]:
        """A row of an awaited request has come."""
        self.awaited.discard(request)
        self._ailments.discard(10197)
        return self._rotate(rotation.Answered(request), now)

    def number_from(self, positions: Mapping[str, StreamPosition]) -> None:
        """The newest snapshot that is stored of each symbol there may be. Call it once, before the first row."""
        self._numbering = {symbol: _Numbering(position.ts, position.seq) for symbol, position in positions.items()}

    def resolved(self, resolution: Instrument | Unresolved, now: float) -> list[Effect]:
        """A symbol's venue was found, for the first time or anew; or it has none, and is looked at again later."""
        symbol = resolution.symbol
        if isinstance(resolution, Instrument):
            self._instruments[symbol] = resolution
            return self._rotate(rotation.Rechecked(symbol, True), now)
        self._instruments.pop(symbol, None)
        return self._rotate(rotation.Rechecked(symbol, False, resolution.reason), now)

    def tell_rotation(self, event: rotation.RotationEvent, now: float) -> list[Effect]:
        """Connected, Deadline, Stop: what does not come from the gateway."""
        if isinstance(event, rotation.Connected):
            self.figures.connections += 1
            self._suspended = False
            self._ailments.clear()
        return self._rotate(event, now)

    def handle(self, event: gateway.GatewayEvent, now: float, now_ms: int) -> list[Effect]:
        """Anything the gateway says that is not a row."""
        reaction = _REACTIONS.get(type(event))
        return reaction(self, event, now, now_ms) if reaction else []

    def _unreadable(self, event: gateway.RowUnreadable, now: float, now_ms: int) -> list[Effect]:
        self._drop(event.request, event.fault)
        return []

    def _message_unreadable(self, event: gateway.MessageUnreadable, now: float, now_ms: int) -> list[Effect]:
        self.figures.dropped["unknown", "unreadable_message"] += 1
        return []

    def _reset(self, event: gateway.BookReset, now: float, now_ms: int) -> list[Effect]:
        subscription = self._subscriptions.get(event.request)
        effects: list[Effect] = [Say("info", "book_reset", self._about(event.request))]
        if subscription is not None:
            subscription.book.reset()
            effects.append(Publish(self._snapshot(subscription, now_ms)))
        if event.request in self.awaited:
            effects += self.first_row(event.request, now)
        return effects

    def _halted(self, event: gateway.DepthHalted, now: float, now_ms: int) -> list[Effect]:
        said = Say("warning", "depth_halted", self._about(event.request))
        return [said, *self._rotate(rotation.Halted(event.request), now)]

    def _slot_refused(self, event: gateway.SlotRefused, now: float, now_ms: int) -> list[Effect]:
        self.figures.refused_309 += 1
        self.figures.refused_309_of[self._symbol_of.get(event.request, "unknown")] += 1
        said = Say("warning", "slot_refused", {**self._about(event.request), "code": 309, "text": event.text})
        self._retire(event.request)
        return [said, *self._rotate(rotation.Full(event.request), now)]

    def _depth_refused(self, event: gateway.DepthRefused, now: float, now_ms: int) -> list[Effect]:
        about = self._about(event.request)
        said = Say("warning", "depth_refused", {**about, "code": event.code, "text": event.text})
        self._retire(event.request)
        return [said, *self._rotate(rotation.Refused(event.request, f"{event.code}: {event.text}"), now)]

    def _id_rejected(self, event: gateway.RequestIdRejected, now: float, now_ms: int) -> list[Effect]:
        said = Say("warning", "request_id_rejected", {**self._about(event.request), "code": 322})
        self._retire(event.request)
        return [said, *self._rotate(rotation.IdRejected(event.request), now)]

    def _cancel_rejected(self, event: gateway.CancelRejected, now: float, now_ms: int) -> list[Effect]:
        return [Say("info", "cancel_rejected", {**self._about(event.request), "code": 310})]

    def _connectivity_lost(self, event: gateway.ConnectivityLost, now: float, now_ms: int) -> list[Effect]:
        self._suspended = True
        said = Say("warning", "connectivity_lost", {"code": 1100, "text": event.text})
        return [said, *self._rotate(rotation.Suspended(), now)]

    def _connectivity_back(self, event: gateway.ConnectivityRestored, now: float, now_ms: int) -> list[Effect]:
        self._suspended = False
        self._ailments.clear()
        self.awaited |= set(self._subscriptions)  # whether they still bring rows is now the question
        said = Say("warning", "connectivity_restored", {"data_lost": event.data_lost, "text": event.text})
        return [said, *self._rotate(rotation.Resumed(event.data_lost), now)]

    def _port_reset(self, event: gateway.SocketPortReset, now: float, now_ms: int) -> list[Effect]:
        return [Say("warning", "socket_port_reset", {"code": 1300, "text": event.text}), Reconnect()]

    def _feed_health(self, event: gateway.FeedHealth, now: float, now_ms: int) -> list[Effect]:
        if event.healthy:
            self._ailments -= _CURED_BY.get(event.code, frozenset())
        else:
            self._ailments.add(event.code)
        name = "feed_healthy" if event.healthy else "feed_degraded"
        return [Say("info" if event.healthy else "warning", name, {"code": event.code, "text": event.text})]

    def _pacing(self, event: gateway.PacingViolation, now: float, now_ms: int) -> list[Effect]:
        return [Say("warning", "pacing_violation", {"code": 100, "text": event.text})]

    def _notice(self, event: gateway.Notice, now: float, now_ms: int) -> list[Effect]:
        about = {} if event.request is None else self._about(event.request)
        return [Say("info", "gateway_notice", {**about, "code": event.code, "text": event.text})]

    def _connection_lost(self, event: gateway.ConnectionLost, now: float, now_ms: int) -> list[Effect]:
        said = Say("warning", "connection_lost", {"text": event.text, "subscriptions": len(self._subscriptions)})
        self._subscriptions.clear()
        self._symbol_of.clear()
        self.awaited.clear()
        return [said, *self._rotate(rotation.Disconnected(), now)]

    # ---- the rotation's commands

    def _rotate(self, event: rotation.RotationEvent, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for command in self._rotation.handle(event, now):
            effects += _COMMANDS[type(command)](self, command)
        return effects

    def _subscribe(self, command: rotation.Subscribe) -> list[Effect]:
        instrument = self._instruments[command.symbol]
        book = OrderBook(self._rows, instrument.exchange)
        self._subscriptions[command.request] = _Subscription(command.symbol, instrument.exchange, book)
        self._symbol_of[command.request] = command.symbol
        if len(self._symbol_of) > _REQUESTS_REMEMBERED:
            del self._symbol_of[next(iter(self._symbol_of))]
        self.awaited.add(command.request)
        return [Subscribe(command.request, instrument)]

    def _cancel(self, command: rotation.Cancel) -> list[Effect]:
        heard = command.request not in self.awaited
        self._retire(command.request)
        if not heard:
            self.awaited.add(command.request)  # its cancel may be ignored; the rotation wants to know
            self.awaited &= self._symbol_of.keys()
        return [Cancel(command.request, command.symbol)]

    def _retire(self, request: int) -> None:
        """Rows of this request never reach a book again."""
        self.awaited.discard(request)
        subscription = self._subscriptions.pop(request, None)
        if subscription is not None and subscription.last_row_ms:
            self._last_rows[subscription.symbol] = subscription.last_row_ms

    def _turn_started(self, command: rotation.TurnStarted) -> list[Effect]:
        self.figures.turns = command.turn
        fields = {"turn": command.turn, "symbols": list(command.symbols), "batch_size": command.batch_size}
        return [Say("info", "rotation_started", fields), *self._adjust_ttl(extend=False)]

    def _turn_ended(self, command: rotation.TurnEnded) -> list[Effect]:
        fields = {"turn": command.turn, "symbols": list(command.symbols), "secs": round(command.secs, 3)}
        return [Say("info", "rotation_ended", fields), ReportPersisted(command.symbols)]

    def _resized(self, command: rotation.BatchResized) -> list[Effect]:
        shrunk = command.size < command.previous
        fields = {"size": command.size, "previous": command.previous, "symbol": command.symbol}
        said = Say("warning" if shrunk else "info", "batch_shrunk" if shrunk else "batch_grown", fields)
        return [said, *self._adjust_ttl(extend=shrunk)]

    def _release_raced(self, command: rotation.ReleaseRaced) -> list[Effect]:
        fields = {"symbol": command.symbol, "pause_secs": command.pause_secs}
        return [Say("warning", "slot_released_late", fields)]

    def _unsupported(self, command: rotation.MarkedUnsupported) -> list[Effect]:
        fields = {"symbol": command.symbol, "reason": command.reason, "retry_secs": command.retry_secs}
        effects: list[Effect] = [Say("warning", "symbol_skipped", fields)]
        if command.symbol in self._instruments:
            effects.append(RecordRefusal(self._instruments[command.symbol], command.reason))
        return effects

    def _recheck(self, command: rotation.Recheck) -> list[Effect]:
        return [Recheck(command.symbol)]

    def _adjust_ttl(self, *, extend: bool) -> list[Effect]:
        ttl = math.ceil(max(self._configured_ttl, self._rotation.window_secs(), LEAST_HEARTBEAT_TTL_SECS))
        if ttl == self._ttl:
            return []
        self._ttl = ttl
        return [SetHeartbeatTtl(ttl, dict(self._last_rows) if extend else {})]

    def _about(self, request: int) -> dict[str, object]:
        return {"symbol": self._symbol_of.get(request, "unknown"), "request_id": request}


_CURED_BY = {2104: frozenset({2103, 2108, 2110}), 2106: frozenset({2105}), 2158: frozenset({2157})}

_REACTIONS: dict[type, Callable[[DepthPipeline, Any, float, int], list[Effect]]] = {
    gateway.RowUnreadable: DepthPipeline._unreadable,
    gateway.MessageUnreadable: DepthPipeline._message_unreadable,
    gateway.BookReset: DepthPipeline._reset,
    gateway.DepthHalted: DepthPipeline._halted,
    gateway.SlotRefused: DepthPipeline._slot_refused,
    gateway.DepthRefused: DepthPipeline._depth_refused,
    gateway.RequestIdRejected: DepthPipeline._id_rejected,
    gateway.CancelRejected: DepthPipeline._cancel_rejected,
    gateway.ConnectivityLost: DepthPipeline._connectivity_lost,
    gateway.ConnectivityRestored: DepthPipeline._connectivity_back,
    gateway.SocketPortReset: DepthPipeline._port_reset,
    gateway.FeedHealth: DepthPipeline._feed_health,
    gateway.PacingViolation: DepthPipeline._pacing,
    gateway.Notice: DepthPipeline._notice,
    gateway.ConnectionLost: DepthPipeline._connection_lost,
}

_COMMANDS: dict[type, Callable[[DepthPipeline, Any], list[Effect]]] = {
    rotation.Subscribe: DepthPipeline._subscribe,
    rotation.Cancel: DepthPipeline._cancel,
    rotation.Recheck: DepthPipeline._recheck,
    rotation.TurnStarted: DepthPipeline._turn_started,
    rotation.TurnEnded: DepthPipeline._turn_ended,
    rotation.BatchResized: DepthPipeline._resized,
    rotation.ReleaseRaced: DepthPipeline._release_raced,
    rotation.MarkedUnsupported: DepthPipeline._unsupported,
}
