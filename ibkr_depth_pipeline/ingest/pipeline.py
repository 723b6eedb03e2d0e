"""Pure wiring: gateway events -> books and rotation -> effects.

Rows come by `message` (the hot path) or `row` and go out as snapshots, one for each. Everything else returns what is to
be done. `now` is monotonic seconds, `now_ms` unix milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest.books import Books, LastBook, PipelineFigures, Stretch
from ibkr_depth_pipeline.ingest.effects import (
    Cancel,
    Effect,
    Recheck,
    Reconnect,
    RecordRefusal,
    ReportPersisted,
    Say,
    SetHeartbeatTtl,
    Subscribe,
)
from ibkr_depth_pipeline.ingest.gaps import Gaps
from ibkr_depth_pipeline.ingest.hot_path import Store
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.rotation.controller import RotationController, RotationPlan

LEAST_HEARTBEAT_TTL_SECS = 30

AILING_SECS = 30.0
"""How long a subscription may stay silent after news of a broken farm or a competing session, if no news of its end
comes, before it is asked for anew. A blip of three seconds has killed feeds for hours elsewhere."""

CURED_SECS = 5.0
"""The same, once the farm is said to be well."""

IN_FLIGHT_SECS = 2.0
"""Rows that come so soon after bad news may have been on their way before it; they prove nothing."""

_DEPTH_AILMENTS = frozenset({2103, 2108, 2110, 10197})
"""Feed health codes that speak of live market data; the others are about historical data."""


class DepthPipeline:
    """Books and rotation of one gateway.

    outlet(symbol) is what takes the snapshots of that symbol; rows is how many rows a side are requested, levels_shown
    how many are stored; heartbeat_ttl the operator's, in seconds. It begins without symbols: `number_from` says where
    their numbering goes on, and `resolved` brings each into the rotation.
    """

    def __init__(
        self,
        plan: RotationPlan,
        request_ids: Iterator[int],
        outlet: Callable[[str], Store],
        *,
        rows: int,
        levels_shown: int,
        heartbeat_ttl: int,
    ) -> None:
        self.figures = PipelineFigures()
        self.awaited: set[int] = set()  # requests whose next row is waited for: say first_row
        self._configured_ttl = heartbeat_ttl
        self._rotation = RotationController((), plan, request_ids)
        self._instruments: dict[str, Instrument] = {}
        self._books = Books(self.figures, outlet, rows=rows, levels_shown=levels_shown)
        self._gaps = Gaps()
        self._ailments: set[int] = set()
        self._suspended = False
        self._proof_from = 0.0  # rows before then don't prove that a line is alive
        self._ttl = 0
        self.number_from = self._books.number_from
        self.message = self._books.message
        self.row = self._books.row
        self.rows = self._books.rows
        self.received = self._books.received

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
        return self._books.last_rows()

    def stretches(self) -> list[Stretch]:
        """When which book was live, the oldest first."""
        return self._books.stretches()

    def live_ms(self) -> Mapping[str, int]:
        """symbol -> for how many ms its book was live, in all."""
        return self._books.live_ms()

    def last_books(self) -> dict[str, LastBook]:
        """symbol -> its book, as it is or as it was when it was last live."""
        return self._books.last_books()

    @property
    def missing(self) -> dict[str, str]:
        """symbol -> cause, of every symbol whose rows were interrupted and have not come back yet."""
        return self._gaps.missing

    def venues(self) -> dict[str, str]:
        """symbol -> the venue it is asked for at."""
        return {symbol: instrument.exchange for symbol, instrument in self._instruments.items()}

    def live_books(self) -> dict[str, int]:
        """symbol -> unix ms of the last row, of every subscription that has a book that can be trusted to be live.

        Whether the gateway still answers is the caller's to know.
        """
        if self._suspended:
            return {}
        filled = self._books.filled()
        return {symbol: ts for request, (symbol, ts) in filled.items() if request not in self.awaited}

    # ---- everything but rows

    def first_row(self, request: int, now: float, applied: bool = True) -> list[Effect]:
        """A row of an awaited request has come; `applied` says whether it reached its book.

        The request stays awaited where that proves nothing.
        """
        if not applied or now < self._proof_from:
            return []
        effects: list[Effect] = []
        if self._suspended:
            effects += self._connectivity_back(gateway.ConnectivityRestored(False, "unsaid: rows come"), now, 0)
        self.awaited.discard(request)
        if not self.awaited:
            self._ailments.clear()
        return [*effects, *self._end_gap(request), *self._rotate(rotation.Answered(request), now)]

    def _end_gap(self, request: int) -> list[Effect]:
        last_row = self._books.last_row(request)
        gap = self._gaps.close(self._books.symbol_of(request), last_row) if last_row else None
        if gap is None:
            return []
        fields = {"symbol": gap.symbol, "cause": gap.cause, "code": gap.code, "secs": gap.secs}
        return [Say("warning" if gap.secs >= 1 else "info", "data_gap", fields)]

    def look_at_late_rows(self, now: float) -> list[Effect]:
        """Call it every few seconds: a cancelled request whose rows go on and on holds its slot."""
        late, self._books.went_on = self._books.went_on, set()
        return [effect for request in late for effect in self._rotate(rotation.WentOn(request), now)]

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
            self._proof_from = now
        return self._rotate(event, now)

    def handle(self, event: gateway.GatewayEvent, now: float, now_ms: int) -> list[Effect]:
        """Anything the gateway says that is not a row."""
        reaction = _REACTIONS.get(type(event))
        return reaction(self, event, now, now_ms) if reaction else []

    def _unreadable(self, event: gateway.RowUnreadable, now: float, now_ms: int) -> list[Effect]:
        self._books.drop(event.request, event.fault.value)
        return []

    def _message_unreadable(self, event: gateway.MessageUnreadable, now: float, now_ms: int) -> list[Effect]:
        self.figures.dropped["unknown", "unreadable_message"] += 1
        return []

    def _reset(self, event: gateway.BookReset, now: float, now_ms: int) -> list[Effect]:
        effects: list[Effect] = [Say("info", "book_reset", self._about(event.request))]
        self._books.reset(event.request, now_ms)
        if event.request in self.awaited:
            if self._books.symbol_of(event.request) not in self._gaps.missing:
                self.awaited.discard(event.request)
            effects += self._rotate(rotation.Answered(event.request), now)
        return effects

    def _halted(self, event: gateway.DepthHalted, now: float, now_ms: int) -> list[Effect]:
        said = Say("warning", "depth_halted", self._about(event.request))
        last_row = self._books.last_row(event.request)
        if last_row:
            self._gaps.open([(self._books.symbol_of(event.request), last_row)], "depth_halted", 316)
        return [said, *self._rotate(rotation.Halted(event.request), now)]

    def _slot_refused(self, event: gateway.SlotRefused, now: float, now_ms: int) -> list[Effect]:
        self.figures.refused_309 += 1
        self.figures.refused_309_of[self._books.symbol_of(event.request)] += 1
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
        self._doubt_all("connectivity_lost", 1100, now + IN_FLIGHT_SECS)
        said = Say("warning", "connectivity_lost", {"code": 1100, "text": event.text})
        return [said, *self._rotate(rotation.Suspended(), now)]

    def _connectivity_back(self, event: gateway.ConnectivityRestored, now: float, now_ms: int) -> list[Effect]:
        self._suspended = False
        self._ailments.clear()
        code = 1101 if event.data_lost else 1102
        self._doubt_all("connectivity_restored", code, now)
        said = Say("warning", "connectivity_restored", {"data_lost": event.data_lost, "text": event.text})
        return [said, *self._rotate(rotation.Resumed(event.data_lost), now)]

    def _doubt_all(self, cause: str, code: int, proof_from: float) -> None:
        """Whether the subscriptions still bring rows is now the question; rows from `proof_from` on answer it."""
        self._gaps.open(self._books.recorded().items(), cause, code)
        self.awaited |= self._books.requests()
        self._proof_from = proof_from

    def _port_reset(self, event: gateway.SocketPortReset, now: float, now_ms: int) -> list[Effect]:
        return [
            Say("warning", "socket_port_reset", {"code": 1300, "text": event.text}),
            Reconnect("the gateway moves its socket (1300)"),
        ]

    def _feed_health(self, event: gateway.FeedHealth, now: float, now_ms: int) -> list[Effect]:
        name = "feed_healthy" if event.healthy else "feed_degraded"
        said = Say("info" if event.healthy else "warning", name, {"code": event.code, "text": event.text})
        cured = self._ailments & _CURED_BY.get(event.code, frozenset())
        if cured:
            self._ailments -= cured
            self._doubt_all(name, event.code, now)
            return [said, *self._rotate(rotation.Doubted(CURED_SECS), now)]
        if event.code in _DEPTH_AILMENTS:
            self._ailments.add(event.code)
            self._doubt_all(name, event.code, now + IN_FLIGHT_SECS)
            return [said, *self._rotate(rotation.Doubted(AILING_SECS), now)]
        return [said]

    def _pacing(self, event: gateway.PacingViolation, now: float, now_ms: int) -> list[Effect]:
        return [Say("warning", "pacing_violation", {"code": 100, "text": event.text})]

    def _notice(self, event: gateway.Notice, now: float, now_ms: int) -> list[Effect]:
        about = {} if event.request is None else self._about(event.request)
        return [Say("info", "gateway_notice", {**about, "code": event.code, "text": event.text})]

    def _connection_lost(self, event: gateway.ConnectionLost, now: float, now_ms: int) -> list[Effect]:
        subscriptions = len(self._books.requests())
        said = Say("warning", "connection_lost", {"text": event.text, "subscriptions": subscriptions})
        self._gaps.open(self._books.recorded().items(), "connection_lost")
        self._books.retire_all()
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
        self._books.open(command.request, command.symbol, instrument.exchange)
        self.awaited.add(command.request)
        return [Subscribe(command.request, instrument)]

    def _cancel(self, command: rotation.Cancel) -> list[Effect]:
        self._retire(command.request)
        return [Cancel(command.request, command.symbol)]

    def _retire(self, request: int) -> None:
        """Rows of this request never reach a book again."""
        self.awaited.discard(request)
        self._books.retire(request)

    def _reconnect(self, command: rotation.Reconnect) -> list[Effect]:
        said = Say("warning", "slots_leaked", {"symbols": list(command.symbols)})
        return [said, Reconnect("cancelled subscriptions still hold slots")]

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
        return [SetHeartbeatTtl(ttl, self._books.last_rows() if extend else {})]

    def _about(self, request: int) -> dict[str, object]:
        return {"symbol": self._books.symbol_of(request), "request_id": request}


_CURED_BY = {2104: frozenset({2103, 2108, 2110})}

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
    rotation.Reconnect: DepthPipeline._reconnect,
    rotation.TurnStarted: DepthPipeline._turn_started,
    rotation.TurnEnded: DepthPipeline._turn_ended,
    rotation.BatchResized: DepthPipeline._resized,
    rotation.ReleaseRaced: DepthPipeline._release_raced,
    rotation.MarkedUnsupported: DepthPipeline._unsupported,
}
