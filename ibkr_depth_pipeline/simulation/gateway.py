"""The simulated gateway with its run-time controls: everything that can be done to it while clients are connected.

Every fault of faults.py is a method here, of the same name and parameters. Where a method takes `seconds`, what it
does ends by itself after them; with None it lasts until the opposite method is called. A symbol is a listing's name
(`SPY`, `BRK B`, `EUR.USD`); None means all.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.account import refused_place
from ibkr_depth_pipeline.simulation.commands import Subscription
from ibkr_depth_pipeline.simulation.feed import Feed
from ibkr_depth_pipeline.simulation.journal import Entry
from ibkr_depth_pipeline.simulation.malformed import BAD_FRAMES, MALFORMED_ROWS, RawRow, raw_row
from ibkr_depth_pipeline.simulation.options import GatewayOptions, Unready, check_refusal
from ibkr_depth_pipeline.simulation.scenario import Step
from ibkr_depth_pipeline.simulation.scenario_runner import ScenarioRunner
from ibkr_depth_pipeline.simulation.server import Client, GatewayServer
from ibkr_depth_pipeline.simulation.session import SessionState


class SimulatedGateway(GatewayServer):
    """A gateway to connect to, and to break.

        async with SimulatedGateway(GatewayOptions(slots=2)) as gateway:
            ...  # connect to gateway.host, gateway.port
            gateway.set_slots(1)
            await gateway.wait_for(lambda: gateway.journal.errors(309))

    Its methods belong to the event loop that it runs in; background.py has it in a thread or a process of its own.
    """

    def __init__(self, options: GatewayOptions | None = None, scenario: Sequence[Step] = ()) -> None:
        super().__init__(options)
        self._scenario = scenario

    async def _begin(self) -> None:
        if self.options.ready_after is not None:
            self.become_unready(self.options.unready)
            self._later(self.options.ready_after, self.become_ready)
        await super()._begin()
        if self._scenario:
            runner = ScenarioRunner(self._scenario, self.journal, self)
            self._keep(runner.run())

    # --- waiting -------------------------------------------------------------------------------------------------

    async def wait_for(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Returns when the condition is truthy; it is looked at after every journal entry, and now and then.

        Raises asyncio.TimeoutError.
        """
        news = asyncio.Event()
        unlisten = self.journal.listen(lambda entry: news.set())
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            while not condition():
                if asyncio.get_running_loop().time() > deadline:
                    raise asyncio.TimeoutError(f"not within {timeout} s")
                news.clear()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), 0.05)
        finally:
            unlisten()

    # --- slots, client ids, permissions --------------------------------------------------------------------------

    def set_slots(self, slots: int) -> None:
        """The account's limit from now on. What is subscribed stays subscribed."""
        self.account.slots.limit = slots

    def occupy_slots(self, slots: int, seconds: float | None = None) -> None:
        """Another client of the account holds so many slots; 0 gives them back."""
        self.account.slots.taken_by_others = slots
        self._end_after(seconds, lambda: self.occupy_slots(0))

    def hold_client_id(self, client_id: int, seconds: float) -> None:
        """The id answers 326 for so long, as if another program had it."""
        self.account.client_ids.hold(client_id, time.time() + seconds)

    def hang_client_id(self, client_id: int, seconds: float | None = None) -> None:
        """Every startApi with the id that comes in that time is never answered and never refused."""
        self.account.client_ids.hang(client_id, math.inf if seconds is None else time.time() + seconds)

    def set_greeting_delay(self, seconds: float) -> None:
        """How long startApi waits for its answer from now on."""
        self.account.greeting_delay = seconds

    def become_unready(self, how: Unready | str = Unready.NO_EXCHANGES) -> None:
        """As a gateway that has just started; what is subscribed goes on. Raises ValueError for an unknown `how`."""
        self.account.unready = Unready(how)
        self._note("unready", name=self.account.unready.value)

    def become_ready(self) -> None:
        """2104, 2106 and 2158 to every started client; from now on everything is answered as usual."""
        if self.account.unready is None:
            return
        self.account.unready = None
        self._note("ready")
        for client in self._clients():
            self._carry_out(client, client.session.became_ready(time.time()))

    def refuse(self, symbol: str, code: int, venue: str | None = None) -> None:
        """Depth requests for the symbol (`*`: any), on that venue or on all, get that error.

        Raises ValueError for a number that is no error code.
        """
        self.account.refusals[refused_place(symbol, venue)] = check_refusal(code)

    def allow(self, symbol: str, venue: str | None = None) -> None:
        """Ends what `refuse` or the options began: on that venue, or on all."""
        place = refused_place(symbol, venue)
        for refused in list(self.account.refusals):
            if refused == place or (venue is None and refused.startswith(f"{symbol}@")):
                del self.account.refusals[refused]

    # --- sockets -------------------------------------------------------------------------------------------------

    def drop_connections(self, reset: bool = True, client_id: int | None = None) -> int:
        """Cuts all connections, or that client's: by a TCP reset, else by a clean close. How many they were."""
        victims = [client for client in self._clients() if client_id in (None, client.session.client_id)]
        for client in victims:
            client.connection.reset() if reset else client.connection.close_now()
        return len(victims)

    def refuse_connections(self, seconds: float | None = None) -> None:
        """Stops listening; open connections go on. The opposite is `await listen()`."""
        self.stop_listening()
        self._end_after(seconds, lambda: self._keep(self.listen()))

    def mute_new_connections(self, seconds: float | None = None) -> None:
        """New connections are accepted and never answered, also afterwards."""
        self.muting = True
        self._end_after(seconds, self.answer_new_connections)

    def answer_new_connections(self) -> None:
        self.muting = False

    def stall(self, seconds: float | None = None) -> None:
        """Nothing leaves open connections, neither rows nor answers; it all leaves later. Sockets stay open."""
        for client in self._clients():
            client.connection.stall()
        self._end_after(seconds, self.resume)

    def resume(self) -> None:
        for client in self._clients():
            client.connection.resume()

    def cut_message(self, reset: bool = False) -> None:
        """Sends the first half of a depth row (of a notice, where nothing is subscribed), then closes."""
        for client in self._clients():
            whole = client.session.error(replies.NO_REQUEST, 2104).data
            for subscription in client.session.subscriptions[:1]:
                whole = self._raw_row_of(client, subscription, raw_row())
            client.connection.send(whole[: len(whole) // 2])
            client.connection.reset_after_sending() if reset else client.connection.close()

    def dribble(self, seconds: float | None = None) -> None:
        """Every byte to open connections is written by itself."""
        self._set_dribbling(True)
        self._end_after(seconds, lambda: self._set_dribbling(False))

    # --- notices -------------------------------------------------------------------------------------------------

    def send_error(self, code: int, symbol: str | None = None) -> int:
        """The error to every started client, or about every subscription of the symbol. How many were sent."""
        if symbol is None:
            targets = [(client, replies.NO_REQUEST) for client in self._started()]
        else:
            targets = [(client, subscription.request_id) for client, subscription in self._subscriptions(symbol)]
        for client, request_id in targets:
            client.send(client.session.error(request_id, code, limit=self.account.slots.limit, port=self.port))
        return len(targets)

    def advise(self, symbol: str, code: int) -> int:
        """The error with the id of each live request of the symbol, whose rows go on. How many were sent."""
        return self.send_error(code, symbol)

    def connectivity_lost(self) -> None:
        """1100, and no row until `connectivity_restored`. The sockets stay open and requests are answered."""
        self.send_error(1100)
        self.pause_rows()

    def connectivity_restored(self, data_lost: bool = False, rows_follow: bool = True) -> None:
        """1102, or 1101 where data was lost: then every subscription is gone.

        Without `rows_follow` the subscriptions live on after a 1102 but get no row any more.
        """
        self.send_error(1101 if data_lost else 1102)
        if data_lost:
            for client, subscription in list(self._subscriptions()):
                self._carry_out(client, client.session.drop(subscription, time.time()))
        elif not rows_follow:
            self.silence()
        self.resume_rows()

    # --- rows ----------------------------------------------------------------------------------------------------

    def reset_book(self, symbol: str) -> None:
        """317, then the whole book as inserts."""
        self.send_error(317, symbol)
        for feed in self._feeds(symbol):
            feed.reopen()

    def halt(self, symbol: str) -> None:
        """316: the subscription is gone and must be made anew."""
        self.send_error(316, symbol)
        for client, subscription in list(self._subscriptions(symbol)):
            self._carry_out(client, client.session.drop(subscription, time.time()))

    def silence(self, symbol: str | None = None) -> None:
        """The present subscriptions live on, and hold their slots, but never get a row again."""
        for _, subscription in self._subscriptions(symbol):
            self.feed(subscription.listing, subscription.venue).unfollow(subscription)

    def pause_rows(self, symbol: str | None = None, seconds: float | None = None) -> None:
        """No row comes, not even first ones; everything else is answered."""
        self.pausing |= {symbol}
        for feed in self._feeds(symbol):
            feed.pause()
        self._end_after(seconds, lambda: self.resume_rows(symbol))

    def resume_rows(self, symbol: str | None = None) -> None:
        self.pausing = set() if symbol is None else self.pausing - {symbol}
        for feed in self._feeds(symbol):
            feed.resume()

    def set_rate(self, rows_per_second: float, symbol: str | None = None) -> None:
        """The pace of synthetic books from now on; 0 is a quiet market."""
        self.rates = {**({} if symbol is None else self.rates), symbol: rows_per_second}
        for (name, _), flow in self.flows.items():
            if symbol in (None, name):
                flow.rate = rows_per_second
        for feed in self._feeds(symbol):
            feed.wake()

    async def burst(self, symbol: str, rows: int) -> None:
        """At least so many rows for every follower of the symbol, as fast as they can be made."""
        for feed in tuple(self._feeds(symbol)):
            await feed.burst(rows)

    def push_row(self, symbol: str, **fields: object) -> int:
        """One row of any content to every subscription of the symbol: position, operation, side, price, size and
        market_maker as numbers or texts; what is not given is a sound update of the best bid.

        The gateway's own book does not change. How many subscriptions it went to. Raises TypeError for other fields.
        """
        return self._push(symbol, [("pushed", raw_row(**fields))])

    def malformed_rows(self, kinds: Iterable[str] = tuple(MALFORMED_ROWS), symbol: str | None = None) -> int:
        """The rows of malformed.py to every subscription. Raises KeyError for an unknown kind."""
        return self._push(symbol, [(kind, MALFORMED_ROWS[kind]) for kind in kinds])

    # --- raw bytes -----------------------------------------------------------------------------------------------

    def bad_frame(self, kind: str, symbol: str | None = None) -> None:
        """A frame of malformed.py to every subscription. Raises KeyError for an unknown kind."""
        for client, subscription in self._subscriptions(symbol):
            client.connection.send(BAD_FRAMES[kind](subscription.request_id))

    def send_raw(self, hex: str) -> None:
        """Bytes as they are, to every open connection. Raises ValueError for what is no hexadecimal."""
        data = bytes.fromhex(hex)
        for client in self._clients():
            client.connection.send(data)

    # --- inside --------------------------------------------------------------------------------------------------

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
        named = subscription.venue.names_market_makers
        return replies.raw_depth_row(subscription.request_id, row, named, subscription.smart, client.session.version)

    def _set_dribbling(self, on: bool) -> None:
        for client in self._clients():
            client.connection.dribbling = on

    def _end_after(self, seconds: float | None, action: Callable[[], object]) -> None:
        if seconds is not None:
            self._later(seconds, action)
