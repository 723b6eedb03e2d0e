"""What a gateway's journal says of each depth request, and the intervals that were stored compared with it.

Only what follows from causes is compared: a request is sent before it is received, a row before it is stored, and a
request that was cancelled is known to be over before the gateway hears of it. So no slow machine fails it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import redis.asyncio as redis

from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, decode_interval, interval_of_entry
from ibkr_depth_pipeline.schema.keys import open_turn_hash, stream_key, turns_stream
from ibkr_depth_pipeline.simulation.journal import Entry

REFUSALS = (EndReason.SLOT_REFUSED, EndReason.REFUSED, EndReason.ID_REJECTED)


@dataclass
class SentLine:
    """A depth request as the gateway saw it; times are unix seconds. over_at: cancelled or cut, None if neither."""

    request: int
    connection: int
    symbol: str
    asked_at: float
    sent: list[float] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    over_at: float | None = None


def lines_of(entries: Iterable[Entry]) -> list[SentLine]:
    """Every depth request in the order in which they came."""
    lines: dict[tuple[int, int], SentLine] = {}
    for entry in entries:
        if entry.kind == "request" and entry.name == "reqMktDepth":
            request = int(entry.detail["reqId"])
            lines[entry.connection, request] = SentLine(
                request, entry.connection, str(entry.detail["symbol"]), entry.at
            )
        elif entry.kind == "request" and entry.name == "cancelMktDepth":
            _over(lines.get((entry.connection, int(entry.detail["reqId"]))), entry.at)
        elif entry.kind == "rows":
            line = lines[entry.connection, int(entry.detail["request_id"])]
            line.sent += [entry.at] * int(entry.detail["count"])
        elif entry.kind == "error" and (entry.connection, entry.detail["request_id"]) in lines:
            lines[entry.connection, entry.detail["request_id"]].errors.append(int(entry.detail["code"]))
        elif entry.kind in ("closed", "closing"):
            for line in lines.values():
                if line.connection == entry.connection:
                    _over(line, entry.at)
    return list(lines.values())


def _over(line: SentLine | None, at: float) -> None:
    if line is not None and line.over_at is None:
        line.over_at = at


async def intervals_of(client: redis.Redis, symbol: str) -> list[SubscriptionInterval]:
    """The ended intervals of `symbol`, oldest first."""
    entries = await client.xrange(turns_stream(symbol))
    assert [int(stream_id.partition(b"-")[2]) for stream_id, _ in entries] == list(range(1, len(entries) + 1))
    return [interval_of_entry(symbol, entry) for entry in entries]


async def open_interval_of(client: redis.Redis, symbol: str) -> SubscriptionInterval | None:
    """The open one; None if there is none."""
    fields = await client.hgetall(open_turn_hash(symbol))
    return decode_interval(symbol, fields) if fields else None


async def stored_ids(client: redis.Redis, symbol: str) -> list[tuple[int, int]]:
    """ts and seq of each stored snapshot."""
    ids = [stream_id.decode().split("-") for stream_id, _ in await client.xrange(stream_key(symbol))]
    return [(int(ts), int(seq)) for ts, seq in ids]


def assert_numbered(intervals: Sequence[SubscriptionInterval]) -> None:
    """Numbers grow by one from 1, and no interval begins before the one before it is over."""
    assert [each.subscription for each in intervals] == list(range(1, len(intervals) + 1))
    for earlier, later in itertools.pairwise(intervals):
        assert max(earlier.requested, earlier.until or 0) <= max(later.requested, later.first_row or 0), (
            earlier,
            later,
        )


async def assert_observed(client: redis.Redis, symbol: str) -> None:
    """After a run: its intervals are numbered and in order, and each snapshot is in one, or of a book out of step."""
    intervals, ids = await intervals_of(client, symbol), await stored_ids(client, symbol)
    assert await open_interval_of(client, symbol) is None
    assert_numbered(intervals)
    wrong = _of_books_out_of_step(intervals, [seq for _, seq in ids])
    assert_holds(intervals, [(ts, seq) for ts, seq in ids if seq not in wrong])


def _of_books_out_of_step(intervals: Sequence[SubscriptionInterval], seqs: Sequence[int]) -> set[int]:
    """The snapshots between the end of an interval whose book was out of step and the next one."""
    with_rows = [each for each in intervals if each.first_seq is not None]
    found: set[int] = set()
    for each, later in itertools.zip_longest(with_rows, with_rows[1:]):
        if each.end is EndReason.OUT_OF_STEP:
            end = later.first_seq if later is not None else max(seqs) + 1
            found |= set(range((each.last_seq or 0) + 1, end))
    return found


def assert_holds(intervals: Sequence[SubscriptionInterval], ids: Sequence[tuple[int, int]]) -> None:
    """Each stored snapshot belongs to exactly one interval, by its number, and its time lies in it."""
    by_seq = {seq: ts for ts, seq in ids}
    held = [seq for each in intervals if each.first_seq for seq in range(each.first_seq, (each.last_seq or 0) + 1)]
    assert held == sorted(by_seq)
    for each in intervals:
        if each.first_seq is None or each.last_seq is None:
            assert each.first_row is each.complete is each.until is None
            assert each.rows == 0
            continue
        assert each.first_row == by_seq[each.first_seq]
        assert each.until is not None
        if each.end is not EndReason.OUT_OF_STEP:
            assert each.until >= by_seq[each.last_seq]
        assert each.complete is None or each.first_row <= each.complete <= each.until


def assert_sent(interval: SubscriptionInterval, line: SentLine) -> None:
    """The interval is what the gateway's journal says of its request, as far as one interval holds all of it."""
    assert interval.symbol == line.symbol
    assert interval.requested <= line.asked_at * 1000 + 1
    assert interval.rows <= len(line.sent)
    if interval.end in REFUSALS:
        assert not line.sent
        assert line.errors
        return
    if not interval.rows:
        return
    assert interval.first_row is not None
    assert interval.until is not None
    assert interval.first_row >= int(line.sent[0] * 1000)
    assert interval.until >= int(line.sent[interval.rows - 1] * 1000)
    if line.over_at is not None:
        assert interval.until <= line.over_at * 1000 + 1
