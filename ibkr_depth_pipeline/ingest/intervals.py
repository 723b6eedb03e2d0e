"""Records when each symbol was observed: one interval for each subscription, and what ended it. Pure.

An interval begins with the request and observes from its first row on. It is split when the book is not the same any
more: emptied by the gateway (317), out of step, or after a pause that a report of trouble explains. The subscription
then goes on as the next interval. Counts come from the book's numbering, so that a row costs nothing here.

Times are unix ms: those of rows as stored (`ts`, which never falls), others by the recorder's clock. `until` is the
last row, or, if later, the last moment at which the gateway answered while nothing was reported against the line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ibkr_depth_pipeline.ingest.hot_path import LiveBook
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.size_units import SizeUnit

_IN_ORDER = (EndReason.TURN_OVER, EndReason.STOPPED, EndReason.MARKET_CLOSED, EndReason.CONTRACT_CHANGED)
"""Ends of lines that nothing speaks against. They were live until the cancel if the gateway is heard after it."""

LONGEST_CLOSING_MS = 10_000
"""How long such an end waits for that; then `until` is the last that was heard before."""

QUIET_MS = 1000
"""An opening image that is not full is over once no row came for so long: docs/data.md, "When a book is complete"."""


class IntervalSink(Protocol):
    """Stores one symbol's intervals (sink/turns.py: SymbolTurns). It never waits."""

    def begin(self, interval: SubscriptionInterval, after_seq: int, /) -> None: ...

    def update(self, interval: SubscriptionInterval, /) -> None: ...

    def end(self, interval: SubscriptionInterval, last_seq: int, /) -> None: ...


class NoSink:
    """An IntervalSink that keeps nothing."""

    def begin(self, interval: SubscriptionInterval, after_seq: int, /) -> None: ...

    def update(self, interval: SubscriptionInterval, /) -> None: ...

    def end(self, interval: SubscriptionInterval, last_seq: int, /) -> None: ...


def no_sink(_symbol: str) -> IntervalSink:
    """For a pipeline whose intervals nobody keeps."""
    return NoSink()


@dataclass(slots=True)
class _Doubt:
    """A report of trouble: the longest pause between two rows since the last one before it, and the newest row."""

    newest: StreamId
    before: StreamId
    after: StreamId | None = None

    def row(self, row: StreamId) -> None:
        if self.after is None or row.ts - self.newest.ts >= self.after.ts - self.before.ts:
            self.before, self.after = self.newest, row
        self.newest = row


@dataclass(slots=True)
class _Open:
    """An open interval: what is known of it since it began, and the book that it observes."""

    begun: SubscriptionInterval
    book: LiveBook
    after: StreamId  # the newest snapshot before it
    applied: int  # the book's rows before it
    alive: int = 0  # the last moment at which the line was known to be live, rows aside
    doubt: _Doubt | None = None

    def seen(self) -> SubscriptionInterval:
        """As it is known now."""
        newest = self.book.newest
        if self.begun.first_row is None or newest.seq == self.after.seq:
            return self.begun
        until = self.doubt.newest.ts if self.doubt else max(self.book.last_row_ms, self.begun.first_row, self.alive)
        return replace(
            self.begun,
            until=until,
            complete=self.begun.complete or self.book.complete_ms or None,
            first_seq=self.after.seq + 1,
            last_seq=newest.seq,
            rows=self.book.applied - self.applied,
        )


@dataclass(slots=True)
class _Closing:
    """An interval that has ended, and is stored once the gateway answers after its cancel, at over_ms."""

    interval: SubscriptionInterval
    last_seq: int
    over_ms: int | None = None


