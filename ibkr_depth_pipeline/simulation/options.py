"""What can be set about a simulated gateway. Every default is what a real one is known to do. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path

from ibkr_depth_pipeline.simulation.codec import HIGHEST_VERSION, LOWEST_VERSION
from ibkr_depth_pipeline.simulation.venues import NASDAQ_NAMES

REFUSAL_CODES = (200, 354, 10089, 10090, 10092)


class EarlyCancel(Enum):
    """What becomes of a cancel that arrives before the subscription's first row."""

    HONOURED = "honoured"
    LOST = "lost"
    """Ignored; every later cancel answers 310, and the slot is held until the session ends (seen on real gateways)."""
    LOST_UNTIL_FIRST_ROW = "lost-until-first-row"
    """Ignored; cancels answer 310 until the first row has come, after which one is honoured."""


class Pace(Enum):
    """How fast a replay goes."""

    REAL = "real"
    RATE = "rate"
    FAST = "fast"
    """As fast as the slowest subscriber reads."""


class AtEnd(Enum):
    """What a replay does when its file is over."""

    STOP = "stop"
    """Nothing more is sent; the subscription stays open and silent."""
    LOOP = "loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """One file to play to the subscribers of one symbol."""

    path: Path
    symbol: str | None = None
    """Listing name, such as `AAPL` or `EUR.USD`; by default the file name up to the first underscore."""
    day: date | None = None
    """With a day, `path` is the folder of an archive, and what is played is that day of `symbol`."""
    pace: Pace = Pace.REAL
    speed: float = 1.0
    """Factor on the file's own time, for Pace.REAL."""
    rate: float = 200.0
    """Changes (or recorded batches) a second, for Pace.RATE."""
    at_end: AtEnd = AtEnd.STOP
    limit: int | None = None
    """Play only that many changes (or batches)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Times in seconds, rates in depth rows a second and symbol."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free port."""
    seed: int = 0
    server_version: int = 176
    slots: int = 3
    read_only_api: bool = True
    accounts: tuple[str, ...] = ("DU1234567",)
    strict_catalogue: bool = False
    nasdaq_name: str = "ISLAND"
    """The name under which the venue ISLAND / NASDAQ is listed: TWS's compatibility checkbox."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Listing name -> error code that answers its depth requests."""

    rows_per_second: float = 200.0
    symbol_rates: Mapping[str, float] = field(default_factory=dict)
    """Listing name -> rows a second in place of `rows_per_second`; 0 sends the opening book and then nothing."""
    silent_symbols: frozenset[str] = frozenset()
    """Listing names whose subscriptions are accepted and never get a row."""
    replays: tuple[ReplayOptions, ...] = ()

    latency: float = 0.0
    """From a request's arrival to its answer, and on every row."""
    first_row_delay: float = 0.05
    slot_free_delay: float = 0.0
    """How long a cancelled subscription's slot stays in use."""
    rows_after_cancel: float = 0.0
    """How long rows of a cancelled subscription keep coming."""
    early_cancel: EarlyCancel = EarlyCancel.HONOURED
    slots_held_after_drop: float = 0.0
    client_id_held_after_drop: float = 0.0
    largest_backlog: int = 4 * 1024 * 1024
    """Unsent bytes of a connection past which its rows are conflated until it has read them."""

    keep_rows: bool = True
    """Whether the journal keeps every row sent, or only how many."""
    journal_file: Path | None = None
    journal_entries: int | None = None
    """How many entries the journal keeps in memory; None keeps all."""

    def __post_init__(self) -> None:
        """Raises ValueError naming the first option that is out of range."""
        if not LOWEST_VERSION <= self.server_version <= HIGHEST_VERSION:
            raise ValueError(f"server_version is {self.server_version}; allowed: {LOWEST_VERSION} to {HIGHEST_VERSION}")
        if self.nasdaq_name not in NASDAQ_NAMES:
            raise ValueError(f"nasdaq_name is {self.nasdaq_name!r}; allowed: {', '.join(NASDAQ_NAMES)}")
        if not 0 <= self.port <= _HIGHEST_PORT:
            raise ValueError(f"port is {self.port}; allowed: 0 (a free one) to {_HIGHEST_PORT}")
        if self.slots < 0:
            raise ValueError(f"slots is {self.slots}; allowed: 0 or more")
        for code in self.refusals.values():
            check_refusal(code)
        for name in _AMOUNTS:
            _check_amount(name, getattr(self, name))
        for symbol, rate in self.symbol_rates.items():
            _check_amount(f"the rate of {symbol}", rate)


def _check_amount(what: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{what} is {value}; allowed: 0 or more")


_HIGHEST_PORT = 65535
_AMOUNTS = (
    "rows_per_second",
    "latency",
    "first_row_delay",
    "slot_free_delay",
    "rows_after_cancel",
    "slots_held_after_drop",
    "client_id_held_after_drop",
)


def check_refusal(code: int) -> int:
    """The code itself. Raises ValueError for one that no gateway refuses a depth request with."""
    if code not in REFUSAL_CODES:
        raise ValueError(f"refusal code {code}; allowed: {', '.join(map(str, REFUSAL_CODES))}")
    return code
