"""One connected client of the simulated gateway: sends what its session words, and journals it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.simulation.commands import Send, Subscription
from ibkr_depth_pipeline.simulation.connection import Connection
from ibkr_depth_pipeline.simulation.feed import Follower
from ibkr_depth_pipeline.simulation.journal import Entry, Journal
from ibkr_depth_pipeline.simulation.malformed import UNREADABLE_ROWS
from ibkr_depth_pipeline.simulation.out_of_step import SpoiledRow
from ibkr_depth_pipeline.simulation.rows import DepthRow
from ibkr_depth_pipeline.simulation.session import Session


class Client:
    """One connection with its session: a feed's outlet."""

    def __init__(self, connection: Connection, session: Session, journal: Journal) -> None:
        self.connection = connection
        self.session = session
        self.number = connection.number
        self._journal = journal

    @property
    def congested(self) -> bool:
        return self.connection.congested

    async def drained(self) -> None:
        await self.connection.drained()

    def send_rows(self, subscription: Subscription, rows: list[DepthRow]) -> None:
        self.connection.send(self.session.rows(subscription, rows))
        self._journal.add_rows(time.time(), self.number, subscription.listing.name, subscription.request_id, rows)

    def send_spoiled_row(self, subscription: Subscription, spoiled: SpoiledRow) -> None:
        """A row of the book with fields that cannot be read; the journal has it as `raw_row`."""
        fields = {**spoiled.row.texts(), **UNREADABLE_ROWS[spoiled.how]}
        named = subscription.venue.names_market_makers or "market_maker" in UNREADABLE_ROWS[spoiled.how]
        self.connection.send(self.session.raw_row(subscription, fields, named))
        detail = {"request_id": subscription.request_id, "kind_of_row": spoiled.how, **fields}
        self._journal.add(Entry(time.time(), self.number, "raw_row", subscription.listing.name, detail))

    def send(self, command: Send) -> None:
        """Sends a message and says so in the journal: errors as `error`, everything else as `reply`."""
        self.connection.send(command.data)
        kind = "error" if command.name == "error" else "reply"
        name = str(command.detail["code"]) if kind == "error" else command.name
        self._journal.add(Entry(time.time(), self.number, kind, name, command.detail))


@dataclass(slots=True, eq=False)
class LineFault:
    """A fault that applies to the lines of so many more subscriptions of a symbol."""

    name: str
    apply: Callable[[Follower], None]
    times: int
