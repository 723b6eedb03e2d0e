"""The measurement of a fault: noticed, alerted, live again, rows lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ibkr_depth_pipeline.box.faults import GIVE_UP_MS, FaultName, FaultTrial, MarketState, PlannedFault

BEGAN = 1_000_000
BEFORE = MarketState(
    BEGAN - 100, True, run_id="one", run_started_ts=1, batch_size=3, newest_rows={"SPY": BEGAN - 10}, missing=5
)


def at(secs: float, row: float | None = None, **changes: object) -> MarketState:
    """The market so many seconds after the fault began; `row`: when its newest row came."""
    newest = {"SPY": BEGAN + int(1000 * (secs if row is None else row))}
    return replace(BEFORE, at=BEGAN + int(1000 * secs), newest_rows=newest, **changes)  # type: ignore[arg-type]


def test_gateway_away_is_measured_from_its_start_to_the_first_row_after_its_end() -> None:
    trial = FaultTrial(PlannedFault(FaultName.GATEWAY_AWAY), BEGAN, BEFORE)
    trial.on_event("rotation_started", BEGAN + 10, {})
    trial.on_event("connection_lost", BEGAN + 40, {})
    trial.on_event("connection_lost", BEGAN + 5_000, {})
    trial.on_alert(BEGAN + 9_000, True)
    trial.on_state(at(20, row=0))
    assert trial.live is None
    trial.on_end(BEGAN + 30_000)
    trial.on_state(at(31, row=0))
    trial.on_state(at(31.5, row=31.4, missing=9))
    assert not trial.is_over(BEGAN + 32_000)
    for secs, missing in ((33.1, 25), (33.6, 22), (34.2, None)):
        trial.on_state(at(secs, missing=missing))
    assert trial.is_over(BEGAN + 34_600)
    assert trial.rows_lost == 17
    assert trial.outcome() == (
        "noticed after 0.0 s, alert after 9.0 s, live again after 31.5 s (1.5 s after its end), rows lost: 17"
    )


def test_ingest_that_is_killed_is_live_again_with_a_row_of_the_next_run() -> None:
    trial = FaultTrial(PlannedFault(FaultName.INGEST_KILLED), BEGAN, BEFORE)
    trial.on_event("run_failure", BEGAN + 700, {})
    trial.on_state(at(1, row=0))
    trial.on_state(at(12, row=0, run_id="two", run_started_ts=BEGAN + 11_000))
    assert trial.live is None
    trial.on_state(at(14, run_id="two", run_started_ts=BEGAN + 11_000))
    assert trial.outcome().startswith("noticed after 0.7 s, alert after (never), live again after 14.0 s, rows lost")
    assert not trial.is_over(BEGAN + 20_000)  # an alert may still come
    trial.on_alert(BEGAN + 21_000, True)
    assert trial.is_over(BEGAN + 21_000)


def test_stolen_slot_is_over_with_the_whole_batch() -> None:
    trial = FaultTrial(PlannedFault(FaultName.SLOT_STOLEN), BEGAN, BEFORE)
    trial.on_event("slot_refused", BEGAN + 4_000, {"symbol": "SPY"})
    trial.on_end(BEGAN + 30_000)
    trial.on_state(at(40, batch_size=2))
    assert trial.live is None
    trial.on_state(at(55, batch_size=3))
    assert "no alert needed, all slots again after 55.0 s (25.0 s after its end)" in trial.outcome()


def test_silence_of_another_symbol_is_not_that_of_the_fault() -> None:
    trial = FaultTrial(PlannedFault(FaultName.SYMBOL_SILENT, symbol="QQQ"), BEGAN, BEFORE)
    trial.on_event("line_silent", BEGAN + 1_000, {"symbol": "SPY"})
    assert trial.noticed is None
    trial.on_event("line_silent", BEGAN + 3_000, {"symbol": "QQQ"})
    assert trial.noticed == BEGAN + 3_000
    trial.on_end(BEGAN + 60_000)
    trial.on_state(at(61))
    assert trial.live is None
    trial.on_state(replace(at(62), newest_rows={"SPY": BEGAN, "QQQ": BEGAN + 61_900}))
    assert trial.live == BEGAN + 62_000


def test_recovery_is_no_alert_of_the_fault() -> None:
    trial = FaultTrial(PlannedFault(FaultName.GATEWAY_AWAY), BEGAN, BEFORE)
    trial.on_alert(BEGAN + 5, False)
    assert trial.alerted is None


@pytest.mark.parametrize("name", list(FaultName))
def test_market_that_stays_away_is_given_up_in_the_end(name: FaultName) -> None:
    trial = FaultTrial(PlannedFault(name), BEGAN, BEFORE)
    trial.on_end(BEGAN + 1_000)
    trial.on_state(at(20, row=0, running=False))
    assert not trial.is_over(BEGAN + 100_000)
    assert trial.is_over(BEGAN + 1_000 + GIVE_UP_MS)
    assert f"not live again within {GIVE_UP_MS // 1000} s, rows lost: not counted" in trial.outcome()
