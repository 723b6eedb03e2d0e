"""A tape of the flight recorder: played, it makes the books that were stored live; it tells why, and no secret."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis.asyncio as redis

from ibkr_depth_pipeline.errors import LeaseHeld
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.dump_requests import DumpRefused, ask_for_dump
from ibkr_depth_pipeline.tape.files import read_entries, read_head
from ibkr_depth_pipeline.tape.messages import framed, message_of
from ibkr_depth_pipeline.tape.script import read_scripts
from ibkr_depth_pipeline_tests.flight_recorder.dumping import (
    books,
    flown,
    reads,
    replayed,
    resumed,
    rows_behind,
    tape_of,
    tapes,
)

ACCOUNT = "DU7654321"
SYMBOLS = ("SPY", "QQQ", "IWM")


async def test_tape_that_begins_in_mid_connection_plays_the_books_that_were_stored_live(
    redis_url: str, tmp_path: Path
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=300, accounts=(ACCOUNT,))) as gateway:
        async with flown(gateway, redis_url, tmp_path, *SYMBOLS) as run:
            await run.grows("SPY", 700)
            answer = await ask_for_dump(redis_url, "default", "a test")
            await run.stop()
            live = {symbol: books(await run.stream(symbol)) for symbol in SYMBOLS}
            await run.redis.flushall()
    tape = Path(answer.path)
    assert tapes(tmp_path) == [tape]
    lines = {line["symbol"]: line for line in resumed(tape).detail["lines"]}
    assert set(lines) == set(SYMBOLS)
    assert resumed(tape).detail["without_book"] == []
    assert rows_behind(tape) < sum(map(len, live.values()))
    wanted = {symbol: live[symbol][line["seq"] :] for symbol, line in lines.items()}
    rows = rows_behind(tape)
    found = await replayed(tape, redis_url, tmp_path, {symbol: line["levels"] + 100 for symbol, line in lines.items()})
    for symbol, line in lines.items():
        behind = found[symbol][line["levels"] :]
        assert behind == wanted[symbol][: len(behind)]
        assert behind
    assert rows


async def test_head_of_a_tape_says_why_which_gateway_which_client_and_names_no_account(
    redis_url: str, tmp_path: Path
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100, accounts=(ACCOUNT,))) as gateway:
        async with flown(gateway, redis_url, tmp_path, "SPY", ibkr_gateway_name="desk", ibkr_client_id=31) as run:
            await run.grows("SPY", 50)
            answer = await ask_for_dump(redis_url, "desk", f"somebody {ACCOUNT}")
    head = read_head(Path(answer.path))
    assert head["gateway"] == {"name": "desk", "port": gateway.port, "server_version": 176}
    assert head["client"]["id"] == 31
    assert {"program", "ib_insync", "python"} <= set(head["client"])
    assert [why["reason"] for why in head["why"]] == ["asked"]
    assert ACCOUNT not in str(head) + str(list(read_entries(Path(answer.path))))


async def test_request_for_a_dump_while_the_recorder_is_off_is_refused_with_the_reason(
    redis_url: str, tmp_path: Path
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path / "none", "SPY", ibkr_flight_recorder_minutes=0) as run:
            await run.grows("SPY", 5)
            with pytest.raises(DumpRefused, match="the flight recorder is off"):
                await ask_for_dump(redis_url, "default", "a test")
    assert not (tmp_path / "none").exists()


async def test_folder_holds_nothing_of_a_run_that_ended_well(redis_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "flight"
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, folder, "SPY") as run:
            await run.grows("SPY", 50)
            assert folder.is_dir()
    assert not folder.exists()


async def test_reconnect_is_dumped_with_the_bytes_until_the_loss(redis_url: str, tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path, "SPY") as run:
            await run.grows("SPY", 50)
            gateway.drop_connections()
            tape = await tape_of(run, tmp_path, "reconnect")
            await run.grows("SPY", 10)
    closed = [entry for entry in read_entries(tape) if getattr(entry, "name", "") == "closed"]
    assert [event.detail["by"] for event in closed] == ["gateway"]  # type: ignore[union-attr]


async def test_message_of_an_unknown_type_is_dumped_without_what_it_holds(redis_url: str, tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path, "SPY") as run:
            await run.grows("SPY", 20)
            gateway.send_raw(framed(message_of(["999", "1", ACCOUNT, "secret"])).hex())
            tape = await tape_of(run, tmp_path, "unreadable_message")
    assert [why["detail"] for why in read_head(tape)["why"]] == ["type 999, 4 fields"]
    dropped = [each for read in reads(read_entries(tape)) for each in read.messages if isinstance(each, dict)]
    assert {"type": 999, "fields": 4, "bytes": 23} in dropped
    assert not {ACCOUNT, "secret"} & set(str(list(read_entries(tape))).split("'"))


async def test_book_out_of_step_is_dumped_with_the_rows_that_put_it_out_and_those_before(
    redis_url: str, tmp_path: Path
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path, "AAPL", settle=0.6, ibkr_flight_recorder_minutes=1) as run:
            await run.grows("AAPL", 100)
            gateway.unreadable_row("AAPL", "insert", "bad_size")
            tape = await tape_of(run, tmp_path, "unreadable_message")
            await run.stop()
    reasons = {why["reason"]: why["detail"] for why in read_head(tape)["why"]}
    assert reasons == {
        "unreadable_message": "a row of AAPL: unreadable",
        "book_out_of_step": "AAPL: an insert was dropped",
    }
    assert rows_behind(tape) > 100
    assert not [entry for entry in read_entries(tape) if getattr(entry, "name", "") == "resumed"]


async def test_tape_of_a_killed_run_is_written_by_the_next_one(redis_url: str, tmp_path: Path) -> None:
    folder, universe = tmp_path / "flight", tmp_path / "universe.yaml"
    universe.write_text("symbols: [{name: SPY, hours: always}]\n")
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        settings = {
            "IBKR_PORT": str(gateway.port),
            "REDIS_URL": redis_url,
            "SYMBOL_CONFIG_PATH": str(universe),
            "IBKR_FLIGHT_RECORDER_DIR": str(folder),
            "IBKR_FLIGHT_RECORDER_MINUTES": "1",
        }
        command = (sys.executable, "-m", "ibkr_depth_pipeline.cli.ingest_run", "run")
        quiet = {"cwd": tmp_path, "stderr": subprocess.DEVNULL}
        killed = await asyncio.create_subprocess_exec(*command, env={**os.environ, **settings}, **quiet)
        store = redis.from_url(redis_url)
        try:
            while int(await store.xlen("raw:ibkr:depth:stream:SPY")) < 400:
                assert killed.returncode is None
                await asyncio.sleep(0.02)
        finally:
            killed.kill()
            await killed.wait()
            await store.flushall()  # nobody waits for the lease of the dead
            await store.aclose()
        async with flown(gateway, redis_url, folder, "SPY") as run:
            tape = await tape_of(run, folder, "killed")
    assert [why["reason"] for why in read_head(tape)["why"]] == ["killed"]
    assert rows_behind(tape) > 200
    assert read_scripts(tape)
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


async def test_folder_that_can_not_be_written_is_a_warning_and_recording_goes_on(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path / "file", "SPY") as run:
            await run.grows("SPY", 100)
            with pytest.raises(DumpRefused, match="file"):
                await ask_for_dump(redis_url, "default", "a test")
            await run.grows("SPY", 20)
    assert capsys.readouterr().out.count("flight_recorder_failed") == 1


async def test_tape_of_a_reconnect_plays_the_end_of_one_connection_and_the_begin_of_the_next(
    redis_url: str, tmp_path: Path
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=300)) as gateway:
        async with flown(gateway, redis_url, tmp_path, "SPY", settle=0.5) as run:
            await run.grows("SPY", 500)
            gateway.drop_connections()
            tape = await tape_of(run, tmp_path, "reconnect")
            await run.stop()
            live = books(await run.stream("SPY"))
            await run.redis.flushall()
    (line,) = resumed(tape).detail["lines"]
    first, second = read_scripts(tape)
    assert (first.lasts is None, second.lasts is None) == (False, True)
    rows = rows_behind(tape)
    found = (await replayed(tape, redis_url, tmp_path, {"SPY": line["levels"] + rows}))["SPY"][line["levels"] :]
    assert found[:rows] == live[line["seq"] : line["seq"] + rows]


async def test_two_that_ask_at_once_get_a_tape_each(redis_url: str, tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path, "SPY") as run:
            await run.grows("SPY", 20)
            answers = await asyncio.gather(*(ask_for_dump(redis_url, "default", name) for name in ("one", "two")))
    assert {read_head(Path(answer.path))["why"][0]["detail"] for answer in answers} == {"one", "two"}


async def test_run_that_never_records_leaves_no_folder_and_ends_at_once(redis_url: str, tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with flown(gateway, redis_url, tmp_path / "first", "SPY") as run:
            await run.grows("SPY", 5)
            with pytest.raises(LeaseHeld):
                async with flown(gateway, redis_url, tmp_path / "second", "SPY") as second:
                    await second.task
    assert not (tmp_path / "second").exists()
