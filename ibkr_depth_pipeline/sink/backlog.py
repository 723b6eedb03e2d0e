"""What waits to be written, bounded in bytes: the oldest snapshots go first, counted and logged."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import monotonic, unix_ms
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.encoding import EntryPacker, ReceiveStamp, StampedPacker
from ibkr_depth_pipeline.schema.keys import StreamId, stream_key
from ibkr_depth_pipeline.schema.status import LATENCY_BOUNDS_SECS, LatencyFigures
from ibkr_depth_pipeline.sink.arrivals import Arrivals
from ibkr_depth_pipeline.sink.backpressure import Backpressure
from ibkr_depth_pipeline.sink.turns import SymbolTurns

RETRIES = Backoff(0.05, 1.0)
"""Seconds between two attempts to write."""

_OVERHEAD = 45  # bytes beside the packed entry: its header by sys.getsizeof, and its place in a queue
_ON_ITS_WAY = 4  # the share of the bound that may be, as 1 by this
_UNMARKED = 15  # of those with one `ts` that wait, only each sixteenth is marked: a clock set back may stand for hours
_SHED_SHARE = 256  # of the bound: a little more goes than must, so that not every row has to search for the oldest


@dataclass
class WriterFigures:
    """What the writer has done, since it was made. Sizes are bytes.

    `dropped` counts the snapshots that the bound cost, rows_dropped the rows that are kept beside them; one whose write
    was never answered may be stored all the same.
    """

    stored: dict[str, int] = field(default_factory=dict)
    newest_seq: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    rows_dropped: dict[str, int] = field(default_factory=dict)
    write_failures: int = 0
    buffered_entries: int = 0
    buffered_bytes: int = 0
    lags_ms: deque[int] = field(default_factory=lambda: deque(maxlen=1000))
    lag_counts: list[int] = field(default_factory=lambda: list(LatencyFigures().counts))
    lag_sum_secs: float = 0.0

    def note_lag(self, secs: float) -> None:
        """Note that a block was stored so long after its oldest row had come. Called once a block, not once a row."""
        self.lags_ms.append(int(1000 * secs))
        self.lag_counts[bisect_left(LATENCY_BOUNDS_SECS, secs)] += 1
        self.lag_sum_secs += secs

    def latency(self) -> LatencyFigures:
        """The lags of all blocks so far, by bucket."""
        return LatencyFigures(tuple(self.lag_counts), self.lag_sum_secs)

    def lag_percentiles(self) -> tuple[float | None, float | None]:
        """Half and 99 of 100 of the newest blocks were stored within so many ms of their oldest row."""
        ordered = sorted(self.lags_ms)
        if not ordered:
            return None, None
        return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


class Block:
    """Packed entries of one symbol that go out together.

    Between two of them there may be a hole: what the bound took from behind a block that was on its way. Their ids are
    read when they are asked for, which is after a lone entry has left.
    """

    __slots__ = ("_packer", "entries")

    def __init__(self, entries: list[bytes], packer: EntryPacker) -> None:
        self.entries = entries
        self._packer = packer

    @property
    def oldest(self) -> StreamId:
        """The id of the first."""
        return self._packer.position(self.entries[0])

    @property
    def newest(self) -> StreamId:
        """The id of the last."""
        return self._packer.position(self.entries[-1])


class Beat(NamedTuple):
    """A live book: the time of its last row in unix ms, and when it was known to be live (clock.monotonic)."""

    ts: int
    known: float


class ContractChange(NamedTuple):
    """The snapshots that come after the one with the id `after` are of this contract. expiry is YYYYMMDD, or empty."""

    after: StreamId
    con_id: int
    local_symbol: str
    expiry: str


class SymbolQueue:
    """What is still to be done for one symbol."""

    holds = "snapshots"

    def __init__(self, symbol: str, packer: EntryPacker, maxlen: int, backlog: Backlog) -> None:
        self.symbol = symbol
        self.packer = packer
        self.turns = SymbolTurns(symbol, maxlen, lambda: backlog.has_work(self))
        self.waiting: deque[bytes] = deque()  # for XADD, packed, in order
        self.stored: bytes | None = None  # newest in the stream, for the hash
        self.beat: Beat | None = None  # for the heartbeat
        self.venue: dict[Any, Any] | None = None  # for the venue hash
        self.changes: list[ContractChange] = []  # of the contract, to be stored before the snapshots after them
        self.on_its_way = False  # whether a block is
        self._newest_sent = StreamId()
        self._taken: bytes | None = None  # newest that was, if its id is not in `_newest_sent` yet
        self.uncertain_seq = 0  # snapshots up to this one may be stored already
        self.pause = 0.0  # seconds until its next try, after its key failed
        self.not_before = 0.0  # loop time of that try
        self.next_hash = self.next_beat = self.next_venue = 0.0  # loop times before which no other one is sent
        self.arrivals = Arrivals()
        self._marked_ts = 0
        self._contract: tuple[object, ...] = ()
        self._backlog = backlog

    def store(self, ts: int, seq: int, venue: bytes, bids: bytes, asks: bytes) -> None:
        """Take one snapshot: its time in unix ms, its number, and texts as EntryPacker.pack has them. Never waits.

        The hot path: called for every row.
        """
        entry = self.packer.pack(ts, seq, venue, bids, asks)
        if not self.waiting:  # else the first one has reported the work
            self._mark(ts, seq)
            self._backlog.has_work(self)
        elif ts != self._marked_ts or not seq & _UNMARKED:
            self._mark(ts, seq)
        self.waiting.append(entry)
        self._backlog.grown(len(entry))

    def _mark(self, ts: int, seq: int) -> None:
        """Note when a snapshot arrived. If none waits and it was handed over late, it is as old as that."""
        self._marked_ts = ts
        alone = not (self.waiting or self.on_its_way or self.stored)
        late_ms = max(0, unix_ms() - ts) if alone else 0
        self.arrivals.note(seq, monotonic() - late_ms / 1000, alone=alone)

    def note_beat(self, ts: int, now: float) -> None:
        """The book is live, at `now` (clock.monotonic); ts is the unix ms of its last row.

        Ignored while rows are still to be written: a heartbeat stands for what a reader can see.
        """
        if self.is_held or self.waiting or self.on_its_way or self.stored is not None:
            return
        self.beat = Beat(ts, now)
        self._backlog.has_work(self)

    @property
    def is_held(self) -> bool:
        """Whether no heartbeat is to be written, even if rows are stored: the book is known to be wrong."""
        return self._backlog.held(self.symbol)

    def note_venue(self, fields: dict[Any, Any]) -> None:
        """What the venue hash is to hold besides what was noted. It goes out at once; the pause is for repetitions."""
        self.venue, self.next_venue = {**(self.venue or {}), **fields}, 0.0
        self._backlog.has_work(self)

    def note_contract(self, con_id: int, local_symbol: str, expiry: str) -> None:
        """The snapshots that come from now on are of this contract. Nothing happens if those before are, too."""
        if self._contract == (con_id, local_symbol, expiry):
            return
        self._contract = con_id, local_symbol, expiry
        newest = self.packer.position(self.waiting[-1]) if self.waiting else self.newest_sent
        self.changes = [change for change in self.changes if change.after != newest]
        self.changes.append(ContractChange(newest, con_id, local_symbol, expiry))
        self._backlog.has_work(self)

    def due_at(self) -> float | None:
        """The loop time from which on there is something to do; None if there is nothing at all."""
        if self.changes:
            return self.not_before
        turn = self.turns.due_at(self.oldest_waiting()) if self.turns.has_work else None
        if self.waiting and self.may_send():
            return self.not_before if turn is None else min(turn, self.not_before)
        own = math.inf  # compared one by one: this is asked of each queue for each flush
        if self.stored is not None:
            own = self.next_hash
        if self.beat is not None and self.next_beat < own:
            own = self.next_beat
        if self.venue is not None and self.next_venue < own:
            own = self.next_venue
        if own == math.inf:
            return turn
        own = max(own, self.not_before)
        return own if turn is None else min(own, turn)

    def oldest_waiting(self) -> int | None:
        """The number of the oldest snapshot that waits; None: none does."""
        return self.packer.position(self.waiting[0]).seq if self.waiting else None

    def may_send(self) -> bool:
        """Whether the oldest snapshot that waits belongs to an interval whose hash is stored. See turns.py."""
        limit = self.turns.limit
        return limit is None or self.packer.position(self.waiting[0]).seq <= limit

    def take(self, most: int) -> Block:
        """The next entries to send, at least one. Each is to be handed to `put_back` or `is_stored` afterwards."""
        if self.turns.limit is not None:
            most = self._within(self.turns.limit, most)
        if len(self.waiting) <= most:
            entries = list(self.waiting)
            self.waiting.clear()
        else:
            entries = [self.waiting.popleft() for _ in range(most)]
        self._taken = entries[-1]
        self.on_its_way = True
        return Block(entries, self.packer)

    @property
    def newest_sent(self) -> StreamId:
        """Nothing later can be in the stream by our hand."""
        taken, self._taken = self._taken, None
        if taken is not None:
            self._newest_sent = max(self._newest_sent, self.packer.position(taken))
        return self._newest_sent

    def number_from(self, position: StreamId) -> None:
        """The stream stands there: the snapshots that follow are later."""
        self._newest_sent = position

    def _within(self, limit: int, most: int) -> int:
        """How many of the first `most` that wait are numbered up to `limit`."""
        most = min(most, len(self.waiting))
        while most > 1 and self.packer.position(self.waiting[most - 1]).seq > limit:
            most -= 1
        return most

    def put_back(self, entries: list[bytes]) -> None:
        """These were not stored, or that is unknown."""
        self.on_its_way = False
        self._newest_sent = self.newest_sent  # what is taken next may be older
        self.waiting.extendleft(reversed(entries))

    def doubt(self, block: Block) -> None:
        """Whether these were stored is unknown."""
        self.uncertain_seq = max(self.uncertain_seq, block.newest.seq)

    def settled(self, block: Block) -> None:
        """Redis has stored all of the block, and refuses this key no more."""
        self.pause = 0.0
        if self.uncertain_seq and block.newest.seq >= self.uncertain_seq:
            self.uncertain_seq = 0

    def is_stored(self, entries: list[bytes]) -> None:
        """These are in the stream, the newest last."""
        self.on_its_way = False
        if entries:
            self.stored = entries[-1]
            seq = self.packer.position(entries[-1]).seq
            self.arrivals.forget_before(seq)
            self._backlog.stored(self.symbol, entries, seq)

    def postpone(self, now: float) -> None:
        """Its key failed: leave it alone for a while, so that it holds up no other symbol."""
        self.pause = RETRIES.longer(self.pause)
        self.not_before = now + self.pause


class Backlog:
    """The queues of all symbols. Nothing here waits; the bound holds for what waits and what is on its way together.

    maxlen is the approximate length of a stream, bound the bytes that may wait; past half, `backpressure` is applied.
    on_work is called when there is something to do again after there was nothing. stamp: snapshots bear its recv_ns.
    """

    def __init__(
        self,
        *,
        maxlen: int,
        bound: int,
        figures: WriterFigures,
        backpressure: Backpressure | None,
        on_work: Callable[[], None],
        stamp: ReceiveStamp | None = None,
    ) -> None:
        self._stamp = stamp
        self._maxlen = maxlen
        self._bound = bound
        self._backpressure = backpressure
        self._much = backpressure.high if backpressure is not None else bound
        self._figures = figures
        self._log = get_log()
        self._on_work = on_work
        self._busy: dict[str, SymbolQueue] = {}  # those that may have something to do, now or later
        self._fresh: dict[str, SymbolQueue] = {}  # the news: those with work that came since
        self.gathers = False  # while set, on_work is not called: the caller is going to look
        self.queues: dict[str, SymbolQueue] = {}
        self.row_queues: dict[str, SymbolQueue] = {}
        self.held: Callable[[str], bool] = lambda symbol: False

    def queue(self, symbol: str) -> SymbolQueue:
        """The queue of `symbol`, made at its first use."""
        queue = self.queues.get(symbol)
        if queue is None:
            key, stamp = stream_key(symbol), self._stamp
            packer = EntryPacker(key, self._maxlen) if stamp is None else StampedPacker(key, self._maxlen, stamp)
            queue = self.queues[symbol] = SymbolQueue(symbol, packer, self._maxlen, self)
        return queue

    def forget(self, symbol: str) -> None:
        """The symbol is not written any more."""
        for queue in (self.queues.pop(symbol, None), self.row_queues.pop(symbol, None)):
            if queue is not None:
                self._busy.pop(queue.packer.key, None)
                self._fresh.pop(queue.packer.key, None)

    def has_work(self, queue: SymbolQueue) -> None:
        """There is something to do for this queue."""
        key = queue.packer.key
        self._busy[key] = self._fresh[key] = queue
        if not self.gathers:
            self._on_work()

    @property
    def has_news(self) -> bool:
        """Whether work has come since the last `due` or `note_read`."""
        return bool(self._fresh)

    def lone(self) -> SymbolQueue | None:
        """The queue of the one snapshot that is all the news, if that may be sent before all else there is to do."""
        if len(self._fresh) != 1:
            return None
        (queue,) = self._fresh.values()
        is_lone = len(queue.waiting) == 1 and not (queue.pause or queue.uncertain_seq or queue.changes)
        return queue if is_lone and not queue.turns.has_work else None

    def note_read(self) -> None:
        """The news is known."""
        self._fresh.clear()

    def due(self, now: float) -> list[SymbolQueue]:
        """The queues with something to do at loop time `now`."""
        self._fresh.clear()
        return [queue for queue in self._busy.values() if (at := queue.due_at()) is not None and at <= now]

    def next_due(self) -> float | None:
        """The loop time at which there is something to do next; None if there is nothing at all."""
        earliest, idle = math.inf, []
        for key, queue in self._busy.items():
            at = queue.due_at()
            if at is None:
                idle.append(key)
            elif at < earliest:
                earliest = at
        for key in idle:
            del self._busy[key]
        return None if earliest == math.inf else earliest

    def hurry(self) -> None:
        """Let nothing wait for its pause."""
        for queue in self._busy.values():
            queue.next_hash = queue.next_beat = queue.next_venue = 0.0
            queue.turns.hurry()

    def acceptable_bytes(self) -> int:
        """What waits, without that of symbols whose key failed at their last try."""
        figures = self._figures
        refused = sum(len(queue.waiting) for queue in self._busy.values() if queue.pause)
        if not refused:
            return figures.buffered_bytes
        return figures.buffered_bytes * (figures.buffered_entries - refused) // figures.buffered_entries

    def share(self, queues: int) -> int:
        """How many entries of each of so many queues may go out together.

        What is on its way can't make room: a quarter of the bound at most, or the bound would cost the newest.
        """
        figures = self._figures
        if not figures.buffered_entries:
            return 1
        return max(1, figures.buffered_entries * self._bound // (_ON_ITS_WAY * figures.buffered_bytes * queues))

    def grown(self, size: int) -> None:
        """An entry of so many bytes waits; past the bound the oldest of any symbol go."""
        figures = self._figures
        figures.buffered_entries += 1
        figures.buffered_bytes += size + _OVERHEAD
        if figures.buffered_bytes > self._much:
            self._press()

    def _press(self) -> None:
        if self._backpressure is not None and self.acceptable_bytes() > self._much:
            self._backpressure.pressed()
        if self._figures.buffered_bytes > self._bound:
            self._shed(self._bound - self._bound // _SHED_SHARE)

    def _shed(self, goal: int) -> None:
        while self._figures.buffered_bytes > goal:
            waiting = [queue for queue in (*self.queues.values(), *self.row_queues.values()) if queue.waiting]
            if not waiting:
                return  # everything is on its way
            oldest = min(waiting, key=lambda queue: queue.packer.position(queue.waiting[0]).ts)
            self.released([oldest.waiting.popleft()])
            counts = self._figures.rows_dropped if oldest.holds == "rows" else self._figures.dropped
            dropped = counts[oldest.symbol] = counts.get(oldest.symbol, 0) + 1
            if dropped & (dropped - 1) == 0:  # at 1, 2, 4, 8, ...: often enough to see, seldom enough to bear
                what = {"symbol": oldest.symbol, "of": oldest.holds, "dropped": dropped}
                self._log.error("buffer_full", **what, buffer_bytes=self._bound)

    def stored(self, symbol: str, entries: list[bytes], newest_seq: int) -> None:
        """These entries wait no more: they are in the stream."""
        self.released(entries)
        self._figures.stored[symbol] = self._figures.stored.get(symbol, 0) + len(entries)
        self._figures.newest_seq[symbol] = newest_seq

    def released(self, entries: list[bytes]) -> None:
        """These entries wait no more."""
        self._figures.buffered_entries -= len(entries)
        self._figures.buffered_bytes -= sum(map(len, entries)) + _OVERHEAD * len(entries)
