"""The simulated gateway on the network: listens, feeds bytes to sessions, carries out what they decide, moves feeds."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.account import Account, SlotTable, of_place, refused_place
from ibkr_depth_pipeline.simulation.archive_tape import read_archived
from ibkr_depth_pipeline.simulation.catalogue import Catalogue, DepthVenue, Listing, canonical, depth_venue
from ibkr_depth_pipeline.simulation.codec import Request
from ibkr_depth_pipeline.simulation.connection import Client, Connection
from ibkr_depth_pipeline.simulation.feed import Feed, Follower, LineFault
from ibkr_depth_pipeline.simulation.journal import Entry, Journal
from ibkr_depth_pipeline.simulation.market import SyntheticFlow, SyntheticMarket
from ibkr_depth_pipeline.simulation.options import ANY_SYMBOL, GatewayOptions, ReplayOptions
from ibkr_depth_pipeline.simulation.replay import Replay, Tape, TapeError, read_tape, symbol_of
from ibkr_depth_pipeline.simulation.rows import BookSource, RowStyle
from ibkr_depth_pipeline.simulation.session import Session

AnyGateway = TypeVar("AnyGateway", bound="GatewayServer")


class GatewayServer:
    """A listening gateway. `async with GatewayServer(options) as gateway:` listens inside the block.

    Raises OSError on entry if the address cannot be had, ValueError for an unreadable replay file.
    """

    def __init__(self, options: GatewayOptions | None = None) -> None:
        self.options = options or GatewayOptions()
        self.port = self.options.port
        """The port listened on; while the option is 0 and nothing listens yet, 0."""
        catalogue = Catalogue(
            self.options.seed,
            strict=self.options.strict_catalogue,
            nasdaq_name=self.options.nasdaq_name,
            today=datetime.fromtimestamp(time.time() + self.options.clock_offset, timezone.utc).date(),
        )
        self.account = Account(catalogue, SlotTable(self.options.slots), numbers=self.options.accounts)
        self.account.refusals.update(self.options.refusals)
        for place, code in self.options.venue_refusals.items():
            self.account.refusals[refused_place(*place.split("@"))] = code
        self._apply_conditions()
        self.journal = Journal(keep_rows=self.options.keep_rows, limit=self.options.journal_entries)
        self.clients: dict[int, Client] = {}
        """Open connections by number, the first being 1."""
        self.feeds: dict[tuple[str, str], Feed] = {}
        """Every feed, by listing and venue name."""
        self.flows: dict[tuple[str, str], SyntheticFlow] = {}
        """The synthetic sources among the feeds' sources."""
        self.rates: dict[str | None, float] = {None: self.options.rows_per_second}
        """Rows a second by listing name; None is for all others."""
        self.rates.update(self.options.symbol_rates)
        self.muting = False
        """While set, new connections are never answered."""
        self.pausing: set[str | None] = set()
        """Listing names whose rows are held back; None is for all."""
        self.rows_after_cancel = self.options.rows_after_cancel
        self.dead_subscriptions: dict[str, int] = dict(self.options.dead_subscriptions)
        """Listing name -> how many of the next subscriptions never get a row."""
        self.rowless_connections: set[int] = set()
        """Numbers of connections whose subscriptions never get a row."""
        self.line_faults: dict[str, list[LineFault]] = {}
        """Listing name -> the faults of its next subscriptions, from their opening book on."""
        self._tapes: dict[str, tuple[Tape, ReplayOptions]] = {}
        self._muted: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = 0
        self._server: asyncio.Server | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._resources = ExitStack()

    def _apply_conditions(self) -> None:
        """The options that may change at run time."""
        account, options = self.account, self.options
        account.greeting_delay, account.details_delay = options.greeting_delay, options.details_delay
        account.clock_offset = options.clock_offset
        account.unanswered_details.update(options.unanswered_details)
        account.messages.limit, account.pacing = options.messages_per_second, options.pacing
        account.messages.taken_by_others = options.other_messages_per_second
        for client_id in options.hung_client_ids:
            account.client_ids.hang(client_id, math.inf)

    @property
    def host(self) -> str:
        return self.options.host

    async def __aenter__(self: "AnyGateway") -> "AnyGateway":
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _begin(self) -> None:
        self._tapes = {name: (tape, options) for name, tape, options in self._read_tapes()}
        if self.options.journal_file is not None:
            self._write_journal_to(self.options.journal_file)
        await self.listen()

    async def listen(self) -> None:
        """Starts listening, on the same port as before if it listened before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self.options.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._note("listening", detail={"host": self.host, "port": self.port})

    def stop_listening(self) -> None:
        """Closes the listening socket; open connections go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._note("stopped_listening")

    async def close(self) -> None:
        """Ends everything: no socket, task or file is left."""
        self.stop_listening()
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for feed in tuple(self.feeds.values()):
            await feed.close()
        await self._close_connections()
        self._resources.close()

    async def _close_connections(self) -> None:
        """Closes cleanly; a client that does not read what was sent is cut off."""
        for end in (Connection.close_now, Connection.reset):
            for client in tuple(self.clients.values()):
                end(client.connection)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), 0.5)

    # --- what connections report ---------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        session = Session(self.account, self.options, connection.number)
        self.clients[connection.number] = Client(connection, session, self.journal)
        self._all_gone.clear()
        if self.muting:
            self._muted.add(connection.number)
        self._note("opened", connection.number)

    def received(self, connection: Connection, data: bytes) -> None:
        client = self.clients[connection.number]
        if connection.number in self._muted:
            return
        self._carry_out(client, client.session.receive(data, time.time()))

    def lost(self, connection: Connection) -> None:
        client = self.clients.pop(connection.number)
        self._muted.discard(connection.number)
        self.rowless_connections.discard(connection.number)
        if not self.clients:
            self._all_gone.set()
        self._carry_out(client, client.session.connection_lost(time.time()))
        self._note("closed", connection.number, detail={"client_id": client.session.client_id})

    def _accept(self) -> Connection:
        self._opened += 1
        return Connection(self, self._opened, self.options.latency, self.options.largest_backlog)

    def _carry_out(self, client: Client, commands: Iterable[replies.Command]) -> None:
        for command in commands:
            match command:
                case replies.Received(request):
                    self._note("request", client.number, request.name, self._as_journalled(request))
                case replies.Send():
                    client.send(command)
                case replies.Close(reason):
                    self._note("closing", client.number, detail={"reason": reason})
                    client.connection.close()
                case replies.StartDepth(subscription):
                    self._start_depth(client, subscription)
                case replies.StopDepth(subscription):
                    self._stop_depth(client, subscription)
                case replies.Later():
                    self._carry_out_later(client, command)
                case replies.Unanswered(request, reason):
                    self._note("unanswered", client.number, request.name, {**request.values, "reason": reason})

    def _carry_out_later(self, client: Client, later: replies.Later) -> None:
        def carry_out() -> None:
            if client.number in self.clients:
                self._carry_out(client, later.then(time.time()))

        self._later(later.seconds, carry_out)

    # --- depth ---------------------------------------------------------------------------------------------------

    def _start_depth(self, client: Client, subscription: replies.Subscription) -> None:
        self._note("subscribed", client.number, subscription.listing.name, _described(subscription))
        self._advise(client, subscription)
        if self._never_opens(client, subscription):
            return
        name, venue = subscription.listing.name, subscription.venue.name
        delay = of_place(self.options.venue_first_row_delays, name, venue)
        delay = self.options.first_row_delay if delay is None else delay
        self._later(delay, lambda: self._open_book(client, subscription))

    def _advise(self, client: Client, subscription: replies.Subscription) -> None:
        """An error with the request's id that does not end the line, if the options have one."""
        advisories = self.options.advisories
        code = advisories.get(subscription.listing.name) or advisories.get(ANY_SYMBOL)
        if code is None:
            return

        def send() -> None:
            if subscription in client.session.subscriptions:
                client.send(client.session.error(subscription.request_id, code))

        self._later(self.options.advisory_delay, send)

    def _never_opens(self, client: Client, subscription: replies.Subscription) -> bool:
        """Whether the subscription never gets a row. Counts it."""
        name = subscription.listing.name
        silent = {refused_place(*each.partition("@")[::2]) for each in self.options.silent_symbols}
        places = {name, refused_place(name, subscription.venue.name)}
        if silent & places or client.number in self.rowless_connections:
            return True
        left = self.dead_subscriptions.get(name, 0)
        if left > 0:
            self.dead_subscriptions[name] = left - 1
            self._note("dead", client.number, name, _described(subscription))
        return left > 0

    def _open_book(self, client: Client, subscription: replies.Subscription) -> None:
        if subscription not in client.session.subscriptions:
            return
        follower = Follower(subscription, client)
        follower.on_open = lambda: self._apply_line_faults(client, follower)
        self.feed(subscription.listing, subscription.venue).follow(follower)

    def _apply_line_faults(self, client: Client, follower: Follower) -> None:
        """Applies what was arranged for the next subscription of its symbol."""
        name = follower.subscription.listing.name
        for fault in list(self.line_faults.get(name, ())):
            fault.times -= 1
            if fault.times <= 0:
                self.line_faults[name].remove(fault)
            self._apply_line_fault(client, follower, fault)

    def _apply_line_fault(self, client: Client, follower: Follower, fault: LineFault) -> None:
        subscription = follower.subscription
        detail = {**_described(subscription), "how": fault.name}
        kind = "dead" if fault.name == "die" else "out_of_step"
        self._note(kind, client.number, subscription.listing.name, detail)
        fault.apply(follower)

    def _stop_depth(self, client: Client, subscription: replies.Subscription) -> None:
        self._note("unsubscribed", client.number, subscription.listing.name, _described(subscription))
        feed = self.feed(subscription.listing, subscription.venue)
        linger = self.rows_after_cancel if client.number in self.clients else 0.0
        self._later(linger, lambda: feed.unfollow(subscription))

    def feed(self, listing: Listing, venue: DepthVenue) -> Feed:
        """The one feed of that contract on that venue, made when it is first asked for."""
        key = (listing.name, venue.name)
        if key not in self.feeds:
            feed = Feed(
                self._source(listing, venue),
                lambda: self._note("replay_ended", name=listing.name),
                lambda code: self._send_error_to_all(listing, venue, code),
            )
            if self.pausing & {None, listing.name}:
                feed.pause()
            self.feeds[key] = feed
        return self.feeds[key]

    def _send_error_to_all(self, listing: Listing, venue: DepthVenue, code: int) -> None:
        """A replay's 316 or 317, to every subscription of that contract on that venue."""
        for client in tuple(self.clients.values()):
            for subscription in client.session.subscriptions:
                if (subscription.listing.name, subscription.venue.name) == (listing.name, venue.name):
                    client.send(client.session.error(subscription.request_id, code))
                    if code == 316:
                        self._carry_out(client, client.session.drop(subscription, time.time()))

    def _source(self, listing: Listing, venue: DepthVenue) -> BookSource:
        if listing.name in self._tapes:
            tape, replay = self._tapes[listing.name]
            return Replay(tape, replay)
        rate = self.rates.get(listing.name, self.rates[None])
        market = SyntheticMarket(self.options.seed, listing, venue, in_lots=self.options.sizes_in_lots)
        still = self.options.markets_stand_still
        flow = SyntheticFlow(market, self._style_of(venue), rate, self.options.seed, stands_still=still)
        self.flows[listing.name, venue.name] = flow
        return flow

    def _style_of(self, venue: DepthVenue) -> RowStyle:
        styles = {canonical(name): style for name, style in self.options.row_styles.items()}
        return styles.get(canonical(venue.name)) or styles.get(ANY_SYMBOL) or venue.style

    def _read_tapes(self) -> Iterator[tuple[str, Tape, ReplayOptions]]:
        for replay in self.options.replays:
            if replay.day is not None and replay.symbol is not None:
                yield replay.symbol, read_archived(replay.path, replay.day, replay.symbol, replay.limit), replay
                continue
            if not replay.path.is_file():
                raise TapeError(f"{replay.path}: no such file")
            symbol = replay.symbol or symbol_of(replay.path)
            listing = self.account.catalogue.named(symbol)
            if listing is None:
                raise TapeError(f"{replay.path}: no contract is called {symbol}")
            yield listing.name, read_tape(replay.path, self._market_maker(listing), replay.limit), replay

    def _market_maker(self, listing: Listing) -> str:
        """The name that a replay invents for the levels of its books: that of the contract's own venue."""
        venue = depth_venue(listing.primary_exchange or listing.exchanges[0], listing.sec_type)
        return venue.market_makers[0] if venue is not None and venue.market_makers else ""

    def _as_journalled(self, request: Request) -> dict[str, object]:
        """The request's own fields, and for depth what contract they name.

        A request may hold a con_id alone: its symbol is then filled in, and `by_con_id` says so.
        """
        detail: dict[str, object] = {**request.values, "rest": list(request.rest)}
        if request.name == "reqMktDepth":
            listing = self.account.catalogue.find(request)
            detail["listing"] = "" if listing is None else listing.name
            if listing is not None and not request.text("symbol"):
                detail |= {"symbol": listing.symbol, "by_con_id": True}
        return detail

    def _write_journal_to(self, path: Path) -> None:
        file = self._resources.enter_context(path.open("w", encoding="utf-8"))
        self.journal.write_to(file)

    # --- small things --------------------------------------------------------------------------------------------

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs the coroutine beside everything else; it is cancelled when the gateway closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _later(self, delay: float, action: Callable[[], object]) -> None:
        """Runs the action after the delay, at once for none, never after the gateway has closed."""
        if delay <= 0:
            action()
            return

        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay, run)
        self._timers.add(timer)

    def _note(self, kind: str, connection: int = 0, name: str = "", detail: dict[str, object] | None = None) -> None:
        self.journal.add(Entry(time.time(), connection, kind, name, detail or {}))


def _described(subscription: replies.Subscription) -> dict[str, object]:
    return {
        "request_id": subscription.request_id,
        "smart": subscription.smart,
        "venue": subscription.venue.name,
        "depth": subscription.depth,
    }
