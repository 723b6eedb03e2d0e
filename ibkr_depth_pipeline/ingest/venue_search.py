"""Looks for each symbol's venue: for all of them at the start, and again for one that may have got one since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest.resolver import resolve_symbol, resolve_symbols
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import Unresolved
from ibkr_depth_pipeline.universe import SymbolSpec

RECHECK_PAUSE_SECS = 5.0


class VenueSearch:
    """`look_for_all`, then `look_again` for single symbols; `take` is called with what was found of each.

    `connected` is set while the gateway may be asked again. `unresolved`: symbol -> why it has no venue.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        specs: Iterable[SymbolSpec],
        *,
        connected: asyncio.Event,
        take: Callable[[Resolution], None],
    ) -> None:
        self._gateway = gateway
        self._specs = {spec.symbol: spec for spec in specs}
        self._connected = connected
        self._take = take
        self._rechecking: set[str] = set()
        self._log = get_log()
        self.unresolved: dict[str, str] = {}

    async def look_for_all(self) -> bool:
        """Returns whether any symbol has a venue. Raises GatewayError where the gateway can't be asked."""
        resolutions = await resolve_symbols(self._gateway, self._specs.values())
        for resolution in resolutions.values():
            self._found(resolution)
        return len(self.unresolved) < len(resolutions)

    async def look_again(self, symbol: str) -> None:
        """Ask until there is an answer, whatever becomes of the connection. Returns at once where that is under way."""
        if symbol in self._rechecking:
            return
        self._rechecking.add(symbol)
        try:
            resolution = await self._ask_until_answered(self._specs[symbol])
        finally:
            self._rechecking.discard(symbol)
        self._found(resolution)

    async def _ask_until_answered(self, spec: SymbolSpec) -> Resolution:
        while True:
            await self._connected.wait()
            try:
                return await resolve_symbol(self._gateway, spec)
            except (GatewayError, ConnectionError) as error:  # says nothing of the symbol
                self._log.warning("recheck_failed", symbol=spec.symbol, error=str(error))
                await asyncio.sleep(RECHECK_PAUSE_SECS)

    def _found(self, resolution: Resolution) -> None:
        if isinstance(resolution, Unresolved):
            self.unresolved[resolution.symbol] = resolution.reason
        else:
            self.unresolved.pop(resolution.symbol, None)
            self._log.info(
                "symbol_resolved",
                symbol=resolution.symbol,
                con_id=resolution.con_id,
                exchange=resolution.exchange,
                primary_exchange=resolution.primary_exchange,
            )
        self._take(resolution)
