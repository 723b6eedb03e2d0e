"""Pure wiring: gateway events -> books and rotation -> effects.

Rows come by `message` (the hot path) or `row` and go out as snapshots, one for each. Everything else returns what is to
be done. `now` is monotonic seconds, `now_ms` unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest.book_integrity import BookIntegrity
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.effects import Effect, LogLine, Reconnect
from ibkr_depth_pipeline.ingest.gaps import DataGap, DataGaps
from ibkr_depth_pipeline.ingest.hot_path import Store
from ibkr_depth_pipeline.ingest.line_monitor import LineMonitor, OutOfStepFound, SilenceFound
from ibkr_depth_pipeline.ingest.liveness import LivenessTracker
from ibkr_depth_pipeline.ingest.silence import SilenceDetector
from ibkr_depth_pipeline.ingest.subscriptions import Subscriptions
from ibkr_depth_pipeline.model import DepthRow, RowFault
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.rotation.controller import RotationPlan

_NO_POSITION = 2**31 - 1
"""The unset int: a row that has it, or more, stands nowhere; it is not past the end."""


class DepthPipeline:
    """Books and rotation of one gateway.

    outlet(symbol) is what takes the snapshots of that symbol; rows is how many rows a side are requested, levels_shown
    how many are stored; heartbeat_ttl the operator's, in seconds, as are silent_line (the least that a line must be
    silent to be suspect) and crossed_book (how long a book may be crossed). It begins without symbols: `number_from`
    says where their numbering goes on, and `resolved` brings each into the rotation.
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
        silent_line: float = 15.0,
        crossed_book: float = 3.0,
    ) -> None:
        self.figures = PipelineFigures()
        self._books = LiveBooks(self.figures, outlet, rows=rows, levels_shown=levels_shown)
        self._doubts = LivenessTracker()
        self._gaps = DataGaps()
        liveness = SilenceDetector(floor=silent_line, first_row_secs=plan.first_row_cap, image_rows=2 * rows)
        self._lines = LineMonitor(self._books, liveness, BookIntegrity(crossed_book), self.figures)
        self._subscriptions = Subscriptions(
            plan, request_ids, self._books, self._doubts, self.figures, heartbeat_ttl=heartbeat_ttl
        )
        self.awaited = self._doubts.awaited  # requests whose next row is waited for: say first_row
        # what one part does alone is described there
        self.number_from = self._books.number_from
        self.connecting = self._doubts.connecting
        self.message = self._books.message
        self.row = self._books.row
        self.rows = self._books.rows
        self.received = self._books.received
        self.last_rows = self._books.last_rows
        self.last_came = self._books.last_came
        self.stretches = self._books.stretches
        self.live_ms = self._books.live_ms
        self.last_books = self._books.last_books
        self.resolved = self._subscriptions.resolved
        self.next_deadline = self._subscriptions.next_deadline
        self.venues = self._subscriptions.venues
        self.troubles = self._lines.troubles
        self.out_of_step = self._lines.out_of_step

    # ---- what can be asked

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription."""
        return self._subscriptions.subscribed

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._subscriptions.batch_size

    @property
    def suspended(self) -> bool:
        """Whether the gateway has said that it lost IBKR."""
        return self._doubts.suspended

    @property
    def ailments(self) -> tuple[int, ...]:
        """The codes of the troubles with live market data that still stand."""
        return self._doubts.ailments

    def clock_stepped(self, step_ms: int) -> None:
        """The clock that gives now_ms was set by so many ms: times that were noted by it move along."""
        self._books.clock_stepped(step_ms)
        self._gaps.clock_stepped(step_ms)

    def symbols_ahead(self, now_ms: int) -> list[str]:
        """The symbols whose newest `ts` is later than now_ms, so that it stands."""
        return sorted(symbol for symbol, ts in self._books.newest_ts().items() if ts > now_ms)

    def stands_until(self, now_ms: int) -> int:
        """The latest `ts` of any symbol if that is later than now_ms, else 0."""
        newest = max(self._books.newest_ts().values(), default=0)
        return newest if newest > now_ms else 0

    def live_books(self) -> dict[str, int]:
        """symbol -> unix ms of the last row, of every subscription that has a book that can be trusted to be live.

        Whether the gateway still answers is the caller's to know.
        """
        if self._doubts.suspended:
            return {}
        filled, troubles = self._books.filled(), self.troubles()
        return {
            symbol: ts
            for request, (symbol, ts) in filled.items()
            if request not in self.awaited and symbol not in troubles
        }

    @property
    def inspection_secs(self) -> float:
        """How often `inspect_lines` is to be called."""
        return self._lines.period

    # ---- everything but rows

    def first_row(self, request: int, now: float, applied: bool = True) -> list[Effect]:
        """A row of an awaited request has come; `applied` says whether it reached its book.

        The request stays awaited where that proves nothing.
        """
        if applied and not self._doubts.is_proof(now):
            self._gaps.row(self._books.symbol_of(request), self._books.request_came(request)[1])
        if not applied or not self._doubts.is_proof(now):
            return []
        self._lines.row_came(request)
        effects: list[Effect] = []
        if self._doubts.suspended:
            effects += self._connectivity_back(gateway.ConnectivityRestored(False, "unsaid: rows come"), now, 0)
        self._doubts.dispel(request)
        return [*effects, *self._end_gap(request), *self._subscriptions.answered(request, now)]

    def _end_gap(self, request: int) -> list[Effect]:
        came = self._books.request_came(request)[1]
        gap = self._gaps.close(self._books.symbol_of(request), came) if came else None
        if gap is None or self._is_no_pause(gap, request):
            return []
        fields = {"symbol": gap.symbol, "cause": gap.cause, "code": gap.code, "secs": gap.secs}
        return [LogLine("warning" if gap.secs >= 1 else "info", "data_gap", fields)]

    def _is_no_pause(self, gap: DataGap, request: int) -> bool:
        """Whether the line itself went on, without a pause worth the name: news of trouble alone is no gap."""
        if not 0 < self._books.request_came(request)[0] <= gap.since:
            return False
        return gap.secs < max(1.0, self._lines.usual_silence(gap.symbol))

    # ---- lines that are silent or out of step

    def row_dropped(self, request: int, row: DepthRow, now: float) -> None:
        """`row` has returned False just now."""
        fault = self._books.last_fault
        if fault is None:
            return
        if row.position >= _NO_POSITION:
            fault = RowFault.UNREADABLE
        self._lines.row_dropped(request, row.operation, fault, now)

    def inspect_lines(self, now: float) -> list[Effect]:
        """Call it every `inspection_secs`: finds lines that are silent while others are not, and books out of step."""
        if self._doubts.suspended:
            self._lines.restart()
            return []
        effects: list[Effect] = []
        for each in self._lines.inspect(self.awaited, now):
            effects += self._silent(each, now) if isinstance(each, SilenceFound) else self._out_of_step(each, now)
        return effects

    def _silent(self, found: SilenceFound, now: float) -> list[Effect]:
        fields = {**self._about(found.request), "secs": round(found.secs, 1)}
        came = self._books.request_came(found.request)[1]
        if came:
            self._gaps.open([(found.symbol, came)], "line_silent")
        said = (
            LogLine("warning", "line_silent", fields) if found.proven else LogLine("info", "line_asked_again", fields)
        )
        return [said, *self._subscriptions.tell(rotation.Halted(found.request), now)]

    def _out_of_step(self, found: OutOfStepFound, now: float) -> list[Effect]:
        fields = {**self._about(found.request), "reason": found.reason, "asked_again": found.ask}
        effects: list[Effect] = [LogLine("warning", "book_out_of_step", fields)] if found.new else []
        return effects + (self._subscriptions.tell(rotation.Halted(found.request), now) if found.ask else [])

    # ---- late rows, the rotation

    def look_at_late_rows(self, now: float) -> list[Effect]:
        """Call it every few seconds: a cancelled request whose rows go on and on holds its slot."""
        late, self._books.went_on = self._books.went_on, set()
        return [effect for request in late for effect in self._subscriptions.tell(rotation.WentOn(request), now)]

    def tell_rotation(self, event: rotation.RotationEvent, now: float) -> list[Effect]:
        """Connected, Deadline, Stop: what does not come from the gateway."""
        if isinstance(event, rotation.Connected):
            self.figures.connections += 1
            event = rotation.Connected(self._doubts.suspended)
        return self._subscriptions.tell(event, now)

    def handle(self, event: gateway.GatewayEvent, now: float, now_ms: int) -> list[Effect]:
        """Anything the gateway says that is not a row."""
        reaction = _REACTIONS.get(type(event))
        return reaction(self, event, now, now_ms) if reaction else []

    def _unreadable(self, event: gateway.RowUnreadable, now: float, now_ms: int) -> list[Effect]:
        self._books.drop(event.request, event.fault.value)
        self._lines.row_dropped(event.request, event.operation, event.fault, now)
        return []

    def _message_unreadable(self, event: gateway.MessageUnreadable, now: float, now_ms: int) -> list[Effect]:
        self.figures.dropped["unknown", "unreadable_message"] += 1
        return []

    def _reset(self, event: gateway.BookReset, now: float, now_ms: int) -> list[Effect]:
        effects: list[Effect] = [LogLine("info", "book_reset", self._about(event.request))]
        self._lines.book_emptied(event.request)
        self._books.reset(event.request, now_ms)
        if event.request in self.awaited:
            if self._books.symbol_of(event.request) not in self._gaps.missing:
                self._doubts.forget(event.request)
            effects += self._subscriptions.answered(event.request, now)
        return effects

    def _halted(self, event: gateway.DepthHalted, now: float, now_ms: int) -> list[Effect]:
        said = LogLine("warning", "depth_halted", self._about(event.request))
        came = self._books.request_came(event.request)[1]
        if came:
            self._gaps.open([(self._books.symbol_of(event.request), came)], "depth_halted", 316)
        return [said, *self._subscriptions.tell(rotation.Halted(event.request), now)]

    def _slot_refused(self, event: gateway.SlotRefused, now: float, now_ms: int) -> list[Effect]:
        if self._subscriptions.has_answered(event.request):
            return self._advice(event.request, event.code, event.text, now)
        self.figures.refused_309 += 1
        self.figures.refused_309_of[self._books.symbol_of(event.request)] += 1
        said = LogLine(
            "warning", "slot_refused", {**self._about(event.request), "code": event.code, "text": event.text}
        )
        self._subscriptions.retire(event.request)
        return [said, *self._subscriptions.tell(rotation.Full(event.request), now)]

    def _depth_refused(self, event: gateway.DepthRefused, now: float, now_ms: int) -> list[Effect]:
        if self._subscriptions.has_answered(event.request):
            return self._advice(event.request, event.code, event.text, now)
        about = {**self._about(event.request), "code": event.code, "text": event.text}
        if event.request not in self.subscribed:
            name = "depth_refused" if event.is_listed else "gateway_notice"
            told = rotation.Refused(event.request, event.reason)
            return [LogLine("warning", name, about), *self._subscriptions.tell(told, now)]
        if event.is_advisory:
            said = LogLine("warning", "depth_advice", about)
            return [said, *self._subscriptions.advised(event.request, event.reason, now)]
        said = LogLine("warning", "depth_refused", about)
        elsewhere = event.concerns_venue
        return [said, *self._subscriptions.refused(event.request, event.reason, now, elsewhere=elsewhere)]

    def _advice(self, request: int, code: int, text: str, now: float) -> list[Effect]:
        """An error about a line that has had rows: no word of the gateway ends it, only its silence does."""
        said = LogLine("warning", "depth_advice", {**self._about(request), "code": code, "text": text})
        self._doubts.wait_for(request)
        return [said, *self._subscriptions.tell(rotation.Advised(request), now)]

    def _id_rejected(self, event: gateway.RequestIdRejected, now: float, now_ms: int) -> list[Effect]:
        said = LogLine("warning", "request_id_rejected", {**self._about(event.request), "code": 322})
        if not self._subscriptions.has_answered(event.request):
            self._subscriptions.retire(event.request)
        return [said, *self._subscriptions.tell(rotation.IdRejected(event.request), now)]

    def _cancel_rejected(self, event: gateway.CancelRejected, now: float, now_ms: int) -> list[Effect]:
        return [LogLine("info", "cancel_rejected", {**self._about(event.request), "code": event.code})]

    def _connectivity_lost(self, event: gateway.ConnectivityLost, now: float, now_ms: int) -> list[Effect]:
        self._doubts.connectivity_lost(self._books.requests(), now)
        self._open_gaps("connectivity_lost", 1100)
        said = LogLine("warning", "connectivity_lost", {"code": 1100, "text": event.text})
        return [said, *self._subscriptions.tell(rotation.Suspended(), now)]

    def _connectivity_back(self, event: gateway.ConnectivityRestored, now: float, now_ms: int) -> list[Effect]:
        self._open_gaps("connectivity_restored", 1101 if event.data_lost else 1102)
        return self._resume(rotation.Resumed(event.data_lost), event.text, now)

    def _resume(self, event: rotation.Resumed, text: str, now: float) -> list[Effect]:
        self._doubts.connectivity_restored(self._books.requests(), now)
        said = LogLine("warning", "connectivity_restored", {"data_lost": event.data_lost, "text": text})
        return [said, *self._subscriptions.tell(event, now)]

    def _port_reset(self, event: gateway.SocketPortReset, now: float, now_ms: int) -> list[Effect]:
        return [
            LogLine("warning", "socket_port_reset", {"code": 1300, "text": event.text}),
            Reconnect("the gateway moves its socket (1300)"),
        ]

    def _feed_health(self, event: gateway.FarmStatus, now: float, now_ms: int) -> list[Effect]:
        name = "feed_healthy" if event.healthy else "feed_degraded"
        said = LogLine("info" if event.healthy else "warning", name, {"code": event.code, "text": event.text})
        if self._doubts.suspended and event.code == 2104:
            unsaid = rotation.Resumed(data_lost=True, said=False)
            return [said, *self._resume(unsaid, "unsaid: a market data farm is connected", now)]
        patience = self._doubts.feed_health(event.code, self._books.requests(), now)
        farms = self._subscriptions.tell(rotation.FarmsReported(event.healthy, bool(self._doubts.ailments)), now)
        if patience is None:
            return [said, *farms]
        self._open_gaps(name, event.code)
        return [said, *farms, *self._subscriptions.tell(rotation.Doubted(patience), now)]

    def _pacing(self, event: gateway.PacingViolation, now: float, now_ms: int) -> list[Effect]:
        self.figures.pacing_violations += 1
        effects: list[Effect] = [LogLine("warning", "pacing_violation", {"code": 100, "text": event.text})]
        if event.slowed_to is not None:
            effects.append(LogLine("warning", "sending_slowed", {"messages_per_second": round(event.slowed_to, 2)}))
        return effects

    def _notice(self, event: gateway.Notice, now: float, now_ms: int) -> list[Effect]:
        about = {} if event.request is None else self._about(event.request)
        said = LogLine("info", "gateway_notice", {**about, "code": event.code, "text": event.text})
        return [said, *(self._subscriptions.permissions_reported(event.text) if event.names_permissions else ())]

    def _connection_lost(self, event: gateway.ConnectionLost, now: float, now_ms: int) -> list[Effect]:
        subscriptions = len(self._books.requests())
        said = LogLine("warning", "connection_lost", {"text": event.text, "subscriptions": subscriptions})
        self._open_gaps("connection_lost")
        self._books.retire_all()
        self._lines.restart()
        self._doubts.disconnected()
        return [said, *self._subscriptions.tell(rotation.Disconnected(), now)]

    # ---- what the reactions share

    def _open_gaps(self, cause: str, code: int = 0) -> None:
        self._gaps.open(self._books.came().items(), cause, code)

    def _about(self, request: int) -> dict[str, object]:
        return {"symbol": self._books.symbol_of(request), "request_id": request}


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
    gateway.FarmStatus: DepthPipeline._feed_health,
    gateway.PacingViolation: DepthPipeline._pacing,
    gateway.Notice: DepthPipeline._notice,
    gateway.ConnectionLost: DepthPipeline._connection_lost,
}
