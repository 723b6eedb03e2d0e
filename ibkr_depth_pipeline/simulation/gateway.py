"""The simulated gateway with its run-time controls: everything that can be done to it while clients are connected.

What scenarios may state is marked with `fault` (faults.py). If a method takes `seconds`, what it does ends by itself
after them; with None it lasts until the opposite method is called. A symbol is a listing's name (`SPY`, `BRK B`,
`EUR.USD`); None means all.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.account import refused_place
from ibkr_depth_pipeline.simulation.catalogue import canonical
from ibkr_depth_pipeline.simulation.distortions import BAD_FRAMES, raw_row
from ibkr_depth_pipeline.simulation.faults import (
    AnyNumber,
    BadFrameKind,
    Count,
    Hexadecimal,
    RefusalCode,
    Seconds,
    Times,
    fault,
)
from ibkr_depth_pipeline.simulation.line_faults import LineFaults
from ibkr_depth_pipeline.simulation.options import ANY_SYMBOL, GatewayOptions, Pacing, Unready, check_refusal
from ibkr_depth_pipeline.simulation.scenario import ScenarioRunner, ScenarioStep


class SimulatedGateway(LineFaults):
    """A gateway to connect to, and to break.

        async with SimulatedGateway(GatewayOptions(slots=2)) as gateway:
            ...  # connect to gateway.host, gateway.port
            gateway.set_slots(1)
            await gateway.wait_for(lambda: gateway.journal.errors(309))

    Its methods belong to the event loop that it runs in; background.py has it in a thread or a process of its own.
    """

    def __init__(self, options: GatewayOptions | None = None, scenario: Sequence[ScenarioStep] = ()) -> None:
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

    async def wait_for(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Returns when the condition is truthy; it is evaluated after every journal entry, and now and then.

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

    @fault
    def set_slots(self, slots: Count) -> None:
        """The account's limit from now on. What is subscribed stays subscribed."""
        self.account.slots.limit = slots

    @fault
    def set_slot_free_delay(self, seconds: Seconds) -> None:
        """How long a subscription's slot stays in use after its cancel, from now on."""
        self.account.slot_free_delay = seconds

    @fault
    def occupy_slots(self, slots: Count, seconds: Seconds | None = None) -> None:
        """Another client of the account holds so many slots; 0 gives them back."""
        self.account.slots.taken_by_others = slots
        self._end_after(seconds, lambda: self.occupy_slots(0))

    @fault
    def hold_client_id(self, client_id: int, seconds: Seconds) -> None:
        """The id answers 326 for so long, as if another program had it."""
        self.account.client_ids.hold(client_id, time.time() + seconds)

    @fault
    def hang_client_id(self, client_id: int, seconds: Seconds | None = None) -> None:
        """Every startApi with the id that comes in that time is never answered and never refused."""
        self.account.client_ids.hang(client_id, math.inf if seconds is None else time.time() + seconds)

    @fault
    def set_greeting_delay(self, seconds: Seconds) -> None:
        """How long startApi waits for its answer from now on."""
        self.account.greeting_delay = seconds

    @fault
    def become_unready(self, how: Unready = Unready.NO_EXCHANGES) -> None:
        """As a gateway that has just started; what is subscribed goes on. Raises ValueError for an unknown `how`."""
        self.account.unready = Unready(how)
        self._note("unready", name=self.account.unready.value)

    @fault
    def become_ready(self) -> None:
        """2104, 2106 and 2158 to every started client; from now on everything is answered as usual."""
        if self.account.unready is None:
            return
        self.account.unready = None
        self._note("ready")
        for client in self._clients():
            self._carry_out(client, client.session.became_ready(time.time()))

    @fault
    def refuse(self, symbol: str, code: RefusalCode, venue: str | None = None) -> None:
        """Depth requests for the symbol (`*`: any), on that venue or on all, get that error.

        Raises ValueError for a number that is no error code.
        """
        self.account.refusals[refused_place(symbol, venue)] = check_refusal(code)

    @fault
    def allow(self, symbol: str, venue: str | None = None) -> None:
        """Ends what `refuse` or the options began: on that venue, or on all."""
        place = refused_place(symbol, venue)
        for refused in list(self.account.refusals):
            if refused == place or (venue is None and refused.startswith(f"{symbol}@")):
                del self.account.refusals[refused]

    # --- pace, contract details, clock -------------------------------------------------------------------------------

    @fault
    def limit_messages(self, messages_per_second: Times | None, pacing: Pacing = Pacing.DROP) -> None:
        """How many requests all clients of the account may send in a second from now on; None is no limit."""
        self.account.messages.limit, self.account.pacing = messages_per_second, Pacing(pacing)

    @fault
    def occupy_messages(self, messages_per_second: Count, seconds: Seconds | None = None) -> None:
        """Other clients of the account send so many requests a second; 0 ends that."""
        self.account.messages.taken_by_others = messages_per_second
        self._end_after(seconds, lambda: self.occupy_messages(0))

    @fault
    def ignore_details(self, symbol: str, times: Count) -> None:
        """The next `times` questions for contract details of the symbol (`*`: of each) get no answer."""
        if symbol == ANY_SYMBOL:
            self.account.unanswered_details.clear()
        self.account.unanswered_details[symbol] = times

    @fault
    def set_details_delay(self, seconds: Seconds) -> None:
        """How long contract details take from now on."""
        self.account.details_delay = seconds

    @fault
    def rename_venue(self, exchange: str, to: str) -> None:
        """From now on the venue goes by another name, and requests that use the old one are refused (200)."""
        self.account.catalogue.rename_venue(exchange, to)

    @fault
    def expire(self, symbol: str) -> None:
        """The contract is gone, as on the day after its last trade date: 200 for each request. Its lines end silently.

        Raises ValueError where no contract is called so.
        """
        listing = self.account.catalogue.named(symbol)
        if listing is None:
            raise ValueError(f"no contract is called {symbol}")
        self.account.catalogue.expire(listing)
        self.silence(listing.name)

    @fault
    def close_markets(self) -> None:
        """By the hours in contract details every market closes in this minute, and opens the day after tomorrow.

        Rows go on: who asks for the hours again learns of it, as of any change that an exchange announces.
        """
        self.account.closed_since = time.time() + self.account.clock_offset

    @fault
    def open_markets(self) -> None:
        """The hours are again those of the options."""
        self.account.closed_since = None

    @fault
    def set_clock_offset(self, seconds: AnyNumber) -> None:
        """How far the gateway's clock is ahead of the machine's."""
        self.account.clock_offset = seconds

    # --- sockets -------------------------------------------------------------------------------------------------

    @fault
    def drop_connections(self, reset: bool = True, client_id: int | None = None) -> int:
        """Cuts all connections, or that client's: by a TCP reset, else by a clean close. How many they were."""
        victims = [client for client in self._clients() if client_id in (None, client.session.client_id)]
        for client in victims:
            client.connection.reset() if reset else client.connection.close_now()
        return len(victims)

    @fault
    def refuse_connections(self, seconds: Seconds | None = None) -> None:
        """Stops listening; open connections go on. The opposite is `await listen()`."""
        self.stop_listening()
        self._end_after(seconds, lambda: self._keep(self.listen()))

    @fault
    def mute_new_connections(self, seconds: Seconds | None = None) -> None:
        """New connections are accepted and never answered, also afterwards."""
        self.muting = True
        self._end_after(seconds, self.answer_new_connections)

    def answer_new_connections(self) -> None:
        self.muting = False

    @fault
    def stall(self, seconds: Seconds | None = None) -> None:
        """Nothing leaves open connections, neither rows nor answers; it all leaves later. Sockets stay open."""
        for client in self._clients():
            client.connection.stall()
        self._end_after(seconds, self.resume)

    def resume(self) -> None:
        for client in self._clients():
            client.connection.resume()

    @fault
    def cut_message(self, reset: bool = False) -> None:
        """Sends the first half of a depth row (of a notice, if nothing is subscribed), then closes."""
        for client in self._clients():
            whole = client.session.error(replies.NO_REQUEST, 2104).data
            for subscription in client.session.subscriptions[:1]:
                whole = self._raw_row_of(client, subscription, raw_row())
            client.connection.send(whole[: len(whole) // 2])
            client.connection.reset_after_sending() if reset else client.connection.close()

    @fault
    def dribble(self, seconds: Seconds | None = None) -> None:
        """Every byte to open connections is written by itself."""
        self._set_dribbling(True)
        self._end_after(seconds, lambda: self._set_dribbling(False))

    # --- notices -------------------------------------------------------------------------------------------------

    @fault
    def repeat_error(self, code: int, times: Count, symbol: str | None = None) -> int:
        """The error so many times at once, as `send_error` sends it. How many were sent."""
        return sum(self.send_error(code, symbol) for _ in range(times))

    @fault
    def notify_permissions(self) -> int:
        """2152: which venues' depth the account has and which it lacks, by the refusals for `*`. How many were sent.

        It carries the id of each live depth request; if there is none it is about no request.
        """
        lacking = {canonical(place[2:]) for place in self.account.refusals if place.startswith(f"{ANY_SYMBOL}@")}
        sent = 0
        for client in self._started():
            live = [subscription.request_id for subscription in client.session.subscriptions]
            for request_id in live or [replies.NO_REQUEST]:
                client.send(client.session.error(request_id, 2152, **replies.permissions(lacking or {"ISLAND"})))
                sent += 1
        return sent

    @fault
    def connectivity_lost(self, dead_lines: bool = False, requests_help: bool = True) -> None:
        """1100. The sockets stay open and requests are answered; no row comes until `connectivity_restored`.

        With `dead_lines` nothing has to follow: the present subscriptions never get a row again, new ones do, or
        without `requests_help` only those of new connections do.
        """
        self.send_error(1100)
        if not dead_lines:
            self.pause_rows()
            return
        self.silence()
        if not requests_help:
            self.rowless_connections.update(self.clients)

    @fault
    def connectivity_restored(self, data_lost: bool = False, rows_follow: bool = True) -> None:
        """1102, or 1101 if data was lost: then every subscription is gone.

        Without `rows_follow` the subscriptions live on after a 1102 but get no row any more.
        """
        self.send_error(1101 if data_lost else 1102)
        if data_lost:
            for client, subscription in list(self._subscriptions()):
                self._carry_out(client, client.session.drop(subscription, time.time()))
        elif not rows_follow:
            self.silence()
        self.resume_rows()

    # --- raw bytes -----------------------------------------------------------------------------------------------

    @fault
    def bad_frame(self, kind: BadFrameKind, symbol: str | None = None) -> None:
        """A frame of BAD_FRAMES (distortions.py) to every subscription. Raises KeyError for an unknown kind."""
        for client, subscription in self._subscriptions(symbol):
            client.connection.send(BAD_FRAMES[kind](subscription.request_id))

    @fault
    def send_raw(self, hex: Hexadecimal) -> None:
        """Bytes as they are, to every open connection. Raises ValueError for what is no hexadecimal."""
        data = bytes.fromhex(hex)
        for client in self._clients():
            client.connection.send(data)

    # --- inside --------------------------------------------------------------------------------------------------

    def _set_dribbling(self, on: bool) -> None:
        for client in self._clients():
            client.connection.dribbling = on
