"""Lets a resolved contract into the recording once it is known that no other ingest records it.

Two gateways may come to one contract on one venue by entries that are worded differently, so only their ingests can
notice it: by claims in Redis (sink/claims.py). The second one to come is refused with both names, and waits until the
first one records it no more. While Redis is away nothing is refused: nobody can store anything then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.gateway.venues import Place, Resolution, place_of, refused_contract
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.sink.claims import ContractClaims
from ibkr_depth_pipeline.tasks import first_of

CYCLE_SECS = 1.0
"""How often it is checked which contracts other ingests have."""


class ContractGate:
    """`offer` each contract that is resolved, `forget` what is not recorded any more; `run` it beside the recording.

    recorded() are the contracts in force, by symbol; take is called with those that pass, and with why others do not;
    resolve_again(symbol) for one whose contract has become free.
    """

    def __init__(
        self,
        claims: ContractClaims,
        recorded: Callable[[], Mapping[str, Instrument]],
        take: Callable[[Resolution], None],
        resolve_again: Callable[[str], None],
    ) -> None:
        self._claims = claims
        self._recorded = recorded
        self._take = take
        self._resolve_again = resolve_again
        self._offered: dict[str, Instrument] = {}  # whether another ingest has them is not known yet
        self._held: dict[str, Instrument] = {}  # another ingest has them
        self._news = asyncio.Event()

    def offer(self, instrument: Instrument) -> None:
        """Take it now if it is claimed already, else as soon as it is known that nobody else has it."""
        self.forget(instrument.symbol)
        if self._claims.has(_place(instrument)):
            self._take(instrument)
        else:
            self._offered[instrument.symbol] = instrument
            self._news.set()

    def forget(self, symbol: str) -> None:
        """Its contract is another one now, or none."""
        self._offered.pop(symbol, None)
        self._held.pop(symbol, None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._news.clear()
            await self._claim()
            await first_of(self._news.wait(), asyncio.sleep(CYCLE_SECS))

    async def _claim(self) -> None:
        offered, recorded = list(self._offered.values()), list(self._recorded().values())
        wanted = {_place(each): each.symbol for each in (*self._held.values(), *offered, *recorded)}
        with contextlib.suppress(SinkUnavailable):
            await self._claims.claim(wanted)
        for instrument in (*recorded, *offered):
            if (holder := self._claims.held.get(_place(instrument))) is not None:
                self._refuse(instrument, holder)
            elif self._offered.get(instrument.symbol) is instrument:
                del self._offered[instrument.symbol]
                self._take(instrument)
        self._look_for_free_ones()

    def _refuse(self, instrument: Instrument, holder: str) -> None:
        self._offered.pop(instrument.symbol, None)
        self._held[instrument.symbol] = instrument
        self._take(refused_contract(instrument, holder))

    def _look_for_free_ones(self) -> None:
        for symbol, instrument in list(self._held.items()):
            if _place(instrument) not in self._claims.held:
                del self._held[symbol]
                self._resolve_again(symbol)


def _place(instrument: Instrument) -> Place:
    return place_of(instrument.con_id, instrument.exchange)
