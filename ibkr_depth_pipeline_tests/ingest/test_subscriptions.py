"""What becomes of the rotation's commands: books, awaited rows, heartbeats and effects, in simulated time."""

from __future__ import annotations

import dataclasses
import itertools

from ibkr_depth_pipeline.ingest import effects as do
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.hot_path import HotPath
from ibkr_depth_pipeline.ingest.liveness import LivenessTracker
from ibkr_depth_pipeline.ingest.subscriptions import LEAST_HEARTBEAT_TTL_SECS, Subscriptions
from ibkr_depth_pipeline.model import Unresolved
from ibkr_depth_pipeline.rotation import events as rotation
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.ingest.wiring import PLAN, insert, instrument, of_kind, said

TEN = [f"S{number}" for number in range(10)]


class Ring:
    """Subscriptions to some symbols, on a connection from 0 s on, with their books and doubts."""

    def __init__(self, symbols: list[str], heartbeat_ttl: int = 30) -> None:
        self.liveness = LivenessTracker()
        self.figures = PipelineFigures()
        self.books = LiveBooks(self.figures, HotPath(), lambda symbol: lambda *snapshot: None, rows=10, levels_shown=10)
        self.books.number_from({symbol: StreamId() for symbol in symbols})
        self.subscriptions = Subscriptions(
            PLAN, itertools.count(1), self.books, self.liveness, self.figures, heartbeat_ttl=heartbeat_ttl
        )
        for symbol in symbols:
            self.subscriptions.resolved(instrument(symbol), 0.0)
        self.recorded: list[do.Effect] = []
        self.began = self.subscriptions.rotate(rotation.Connected(), 0.0)

    def request_of(self, symbol: str) -> int:
        (request,) = [asked for asked, whose in self.subscriptions.subscribed.items() if whose == symbol]
        return request

    def answer(self, now: float) -> None:
        """Each waiting subscription gets its first row."""
        for request in sorted(self.liveness.awaited):
            self.books.row(request, insert(), 1000)
            self.liveness.prove(request)
            self.recorded += self.subscriptions.answered(request, now)

    def until(self, end: float, *, answering: bool = True, refusing: str = "") -> list[do.Effect]:
        """Deadlines as they come, each followed by first rows, or by refusals; what was to be done."""
        effects: list[do.Effect] = []
        while (deadline := self.subscriptions.next_deadline()) is not None and deadline <= end:
            effects += self.subscriptions.rotate(rotation.Deadline(), deadline)
            for request, symbol in self.subscriptions.subscribed.items():
                if symbol == refusing:
                    effects += self.subscriptions.refused(request, "354: not subscribed", deadline)
            if answering:
                self.answer(deadline)
        return effects


def test_each_request_has_a_book_and_is_waited_for_until_it_is_cancelled() -> None:
    ring = Ring(["A", "B", "C", "D"])
    assert [effect.instrument.symbol for effect in of_kind(ring.began, do.RequestDepth)] == ["A", "B", "C"]
    assert ring.books.requests() == ring.liveness.awaited == set(ring.subscriptions.subscribed)
    cancelled = of_kind(ring.subscriptions.rotate(rotation.Stop(), 1.0), do.Cancel)
    assert [effect.symbol for effect in cancelled] == ["A", "B", "C"]
    assert ring.books.requests() == ring.liveness.awaited == set()


def test_turn_is_counted_and_its_end_asks_what_was_stored_of_its_symbols() -> None:
    ring = Ring(["A", "B", "C", "D"])
    ring.answer(0.0)
    assert ring.figures.turns == 1
    (ended,) = of_kind(ring.until(16.0), do.LogPersisted)
    assert ended.symbols == ("A", "B", "C")
    assert ring.figures.turns == 2


def test_heartbeats_outlive_the_time_in_which_every_symbol_gets_its_turn() -> None:
    (ttl,) = of_kind(Ring(TEN).began, do.SetHeartbeatTtl)
    assert ttl.secs == 4 * 15


def test_heartbeats_live_no_shorter_than_the_operator_wants_nor_than_the_least() -> None:
    for configured, expected in ((1, LEAST_HEARTBEAT_TTL_SECS), (90, 90)):
        (ttl,) = of_kind(Ring(["SPY"], heartbeat_ttl=configured).began, do.SetHeartbeatTtl)
        assert ttl.secs == expected


def test_shrunk_batch_lengthens_the_heartbeats_of_those_that_wait() -> None:
    ring = Ring(TEN)
    ring.answer(0.0)
    ring.until(16.0)
    refused = ring.request_of("S5")
    ring.subscriptions.retire(refused)
    effects = ring.subscriptions.rotate(rotation.SlotRefused(refused), 16.0)
    assert "batch_shrunk" in said(effects)
    (ttl,) = of_kind(effects, do.SetHeartbeatTtl)
    assert ttl.secs >= 5 * 15
    assert set(ttl.last_rows) >= {"S0", "S1", "S2"}


