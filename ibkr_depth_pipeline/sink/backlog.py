"""What waits to be written, bounded in bytes: the oldest snapshots go first, counted and logged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import BookSnapshot
from ibkr_depth_pipeline.sink.encoding import Entry, SnapshotEncoder, StreamPosition
from ibkr_depth_pipeline.sink.keys import stream_key

FIRST_PAUSE_SECS = 0.05
LONGEST_PAUSE_SECS = 1.0


def longer_pause(pause: float) -> float:
    """The pause after one more failure: doubled, within bounds. Seconds."""
    return min(max(2 * pause, FIRST_PAUSE_SECS), LONGEST_PAUSE_SECS)


@dataclass
class WriterFigures:
    """What the writer has done, since it was made. Sizes are bytes.

    `dropped` counts the snapshots that the bound cost; one whose write was never answered may be stored all the same.
    """

    stored: dict[str, int] = field(default_factory=dict)
    newest_seq: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    write_failures: int = 0
    buffered_entries: int = 0
    buffered_bytes: int = 0
    lags_ms: deque[int] = field(default_factory=lambda: deque(maxlen=1000))

    def lag_percentiles(self) -> tuple[float | None, float | None]:
        """Half and 99 of 100 of the newest blocks were stored within so many ms of their oldest row."""
        ordered = sorted(self.lags_ms)
        if not ordered:
            return None, None
        return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


class SymbolQueue:
    """What is still to be done for one symbol."""

    def __init__(self, symbol: str, levels_shown: int) -> None:
        self.encoder = SnapshotEncoder(levels_shown)
        self.stream_key = stream_key(symbol)
        self.waiting: deque[Entry] = deque()  # for XADD
        self.stored: Entry | None = None  # newest in the stream, for the hash
        self.beat: int | None = None  # unix ms, for the heartbeat
        self.venue: dict[Any, Any] | None = None  # for the venue hash
        self.newest_sent = StreamPosition()  # nothing later can be in the stream by our hand
        self.uncertain_seq = 0  # snapshots up to this one may be stored already
        self.pause = 0.0  # seconds until its next try, after its key failed
        self.not_before = 0.0  # loop time of that try

    def commands_due(self, now: float) -> bool:
        """Whether there is anything to do that need not wait."""
        return now >= self.not_before and bool(self.waiting or self.stored or self.beat or self.venue)

    def take(self, most: int) -> list[Entry]:
        """The next snapshots to send, at least one."""
        entries = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        self.newest_sent = max(self.newest_sent, StreamPosition(entries[-1].ts, entries[-1].seq))
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """These were not stored, or nobody knows."""
        self.waiting.extendleft(reversed(entries))

    def doubt(self, entries: list[Entry]) -> None:
        """Whether these were stored is unknown."""
        self.uncertain_seq = max(self.uncertain_seq, entries[-1].seq)

    def postpone(self, now: float) -> None:
        """Its key failed: leave it alone for a while, so that it holds up no other symbol."""
        self.pause = longer_pause(self.pause)
        self.not_before = now + self.pause


class Backlog:
    """The queues of all symbols. Nothing here waits; the bound holds for what waits and what is on its way together."""

    def __init__(self, bound: int, levels_shown: int, figures: WriterFigures) -> None:
        self._bound = bound
        self._levels_shown = levels_shown
        self._figures = figures
        self._log = get_log()
        self.queues: dict[str, SymbolQueue] = {}

    def queue(self, symbol: str) -> SymbolQueue:
        """The queue of `symbol`, made at its first use."""
        queue = self.queues.get(symbol)
        if queue is None:
            queue = self.queues[symbol] = SymbolQueue(symbol, self._levels_shown)
        return queue

    def due(self, now: float) -> dict[str, SymbolQueue]:
        """The queues with something to do at loop time `now`."""
        return {symbol: queue for symbol, queue in self.queues.items() if queue.commands_due(now)}

    def unfinished(self) -> Iterable[SymbolQueue]:
        """Every queue with something to do, now or later."""
        return self.due(float("inf")).values()

    def append(self, snapshot: BookSnapshot) -> None:
        """Take one snapshot; past the bound the oldest of any symbol go."""
        queue = self.queue(snapshot.symbol)
        entry = queue.encoder.encode(snapshot)
        queue.waiting.append(entry)
        self._figures.buffered_entries += 1
        self._figures.buffered_bytes += entry.cost
        while self._figures.buffered_bytes > self._bound and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        waiting = {symbol: queue.waiting for symbol, queue in self.queues.items() if queue.waiting}
        if not waiting:
            return False  # everything is on its way
        symbol = min(waiting, key=lambda name: waiting[name][0].ts)
        self.forget(waiting[symbol].popleft())
        dropped = self._figures.dropped[symbol] = self._figures.dropped.get(symbol, 0) + 1
        if dropped & (dropped - 1) == 0:  # at 1, 2, 4, 8, ...: often enough to see, seldom enough to bear
            self._log.error("buffer_full", symbol=symbol, dropped=dropped, buffer_bytes=self._bound)
        return True

    def forget(self, entry: Entry) -> None:
        """`entry` waits no more."""
        self._figures.buffered_entries -= 1
        self._figures.buffered_bytes -= entry.cost
