from pathlib import Path

import pytest
import yaml

from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.simulation.faults import FAULTS
from ibkr_depth_pipeline.simulation.scenario import ScenarioClock, ScenarioError, load_scenario, parse_scenario


def clock(text: str, start: float = 100.0) -> ScenarioClock:
    return ScenarioClock(parse_scenario(yaml.safe_load(text)), start)


def names(clock: ScenarioClock, now: float) -> list[str]:
    return [fault.name for fault in clock.due(now)]


def test_faults_are_methods_of_the_gateway_and_its_other_methods_are_none() -> None:
    assert all(callable(getattr(SimulatedGateway, name)) for name in FAULTS)
    assert not {"start", "wait_for", "push_row", "resume", "resume_rows", "answer_new_connections"} & set(FAULTS)
    assert {"drop_connections", "send_error", "connectivity_lost", "lose_row", "set_slots"} <= set(FAULTS)


def test_arguments_of_a_fault_are_those_of_the_method() -> None:
    (step,) = parse_scenario([{"at": 0, "do": "cross", "symbol": "SPY", "seconds": "2"}])
    assert step.fault.arguments() == {"symbol": "SPY", "seconds": 2.0, "times": 1}


def test_timed_step_is_due_at_its_time_and_once() -> None:
    steps = clock("[{at: 2.0, do: stall}]")
    assert steps.next_deadline() == 102.0
    assert names(steps, 101.9) == []
    assert names(steps, 102.0) == ["stall"]
    assert names(steps, 200.0) == []
    assert steps.next_deadline() is None


def test_step_may_follow_the_one_before() -> None:
    steps = clock(
        "[{at: 1, do: stall, seconds: 3}, {after: 5, do: set_slots, slots: 1}, {after: 1, do: drop_connections}]"
    )
    assert names(steps, 101.5) == ["stall"]
    assert steps.next_deadline() == 106.5
    assert names(steps, 106.5) == ["set_slots"]
    assert names(steps, 107.5) == ["drop_connections"]


def test_step_may_wait_for_the_journal() -> None:
    steps = clock("[{on: {kind: request, name: reqMktDepth, count: 2}, delay: 0.5, do: send_error, code: 1100}]")
    steps.observe("request", "reqMktDepth", 1, 101.0)
    steps.observe("request", "cancelMktDepth", 1, 102.0)
    assert steps.next_deadline() is None
    steps.observe("request", "reqMktDepth", 1, 103.0)
    assert steps.next_deadline() == 103.5
    steps.observe("request", "reqMktDepth", 1, 104.0)
    assert names(steps, 110.0) == ["send_error"]


def test_rows_are_counted_one_by_one() -> None:
    steps = clock("[{on: {kind: rows, count: 1000}, do: drop_connections}]")
    steps.observe("rows", "SPY", 999, 101.0)
    assert steps.next_deadline() is None
    steps.observe("rows", "AAPL", 500, 102.0)
    assert names(steps, 102.0) == ["drop_connections"]


def test_step_may_be_repeated() -> None:
    steps = clock("[{at: 1, repeat: 3, every: 2, do: malformed_rows}, {after: 10, do: stall}]")
    assert [names(steps, now) for now in (101, 103, 105, 111)] == [["malformed_rows"]] * 3 + [["stall"]]


def test_steps_are_carried_out_in_the_order_of_their_times() -> None:
    steps = clock("[{at: 2, do: stall}, {at: 1, do: halt, symbol: SPY}]")
    assert names(steps, 103.0) == ["halt", "stall"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{at: 1}", "a scenario is a list of steps"),
        ("[stall]", "step 1: a step is a mapping"),
        ("[{at: 1, do: explode}]", "step 1: do: 'explode'; allowed: advise, allow, .*bad_frame"),
        ("[{do: stall}]", "step 1: .*exactly one of: at, after, on"),
        ("[{at: 1, after: 2, do: stall}]", "step 1: .*exactly one of"),
        ("[{after: 2, do: stall}]", "step 1: `after` needs a step before it"),
        ("[{at: 1, do: stall}, {at: 1, do: stall, minutes: 3}]", "step 2: minutes: Extra inputs"),
        ("[{at: -1, do: stall}]", "step 1: at: Input should be greater"),
        ("[{at: 1, do: refuse, symbol: SPY, code: 3}]", "step 1: code: .*allowed: 100 to 99999"),
        ("[{at: 1, do: malformed_rows, kinds: [upside_down]}]", "'upside_down'; allowed: insert_past_end"),
        ("[{at: 1, do: send_raw, hex: zz}]", "step 1: hex: .*'zz'; allowed: bytes as pairs of 0-9 a-f"),
        ("[{at: .inf, do: stall}]", "step 1: at: Input should be a finite number"),
        ("[{on: {kind: rowz}, do: stall}]", "step 1: on.kind: .*'rowz'; allowed: listening, .* rows,"),
        (
            "[{on: {kind: request, name: reqMktDept}, do: stall}]",
            "step 1: on: .*'reqMktDept'; allowed: .* reqMktDepth,",
        ),
        ("[{at: 1, do: bad_frame, kind: nice}]", "'nice'; allowed: absurd_length"),
    ],
)
def test_scenario_that_cannot_be_carried_out_names_the_step_and_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(yaml.safe_load(text))


def test_scenario_is_read_from_yaml_or_json(tmp_path: Path) -> None:
    as_yaml, as_json = tmp_path / "a.yaml", tmp_path / "a.json"
    as_yaml.write_text("- on: {kind: opened}\n  do: stall\n")
    as_json.write_text('[{"on": {"kind": "opened"}, "do": "stall"}]')
    assert load_scenario(str(as_yaml)).steps == load_scenario(str(as_json)).steps


def test_file_that_is_no_scenario_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("[unclosed")
    for path in (bad, tmp_path / "missing.yaml"):
        with pytest.raises(ScenarioError, match=path.name):
            load_scenario(str(path))
