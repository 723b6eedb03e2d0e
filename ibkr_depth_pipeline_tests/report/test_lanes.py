"""Lanes and maps of depth as the page's script gets them."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import orjson
import pytest

from ibkr_depth_pipeline.report.ingest_day import CONNECTED, DISCONNECTED, Event, IngestDay, StateInterval
from ibkr_depth_pipeline.report.lanes import depth_data, ingest_lanes
from ibkr_depth_pipeline.report.symbol_day import DepthMap, PriceGrid, SymbolDay, SymbolFold, Window
from ibkr_depth_pipeline.report.timeline import Bins
from ibkr_depth_pipeline_tests.report.made_up import START, books, quoted

BINS = Bins(START, 1000, 10)
NONE = np.full(10, np.nan)


def ingest(**given: object) -> IngestDay:
    empty: dict[str, object] = dict.fromkeys(("symbols", "runs", "stretches", "refused_309", "reconnects"), ())
    empty |= {"lost": (), "write_failures": (), "lag_p50": NONE, "lag_p99": NONE, "held_ms": {}}
    return IngestDay(name="default", **(empty | given))  # type: ignore[arg-type]


def test_what_went_wrong_is_marked_where_the_page_shows_its_time() -> None:
    states = [StateInterval(CONNECTED, START, START + 3000), StateInterval(DISCONNECTED, START + 3000, START + 4000)]
    events = [Event(START - 1, 1), Event(START + 5000, 2)]
    lanes = {lane.name: lane for lane in ingest_lanes(ingest(stretches=states, refused_309=events, lost=events), BINS)}
    assert list(lanes) == ["Connection", "Errors 309", "Reconnects", "Lost"]
    assert lanes["Connection"].total == "75.0%"
    assert [span.kind for span in lanes["Connection"].spans] == ["good", "bad"]
    assert lanes["Errors 309"].total == "3"
    assert lanes["Lost"].marks == [(START + 5000, "bad", "Lost: 2")]
    assert orjson.loads(lanes["Lost"].data)["marks"] == [[START + 5000, "bad", "Lost: 2"]]


def symbol_day() -> SymbolDay:
    fold = SymbolFold("SPY", BINS, Window(START, START + 10_000))
    fold.add(books(quoted(0, 99.0, 101.0), quoted(500, 99.5, 101.0)), {})
    return fold.result()


@pytest.mark.parametrize("sizes", [(4.0, 4.0, 4.0), (0.001, 350.0, 2.5e9), (1.0, 2.0, 3.0)])
def test_sizes_are_kept_to_some_percent_whatever_their_range(sizes: tuple[float, ...]) -> None:
    bids, asks = np.zeros((3, 10)), np.zeros((3, 10))
    bids[0, 1], bids[2, 9], asks[1, 4] = sizes
    data = orjson.loads(depth_data(DepthMap("SPY", BINS, PriceGrid(98.0, 1.0, 3), bids, asks), symbol_day()))
    packed = np.frombuffer(zlib.decompress(base64.b64decode(data["sizes"])), dtype=np.uint8).reshape(2, 10, 3)
    ratio = data["most"] / data["least"]
    found = np.where(packed > 0, data["least"] * ratio ** ((packed - 1.0) / 254), 0)
    assert pytest.approx(bids, rel=0.06) == found[0].T
    assert pytest.approx(asks, rel=0.06) == found[1].T
    assert data["bid"][:2] == [99.5, None]


def test_map_without_rows_is_empty() -> None:
    nothing = np.zeros((2, 10))
    data = orjson.loads(depth_data(DepthMap("SPY", BINS, PriceGrid(98.0, 1.0, 2), nothing, nothing), symbol_day()))
    assert not any(zlib.decompress(base64.b64decode(data["sizes"])))
