"""The depth subscriptions of one connection: what is granted, what is refused and with which code. Pure.

The order of the checks is the gateway's own (docs/ibkr-market-depth.md, "Slots"): 321, 322, 309, 10092, then unknown
contracts and missing permissions.
"""

from ibkr_depth_pipeline.simulation import commands, texts
from ibkr_depth_pipeline.simulation.account import Account
from ibkr_depth_pipeline.simulation.catalogue import Listing
from ibkr_depth_pipeline.simulation.commands import Command, Send, StartDepth, StopDepth, Subscription
from ibkr_depth_pipeline.simulation.options import EarlyCancel, GatewayOptions, Unready
from ibkr_depth_pipeline.simulation.requests import Request
from ibkr_depth_pipeline.simulation.venues import SMART_DEPTH, DepthVenue, depth_venue

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
            return [self._error(request_id, 321, cause=texts.NO_EXCHANGE)]
        if (request_id, smart) in self._live:
            return [self._error(request_id, 322)]
        listing = self._account.catalogue.find(request)
        if not self._account.slots.take((self._connection, request_id, smart), _slot_of(listing, request), now):
            return [self._error(request_id, self._options.no_slot_code, limit=self._account.slots.limit)]
        venue = _venue_of(listing, request.text("exchange"), smart)
        code = self._refusal(listing, venue)
        if code is not None or listing is None or venue is None:
            self._account.slots.release((self._connection, request_id, smart), now)
            return [self._error(request_id, code or 10092)]
        depth = request.integer("numRows") or _DEFAULT_ROWS
        subscription = Subscription(request_id, smart, listing, venue, depth)
        self._live[subscription.key] = subscription
        return [StartDepth(subscription)]

    def cancel(self, request: Request, now: float) -> list[Command]:
        """StopDepth, or 310, or nothing where the options make the gateway lose the cancel."""
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

    def _error(self, request_id: int, code: int, **names: object) -> Send:
        return commands.error(self.version, request_id, code, **names)


def _slot_of(listing: Listing | None, request: Request) -> int:
    """What the slot is counted by. A contract that does not exist still needs a free slot to be looked at."""
    return listing.con_id if listing is not None else -1 - request.integer("reqId")


def _venue_of(listing: Listing | None, exchange: str, smart: bool) -> DepthVenue | None:
    if listing is None:
        return None
    if exchange == "SMART":
        return SMART_DEPTH if smart and listing.sec_type == "STK" and "SMART" in listing.exchanges else None
    return depth_venue(exchange, listing.sec_type)
