"""A flood of bad rows, bad frames and errors beside good rows: all counted, few logged, no memory, and the books right.

FLOOD_MESSAGES sets the number of messages of the long run (make test-faults), FLOOD_SEED where it begins.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean

import psutil
import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.logs import LINES_PER_WINDOW
from ibkr_depth_pipeline.reader import DepthReader
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, GatewayThread, SimulatedGateway
from ibkr_depth_pipeline.simulation.distortions import BAD_FRAMES, MALFORMED_ROWS, raw_row
from ibkr_depth_pipeline.simulation.replies import error_message, raw_depth_row
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.faults.ingest_process import (
    IngestProcess,
    environment_of,
    ingest_process,
)

SYMBOLS = ("SPY", "QQQ")
VERSION = 176
MESSAGES_AT_ONCE = 2000
FRAMES = [kind for kind in BAD_FRAMES if kind != "absurd_length"]
ERRORS = {
    100: "pacing_violation",
    200: "depth_refused",
    309: "slot_refused",
    310: "cancel_rejected",
    316: "depth_halted",
    317: "book_reset",
    322: "request_id_rejected",
    437: "gateway_notice",
    2106: "feed_healthy",
}
"""Error codes that say nothing of a request which does not exist, and what is logged of them."""

MOST_CANCELS = 100


@dataclass
class Flood:
    """Bad messages of every kind, about live requests and about ones that never were; and what they are."""

    dice: random.Random
    live: list[int]
    dropped: int = 0
    said: Counter[str] = field(default_factory=Counter)

    def message(self) -> bytes:
        kind = self.dice.random()
        if kind < 0.6:
            self.dropped += 1
            return self._row()
        if kind < 0.8:
            self.dropped += 1
            return BAD_FRAMES[self.dice.choice(FRAMES)](self._request())
        code = self.dice.choice(list(ERRORS))
        self.said[ERRORS[code]] += 1
        return error_message(self._stranger(), code, f"no such thing {self.dice.random()}", VERSION)

    def _row(self) -> bytes:
        request, named = self._request(), self.dice.random() < 0.5
        malformed = request in self.live or self.dice.random() < 0.5
        row = self.dice.choice(list(MALFORMED_ROWS.values())) if malformed else raw_row()
        stranger = f"M{self.dice.randrange(10**9)}"
        return raw_depth_row(request, {**row, "market_maker": stranger}, named, smart=False, version=VERSION)

    def _request(self) -> int:
        return self.dice.choice(self.live) if self.dice.random() < 0.5 else self._stranger()

    def _stranger(self) -> int:
        return self.dice.randrange(10**6, 2**31)


async def pour(gateway: SimulatedGateway, data: bytes) -> None:
    gateway.send_raw(data.hex())
    await asyncio.gather(*(client.drained() for client in gateway.clients.values()))


def figures(url: str) -> FeedFigures:
    """What the ingest says of itself."""
    found = asyncio.run(read_health(url, "default", ())).feed.figures
    assert found is not None
    return found


def dropped(told: FeedFigures) -> int:
    return sum(sum(each.dropped.values()) for each in told.symbols.values())


def grows(url: str, by: int) -> None:
    """Wait until every symbol has so many more snapshots."""
    with DepthReader(url) as reader:
        for symbol in SYMBOLS:
            first = reader.latest(symbol)
            seen = first.seq if first else 0
            assert wait_until(lambda: (newest := reader.latest(symbol)) and newest.seq >= seen + by, PATIENCE_SECS)  # noqa: B023


def is_right(url: str, gateway: GatewayThread) -> bool:
    """Whether every newest snapshot is the gateway's own book."""
    books = gateway.do(lambda simulated: {name: feed.book for (name, _), feed in simulated.feeds.items()})
    with DepthReader(url) as reader:
        for symbol in SYMBOLS:
            newest = reader.latest(symbol)
            assert newest is not None
            for side, own in ((newest.bids, books[symbol].bids), (newest.asks, books[symbol].asks)):
                if [(row.price, row.size) for row in side] != [(row.price, row.size) for row in own[:10]]:
                    return False
    return True


def flooded(redis_url: str, folder: Path, messages: int, seed: int) -> list[int]:
    """Flood a run with so many messages, check what became of them, and return its memory (bytes), sample by sample."""
    options = GatewayOptions(rows_per_second=50, keep_rows=False, journal_entries=1000)
    with GatewayThread(options) as gateway:
        environment = environment_of(folder, gateway.port, redis_url, *SYMBOLS, ibkr_rotation_secs=3600)
        with ingest_process(folder, "ingest", environment) as run:
            grows(redis_url, 20)
            before = Counter(line["event"] for line in run.lines())
            live = [int(entry.detail["request_id"]) for entry in gateway.journal.entries("subscribed")]
            flood, memory = Flood(random.Random(seed), live), []
            for _ in range(0, messages, MESSAGES_AT_ONCE):
                data = b"".join(flood.message() for _ in range(MESSAGES_AT_ONCE))
                gateway.do(lambda simulated, data=data: pour(simulated, data))
                memory.append(psutil.Process(run.pid).memory_info().rss)
            assert wait_until(lambda: dropped(figures(redis_url)) >= flood.dropped, PATIENCE_SECS)
            grows(redis_url, 20)
            gateway.do(lambda simulated: simulated.set_rate(0.0))
            assert wait_until(lambda: is_right(redis_url, gateway), PATIENCE_SECS)
            memory.append(psutil.Process(run.pid).memory_info().rss)
            run.process.end(grace_secs=6)
            check(run, figures(redis_url), flood, before)
    return memory


def check(run: IngestProcess, told: FeedFigures, flood: Flood, before: Counter[str]) -> None:
    # The flood puts books out of step, so lines are asked for again: the gateway's own rows of retired ids come on top.
    retired = sum(told.symbols[symbol].dropped.get("retired_request", 0) for symbol in SYMBOLS)
    assert flood.dropped <= dropped(told) <= flood.dropped + retired
    assert told.connections == 1
    assert sum(line["rows"] for line in run.lines("rows_dropped")) == dropped(told)
    reports = run.lines("lines_left_out")
    for event, sent in flood.said.items():
        logged = len(run.lines(event)) - before[event]
        left_out = [line["lines"] for line in reports if line["of"] == event]
        # those that are cancelled once more, as the flood goes on to send their rows, answer 310
        assert sent <= logged + sum(left_out) <= sent + (MOST_CANCELS if event == "cancel_rejected" else 0), event
        assert logged <= LINES_PER_WINDOW * (len(left_out) + 1), event


def test_flood_of_bad_messages_is_counted_and_hardly_logged(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    memory = flooded(redis_server.url, tmp_path, 50_000, seed=1)
    assert memory[-1] < memory[0] + 16 * 2**20


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_flood_of_a_million_bad_messages_takes_no_memory(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    messages, seed = int(os.environ.get("FLOOD_MESSAGES", "1000000")), int(os.environ.get("FLOOD_SEED", "1"))
    memory = flooded(redis_server.url, tmp_path, messages, seed)
    quarter = len(memory) // 4
    parts = [mean(islice(memory, start * quarter, (start + 1) * quarter)) / 2**20 for start in range(4)]
    shown = ", ".join(f"{each:.1f} MiB" for each in parts)
    print(f"\nMEASURED flood: {messages:,} messages; memory by quarters: {shown}")
    assert parts[3] < parts[1] + 2
