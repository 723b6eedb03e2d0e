"""The day of `make run` from the probe to Terminate, in a real browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ibkr_depth_pipeline_tests.box.day_in_a_box import DayInABox, day_in_a_box
from ibkr_depth_pipeline_tests.dagster.browser import CHROMIUM

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="the package playwright is missing"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]
PICTURES = ("probe", "run", "lineage", "plots", "failing-check", "coverage", "report", "watch", "box")
MARKET = ("market-light", "market-dark", "market-phone")


def test_day_of_make_run_goes_from_probe_to_outage_recovery_close_and_terminate(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    day_in_a_box(tmp_path, pictures, DayInABox.walk)
    assert {path.stem for path in pictures.glob("*.png")} == {*PICTURES, *MARKET}
