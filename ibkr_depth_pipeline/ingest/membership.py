"""Who is recorded: puts the universe, and each change of it, in force while the run goes on.

A new entry is claimed and numbered before it is looked up; a removed one keeps its claim until its last snapshot is
stored, so that another gateway may record it from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.ingest.effects import Effect
from ibkr_depth_pipeline.ingest.open_markets import OpenMarkets
from ibkr_depth_pipeline.ingest.subscriptions import Subscriptions
from ibkr_depth_pipeline.ingest.venue_search import VenueSearch
from ibkr_depth_pipeline.sink.claims import StreamClaims
from ibkr_depth_pipeline.sink.writer import RedisWriter
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline.universe_changes import UniverseChange, contract_text


class Membership:
    """`begin` before the first symbol is resolved, `apply` for each change, `release` every second or so.

    number(symbols) fences their streams off and sets their numbering; execute carries effects out; now()
    is monotonic seconds.
    """

    def __init__(
        self,
        universe: Universe,
        subscriptions: Subscriptions,
        venues: VenueSearch,
        claims: StreamClaims,
        writer: RedisWriter,
        markets: OpenMarkets,
        *,
        number: Callable[[Iterable[str]], Awaitable[None]],
        execute: Callable[[Iterable[Effect]], None],
        now: Callable[[], float],
    ) -> None:
        self.universe = universe
        self._entries = _entries_of(universe)
        self._markets = markets
        self._subscriptions = subscriptions
        self._venues = venues
        self._claims = claims
        self._writer = writer
        self._number = number
        self._execute = execute
        self._now = now
        self._leaving: set[str] = set()

    def entries(self) -> dict[str, str]:
        """name -> its entry as text, as far as the contract goes, in the order of the universe."""
        return self._entries

    def begin(self) -> None:
        """Tell the rotation what is wished of each symbol."""
        for spec in self.universe.specs:
            self._markets.wish(spec.name, spec.hours)
            if spec.pin or spec.weight != 1:
                self._want(spec)

    async def apply(self, change: UniverseChange) -> None:
        """Put `change` in force, whole or not at all.

        Raises StreamHeld where another ingest records a new symbol, SinkUnavailable where Redis can't be asked.
        """
        await self._enter(spec.name for spec in change.added)
        self.universe = change.universe
        self._entries = _entries_of(change.universe)
        for symbol in (*change.removed, *(spec.name for spec in change.contracts)):
            self._execute(self._subscriptions.removed(symbol, self._now()))
        for symbol in change.removed:
            self._markets.forget(symbol)
            self._venues.forget(symbol)
        self._leaving |= set(change.removed)
        for spec in (*change.added, *change.contracts, *change.wishes):
            self._want(spec)
        for spec in (*change.added, *change.contracts):
            self._venues.add(spec)

    async def _enter(self, symbols: Iterable[str]) -> None:
        new = list(symbols)
        back = self._leaving & set(new)
        await self._claims.add(new)
        await self._number([symbol for symbol in new if symbol not in back])
        self._leaving -= back

    def _want(self, spec: SymbolSpec) -> None:
        self._markets.wish(spec.name, spec.hours)
        wanted = self._subscriptions.wanted(spec.name, weight=spec.weight, pinned=spec.pin, now=self._now())
        self._execute(wanted)

    async def release(self) -> None:
        """Give the claims of symbols back that have left, and whose snapshots are all stored."""
        on = set(self._subscriptions.subscribed.values())
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
