"""Which faults a box plays, and when: scripts, options, and what is said of what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibkr_depth_pipeline.box.faults import BY_KEY, FAULTS, FaultName, PlannedFault
from ibkr_depth_pipeline.box.processes import BoxError
from ibkr_depth_pipeline.box.script import check_symbols, parse_script, planned_faults, read_script


def test_script_gives_its_faults_in_the_order_of_their_times(tmp_path: Path) -> None:
    script = tmp_path / "day.yaml"
    script.write_text("- {at: 90, fault: symbol_silent, symbol: SPY, seconds: 20}\n- {at: 20.5, fault: gateway_away}\n")
    silent = PlannedFault(FaultName.SYMBOL_SILENT, 90, 20, "SPY")
    assert read_script(script) == (PlannedFault(FaultName.GATEWAY_AWAY, 20.5), silent)
    assert silent.title == "SPY falls silent for 20 s"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([{"at": 1, "fault": "gatway"}], "step 1: fault: 'gatway' is not allowed; one of gateway_away, slot_stolen"),
        ([{"fault": "slot_stolen"}], "step 1: at: Field required"),
        ([{"at": -1, "fault": "slot_stolen"}], "step 1: at: Input should be greater than or equal to 0"),
        ([{"at": True, "fault": "slot_stolen"}], "step 1: at: True is not allowed; a number of seconds"),
        ([{"at": float("nan"), "fault": "slot_stolen"}], "step 1: at: Input should be"),
        ([{"at": 1, "fault": "slot_stolen", "secs": 3}], "step 1: secs: there is no such key; allowed: at, fault"),
        ([{"at": 1, "fault": "slot_stolen", "seconds": 0}], "step 1: seconds: Input should be greater than 0"),
        ([{"at": 1, "fault": "ingest_killed", "seconds": 3}], "seconds: ingest_killed has no duration; leave it out"),
        ([{"at": 1, "fault": "slot_stolen", "symbol": "SPY"}], "symbol: only symbol_silent concerns one"),
        (["slot_stolen"], "step 1: a step is a mapping"),
        ({"at": 1, "fault": "slot_stolen"}, "a script is a list of faults"),
        ([], "a script is a list of faults"),
        (None, "a script is a list of faults"),
        (
            [{"at": 1, "fault": "x"}, {"at": 2, "fault": "slot_stolen"}, {"at": "soon", "fault": "slot_stolen"}],
            "step 3",
        ),
    ],
)
def test_script_that_is_wrong_is_refused_with_its_step_and_what_is_allowed(document: object, said: str) -> None:
    with pytest.raises(BoxError) as refused:
        parse_script(document)
    assert said in str(refused.value)


def test_script_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("- {at: 1")
    for path, said in ((tmp_path / "none.yaml", "can't be read"), (broken, "no YAML")):
        with pytest.raises(BoxError, match=said) as refused:
            read_script(path)
        assert str(path) in str(refused.value)


def test_each_fault_option_needs_its_time() -> None:
    assert planned_faults(["redis_paused"], [3]) == (PlannedFault(FaultName.REDIS_PAUSED, 3),)
    assert planned_faults([], []) == ()
    with pytest.raises(BoxError, match="each fault needs its time"):
        planned_faults(["redis_paused"], [])


def test_silent_symbol_must_be_in_the_universe() -> None:
    check_symbols([PlannedFault(FaultName.SYMBOL_SILENT, symbol="SPY"), PlannedFault(FaultName.SLOT_STOLEN)], ["SPY"])
    with pytest.raises(BoxError, match="TSLA is not in the universe: SPY, QQQ"):
        check_symbols([PlannedFault(FaultName.SYMBOL_SILENT, symbol="TSLA")], ["SPY", "QQQ"])


def test_every_fault_has_a_key_of_its_own() -> None:
    assert set(FAULTS) == set(FaultName) == set(BY_KEY.values())
