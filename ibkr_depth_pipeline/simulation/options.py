"""What can be set about a simulated gateway. Every default is what a real one is known to do. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated

from ibkr_depth_pipeline.simulation.catalogue import NASDAQ_NAMES
from ibkr_depth_pipeline.simulation.codec import HIGHEST_VERSION, LOWEST_VERSION
from ibkr_depth_pipeline.simulation.rows import RowStyle

LOWEST_CODE, HIGHEST_CODE = 100, 99999
"""The range of the codes of errors."""
ANY_SYMBOL = "*"
"""Stands for every listing name in `refusals`, `venue_refusals` and `advisories`."""


class Unready(Enum):
    """What a gateway that listens but is not ready yet fails to do."""

    NO_EXCHANGES = "no_exchanges"
    """The list of depth exchanges is empty, and depth is answered with 10092."""
    UNKNOWN_CONTRACTS = "unknown_contracts"
    """Every contract is answered with 200."""
    NOT_SUBSCRIBED = "not_subscribed"
    """Every depth request is answered with 354."""
    SILENT = "silent"
    """Nothing is answered after startApi until it is ready."""


class Pacing(Enum):
    """What becomes of a message past `messages_per_second`."""

    DROP = "drop"
    """The message is answered by 100 and lost."""
    DISCONNECT = "disconnect"
    """As DROP, and the third such message of a connection closes it."""


class TakenClientId(Enum):
    """How a gateway answers a client id that another connection holds."""

    REFUSED = "refused"
    """Answered by 326 and the end of the connection."""
    HANGS = "hangs"
    """Neither greeted nor refused."""


class EarlyCancel(Enum):
    """What becomes of a cancel that arrives before the subscription's first row."""

    HONOURED = "honoured"
    LOST = "lost"
    """Ignored; every later cancel answers 310, and the slot is held until the session ends (seen on real gateways)."""
    LOST_UNTIL_FIRST_ROW = "lost-until-first-row"
    """Ignored; cancels answer 310 until the first row has come, after which one is honoured."""


class SlotsCount(Enum):
    """What the account's slots are counted by."""

    CONTRACTS = "contracts"
    """A second subscription of a contract costs nothing."""
    SUBSCRIPTIONS = "subscriptions"


class ReplayPace(Enum):
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


@dataclass(frozen=True, slots=True)
class Flag:
    """Gives an option a flag of its own in `ibkr_gateway_sim`; every other one is set by `--set`.

    The flag's type and default are the option's, its name as well unless `names` has others.
    """

    help: str
    names: tuple[str, ...] = ()
    panel: str = "How the gateway behaves"
    least: float | None = None
    """The lowest value that the flag takes."""


