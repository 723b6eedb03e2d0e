"""Stream entries -> columns, and the seqs that are missing between them. Pure, and the hot path of the archiver."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson
import pyarrow as pa

from ibkr_depth_pipeline.archive.contracts import ContractHistory
from ibkr_depth_pipeline.archive.layout import IdSpan, day_of, first_ms_of
from ibkr_depth_pipeline.archive.parquet_schema import SNAPSHOTS
from ibkr_depth_pipeline.model import EMPTY_LEVEL, SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.keys import StreamId

RawEntry = tuple[bytes, Mapping[bytes, bytes]]
"""A stream entry as the client hands it out: its id and its fields."""

_VENUE_CODE, _NAME_CODE = pa.int16(), pa.int32()
_MOST_VENUES = 2**15
_MS_PER_DAY = 86_400_000
_LAST_MS = 253_402_300_799_999  # the end of 9999, the last year that a date can have
_MOST_SEQ = 2**63
_NUMBERS = frozenset((int, float))
_MOST_RANGES = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """Snapshots of one symbol on one date, in order."""

    day: date
    span: IdSpan
    table: Any


class _Side:
    """One side of the snapshots so far, flat: ten prices, ten sizes and ten codes of names a snapshot."""

    def __init__(self) -> None:
        self.prices: list[float] = []
        self.sizes: list[float] = []
        self.names: list[int] = []
        self._text = b""
        self._decoded: tuple[Sequence[float], Sequence[float], Sequence[int]] = ((), (), ())

    def decode(self, text: bytes, codes: dict[str, int]) -> tuple[Sequence[float], Sequence[float], Sequence[int]]:
        """A side's JSON as three columns. Every other snapshot repeats a side as it is.

        Raises ValueError or TypeError if it is not a side as docs/redis-schema.md has it.
        """
        if text == self._text:
            return self._decoded
        levels = orjson.loads(text)
        if type(levels) is not list or len(levels) != SNAPSHOT_LEVELS or set(map(type, levels)) != {list}:
            raise ValueError("not ten levels")
        prices, sizes, names = zip(*levels, strict=True)
        if not _NUMBERS.issuperset(map(type, prices + sizes)) or set(map(type, names)) != {str}:
            raise ValueError("a level is not price, size and name")
        numbers = [codes.setdefault(name, len(codes)) for name in names]
        self._text, self._decoded = text, ([*map(float, prices)], [*map(float, sizes)], numbers)
        return self._decoded

    def add(self, decoded: tuple[Sequence[float], Sequence[float], Sequence[int]]) -> None:
        self.prices += decoded[0]
        self.sizes += decoded[1]
        self.names += decoded[2]


class _Ranges:
    """Numbers that mostly grow, as ranges: three million in a row take the room of one. Bounded: the oldest go."""

    def __init__(self) -> None:
        self._ranges: deque[list[int]] = deque(maxlen=_MOST_RANGES)

    def add(self, number: int) -> None:
        newest = self._ranges[-1] if self._ranges else None
        if newest is not None and newest[0] <= number <= newest[1] + 1:
            newest[1] = max(newest[1], number)
        else:
            self._ranges.append([number, number])

    def cover(self, first: int, last: int) -> bool:
        """Whether every number from `first` to `last` was added."""
        for low, high in sorted(self._ranges):
            if low > first:
                return False
            if high >= last:
                return True
            first = max(first, high + 1)
        return False

    def clear(self) -> None:
        self._ranges.clear()


class SymbolBuffer:
    """The snapshots of one symbol that are read and not yet in a file.

    An entry that is not of docs/redis-schema.md is passed over and counted in `unreadable`.

    `position` is the id of the newest snapshot taken, or passed over; `cursor` that of the newest entry seen, which may
    have been unreadable. What is added must come after it, in order.
    """

    def __init__(self, symbol: str, position: StreamId) -> None:
        self.symbol = symbol
        self.position = self.cursor = position
        self.contracts = ContractHistory()
        self.unreadable = 0
        self._unreadable = _Ranges()
        self._falls: list[tuple[StreamId, StreamId]] = []
        self._clear()

    def _clear(self) -> None:
        self._ts: list[int] = []
        self._seq: list[int] = []
        self._venues: list[int] = []
        self._recv_ns: list[int | None] = []
        self._codes: dict[str, int] = {EMPTY_LEVEL[2]: 0}
        self._venue_codes: dict[str, int] = {}
        self._bids, self._asks = _Side(), _Side()

    def __len__(self) -> int:
        return len(self._ts)

    def follows(self, entry: StreamId) -> bool:
        """Whether nothing is missing before `entry`, and so nothing need be known of what stands before it."""
        return entry.seq == self.position.seq + 1

    def add(self, entries: Sequence[RawEntry], before: StreamId | None = None) -> list[Gap]:
        """Take entries as one reading of the stream returned them. Returns the gaps before and between them.

        `before` is the id of what still stands before the first of them, None if nothing does: then what is missing
        was cut.
        """
        gaps: list[Gap] = []
        for index, (stream_id, fields) in enumerate(entries):
            self.cursor = entry = StreamId.of(stream_id)
            if not self._take(entry, fields):
                continue
            if entry.seq != self.position.seq + 1 and (gap := self._gap_before(entry, before, at_front=index == 0)):
                gaps.append(gap)
            if entry.seq <= self.position.seq:
                self._falls.append((self.position, entry))
            self.position = before = entry
        return gaps

    def take_falls(self) -> list[tuple[StreamId, StreamId]]:
        """The snapshots before and after which the numbers fell, since this was last asked."""
        falls, self._falls = self._falls, []
        return falls

    def _take(self, entry: StreamId, fields: Mapping[bytes, bytes]) -> bool:
        try:
            check_id(entry)
            bids = self._bids.decode(fields[b"bids"], self._codes)
            asks = self._asks.decode(fields[b"asks"], self._codes)
            venue = self._venue_code(fields[b"venue"].decode())
            recv_ns = int(text) if (text := fields.get(b"recv_ns")) else None
        except (KeyError, ValueError, TypeError, OverflowError):
            self.unreadable += 1
            self._unreadable.add(entry.seq)
            return False
        self._bids.add(bids)
        self._asks.add(asks)
        self._ts.append(entry.ts)
        self._seq.append(entry.seq)
        self._venues.append(venue)
        self._recv_ns.append(recv_ns)
        return True

    def _venue_code(self, venue: str) -> int:
        code = self._venue_codes.setdefault(venue, len(self._venue_codes))
        if code >= _MOST_VENUES:
            del self._venue_codes[venue]
            raise ValueError("too many venues")
        return code

    def _gap_before(self, entry: StreamId, before: StreamId | None, *, at_front: bool) -> Gap | None:
        after = self.position.seq if entry.seq > self.position.seq else _goes_on_from(entry.seq, before)
        if after + 1 == entry.seq:
            return None
        # Streams are cut at their beginning only: behind an entry that still stands nothing was cut.
        stands = before is not None and before <= self.position
        cause = GapCause.TRIMMED if at_front and not stands else GapCause.NEVER_STORED
        if self.position.seq == 0:
            cause = GapCause.BEFORE_ARCHIVE
        elif self._unreadable.cover(after + 1, entry.seq - 1):
            cause = GapCause.UNREADABLE
        self._unreadable.clear()
        return Gap(self.symbol, after, entry.seq, entry.ts, cause, self.position)

    def take_all(self) -> list[Batch]:
        """What has been added, by date, in order; afterwards it is empty."""
        batches = list(self._batches())
        self._clear()
        return batches

    def _batches(self) -> Iterator[Batch]:
        if not self._ts:
            return
        table = self._table()
        start = 0
        while start < len(self._ts):
            day = day_of(self._ts[start])
            end_of_day = first_ms_of(day) + _MS_PER_DAY
            end = next((at for at in range(start, len(self._ts)) if self._ts[at] >= end_of_day), len(self._ts))
            span = IdSpan(self._id(start), self._id(end - 1))
            yield Batch(day, span, table.slice(start, end - start))
            start = end

    def _id(self, index: int) -> StreamId:
        return StreamId(self._ts[index], self._seq[index])

    def _table(self) -> Any:
        names = pa.array(list(self._codes), pa.string())
        columns = [
            pa.array(self._ts, pa.int64()).cast(SNAPSHOTS.field("ts").type),
            pa.array(self._seq, pa.int64()),
            pa.DictionaryArray.from_arrays(
                pa.array(self._venues, _VENUE_CODE), pa.array(list(self._venue_codes), pa.string())
            ),
        ]
        for side in (self._bids, self._asks):
            values = (
                pa.array(side.prices, pa.float64()),
                pa.array(side.sizes, pa.float64()),
                names.take(pa.array(side.names, _NAME_CODE)),
            )
            for value in values:
                columns.append(pa.FixedSizeListArray.from_arrays(value, type=SNAPSHOTS.field(len(columns)).type))
        columns += self.contracts.columns([self._id(index) for index in range(len(self))])
        columns.append(pa.array(self._recv_ns, pa.int64()))
        return pa.Table.from_arrays(columns, schema=SNAPSHOTS)


def check_id(entry: StreamId) -> None:
    """Raises ValueError for an id that no recorder gives, such as one in microseconds."""
    if not (0 <= entry.ts <= _LAST_MS and entry.seq < _MOST_SEQ):
        raise ValueError(f"{entry} is no time in unix ms and number")


def _goes_on_from(seq: int, before: StreamId | None) -> int:
    """The seq behind which the numbers that fell to `seq` go on.

    Where a lower one stands before it, Redis has lost its newest entries, and the numbering went on from what was left:
    the lost ones are kept, or known to be missing. Otherwise it started over.
    """
    return before.seq if before is not None and before.seq < seq else 0
