"""An ingest's day from its figures: what happened between two states, and what nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ibkr_depth_pipeline.archive.layout import day_of, first_ms_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.report.ingest_day import Event, IngestDay, StateInterval, ingest_day
from ibkr_depth_pipeline.report.timeline import Bins
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline_tests.report.made_up import START, keep_figures

BINS = Bins(START, 1000, 20)
DAY_START = first_ms_of(day_of(START))
RUN = RunIdentity("run-1", "a-host", 77, START)


def state(at: int, run: RunIdentity = RUN, **told: Any) -> FeedFigures:
    return FeedFigures(run, START + at, **({"connected": True} | told))


def told(folder: Path, *states: FeedFigures) -> IngestDay:
    table = keep_figures(ArchiveStore(str(folder)), states)
    found = ingest_day("default", table, BINS, DAY_START)
    assert found is not None
    return found


def test_events_between_two_states_are_their_difference(tmp_path: Path) -> None:
    counts = [(0, 1, 0), (2000, 1, 0), (4000, 4, 1), (6000, 4, 3)]
    day = told(tmp_path, *(state(at, refused_309=refused, reconnects=again) for at, refused, again in counts))
    assert day.refused_309 == [Event(START, 1), Event(START + 4000, 3)]
    assert day.reconnects == [Event(START + 4000, 1), Event(START + 6000, 2)]
    assert (day.lost, day.write_failures) == ([], [])


def test_new_run_counts_from_zero(tmp_path: Path) -> None:
    later = RunIdentity("run-0", "a-host", 78, START + 5000)  # by its name it would come first
    day = told(tmp_path, state(0, refused_309=5), state(5000, later, refused_309=2), state(7000, later, refused_309=3))
    assert day.refused_309 == [Event(START, 5), Event(START + 5000, 2), Event(START + 7000, 1)]
    assert [run.run_id for run in day.runs] == ["run-1", "run-0"]


def test_counts_from_before_midnight_are_not_of_the_day(tmp_path: Path) -> None:
    old = replace(RUN, started_ts=DAY_START - 1)
    assert told(tmp_path, state(0, old, lost=9), state(2000, old, lost=11)).lost == [Event(START + 2000, 2)]


def test_connection_states_become_intervals(tmp_path: Path) -> None:
    states = [
        state(0, connected=False),
        state(2000),
        state(4000),
        state(6000, suspended=True),
        state(8000, connected=False, suspended=True),
        state(9000),
    ]
    assert told(tmp_path, *states).stretches == [
        StateInterval("disconnected", START, START + 2000),
        StateInterval("connected", START + 2000, START + 6000),
        StateInterval("suspended", START + 6000, START + 8000),
        StateInterval("disconnected", START + 8000, START + 9000),
    ]


def test_silence_of_an_ingest_is_no_state(tmp_path: Path) -> None:
    day = told(tmp_path, state(0), state(2000), state(17_001), state(19_000))
    assert day.stretches == [
        StateInterval("connected", START, START + 2000),
        StateInterval("connected", START + 17_001, START + 19_000),
    ]


def test_slot_is_held_between_two_states_that_say_so(tmp_path: Path) -> None:
    def holding(at: int, *symbols: str) -> FeedFigures:
        return state(at, symbols={name: SymbolFigures(subscribed=name in symbols) for name in ("SPY", "QQQ", "IWM")})

    day = told(tmp_path, holding(0, "SPY"), holding(1500, "SPY", "QQQ"), holding(3000, "QQQ"), holding(3500))
    assert day.held_ms["SPY"].tolist() == [1000, 500, *[0] * 18]
    assert day.held_ms["QQQ"].tolist() == [0, 500, 1000, *[0] * 17]
    assert "IWM" not in day.held_ms
    assert day.symbols == ["IWM", "QQQ", "SPY"]


def test_latency_of_a_bin_is_its_worst_state(tmp_path: Path) -> None:
    lags = [(0, 1.0, 10.0), (500, 2.0, 30.0), (900, 1.0, 20.0), (2500, None, None), (4000, 5.0, 6.0), (4001, 5.0, 6.0)]
    day = told(tmp_path, *(state(at, lag_p50_ms=p50, lag_p99_ms=p99) for at, p50, p99 in lags))
    np.testing.assert_array_equal(day.lag_p50[:5], [2.0, 1.0, 1.0, np.nan, 5.0])
    np.testing.assert_array_equal(day.lag_p99[:5], [30.0, 20.0, 20.0, np.nan, 6.0])


def test_run_is_summed_up_by_its_last_state(tmp_path: Path) -> None:
    symbols = {
        "SPY": SymbolFigures(rows=10, snapshots=9, dropped={"retired_request": 2, "unknown_side": 1}),
        "unknown": SymbolFigures(dropped={"retired_request": 4}),
    }
    first = state(0, symbols={"SPY": SymbolFigures(rows=1)})
    last = state(2000, ended_ts=START + 2000, symbols=symbols, connections=3, reconnects=2, refused_309=1, lost=7)
    day = told(tmp_path, first, last)
    (run,) = day.runs
    assert (run.run_id, run.host, run.pid, run.started_ts) == ("run-1", "a-host", 77, START)
    assert (run.heard_ts, run.ended_ts) == (START + 2000, START + 2000)
    assert (run.rows, run.connections, run.refused_309, run.lost) == (10, 3, 1, 7)
    assert run.dropped == {"retired_request": 6, "unknown_side": 1}
    assert day.symbols == ["SPY"]


def test_ingest_without_states_has_no_day(tmp_path: Path) -> None:
    table = keep_figures(ArchiveStore(str(tmp_path)), [state(0)])
    assert ingest_day("default", table.slice(1), BINS, DAY_START) is None
