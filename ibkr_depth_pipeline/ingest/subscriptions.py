"""The subscriptions as the rotation wants them: its commands become effects. Pure; `now` is monotonic seconds.

Each request gets a book and has its first row waited for; heartbeats live at least until a symbol's next turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from ibkr_depth_pipeline.gateway.venues import FallbackBudget, VenueFallback
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.effects import (
    Cancel,
    Effect,
    LogLine,
    Recheck,
    Reconnect,
    RecordRefusal,
    RecordVenue,
    ReportPersisted,
    SetHeartbeatTtl,
    Subscribe,
)
from ibkr_depth_pipeline.ingest.liveness import LivenessTracker
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.rotation.controller import RotationController, RotationPlan

LEAST_HEARTBEAT_TTL_SECS = 30


class Subscriptions:
    """Who is subscribed to, at which venue; a venue that refuses is replaced by the next one.

    It begins without symbols: `resolved` brings each into the rotation.

    books, doubts and figures are kept up to date; heartbeat_ttl is the operator's, in seconds.
    """

    def __init__(
        self,
        plan: RotationPlan,
        request_ids: Iterator[int],
        books: LiveBooks,
        doubts: LivenessTracker,
        figures: PipelineFigures,
        *,
        heartbeat_ttl: int,
    ) -> None:
        self._rotation = RotationController((), plan, request_ids)
        self._fallbacks: dict[str, VenueFallback] = {}
        self._walks = FallbackBudget()
        self._unresolved: set[str] = set()
        self._recorded: set[str] = set()  # symbols whose venue hash says that rows come
        self._advised: dict[int, str] = {}  # request without rows -> the error that may be advice
        self._permissions = ""
        self._now = 0.0
        self._books = books
        self._doubts = doubts
        self._figures = figures
        self._configured_ttl = heartbeat_ttl
        self._ttl = 0
        self._own_ttls: dict[str, int] = {}
        self._removed: set[str] = set()

    # ---- what can be asked

    def next_deadline(self) -> float | None:
        """When the rotation is to be told `Deadline()`."""
        return self._rotation.next_deadline()

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription."""
        return self._rotation.subscribed

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._rotation.batch_size

    def venues(self) -> dict[str, str]:
        """symbol -> the venue it is asked for at."""
        known = {symbol: fallback for symbol, fallback in self._fallbacks.items() if symbol not in self._unresolved}
        return {symbol: fallback.requested.exchange for symbol, fallback in known.items()}

    def has_answered(self, request: int) -> bool:
        """Whether the request is in use and has had a row or a reset."""
        return self._rotation.has_answered(request)

    # ---- what changes them

    def resolved(self, resolution: Instrument | Unresolved, now: float) -> list[Effect]:
        """A symbol's venue was found, for the first time or anew; or it has none, and is looked at again later."""
        symbol = resolution.symbol
        if symbol in self._removed:
            return []
        if not isinstance(resolution, Instrument):
            self._unresolved.add(symbol)
            return self.tell(rotation.Rechecked(symbol, False, resolution.reason), now)
        self._unresolved.discard(symbol)
        if symbol in self._fallbacks:
            self._fallbacks[symbol].update_instrument(resolution, now)
        else:
            self._fallbacks[symbol] = VenueFallback(resolution)
        self._recorded.discard(symbol)  # whoever resolved it has written the venue hash
        return self.tell(rotation.Rechecked(symbol, True), now)

    def wanted(self, symbol: str, *, weight: int, pinned: bool, now: float) -> list[Effect]:
        """The symbol is to be recorded, with these wishes; a new one joins when it is resolved."""
        self._removed.discard(symbol)
        return self.tell(rotation.Wanted(symbol, weight, pinned), now)

    def removed(self, symbol: str, now: float) -> list[Effect]:
        """The symbol is not to be recorded any more: it leaves after its turn."""
        self._removed.add(symbol)
        self._unresolved.discard(symbol)
        self._recorded.discard(symbol)
        if symbol not in self.subscribed.values():
            self._fallbacks.pop(symbol, None)
        return self.tell(rotation.Removed(symbol), now)

    def opened(self, symbol: str, now: float) -> list[Effect]:
        """The symbol's market has opened."""
        if symbol not in self._fallbacks or symbol in self._removed:
            return []
        self._unresolved.discard(symbol)  # its contract of the day before is worth a request
        return self.tell(rotation.Opened(symbol), now)

    def answered(self, request: int, now: float) -> list[Effect]:
        """Rows of the request have come: its venue has depth."""
        effects = self._venue_granted(request, now)
        return effects + self.tell(rotation.Answered(request), now)

    def advised(self, request: int, reason: str, now: float) -> list[Effect]:
        """An error of a request without rows may be advice: it counts as a refusal if no row comes in time."""
        self._advised[request] = reason
        return self.tell(rotation.Advised(request), now)

    def refused(self, request: int, reason: str, now: float, *, elsewhere: bool = True) -> list[Effect]:
        """A request without rows was refused; elsewhere: another venue may grant it. The next venue is tried if so."""
        self._now = now
        symbol = self.subscribed.get(request)
        if symbol is None:
            return self.tell(rotation.Refused(request, reason), now)
        self.retire(request)
        fallback = self._fallbacks[symbol]
        refused = fallback.requested
        elsewhere = self._walks.refused(symbol, now) and elsewhere
        tries_next = fallback.refused(reason, now, is_well=self._rotation.feed_is_well, elsewhere=elsewhere)
        if len(fallback.venues) > 1:
            reason = self._in_words(fallback)
        self._recorded.discard(symbol)
        if not tries_next:
            effects = self.tell(rotation.Refused(request, reason), now)
            if set(fallback.venues) <= fallback.refusing_venues:
                fallback.start_over()
            return effects
        fields = {"symbol": symbol, "exchange": refused.exchange, "reason": reason}
        said = LogLine("warning", "venue_refused", {**fields, "next": fallback.requested.exchange})
        tries = self.tell(rotation.Refused(request, reason, elsewhere=True), now)
        return [said, RecordRefusal(refused, reason), *tries]

    def permissions_reported(self, text: str) -> list[Effect]:
        """The gateway says in words what the account has and lacks (2152); shown beside the venues that refused."""
        if text == self._permissions:
            return []
        self._permissions = text
        effects: list[Effect] = []
        for symbol, fallback in self._fallbacks.items():
            if fallback.refusal_summary and symbol in self._recorded:
                effects.append(RecordVenue(fallback.requested, self._in_words(fallback)))
        return effects

    def _venue_granted(self, request: int, now: float) -> list[Effect]:
        self._advised.pop(request, None)
        symbol = self.subscribed.get(request)
        if symbol is None or symbol not in self._fallbacks:
            return []
        self._walks.granted()
        fallback = self._fallbacks[symbol]
        if not fallback.granted(now) and symbol in self._recorded:
            return []
        self._recorded.add(symbol)
        return [RecordVenue(fallback.requested, self._in_words(fallback))]

    def _in_words(self, fallback: VenueFallback) -> str:
        lacks = fallback.refusal_summary
        return f"{lacks}; the gateway names: {self._permissions}" if lacks and self._permissions else lacks

    def retire(self, request: int) -> None:
        """Rows of this request never reach a book again."""
        self._advised.pop(request, None)
        self._doubts.forget(request)
        self._books.retire(request)

    def tell(self, event: rotation.RotationEvent, now: float) -> list[Effect]:
        """Tell the rotation, and return what it wants done."""
        self._now = now
        effects: list[Effect] = []
        for command in self._rotation.handle(event, now):
            effects += _COMMANDS[type(command)](self, command)
        return effects

    # ---- the rotation's commands

    def _subscribe(self, command: rotation.Subscribe) -> list[Effect]:
        instrument = self._fallbacks[command.symbol].requested
        self._books.open(command.request, command.symbol, instrument.exchange)
        self._doubts.wait_for(command.request)
        return [Subscribe(command.request, instrument)]

    def _cancel(self, command: rotation.Cancel) -> list[Effect]:
        self.retire(command.request)
        return [Cancel(command.request, command.symbol)]

    def _advice_confirmed(self, command: rotation.AdviceConfirmed) -> list[Effect]:
        return self.refused(command.request, self._advised.get(command.request, ""), self._now)

    def _recheck(self, command: rotation.Recheck) -> list[Effect]:
        return [Recheck(command.symbol)]

    def _reconnect(self, command: rotation.Reconnect) -> list[Effect]:
        said = LogLine("warning", "slots_leaked", {"symbols": list(command.symbols)})
        return [said, Reconnect("cancelled subscriptions still hold slots")]

    def _resume_unsaid(self, command: rotation.ResumeUnsaid) -> list[Effect]:
        self._doubts.outage_doubted()
        return [LogLine("warning", "connectivity_unknown", {"code": 1100, "text": "nothing came since; asking again"})]

    def _end_outage(self, command: rotation.EndOutage) -> list[Effect]:
        return [Reconnect("connectivity was lost (1100), and lines that were asked for again bring nothing")]

    def _turn_started(self, command: rotation.TurnStarted) -> list[Effect]:
        self._figures.turns = command.turn
        fields = {"turn": command.turn, "symbols": list(command.symbols), "batch_size": command.batch_size}
        return [LogLine("info", "rotation_started", fields), *self._adjust_ttl(extend=False)]

    def _turn_ended(self, command: rotation.TurnEnded) -> list[Effect]:
        fields = {"turn": command.turn, "symbols": list(command.symbols), "secs": round(command.secs, 3)}
        return [LogLine("info", "rotation_ended", fields), ReportPersisted(command.symbols)]

    def _resized(self, command: rotation.BatchResized) -> list[Effect]:
        shrunk = command.size < command.previous
        fields = {"size": command.size, "previous": command.previous, "symbol": command.symbol}
        said = LogLine("warning" if shrunk else "info", "batch_shrunk" if shrunk else "batch_grown", fields)
        return [said, *self._adjust_ttl(extend=shrunk)]

    def _release_raced(self, command: rotation.ReleaseRaced) -> list[Effect]:
        fields = {"symbol": command.symbol, "pause_secs": command.pause_secs}
        return [LogLine("warning", "slot_released_late", fields)]

    def _unsupported(self, command: rotation.MarkedUnsupported) -> list[Effect]:
        fields = {"symbol": command.symbol, "reason": command.reason, "retry_secs": command.retry_secs}
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


_COMMANDS: dict[type, Callable[[Subscriptions, Any], list[Effect]]] = {
    rotation.Subscribe: Subscriptions._subscribe,
    rotation.Cancel: Subscriptions._cancel,
    rotation.AdviceConfirmed: Subscriptions._advice_confirmed,
    rotation.Recheck: Subscriptions._recheck,
    rotation.Reconnect: Subscriptions._reconnect,
    rotation.ResumeUnsaid: Subscriptions._resume_unsaid,
    rotation.EndOutage: Subscriptions._end_outage,
    rotation.TurnStarted: Subscriptions._turn_started,
    rotation.TurnEnded: Subscriptions._turn_ended,
    rotation.BatchResized: Subscriptions._resized,
    rotation.ReleaseRaced: Subscriptions._release_raced,
    rotation.MarkedUnsupported: Subscriptions._unsupported,
}
