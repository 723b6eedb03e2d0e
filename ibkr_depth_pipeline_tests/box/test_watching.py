"""What the watcher of a box counts as lost."""

from __future__ import annotations

from ibkr_depth_pipeline.box.watching import RowsToRecord


def test_rows_that_the_probe_of_a_later_morning_took_are_not_to_be_recorded() -> None:
    total, probing = 0, False
    rows = RowsToRecord(lambda: total, lambda: probing)
    total = 100
    assert rows() == 100
    probing, total = True, 130
    assert rows() == 100
    total = 150
    assert rows() == 100
    probing, total = False, 150
    assert rows() == 100
    total = 175
    assert rows() == 125
    probing, total = True, 185
    assert rows() == 125
    probing, total = False, 200
    assert rows() == 140
