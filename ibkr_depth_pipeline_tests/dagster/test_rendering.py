"""The picture of who held a slot when: what its cells say, and how large it gets. Pure."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.books import LiveInterval
from ibkr_depth_pipeline.orchestration.rendering import coverage_markdown, coverage_svg, live_shares

DAY_MS = 6 * 3600 * 1000 + 1800 * 1000


def test_coverage_cell_holds_the_share_of_its_time_in_which_the_book_was_live() -> None:
    stretches = [LiveInterval("SPY", 1000, 1500), LiveInterval("QQQ", 1000, 2000), LiveInterval("SPY", 1750, 2250)]
    assert live_shares(stretches, "SPY", 1000, 3000, 4) == [1.0, 0.5, 0.5, 0.0]


def test_coverage_ignores_what_lies_outside_the_time_shown() -> None:
    assert live_shares([LiveInterval("SPY", 0, 500), LiveInterval("SPY", 1900, 9000)], "SPY", 1000, 2000, 2) == [
        0.0,
        0.2,
    ]


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 2000)), max_size=8), st.integers(1, 50))
def test_coverage_cells_never_hold_more_than_there_was(spans: list[tuple[int, int]], columns: int) -> None:
    stretches = [LiveInterval("SPY", start, start + length) for start, length in spans]
    shares = live_shares(stretches, "SPY", 0, 5000, columns)
    assert all(0 <= share <= 1 for share in shares)
    within = sum(min(5000, stretch.end) - min(5000, stretch.start) for stretch in stretches)
    assert sum(shares) * 5000 / columns <= within + 0.001


def test_coverage_picture_is_xml_with_every_symbol_and_its_share() -> None:
    svg = coverage_svg([LiveInterval("A&B", 0, 5000)], ["A&B", "SPY"], 0, 10_000)
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:4] == ["A&B", "50%", "SPY", "0%"]
    assert texts[4:] == ["00:00:00", "00:00:02", "00:00:05", "00:00:07", "00:00:10 UTC"]


def day(symbols: int) -> str:
    """Three slots, turns of 15 s, from the open to the close."""
    names = [f"S{number}" for number in range(symbols)]
    turns = range(0, DAY_MS, 15_000)
    stretches = [
        LiveInterval(names[(3 * turn + slot) % symbols], start + 400 * slot, start + 14_800)
        for turn, start in enumerate(turns)
        for slot in range(3)
    ]
    return coverage_markdown(stretches, names, 0, DAY_MS)


@pytest.mark.parametrize(("symbols", "most_bytes"), [(11, 12_000), (60, 40_000), (300, 40_000)])
def test_coverage_picture_of_a_whole_day_stays_small(symbols: int, most_bytes: int) -> None:
    assert len(day(symbols)) <= most_bytes


def test_coverage_of_a_universe_too_large_to_show_notes_it() -> None:
    assert "The other 240 symbols are not shown." in day(300)


def test_coverage_markdown_embeds_the_picture() -> None:
    text = coverage_markdown([LiveInterval("SPY", 0, 500)], ["SPY"], 0, 1000)
    head = "![Which symbol held a slot when](data:image/svg+xml;base64,"
    assert text.startswith(head)
    assert base64.b64decode(text.removeprefix(head).removesuffix(")")).startswith(b"<svg")


def test_session_without_symbols_or_duration_has_no_picture() -> None:
    assert coverage_markdown([], [], 0, 1000) == ""
    assert coverage_markdown([], ["SPY"], 1000, 1000) == ""
