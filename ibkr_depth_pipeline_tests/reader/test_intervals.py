"""What the reader makes of the record of subscriptions: intervals, marks of snapshots, items of a following."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.reader import (
    AsyncDepthReader,
    At,
    DepthReader,
    DepthSnapshot,
    EndReason,
    Gap,
    IntervalEnded,
    IntervalStarted,
    SubscriptionInterval,
    frames,
)
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler
from ibkr_depth_pipeline_tests.reader.test_frames import book_of


def two_turns(filler: Filler) -> tuple[SubscriptionInterval, SubscriptionInterval]:
    """Of six and four snapshots 45 s apart, of which two and one are partial; both over."""
    turns = []
    for number, count, partial in ((1, 6, 2), (2, 4, 1)):
        filler.begin(number, complete=partial)
        filler.add(count)
        turns.append(filler.end())
        filler.pause(45_000)
    return turns[0], turns[1]


def marks(books: list[DepthSnapshot]) -> list[tuple[int, int | None, bool | None, bool | None]]:
    return [(book.seq, book.subscription, book.observed, book.settled) for book in books]


# ---- intervals


def test_intervals_are_those_on_record_and_the_open_one_last(filler: Filler, reader: DepthReader) -> None:
    first, second = two_turns(filler)
    filler.begin(3)
    filler.add(2)
    filler.refresh()
    *ended, goes_on = reader.intervals("SPY")
    assert ended == [first, second]
    assert goes_on.open
    assert (goes_on.subscription, goes_on.first_seq, goes_on.last_seq) == (3, 11, 12)
    assert reader.intervals() == reader.intervals(["SPY"]) == [first, second, goes_on]


def test_intervals_of_a_time_are_those_that_touch_it(filler: Filler, reader: DepthReader) -> None:
    first, second = two_turns(filler)
    assert reader.intervals("SPY", T0 + 20, T0 + 30) == [first]
    assert reader.intervals("SPY", T0 + 60, T0 + 40_000) == []
    assert reader.intervals("SPY", start=T0 + 60) == [second]
    assert reader.intervals("SPY", start=8) == [second]
    assert reader.intervals("SPY", end=5) == [first]


def test_refused_subscription_is_on_record_without_a_row(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    refused = SubscriptionInterval("SPY", 3, "ARCA", requested=filler.ts, end=EndReason.SLOT_REFUSED)
    filler.store_ended(refused, filler.ts)
    assert reader.intervals("SPY")[-1] == refused
    assert [each.subscription for each in reader.range("SPY")] == [1] * 6 + [2] * 4


def test_more_intervals_than_a_page_are_read(
    filler: Filler, reader: DepthReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibkr_depth_pipeline.reader.turns.PAGE_TURNS", 2)
    for number in range(1, 6):
        filler.begin(number)
        filler.add(1)
        filler.end()
    assert [each.subscription for each in reader.intervals("SPY")] == [1, 2, 3, 4, 5]
    assert [book.subscription for book in reader.range("SPY")] == [1, 2, 3, 4, 5]


def test_turns_since_a_cursor_are_those_that_ended_since_and_what_is_open(filler: Filler, reader: DepthReader) -> None:
    first, second = two_turns(filler)
    began = reader.turns_since({"SPY": str(T0), "NONE": "0"})
    assert (began["SPY"].ended, began["SPY"].open) == ([first, second], None)
    assert began["NONE"] == ([], None, "0")
    filler.begin(3)
    filler.add(2)
    filler.refresh()
    again = reader.turns_since({"SPY": began["SPY"].cursor})["SPY"]
    assert again.ended == []
    assert again.open is not None
    assert again.open.subscription == 3
    third = filler.end()
    assert reader.turns_since({"SPY": again.cursor})["SPY"][:2] == ([third], None)


# ---- marks


def test_partial_books_are_not_settled(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    assert marks(reader.range("SPY")) == [
        *[(seq, 1, True, seq > 2) for seq in range(1, 7)],
        *[(seq, 2, True, seq > 7) for seq in range(7, 11)],
    ]


def test_only_the_last_snapshot_of_a_read_of_the_socket_is_settled(shared_redis_url: str, reader: DepthReader) -> None:
    with Filler(shared_redis_url, step_ms=0) as filler:
        filler.begin(1, complete=0)
        for count in (3, 1, 2):
            filler.add(count)
            filler.pause(1)
        filler.end()
        assert [book.seq for book in reader.range("SPY") if book.settled] == [3, 4, 6]
        assert [book.seq for book in reader.range("SPY", settled=True, limit=2)] == [3, 4]
        assert [book.seq for book in reader.range("SPY", end=2)] == [1]
        assert reader.range("SPY", end=2)[0].settled is False, "what follows the range counts, too"
        assert [book.seq for book in reader.newest("SPY", 2, settled=True)] == [6]


def test_receive_times_tell_reads_of_one_millisecond_apart(filler: Filler, reader: DepthReader) -> None:
    filler.add()
    [(_, fields)] = filler.client.xrange("raw:ibkr:depth:stream:SPY")
    for seq, recv_ns in enumerate((10, 10, 20), 2):
        filler.client.xadd(
            "raw:ibkr:depth:stream:SPY",
            {**fields, b"ts": T0 + 10, b"seq": seq, b"recv_ns": T0 * 1_000_000 + recv_ns},
            id=f"{T0 + 10}-{seq}",
        )
    books = reader.range("SPY")
    assert [book.recv_ns and book.recv_ns % 1_000 for book in books] == [None, 10, 10, 20]
    assert [book.settled for book in books] == [True, False, True, True]
    assert reader.to_arrow("SPY")["recv_ns"].to_pylist()[1:] == [book.recv_ns for book in books[1:]]


def test_newest_snapshot_is_settled_once_its_read_is_over(shared_redis_url: str, reader: DepthReader) -> None:
    with Filler(shared_redis_url) as filler:
        filler.ts = unix_ms() + 60_000
        filler.begin(1, complete=0)
        filler.add(2)
        assert [book.settled for book in reader.range("SPY")] == [True, None]
        newest = reader.latest("SPY")
        assert newest is not None
        assert (newest.subscription, newest.settled) == (1, None)


def test_snapshots_outside_of_what_is_on_record_are_not_observed(filler: Filler, reader: DepthReader) -> None:
    filler.begin(1, complete=0)
    filler.add(2)
    filler.end()
    filler.add(2)
    filler.pause(1_000)
    filler.begin(2, complete=0)
    filler.add(2)
    filler.end()
    filler.add(1)
    assert [(book.subscription, book.observed) for book in reader.range("SPY")] == [
        *[(1, True)] * 2,
        *[(None, False)] * 2,
        *[(2, True)] * 2,
        (None, None),
    ]


def test_marks_are_the_same_from_wherever_a_range_begins(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    every = marks(reader.range("SPY"))
    for first in range(1, 11):
        assert marks(reader.range("SPY", first)) == every[first - 1 :]
        assert marks(reader.range("SPY", first, limit=2)) == every[first - 1 : first + 1]
        assert marks(reader.range("SPY", end=first)) == every[: first - 1]
    assert marks(reader.newest("SPY", 10)) == every


def test_frames_have_the_marks_and_can_be_had_of_settled_snapshots_only(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    rows = reader.to_arrow("SPY").to_pylist()
    assert [tuple(row[name] for name in ("seq", "subscription", "observed", "settled")) for row in rows] == marks(
        reader.range("SPY")
    )
    settled = reader.to_polars("SPY", settled=True, columns="levels")
    assert settled["seq"].to_list() == [3, 4, 5, 6, 8, 9, 10]
    assert settled["subscription"].to_list() == [1] * 4 + [2] * 3


# ---- without a record


def store_books(filler: Filler, *books: DepthSnapshot) -> None:
    for book in books:
        fields = {"ts": book.ts, "bids": book.bids_json, "asks": book.asks_json, "seq": book.seq, "venue": book.venue}
        filler.client.xadd(f"raw:ibkr:depth:stream:{book.symbol}", fields, id=book.stream_id)


def growing(first_seq: int, ts: int, rows: int, then: int) -> list[DepthSnapshot]:
    """A book that grows row by row to `rows` on the bid, and then changes `then` times."""
    found = []
    for at in range(rows + then):
        side = [(100.0 - row, 1.0 + at, "A") for row in range(min(at + 1, rows))]
        book = book_of(side, [], first_seq + at)
        found.append(DepthSnapshot("SPY", ts + at, book.seq, "ARCA", book.bids_json, book.asks_json))
    return found


def test_recording_without_a_record_is_read_with_inferred_intervals(filler: Filler, reader: DepthReader) -> None:
    books = [*growing(1, T0, 3, 2), *growing(6, T0 + 15_000, 2, 2)]
    store_books(filler, *books)
    first, second = reader.intervals("SPY")
    assert [(each.subscription, each.first_seq, each.last_seq, each.end) for each in (first, second)] == [
        (0, 1, 5, EndReason.UNKNOWN),
        (0, 6, 9, EndReason.UNKNOWN),
    ]
    assert (first.first_row, first.complete, first.until) == (T0, T0 + 3, T0 + 4)
    assert marks(reader.range("SPY")) == [
        (seq, None, True, settled)
        for seq, settled in enumerate([False, False, False, True, True, False, False, True, True], 1)
    ]
    assert frames.to_arrow(reader.range("SPY"))["subscription"].null_count == 9


def test_record_that_begins_within_the_recording_leaves_what_is_older_inferred(
    filler: Filler, reader: DepthReader
) -> None:
    filler.add(3)
    filler.pause(1_000)
    filler.begin(1, complete=1)
    filler.add(3)
    filler.end()
    assert marks(reader.range("SPY")) == [
        *[(seq, None, True, True) for seq in (1, 2, 3)],
        *[(seq, 1, True, seq > 4) for seq in (4, 5, 6)],
    ]


# ---- following


def shown(items: list[Any]) -> list[str]:
    """Each item in a word."""
    words = []
    for item in items:
        match item:
            case IntervalStarted(interval):
                words.append(f"start {interval.subscription}")
            case IntervalEnded(interval):
                words.append(f"end {interval.subscription}")
            case Gap():
                words.append(item.cause.value)
            case _:
                words.append(f"{item.seq} of {item.subscription}")
    return words


def test_following_has_beginnings_and_ends_in_their_places(filler: Filler, reader: DepthReader) -> None:
    first, second = two_turns(filler)
    items = reader.follow("SPY", start=1, intervals=True).read()
    assert shown(items) == [
        "start 1",
        *[f"{seq} of 1" for seq in range(1, 7)],
        "end 1",
        "start 2",
        *[f"{seq} of 2" for seq in range(7, 11)],
        "end 2",
    ]
    assert [item.interval for item in items if isinstance(item, IntervalEnded)] == [first, second]
    assert [item.symbol for item in items] == ["SPY"] * 14


def test_following_hands_on_an_end_when_no_snapshot_follows(filler: Filler, reader: DepthReader) -> None:
    following = reader.follow("SPY", start=1, intervals=True)
    filler.begin(1, complete=0)
    filler.add(2)
    assert shown(following.read()) == ["start 1", "1 of 1", "2 of 1"]
    filler.end(EndReason.CONNECTION_LOST)
    [ended] = following.read()
    assert isinstance(ended, IntervalEnded)
    assert ended.interval.end is EndReason.CONNECTION_LOST
    assert following.read(0.01) == []


def test_following_from_now_on_begins_with_the_open_interval(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    filler.begin(3)
    filler.add(1)
    following = reader.follow("SPY", intervals=True)
    assert shown(following.read(0.01)) == ["start 3"]
    filler.add(1)
    filler.end()
    assert shown(following.read()) == ["12 of 3", "end 3"]


def test_subscription_without_a_row_has_no_beginning_until_its_first_snapshot(
    filler: Filler, reader: DepthReader
) -> None:
    two_turns(filler)
    filler.begin(3)
    filler.refresh(first_row=None, first_seq=None, last_seq=None)
    following = reader.follow("SPY", start=At(filler.ts + 5), intervals=True)
    assert following.read(0.01) == []
    filler.pause(10)
    filler.add(1)
    [started, book] = following.read()
    assert isinstance(started, IntervalStarted)
    assert (started.interval.subscription, started.interval.first_row, started.interval.first_seq) == (3, book.ts, 11)
    assert book.subscription == 3


def test_following_from_the_end_of_an_interval_leaves_it_out(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    for start in (7, T0 + 51, T0 + 10_000):
        assert shown(reader.follow("SPY", start=start, intervals=True).read())[:2] == ["start 2", "7 of 2"]


def test_interval_of_which_everything_was_trimmed_is_handed_on_beside_the_gap(
    filler: Filler, reader: DepthReader
) -> None:
    two_turns(filler)
    filler.trim(2)
    items = reader.follow("SPY", start=1, intervals=True).read()
    assert shown(items) == ["trimmed", "start 1", "end 1", "start 2", "9 of 2", "10 of 2", "end 2"]


def test_following_without_intervals_has_neither_borders_nor_marks(filler: Filler, reader: DepthReader) -> None:
    two_turns(filler)
    assert {type(item) for item in reader.follow("SPY", start=1).read()} == {DepthSnapshot}


@pytest.mark.parametrize("seed", range(4))
async def test_each_snapshot_comes_between_the_beginning_and_the_end_of_its_interval(
    shared_redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    with Filler(shared_redis_url) as filler:
        async with AsyncDepthReader(shared_redis_url) as reader:
            following = reader.follow("SPY", start=1, intervals=True, missing_ok=True, most=chance.choice((3, 1_000)))
            found: list[Any] = []
            for number in range(1, 30):
                filler.begin(number, complete=chance.randrange(3))
                for _ in range(chance.randrange(4)):
                    filler.add(chance.randrange(1, 5))
                    if chance.random() < 0.4:
                        found += await following.read(0.001)
                filler.end()
                filler.pause(chance.randrange(1, 3_000))
                if chance.random() < 0.4:
                    found += await following.read(0.001)
            filler.begin(30)
            filler.add()
            while not (isinstance(found[-1], DepthSnapshot) and found[-1].seq == filler.seq):
                found += await following.read()
    open_one: int | None = None
    seqs = []
    for item in found:
        match item:
            case IntervalStarted(interval):
                assert open_one is None
                open_one = interval.subscription
            case IntervalEnded(interval):
                assert open_one == interval.subscription
                open_one = None
            case _:
                assert item.subscription == open_one
                seqs.append(item.seq)
    assert open_one == 30
    assert seqs == list(range(1, filler.seq + 1))
