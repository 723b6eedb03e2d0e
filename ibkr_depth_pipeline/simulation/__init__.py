"""A stand-in for the IBKR gateway: the TWS socket protocol, its slots and its faults, over synthetic or replayed books.

It imports nothing of the ingesting side, so that one mistake cannot hide in both. Read from the outside in: gateway.py
and line_faults.py (what can be done to it), server.py and feed.py (asyncio), session.py and answers.py (how a request
is answered), codec.py and replies.py (the wire), market.py and replay.py (where rows come from).
"""

from ibkr_depth_pipeline.simulation.background import GatewayThread, gateway_process
from ibkr_depth_pipeline.simulation.gateway import SimulatedGateway
from ibkr_depth_pipeline.simulation.options import (
    AtEnd,
    EarlyCancel,
    GatewayOptions,
    Pacing,
    ReplayOptions,
    ReplayPace,
    TakenClientId,
    Unready,
)
from ibkr_depth_pipeline.simulation.replay import Tape, TapeError, read_tape
from ibkr_depth_pipeline.simulation.scenario import (
    Scenario,
    ScenarioError,
    apply_changes,
    load_scenario,
    parse_changes,
    parse_scenario,
    shipped_scenarios,
)

__all__ = [
    "AtEnd",
    "EarlyCancel",
    "GatewayOptions",
    "GatewayThread",
    "Pacing",
    "ReplayOptions",
    "ReplayPace",
    "Scenario",
    "ScenarioError",
    "SimulatedGateway",
    "TakenClientId",
    "Tape",
    "TapeError",
    "Unready",
    "apply_changes",
    "gateway_process",
    "load_scenario",
    "parse_changes",
    "parse_scenario",
    "read_tape",
    "shipped_scenarios",
]
