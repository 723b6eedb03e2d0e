"""What all connections of one gateway share: depth slots, client ids, refusals, the contract catalogue. Pure.

Depth slots belong to the account, not to a connection, and are counted in distinct contracts
(docs/ibkr-market-depth.md, "Slots").
"""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ibkr_depth_pipeline.simulation.catalogue import Catalogue, canonical
from ibkr_depth_pipeline.simulation.options import ANY_SYMBOL, Pacing, Unready

T = TypeVar("T")


class SlotTable:
    """Who holds which depth slot. A holder is any key that the caller makes up; `now` is in seconds.

    Invariant: `take` never lets `in_use` grow past the limit. A limit lowered below what is in use takes nothing
    away from anyone; it only stops new subscriptions.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken_by_others = 0
        self._contracts: dict[Hashable, Hashable] = {}
        self._lingering: list[tuple[float, Hashable]] = []

    def take(self, holder: Hashable, contract: Hashable, now: float) -> bool:
        """Gives the holder a slot for the contract; False if none is free. A contract in use costs nothing more."""
        in_use = self._contracts_in_use(now)
        if contract not in in_use and len(in_use) + self.taken_by_others >= self.limit:
            return False
        self._contracts[holder] = contract
        return True

    def release(self, holder: Hashable, free_at: float) -> None:
        """Ends the holder's claim; the slot itself stays in use until `free_at`. Unknown holders are ignored."""
        contract = self._contracts.pop(holder, None)
        if contract is not None:
            self._lingering.append((free_at, contract))

    def in_use(self, now: float) -> int:
        return len(self._contracts_in_use(now)) + self.taken_by_others

    def _contracts_in_use(self, now: float) -> set[Hashable]:
        self._lingering = [(free_at, contract) for free_at, contract in self._lingering if free_at > now]
        return {*self._contracts.values(), *(contract for _, contract in self._lingering)}


class ClientIds:
    """Which client ids are connected. An id may stay taken for a while after its connection is gone, or hang."""

    def __init__(self) -> None:
        self._hung_until: dict[int, float] = {}
        self._connected: dict[int, int] = {}
        self._held_until: dict[int, float] = {}

    def take(self, client_id: int, connection: int, now: float) -> bool:
        """Whether the connection may have the id."""
        if client_id in self._connected or self._held_until.get(client_id, 0.0) > now:
            return False
        self._connected[client_id] = connection
        return True

    def release(self, client_id: int, connection: int, held_until: float) -> None:
        if self._connected.get(client_id) == connection:
            del self._connected[client_id]
            self._held_until[client_id] = held_until

    def hold(self, client_id: int, until: float) -> None:
        """Keeps an id taken until then, as if another program had it."""
        self._held_until[client_id] = until

    def hang(self, client_id: int, until: float) -> None:
        """Leaves every startApi with the id unanswered until then."""
        self._hung_until[client_id] = until

    def hangs(self, client_id: int, now: float) -> bool:
        return self._hung_until.get(client_id, 0.0) > now


class MessageMeter:
    """Counts the messages that all clients of the account have sent in the last second."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        """Messages in any one second; None is no limit."""
        self.taken_by_others = 0
        self._times: deque[float] = deque()

    def excess(self, now: float) -> int:
        """Counts one message. How many there were in the last second if that is too many, else 0."""
        if self.limit is None:
            return 0
        self._times.append(now)
        while self._times[0] <= now - 1.0:
            self._times.popleft()
        received = len(self._times) + self.taken_by_others
        return received if received > self.limit else 0


@dataclass(slots=True)
class Account:
    """The shared state behind every session of one simulated gateway."""

    catalogue: Catalogue
    slots: SlotTable
    client_ids: ClientIds = field(default_factory=ClientIds)
    numbers: tuple[str, ...] = ("DU1234567",)
    refusals: dict[str, int] = field(default_factory=dict)
    """Depth requests that are refused: `AAPL@ISLAND`, `AAPL`, `*@ISLAND` or `*` -> error code."""
    messages: MessageMeter = field(default_factory=MessageMeter)
    pacing: Pacing = Pacing.DROP
    unanswered_details: dict[str, int] = field(default_factory=dict)
    """Questions for contract details that get no answer: listing name -> how many more; `*` is for each other name."""
    details_delay: float = 0.0
    clock_offset: float = 0.0
    closed_since: float | None = None
    """Unix time at which all markets closed for today, by the hours in contract details; None: the options say."""
    greeting_delay: float = 0.0
    slot_free_delay: float | None = None
    """In place of the option of that name, once it was set."""
    unready: Unready | None = None
    """What fails for now; None for a gateway that is ready."""

    def refusal_of(self, symbol: str, venue: str) -> int | None:
        """The error code that answers depth requests for the symbol on the venue; the closest entry wins."""
        venue = canonical(venue)
        for place in (refused_place(symbol, venue), symbol, refused_place(ANY_SYMBOL, venue), ANY_SYMBOL):
            if place in self.refusals:
                return self.refusals[place]
        return None

    def ignores_details(self, symbol: str) -> bool:
        """Whether a question for the symbol's contract details gets no answer. Counts the question."""
        left = self.unanswered_details.get(symbol, self.unanswered_details.get(ANY_SYMBOL, 0))
        if left > 0 or symbol in self.unanswered_details:
            self.unanswered_details[symbol] = max(0, left - 1)
        return left > 0


def of_place(values: Mapping[str, T], symbol: str, venue: str) -> T | None:
    """What options keyed as `AAPL@ISLAND` or `*@ISLAND` have for the symbol on the venue; ISLAND and NASDAQ are one."""
    known = {refused_place(*place.split("@", 1)): value for place, value in values.items()}
    return known.get(refused_place(symbol, venue), known.get(refused_place(ANY_SYMBOL, venue)))


def refused_place(symbol: str, venue: str | None = None) -> str:
    """The key of `Account.refusals` for a symbol, on one venue or on all."""
    return symbol if not venue else f"{symbol}@{canonical(venue)}"
