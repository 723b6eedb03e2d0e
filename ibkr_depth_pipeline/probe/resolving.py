"""Symbols -> contracts and venues, each by itself: one that the gateway chokes on costs the others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import DepthExchange, Resolution, resolve
from ibkr_depth_pipeline.ingest.resolver import wanted_of
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.probe.report import Outcome, SymbolReport
from ibkr_depth_pipeline.universe import SymbolSpec

_UNKNOWN_CONTRACT = 200
_QUESTIONS_AT_ONCE = 20

Answer = tuple[Resolution | None, SymbolReport | None]
"""What the gateway's answer leads to, if there was one; and the report of a symbol that ends here."""


async def resolve_each(gateway: TwsGateway, specs: Iterable[SymbolSpec]) -> AsyncIterator[Answer]:
    """The answers as they come. Raises GatewayError where the gateway does not even name its depth exchanges."""
    deep = await gateway.depth_exchanges()
    gate = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def one(spec: SymbolSpec) -> Answer:
        async with gate:
            return await _resolve(gateway, spec, deep)

    questions = [asyncio.ensure_future(one(spec)) for spec in specs]
    try:
        for question in asyncio.as_completed(questions):
            yield await question
    finally:
        for each in questions:
            each.cancel()
        await asyncio.gather(*questions, return_exceptions=True)


async def _resolve(gateway: TwsGateway, spec: SymbolSpec, deep: Sequence[DepthExchange]) -> Answer:
    wanted = wanted_of(spec)
    try:
        answers = await gateway.contracts(wanted)
    except (GatewayError, ConnectionError) as error:
        return None, SymbolReport(spec.symbol, Outcome.NO_ANSWER, str(error))
    found = resolve(wanted, answers, deep)
    if isinstance(found, Instrument):
        get_log().info("symbol_resolved", symbol=found.symbol, con_id=found.con_id, exchange=found.exchange)
        return found, None
    get_log().warning("symbol_skipped", symbol=found.symbol, reason=found.reason)
    return found, _unresolved(found, () if answers else (_UNKNOWN_CONTRACT,))


def _unresolved(found: Unresolved, codes: tuple[int, ...]) -> SymbolReport:
    return SymbolReport(
        found.symbol,
        Outcome.UNRESOLVED,
        found.reason,
        con_id=found.con_id,
        primary_exchange=found.primary_exchange,
        valid_exchanges=found.valid_exchanges,
        l2=False,
        codes=codes,
    )


def venue_only(found: Instrument) -> SymbolReport:
    """A resolved symbol that is not subscribed to, since an ingest runs."""
    return SymbolReport(
        found.symbol,
        Outcome.VENUE_ONLY,
        f"has depth on {found.exchange} by the gateway's list; not subscribed, an ingest holds the slots",
        con_id=found.con_id,
        venue_requested=found.exchange,
        primary_exchange=found.primary_exchange,
        valid_exchanges=found.valid_exchanges,
    )
