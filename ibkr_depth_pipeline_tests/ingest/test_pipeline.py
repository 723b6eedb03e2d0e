"""The wiring of events, books and rotation, without any I/O: time is an argument."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest import effects as do
from ibkr_depth_pipeline.ingest.hot_path import Store
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.model import RowFault
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.schema.encoding import EMPTY_SIDE, venue_field
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.ingest.wiring import PLAN, insert, instrument, of_kind, said
from ibkr_depth_pipeline_tests.sink.writing import side_text


class Stored(NamedTuple):
    """A snapshot that the pipeline has put out, as texts."""

    symbol: str
    ts: int
    seq: int
    venue: bytes
    bids: bytes
    asks: bytes


class Desk:
    """A connected pipeline, its clock, and the requests it has made, by symbol."""

    def __init__(self, symbols: list[str], positions: dict[str, StreamId] | None = None) -> None:
        self.stored: list[Stored] = []
        self.pipeline = DepthPipeline(PLAN, itertools.count(1), self.outlet, rows=10, levels_shown=10, heartbeat_ttl=30)
        self.pipeline.books.number_from({symbol: StreamId() for symbol in symbols} | (positions or {}))
        for symbol in symbols:
            self.pipeline.subscriptions.resolved(instrument(symbol), 0.0)
        self.now = 0.0
        self.requests: dict[str, int] = {}
        self.connect()

    def connect(self) -> list[do.Effect]:
        self.pipeline.liveness.connecting()
        return self.use()

    def use(self) -> list[do.Effect]:
        return self.note(self.pipeline.rotate(rotation.Connected(), self.now))

    def outlet(self, symbol: str) -> Store:
        def store(ts: int, seq: int, venue: bytes, bids: bytes, asks: bytes) -> None:
            self.stored.append(Stored(symbol, ts, seq, venue, bids, asks))

        return store

    def note(self, effects: list[do.Effect]) -> list[do.Effect]:
        for effect in of_kind(effects, do.RequestDepth):
            self.requests[effect.instrument.symbol] = effect.request
        return effects

    def hear(self, event: gateway.GatewayEvent, now_ms: int = 1000) -> list[do.Effect]:
        return self.note(self.pipeline.handle(event, self.now, now_ms))

    def first_rows(self) -> None:
        for request in list(self.pipeline.subscriptions.subscribed):
            self.pipeline.books.row(request, insert(), 1000)
            self.note(self.pipeline.first_row(request, self.now))

    def until(self, end: float) -> None:
        while (deadline := self.pipeline.subscriptions.next_deadline()) is not None and deadline <= end:
            self.now = deadline
            self.note(self.pipeline.rotate(rotation.Deadline(), self.now))
            self.first_rows()
        self.now = end


def test_row_becomes_one_snapshot_with_the_next_number_and_the_venue_of_the_subscription() -> None:
    desk = Desk(["SPY"], {"SPY": StreamId(ts=500, seq=41)})
    assert desk.pipeline.books.row(desk.requests["SPY"], insert(), 1000)
    bids = side_text(((10.0, 100.0, "ARCA"),))
    assert desk.stored == [Stored("SPY", 1000, 42, venue_field("ARCA"), bids, EMPTY_SIDE)]


def test_time_never_falls_within_a_symbol_even_if_the_clock_is_set_back() -> None:
    desk = Desk(["SPY"], {"SPY": StreamId(ts=5000, seq=1)})
    for now_ms in (4000, 6000, 5500):
        desk.pipeline.books.row(desk.requests["SPY"], insert(), now_ms)
    assert [snapshot.ts for snapshot in desk.stored] == [5000, 6000, 6000]


def test_late_row_of_a_cancelled_request_is_dropped_and_counted() -> None:
    desk = Desk(["A", "B", "C", "D"])
    desk.first_rows()
    request = desk.requests["C"]
    desk.until(16)
    assert request not in desk.pipeline.subscriptions.subscribed
    assert not desk.pipeline.books.row(request, insert(), 2000)
    assert desk.pipeline.figures.dropped["C", "retired_request"] == 1


def test_unreadable_row_is_counted_by_its_symbol_and_reason() -> None:
    desk = Desk(["SPY"])
    desk.hear(gateway.RowUnreadable(desk.requests["SPY"], RowFault.UNKNOWN_SIDE, ("12",)))
    assert desk.pipeline.figures.dropped["SPY", "unknown_side"] == 1


def test_317_publishes_an_empty_book_and_answers_a_waiting_request() -> None:
    desk = Desk(["SPY"])
    request = desk.requests["SPY"]
    desk.hear(gateway.BookReset(request))
    assert desk.stored == [Stored("SPY", 1000, 1, venue_field("ARCA"), EMPTY_SIDE, EMPTY_SIDE)]
    assert request not in desk.pipeline.liveness.awaited


def test_refused_symbol_is_recorded_as_refused_and_the_next_one_takes_its_slot() -> None:
    desk = Desk(["A", "B", "C", "D"])
    effects = desk.hear(gateway.DepthRefused(desk.requests["B"], 354, "not subscribed"))
    assert [effect.instrument.symbol for effect in of_kind(effects, do.RequestDepth)] == ["D"]
    (refusal,) = of_kind(effects, do.RecordRefusal)
    assert (refusal.instrument.symbol, refusal.reason) == ("B", "354: not subscribed")


def test_322_asks_again_under_another_id() -> None:
    desk = Desk(["SPY"])
    before = desk.requests["SPY"]
    desk.hear(gateway.RequestIdRejected(before))
    desk.until(1.0)
    assert desk.requests["SPY"] != before
    assert list(desk.pipeline.subscriptions.subscribed.values()) == ["SPY"]


def test_310_and_notices_change_nothing() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    for event in (gateway.CancelRejected(desk.requests["SPY"]), gateway.Notice(None, 2152, "Exchanges - Depth: IEX;")):
        assert [type(effect) for effect in desk.hear(event)] == [do.LogLine]
    assert list(desk.pipeline.subscriptions.subscribed.values()) == ["SPY"]


@pytest.mark.parametrize("code", [2103, 2108, 2110, 10197])
def test_broken_farm_or_a_competing_session_stops_the_heartbeats_of_quiet_books(code: int) -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    assert desk.pipeline.lines.live_books() == {"SPY": 1000}
    desk.hear(gateway.FarmStatus(False, code, "broken"))
    assert desk.pipeline.lines.live_books() == {}


def test_broken_historical_farm_is_no_concern_of_depth() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    desk.hear(gateway.FarmStatus(False, 2105, "HMDS data farm connection is broken"))
    assert desk.pipeline.lines.live_books() == {"SPY": 1000}


def test_there_is_no_heartbeat_without_connectivity_nor_before_the_first_row_after_it() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    desk.hear(gateway.ConnectivityLost("1100"))
    assert desk.pipeline.lines.live_books() == {}
    desk.hear(gateway.ConnectivityRestored(False, "1102"))
    assert desk.pipeline.lines.live_books() == {}
    desk.first_rows()
    assert desk.pipeline.lines.live_books() == {"SPY": 1000}


def test_lost_connection_retires_every_request_and_1300_asks_for_a_new_one() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    assert of_kind(desk.hear(gateway.SocketPortReset("1300")), do.Reconnect)
    request = desk.requests["SPY"]
    desk.hear(gateway.ConnectionLost("closed"))
    assert desk.pipeline.subscriptions.subscribed == {}
    assert not desk.pipeline.books.row(request, insert(), 2000)
    desk.connect()
    assert desk.requests["SPY"] != request


@pytest.mark.parametrize(
    ("news", "cause", "code"),
    [
        (gateway.ConnectivityLost("1100"), "connectivity_lost", 1100),
        (gateway.ConnectivityRestored(False, "1102"), "connectivity_restored", 1102),
        (gateway.FarmStatus(False, 2103, "broken"), "feed_degraded", 2103),
        (gateway.ConnectionLost("closed"), "connection_lost", 0),
    ],
)
def test_rows_that_come_back_end_the_gap_and_say_why_it_was(news: gateway.GatewayEvent, cause: str, code: int) -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    desk.hear(news)
    desk.now = 3.5
    if isinstance(news, gateway.ConnectionLost):
        desk.connect()
    desk.pipeline.books.row(desk.requests["SPY"], insert(), 4500)
    gap = of_kind(desk.pipeline.first_row(desk.requests["SPY"], desk.now), do.LogLine)[-1]
    assert (gap.level, gap.event) == ("warning", "data_gap")
    assert gap.fields == {"symbol": "SPY", "cause": cause, "code": code, "secs": 3.5}


def test_317_does_not_prove_that_rows_are_back() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    desk.hear(gateway.FarmStatus(False, 2103, "broken"))
    desk.hear(gateway.BookReset(desk.requests["SPY"]))
    assert desk.pipeline.liveness.awaited == {desk.requests["SPY"]}


def test_new_connection_knows_nothing_of_the_troubles_before_it() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    desk.hear(gateway.FarmStatus(False, 2103, "broken"))
    desk.hear(gateway.ConnectivityLost("1100"))
    desk.hear(gateway.ConnectionLost("closed"))
    assert desk.pipeline.liveness.awaited == set()
    desk.connect()
    assert (desk.pipeline.liveness.suspended, desk.pipeline.liveness.ailments) == (False, ())
    desk.first_rows()
    assert desk.pipeline.lines.live_books() == {"SPY": 1000}


def test_rows_end_a_suspension_that_the_gateway_does_not_take_back_but_not_those_on_their_way_before_it() -> None:
    desk = Desk(["SPY"])
    desk.first_rows()
    desk.hear(gateway.ConnectivityLost("1100"))
    assert desk.pipeline.first_row(desk.requests["SPY"], desk.now + 1) == []
    assert desk.pipeline.liveness.suspended
    assert said(desk.pipeline.first_row(desk.requests["SPY"], desk.now + 3))[0] == "connectivity_restored"
    assert desk.pipeline.lines.live_books() == {"SPY": 1000}


def test_connectivity_lost_before_the_first_subscription_is_waited_for() -> None:
    desk = Desk(["SPY", "QQQ"])
    desk.hear(gateway.ConnectionLost("gone"))
    desk.pipeline.liveness.connecting()
    desk.hear(gateway.ConnectivityLost("1100"))
    assert desk.use() == []
    assert desk.pipeline.liveness.suspended
    back = desk.hear(gateway.ConnectivityRestored(False, "1102"))
    assert [each.instrument.symbol for each in of_kind(back, do.RequestDepth)] == ["SPY", "QQQ"]
    assert not desk.pipeline.liveness.suspended


def test_connectivity_lost_on_a_connection_that_came_to_nothing_is_forgotten() -> None:
    desk = Desk(["SPY"])
    desk.hear(gateway.ConnectionLost("gone"))
    desk.pipeline.liveness.connecting()
    desk.hear(gateway.ConnectivityLost("1100"))
    assert of_kind(desk.connect(), do.RequestDepth)
    assert not desk.pipeline.liveness.suspended
