"""What the tests of gateway faults share: a run beside a scenario, fresh books, right books, and a stopwatch."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway, load_scenario
from ibkr_depth_pipeline.simulation.journal import Entry
from ibkr_depth_pipeline.simulation.scenario import ScenarioStep
from ibkr_depth_pipeline_tests.end_to_end.observed import assert_observed
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

FAST: dict[str, Any] = {
    "ibkr_rotation_secs": 3600,
    "ibkr_first_row_secs": 2,
    "ibkr_error309_cooldown_secs": 0.2,
    "ibkr_stall_secs": 1,
}


@dataclass(frozen=True)
class Trial:
    """A recording beside a gateway with which things go wrong, and what the recorder logs."""

    gateway: SimulatedGateway
    run: Recording
    symbols: Sequence[str]
    logged: list[Any]
    steps: Sequence[ScenarioStep] = ()

    def said(self, event: str) -> list[Any]:
        """The log lines of that name."""
        return [line for line in self.logged if line["event"] == event]

    async def fresh(self, rows: int = 50) -> None:
        """Wait until every symbol has so many more snapshots than now."""
        for symbol in self.symbols:
            await self.run.grows(symbol, rows)

    async def right(self) -> None:
        """Stop the market, and wait until every newest snapshot is the gateway's own book."""
        self.gateway.set_rate(0.0)

        async def equal() -> bool:
            return all([await self._is_right(symbol) for symbol in self.symbols])

        await self.run.until(equal)

    async def _is_right(self, symbol: str) -> bool:
        books = [feed.book for (name, _), feed in self.gateway.feeds.items() if name == symbol]
        newest = await self.run.newest(symbol)
        return any(
            [price for price, _, _ in newest.bids] == [level.price for level in book.bids[:10]]
            and [size for _, size, _ in newest.bids] == [level.size for level in book.bids[:10]]
            and [price for price, _, _ in newest.asks] == [level.price for level in book.asks[:10]]
            for book in books
        )

    async def complete(self) -> None:
        """Wait until each row that was sent has its snapshot; for a connection on which none was lost."""

        async def stored() -> bool:
            rows = self.gateway.journal.row_counts
            return all([await self.run.length(symbol) == rows[symbol] for symbol in self.symbols])

        await self.run.until(stored)

    async def whole(self) -> None:
        """Every stream is numbered from 1 without a hole or a repeat, and its times never fall."""
        for symbol in self.symbols:
            stream = await self.run.stream(symbol)
            assert [snapshot.seq for snapshot in stream] == list(range(1, len(stream) + 1))
            assert [snapshot.ts for snapshot in stream] == sorted(snapshot.ts for snapshot in stream)

    def faults(self) -> list[Entry]:
        """What the scenario has done so far."""
        return self.gateway.journal.entries("fault")

    def open_lines(self) -> int:
        """Subscriptions that the gateway still serves."""
        return sum(len(client.session.subscriptions) for client in self.gateway.clients.values())


@asynccontextmanager
async def trial(
    redis_url: str,
    *symbols: str,
    scenario: str | None = None,
    options: GatewayOptions | None = None,
    **settings: Any,
) -> AsyncIterator[Trial]:
    """The recorder beside a gateway, with a shipped scenario where one is named. No line is left open at the end."""
    chosen = load_scenario(scenario) if scenario else None
    options = options or GatewayOptions()
    gateway = SimulatedGateway(chosen.applied_to(options) if chosen else options, chosen.steps if chosen else ())
    with structlog.testing.capture_logs() as logged:
        async with gateway:
            async with recording(gateway, redis_url, universe_of(*symbols), **{**FAST, **settings}) as run:
                under_trial = Trial(gateway, run, symbols, logged, chosen.steps if chosen else ())
                yield under_trial
                await run.stop()
                for symbol in symbols:
                    await assert_observed(run.redis, symbol)
            await gateway.wait_for(lambda: not gateway.clients)


@contextmanager
def stopwatch(what: str) -> Iterator[None]:
    """Prints how long the block took: a figure for docs/faults.md, not a promise (pytest -s shows it)."""
    began = time.monotonic()
    yield
    print(f"\nMEASURED {what}: {time.monotonic() - began:.2f} s")
