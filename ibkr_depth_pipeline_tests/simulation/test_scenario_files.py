"""The shipped scenarios, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ibkr_depth_pipeline.cli.gateway_sim import app
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions, ScenarioError, load_scenario, shipped_scenarios


def test_every_shipped_scenario_can_be_carried_out_and_says_what_it_is_about() -> None:
    scenarios = shipped_scenarios()
    assert len(scenarios) >= 30
    for name, scenario in scenarios.items():
        assert scenario.about, name
        assert scenario.steps or scenario.gateway.model_fields_set, name
        scenario.applied_to(GatewayOptions())


def test_a_name_may_be_written_with_hyphens() -> None:
    assert load_scenario("silent-stall") == load_scenario("silent_stall") == shipped_scenarios()["silent_stall"]


def test_a_scenario_changes_only_the_options_that_it_names() -> None:
    options = load_scenario("early_cancel_lost").applied_to(GatewayOptions(seed=7, slots=2))
    assert (options.seed, options.slots, options.early_cancel) == (7, 2, EarlyCancel.LOST)


def test_a_plain_list_of_steps_is_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- {at: 1, do: stall}\n")
    assert len(load_scenario(str(path)).steps) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{about: x, stepz: []}", "stepz: a scenario is a list of steps, or a mapping"),
        ("{gateway: {slots: -1}, steps: []}", "gateway: slots: "),
        ("{gateway: {port: 1}, steps: []}", "gateway: port: "),
        ("{steps: [{at: 1, do: explode}]}", "step 1: do: 'explode'"),
        ("[unclosed", "mine.yaml: "),
    ],
)
def test_a_file_that_is_no_scenario_is_named_with_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=complaint):
        load_scenario(str(path))


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ScenarioError, match=r"no_such: no such file.* silent_stall"):
        load_scenario("no_such")


def test_the_program_lists_them() -> None:
    outcome = CliRunner().invoke(app, ["--list-scenarios"])
    assert outcome.exit_code == 0
    assert set(shipped_scenarios()) == {line.split()[0] for line in outcome.output.splitlines()}
