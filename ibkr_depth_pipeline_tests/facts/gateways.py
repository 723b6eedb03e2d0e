"""Simulated gateways of different ways, and quick runs of the experiments against them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from ibkr_depth_pipeline.facts.evidence import FactLimits
from ibkr_depth_pipeline.facts.session import FactsSession, specs_of
from ibkr_depth_pipeline.gateway_facts import GatewayFacts
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.options import SlotsCount
from ibkr_depth_pipeline.simulation.rows import RowStyle
from ibkr_depth_pipeline.simulation.scenario import ScenarioStep, parse_scenario
from ibkr_depth_pipeline.universe import Universe

SYMBOLS = ("SPY", "EUR.USD")
QUICK = FactLimits(
    total=110.0,
    first_row=3.0,
    granted=0.5,
    advice=0.3,
    farms=1.0,
    watch=1.2,
    compare=0.5,
    late_rows=1.6,
    release=8.0,
    most_venues=3,
)

USUAL = GatewayOptions()
PAPER = GatewayOptions(
    slots=1,
    slot_free_delay=0.6,
    nasdaq_name="NASDAQ",
    server_version=165,
    clock_offset=-2.5,
    early_cancel=EarlyCancel.LOST,
    first_row_delay=0.2,
)
LATE = GatewayOptions(
    slots=2,
    slots_count=SlotsCount.SUBSCRIPTIONS,
    no_slot_code=101,
    rows_after_cancel=0.7,
    early_cancel=EarlyCancel.LOST_UNTIL_FIRST_ROW,
    first_row_delay=0.2,
    venue_first_row_delays={"*@ARCA": 0.5},
    details_delay=0.2,
    greeting_delay=0.4,
)
OVERWRITING = GatewayOptions(
    row_styles={"*": RowStyle.OVERWRITE},
    sizes_in_lots=True,
    texts={
        200: "Die Kontraktdefinition wurde nicht gefunden",
        309: "Limit erreicht",
        310: "{request_id}: unbekannt",
        10092: "Keine Markttiefe",
    },
    venue_refusals={"*@ISLAND": 354},
    silent_symbols=frozenset({"SPY@NYSE"}),
    advisories={"EUR.USD": 10090},
)
HELD = GatewayOptions(slots=4, slots_held_after_drop=4.0, client_id_held_after_drop=0.6)
CASCADING = GatewayOptions(slots=10, row_styles={"*": RowStyle.CASCADE}, rows_per_second=120.0, clock_offset=40.0)
GATEWAYS: Mapping[str, GatewayOptions] = {
    "usual": USUAL,
    "paper": PAPER,
    "late": LATE,
    "overwriting": OVERWRITING,
    "held": HELD,
    "cascading": CASCADING,
}
PAST_END = ({"at": 0.0, "do": "updates_past_end", "symbol": "SPY", "count": 3, "times": 1000},)
ONE_STOCK = ("paper", "late")
"""Gateways with few slots, whose venues are watched one after the other."""
STEPS: Mapping[str, tuple[dict[str, object], ...]] = {"cascading": PAST_END}


def settings_of(gateway: SimulatedGateway, **given: object) -> Settings:
    return load_settings(ibkr_host=gateway.host, ibkr_port=gateway.port, **given)


async def facts_of(
    options: GatewayOptions,
    steps: Collection[ScenarioStep] = (),
    *,
    limits: FactLimits = QUICK,
    only: Collection[str] = (),
    early_cancel: bool = True,
    symbols: tuple[str, ...] = SYMBOLS,
    connect_timeout: float = 15.0,
) -> GatewayFacts:
    async with SimulatedGateway(replace(options, keep_rows=False), tuple(steps)) as gateway:
        specs = specs_of(Universe(()), symbols)
        settings = settings_of(gateway, ibkr_connect_timeout_secs=connect_timeout)
        return await FactsSession(settings, specs, limits, only=only, early_cancel=early_cancel).run()


async def facts_of_all() -> dict[str, GatewayFacts]:
    """The facts of every gateway of GATEWAYS, found side by side."""
    steps = {name: parse_scenario(list(STEPS.get(name, ()))) for name in GATEWAYS}
    symbols = {name: SYMBOLS[:1] if name in ONE_STOCK else SYMBOLS for name in GATEWAYS}
    most = {name: replace(QUICK, most_venues=2) if name in ONE_STOCK else QUICK for name in GATEWAYS}
    found = await asyncio.gather(
        *(
            facts_of(options, steps[name], symbols=symbols[name], limits=most[name])
            for name, options in GATEWAYS.items()
        )
    )
    return dict(zip(GATEWAYS, found, strict=True))
