"""One client's conversation with the gateway, its depth subscriptions included, from the first byte to the last. Pure:
bytes and times go in, commands come out, and the server carries them out in order.

    commands = session.receive(data, now)

`now` is in unix seconds throughout. What all clients share (slots, client ids) is in the Account. Depth requests are
checked in the gateway's own order (docs/ibkr-market-depth.md, "Slots"): 321, 322, 309, 478, 10092, then unknown
contracts and missing permissions.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from enum import Enum, auto

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.account import Account
from ibkr_depth_pipeline.simulation.answers import Context, answer
from ibkr_depth_pipeline.simulation.catalogue import SMART_DEPTH, DepthVenue, Listing
from ibkr_depth_pipeline.simulation.codec import (
    InboundStream,
    MalformedRequest,
    ProtocolViolation,
    Request,
    decode_request,
    fields_of,
    parse_offer,
)
from ibkr_depth_pipeline.simulation.options import (
    EarlyCancel,
    GatewayOptions,
    Pacing,
    SlotsCount,
    TakenClientId,
    Unready,
)
from ibkr_depth_pipeline.simulation.replies import (
    Close,
    Command,
    Later,
    Received,
    Send,
    StartDepth,
    StopDepth,
    Subscription,
    Unanswered,
)
from ibkr_depth_pipeline.simulation.rows import WireRow

_DEFAULT_ROWS = 5


class DepthDesk:
    """Grants and ends the subscriptions of one connection, against the slots of the whole account."""

    def __init__(self, account: Account, options: GatewayOptions, connection: int) -> None:
        self.version = 0
        self._account = account
        self._options = options
        self._connection = connection
        self._live: dict[tuple[int, bool], Subscription] = {}

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        return tuple(self._live.values())

    def subscribe(self, request: Request, now: float) -> list[Command]:
        """StartDepth, or the one error that refuses the request."""
        request_id, smart = request.integer("reqId"), request.flag("isSmartDepth")
        if not request.text("exchange"):
            return [self._error(request_id, 321, cause=replies.NO_EXCHANGE)]
        if (request_id, smart) in self._live:
            return [self._error(request_id, 322)]
        listing = self._account.catalogue.find(request)
        conflict = "" if listing is None else self._account.catalogue.conflict(listing, request)
        if not self._account.slots.take((self._connection, request_id, smart), self._slot_of(listing, request), now):
            return [self._error(request_id, self._options.no_slot_code, limit=self._account.slots.limit)]
        venue = self._venue_of(listing, request, smart)
        code = 478 if conflict else self._refusal(listing, venue)
        if code is not None or listing is None or venue is None:
            self._account.slots.release((self._connection, request_id, smart), now)
            return [self._error(request_id, code or 10092, conflict=conflict)]
        depth = request.integer("numRows") or _DEFAULT_ROWS
        subscription = Subscription(request_id, smart, listing, venue, depth)
        self._live[subscription.key] = subscription
        return [StartDepth(subscription)]

    def cancel(self, request: Request, now: float) -> list[Command]:
        """StopDepth, or 310, or nothing if the options make the gateway lose the cancel."""
        request_id, smart = request.integer("reqId"), request.flag("isSmartDepth")
        subscription = self._live.get((request_id, smart))
        if subscription is None or self._lost_before(subscription):
            return [self._error(request_id, 310)]
        if self._options.early_cancel is not EarlyCancel.HONOURED and not subscription.first_row_sent:
            subscription.cancel_lost = True
            return []
        delay = self._account.slot_free_delay
        return self.drop(subscription, now + (self._options.slot_free_delay if delay is None else delay))

    def drop(self, subscription: Subscription, free_at: float) -> list[Command]:
        """Ends a subscription; its slot stays in use until `free_at`."""
        del self._live[subscription.key]
        self._account.slots.release((self._connection, *subscription.key), free_at)
        return [StopDepth(subscription)]

    def _lost_before(self, subscription: Subscription) -> bool:
        """Whether an earlier cancel was lost, so that this one is answered with 310 as well."""
        if not subscription.cancel_lost:
            return False
        return self._options.early_cancel is EarlyCancel.LOST or not subscription.first_row_sent

    def _slot_of(self, listing: Listing | None, request: Request) -> Hashable:
        """What the slot is counted by. A contract that does not exist still needs a free slot to be checked."""
        if listing is not None and self._options.slots_count is SlotsCount.CONTRACTS:
            return listing.con_id
        return self._connection, request.integer("reqId")

    def _refusal(self, listing: Listing | None, venue: DepthVenue | None) -> int | None:
        if listing is None or self._account.unready is Unready.UNKNOWN_CONTRACTS:
            return 200
        if self._account.unready is Unready.NOT_SUBSCRIBED:
            return 354
        if venue is None:
            return self._account.refusals.get(listing.name) or 10092
        return (
            10092
            if self._account.unready is Unready.NO_EXCHANGES
            else self._account.refusal_of(listing.name, venue.name)
        )

    def _venue_of(self, listing: Listing | None, request: Request, smart: bool) -> DepthVenue | None:
        """The venue whose depth is asked for; none for a continuous future, which has no depth."""
        exchange = request.text("exchange")
        if listing is None or request.text("secType") == "CONTFUT":
            return None
        if exchange == "SMART":
            return SMART_DEPTH if smart and listing.sec_type == "STK" and "SMART" in listing.exchanges else None
        return self._account.catalogue.depth_venue(exchange, listing)

    def _error(self, request_id: int, code: int, **names: object) -> Send:
        return replies.error(self.version, request_id, code, self._options.texts, **names)


# ---- the conversation


class SessionState(Enum):
    GREETING = auto()
    """Waiting for the version offer."""
    STARTING = auto()
    """Version agreed; waiting for startApi."""
    INITIALISING = auto()
    """startApi has come and its client id is taken; not greeted yet."""
    READY = auto()
    CLOSED = auto()


TRANSITIONS = {
    SessionState.GREETING: {SessionState.STARTING, SessionState.CLOSED},
    SessionState.STARTING: {SessionState.INITIALISING, SessionState.CLOSED},
    SessionState.INITIALISING: {SessionState.READY, SessionState.CLOSED},
    SessionState.READY: {SessionState.CLOSED},
    SessionState.CLOSED: {SessionState.CLOSED},
}


_LAST_VIOLATION = 3
"""The pacing violation that ends a connection."""


class Session:
    """The protocol state of one connection.

    Returns commands in the order in which they must be carried out. The caller must call `connection_lost` exactly
    once, when the connection is gone.
    """

    def __init__(self, account: Account, options: GatewayOptions, connection: int) -> None:
        self.state = SessionState.GREETING
        self.version = 0
        self.client_id: int | None = None
        self._connection = connection
        self._account = account
        self._options = options
        self._inbound = InboundStream()
        self._violations = 0
        self._greeting_due = False
        self._held: list[Request] = []
        """Requests that came before the gateway was able to answer, oldest first."""
        self._desk = DepthDesk(account, options, connection)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is subscribed now, oldest first."""
        return self._desk.subscriptions

    def receive(self, data: bytes, now: float) -> list[Command]:
        """What the bytes lead to. After a Close command further bytes lead to nothing."""
        if self.state is SessionState.CLOSED:
            return []
        answers: list[Command] = []
        try:
            for payload in self._inbound.feed(data):
                answers += self._on_frame(payload, now)
        except ProtocolViolation as violation:
            answers += self._close(str(violation))
        return answers

    def became_ready(self, now: float) -> Iterator[Command]:
        """To be called when an unready gateway becomes ready: the farms' notices, and answers to what was held back."""
        if self.state is SessionState.READY:
            yield from self._farm_notices()
            yield from self._answer_held(now)
        elif self.state is SessionState.INITIALISING and self._greeting_due:
            yield from self._greet(now)

    def connection_lost(self, now: float) -> list[Command]:
        """Gives back what the connection held, at once or after the time in the options."""
        self._move_to(SessionState.CLOSED)
        free_at = now + self._options.slots_held_after_drop
        if self.client_id is not None:
            held_until = now + self._options.client_id_held_after_drop
            self._account.client_ids.release(self.client_id, self._connection, held_until)
        return [command for subscription in self.subscriptions for command in self._desk.drop(subscription, free_at)]

    def drop(self, subscription: Subscription, now: float) -> list[Command]:
        """Ends a subscription from the gateway's side, as after a halt or lost data; its slot is free at once."""
        return self._desk.drop(subscription, now)

    def rows(self, subscription: Subscription, rows: Iterable[WireRow]) -> bytes:
        """The rows as this client's version reads them."""
        request_id, venue, version = subscription.request_id, subscription.venue, self.version
        return b"".join([replies.depth_row(request_id, row, venue, version) for row in rows])

    def raw_row(self, subscription: Subscription, fields: Mapping[str, str], named: bool) -> bytes:
        """A depth row of any texts, in the message that names market makers or in the other."""
        return replies.raw_depth_row(subscription.request_id, fields, named, subscription.smart, self.version)

    def error(self, request_id: int, code: int, **names: object) -> Send:
        """An error message of the gateway's own accord; request id -1 if it is about no request."""
        return replies.error(self.version, request_id, code, self._options.texts, **names)

    def _on_frame(self, payload: bytes, now: float) -> Iterable[Command]:
        if self.state is SessionState.GREETING:
            return self._agree_on_version(payload, now)
        if self.state is SessionState.CLOSED:
            return []
        try:
            request = decode_request(fields_of(payload), self.version)
            excess = self._account.messages.excess(now)
            answers = self._pacing_violation(request, excess) if excess else self._answer(request, now)
            return [Received(request), *answers]
        except MalformedRequest as problem:
            return [self.error(replies.NO_REQUEST, 320, cause=replies.UNREADABLE.format(reason=problem))]

    def _pacing_violation(self, request: Request, received: int) -> Iterator[Command]:
        """The request is lost; if the options have it so, the third one of a connection ends it."""
        self._violations += 1
        allowed, violation = self._account.messages.limit, self._violations
        yield Unanswered(request, f"{received} messages in a second")
        yield self.error(replies.NO_REQUEST, 100, allowed=allowed, received=received, violation=violation)
        if self._account.pacing is Pacing.DISCONNECT and violation >= _LAST_VIOLATION:
            yield from self._close(f"violation {violation} of the pace")

    def _agree_on_version(self, payload: bytes, now: float) -> list[Command]:
        offer = parse_offer(payload)
        version = offer.version_agreed_with(self._options.server_version)
        if version is None:
            return self._close(f"no common version with {offer.lowest}..{offer.highest}")
        self.version = self._desk.version = version
        self._move_to(SessionState.STARTING)
        return [Send(replies.handshake(version, now + self._account.clock_offset), "handshake", {"version": version})]

    def _answer(self, request: Request, now: float) -> Iterable[Command]:
        if request.name == "startApi":
            return self._start(request, now) if self.state is SessionState.STARTING else []
        if self.state is SessionState.STARTING:
            return self._close(f"{request.name} came before startApi")
        if self.state is SessionState.INITIALISING or self._account.unready is Unready.SILENT:
            self._held.append(request)
            return []
        return self._answer_started(request, now)

    def _answer_started(self, request: Request, now: float) -> Iterable[Command]:
        if request.name == "reqMktDepth":
            return self._desk.subscribe(request, now)
        if request.name == "cancelMktDepth":
            return self._desk.cancel(request, now)
        return answer(request, Context(self._account, self._options, self.version, now))

    def _start(self, request: Request, now: float) -> Iterator[Command]:
        client_id = request.integer("clientId")
        hangs = self._account.client_ids.hangs(client_id, now)
        if not hangs and not self._account.client_ids.take(client_id, self._connection, now):
            hangs = self._options.taken_client_id is TakenClientId.HANGS
            if not hangs:
                yield self.error(replies.NO_REQUEST, 326)
                yield from self._close(f"client id {client_id} is in use")
                return
        self._move_to(SessionState.INITIALISING)
        if hangs:
            yield Unanswered(request, f"client id {client_id} hangs")
            return
        self.client_id = client_id
        if self._account.greeting_delay > 0:
            yield Later(self._account.greeting_delay, self._initialised)
        else:
            yield from self._initialised(now)

    def _initialised(self, now: float) -> Iterator[Command]:
        """The delay before the greeting is over."""
        self._greeting_due = True
        if self.state is SessionState.INITIALISING and self._account.unready is not Unready.SILENT:
            yield from self._greet(now)

    def _greet(self, now: float) -> Iterator[Command]:
        self._move_to(SessionState.READY)
        yield Send(replies.next_valid_id(1), "nextValidId")
        yield Send(replies.managed_accounts(self._account.numbers), "managedAccounts")
        if self._account.unready is None:
            yield from self._farm_notices()
        yield from self._answer_held(now)

    def _farm_notices(self) -> Iterator[Command]:
        for code in (2104, 2106, 2158):
            yield self.error(replies.NO_REQUEST, code)

    def _answer_held(self, now: float) -> Iterator[Command]:
        held, self._held = self._held, []
        for request in held:
            yield from self._answer_started(request, now)

    def _close(self, reason: str) -> list[Command]:
        self._move_to(SessionState.CLOSED)
        return [Close(reason)]

    def _move_to(self, state: SessionState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a session cannot go from {self.state.name} to {state.name}")
        self.state = state
