"""Who is recorded, as it changes during a run: the universe's entries, the symbols in focus, the markets that are open.

A new entry is claimed and numbered before it is resolved; a removed one keeps its claim until its last snapshot is
stored, so that another gateway may record it from then on (`Membership`). Symbols in focus are pinned, as other
programs ask (`FocusWatcher`).

Which markets are open is decided in open_markets.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ibkr_depth_pipeline.clock import loop_time, monotonic
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.formatting import utc
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest.composition import RunStore
from ibkr_depth_pipeline.ingest.effects import Effect
from ibkr_depth_pipeline.ingest.open_markets import OpenMarkets, by_reopening
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.ingest.subscriptions import Subscriptions
from ibkr_depth_pipeline.ingest.venue_search import ContractGate, VenueSearch
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.rotation.events import Focused
from ibkr_depth_pipeline.sink.symbol_keys import FocusRequest, read_focus
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline.universe.changes import UniverseChange, contract_text

MARKETS_CYCLE_SECS = 1.0
"""How often the hours of markets are checked."""


class Membership:
    """`load` and `begin` before the first symbol is recorded, `take` for each resolution, `apply` for each change.

    Until `begin`, as while it stands by, resolutions are kept, and a change claims nothing. Beside the recording
    `watch_markets` runs, and `release` is called every second or so. execute carries effects out; wall_ms() is unix ms;
    on_close() is called when the session of the universe's instruments is over.
    """

    def __init__(
        self,
        universe: Universe,
        pipeline: DepthPipeline,
        venues: VenueSearch,
        store: RunStore,
        markets: OpenMarkets,
        *,
        execute: Callable[[Iterable[Effect]], None],
        wall_ms: Callable[[], int],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.universe = universe
        self.markets = markets
        self._entries = _entries_of(universe)
        self._contracts = store.contracts
        self.gate = ContractGate(store.contract_claims, self._recorded, self._record, venues.resolve_again)
        self._unchecked: dict[int, Instrument] = {}  # by its id(), what was loaded and is not confirmed by the gateway
        self._pipeline = pipeline
        self._subscriptions = pipeline.subscriptions
        self._venues = venues
        self._lease = store.lease
        self._claims = store.claims
        self._writer = store.writer
        self._execute = execute
        self._wall_ms = wall_ms
        self._on_close = on_close
        self._leaving: set[str] = set()
        self._prepared: dict[str, Resolution] | None = {}  # None once it has begun
        self._log = get_log()

    # ---- the start

    async def number(self, symbols: Iterable[str]) -> None:
        """Fence the symbols' streams off, close a lost run's intervals, and set where their numbering goes on.

        The streams' ids are raised to a time at which the lease was certainly ours. It may have been lost while the
        process slept, and its next holder has raised the ids higher; so this is repeated if the lease may have been
        another's in between.
        """
        symbols = tuple(symbols)
        while True:
            now_ms = self._wall_ms()
            if await self._lease.confirm():
                snapshots = await self._writer.take_over(symbols, now_ms)
                subscriptions = await self._writer.take_over_turns(symbols, now_ms)
                if await self._lease.confirm():
                    break
        self._pipeline.books.number_from(snapshots)
        self._pipeline.intervals.number_from(subscriptions)
        self._pipeline.sizes.load(await self._writer.known_sizes(symbols))

    async def load(self) -> None:
        """Load the contracts of the last day, so that recording need not wait for the gateway's answers."""
        loaded = await self._contracts.load(self._entries, self._wall_ms())
        self._unchecked = {id(instrument): instrument for instrument in loaded}

    @property
    def prepared(self) -> int:
        """Of how many symbols it is known, before `begin`, which contract they have, or why none."""
        return len(self._prepared or ())

    def begin(self) -> None:
        """Set what is wished of each symbol, and take the contracts that are known already."""
        prepared, self._prepared = self._prepared or {}, None
        for spec in self.universe.specs:
            self.markets.wish(spec.name, spec.hours)
            if spec.pin or spec.weight != 1:
                self._want(spec)
        for instrument in list(self._unchecked.values()):
            if instrument.symbol not in prepared:
                self.gate.offer(instrument)
        for resolution in prepared.values():
            self.take(resolution)

    # ---- contracts and their markets

    def take(self, resolution: Resolution) -> None:
        """Take what the gateway has answered of a symbol: into its venue hash, the cache and the rotation.

        A contract passes the gate first: another ingest may record it under another name.
        """
        if self._prepared is not None:
            self._prepared[resolution.symbol] = resolution
            return
        if isinstance(resolution, Instrument):
            if entry := self._entries.get(resolution.symbol):
                self._contracts.note(resolution, entry)
            self.gate.offer(resolution)
        else:
            self.gate.forget(resolution.symbol)
            self._record(resolution)

    def _recorded(self) -> dict[str, Instrument]:
        contracts = self._subscriptions.contracts()
        return {symbol: each for symbol, each in contracts.items() if symbol in self._entries}

    def _record(self, resolution: Resolution) -> None:
        if self._unchecked.pop(id(resolution), None) is None:
            self._writer.record_venue(resolution, self._wall_ms())
        self._take_contract(resolution)

    def _take_contract(self, resolution: Resolution) -> None:
        if isinstance(resolution, Instrument):
            if problem := self.markets.resolved(resolution, self._wall_ms()):
                self._log.warning("hours_unreadable", symbol=resolution.symbol, reason=problem)
            self._follow_markets()  # before it is known to the rotation, so that a closed one is never subscribed to
        self._execute(self._subscriptions.resolved(resolution, loop_time()))

    def _follow_markets(self) -> None:
        changes = self.markets.changes(self._wall_ms())
        for symbol, closed_until in changes:
            change = self._subscriptions.closed if closed_until else self._subscriptions.opened
            self._execute(change(symbol, loop_time()))
        if opened := [change.symbol for change in changes if not change.closed_until]:
            self._log.info("markets_opened", symbols=opened)
        for until, symbols in by_reopening(changes).items():
            self._log.info("markets_closed", symbols=symbols, until=utc(until))

    async def watch_markets(self) -> None:
        """Follow the hours of markets until cancelled; hours that are old are asked for again."""
        while True:
            await asyncio.sleep(MARKETS_CYCLE_SECS)
            self._follow_markets()
            if self.markets.has_closed(self._wall_ms()):
                self._on_close()
            for symbol in self.markets.stale(self._wall_ms()):
                self._venues.resolve_again(symbol)

    # ---- changes of the universe

    async def apply(self, change: UniverseChange) -> None:
        """Put `change` in force, whole or not at all.

        Raises StreamHeld where another ingest records a new symbol, SinkUnavailable where Redis can't be asked.
        """
        if self._prepared is not None:
            self._prepare(change, self._prepared)
            return
        await self._enter(spec.name for spec in change.added)
        self.universe = change.universe
        self._entries = _entries_of(change.universe)
        for symbol in (*change.removed, *(spec.name for spec in change.contracts)):
            self.gate.forget(symbol)
            self._execute(self._subscriptions.removed(symbol, loop_time()))
        for symbol in change.removed:
            self.markets.forget(symbol)
            self._venues.forget(symbol)
        self._leaving |= set(change.removed)
        for spec in (*change.added, *change.contracts, *change.wishes):
            self._want(spec)
        for spec in (*change.added, *change.contracts):
            self._venues.add(spec)

    def _prepare(self, change: UniverseChange, prepared: dict[str, Resolution]) -> None:
        """Resolve what is new before anything is recorded."""
        self.universe, self._entries = change.universe, _entries_of(change.universe)
        for symbol in (*change.removed, *(spec.name for spec in change.contracts)):
            prepared.pop(symbol, None)
            self._venues.forget(symbol)
        for spec in (*change.added, *change.contracts):
            self._venues.add(spec)

    async def _enter(self, symbols: Iterable[str]) -> None:
        new = list(symbols)
        back = self._leaving & set(new)
        await self._claims.add(new)
        await self.number([symbol for symbol in new if symbol not in back])
        self._leaving -= back

    def _want(self, spec: SymbolSpec) -> None:
        self.markets.wish(spec.name, spec.hours)
        wanted = self._subscriptions.wanted(spec.name, weight=spec.weight, pinned=spec.pin, now=loop_time())
        self._execute(wanted)

    async def release(self) -> None:
        """Give the claims of symbols back that have left, and whose snapshots and intervals are all stored."""
        on = set(self._subscriptions.subscribed.values()) | self._pipeline.intervals.unstored()
        gone = {symbol for symbol in self._leaving if symbol not in on and not self._writer.has_unsent(symbol)}
        if not gone:
            return
        try:
            await self._claims.drop(gone)
        except SinkUnavailable:
            return  # the claims expire
        finally:
            self._leaving -= gone
        for symbol in gone - set(self.universe.symbols):
            self._writer.forget(symbol)


