"""The search for venues during a run, and when contracts are resolved again."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice, product

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.errors import GatewayError, NothingToRecord
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest.resolver import NO_EXCHANGES, NOT_ANSWERED
from ibkr_depth_pipeline.ingest.venue_search import (
    DAY_SECS,
    RECENT_SECS,
    ROLL_RETRY_SECS,
    ContractGate,
    ContractRefresh,
    VenueSearch,
)
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.options import Unready
from ibkr_depth_pipeline.sink.claims import AT_ONCE, ContractClaims, Place
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.status import identity_of_this_process
from ibkr_depth_pipeline.tasks import end
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.ingest.odd_gateway import OddGateway, connected

MANY = ["".join(letters) for letters in islice(product("ABCD", repeat=3), 60)]


class Search:
    """A search among some symbols, and what it has found so far."""

    def __init__(self, simulated: SimulatedGateway, client: OddGateway, *symbols: str) -> None:
        self.simulated = simulated
        self.client = client
        self.taken: list[Resolution] = []
        self.connected = asyncio.Event()
        self.venues = VenueSearch(
            client,
            map(SymbolSpec, symbols),
            connected=self.connected,
            take=self.taken.append,
            first_patience=0.2,
            spacing=0.05,
        )

    async def has(self, count: int) -> None:
        """Wait until so many symbols were handed on."""
        await self.simulated.wait_for(lambda: len(self.taken) >= count)

    def asked(self) -> Counter[str]:
        """How often each symbol was asked about."""
        return Counter(str(each.detail["symbol"]) for each in self.simulated.journal.requests("reqContractDetails"))


@asynccontextmanager
async def searching(
    *symbols: str, options: GatewayOptions | None = None, begin: bool = True, **failures: GatewayError
) -> AsyncIterator[Search]:
    async with connected(options or GatewayOptions(), **failures) as (simulated, client):
        search = Search(simulated, client, *symbols)
        if begin:
            search.connected.set()
        task = asyncio.ensure_future(search.venues.run())
        try:
            yield search
        finally:
            await end([task])


async def test_each_symbol_is_handed_on_and_those_without_a_venue_are_remembered() -> None:
    async with searching("SPY", "NOSUCH") as search:
        await search.has(2)
    assert [each.symbol for each in search.taken] == ["SPY", "NOSUCH"]
    assert search.venues.unresolved == {"NOSUCH": "the gateway knows no such contract (200)"}


async def test_search_in_which_no_symbol_has_a_venue_ends_at_the_time_given_with_a_verdict_on_each() -> None:
    async with searching("NOSUCH", "ZZTOP") as search:
        with pytest.raises(NothingToRecord) as failure:
            await search.venues.wait_for_first(asyncio.get_running_loop().time() + 0.5, longest_pause=60)
    assert set(failure.value.reasons) == {"NOSUCH", "ZZTOP"}
    assert {each.symbol for each in search.taken} == {"NOSUCH", "ZZTOP"}


@pytest.mark.parametrize(
    ("unready", "reason"),
    [(Unready.NO_EXCHANGES, NO_EXCHANGES), (Unready.SILENT, NOT_ANSWERED)],
)
async def test_lack_of_a_gateway_that_is_not_ready_is_logged_and_is_the_reason_in_the_end(
    unready: Unready, reason: str
) -> None:
    with capture_logs() as lines:
        async with searching("SPY", "QQQ", begin=False) as search:
            search.simulated.become_unready(unready)
            search.connected.set()
            with pytest.raises(NothingToRecord, match=reason):
                await search.venues.wait_for_first(asyncio.get_running_loop().time() + 3, longest_pause=0.2)
    logged = [line for line in lines if line["event"] == "gateway_not_ready"]
    assert 1 <= len(logged) <= 3
    assert reason in logged[-1]["reason"]


async def test_symbols_without_venue_are_asked_for_again_while_none_has_one() -> None:
    options = GatewayOptions(ready_after=2.0, unready=Unready.UNKNOWN_CONTRACTS)
    async with searching("SPY", "QQQ", options=options) as search:
        await search.venues.wait_for_first(math.inf, longest_pause=60)
        await search.simulated.wait_for(
            lambda: {each.symbol for each in search.taken if isinstance(each, Instrument)} == {"SPY", "QQQ"}
        )


async def test_symbols_are_handed_on_in_their_order_and_before_the_last_is_asked_about() -> None:
    async with searching(*MANY) as search:
        await search.has(1)
        assert len(search.asked()) < len(MANY)
        await search.has(len(MANY))
    assert [each.symbol for each in search.taken] == MANY


async def test_symbol_that_got_a_venue_since_is_no_longer_unresolved() -> None:
    async with searching("SPY", "QQQ", SPY=GatewayError("odd")) as search:
        await search.has(2)
        assert search.venues.unresolved == {"SPY": "odd"}
        search.client.failures.clear()
        search.venues.resolve_again("SPY")
        await search.has(3)
    assert isinstance(search.taken[-1], Instrument)
    assert search.venues.unresolved == {}


async def test_symbol_is_asked_about_once_at_a_time_and_only_while_the_connection_stands() -> None:
    async with searching("SPY", begin=False) as search:
        search.venues.resolve_again("SPY")
        search.venues.resolve_again("SPY")
        assert await search.client.server_time() > 0
        assert search.asked() == {}
        search.connected.set()
        await search.has(1)
        assert search.asked() == {"SPY": 1}


async def test_missing_answer_is_no_verdict_and_holds_no_other_up() -> None:
    silent, rest = MANY[:25], MANY[25:]
    options = GatewayOptions(unanswered_details=dict.fromkeys(silent, 2))
    async with searching(*MANY, options=options) as search:
        await search.has(len(MANY))
    assert [each.symbol for each in search.taken if each.symbol in rest] == rest
    assert not [each for each in search.taken if isinstance(each, Unresolved)]
    assert search.asked() == Counter({**dict.fromkeys(silent, 3), **dict.fromkeys(rest, 1)})


async def test_answered_question_is_not_asked_again_on_the_next_connection() -> None:
    async with searching(*MANY) as search:
        await search.has(30)
        search.connected.clear()
        known = {each.symbol for each in search.taken}
        search.simulated.drop_connections()
        await search.simulated.wait_for(lambda: not search.client.is_connected)
        await search.client.connect([778])
        search.connected.set()
        await search.has(len(MANY))
        asked = search.asked()
    assert all(asked[symbol] == 1 for symbol in known)
    assert sorted(each.symbol for each in search.taken) == sorted(MANY)


async def test_gateway_without_depth_exchanges_is_asked_again_at_once_when_a_farm_is_well() -> None:
    options = GatewayOptions(ready_after=3600, unready=Unready.NO_EXCHANGES)
    async with searching("SPY", "QQQ", options=options) as search:
        await search.simulated.wait_for(lambda: len(search.simulated.journal.requests("reqMktDepthExchanges")) > 1)
        assert search.taken == []
        search.simulated.become_ready()
        search.venues.resolve_missing()
        await search.has(2)
        assert search.asked() == {"SPY": 1, "QQQ": 1}


async def test_symbols_that_the_gateway_did_not_know_are_asked_about_again_when_a_farm_is_well() -> None:
    async with searching("SPY", "QQQ", SPY=GatewayError("odd")) as search:
        await search.has(2)
        search.client.failures.clear()
        search.venues.resolve_missing()
        await search.has(3)
        assert isinstance(search.taken[-1], Instrument)
        assert search.asked()["QQQ"] == 1


@pytest.mark.parametrize("code", [1100, 502, 10197])
async def test_error_about_the_gateway_is_no_verdict_on_a_symbol(code: int) -> None:
    async with searching("SPY", begin=False) as search:
        search.simulated.account.details_delay = 0.3
        search.connected.set()
        await search.simulated.wait_for(lambda: search.asked() == {"SPY": 1})
        request = search.simulated.journal.requests("reqContractDetails")[0].detail["reqId"]
        for client in search.simulated.clients.values():
            client.send(client.session.error(int(str(request)), code))
        await search.has(1)
    assert isinstance(search.taken[0], Instrument)


NOON = 20_000 * DAY_SECS + DAY_SECS / 2
SPY = Instrument("SPY", 1, "STK", "USD", "ARCA", "ARCA")
ES = Instrument("ES", 2, "FUT", "USD", "CME", "", expiry="20261218", rolls_at=NOON + 100)
NONE = Unresolved("SPY", "200")


def refresh(*known: Instrument, at: float = NOON) -> ContractRefresh:
    found = ContractRefresh()
    for each in known:
        found.resolved(each, at)
    return found


def test_contract_is_due_at_its_roll_and_again_while_it_is_not_answered() -> None:
    found = refresh(SPY, ES)
    assert found.due(NOON + 99) == []
    assert found.due(NOON + 100) == ["ES"]
    assert found.due(NOON + 101) == []
    assert found.due(NOON + 100 + ROLL_RETRY_SECS) == ["ES"]


def test_everything_is_due_once_on_a_new_day() -> None:
    found = refresh(SPY)
    midnight = NOON + DAY_SECS / 2
    assert found.due(midnight - 1) == []
    assert found.due(midnight) == ["SPY"]
    found.resolved(SPY, midnight + 1)
    assert found.due(midnight + 2) == []


def test_reconnect_asks_for_what_was_not_resolved_lately() -> None:
    found = refresh(SPY)
    assert found.reconnected(NOON + 1) == []
    assert found.reconnected(NOON + RECENT_SECS) == ["SPY"]


def test_contract_in_force_is_kept_unless_its_depth_is_refused_or_it_has_rolled() -> None:
    found = refresh(SPY, ES)
    assert found.keeps(NONE, NOON)
    assert not found.keeps(SPY, NOON)
    found.doubted("SPY")
    assert not found.keeps(NONE, NOON)
    assert found.keeps(Unresolved("ES", "200"), NOON)
    assert not found.keeps(Unresolved("ES", "200"), NOON + 100)
    assert not found.keeps(Unresolved("NEW", "200"), NOON)


def test_clock_that_is_set_back_delays_no_roll() -> None:
    found = refresh(ES)
    assert found.due(NOON + 100) == ["ES"]
    found.resolved(ES, NOON - 3600)
    assert found.due(NOON - 3599) == []
    assert found.due(NOON + 100) == ["ES"]


def test_name_that_is_no_longer_recorded_is_never_due() -> None:
    found = refresh(ES)
    found.forget("ES")
    assert found.due(NOON + DAY_SECS) == []


# ---- contracts of other ingests


@pytest.mark.parametrize("while_claiming", [False, True])
async def test_kept_contract_that_the_gateway_confirms_before_it_is_claimed_keeps_its_place(
    shared_redis_url: str, while_claiming: bool
) -> None:
    symbols = [f"S{number:03}" for number in range(2 * AT_ONCE + 1)]
    confirmed, taken, client = symbols[:3], [], open_redis(shared_redis_url)

    def contract(symbol: str) -> Instrument:
        return Instrument(symbol, 1 + symbols.index(symbol), "STK", "USD", "ISLAND", "NASDAQ")

    class Claims(ContractClaims):
        async def claim(self, places: Mapping[Place, str]) -> None:
            if while_claiming and not taken:
                confirm()
            await super().claim(places)

    def confirm() -> None:
        for symbol in confirmed:
            gate.offer(contract(symbol))

    claims = Claims(client, "default", identity_of_this_process(0))
    all_taken = asyncio.Event()

    def take(found: Resolution) -> None:
        taken.append(found.symbol)
        if len(taken) == len(symbols):
            all_taken.set()

    gate = ContractGate(claims, dict, take, lambda symbol: None)
    for symbol in symbols:
        gate.offer(contract(symbol))
    confirm()
    running = asyncio.ensure_future(gate.run())
    await asyncio.wait_for(all_taken.wait(), PATIENCE_SECS)
    await end([running])
    await client.aclose()
    assert taken == symbols
