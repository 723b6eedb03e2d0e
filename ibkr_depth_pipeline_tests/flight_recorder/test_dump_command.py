"""`ibkr_ingest_run dump` prints which ingest wrote which tape, or why there is none."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.tape.files import read_head
from ibkr_depth_pipeline_tests.flight_recorder.dumping import flown


def dump(folder: Path, redis_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "REDIS_URL": redis_url}
    command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.ingest_run", "dump", *words]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


async def test_command_prints_host_and_path_of_each_gateways_tape_and_names_the_one_that_does_not_run(
    shared_redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    entries = []
    for name, symbol, port in (("one", "SPY", 4001), ("two", "QQQ", 4002), ("three", "IWM", 4003)):
        (tmp_path / "config" / f"{name}.yaml").write_text(json.dumps({"symbols": [symbol]}))
        entries.append({"name": name, "port": port, "universe": f"{name}.yaml"})
    (tmp_path / "config" / "gateways.yaml").write_text(json.dumps({"gateways": entries}))
    options = GatewayOptions(rows_per_second=50)
    async with SimulatedGateway(options) as gateway, SimulatedGateway(options) as other:
        async with flown(gateway, shared_redis_url, tmp_path / "tapes", "SPY", ibkr_gateway_name="one") as run:
            async with flown(other, shared_redis_url, tmp_path / "tapes", "QQQ", ibkr_gateway_name="two") as beside:
                await run.grows("SPY", 20)
                await beside.grows("QQQ", 20)
                ended = await _in_thread(dump, tmp_path, shared_redis_url)
                only = await _in_thread(dump, tmp_path, shared_redis_url, "--gateway", "two")
    assert ended.returncode == 1
    assert "three" in ended.stderr
    assert [line.split(" on ")[0] for line in ended.stdout.splitlines()] == ["one", "two"]
    paths = [Path(line.partition(": ")[2]) for line in (*ended.stdout.splitlines(), *only.stdout.splitlines())]
    assert [read_head(path)["gateway"]["name"] for path in paths] == ["one", "two", "two"]
    assert only.returncode == 0


@pytest.mark.parametrize(("words", "code", "said"), [((), 1, "no ingest"), (("--gateway", "x"), 2, "'x' is none of")])
def test_command_without_an_ingest_or_with_a_strange_name_says_what_is_wrong(
    shared_redis_url: str, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = dump(tmp_path, shared_redis_url, *words)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr


async def _in_thread(*call: object) -> subprocess.CompletedProcess[str]:

    return await asyncio.to_thread(*call)  # type: ignore[arg-type]