def _entries_of(universe: Universe) -> dict[str, str]:
    return {spec.name: contract_text(spec) for spec in universe.specs}


# ---- focus


FOCUS_CYCLE_SECS = 1.0
_SYMBOLS_PER_SEC = 1000
"""How often the keys are read: every second, of more than a thousand symbols more rarely."""


class FocusWatcher:
    """`run` it beside the recording. symbols() are those in force; execute carries effects out.

    While Redis is away a focus ends when its time is over.
    """

    def __init__(
        self,
        client: Client,
        subscriptions: Subscriptions,
        symbols: Callable[[], tuple[str, ...]],
        execute: Callable[[Iterable[Effect]], None],
    ) -> None:
        self._client = client
        self._subscriptions = subscriptions
        self._symbols = symbols
        self._execute = execute
        self._asked: dict[str, str] = {}
        self._ends: dict[str, float] = {}
        self._log = get_log()

    def describe(self) -> dict[str, str]:
        """symbol -> who asked for it, for how many seconds more."""
        now = monotonic()
        return {symbol: f"{by}, {max(0.0, self._ends[symbol] - now):.0f} s left" for symbol, by in self._asked.items()}

    async def run(self) -> None:
        """Follow the requests until cancelled."""
        while True:
            symbols = self._symbols()
            try:
                self._take(await read_focus(self._client, symbols))
            except UNREACHABLE:
                now = monotonic()
                left = [(symbol, by, self._ends[symbol] - now) for symbol, by in self._asked.items()]
                self._take([FocusRequest(*each) for each in left if each[2] > 0])
            await asyncio.sleep(max(FOCUS_CYCLE_SECS, len(symbols) / _SYMBOLS_PER_SEC))

    def _take(self, requests: list[FocusRequest]) -> None:
        asked = {request.symbol: request.by for request in requests}
        for request in requests:
            if self._asked.get(request.symbol) != request.by:
                self._log.info("focus_began", symbol=request.symbol, by=request.by, secs=round(request.secs))
        for symbol in self._asked.keys() - asked.keys():
            self._log.info("focus_ended", symbol=symbol, by=self._asked[symbol])
        changed = list(asked) != list(self._asked)
        self._asked = asked
        self._ends = {request.symbol: monotonic() + request.secs for request in requests}
        if changed:
            self._execute(self._subscriptions.rotate(Focused(tuple(asked)), loop_time()))
