"""Who is shown to hold a slot, on page and terminal, while turns change: never more symbols than there are slots."""

from __future__ import annotations

from collections import Counter

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.reader import AsyncDepthReader
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.tui.poller import Poller
from ibkr_depth_pipeline.tui.turn_record import TurnRecord
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of

SYMBOLS = ["SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL"]
SLOTS, TURN_SECS = 2, 0.6


async def test_no_more_symbols_hold_a_slot_than_there_are_while_turns_change(shared_redis_url: str) -> None:
    poller, reader, record = Poller(shared_redis_url, "default"), AsyncDepthReader(shared_redis_url), TurnRecord()
    shown: Counter[str] = Counter()
    before: frozenset[str] = frozenset()

    async def seen_twice() -> bool:
        nonlocal before
        state, now = await poller.poll(), unix_ms()
        held = frozenset(line.symbol for line in state.lines if line.holds_slot)
        names = [line.symbol for line in state.lines]
        record.take(await reader.turns_since(record.cursors(names, now)) if names else {}, now)
        lanes = record.lanes(now, held)
        going_on = [symbol for symbol, lane in lanes.items() if lane[-1][2] is None]
        assert len(held) <= SLOTS, f"{sorted(held)} are shown to hold one of {SLOTS} slots"
        assert len(going_on) <= SLOTS, f"the lanes of {going_on} go on"
        shown.update(held - before)
        before = held
        return all(shown[symbol] >= 2 for symbol in SYMBOLS)

    async with SimulatedGateway(GatewayOptions(slots=SLOTS)) as gateway:
        limits = {"ibkr_max_concurrent_depth": SLOTS, "ibkr_rotation_secs": TURN_SECS}
        async with recording(gateway, shared_redis_url, universe_of(*SYMBOLS), **limits) as run:
            await run.until(seen_twice)
    await poller.aclose()
    await reader.aclose()
