"""The past as the streams hold it: the books of a moment, best prices by time, who held a slot when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ibkr_depth_pipeline.reader import AsyncDepthReader, DepthSnapshot, NewTurns
from ibkr_depth_pipeline.reader.marking import PAUSE_MS
from ibkr_depth_pipeline.tui.observed import Stretch, TileSpan, stretch_of, stretches_between, tile_columns
from ibkr_depth_pipeline.tui.state import Lanes, Liveness, Quote, SymbolLine, WatchState
from ibkr_depth_pipeline.tui.turn_record import SILENT_MS, TurnRecord

_COVERING = 2
"""Subscriptions to ask for behind a moment: the first one that ends after it is the one that may cover it."""
_GONE = {Liveness.UNSUPPORTED, Liveness.NONE}


@dataclass(frozen=True, slots=True)
class ChartSpan(TileSpan):
    """Columns that may begin anywhere: `number` is that of the first one."""

    @property
    def start(self) -> int:
        """Where its first column begins, in unix ms."""
        return self.number * self.step


class History:
    """Asks the Redis at `url`. Every call raises SinkUnavailable and SchemaMismatch as the reader does."""

    def __init__(self, url: str) -> None:
        self._reader = AsyncDepthReader(url)
        self._record = TurnRecord()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reader.aclose()

    async def lanes(self, state: WatchState) -> Lanes:
        """The subscriptions of the last minutes, at the time of `state`."""
        symbols, now = [line.symbol for line in state.lines], state.ts
        self._record.take(await self._reader.turns_since(self._record.cursors(symbols, now)), now)
        return self._record.lanes(now, {line.symbol for line in state.lines if line.holds_slot})

    async def oldest(self, symbol: str) -> int | None:
        """When the symbol's stream begins, unix ms; None if it is empty."""
        (first,) = await self._reader.first_of([(symbol, 0, None)])
        return first.ts if first is not None else None

    async def at(self, state: WatchState, ts: int) -> WatchState:
        """The books of `state`'s symbols as they were at unix ms `ts`."""
        symbols = [line.symbol for line in state.lines]
        books = await self._reader.last_of([(symbol, 0, ts + 1) for symbol in symbols])
        turns = await self._reader.turns_since(dict.fromkeys(symbols, str(ts)), _COVERING)
        lines = [
            _line_of_then(line, book, turns[line.symbol], ts) for line, book in zip(state.lines, books, strict=True)
        ]
        return replace(state, ts=ts, lines=lines)

    async def quotes(self, symbol: str, ts: int, step: int, count: int) -> list[Quote | None]:
        """The best prices of `count` columns of `step` ms, the last of which holds `ts`; None where not observed."""
        span = ChartSpan(step, ts // step - count + 1, count)
        spans = [(0, span.start), *span.columns()]
        before, *newest = await self._reader.last_of([(symbol, start, end) for start, end in spans])
        new = (await self._reader.turns_since({symbol: str(span.start)}))[symbol]
        known = [book.ts for book in (before, *newest) if book is not None]
        stretches = _stretches(new, ts) or stretches_between(known)
        quotes: list[Quote | None] = []
        for column in tile_columns(span, before, newest, stretches, ts):
            quotes.append(_quote(column) if column != 0 else quotes[-1])
        return quotes


def _stretches(turns: NewTurns, ts: int) -> list[Stretch]:
    """What was observed; an open subscription goes on up to `ts` if its record is recent."""
    found = [stretch for turn in turns.ended if (stretch := stretch_of(turn)) is not None]
    last = stretch_of(turns.open) if turns.open is not None else None
    if last is not None:
        found.append(Stretch(last.start, ts if 0 <= ts - last.end < SILENT_MS else last.end))
    return found


def _quote(column: Sequence[Sequence[Sequence[float]]] | None) -> Quote | None:
    if column is None or not column[2] or not column[3]:
        return None
    return Quote(column[2][0][0], column[3][0][0])


def _line_of_then(line: SymbolLine, book: DepthSnapshot | None, turns: NewTurns, ts: int) -> SymbolLine:
    observed = book is not None and _is_observed(book, turns, ts)
    liveness = Liveness.LIVE if observed else Liveness.WAIT if book is not None else Liveness.NONE
    return SymbolLine(
        symbol=line.symbol,
        liveness=line.liveness if book is None and line.liveness in _GONE else liveness,
        holds_slot=observed,
        venue=book.venue if book is not None else line.venue,
        reason=line.reason,
        book=book,
        age_secs=(ts - book.ts) / 1000 if book is not None else None,
        ttl_secs=None,
        rows_per_sec=None,
        coverage=None,
    )


def _is_observed(book: DepthSnapshot, turns: NewTurns, ts: int) -> bool:
    if not turns.ended and turns.open is None:  # no record: as the reader marks such snapshots
        return ts - book.ts <= PAUSE_MS
    return any(each.start <= ts <= each.end for each in _stretches(turns, ts))
