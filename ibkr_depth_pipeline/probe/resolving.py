"""Symbols -> contracts and venues, each by itself: one that the gateway chokes on costs the others nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import NO_CONTRACT, Resolution
from ibkr_depth_pipeline.ingest.resolver import PATIENT_TRIES, NoAnswer, Resolver
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.probe.report import Outcome, SymbolReport
from ibkr_depth_pipeline.universe import SymbolSpec

_UNKNOWN_CONTRACT = 200

Answer = tuple[Resolution | None, SymbolReport | None]
"""What the gateway's answer leads to, if there was one; and the report of a symbol that ends here."""


async def resolve_each(
    gateway: TwsGateway, specs: Iterable[SymbolSpec], ready: Callable[[], Awaitable[object]]
) -> AsyncIterator[Answer]:
    """The answers as they come; what was answered is kept where `ready` connects anew. Raises what `ready` raises."""
    async for found in Resolver(gateway, specs, ready=ready, most_tries=PATIENT_TRIES).results():
        yield _answer(found)


def _answer(found: Resolution | NoAnswer) -> Answer:
    if isinstance(found, NoAnswer):
        return None, SymbolReport(found.symbol, Outcome.NO_ANSWER, found.reason)
    if isinstance(found, Instrument):
        get_log().info("symbol_resolved", symbol=found.symbol, con_id=found.con_id, exchange=found.exchange)
        return found, None
    get_log().warning("symbol_skipped", symbol=found.symbol, reason=found.reason)
    return found, _unresolved(found, (_UNKNOWN_CONTRACT,) if found.reason == NO_CONTRACT else ())


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
