"""A hot standby beside the recorder, as processes: kills, hand-overs, freezes, compared with the gateway's journal."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest
import redis

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import lease_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.end_to_end.recording import Snapshot
from ibkr_depth_pipeline_tests.faults.ingest_process import (
    SCRIPT,
    SYMBOLS,
    IngestProcess,
    environment_of,
    grows,
    ingest_process,
)
from ibkr_depth_pipeline_tests.faults.sent_books import books_sent, unsent
from ibkr_depth_pipeline_tests.faults.test_lease import assert_whole


class Pair:
    """Recorders with a standby beside one gateway and one Redis."""

    def __init__(
        self, folder: Path, redis_url: str, gateway: GatewayThread, stack: ExitStack, **settings: object
    ) -> None:
        self.redis_url = redis_url
        self.gateway = gateway
        self._folder = folder
        self._stack = stack
        self._names = itertools.count(1)
        given = {"ibkr_standby": "on", "ibkr_rotation_secs": 3600, **settings}
        self._env = environment_of(folder, gateway.port, redis_url, *SYMBOLS, **given)

    def start(self) -> IngestProcess:
        return self._stack.enter_context(ingest_process(self._folder, f"run{next(self._names)}", self._env))

    def recording(self) -> IngestProcess:
        """One that records."""
        run = self.start()
        run.said("lease_acquired")
        self.grow()
        return run

    def waiting(self) -> IngestProcess:
        """One that stands by, ready."""
        run = self.start()
        run.said("standby_ready")
        return run

    def grow(self, by: int = 50) -> None:
        for symbol in SYMBOLS:
            grows(self.redis_url, symbol, by)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The console script, with the settings of the recorders."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("IBKR_", "REDIS_", "SYMBOL_"))}
        return subprocess.run(
            [SCRIPT, *words], env={**env, **self._env}, cwd=self._folder, capture_output=True, text=True
        )

    def holder(self) -> int | None:
        """The process that has the lease, as Redis knows it."""
        with redis.Redis.from_url(self.redis_url) as client:
            text = client.get(lease_key("default"))
            return None if text is None else int(orjson.loads(text)["pid"])

    def took_over(self, run: IngestProcess) -> None:
        run.said("lease_acquired")
        assert self.holder() == run.pid
        self.grow()

    def end(self, run: IngestProcess) -> None:
        run.process.send(signal.SIGTERM)
        assert run.ended() == 0, run.log_path.read_text()[-2000:]

    def assert_once(self) -> None:
        """Each stored book is the next one that the gateway sent, in order over all connections: nothing twice."""
        assert_whole(self.redis_url)
        sent = books_sent(self.gateway.journal.entries())
        with redis.Redis.from_url(self.redis_url) as client:
            for symbol in SYMBOLS:
                stored = [_snapshot(fields) for _, fields in client.xrange(stream_key(symbol))]
                assert unsent(stored, sent[symbol]) is None, symbol


def _snapshot(fields: dict[bytes, bytes]) -> Snapshot:
    ts, seq, venue = int(fields[b"ts"]), int(fields[b"seq"]), fields[b"venue"].decode()
    return Snapshot(ts, seq, venue, orjson.loads(fields[b"bids"]), orjson.loads(fields[b"asks"]))


@pytest.fixture
def pair(tmp_path: Path, redis_url: str) -> Iterator[Pair]:
    with GatewayThread(GatewayOptions()) as gateway, ExitStack() as stack:
        yield Pair(tmp_path, redis_url, gateway, stack)


def test_standby_goes_on_after_a_kill_and_after_a_hand_over_on_the_connection_that_it_has(pair: Pair) -> None:
    first, second = pair.recording(), pair.waiting()
    first.kill()
    pair.took_over(second)
    third = pair.waiting()
    done = pair.command("handover")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"pid {third.pid}, records now" in done.stdout
    assert second.ended() == 0
    pair.took_over(third)
    assert pair.command("handover").returncode == 1, "no standby is ready"
    assert pair.holder() == third.pid
    assert [len(run.lines("connected")) for run in (second, third)] == [1, 1]
    assert not second.lines("slot_refused")
    pair.end(third)
    pair.assert_once()


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_hand_overs_there_and_back_again_lose_no_number_and_store_nothing_twice(pair: Pair) -> None:
    run = pair.recording()
    for _ in range(8):
        successor = pair.waiting()
        pair.end(run)
        pair.took_over(successor)
        run = successor
    pair.end(run)
    pair.assert_once()


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_kills_at_full_speed_at_random_moments_store_nothing_twice(tmp_path: Path, redis_url: str) -> None:
    dice = random.Random(16)
    with GatewayThread(GatewayOptions(rows_per_second=1000)) as gateway, ExitStack() as stack:
        pair = Pair(tmp_path, redis_url, gateway, stack)
        run = pair.recording()
        for _ in range(6):
            successor = pair.waiting()
            grows(redis_url, dice.choice(SYMBOLS), dice.randint(1, 1000))
            run.kill()
            pair.took_over(successor)
            run = successor
        pair.end(run)
        pair.assert_once()


@pytest.mark.faults
def test_recorder_that_is_frozen_beyond_the_ttl_is_fenced_off_when_it_thaws(pair: Pair) -> None:
    first, second = pair.recording(), pair.waiting()
    first.process.send(signal.SIGSTOP)
    pair.took_over(second)
    first.process.send(signal.SIGCONT)
    assert first.ended() == 1
    assert "another ingest has taken over" in first.log_path.read_text()
    pair.grow()
    assert pair.holder() == second.pid
    pair.end(second)
    pair.assert_once()


@pytest.mark.faults
def test_standby_that_is_killed_disturbs_nobody_and_another_takes_its_place(pair: Pair) -> None:
    first, second = pair.recording(), pair.waiting()
    second.kill()
    pair.grow()
    assert pair.holder() == first.pid
    third = pair.waiting()
    first.kill()
    pair.took_over(third)
    pair.end(third)
    pair.assert_once()


@pytest.mark.faults
def test_both_killed_at_once_leave_the_recording_to_the_first_that_starts(pair: Pair) -> None:
    first, second = pair.recording(), pair.waiting()
    second.process.send(signal.SIGKILL)
    first.process.send(signal.SIGKILL)
    for run in (first, second):
        run.ended()
    runs = [pair.start(), pair.start()]
    assert wait_until(lambda: any(run.lines("standby_ready") for run in runs), PATIENCE_SECS)
    records, waits = sorted(runs, key=lambda run: bool(run.lines("standby_ready")))
    pair.took_over(records)
    assert not waits.lines("lease_acquired")
    records.kill()
    pair.took_over(waits)
    pair.end(waits)
    pair.assert_once()


@pytest.mark.faults
def test_gateway_that_frees_slots_late_delays_a_hand_over_and_costs_no_place(tmp_path: Path, redis_url: str) -> None:
    with GatewayThread(GatewayOptions(slot_free_delay=1.0, slots_held_after_drop=1.0)) as gateway, ExitStack() as stack:
        pair = Pair(tmp_path, redis_url, gateway, stack)
        first, second = pair.recording(), pair.waiting()
        pair.end(first)
        pair.took_over(second)
        third = pair.waiting()
        second.kill()
        pair.took_over(third)
        assert not third.lines("batch_shrunk")
        pair.end(third)
        pair.assert_once()