_BOOKS, _WHERE = "Books", "Where it listens"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """One file to play to the subscribers of one symbol."""

    path: Path
    symbol: str | None = None
    """Listing name, such as `AAPL` or `EUR.USD`; by default the file name up to the first underscore."""
    day: date | None = None
    """With a day, `path` is the folder of an archive, and what is played is that day of `symbol`."""
    pace: Annotated[
        ReplayPace, Flag("The file's own time, a fixed rate, or as it is read.", ("--replay-pace",), _BOOKS)
    ] = ReplayPace.REAL
    speed: Annotated[
        float, Flag("Factor on the recording's own time.", ("--replay-speed", "--speed"), _BOOKS, 0.001)
    ] = 1.0
    """Factor on the file's own time, for ReplayPace.REAL."""
    rate: Annotated[float, Flag("Changes a second, for --replay-pace rate.", ("--replay-rate",), _BOOKS, 0.001)] = 200.0
    """Changes (or recorded batches) a second, for ReplayPace.RATE."""
    at_end: Annotated[AtEnd, Flag("Fall silent at the end, or start over.", ("--replay-end",), _BOOKS)] = AtEnd.STOP
    limit: Annotated[int | None, Flag("Play only that many changes.", ("--replay-limit",), _BOOKS, 1)] = None
    """Play only that many changes (or batches)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Times in seconds, rates in depth rows a second and symbol."""

    host: Annotated[str, Flag("Address to listen on.", panel=_WHERE)] = "127.0.0.1"
    port: int = 0
    """0 takes a free port."""
    seed: Annotated[int, Flag("Same seed, same books and contracts.", panel=_BOOKS)] = 0
    server_version: Annotated[int, Flag("Newest protocol version it speaks, 100 to 178.")] = 176
    slots: Annotated[int, Flag("Simultaneous depth subscriptions of the account.", least=0)] = 3
    read_only_api: Annotated[bool, Flag("Answer requests about orders with 321.")] = True
    write_access_dialog: bool = False
    """Whether a read-only gateway asks its user about requests for orders, and answers nothing, instead of 321."""
    accounts: tuple[str, ...] = ("DU1234567",)
    strict_catalogue: Annotated[bool, Flag("Make up no contracts.", ("--strict",))] = False
    nasdaq_name: Annotated[str, Flag("The name listed for that venue: ISLAND or NASDAQ.")] = "ISLAND"
    """The name under which the venue ISLAND / NASDAQ is listed: TWS's compatibility checkbox."""
    slots_count: SlotsCount = SlotsCount.CONTRACTS
    """Whether each contract or each subscription takes a slot."""
    no_slot_code: int = 309
    """What answers a depth request past the slots: 309, or 101 as some gateways have it."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Listing name (or `*`) -> error code that answers its depth requests. Any code."""
    venue_refusals: Mapping[str, int] = field(default_factory=dict)
    """`AAPL@ISLAND` (or `*@ISLAND`) -> error code that answers depth requests of that symbol on that venue."""
    texts: Mapping[int, str] = field(default_factory=dict)
    """Error code -> its text, in place of the usual one; `{request_id}` in it is the request's."""
    advisories: Mapping[str, int] = field(default_factory=dict)
    """Listing name (or `*`) -> error code sent with the id of each accepted depth request; the line goes on."""
    advisory_delay: float = 0.0
    """From a depth request to its advisory."""

    greeting_delay: float = 0.0
    """From startApi to nextValidId. The client id is taken from startApi on."""
    hung_client_ids: frozenset[int] = frozenset()
    """Client ids whose startApi is neither answered nor refused."""
    taken_client_id: TakenClientId = TakenClientId.REFUSED
    ready_after: float | None = None
    """Seconds after it began to listen at which the gateway becomes ready; None is from the start."""
    unready: Unready = Unready.NO_EXCHANGES
    """What fails until then."""

    messages_per_second: int | None = None
    """Requests that all clients of the account may send in any one second; None is no limit."""
    other_messages_per_second: int = 0
    """How many of them other clients of the account use up."""
    pacing: Pacing = Pacing.DROP
    unanswered_details: Mapping[str, int] = field(default_factory=dict)
    """Listing name (or `*`: each) -> how many of the first questions for its contract details get no answer."""
    details_delay: float = 0.0
    """From a question for contract details to its answer."""
    market_hours: bool = False
    """Whether contract details list the hours of the listing's market; otherwise it is open around the clock."""
    hours: Mapping[str, str] = field(default_factory=dict)
    """Listing name -> what its contract details have for tradingHours and liquidHours, in place of its own."""
    dead_subscriptions: Mapping[str, int] = field(default_factory=dict)
    """Listing name -> how many of the first subscriptions are accepted and never get a row."""
    clock_offset: float = 0.0
    """Seconds by which the gateway's clock is ahead of the machine's; negative is behind."""

    rows_per_second: Annotated[
        float, Flag("Depth rows a second and symbol; 0 is a still market.", panel=_BOOKS, least=0)
    ] = 200.0
    symbol_rates: Mapping[str, float] = field(default_factory=dict)
    """Listing name -> rows a second in place of `rows_per_second`; 0 sends the opening book and then nothing."""
    markets_stand_still: bool = False
    """Whether a synthetic book stands still while nobody is subscribed to it, from its first subscription on."""
    silent_symbols: frozenset[str] = frozenset()
    """Listing names, or `AAPL@ISLAND`, whose subscriptions are accepted and never get a row."""
    row_styles: Mapping[str, RowStyle] = field(default_factory=dict)
    """Venue (or `*`) -> how changes of synthetic books are worded there, in place of the venue's own way."""
    sizes_in_lots: bool = False
    """Whether sizes of stocks are in lots of 100 shares, as with that box of a gateway ticked."""
    replays: tuple[ReplayOptions, ...] = ()

    latency: Annotated[float, Flag("Seconds that everything sent takes.", least=0)] = 0.0
    """From a request's arrival to its answer, and on every row."""
    first_row_delay: Annotated[float, Flag("Seconds from a depth request to its first row.", least=0)] = 0.05
    venue_first_row_delays: Mapping[str, float] = field(default_factory=dict)
    """`AAPL@ISLAND` (or `*@ISLAND`) -> the same for that symbol on that venue."""
    slot_free_delay: Annotated[float, Flag("Seconds until a cancelled slot is free.", least=0)] = 0.0
    """How long a cancelled subscription's slot stays in use."""
    rows_after_cancel: Annotated[float, Flag("Seconds rows go on after a cancel.", ("--late-rows",), least=0)] = 0.0
    """How long rows of a cancelled subscription keep coming."""
    early_cancel: Annotated[EarlyCancel, Flag("What a cancel before the first row does.")] = EarlyCancel.HONOURED
    slots_held_after_drop: Annotated[
        float, Flag("Seconds a lost client's slots stay taken.", ("--slots-held",), least=0)
    ] = 0.0
    client_id_held_after_drop: Annotated[
        float, Flag("Seconds a lost client's id stays taken.", ("--client-id-held",), least=0)
    ] = 0.0
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
        if self.messages_per_second is not None and self.messages_per_second < 1:
            raise ValueError(f"messages_per_second is {self.messages_per_second}; allowed: 1 or more")
        if not math.isfinite(self.clock_offset):
            raise ValueError(f"clock_offset is {self.clock_offset}; allowed: any number of seconds")
        for codes in (self.refusals, self.venue_refusals, self.advisories, {"": self.no_slot_code}):
            for code in codes.values():
                check_refusal(code)
        self._check_places()
        self._check_amounts()

    def _check_places(self) -> None:
        for name in ("venue_refusals", "venue_first_row_delays"):
            for place in getattr(self, name):
                if not all(place.partition("@")):
                    raise ValueError(f"{name} has {place!r}; allowed: SYMBOL@VENUE, such as AAPL@ISLAND")

    def _check_amounts(self) -> None:
        for name in ("unanswered_details", "dead_subscriptions", "venue_first_row_delays"):
            for key, amount in getattr(self, name).items():
                _check_amount(f"{name} of {key}", amount)
        if self.ready_after is not None:
            _check_amount("ready_after", self.ready_after)
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
    "advisory_delay",
    "greeting_delay",
    "details_delay",
    "other_messages_per_second",
)


def check_refusal(code: int) -> int:
    """The code itself. Raises ValueError for one outside the range of a gateway's errors."""
    if not LOWEST_CODE <= code <= HIGHEST_CODE:
        raise ValueError(f"refusal code {code}; allowed: {LOWEST_CODE} to {HIGHEST_CODE}")
    return code
