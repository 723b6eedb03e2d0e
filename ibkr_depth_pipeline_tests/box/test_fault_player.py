"""Faults played on a small market without Dagster: what is measured is what happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.fault_player import FaultPlayer
from ibkr_depth_pipeline.box.faults import FaultName, FaultTrial, PlannedFault
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.box.run_folder import LogFollower, parse_line
from ibkr_depth_pipeline.box.watching import MarketWatcher
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.faults.ingest_process import environment_of, ingest_process

SYMBOLS = ("SPY", "QQQ", "IWM")
_PACE = {"ibkr_rotation_secs": 1, "ibkr_silent_line_secs": 1, "ibkr_first_row_secs": 2}


class SmallMarket:
    """A player and what it plays on; the recorder is the console script."""

    def __init__(self, player: FaultPlayer, watcher: MarketWatcher, log: LogFollower) -> None:
        self.player, self._watcher, self._log = player, watcher, log
        self.said: list[str] = []

    def step(self) -> None:
        for raw in self._log.new_lines():
            event = parse_line(raw)
            self.player.on_event(event.name, event.at, event.fields)
        for state in self._watcher.new():
            self.player.on_state(state)
        self.player.tick()

    def wait_until_played(self) -> FaultTrial:
        def played() -> bool:
            self.step()
            return self.player.is_done

        assert wait_until(played, PATIENCE_SECS), self.said
        return self.player.outcomes[-1]


@contextmanager
def small_market(folder: Path, redis: EmbeddedRedis, *script: PlannedFault, slots: int = 2) -> Iterator[SmallMarket]:
    options = GatewayOptions(slots=slots, rows_per_second=20, keep_rows=False, journal_entries=1000)
    with GatewayThread(options) as gateway:
        environment = environment_of(
            folder, gateway.port, redis.url, *SYMBOLS, **_PACE, ibkr_max_concurrent_depth=slots
        )
        sent = gateway.journal.row_counts.total
        with ingest_process(folder, "run", environment), MarketWatcher(redis.url, SYMBOLS, sent) as watcher:
            said: list[str] = []
            player = FaultPlayer(gateway, redis, said.append, script)
            market = SmallMarket(player, watcher, LogFollower(folder, "*.log"))
            market.said = said
            yield market
            player.close()


@pytest.fixture(autouse=True)
def _no_wait_for_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody alerts here."""
    monkeypatch.setattr("ibkr_depth_pipeline.box.faults.ALERT_MS", 0)
    monkeypatch.setattr("ibkr_depth_pipeline.box.faults.SETTLE_MS", 1_500)


def test_faults_of_a_script_are_played_one_after_the_other_and_measured(
    tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    script = (
        PlannedFault(FaultName.REDIS_PAUSED, at=2, secs=1.5),
        PlannedFault(FaultName.SLOT_STOLEN, at=2, secs=2),
    )
    with small_market(tmp_path, redis_server, *script) as market:
        market.wait_until_played()
        paused, stolen = market.player.outcomes
    assert [trial.fault for trial in (paused, stolen)] == list(script)
    assert market.player.recovered
    assert paused.rows_lost == 0
    assert stolen.noticed is not None
    for trial in (paused, stolen):
        assert trial.live is not None
        assert trial.ended is not None
        assert trial.began < trial.ended <= trial.live
    assert [line for line in market.said if line.startswith("Fault: ")] == [
        "Fault: Redis stops answering for 1.5 s",
        "Fault: another program takes a slot for 2 s",
    ]
    assert sum(line.startswith("Measured: ") for line in market.said) == 2


def test_gateway_that_goes_away_and_a_silent_symbol_are_noticed_and_live_again_after_their_end(
    tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    with small_market(tmp_path, redis_server, slots=len(SYMBOLS)) as market:
        market.player.ask(PlannedFault(FaultName.GATEWAY_AWAY, secs=1))
        market.player.ask(PlannedFault(FaultName.SYMBOL_SILENT, secs=4, symbol="QQQ"))
        market.wait_until_played()
    for trial in market.player.outcomes:
        assert trial.noticed is not None
        assert trial.alerted is None
        assert trial.live is not None
        assert trial.ended is not None
        assert trial.live >= trial.ended
        assert "alert after (never)" in trial.outcome()


def test_fault_that_is_cut_short_is_ended(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    with small_market(tmp_path, redis_server, PlannedFault(FaultName.REDIS_PAUSED, secs=3600)) as market:

        def begun() -> bool:
            market.step()
            return any(line.startswith("Fault: ") for line in market.said)

        assert wait_until(begun, PATIENCE_SECS)
    assert any(line.startswith("Not measured to its end") for line in market.said)
    redis_server.flush()  # it answers again
