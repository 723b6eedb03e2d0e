"""A feed alone, without a gateway around it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ibkr_depth_pipeline.simulation.catalogue import Catalogue, depth_venue
from ibkr_depth_pipeline.simulation.feed import Feed, Follower
from ibkr_depth_pipeline.simulation.market import SyntheticFlow, SyntheticMarket
from ibkr_depth_pipeline.simulation.options import ReplayOptions, ReplayPace
from ibkr_depth_pipeline.simulation.replay import Moment, Replay, Tape
from ibkr_depth_pipeline.simulation.replies import Subscription
from ibkr_depth_pipeline.simulation.rows import Book, BookLevel, RowStyle, WireRow


class Sink:
    """An outlet that keeps what is sent."""

    congested = False

    def __init__(self) -> None:
        self.rows: list[WireRow] = []
        self.news = asyncio.Event()

    async def drained(self) -> None:
        """It never is congested."""

    def send_rows(self, subscription: Subscription, rows: list[WireRow]) -> None:
        self.rows += rows
        self.news.set()


def new_feed() -> tuple[SyntheticFlow, Feed, Follower, Sink]:
    """A feed of IBM at 1000 rows a second, and somebody who may follow it."""
    listing = Catalogue(1).named("IBM")
    assert listing is not None
    venue = depth_venue("NYSE", listing.sec_type)
    assert venue is not None
    flow, sink = SyntheticFlow(SyntheticMarket(1, listing, venue), RowStyle.SHIFT, 1000.0, seed=1), Sink()
    return flow, Feed(flow, on_end=lambda: None), Follower(Subscription(1, False, listing, venue, 10), sink), sink


async def left_alone(feed: Feed, follower: Follower) -> None:
    """The only follower leaves, and the feed's task ends."""
    feed.unfollow(follower.subscription)
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


async def test_market_that_falls_quiet_sends_nothing_more_until_it_wakes() -> None:
    flow, feed, follower, sink = new_feed()
    feed.follow(follower)
    opening = len(sink.rows)
    await asyncio.sleep(0)  # it has taken its first step, and waits
    flow.rate = 0.0
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait([task])
    assert len(sink.rows) == opening
    sink.news.clear()
    flow.rate = 1000.0
    feed.wake()
    await sink.news.wait()
    await feed.close()


async def test_feed_without_followers_runs_nothing_and_shows_the_next_one_the_book_as_of_now() -> None:
    _, feed, follower, sink = new_feed()
    feed.follow(follower)
    await left_alone(feed, follower)
    before, sent = feed.book, len(sink.rows)
    await asyncio.sleep(0.1)
    assert (feed.book, len(sink.rows)) == (before, sent)
    feed.follow(follower)
    assert feed.book != before
    assert follower.held == feed.book
    await feed.close()


async def test_market_that_was_quiet_unseen_has_not_moved_when_its_pace_rises() -> None:
    flow, feed, follower, _ = new_feed()
    feed.follow(follower)
    await left_alone(feed, follower)
    feed.catch_up()
    flow.rate = 0.0
    before = feed.book
    await asyncio.sleep(0.1)
    feed.catch_up()
    flow.rate = 1000.0
    feed.follow(follower)
    assert feed.book == before
    await feed.close()


async def test_rows_go_on_after_a_burst() -> None:
    _, feed, follower, sink = new_feed()
    feed.follow(follower)
    await feed.burst(100)
    sink.news.clear()
    await sink.news.wait()
    await feed.close()


async def test_recording_that_was_halted_before_its_last_change_sends_that_to_the_next_follower() -> None:
    first, last = (Book((BookLevel(price, 100.0),), (BookLevel(price + 1, 100.0),)) for price in (10.0, 11.0))
    tape = Tape(first, (Moment(0.0, Book(), error=316), Moment(0.1, last)), holds_rows=False)
    _, _, follower, sink = new_feed()
    feed = Feed(Replay(tape, ReplayOptions(path=Path("none"), pace=ReplayPace.FAST)), on_end=lambda: None)
    feed.follow(follower)
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert feed.followers == []
    sink.rows.clear()
    feed.follow(follower)
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert [(row.price, row.side) for row in sink.rows] == [(11.0, 1), (12.0, 0)]
    await feed.close()
