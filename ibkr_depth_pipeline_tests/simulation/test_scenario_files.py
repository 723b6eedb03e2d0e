"""The shipped scenarios, and files that are none."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ibkr_depth_pipeline.cli.gateway_sim import app
from ibkr_depth_pipeline.simulation import (
    EarlyCancel,
    GatewayOptions,
    Pacing,
    ScenarioError,
    SimulatedGateway,
    Unready,
    load_scenario,
    shipped_scenarios,
)
from ibkr_depth_pipeline_tests.simulation.wire_client import WireClient


def test_every_shipped_scenario_can_be_carried_out_and_says_what_it_is_about() -> None:
    scenarios = shipped_scenarios()
    assert len(scenarios) >= 60
    for name, scenario in scenarios.items():
        assert scenario.about, name
        assert scenario.steps or scenario.gateway.model_fields_set, name
        scenario.applied_to(GatewayOptions())


def test_name_may_be_written_with_hyphens() -> None:
    assert load_scenario("silent-stall") == load_scenario("silent_stall") == shipped_scenarios()["silent_stall"]


def test_scenario_changes_only_the_options_that_it_names() -> None:
    options = load_scenario("early_cancel_lost").applied_to(GatewayOptions(seed=7, slots=2))
    assert (options.seed, options.slots, options.early_cancel) == (7, 2, EarlyCancel.LOST)


def test_plain_list_of_steps_is_a_scenario(tmp_path: Path) -> None:
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
def test_file_that_is_no_scenario_is_named_with_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=complaint):
        load_scenario(str(path))


def test_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ScenarioError, match=r"no_such: no such file.* silent_stall"):
        load_scenario("no_such")


def test_program_lists_the_shipped_scenarios() -> None:
    outcome = CliRunner().invoke(app, ["--list-scenarios"])
    assert outcome.exit_code == 0
    assert set(shipped_scenarios()) == {line.split()[0] for line in outcome.output.splitlines()}


def test_scenario_may_set_every_option_of_how_a_gateway_behaves(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "gateway: {greeting_delay: 2, hung_client_ids: [7], unready: silent, ready_after: 1, seed: 5, accounts: [U1],\n"
        "  venue_refusals: {'*@ISLAND': 354}, messages_per_second: 50, pacing: disconnect, silent_symbols: [SPY],\n"
        "  server_version: 150, nasdaq_name: NASDAQ, symbol_rates: {SPY: 1}, largest_backlog: 9, read_only_api: no}\n"
    )
    options = load_scenario(str(path)).applied_to(GatewayOptions(slots=2))
    assert (options.greeting_delay, options.unready, options.pacing) == (2.0, Unready.SILENT, Pacing.DISCONNECT)
    assert (options.hung_client_ids, options.silent_symbols) == (frozenset({7}), frozenset({"SPY"}))
    assert (options.accounts, options.slots, options.read_only_api) == (("U1",), 2, False)


@pytest.mark.parametrize(
    ("gateway", "complaint"),
    [
        ("{greeting_delay: -1}", "gateway: greeting_delay: -1.0; allowed: 0 or more"),
        ("{unready: asleep}", "gateway: unready: Input should be 'no_exchanges'"),
        ("{refusals: {AAPL: 7}}", "gateway: refusal code 7; allowed: 100 to 99999"),
        ("{greting_delay: 1}", "gateway: greting_delay: Extra inputs"),
        ("{journal_file: x}", "gateway: journal_file: Extra inputs"),
        ("{messages_per_second: 0}", "gateway: messages_per_second: 0; allowed: 1 or more"),
    ],
)
def test_option_that_cannot_be_set_is_named(tmp_path: Path, gateway: str, complaint: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"gateway: {gateway}\n")
    with pytest.raises(ScenarioError, match=complaint):
        load_scenario(str(path))


def test_any_option_may_be_set_on_the_command_line() -> None:
    outcome = CliRunner().invoke(app, ["--port", "0", "--set", "greeting_delay=-3"])
    assert (outcome.exit_code, outcome.output) == (
        2,
        "ibkr_gateway_sim: --set greeting_delay: -3.0; allowed: 0 or more\n",
    )
    outcome = CliRunner().invoke(app, ["--port", "0", "--set", "greeting_delay"])
    assert outcome.output == "ibkr_gateway_sim: --set greeting_delay: not OPTION=VALUE\n"


@pytest.mark.parametrize("name", sorted(set(shipped_scenarios()) - {"burst"}))
async def test_every_step_of_a_shipped_scenario_is_carried_out_on_a_live_line(name: str) -> None:
    scenario = load_scenario(name)
    options = scenario.applied_to(GatewayOptions(slots=1, first_row_delay=0.0, rows_per_second=2000.0))
    options = replace(options, ready_after=None, greeting_delay=0.0, latency=0.0)
    async with SimulatedGateway(options) as gateway, WireClient(gateway.host, gateway.port) as client:
        await client.until_error(2158)
        client.subscribe(1, "SPY", "ARCA")
        await gateway.wait_for(lambda: gateway.journal.requests("reqMktDepth"))
        for step in scenario.steps:
            outcome = getattr(gateway, step.fault.name)(**step.fault.arguments())
            if inspect.isawaitable(outcome):
                await outcome
