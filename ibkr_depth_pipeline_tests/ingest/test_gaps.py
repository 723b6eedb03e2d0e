"""The bookkeeping of gaps."""

from __future__ import annotations

from ibkr_depth_pipeline.ingest.gaps import DataGaps


def test_the_first_cause_of_a_gap_counts_and_its_length_is_from_row_to_row() -> None:
    gaps = DataGaps()
    gaps.open([("SPY", 1000)], "connectivity_lost", 1100)
    gaps.open([("SPY", 1500), ("QQQ", 1200)], "connection_lost")
    assert gaps.missing == {"SPY": "connectivity_lost", "QQQ": "connection_lost"}
    gap = gaps.close("SPY", 4500)
    assert gap is not None
    assert (gap.cause, gap.code, gap.secs) == ("connectivity_lost", 1100, 3.5)
    assert gaps.close("SPY", 5000) is None
