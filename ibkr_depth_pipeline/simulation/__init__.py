"""A stand-in for the IBKR gateway: the TWS socket protocol, its slots and its faults, over synthetic or replayed books.

It imports nothing of the ingesting side, so that one mistake cannot hide in both.
"""

from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline.simulation.server import GatewayServer

SimulatedGateway = GatewayServer
__all__ = ["GatewayOptions", "SimulatedGateway"]
