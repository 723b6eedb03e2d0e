"""The probe and the rotation begin with what was found of their gateway, and with nothing of any other."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from ibkr_depth_pipeline.cli.ingest_run import app
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.gateway_facts import (
    AccountDigest,
    FactEntry,
    GatewayFacts,
    StartingPoint,
    key_path,
    read_facts,
    starting_point,
)
from ibkr_depth_pipeline.ingest.checklist import Verdict, run_checklist
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.probe.session import ProbeSession
from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import Connected, RotationPlan, Subscribe
from ibkr_depth_pipeline.rotation.slot_allocator import ReleasePause, SlotAllocator
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.universe import SymbolSpec, Universe

ACCOUNTS = ("DU1234567",)
NOTHING = (None, None)


def facts(port: int, slots: Any = 2, release: Any = 0.5, accounts: tuple[str, ...] = ACCOUNTS) -> GatewayFacts:
    seen = {"slots": slots, "slot_free_secs": release}
    return GatewayFacts(
        host="127.0.0.1",
        port=port,
        account=AccountDigest.of(accounts),
        began_ts=1,
        ended_ts=2,
        symbols=("SPY",),
        rows_asked=15,
        facts={name: FactEntry(assumed="", source="", seen=value, seen_ts=2) for name, value in seen.items()},
    )


def start_of(path: Path, port: int = 7497) -> tuple[int | None, float | None]:
    found = starting_point(settings_with(path, port), ACCOUNTS)
    return found.slots, found.release_pause


def settings_with(path: Path, port: int = 7497, **given: object) -> Settings:
    return load_settings(ibkr_port=port, ibkr_gateway_facts=path, **given)


def written(path: Path, found: GatewayFacts) -> Path:
    path.write_text(found.as_json(), encoding="utf-8")
    return path


def test_facts_of_the_gateway_are_used_and_logged_with_their_file(tmp_path: Path) -> None:
    path = written(tmp_path / "facts.json", facts(7497))
    with capture_logs() as logs:
        assert start_of(path) == (2, 0.5)
    assert [(each["event"], each["file"], each["slots"]) for each in logs] == [("gateway_facts_used", str(path), 2)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it can't be read: file: Invalid JSON"),
        ("{}", "it can't be read: host: Field required"),
        (json.dumps({"facts": []}), "it can't be read"),
        (facts(7497).as_json().replace('"format": 1', '"format": 2'), "it can't be read: format"),
        (facts(7497).as_json().replace('"host"', '"hots"'), "it can't be read"),
        (facts(4001).as_json(), "it is of 127.0.0.1:4001, not of 127.0.0.1:7497"),
        (facts(7497, accounts=("U7654321",)).as_json(), "it is of another account"),
    ],
)
def test_broken_or_foreign_file_is_ignored_with_a_warning_that_says_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text)
    with capture_logs() as logs:
        assert start_of(path) == NOTHING
    assert [(each["event"], each["log_level"]) for each in logs] == [("gateway_facts_ignored", "warning")]
    assert logs[0]["reason"].startswith(reason)


def test_file_that_is_not_there_is_worth_a_warning_only_where_it_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with capture_logs() as logs:
        assert starting_point(load_settings(), ACCOUNTS) == StartingPoint()
        assert start_of(tmp_path) == NOTHING
        assert start_of(tmp_path / "no.json") == NOTHING
    assert [each["log_level"] for each in logs] == ["warning", "warning"]


@pytest.mark.parametrize("slots", [None, 0, -1, 61, True, "3", 2.5, [3]])
@pytest.mark.parametrize("release", [None, -0.1, 1e9, True, "1", {}])
def test_value_that_cannot_be_meant_is_left_out(tmp_path: Path, slots: object, release: object) -> None:
    path = written(tmp_path / "facts.json", facts(7497, slots, release))
    assert start_of(path) == NOTHING


def test_lower_bound_is_no_starting_point(tmp_path: Path) -> None:
    found = facts(7497)
    bounds = {name: each.model_copy(update={"at_least": True}) for name, each in found.facts.items()}
    assert start_of(written(tmp_path / "facts.json", found.model_copy(update={"facts": bounds}))) == NOTHING


async def test_checklist_says_whether_the_facts_are_used(tmp_path: Path, shared_redis_url: str) -> None:
    (tmp_path / "universe.yaml").write_text("symbols: [SPY]")
    async with SimulatedGateway() as gateway:
        path = written(tmp_path / "facts.json", facts(gateway.port))
        items = []
        for port in (gateway.port, 7497):
            written(path, facts(port))
            settings = settings_with(
                path, gateway.port, redis_url=shared_redis_url, symbol_config_path=tmp_path / "universe.yaml"
            )
            items += [each for each in await run_checklist(settings) if each.subject == "facts"]
    assert [each.verdict for each in items] == [Verdict.OK, Verdict.WARN]
    assert items[0].text == f"{path}: 2 slots, free 0.5 s after a cancel; the recorder begins with that"
    assert items[1].text.startswith(f"{path} is ignored: it is of 127.0.0.1:7497")


def test_account_digest_knows_its_accounts_in_any_order_and_shows_none() -> None:
    digest = AccountDigest.of(["U1111111", "U2222222"])
    assert digest.matches(["U2222222", "U1111111"])
    assert not digest.matches(["U1111111"])
    assert "1111111" not in digest.model_dump_json()
    assert digest != AccountDigest.of(["U1111111", "U2222222"])


def without_key(tmp_path: Path) -> tuple[Path, str]:
    """A file of facts as the command writes it, and the key, which is not beside it yet."""
    found = facts(7497)
    assert found.account is not None
    return written(tmp_path / "facts.json", found.without_key()), found.account.salt or ""


def test_file_of_facts_belongs_to_its_account_by_a_key_that_it_does_not_hold(tmp_path: Path) -> None:
    path, key = without_key(tmp_path)
    assert key not in path.read_text()
    key_path(path).write_text(f"{key}\n")
    assert start_of(path) == (2, 0.5)
    assert starting_point(settings_with(path), ["DU1234568"]).problem == "it is of another account"
    key_path(path).write_text(f"{AccountDigest.of(ACCOUNTS).salt}\n")
    assert start_of(path) == NOTHING, "the key of another run"


@pytest.mark.parametrize("key", [None, "", "no key", "abcd"])
def test_file_of_facts_that_was_made_elsewhere_is_ignored(tmp_path: Path, key: str | None) -> None:
    path, _ = without_key(tmp_path)
    if key is not None:
        key_path(path).write_text(key)
    problem = starting_point(settings_with(path), ACCOUNTS).problem
    assert "made elsewhere" in problem
    assert str(key_path(path)) in problem


def test_no_account_number_is_found_in_a_file_of_facts_by_trying_all(tmp_path: Path) -> None:
    """With any key that a stranger knows, also a short one, the right account is none of those that fit."""
    path, key = without_key(tmp_path)
    digest = read_facts(path).account
    assert digest is not None
    for known in ("00" * 8, "00" * 16, digest.scrypt, key[:16], AccountDigest.of(ACCOUNTS).salt):
        assert AccountDigest.of(ACCOUNTS, known).scrypt != digest.scrypt
    assert len(key) == 2 * 16, "128 random bits, so that the key can't be tried either"


# ---- the rotation


def test_first_batch_is_as_large_as_the_slots_found_and_grows_as_usual() -> None:
    supply = SlotAllocator(3, 2, 8.0)
    supply.begin_with(1, 0.5)
    assert (supply.batch_size, supply.pause_secs) == (1, 0.5)
    for _ in range(2):
        supply.turn_without_refusal()
    assert supply.batch_size == 2


def test_more_slots_than_the_operator_allows_are_not_used() -> None:
    supply = SlotAllocator(3, 2, 8.0)
    supply.begin_with(10, None)
    assert (supply.batch_size, supply.pause_secs) == (3, 0.0)


def test_pause_that_was_found_is_shortened_by_trials_as_a_learned_one() -> None:
    pause = ReleasePause()
    pause.begin_with(2.0)
    now = 0.0
    for turn in range(200):
        now += 10.0
        pause.released(now)
        pause.asked(turn, pause.free_at)
        pause.granted(turn)
        pause.turn_without_refusal()
    assert pause.secs < 2.0


def test_controller_requests_as_many_as_are_known_to_be_free() -> None:
    plan = RotationPlan(3, 15.0, 15.0, 8.0, 4, 3600.0)
    controller = RotationController(["A", "B", "C", "D"], plan, itertools.count(1))
    commands = controller.handle(Connected(slots=2), 0.0)
    assert len([each for each in commands if isinstance(each, Subscribe)]) == 2


async def test_recorder_with_the_facts_of_its_gateway_meets_no_309(tmp_path: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(slots=1, slot_free_delay=0.3)) as gateway:
        path = written(tmp_path / "facts.json", facts(gateway.port, 1, 1.5))  # as late as no busy machine is
        settings = settings_with(
            path, gateway.port, ibkr_rotation_secs=0.3, redis_url=shared_redis_url, ibkr_error309_recovery_cycles=1000
        )
        session = IngestSession(settings, Universe((SymbolSpec("SPY"), SymbolSpec("AAPL"))))
        gateway.journal.listen(lambda entry: session.stop() if len(depth_requests(gateway)) >= 3 else None)
        with capture_logs() as logs:
            await session.run(duration=60.0)
        assert len(depth_requests(gateway)) >= 3
        assert gateway.journal.errors(309) == []
    assert [each["slots"] for each in logs if each["event"] == "gateway_facts_used"] == [1]


def depth_requests(gateway: SimulatedGateway) -> list[Any]:
    return gateway.journal.requests("reqMktDepth")


async def status_of(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """What `ibkr_ingest_run status` says of the facts, as one line and as JSON, after a short run."""
    universe = settings.symbol_config_path
    universe.write_text("symbols: [SPY]")
    await IngestSession(settings, Universe((SymbolSpec("SPY"),))).run(duration=0.5)
    monkeypatch.setenv("REDIS_URL", settings.redis_target)
    monkeypatch.setenv("SYMBOL_CONFIG_PATH", str(universe))
    monkeypatch.setenv("COLUMNS", "1000")
    text = (await asyncio.to_thread(CliRunner().invoke, app, ["status"])).stdout
    told = json.loads((await asyncio.to_thread(CliRunner().invoke, app, ["status", "--json"])).stdout)
    return next((line.rstrip() for line in text.splitlines() if line.startswith("facts: ")), ""), told


@pytest.mark.parametrize("slots", [2, None])
async def test_status_shows_where_the_rotation_began_from_which_file_and_how_old_that_is(
    tmp_path: Path, shared_redis_url: str, monkeypatch: pytest.MonkeyPatch, slots: int | None
) -> None:
    three_days, five_hours = unix_ms() - 3 * 86_400_000, unix_ms() - 5 * 3_600_000
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        found = facts(gateway.port, slots, 0.25)
        seen = {"slots": three_days, "slot_free_secs": five_hours}
        entries = {name: each.model_copy(update={"seen_ts": seen[name]}) for name, each in found.facts.items()}
        path = written(tmp_path / "facts.json", found.model_copy(update={"facts": entries}))
        line, told = await status_of(
            settings_with(path, gateway.port, redis_url=shared_redis_url, symbol_config_path=tmp_path / "symbols.yaml"),
            monkeypatch,
        )
    pause = "0.25 s from a cancel to the next request (seen 5 h ago)"
    assert line == f"facts: began with {'2 slots (seen 72 h ago), ' if slots else ''}{pause}, of {path}"
    assert told["feed"]["figures"]["facts"] == {
        "file": str(path),
        "slots": slots,
        "slots_ts": three_days if slots else None,
        "release_pause_secs": 0.25,
        "release_pause_ts": five_hours,
        "problem": "",
    }


async def test_status_says_why_a_file_of_facts_was_ignored_and_nothing_if_there_is_none(
    tmp_path: Path, shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        given = {"redis_url": shared_redis_url, "symbol_config_path": tmp_path / "symbols.yaml"}
        path = written(tmp_path / "facts.json", facts(gateway.port, accounts=("U7654321",)))
        foreign, told = await status_of(settings_with(path, gateway.port, **given), monkeypatch)
        nothing, _ = await status_of(load_settings(ibkr_port=gateway.port, **given), monkeypatch)
    assert foreign == f"facts: {path} was ignored: it is of another account"
    assert told["feed"]["figures"]["facts"]["problem"] == "it is of another account"
    assert nothing == ""


async def test_probe_with_the_facts_of_its_gateway_meets_no_309(tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(slots=1, slot_free_delay=0.3)) as gateway:
        path = written(tmp_path / "facts.json", facts(gateway.port, 1, 1.5))
        universe = Universe((SymbolSpec("SPY"), SymbolSpec("AAPL"), SymbolSpec("IBM")))
        report = await ProbeSession(settings_with(path, gateway.port), universe, record=False).run()
        assert gateway.journal.errors(309) == []
    assert report.passed