def test_symbol_that_is_refused_again_and_again_is_resolved_again_and_comes_back_with_its_new_venue() -> None:
    ring = Ring(["A", "B"])
    ring.subscriptions.refused(ring.request_of("B"), "354: not subscribed", 0.0)
    effects = ring.until(3 * 3600.0, refusing="B")
    refusals = [effect.reason for effect in of_kind(effects, do.RecordRefusal)]
    assert set(refusals) == {"354: not subscribed"}
    assert 4 < len(refusals) < 15
    assert {effect.symbol for effect in of_kind(effects, do.Recheck)} == {"B"}
    elsewhere = dataclasses.replace(instrument("B"), exchange="IEX")
    asked = of_kind(ring.subscriptions.resolved(elsewhere, 3 * 3600.0), do.RequestDepth)
    assert [effect.instrument for effect in asked] == [elsewhere]
    assert ring.subscriptions.venues() == {"A": "ARCA", "B": "IEX"}


def test_unresolved_symbol_is_said_once_and_looked_at_again_after_seconds() -> None:
    ring = Ring(["A"])
    effects = ring.subscriptions.resolved(Unresolved("B", "no such contract"), 0.0)
    assert said(effects) == ["symbol_skipped"]
    assert not of_kind(effects, do.RecordRefusal), "there is no venue that refused it"
    ring.answer(0.0)
    assert [effect.symbol for effect in of_kind(ring.until(10.0), do.Recheck)] == ["B"]


def test_refused_symbol_that_has_no_venue_any_more_has_none_to_show() -> None:
    ring = Ring(["A", "B"])
    ring.subscriptions.refused(ring.request_of("B"), "354: not subscribed", 0.0)
    ring.subscriptions.resolved(Unresolved("B", "no such contract"), 3600.0)
    assert ring.subscriptions.venues() == {"A": "ARCA"}


def test_venue_that_refuses_is_replaced_by_the_next_one_at_once_and_its_refusal_is_remembered() -> None:
    ring = Ring([])
    ring.books.number_from({"A": StreamId()})
    found = dataclasses.replace(instrument("A"), exchange="ISLAND", alternatives=("ARCA", "IEX"))
    ring.subscriptions.rotate(rotation.FarmsReported(True, False), 0.0)
    ring.subscriptions.resolved(found, 0.0)
    effects = ring.subscriptions.refused(ring.request_of("A"), "354: not subscribed", 0.0)
    (refusal,) = of_kind(effects, do.RecordRefusal)
    assert (refusal.instrument.exchange, refusal.reason) == ("ISLAND", "ISLAND 354: not subscribed")
    assert len(of_kind(effects, do.Cancel)) == 1
    (asked,) = of_kind(ring.until(1.0), do.RequestDepth)
    assert asked.instrument.exchange == "ARCA"
    ring.subscriptions.permissions_reported("Depth: IEX")
    recorded = of_kind(ring.recorded, do.RecordVenue)
    assert [(each.instrument.exchange, each.refused_venues) for each in recorded] == [
        ("ARCA", "ISLAND 354: not subscribed")
    ]
    ring.subscriptions.rotate(rotation.Disconnected(), 2.0)
    (again,) = of_kind(ring.subscriptions.rotate(rotation.Connected(), 3.0), do.RequestDepth)
    assert again.instrument.exchange == "ARCA"


def test_reason_names_every_venue_that_refused_and_the_best_is_requested_again_first() -> None:
    ring = Ring([])
    ring.books.number_from({"A": StreamId()})
    found = dataclasses.replace(instrument("A"), exchange="ISLAND", alternatives=("ARCA",))
    ring.subscriptions.rotate(rotation.FarmsReported(True, False), 0.0)
    ring.subscriptions.resolved(found, 0.0)
    ring.subscriptions.refused(ring.request_of("A"), "354: one", 0.0)
    ring.until(0.5, answering=False)
    effects = ring.subscriptions.refused(ring.request_of("A"), "10092: two", 0.5)
    (skipped,) = [effect for effect in of_kind(effects, do.LogLine) if effect.event == "symbol_skipped"]
    assert skipped.fields["reason"] == "ISLAND 354: one; ARCA 10092: two"
    (asked,) = of_kind(ring.until(9.0, answering=False), do.RequestDepth)
    assert asked.instrument.exchange == "ISLAND"


def test_error_that_may_be_advice_counts_as_a_refusal_if_no_row_comes_in_seconds() -> None:
    ring = Ring(["A"])
    ring.subscriptions.advised(ring.request_of("A"), "10089: part", 0.0)
    assert not of_kind(ring.until(1.0, answering=False), do.Cancel)
    effects = ring.until(4.0, answering=False)
    assert len(of_kind(effects, do.Cancel)) == 1
    assert [effect.reason for effect in of_kind(effects, do.RecordRefusal)] == ["10089: part"]
