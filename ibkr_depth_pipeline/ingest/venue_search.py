"""Looks for each symbol's venue: for all of them from the start on, and again for one that may have got one since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ibkr_depth_pipeline.errors import NothingToRecord
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest.resolver import NoAnswer, Resolver
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import Unresolved
from ibkr_depth_pipeline.universe import SymbolSpec


class VenueSearch:
    """`run` it beside the recording; `take` is called with what is found of each symbol, as soon as it is known.

    Questions go out while `connected` is set, and whatever becomes of the connection. `unresolved`: symbol -> why it
    has no venue.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        specs: Iterable[SymbolSpec],
        *,
        connected: asyncio.Event,
        take: Callable[[Resolution], None],
    ) -> None:
        asked = tuple(specs)
        self._unknown = {spec.symbol for spec in asked}
        self._resolver = Resolver(gateway, asked, ready=connected.wait)
        self._take = take
        self._log = get_log()
        self._found_any = False
        self.unresolved: dict[str, str] = {}

    async def run(self) -> None:
        """For ever. Raises NothingToRecord where every symbol has got its verdict and none of them a venue."""
        async for found in self._resolver.results(for_ever=True):
            if not isinstance(found, NoAnswer):
                self._found(found)

    async def look_again(self, symbol: str) -> None:
        """Ask about it anew, unless that is under way."""
        self._resolver.ask(symbol)

    def look_for_missing(self) -> None:
        """The gateway's state has changed: ask now for all that have no venue."""
        for symbol in self.unresolved:
            self._resolver.ask(symbol)
        self._resolver.hurry()

    def _found(self, resolution: Resolution) -> None:
        self._unknown.discard(resolution.symbol)
        if isinstance(resolution, Unresolved):
            self.unresolved[resolution.symbol] = resolution.reason
        else:
            self._found_any = True
            self.unresolved.pop(resolution.symbol, None)
            self._log.info(
                "symbol_resolved",
                symbol=resolution.symbol,
                con_id=resolution.con_id,
                exchange=resolution.exchange,
                primary_exchange=resolution.primary_exchange,
            )
        self._take(resolution)
        if not self._unknown and not self._found_any:
            raise NothingToRecord(self.unresolved)