class IntervalRecorder:
    """The open interval of each live request. outlet(symbol) stores what becomes of it; rows_requested and rows_stored
    are as in SubscriptionInterval.

    `number_from` before the first request of a symbol; `refresh` every second or so.
    """

    def __init__(self, outlet: Callable[[str], IntervalSink], *, rows_requested: int = 0, rows_stored: int = 0) -> None:
        self._outlet = outlet
        self._rows = rows_requested, rows_stored
        self._open: dict[int, _Open] = {}
        self._between: dict[int, _Open] = {}  # subscriptions that go on, and whose next interval is still to begin
        self._closing: dict[int, _Closing] = {}
        self._newest: dict[str, int] = {}
        self._heard = 0

    def number_from(self, newest: Mapping[str, int]) -> None:
        """Set the number of the newest subscription of each of these symbols."""
        self._newest.update(newest)

    def unstored(self) -> set[str]:
        """The symbols with an interval that is still to be handed to their outlets."""
        return {each.begun.symbol for each in self._open.values()} | {
            each.interval.symbol for each in self._closing.values()
        }

    # ---- one request

    def requested(self, book: LiveBook, instrument: Instrument, sizes: SizeUnit, now_ms: int) -> None:
        """A subscription was requested; sizes: what is known of the unit of its sizes."""
        begun = SubscriptionInterval(
            book.symbol,
            self._next(book.symbol),
            book.venue,
            con_id=instrument.con_id,
            local_symbol=instrument.local_symbol,
            requested=now_ms,
            size_unit=sizes.size_unit,
            size_fractional=int(sizes.size_fractional),
            min_size=sizes.min_size,
            size_increment=sizes.size_increment,
            server_version=sizes.server_version,
            rows_requested=self._rows[0],
            rows_stored=self._rows[1],
        )
        book.subscription = begun.subscription
        self._begin(book, begun, book.newest, book.applied)

    def row_came(self, request: int) -> None:
        """A row of the request was applied, while its rows were awaited."""
        found = self._open.get(request)
        if found is None:
            return
        self.spoke(found.book.newest.ts)
        if found.begun.first_row is None:
            self._observe(found, found.book.newest.ts)
        elif found.doubt is not None:
            found.doubt.row(found.book.newest)

    def empties(self, request: int) -> None:
        """The gateway empties the request's book (317); `emptied` follows."""
        found = self._open.get(request)
        if found is not None and found.begun.first_row is not None:
            self._end(request, EndReason.RESET, self._until(found))
            found.book.subscription = self._newest[found.begun.symbol] + 1
            self._between[request] = found

    def emptied(self, request: int, now_ms: int) -> None:
        """The empty book is stored: the first of the next interval, or of the request's first one."""
        found, ended = self._open.get(request), self._between.pop(request, None)
        if ended is not None:
            newest = ended.book.newest
            before = StreamId(newest.ts, newest.seq - 1)
            self._go_on(ended, now_ms, before, ended.book.applied, first_row=newest.ts, complete=None)
        elif found is not None:
            self._observe(found, found.book.newest.ts)

    def ended(self, request: int, reason: EndReason) -> None:
        """The request is over: refused, lost, or to be cancelled; then `cancelled` follows."""
        found = self._open.get(request)
        self._between.pop(request, None)
        if found is None:
            return
        if found.doubt is not None and reason in (EndReason.TURN_OVER, EndReason.HALTED):
            reason = EndReason.IN_DOUBT
        until = self._until(found)
        if reason in _IN_ORDER and until is not None and found.doubt is None:
            del self._open[request]
            self._closing[request] = _Closing(*self._over(found, reason, until))
        else:
            self._end(request, reason, until)

    def cancelled(self, request: int, over_ms: int) -> None:
        """The cancel of the request is sent, no earlier than at over_ms."""
        if request in self._closing:
            self._closing[request].over_ms = over_ms
            self.spoke(self._heard)

    def spoke(self, now_ms: int) -> None:
        """The gateway has answered: lines that were cancelled before were live until their cancels."""
        self._heard = max(self._heard, now_ms)
        for request, closing in list(self._closing.items()):
            if closing.over_ms is not None and self._heard >= closing.over_ms:
                until = max(closing.over_ms, closing.interval.until or 0)
                closing.interval = replace(closing.interval, until=until)
                self._close(request)

    def lost(self) -> None:
        """The connection to the gateway is gone, and every request with it."""
        self.close()
        for request in list(self._open):
            self.ended(request, EndReason.CONNECTION_LOST)

    def close(self) -> None:
        """Store what waits for the gateway's answer, as it is."""
        for request in list(self._closing):
            self._close(request)

    def _close(self, request: int) -> None:
        closing = self._closing.pop(request)
        self._outlet(closing.interval.symbol).end(closing.interval, closing.last_seq)

    # ---- trouble

    def doubted(self, requests: Collection[int]) -> None:
        """A report of trouble covers these requests, as far as they have had rows."""
        for request in requests:
            found = self._open.get(request)
            if found is not None and found.doubt is None and found.book.applied > found.applied:
                found.doubt = _Doubt(found.book.newest, found.book.newest)

    def proven(self, request: int, *, went_on: bool) -> None:
        """The newest row of the request proves its line. went_on: there was no pause that the trouble explains."""
        found = self._open.get(request)
        if found is None or found.doubt is None:
            return
        doubt, found.doubt = found.doubt, None
        if went_on or doubt.after is None:
            return
        rows = found.book.applied - found.applied
        lost = doubt.newest.seq - doubt.before.seq
        self._end(request, EndReason.IN_DOUBT, doubt.before.ts, doubt.before.seq, rows - lost)
        complete = None if found.book.is_filling else doubt.after.ts
        applied = found.book.applied - lost
        self._go_on(found, doubt.after.ts, doubt.before, applied, first_row=doubt.after.ts, complete=complete)

    def out_of_step(self, request: int, secs: float) -> None:
        """The request's book has been wrong for so long: it is observed no more, though rows of it go on."""
        found = self._open.get(request)
        if found is None or found.begun.first_row is None:
            return
        right_until = found.book.last_row_ms - round(secs * 1000)
        self._end(request, EndReason.OUT_OF_STEP, max(found.begun.first_row, right_until))
        self._between[request] = found

    def in_step(self, request: int) -> None:
        """The request's book has come right again."""
        found = self._between.pop(request, None)
        if found is not None:
            newest = found.book.newest
            before = StreamId(newest.ts, newest.seq - 1)
            self._go_on(found, newest.ts, before, found.book.applied - 1, first_row=newest.ts, complete=newest.ts)

    # ---- time

    def heard(self, symbols: Collection[str], now_ms: int) -> None:
        """The gateway answered: the lines of these symbols are known to be live."""
        self.spoke(now_ms)
        for found in self._open.values():
            if found.begun.symbol in symbols and found.doubt is None:
                found.alive = max(found.alive, self._heard)

    def refresh(self, symbols: Collection[str], now_ms: int) -> None:
        """Publish what is known of the open intervals; the lines of `symbols` are known to be live.

        A row of any line shows that the gateway sends what there is. An opening image is over if no row came for
        QUIET_MS.
        """
        for found in self._open.values():
            if found.book.is_filling and now_ms - found.book.last_came_ms >= QUIET_MS:
                found.book.filled()
        self.heard(symbols, max((found.book.last_row_ms for found in self._open.values()), default=0))
        for found in self._open.values():
            if found.begun.first_row is not None:
                self._outlet(found.begun.symbol).update(found.seen())
        for request, closing in list(self._closing.items()):
            if closing.over_ms is None or now_ms - closing.over_ms > LONGEST_CLOSING_MS:
                self._close(request)

    # ---- shared

    def _next(self, symbol: str) -> int:
        self._newest[symbol] = self._newest.get(symbol, 0) + 1
        return self._newest[symbol]

    def _begin(self, book: LiveBook, begun: SubscriptionInterval, after: StreamId, applied: int) -> None:
        for request in [request for request, each in self._closing.items() if each.interval.symbol == book.symbol]:
            self._close(request)
        self._open[book.request] = _Open(begun, book, after, applied)
        self._outlet(book.symbol).begin(begun, after.seq)

    def _observe(self, found: _Open, first_row: int) -> None:
        found.begun = replace(found.begun, first_row=first_row)
        self._outlet(found.begun.symbol).update(found.seen())

    def _go_on(
        self, found: _Open, requested: int, after: StreamId, applied: int, *, first_row: int, complete: int | None
    ) -> None:
        symbol = found.begun.symbol
        begun = replace(found.begun, subscription=self._next(symbol), requested=requested)
        self._begin(found.book, replace(begun, first_row=first_row, complete=complete), after, applied)
        self._outlet(symbol).update(self._open[found.book.request].seen())

    def _until(self, found: _Open) -> int | None:
        """The last moment at which the line was known to be live; rows of other lines count, as in `refresh`."""
        self._heard = max(self._heard, *(other.book.last_row_ms for other in self._open.values()))
        seen = found.seen().until
        return seen if seen is None or found.doubt is not None else max(seen, self._heard)

    def _end(
        self, request: int, reason: EndReason, until: int | None, last_seq: int | None = None, rows: int | None = None
    ) -> None:
        interval, last = self._over(self._open.pop(request), reason, until, last_seq, rows)
        self._outlet(interval.symbol).end(interval, last)

    @staticmethod
    def _over(
        found: _Open, reason: EndReason, until: int | None, last_seq: int | None = None, rows: int | None = None
    ) -> tuple[SubscriptionInterval, int]:
        """The interval as it ended, and the newest snapshot that may be its own."""
        seen = found.seen()
        last = found.book.newest.seq if last_seq is None else last_seq
        if seen.first_seq is not None:
            was_complete = seen.complete is not None and until is not None and seen.complete <= until
            complete = seen.complete if was_complete else None
            seen = replace(seen, until=until, complete=complete, last_seq=last)
            seen = seen if rows is None else replace(seen, rows=rows)
        return replace(seen, end=reason), last
