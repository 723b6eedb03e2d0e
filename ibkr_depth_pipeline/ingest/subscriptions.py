"""Turns the rotation's commands into effects, and chooses the venue of each request. Pure; `now` is monotonic seconds.

Each request gets a book, and its first row is awaited; heartbeats live at least until a symbol's next turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from typing_extensions import assert_never

from ibkr_depth_pipeline.gateway.venues import FallbackBudget, VenueFallback
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.effects import (
    Effect,
    LogLine,
    LogPersisted,
    RecordRefusal,
    RecordVenue,
    RequestDepth,
    SetHeartbeatTtl,
)
from ibkr_depth_pipeline.ingest.intervals import IntervalRecorder, no_sink
from ibkr_depth_pipeline.ingest.liveness import LivenessTracker
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import RotationPlan
from ibkr_depth_pipeline.rotation.ring import TurnOutlook
from ibkr_depth_pipeline.rotation.slot_allocator import BatchResized, SlotReleasedLate
from ibkr_depth_pipeline.rotation.slots import Reconnect
from ibkr_depth_pipeline.schema.intervals import EndReason

LEAST_HEARTBEAT_TTL_SECS = 30

_ENDS: dict[type[rotation.RotationEvent], EndReason] = {
    rotation.Stop: EndReason.STOPPED,
    rotation.Closed: EndReason.MARKET_CLOSED,
    rotation.Resumed: EndReason.IN_DOUBT,
}
"""Why a subscription ends that the rotation cancels at such an event; at any other its turn is over."""


class Subscriptions:
    """The symbols of the rotation, each with the venue to request; a venue that refuses is replaced by the next one.

    It begins without symbols: `resolved` brings each into the rotation. books, liveness and figures are kept up to
    date; heartbeat_ttl: the operator's, in seconds.
    """

    def __init__(
        self,
        plan: RotationPlan,
        request_ids: Iterator[int],
        books: LiveBooks,
        liveness: LivenessTracker,
        figures: PipelineFigures,
        *,
        heartbeat_ttl: int,
        intervals: IntervalRecorder | None = None,
    ) -> None:
        self._rotation = RotationController((), plan, request_ids)
        self._fallbacks: dict[str, VenueFallback] = {}
        self._walks = FallbackBudget()
        self._unresolved: set[str] = set()
        self._recorded: set[str] = set()  # symbols whose venue hash shows that rows come
        self._advised: dict[int, str] = {}  # request without rows -> the error that may be advice
        self._permissions = ""
        self._refusals: dict[str, str] = {}  # symbol -> why it was set aside, until rows of it come
        self._books = books
        self._liveness = liveness
        self._intervals = intervals or IntervalRecorder(no_sink)
        self._ends: dict[int, EndReason] = {}  # request -> why it ends, if not by the event that the rotation handles
        self._figures = figures
        self._configured_ttl = heartbeat_ttl
        self._ttl = 0
        self._own_ttls: dict[str, int] = {}
        self._removed: set[str] = set()
        self._requested: dict[int, Instrument] = {}  # request -> what it is for
        self._awaited_since: dict[str, float] = {}  # symbols without a row since they joined, or their market opened
        self._first_row_cap = plan.first_row_cap
        self._had_rows: set[str] = set()  # symbols whose contract in force has had rows
        self._doubted: set[str] = set()  # symbols that are resolved again since their contract is refused

    # ---- state

    def next_deadline(self) -> float | None:
        """When to call `rotate(Deadline(), ...)`; None: never."""
        return self._rotation.next_deadline()

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription."""
        return self._rotation.subscribed

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._rotation.batch_size

    def outlook(self) -> dict[str, TurnOutlook]:
        """symbol -> its share of the time and its next turn, of those that take turns."""
        return self._rotation.outlook()

    def first_rows_due(self, now: float) -> dict[str, float]:
        """symbol -> the seconds within which its first row since it joined, or since its market opened, is to come."""
        if not self._awaited_since:
            return {}
        windows = self._rotation.windows_secs()
        due = {
            symbol: since + windows[symbol] + self._first_row_cap - now
            for symbol, since in self._awaited_since.items()
            if symbol in windows
        }
        return {symbol: secs for symbol, secs in due.items() if secs > 0}

    def contracts(self) -> dict[str, Instrument]:
        """symbol -> its contract, at the venue to request it at."""
        known = {symbol: fallback for symbol, fallback in self._fallbacks.items() if symbol not in self._unresolved}
        return {symbol: fallback.requested for symbol, fallback in known.items()}

    def venues(self) -> dict[str, str]:
        """symbol -> the venue to request it at."""
        return {symbol: contract.exchange for symbol, contract in self.contracts().items()}

    def refusals(self) -> dict[str, str]:
        """symbol -> why it is refused, or has no venue, of those that had no rows since."""
        return dict(self._refusals)

    def has_answered(self, request: int) -> bool:
        """Whether the request is in use and has had a row or a reset."""
        return self._rotation.has_answered(request)

    # ---- events

    def resolved(self, resolution: Instrument | Unresolved, now: float) -> list[Effect]:
        """Bring a resolved symbol into the rotation; one without a venue is resolved again later."""
        symbol = resolution.symbol
        if symbol in self._removed:
            return []
        if not isinstance(resolution, Instrument):
            self._unresolved.add(symbol)
            return self.rotate(rotation.Rechecked(symbol, False, resolution.reason), now)
        self._unresolved.discard(symbol)
        known = self._fallbacks.get(symbol)
        if known is not None and known.instrument.con_id == resolution.con_id:
            known.update_instrument(resolution, now)
        else:
            self._fallbacks[symbol] = VenueFallback(resolution)
        if known is None:
            self._awaited_since.setdefault(symbol, now)
        self._recorded.discard(symbol)  # the venue hash was written when it was resolved
        effects = self._contract_changed(None if known is None else known.instrument, resolution)
        effects += self.rotate(rotation.Rechecked(symbol, True), now)
        return effects + self._replace_line(resolution, now)

    def _contract_changed(self, known: Instrument | None, found: Instrument) -> list[Effect]:
        """Log that another contract takes the symbol's place, or that its venues are other ones after a refusal."""
        if known is None:
            return []
        fields = {"symbol": found.symbol, "con_id": found.con_id, "exchange": found.exchange}
        if known.con_id != found.con_id:
            contract = {"local_symbol": found.local_symbol, "expiry": found.expiry}
            self._had_rows.discard(found.symbol)
            self._doubted.discard(found.symbol)
            was = {"was_con_id": known.con_id, "was": known.local_symbol, "was_expiry": known.expiry}
            return [LogLine("info", "contract_rolled", {**fields, **contract, **was})]
        if found.symbol in self._doubted or set(known.valid_exchanges) != set(found.valid_exchanges):
            venues = {"valid_exchanges": list(found.valid_exchanges), "was": list(known.valid_exchanges)}
            return [LogLine("info", "contract_resolved_again", {**fields, **venues})]
        return []

    def _replace_line(self, instrument: Instrument, now: float) -> list[Effect]:
        """Subscribe again if the symbol's line is for another contract, or for a venue that is not among its own."""
        for request, symbol in self.subscribed.items():
            requested = self._requested.get(request)
            if symbol == instrument.symbol and requested is not None:
                venues = (instrument.exchange, *instrument.alternatives)
                if requested.con_id != instrument.con_id or requested.exchange not in venues:
                    return self.request_again(request, EndReason.CONTRACT_CHANGED, now)
        return []

    def wanted(self, symbol: str, *, weight: int, pinned: bool, now: float) -> list[Effect]:
        """Record the symbol with this priority; a new one joins when it is resolved."""
        self._removed.discard(symbol)
        return self.rotate(rotation.Wanted(symbol, weight, pinned), now)

    def removed(self, symbol: str, now: float) -> list[Effect]:
        """Stop recording the symbol after its turn."""
        self._removed.add(symbol)
        self._refusals.pop(symbol, None)
        self._awaited_since.pop(symbol, None)
        self._unresolved.discard(symbol)
        self._recorded.discard(symbol)
        if symbol not in self.subscribed.values():
            self._fallbacks.pop(symbol, None)
        return self.rotate(rotation.Removed(symbol), now)

    def opened(self, symbol: str, now: float) -> list[Effect]:
        """Bring the symbol back: its market has opened."""
        is_resolved = symbol in self._fallbacks
        self._awaited_since[symbol] = now
        if is_resolved:
            self._unresolved.discard(symbol)  # the contract of the day before is requested as it is
        return self.rotate(rotation.Opened(symbol, is_resolved), now)

    def closed(self, symbol: str, now: float) -> list[Effect]:
        """Take the symbol out until its market opens."""
        self._refusals.pop(symbol, None)
        self._awaited_since.pop(symbol, None)
        return self.rotate(rotation.Closed(symbol), now)

    def answered(self, request: int, now: float) -> list[Effect]:
        """Handle rows of a request: its venue has depth."""
        effects = self._venue_granted(request, now)
        return effects + self.rotate(rotation.Answered(request), now)

    def advised(self, request: int, reason: str, now: float) -> list[Effect]:
        """Handle an error of a request without rows that may be advice: a refusal if no row comes in time."""
        self._advised[request] = reason
        return self.rotate(rotation.Advised(request), now)

    def refused(
        self, request: int, reason: str, now: float, *, elsewhere: bool = True, is_gone: bool = False
    ) -> list[Effect]:
        """Handle a refusal of a request without rows; elsewhere: another venue may grant it, so one is tried.

        is_gone: the gateway knows no such contract or venue. One that had rows was renamed or has expired, and is
        resolved again at once.
        """
        symbol = self.subscribed.get(request)
        if symbol is None:
            return self.rotate(rotation.Refused(request, reason), now)
        if not is_gone or symbol not in self._had_rows or symbol in self._doubted:
            return self._refused(request, symbol, reason, now, elsewhere)
        self._doubted.add(symbol)
        return [*self._refused(request, symbol, reason, now, elsewhere), rotation.Recheck(symbol)]

    def _refused(self, request: int, symbol: str, reason: str, now: float, elsewhere: bool) -> list[Effect]:
        self.retire(request, EndReason.REFUSED)
        fallback = self._fallbacks[symbol]
        refused = fallback.requested
        elsewhere = self._walks.refused(symbol, now) and elsewhere
        tries_next = fallback.refused(reason, now, is_well=self._rotation.feed_is_well, elsewhere=elsewhere)
        if len(fallback.venues) > 1:
            reason = self._reasons(fallback)
        self._recorded.discard(symbol)
        if not tries_next:
            effects = self.rotate(rotation.Refused(request, reason), now)
            if set(fallback.venues) <= fallback.refusing_venues:
                fallback.start_over()
            return effects
        fields = {"symbol": symbol, "exchange": refused.exchange, "reason": reason}
        logged = LogLine("warning", "venue_refused", {**fields, "next": fallback.requested.exchange})
        tries = self.rotate(rotation.Refused(request, reason, elsewhere=True), now)
        return [logged, RecordRefusal(refused, reason), *tries]

    def permissions_reported(self, text: str) -> list[Effect]:
        """Record the account's permissions (2152), in the gateway's words, beside the venues that refused."""
        if text == self._permissions:
            return []
        self._permissions = text
        effects: list[Effect] = []
        for symbol, fallback in self._fallbacks.items():
            if fallback.refusal_summary and symbol in self._recorded:
                effects.append(RecordVenue(fallback.requested, self._reasons(fallback)))
        return effects

    def _venue_granted(self, request: int, now: float) -> list[Effect]:
        self._advised.pop(request, None)
        symbol = self.subscribed.get(request)
        if symbol is None or symbol not in self._fallbacks:
            return []
        self._walks.granted()
        self._awaited_since.pop(symbol, None)
        self._had_rows.add(symbol)
        self._doubted.discard(symbol)
        self._refusals.pop(symbol, None)
        fallback = self._fallbacks[symbol]
        if not fallback.granted() and symbol in self._recorded:
            return []
        self._recorded.add(symbol)
        return [RecordVenue(fallback.requested, self._reasons(fallback))]

    def _reasons(self, fallback: VenueFallback) -> str:
        lacks = fallback.refusal_summary
        return f"{lacks}; the gateway names: {self._permissions}" if lacks and self._permissions else lacks

    def request_again(self, request: int, reason: EndReason, now: float) -> list[Effect]:
        """Replace the subscription: it is dead for that reason, or of no use."""
        self._ends[request] = reason
        effects = self.rotate(rotation.Halted(request), now)
        self._ends.pop(request, None)
        return effects

    def retire(self, request: int, reason: EndReason = EndReason.TURN_OVER) -> None:
        """Close the book of a request, and await no row of it."""
        self._intervals.ended(request, reason)
        self._advised.pop(request, None)
        self._requested.pop(request, None)
        self._liveness.forget(request)
        self._books.retire(request)

    def rotate(self, event: rotation.RotationEvent, now: float) -> list[Effect]:
        """Let the rotation handle the event. Returns the effects of its commands."""
        effects: list[Effect] = []
        for command in self._rotation.handle(event, now):
            effects += self._effects_of(command, _ENDS.get(type(event), EndReason.TURN_OVER), now)
        return effects

    # ---- the rotation's commands

    def _effects_of(self, command: rotation.RotationCommand, end: EndReason, now: float) -> list[Effect]:
        match command:
            case rotation.Subscribe():
                return self._subscribe(command)
            case rotation.Cancel():
                self.retire(command.request, self._ends.get(command.request, end))
                return [command]
            case rotation.Recheck():
                return [command]
            case Reconnect():
                leaked = LogLine("warning", "slots_leaked", {"symbols": list(command.orphaned)})
                return [leaked, command] if command.orphaned else [command]
            case rotation.AdviceConfirmed():
                return self.refused(command.request, self._advised.get(command.request, ""), now)
            case rotation.OutageEndAssumed():
                self._liveness.outage_assumed_over()
                fields = {"code": 1100, "text": "nothing came since; asking again"}
                return [LogLine("warning", "connectivity_unknown", fields)]
            case rotation.TurnStarted():
                return self._turn_started(command)
            case rotation.TurnEnded():
                return self._turn_ended(command)
            case BatchResized():
                return self._batch_resized(command)
            case SlotReleasedLate():
                fields = {"symbol": command.symbol, "pause_secs": command.pause_secs}
                return [LogLine("warning", "slot_released_late", fields)]
            case rotation.SymbolSkipped():
                return self._symbol_skipped(command)
            case _:
                assert_never(command)

    def _subscribe(self, command: rotation.Subscribe) -> list[Effect]:
        instrument = self._fallbacks[command.symbol].requested
        self._books.open(command.request, command.symbol, instrument.exchange)
        self._liveness.await_row(command.request)
        self._requested[command.request] = instrument
        return [RequestDepth(command.request, instrument)]

    def _turn_started(self, command: rotation.TurnStarted) -> list[Effect]:
        self._figures.turns = command.turn
        fields = {"turn": command.turn, "symbols": list(command.symbols), "batch_size": command.batch_size}
        return [LogLine("info", "rotation_started", fields), *self._adjust_ttl(extend=False)]

    def _turn_ended(self, command: rotation.TurnEnded) -> list[Effect]:
        fields = {"turn": command.turn, "symbols": list(command.symbols), "secs": round(command.secs, 3)}
        return [LogLine("info", "rotation_ended", fields), LogPersisted(command.symbols)]

    def _batch_resized(self, command: BatchResized) -> list[Effect]:
        shrunk = command.size < command.previous
        fields = {"size": command.size, "previous": command.previous, "symbol": command.symbol}
        logged = LogLine("warning" if shrunk else "info", "batch_shrunk" if shrunk else "batch_grown", fields)
        return [logged, *self._adjust_ttl(extend=shrunk)]

    def _symbol_skipped(self, command: rotation.SymbolSkipped) -> list[Effect]:
        fields = {"symbol": command.symbol, "reason": command.reason, "retry_secs": command.retry_secs}
        self._refusals[command.symbol] = command.reason
        effects: list[Effect] = [LogLine("warning", "symbol_skipped", fields)]
        if command.symbol in self._fallbacks and command.symbol not in self._unresolved:
            effects.append(RecordRefusal(self._fallbacks[command.symbol].requested, command.reason))
        return effects

    def _adjust_ttl(self, *, extend: bool) -> list[Effect]:
        ttl, own = self._ttl_of(self._rotation.window_secs()), self._own_ttls_now()
        if ttl == self._ttl and own == self._own_ttls:
            return []
        extend |= ttl > self._ttl > 0  # symbols join while others have had their turn
        extend |= any(secs > self._own_ttls.get(symbol, self._ttl) > 0 for symbol, secs in own.items())
        self._ttl, self._own_ttls = ttl, own
        return [SetHeartbeatTtl(ttl, self._books.last_rows() if extend else {}, own)]

    def _own_ttls_now(self) -> dict[str, int]:
        if self._rotation.is_even:
            return {}
        return {symbol: self._ttl_of(secs) for symbol, secs in self._rotation.windows_secs().items()}

    def _ttl_of(self, window_secs: float) -> int:
        return math.ceil(max(self._configured_ttl, window_secs, LEAST_HEARTBEAT_TTL_SECS))
