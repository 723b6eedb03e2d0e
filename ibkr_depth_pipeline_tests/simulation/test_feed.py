"""A feed alone, without a gateway around it."""

from __future__ import annotations

import asyncio

from ibkr_depth_pipeline.simulation.catalogue import Catalogue, depth_venue
from ibkr_depth_pipeline.simulation.feed import Feed, Follower
from ibkr_depth_pipeline.simulation.market import SyntheticFlow, SyntheticMarket
from ibkr_depth_pipeline.simulation.replies import Subscription
from ibkr_depth_pipeline.simulation.rows import RowStyle, WireRow


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


async def test_market_that_falls_quiet_sends_nothing_more_until_it_wakes() -> None:
    listing = Catalogue(1).named("IBM")
    assert listing is not None
    venue = depth_venue("NYSE", listing.sec_type)
    assert venue is not None
    flow = SyntheticFlow(SyntheticMarket(1, listing, venue), RowStyle.SHIFT, 1000.0, seed=1)
    feed, sink = Feed(flow, on_end=lambda: None), Sink()
    feed.follow(Follower(Subscription(1, False, listing, venue, 10), sink))
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
