"""The universe's file changes during a run: what is new is recorded, what is gone leaves, the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.schema.intervals import EndReason
from ibkr_depth_pipeline.schema.keys import claim_key, contract_claim_key, focus_key, ingest_key
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.universe.changes import UniverseFile
from ibkr_depth_pipeline_tests.end_to_end.observed import (
    assert_holds,
    assert_numbered,
    intervals_of,
    open_interval_of,
    stored_ids,
)
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording

QUICK = {"ibkr_rotation_secs": 0.4, "ibkr_first_row_secs": 5}


class Follower:
    """A run that follows its file."""

    def __init__(self, run: Recording, gateway: SimulatedGateway, path: Path) -> None:
        self.run = run
        self.gateway = gateway
        self._path = path

    def write(self, text: str) -> None:
        """Replace the file, as an editor does."""
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)

    def subscribed(self, symbol: str) -> list[int]:
        entries = self.gateway.journal.entries("subscribed")
        return [int(entry.detail["request_id"]) for entry in entries if entry.name == symbol]

    async def figures(self) -> FeedFigures:
        figures = FeedFigures.of_json(await self.run.redis.get(ingest_key("default")))
        assert figures is not None
        return figures

    async def shows(self, condition: Callable[[FeedFigures], object]) -> FeedFigures:
        """Wait until the published figures do."""

        async def shown() -> bool:
            found = await self.run.redis.get(ingest_key("default"))
            figures = FeedFigures.of_json(found)
            return figures is not None and bool(condition(figures))

        await self.run.until(shown)
        return await self.figures()

    async def until(self, condition: Callable[[], object]) -> None:
        async def holds() -> bool:
            return bool(condition())

        await self.run.until(holds)


Following = Callable[..., AbstractAsyncContextManager[Follower]]


@pytest.fixture
def following(tmp_path: Path, shared_redis_url: str) -> Following:
    @asynccontextmanager
    async def start(text: str, **overrides: object) -> AsyncIterator[Follower]:
        path = tmp_path / "symbols.yaml"
        path.write_text(text)
        settings = {**QUICK, **overrides}
        file = UniverseFile(path, (), int(str(settings.get("ibkr_max_concurrent_depth", 3))))
        async with SimulatedGateway(GatewayOptions()) as gateway:
            async with recording(gateway, shared_redis_url, file.load(), file=file, **settings) as run:
                yield Follower(run, gateway, path)

    return start


async def test_new_symbol_is_recorded_and_removed_one_leaves_while_the_others_keep_their_lines(
    following: Following,
) -> None:
    async with following("symbols: [SPY, QQQ]") as it:
        await it.run.grows("QQQ", 5)
        held = it.subscribed("QQQ")
        it.write("symbols: [QQQ, AAPL]")
        await it.run.grows("AAPL", 5)
        await it.shows(lambda figures: set(figures.symbols) == {"QQQ", "AAPL"})
        cancelled = it.gateway.journal.requests

        def spy_is_off() -> bool:
            ended = {int(entry.detail["reqId"]) for entry in cancelled("cancelMktDepth")}
            return set(it.subscribed("SPY")) <= ended

        await it.until(spy_is_off)
        before = await it.run.length("SPY")
        await it.run.grows("AAPL", 10)
        assert await it.run.length("SPY") == before
        assert it.subscribed("QQQ") == held, "it keeps its line"
        summary = await it.run.stop()
    assert summary.connections == 1
    assert summary.refused_309 == 0


async def test_claim_of_a_removed_symbol_is_free_for_others_and_it_goes_on_where_it_was_if_it_comes_back(
    following: Following,
) -> None:
    async with following("symbols: [SPY, QQQ]") as it:
        await it.run.grows("SPY", 5)
        it.write("symbols: [QQQ]")

        async def is_free() -> bool:
            return not await it.run.redis.exists(claim_key("SPY"), contract_claim_key(756733, "ARCA"))

        await it.run.until(is_free)
        length = await it.run.length("SPY")
        assert [each.end for each in await intervals_of(it.run.redis, "SPY")][-1] is EndReason.TURN_OVER
        assert await open_interval_of(it.run.redis, "SPY") is None
        it.write("symbols: [QQQ, SPY]")
        await it.run.grows("SPY", 5)
        assert await it.run.redis.get(claim_key("SPY")) is not None
        stream = await it.run.stream("SPY")
        assert [each.seq for each in stream] == list(range(1, len(stream) + 1))
        assert len(stream) > length
        await it.run.stop()
        intervals = await intervals_of(it.run.redis, "SPY")
        assert_numbered(intervals)
        assert_holds(intervals, await stored_ids(it.run.redis, "SPY"))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("symbols: [QQQ, {symbol: AAPL, exchage: ARCA}]", "exchage"),
        ("symbols: [QQQ, ON, NO]", "quote"),
        ("symbols: {", "YAML"),
        ("symbols: [{symbol: QQQ, pin: true}, {symbol: A, pin: true}, {symbol: B, pin: true}, C]", "pin"),
    ],
)
async def test_bad_file_is_one_error_and_the_universe_of_before_stays(
    following: Following, bad: str, told: str
) -> None:
    with capture_logs() as lines:
        await _bad_file_changes_nothing(following, bad, told)
    (refused,) = (line for line in lines if line["event"] == "universe_refused")
    assert told in refused["reason"]


async def _bad_file_changes_nothing(following: Following, bad: str, told: str) -> None:
    async with following("symbols: [SPY, QQQ]") as it:
        await it.run.grows("QQQ", 2)
        it.write(bad)
        figures = await it.shows(lambda figures: figures.universe_problem)
        assert told in figures.universe_problem
        assert set(figures.symbols) == {"SPY", "QQQ"}
        await it.run.grows("QQQ", 5)
        await it.run.grows("SPY", 5)
        it.write("symbols: [SPY, AAPL]")
        await it.run.grows("AAPL", 2)
        await it.shows(lambda figures: not figures.universe_problem)


async def test_changed_wishes_take_effect_without_a_new_line(following: Following) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT"]
    async with following(f"symbols: [{', '.join(symbols)}]", ibkr_max_concurrent_depth=2) as it:
        for symbol in symbols:
            await it.run.grows(symbol)
        it.write("symbols: [SPY, QQQ, IWM, AAPL, {symbol: MSFT, pin: true}]")
        figures = await it.shows(lambda figures: figures.symbols["MSFT"].pinned and figures.symbols["MSFT"].subscribed)
        assert figures.symbols["MSFT"].share == 1.0
        assert abs(figures.symbols["SPY"].share - 0.25) < 0.01
        turns = (await it.figures()).turns
        lines = it.subscribed("MSFT")
        await it.shows(lambda figures: figures.turns > turns + 6)
        assert it.subscribed("MSFT")[len(lines) :] == [], "a pinned symbol keeps its line from turn to turn"
        summary = await it.run.stop()
    assert summary.connections == 1


async def test_changed_venue_takes_the_place_of_the_old_one_although_its_turn_would_go_on(following: Following) -> None:
    async with following("symbols: [{symbol: AAPL, exchange: ISLAND}, SPY]") as it:
        await it.run.grows("AAPL", 3)
        held = it.subscribed("SPY")
        it.write("symbols: [{symbol: AAPL, exchange: ARCA}, SPY]")

        async def is_moved() -> bool:
            return (await it.run.newest("AAPL")).venue == "ARCA"

        await it.run.until(is_moved)
        stream = await it.run.stream("AAPL")
        assert [each.seq for each in stream] == list(range(1, len(stream) + 1))
        assert it.subscribed("SPY") == held


async def test_symbol_that_another_ingest_records_is_refused_until_that_one_gives_it_up(following: Following) -> None:
    async with following("symbols: [SPY]") as it:
        await it.run.grows("SPY")
        await it.run.redis.set(claim_key("QQQ"), b'{"gateway": "other", "run_id": "x", "host": "h", "pid": 1}')
        it.write("symbols: [SPY, QQQ]")
        figures = await it.shows(lambda figures: figures.universe_problem)
        assert "QQQ is recorded already" in figures.universe_problem
        await it.run.grows("SPY", 3)
        await it.run.redis.delete(claim_key("QQQ"))
        await it.run.grows("QQQ", 3)
        await it.shows(lambda figures: not figures.universe_problem)


async def test_file_that_is_gone_for_a_while_changes_nothing(following: Following, tmp_path: Path) -> None:
    async with following("symbols: [SPY]") as it:
        await it.run.grows("SPY")
        (tmp_path / "symbols.yaml").unlink()
        await it.shows(lambda figures: "no such file" in figures.universe_problem)
        await it.run.grows("SPY", 3)
        it.write("symbols: [SPY, QQQ]")
        await it.run.grows("QQQ", 3)


async def test_mounted_configuration_is_followed_as_its_folder_is_swapped(
    shared_redis_url: str, tmp_path: Path
) -> None:
    """As Kubernetes mounts a ConfigMap: the file is a link into ..data, which is a link to a folder of one version."""
    for version, symbols in (("..v1", "[SPY]"), ("..v2", "[SPY, QQQ]")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "symbols.yaml").write_text(f"symbols: {symbols}")
    (tmp_path / "..data").symlink_to("..v1")
    path = tmp_path / "symbols.yaml"
    path.symlink_to("..data/symbols.yaml")
    file = UniverseFile(path, (), 3)
    async with SimulatedGateway(GatewayOptions()) as gateway:
        async with recording(gateway, shared_redis_url, file.load(), file=file, **QUICK) as run:
            await run.grows("SPY", 3)
            (tmp_path / "..data_tmp").symlink_to("..v2")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            await run.grows("QQQ", 3)
    assert len(gateway.journal.entries("opened")) == 1


async def test_editor_that_removes_the_file_for_a_moment_causes_no_error(following: Following, tmp_path: Path) -> None:
    path = tmp_path / "symbols.yaml"
    with capture_logs() as logs:
        async with following("symbols: [SPY]") as it:
            await it.run.grows("SPY")
            for left in ("", None):
                path.unlink() if left is None else path.write_text(left)
                await asyncio.sleep(0.3)  # as slow editors and copies are; it is read meanwhile
                it.write(f"symbols: [SPY, {'AAPL' if left is None else 'QQQ'}]")
                await it.run.grows("AAPL" if left is None else "QQQ", 3)
    assert not [line for line in logs if line["event"] == "universe_refused"]


# ---- focus


async def test_symbol_in_focus_keeps_its_slot_until_the_key_expires_and_the_status_says_who_asked(
    following: Following,
) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT"]
    with capture_logs() as lines:
        async with following(f"symbols: [{', '.join(symbols)}]", ibkr_max_concurrent_depth=2) as it:
            await it.run.grows("MSFT")
            await it.run.redis.set(focus_key("MSFT"), "desk-3", px=600_000)
            await it.shows(lambda figures: figures.symbols["MSFT"].share == 1.0 and figures.symbols["MSFT"].subscribed)
            figures = await it.figures()
            assert figures.symbols["MSFT"].focus.startswith("desk-3")
            held, turns = it.subscribed("MSFT"), figures.turns
            await it.shows(lambda figures: figures.turns > turns + 6)
            assert it.subscribed("MSFT") == held
            await it.run.redis.pexpire(focus_key("MSFT"), 1)
            await it.shows(lambda figures: not figures.symbols["MSFT"].focus)
            await it.until(lambda: len(it.subscribed("MSFT")) > len(held))
    (began,) = (line for line in lines if line["event"] == "focus_began")
    assert (began["symbol"], began["by"]) == ("MSFT", "desk-3")
    assert [line["symbol"] for line in lines if line["event"] == "focus_ended"] == ["MSFT"]


async def test_key_without_an_end_and_keys_of_another_type_ask_for_nothing(following: Following) -> None:
    async with following("symbols: [SPY, QQQ, IWM]", ibkr_max_concurrent_depth=2) as it:
        await it.run.redis.set(focus_key("SPY"), "for ever")
        await it.run.redis.lpush(focus_key("QQQ"), "a list")
        await it.run.redis.set(focus_key("IWM"), "desk-3", px=600_000)
        figures = await it.shows(lambda figures: figures.symbols["IWM"].focus)
        assert not figures.symbols["SPY"].focus
        assert not figures.symbols["QQQ"].focus
