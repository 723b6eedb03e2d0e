"""What waits, where the bound has taken snapshots out of the middle: numbers are read from the entries."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from redis.exceptions import ResponseError

from ibkr_depth_pipeline.schema.encoding import EMPTY_SIDE, venue_field
from ibkr_depth_pipeline.sink.backlog import Backlog, SymbolQueue, WriterFigures
from ibkr_depth_pipeline.sink.writes import VENUE_PAUSE_SECS, StreamWrite, Write, writes_of

HELD = ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
T0 = 1_700_000_000_000


def made(bound: int) -> tuple[SymbolQueue, WriterFigures]:
    figures = WriterFigures()
    backlog = Backlog(maxlen=100, bound=bound, figures=figures, backpressure=None, on_work=lambda: None)
    return backlog.queue("SPY"), figures


def store(queue: SymbolQueue, numbers: Iterable[int]) -> None:
    for seq in numbers:
        queue.store(T0 + seq, seq, venue_field("ARCA"), EMPTY_SIDE, EMPTY_SIDE)


def numbers(queue: SymbolQueue, entries: Iterable[bytes]) -> list[int]:
    return [queue.packer.position(entry).seq for entry in entries]


def with_a_hole() -> tuple[SymbolQueue, WriterFigures]:
    """1 to 5 were on their way while the bound took what followed them, and came back unanswered."""
    queue, figures = made(bound=10_000)
    store(queue, range(1, 6))
    on_their_way = queue.take(100)
    store(queue, range(6, 40))
    queue.put_back(on_their_way.entries)
    found = numbers(queue, queue.waiting)
    assert found[:5] == [1, 2, 3, 4, 5]
    assert found[5] > 6
    assert found[-1] == 39
    return queue, figures


def test_newest_stored_number_is_that_of_the_entry() -> None:
    queue, figures = with_a_hole()
    write = StreamWrite(queue, queue.take(100))
    answer = ["OK", *["QUEUED"] * len(write.block.entries), [b"id"] * len(write.block.entries)]
    assert write.settle(answer) is None
    assert figures.newest_seq["SPY"] == 39
    assert figures.buffered_entries == figures.buffered_bytes == 0


def test_entries_of_an_unanswered_block_behind_a_gap_are_recognized_when_it_is_repeated() -> None:
    queue, figures = with_a_hole()
    lost = StreamWrite(queue, queue.take(100))
    lost.unknown()
    for _ in range(5):
        queue.waiting.popleft()  # the bound goes on taking the oldest
    again = StreamWrite(queue, queue.take(100))
    entries = again.block.entries
    assert again.settle(["OK", *["QUEUED"] * len(entries), [HELD] * len(entries)]) is None
    assert figures.newest_seq["SPY"] == 39


def test_venue_of_unknown_fate_is_sent_again_after_a_pause() -> None:
    queue, _ = made(bound=10_000)
    queue.note_venue({"exchange": "ARCA"})
    assert queue.due_at() == 0.0
    [write] = writes_of(queue, most=1, now=100.0, heartbeat_ttl=30)
    write.unknown()
    assert queue.due_at() == 100.0 + VENUE_PAUSE_SECS
    assert writes_of(queue, most=1, now=100.0, heartbeat_ttl=30) == []
    queue.note_venue({"exchange": "ARCA", "reason": "354"})
    assert len(writes_of(queue, most=1, now=100.0, heartbeat_ttl=30)) == 1


def test_block_is_at_most_a_quarter_of_the_bound() -> None:
    figures = WriterFigures()
    backlog = Backlog(maxlen=100, bound=100_000, figures=figures, backpressure=None, on_work=lambda: None)
    assert backlog.share(2) == 1
    queues = [backlog.queue("SPY"), backlog.queue("QQQ")]
    for queue in queues:
        store(queue, range(1, 101))
    most = backlog.share(len(queues))
    assert sum(map(len, [entry for queue in queues for entry in queue.take(most).entries])) <= 25_000
    assert backlog.share(1_000_000) == 1


@pytest.mark.parametrize("seed", range(20))
def test_next_flush_is_due_later_after_flushes_of_everything_whatever_redis_answered(seed: int) -> None:
    chance = random.Random(seed)
    figures = WriterFigures()
    backlog = Backlog(maxlen=100, bound=10_000_000, figures=figures, backpressure=None, on_work=lambda: None)
    queues = [backlog.queue(f"S{number}") for number in range(3)]
    now, seqs = 100.0, [0, 0, 0]
    for _ in range(300):
        at = chance.randrange(3)
        if chance.random() < 0.6:
            seqs[at] += 1
            store(queues[at], [seqs[at]])
        else:
            queues[at].note_beat(T0, time.time_ns() // 1_000_000)
            queues[at].note_venue({b"venue": b"ARCA"})
        due = backlog.next_due()
        assert due is not None
        now = max(now, due)
        flushes = 0
        while due is not None and due <= now:
            writes: list[Write] = [each for queue in backlog.due(now) for each in writes_of(queue, 3, now, 30)]
            assert writes, "whoever is woken up has something to do"
            for write in writes:
                _settle(write, chance, now)
            flushes += 1
            assert flushes <= 3 + max(seqs) // 3, "entries, hash, heartbeat: each once, or after a pause"
            due = backlog.next_due()
        now += chance.choice([0.0, 0.0, 0.001, 0.2, 5.0])


def _settle(write: Write, chance: random.Random, now: float) -> None:
    """As the writer does; where nothing at all is answered it pauses by itself."""
    outcome = chance.choice(["stored", "refused", "unanswered"])
    if outcome == "unanswered":
        write.unknown()
        write.postpone(now)
    else:
        refusal = ResponseError("OOM command not allowed")
        if isinstance(write, StreamWrite):
            entries = len(write.block.entries)
            replies = [b"id"] if write.part.replies == 1 else ["OK", *["QUEUED"] * entries, [b"id"] * entries]
        else:
            replies = [1]
        if write.settle([refusal] * write.part.replies if outcome == "refused" else replies) is not None:
            write.postpone(now)
