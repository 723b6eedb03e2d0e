"""What there is in a session: two recorders under one name, the simulated gateway, a model of Redis, and a network."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from typing import Any

import orjson

from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.futures import RollRule
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.schema.keys import lease_key
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline_tests.end_to_end.recording import universe_of
from ibkr_depth_pipeline_tests.faults.random_faults import gateway_of
from ibkr_depth_pipeline_tests.sessions.model_redis import PORT, ModelRedis
from ibkr_depth_pipeline_tests.sessions.network import PROCESS, Listener, Network
from ibkr_depth_pipeline_tests.sessions.virtual_time import VirtualClock, VirtualLoop

GATEWAY_PORT = 4002
NAME = "simulated"
SYMBOLS = ("SPY", "QQQ", "ES", "AAPL", "MSFT")

ROLLS_AT = time(15, 30, 15)
"""UTC, 15 s after a session begins: ES goes on with its next contract. Its last trade date is 46 days later."""

LISTINGS = {"ES": ("ESZ6", "ESH7")}
"""What the simulated gateway calls a symbol's contracts, in the order in which they are recorded."""

ROWS_PER_SECOND = 3.0

SETTINGS: Mapping[str, Any] = {
    "ibkr_rotation_secs": 2,
    "ibkr_first_row_secs": 2,
    "ibkr_error309_cooldown_secs": 0.5,
    "ibkr_error309_recovery_cycles": 2,
    "ibkr_unsupported_retry_secs": 5,
    "ibkr_stall_secs": 2,
    "ibkr_connect_timeout_secs": 3,
    "ibkr_reconnect_max_secs": 1,
    "ibkr_reconnect_slow_secs": 5,
    "ibkr_outage_secs": 2,
    "ibkr_silent_line_secs": 3,  # the rows of as many seconds tell something about the market
    "ibkr_heartbeat_ttl": 15,
    "ibkr_lease_ttl_secs": 4,
    "ibkr_lease_wait_secs": 100_000,
    "ibkr_stop_at_close": False,
    "ibkr_client_id": 777,
    "ibkr_flight_recorder_minutes": 0,  # a thread and a process of its own: not of this world
}


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: `at` seconds after the session began, in a way that `choice` decides."""

    at: float
    kind: str
    choice: int


@dataclass(frozen=True)
class Plan:
    """A session. `standby`: a second recorder waits at the lease; `rolls`: it lasts until ES has rolled."""

    seed: int
    slots: int
    symbols: int
    standby: bool
    rolls: bool
    faults: tuple[Fault, ...]


@dataclass
class Seen:
    """What became of a session: which states it reached, and what was wrong."""

    states: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    secs: float = 0.0
    snapshots: int = 0
    logged: list[Any] = field(default_factory=list)
    """What the recorders logged, in order."""
    digest: str = ""
    """Of all that was sent and stored: the same for the same plan."""


def universe(symbols: Sequence[str]) -> Universe:
    """The first entries of SYMBOLS; ES is a future that rolls."""
    rolling = SymbolSpec("ES", "CME", sec_type="FUT", expiry="front", roll=RollRule(46, ROLLS_AT, "UTC"))
    return universe_of(*(rolling if symbol == "ES" else symbol for symbol in symbols))


class Recorder:
    """A recorder under one name, begun again when it ends, as a service manager does."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.incarnation = 0
        self._world = world
        self._session: IngestSession | None = None
        self._task: asyncio.Task[Any] | None = None
        self._keeper = asyncio.ensure_future(self._keep())
        self._wanted = True

    @property
    def owner(self) -> str:
        """The process that it is now."""
        return f"{self.name}{self.incarnation}"

    async def _keep(self) -> None:
        while self._wanted:
            self.incarnation += 1
            context = contextvars.copy_context()
            context.run(PROCESS.set, self.owner)
            self._task = context.run(asyncio.ensure_future, self._run())
            await asyncio.wait([self._task])
            await asyncio.sleep(1.0)

    async def _run(self) -> None:
        world = self._world
        self._session = IngestSession(world.settings, universe(world.symbols), run_id=self.owner)
        try:
            await self._session.run()
        except DepthPipelineError as error:
            world.seen.states[type(error).__name__] += 1
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            world.seen.problems.append(f"{self.owner} ended: {error!r}")

    def stop(self) -> None:
        """SIGTERM: it drains and begins again."""
        if self._session is not None:
            self._session.stop()

    def kill(self, late: float) -> None:
        """kill -9. What it has sent may arrive later."""
        self._world.network.kill(self.owner, late)
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """SIGTERM, and it stays away."""
        self._wanted = False
        self.stop()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=30.0)
            if not self._task.done():
                self._world.seen.problems.append(f"{self.owner} does not end")
        self._keeper.cancel()


class World:
    """All that there is in a session."""

    def __init__(self, plan: Plan, virtual: VirtualClock, loop: VirtualLoop) -> None:
        self.plan = plan
        self.seen = Seen()
        self.clock = virtual
        self.network = Network(plan.seed)
        self.redis = ModelRedis(virtual.monotonic, virtual.unix_ms)
        self.gateway = SimulatedGateway(gateway_of(plan.seed, plan.slots, ROWS_PER_SECOND))
        self.gateway.port = GATEWAY_PORT
        self.settings = load_settings(
            **SETTINGS,
            ibkr_host="127.0.0.1",
            ibkr_port=GATEWAY_PORT,
            ibkr_gateway_name=NAME,
            redis_url=f"redis://127.0.0.1:{PORT}",
            ibkr_max_concurrent_depth=min(3, plan.slots),
        )
        self.recorders: list[Recorder] = []
        self.logged: list[Any] = []
        loop.connect = self.network.connect
        loop.listen = self.listen

    def listen(self, factory: Callable[[], Any], port: int) -> Listener:
        """A service on this port from now on."""
        return Listener(self.network, port, factory)

    @property
    def symbols(self) -> Sequence[str]:
        return SYMBOLS[: self.plan.symbols]

    def active(self) -> Recorder:
        """The recorder that holds the lease by Redis; the first one if none does."""
        holder = self.redis.value(lease_key(NAME))
        run_id = orjson.loads(holder)["run_id"] if holder else None
        return next((each for each in self.recorders if each.owner == run_id), self.recorders[0])
