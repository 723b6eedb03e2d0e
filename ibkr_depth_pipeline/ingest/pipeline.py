"""Decides what each gateway event leads to: books, liveness and rotation, and effects to carry out. Pure.

Rows come by `hot_path` or `books.row` and go out as snapshots, one for each. All else returns effects. `now` is
monotonic seconds, `now_ms` unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from typing_extensions import assert_never

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.effects import DumpTape, Effect, LogLine, RequestDepth
from ibkr_depth_pipeline.ingest.hot_path import HotPath, RowStore, Store
from ibkr_depth_pipeline.ingest.intervals import IntervalRecorder, IntervalSink, no_sink
from ibkr_depth_pipeline.ingest.line_monitor import (
    BookIntegrity,
    InStepFound,
    LineMonitor,
    OutOfStepFound,
    SilenceFound,
)
from ibkr_depth_pipeline.ingest.liveness import AILING_SECS, DataGap, DataGaps, LivenessTracker, SilenceDetector
from ibkr_depth_pipeline.ingest.size_watch import SizeWatch
from ibkr_depth_pipeline.ingest.subscriptions import Subscriptions
from ibkr_depth_pipeline.model import DepthRow, RowFault
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.rotation.events import RotationPlan
from ibkr_depth_pipeline.rotation.slots import Reconnect
from ibkr_depth_pipeline.schema.intervals import EndReason
from ibkr_depth_pipeline.schema.size_units import SizeUnit

UNREADABLE, OUT_OF_STEP, RECONNECT = "unreadable_message", "book_out_of_step", "reconnect"
"""The reasons for which the flight recorder is to write a tape."""

_NO_POSITION = 2**31 - 1
"""The unset int: a row that has it, or more, stands nowhere; it is not past the end."""


class DepthPipeline:
    """Books and rotation of one gateway.

    outlet(symbol) takes the snapshots of that symbol, turns(symbol) its intervals, row_stores(symbol) its rows if they
    are kept; record_sizes(symbol, unit) stores what is known of the unit of its sizes. rows: how many rows a side are
    requested; levels_shown: how many are stored; in seconds, heartbeat_ttl, silent_line (the least silence that makes a
    line suspect), crossed_book (how long a book may be crossed) and ailing_secs (AILING_SECS). It begins without
    symbols: `books.number_from` sets where their numbering goes on, `intervals.number_from` that of their
    subscriptions, and `subscriptions.resolved` brings each into the rotation.

    Its parts may be used directly for what each does alone: `hot_path`, `books`, `liveness`, `lines`, `subscriptions`,
    `figures`. If a row's request is in `liveness.awaited`, call `first_row`.
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
        ailing_secs: float = AILING_SECS,
        turns: Callable[[str], IntervalSink] = no_sink,
        row_stores: Callable[[str], RowStore] | None = None,
        record_sizes: Callable[[str, SizeUnit], None] = lambda symbol, unit: None,
    ) -> None:
        self.figures = PipelineFigures()
        self.hot_path = HotPath()
        self.books = LiveBooks(
            self.figures, self.hot_path, outlet, rows=rows, levels_shown=levels_shown, row_stores=row_stores
        )
        self.intervals = IntervalRecorder(turns, rows_requested=rows, rows_stored=levels_shown)
        self.sizes = SizeWatch(record_sizes)
        self.server_version = 0
        """The gateway's, for requests from now on."""
        self.liveness = LivenessTracker(ailing_secs)
        silence = SilenceDetector(floor=silent_line, first_row_secs=plan.first_row_cap, image_rows=2 * rows)
        self.lines = LineMonitor(self.books, self.liveness, silence, BookIntegrity(crossed_book), self.figures)
        self.subscriptions = Subscriptions(
            plan,
            request_ids,
            self.books,
            self.liveness,
            self.figures,
            heartbeat_ttl=heartbeat_ttl,
            intervals=self.intervals,
        )
        self._gaps = DataGaps()

    # ---- state

    def clock_stepped(self, step_ms: int) -> None:
        """Move the times noted by now_ms along with their clock: it was set by so many ms."""
        self.books.clock_stepped(step_ms)
        self._gaps.clock_stepped(step_ms)

    def symbols_ahead(self, now_ms: int) -> list[str]:
        """The symbols whose newest `ts` is later than now_ms, so that it stands."""
        return sorted(symbol for symbol, ts in self.books.newest_ts().items() if ts > now_ms)

    def stands_until(self, now_ms: int) -> int:
        """The latest `ts` of any symbol if that is later than now_ms, else 0."""
        newest = max(self.books.newest_ts().values(), default=0)
        return newest if newest > now_ms else 0

    def requested(self, effect: RequestDepth, now: float, now_ms: int) -> list[Effect]:
        """Note that depth is requested, now."""
        book, instrument = self.books.book(effect.request), effect.instrument
        if book is None:
            return []
        effects = self.sizes.requested(instrument, self.server_version, now)
        self.intervals.requested(book, instrument, self.sizes.unit_of(instrument.symbol), now_ms)
        return effects

    def observe(self, now: float, now_ms: int) -> list[Effect]:
        """Publish what is known of open intervals, and sample the unit of sizes; call it every second or so."""
        self.intervals.refresh(self.lines.live_books(), now_ms)
        effects: list[Effect] = []
        for state in self.books.states(lambda request, rows: True):
            effects += self.sizes.sample(self.books.symbol_of(state.request), state, now)
        return effects

    # ---- awaited rows

    def first_row(self, request: int, now: float, applied: bool = True) -> list[Effect]:
        """Handle a row of an awaited request; applied: it reached its book.

        The request stays awaited if that proves nothing.
        """
        if applied:
            self.intervals.row_came(request)
        if applied and not self.liveness.is_proof(now):
            self._gaps.row(self.books.symbol_of(request), self.books.request_came(request)[1])
        if not applied or not self.liveness.is_proof(now):
            return []
        self.lines.row_came(request)
        effects: list[Effect] = []
        if self.liveness.suspended:
            effects += self._connectivity_restored(gateway.ConnectivityRestored(False, "unsaid: rows come"), now)
        self.liveness.prove(request)
        return [*effects, *self._end_gap(request), *self.subscriptions.answered(request, now)]

    def _end_gap(self, request: int) -> list[Effect]:
        came = self.books.request_came(request)[1]
        gap = self._gaps.close(self.books.symbol_of(request), came) if came else None
        went_on = gap is None or self._is_no_pause(gap, request)
        self.intervals.proven(request, went_on=went_on)
        if gap is None or went_on:
            return []
        fields = {"symbol": gap.symbol, "cause": gap.cause, "code": gap.code, "secs": gap.secs}
        return [LogLine("warning" if gap.secs >= 1 else "info", "data_gap", fields)]

    def _is_no_pause(self, gap: DataGap, request: int) -> bool:
        """Whether the line itself went on without a real pause: a report of trouble alone is no gap."""
        if not 0 < self.books.request_came(request)[0] <= gap.since:
            return False
        return gap.secs < max(1.0, self.lines.usual_silence(gap.symbol))

    # ---- lines that are silent or out of step

    def row_dropped(self, request: int, row: DepthRow, now: float) -> None:
        """Handle a row for which `books.row` has returned False just now."""
        fault = self.books.last_fault
        if fault is None:
            return
        if row.position >= _NO_POSITION:
            fault = RowFault.UNREADABLE
        self.lines.row_dropped(request, row.operation, fault, now)

    def inspect_lines(self, now: float) -> list[Effect]:
        """Find silent lines and books out of step; call it every `lines.period`."""
        effects: list[Effect] = []
        for each in self.lines.inspect(now):
            match each:
                case SilenceFound():
                    effects += self._silent(each, now)
                case OutOfStepFound():
                    effects += self._out_of_step(each, now)
                case InStepFound():
                    self.intervals.in_step(each.request)
                case _:
                    assert_never(each)
        return effects

    def _silent(self, found: SilenceFound, now: float) -> list[Effect]:
        fields = {**self._about(found.request), "secs": round(found.secs, 1)}
        came = self.books.request_came(found.request)[1]
        if came:
            self._gaps.open([(found.symbol, came)], "line_silent")
        level, name = ("warning", "line_silent") if found.proven else ("info", "line_asked_again")
        logged = LogLine(level, name, fields)
        if found.proven:
            self.intervals.doubted({found.request})
        return [logged, *self.subscriptions.request_again(found.request, EndReason.IN_DOUBT, now)]

    def _out_of_step(self, found: OutOfStepFound, now: float) -> list[Effect]:
        fields = {**self._about(found.request), "reason": found.reason, "asked_again": found.ask}
        self.intervals.out_of_step(found.request, found.secs)
        effects: list[Effect] = []
        if found.new:
            effects += [LogLine("warning", "book_out_of_step", fields)]
            effects += [DumpTape(OUT_OF_STEP, f"{self.books.symbol_of(found.request)}: {found.reason}")]
        if found.ask:
            effects += self.subscriptions.request_again(found.request, EndReason.OUT_OF_STEP, now)
        return effects

    # ---- late rows, the rotation

    def handle_late_rows(self, now: float) -> list[Effect]:
        """Handle rows of cancelled requests, which hold their slots if rows go on; call it every few seconds."""
        late = self.books.take_late()
        return [effect for request in late for effect in self.subscriptions.rotate(rotation.LateRows(request), now)]

    def rotate(self, event: rotation.RotationEvent, now: float) -> list[Effect]:
        """Handle an event that does not come from the gateway: Connected, Deadline, Stop."""
        if isinstance(event, rotation.Connected):
            self.figures.connections += 1
            event = replace(event, suspended=self.liveness.suspended)
        return self.subscriptions.rotate(event, now)

    def handle(self, event: gateway.GatewayEvent, now: float, now_ms: int) -> list[Effect]:
        """Handle anything of the gateway but rows."""
        match event:
            case gateway.RowUnreadable():
                return self._row_unreadable(event, now)
            case gateway.MessageUnreadable():
                self.figures.dropped["unknown", "unreadable_message"] += 1
                return [DumpTape(UNREADABLE, f"type {_type_of(event.fields)}, {len(event.fields)} fields")]
            case gateway.BookReset():
                return self._reset(event.request, now, now_ms)
            case gateway.DepthHalted():
                return self._halted(event.request, now)
            case gateway.SlotRefused():
                return self._slot_refused(event, now)
            case gateway.DepthRefused():
                return self._depth_refused(event, now)
            case gateway.RequestIdRejected():
                return self._id_rejected(event, now)
            case gateway.CancelRejected():
                return [LogLine("info", "cancel_rejected", {**self._about(event.request), "code": event.code})]
            case gateway.ConnectivityLost():
                return self._connectivity_lost(event, now)
            case gateway.ConnectivityRestored():
                return self._connectivity_restored(event, now)
            case gateway.SocketPortReset():
                reset = LogLine("warning", "socket_port_reset", {"code": 1300, "text": event.text})
                return [reset, Reconnect("the gateway moves its socket (1300)")]
            case gateway.FarmStatus():
                return self._farm_status(event, now)
            case gateway.PacingViolation():
                return self._pacing_violation(event)
            case gateway.Notice():
                return self._notice(event)
            case gateway.ConnectionLost():
                return self._connection_lost(event, now)
            case gateway.RowReceived():
                return []  # rows come by `hot_path` and `books.row`
            case _:
                assert_never(event)

    def _row_unreadable(self, event: gateway.RowUnreadable, now: float) -> list[Effect]:
        self.books.drop(event.request, event.fault.value)
        self.lines.row_dropped(event.request, event.operation, event.fault, now)
        return [DumpTape(UNREADABLE, f"a row of {self.books.symbol_of(event.request)}: {event.fault.value}")]

    def _reset(self, request: int, now: float, now_ms: int) -> list[Effect]:
        effects: list[Effect] = [LogLine("info", "book_reset", self._about(request))]
        self.lines.book_emptied(request)
        self.intervals.empties(request)
        self.books.reset(request, now_ms)
        self.intervals.emptied(request, now_ms)
        if request in self.liveness.awaited:
            if self.books.symbol_of(request) not in self._gaps.missing:
                self.liveness.forget(request)
            effects += self.subscriptions.answered(request, now)
        return effects

    def _halted(self, request: int, now: float) -> list[Effect]:
        logged = LogLine("warning", "depth_halted", self._about(request))
        came = self.books.request_came(request)[1]
        if came:
            self._gaps.open([(self.books.symbol_of(request), came)], "depth_halted", 316)
        return [logged, *self.subscriptions.request_again(request, EndReason.HALTED, now)]

    def _slot_refused(self, event: gateway.SlotRefused, now: float) -> list[Effect]:
        if self.subscriptions.has_answered(event.request):
            return self._advice(event.request, event.code, event.text, now)
        self.figures.refused_309 += 1
        self.figures.refused_309_of[self.books.symbol_of(event.request)] += 1
        logged = LogLine(
            "warning", "slot_refused", {**self._about(event.request), "code": event.code, "text": event.text}
        )
        self.subscriptions.retire(event.request, EndReason.SLOT_REFUSED)
        return [logged, *self.subscriptions.rotate(event, now)]

    def _depth_refused(self, event: gateway.DepthRefused, now: float) -> list[Effect]:
        if self.subscriptions.has_answered(event.request):
            return self._advice(event.request, event.code, event.text, now)
        about = {**self._about(event.request), "code": event.code, "text": event.text}
        if event.request not in self.subscriptions.subscribed:
            name = "depth_refused" if event.is_listed else "gateway_notice"
            told = rotation.Refused(event.request, event.reason)
            return [LogLine("warning", name, about), *self.subscriptions.rotate(told, now)]
        if event.is_advisory:
            logged = LogLine("warning", "depth_advice", about)
            return [logged, *self.subscriptions.advised(event.request, event.reason, now)]
        logged = LogLine("warning", "depth_refused", about)
        elsewhere, is_gone = event.concerns_venue, event.concerns_contract
        refused = self.subscriptions.refused(event.request, event.reason, now, elsewhere=elsewhere, is_gone=is_gone)
        return [logged, *refused]

    def _advice(self, request: int, code: int, text: str, now: float) -> list[Effect]:
        """Handle an error about a line that has had rows: no error ends it, only its silence does."""
        logged = LogLine("warning", "depth_advice", {**self._about(request), "code": code, "text": text})
        self.liveness.await_row(request)
        self.intervals.doubted({request})
        return [logged, *self.subscriptions.rotate(rotation.Advised(request), now)]

    def _id_rejected(self, event: gateway.RequestIdRejected, now: float) -> list[Effect]:
        logged = LogLine("warning", "request_id_rejected", {**self._about(event.request), "code": 322})
        if not self.subscriptions.has_answered(event.request):
            self.subscriptions.retire(event.request, EndReason.ID_REJECTED)
        return [logged, *self.subscriptions.rotate(event, now)]

    def _connectivity_lost(self, event: gateway.ConnectivityLost, now: float) -> list[Effect]:
        self.liveness.connectivity_lost(self.books.requests(), now)
        self._open_gaps("connectivity_lost", 1100)
        logged = LogLine("warning", "connectivity_lost", {"code": 1100, "text": event.text})
        return [logged, *self.subscriptions.rotate(rotation.Suspended(), now)]

    def _connectivity_restored(self, event: gateway.ConnectivityRestored, now: float) -> list[Effect]:
        self._open_gaps("connectivity_restored", 1101 if event.data_lost else 1102)
        return self._resume(rotation.Resumed(event.data_lost), event.text, now)

    def _resume(self, event: rotation.Resumed, text: str, now: float) -> list[Effect]:
        self.liveness.connectivity_restored(self.books.requests(), now)
        logged = LogLine("warning", "connectivity_restored", {"data_lost": event.data_lost, "text": text})
        return [logged, *self.subscriptions.rotate(event, now)]

    def _farm_status(self, event: gateway.FarmStatus, now: float) -> list[Effect]:
        name = "feed_healthy" if event.healthy else "feed_degraded"
        logged = LogLine("info" if event.healthy else "warning", name, {"code": event.code, "text": event.text})
        if self.liveness.suspended and event.code == 2104:
            assumed = rotation.Resumed(data_lost=True, reported=False)
            return [logged, *self._resume(assumed, "unsaid: a market data farm is connected", now)]
        patience = self.liveness.farm_status(event.code, self.books.requests(), now)
        farms = self.subscriptions.rotate(rotation.FarmsReported(event.healthy, bool(self.liveness.ailments)), now)
        if patience is None:
            return [logged, *farms]
        self._open_gaps(name, event.code)
        return [logged, *farms, *self.subscriptions.rotate(rotation.Doubted(patience), now)]

    def _pacing_violation(self, event: gateway.PacingViolation) -> list[Effect]:
        self.figures.pacing_violations += 1
        effects: list[Effect] = [LogLine("warning", "pacing_violation", {"code": 100, "text": event.text})]
        if event.slowed_to is not None:
            effects.append(LogLine("warning", "sending_slowed", {"messages_per_second": round(event.slowed_to, 2)}))
        return effects

    def _notice(self, event: gateway.Notice) -> list[Effect]:
        about = {} if event.request is None else self._about(event.request)
        logged = LogLine("info", "gateway_notice", {**about, "code": event.code, "text": event.text})
        return [logged, *(self.subscriptions.permissions_reported(event.text) if event.names_permissions else ())]

    def _connection_lost(self, event: gateway.ConnectionLost, now: float) -> list[Effect]:
        subscriptions = len(self.books.requests())
        logged = LogLine("warning", "connection_lost", {"text": event.text, "subscriptions": subscriptions})
        self._open_gaps("connection_lost")
        self.intervals.lost()
        self.books.retire_all()
        self.lines.restart()
        self.liveness.disconnected()
        dumped = DumpTape(RECONNECT, event.text)
        return [logged, dumped, *self.subscriptions.rotate(rotation.Disconnected(), now)]

    # ---- shared

    def _open_gaps(self, cause: str, code: int = 0) -> None:
        self._gaps.open(self.books.came().items(), cause, code)
        self.intervals.doubted(self.books.requests())

    def _about(self, request: int) -> dict[str, object]:
        return {"symbol": self.books.symbol_of(request), "request_id": request}


def _type_of(fields: tuple[str, ...]) -> str:
    """The type of a message that could not be read; nothing else of it, which may name an account."""
    return fields[0] if fields and fields[0].isascii() and fields[0].isdigit() and len(fields[0]) < 5 else "unknown"
