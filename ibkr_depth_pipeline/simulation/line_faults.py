"""What can go wrong with the lines of a simulated gateway: notices about them, their rows, and books out of step.

A fault that takes `times` applies to the live lines of the symbol (or, if there is none, the next) and so many
subscriptions in all; a subscription after those gets a sound line. The gateway's own books always go on, and the
journal keeps what was sent.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.connection import Client
from ibkr_depth_pipeline.simulation.distortions import (
    MALFORMED_ROWS,
    OPERATIONS,
    ROW_KINDS,
    SIDES,
    UNREADABLE_ROWS,
    AlteredBook,
    Distortion,
    DoubledSide,
    ExtraRows,
    RawRow,
    ReplacedRow,
    SpoiledRow,
    StandingBook,
    crossed,
    one_delete,
    raw_row,
    unsorted,
    updates_past_end,
)
from ibkr_depth_pipeline.simulation.faults import (
    Count,
    Operation,
    PerSecond,
    RefusalCode,
    RowKind,
    Seconds,
    Side,
    Times,
    UnreadableRowKind,
    fault,
)
from ibkr_depth_pipeline.simulation.feed import Feed, Follower, LineFault
from ibkr_depth_pipeline.simulation.journal import Entry
from ibkr_depth_pipeline.simulation.replies import Subscription
from ibkr_depth_pipeline.simulation.rows import DELETE, INSERT
from ibkr_depth_pipeline.simulation.server import GatewayServer
from ibkr_depth_pipeline.simulation.session import SessionState


class LineFaults(GatewayServer):
    """A gateway whose subscriptions can be broken while clients are connected."""

    # --- notices -------------------------------------------------------------------------------------------------

    @fault
    def send_error(self, code: int, symbol: str | None = None) -> int:
        """The error to every started client, or about every subscription of the symbol. How many were sent."""
        if symbol is None:
            targets = [(client, replies.NO_REQUEST) for client in self._started()]
        else:
            targets = [(client, subscription.request_id) for client, subscription in self._subscriptions(symbol)]
        for client, request_id in targets:
            client.send(client.session.error(request_id, code, limit=self.account.slots.limit, port=self.port))
        return len(targets)

    @fault
    def advise(self, symbol: str, code: RefusalCode) -> int:
        """The error with the id of each live request of the symbol, whose rows go on. How many were sent."""
        return self.send_error(code, symbol)

    # --- rows ----------------------------------------------------------------------------------------------------

    @fault
    def reset_book(self, symbol: str) -> None:
        """317, then the whole book as inserts."""
        self.send_error(317, symbol)
        for feed in self._feeds(symbol):
            feed.reopen()

    @fault
    def halt(self, symbol: str) -> None:
        """316: the subscription is gone and must be made again."""
        self.send_error(316, symbol)
        for client, subscription in list(self._subscriptions(symbol)):
            self._carry_out(client, client.session.drop(subscription, time.time()))

    @fault
    def silence(self, symbol: str | None = None) -> None:
        """The present subscriptions live on, and hold their slots, but never get a row again."""
        for _, subscription in self._subscriptions(symbol):
            self.feed(subscription.listing, subscription.venue).unfollow(subscription)

    @fault
    def pause_rows(self, symbol: str | None = None, seconds: Seconds | None = None) -> None:
        """No row comes, not even first ones; everything else is answered."""
        self.pausing |= {symbol}
        for feed in self._feeds(symbol):
            feed.pause()
        self._end_after(seconds, lambda: self.resume_rows(symbol))

    def resume_rows(self, symbol: str | None = None) -> None:
        self.pausing = set() if symbol is None else self.pausing - {symbol}
        for feed in self._feeds(symbol):
            feed.resume()

    @fault
    def set_rows_after_cancel(self, seconds: Seconds) -> None:
        """How long rows go on after a cancel from now on."""
        self.rows_after_cancel = seconds

    @fault
    def set_rate(self, rows_per_second: PerSecond, symbol: str | None = None) -> None:
        """The pace of synthetic books from now on; 0 is a quiet market."""
        for feed in self._feeds(symbol):
            feed.catch_up()
        self.rates = {**({} if symbol is None else self.rates), symbol: rows_per_second}
        for (name, _), flow in self.flows.items():
            if symbol in (None, name):
                flow.rate = rows_per_second
        for feed in self._feeds(symbol):
            feed.wake()

    @fault
    async def burst(self, symbol: str, rows: Count) -> None:
        """At least so many rows for every follower of the symbol, as fast as they can be made."""
        for feed in tuple(self._feeds(symbol)):
            await feed.burst(rows)

    def push_row(self, symbol: str, **fields: object) -> int:
        """One row of any content to every subscription of the symbol: position, operation, side, price, size and
        market_maker as numbers or texts; what is not given is a sound update of the best bid.

        The gateway's own book does not change. How many subscriptions it went to. Raises TypeError for other fields.
        """
        return self._push(symbol, [("pushed", raw_row(**fields))])

    @fault
    def malformed_rows(self, kinds: tuple[RowKind, ...] = tuple(MALFORMED_ROWS), symbol: str | None = None) -> int:
        """Rows of ROW_KINDS (distortions.py) to every subscription. Raises KeyError for an unknown kind."""
        return self._push(symbol, [(kind, ROW_KINDS[kind]) for kind in kinds])

    # --- lines that die or get out of step ---------------------------------------------------------------------------

    @fault
    def die(self, symbol: str, times: Times = 1) -> None:
        """The line of the symbol never gets a row again, without a word, and holds its slot."""

        def apply(follower: Follower) -> None:
            subscription = follower.subscription
            self.feed(subscription.listing, subscription.venue).unfollow(subscription)

        self._apply_to_lines("die", symbol, times, apply)

    @fault
    def die_on_subscribe(self, symbol: str, times: Times = 1) -> None:
        """The next `times` subscriptions of the symbol are accepted and never get a row."""
        self.dead_subscriptions[symbol] = times

    @fault
    def double_side(self, symbol: str, side: Side = "bid", times: Times = 1) -> None:
        """One side of the book is sent a second time, above itself, and stands twice from then on."""
        self._distort("double_side", symbol, times, lambda: DoubledSide(SIDES[side]))

    @fault
    def extra_delete(self, symbol: str, side: Side = "bid", times: Times = 1) -> None:
        """One delete too many: of the best level, which the gateway's book still has."""
        self._distort("extra_delete", symbol, times, lambda: ExtraRows(lambda book: one_delete(book, SIDES[side])))

    @fault
    def lose_row(self, symbol: str, times: Times = 1) -> None:
        """The next insert or delete is left out."""
        self._distort("lose_row", symbol, times, lambda: ReplacedRow((INSERT, DELETE)))

    @fault
    def cross(self, symbol: str, seconds: Seconds | None = None, times: Times = 1) -> None:
        """The best bid is sent above the best ask, for so long."""
        self._distort("cross", symbol, times, lambda: AlteredBook(crossed), seconds)

    @fault
    def unsort(self, symbol: str, times: Times = 1) -> None:
        """Two levels of each side are sent in each other's place."""
        self._distort("unsort", symbol, times, lambda: AlteredBook(unsorted))

    @fault
    def freeze_book(self, symbol: str, times: Times = 1) -> None:
        """Rows go on, and all of them repeat what the client has."""
        self._distort("freeze_book", symbol, times, StandingBook)

    @fault
    def updates_past_end(self, symbol: str, count: Times = 1, side: Side = "bid", times: Times = 1) -> None:
        """`count` updates of the row after the last."""
        extra = partial(updates_past_end, side=SIDES[side], count=count)
        self._distort("updates_past_end", symbol, times, lambda: ExtraRows(extra))

    @fault
    def unreadable_row(
        self, symbol: str, operation: Operation = "insert", how: UnreadableRowKind = "bad_size", times: Times = 1
    ) -> None:
        """The next row of that operation is sent with fields of UNREADABLE_ROWS in place of its own.

        Raises KeyError for an unknown operation or `how`.
        """
        operations = (OPERATIONS[operation],)
        if how not in UNREADABLE_ROWS:
            raise KeyError(how)
        self._distort("unreadable_row", symbol, times, lambda: ReplacedRow(operations, lambda r: SpoiledRow(r, how)))

    # --- inside --------------------------------------------------------------------------------------------------

    def _distort(
        self, name: str, symbol: str, times: int, make: Callable[[], Distortion], seconds: float | None = None
    ) -> None:
        def apply(follower: Follower) -> None:
            distortion = make()
            follower.distort(distortion)
            self._end_after(seconds, lambda: follower.restore(distortion))

        self._apply_to_lines(name, symbol, times, apply)

    def _apply_to_lines(self, name: str, symbol: str, times: int, apply: Callable[[Follower], None]) -> None:
        """Applies to the symbol's live lines, or the next if there is none, and further ones up to `times` in all."""
        fault = LineFault(name, apply, times)
        live = list(self._live_lines(symbol))
        for client, follower in live:
            self._apply_line_fault(client, follower, fault)
        fault.times -= 1 if live else 0
        if fault.times > 0:
            self.line_faults.setdefault(symbol, []).append(fault)

    def _live_lines(self, symbol: str) -> Iterator[tuple[Client, Follower]]:
        for client, subscription in self._subscriptions(symbol):
            for follower in self.feed(subscription.listing, subscription.venue).followers:
                if follower.subscription is subscription and follower.held is not None:
                    yield client, follower

    def _clients(self) -> tuple[Client, ...]:
        return tuple(self.clients.values())

    def _started(self) -> list[Client]:
        return [client for client in self._clients() if client.session.state is SessionState.READY]

    def _subscriptions(self, symbol: str | None = None) -> Iterator[tuple[Client, Subscription]]:
        for client in self._clients():
            for subscription in client.session.subscriptions:
                if symbol in (None, subscription.listing.name):
                    yield client, subscription

    def _feeds(self, symbol: str | None) -> Iterator[Feed]:
        return (feed for (name, _), feed in self.feeds.items() if symbol in (None, name))

    def _push(self, symbol: str | None, rows: list[tuple[str, RawRow]]) -> int:
        targets = list(self._subscriptions(symbol))
        for client, subscription in targets:
            for kind, row in rows:
                client.connection.send(self._raw_row_of(client, subscription, row))
                detail = {"request_id": subscription.request_id, "kind_of_row": kind, **row}
                self.journal.add(Entry(time.time(), client.number, "raw_row", subscription.listing.name, detail))
        return len(targets)

    def _raw_row_of(self, client: Client, subscription: Subscription, row: RawRow) -> bytes:
        return client.session.raw_row(subscription, row, subscription.venue.names_market_makers)

    def _end_after(self, seconds: float | None, action: Callable[[], object]) -> None:
        if seconds is not None:
            self._later(seconds, action)
