"""Symbols -> concrete venues, by asking the gateway and choosing with gateway/venues.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import INDEX_SYMBOLS, DepthExchange, Resolution, Wanted, resolve
from ibkr_depth_pipeline.model import Unresolved
from ibkr_depth_pipeline.universe import SymbolSpec

_QUESTIONS_AT_ONCE = 20
"""ib_insync sends at most 45 messages a second; what waits longer than an answer may take would time out."""


def wanted_of(spec: SymbolSpec) -> Wanted:
    """What the universe asks for, with the defaults of a US stock, or of an index where the name is one's."""
    return Wanted(
        symbol=spec.symbol,
        sec_type=spec.sec_type or ("IND" if spec.symbol in INDEX_SYMBOLS else "STK"),
        currency=spec.currency or "USD",
        exchange=spec.exchange,
        primary_exchange=spec.primary_exchange,
        con_id=spec.con_id,
    )


async def resolve_symbols(gateway: TwsGateway, specs: Iterable[SymbolSpec]) -> Mapping[str, Resolution]:
    """The venue of each symbol, or why it has none, in the order of `specs`.

    An answer that is missing or odd costs only its own symbol. Raises GatewayUnavailable where the gateway is gone.
    """
    depth_exchanges = await gateway.depth_exchanges()
    gate = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def one(spec: SymbolSpec) -> Resolution:
        async with gate:
            return await resolve_symbol(gateway, spec, depth_exchanges)

    found = await asyncio.gather(*(one(spec) for spec in specs))
    return {resolution.symbol: resolution for resolution in found}


async def resolve_symbol(
    gateway: TwsGateway, spec: SymbolSpec, depth_exchanges: Iterable[DepthExchange] | None = None
) -> Resolution:
    """As resolve_symbols, for one symbol."""
    deep = await gateway.depth_exchanges() if depth_exchanges is None else depth_exchanges
    wanted = wanted_of(spec)
    try:
        answers = await gateway.contracts(wanted)
    except GatewayUnavailable as silence:
        await gateway.server_time()  # raises where it is the gateway that is silent, and not only about this symbol
        return Unresolved(spec.symbol, str(silence))
    except GatewayError as refusal:
        return Unresolved(spec.symbol, str(refusal))
    return resolve(wanted, answers, deep)
