"""The answers to everything that is neither the handshake nor depth: start-up requests, contract details, refusals.

Pure. One function a request, one table at the end; each gets the request and the connection's Context.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.account import Account
from ibkr_depth_pipeline.simulation.catalogue import Listing
from ibkr_depth_pipeline.simulation.codec import Request
from ibkr_depth_pipeline.simulation.hours import around_the_clock, closed_at
from ibkr_depth_pipeline.simulation.options import GatewayOptions, Unready
from ibkr_depth_pipeline.simulation.replies import Command, Later, Send, Unanswered

_ACCOUNT_VALUES = (
    ("AccountType", "INDIVIDUAL", ""),
    ("NetLiquidation", "1000000.00", "USD"),
    ("TotalCashValue", "1000000.00", "USD"),
    ("BuyingPower", "4000000.00", "USD"),
    ("AvailableFunds", "1000000.00", "USD"),
)


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer may depend on besides the request."""

    account: Account
    options: GatewayOptions
    version: int
    now: float
    """Unix seconds."""

    @property
    def clock(self) -> float:
        """What the gateway's own clock shows, in unix seconds."""
        return self.now + self.account.clock_offset

    def error(self, request_id: int, code: int, **names: object) -> Send:
        return replies.error(self.version, request_id, code, self.options.texts, **names)


Answer = Callable[[Request, Context], Iterable[Command]]


def answer(request: Request, context: Context) -> Iterable[Command]:
    """The answer to a request of a started connection, other than depth."""
    return ANSWERS.get(request.name, _refuse)(request, context)


def _contract_details(request: Request, context: Context) -> Iterator[Command]:
    if not request.integer("conId") and not request.text("secType"):
        yield context.error(request.integer("reqId"), 321, cause=replies.NO_SECURITY_TYPE)
        return
    listings = context.account.catalogue.find_all(request)
    if request.text("secType") == "CONTFUT":
        listings = context.account.catalogue.front(listings)
    if listings and context.account.ignores_details(listings[0].name):
        yield Unanswered(request, "contract details of this symbol go unanswered")
    elif context.account.details_delay > 0:
        yield Later(context.account.details_delay, lambda now: _details_of(request, context, listings))
    else:
        yield from _details_of(request, context, listings)


def _details_of(request: Request, context: Context, listings: Sequence[Listing]) -> Iterator[Command]:
    request_id, exchange = request.integer("reqId"), request.text("exchange")
    if not listings or context.account.unready is Unready.UNKNOWN_CONTRACTS:
        yield context.error(request_id, 200)
        return
    for listing in listings:
        hours = context.options.hours.get(listing.name)
        if context.account.closed_since is not None:
            hours = closed_at(listing, context.account.closed_since)
        elif hours is None and not context.options.market_hours:
            hours = around_the_clock(listing, context.clock)
        for venue in context.account.catalogue.rows_for(listing, exchange):
            data = replies.contract_details(request_id, listing, venue, context.version, context.clock, hours)
            yield Send(data, "contractDetails", {"request_id": request_id, "symbol": listing.name, "exchange": venue})
    yield Send(replies.end_of(52, request_id), "contractDetailsEnd", {"request_id": request_id})


def _depth_exchanges(request: Request, context: Context) -> Iterator[Command]:
    unready = context.account.unready is Unready.NO_EXCHANGES
    venues = [] if unready else context.account.catalogue.depth_venues()
    data = replies.depth_exchanges(context.version, venues)
    yield Send(data, "mktDepthExchanges", {"count": len(venues)})


def _account_updates(request: Request, context: Context) -> Iterator[Command]:
    if not request.flag("subscribe"):
        return
    account = request.text("account") or context.account.numbers[0]
    for key, value, currency in _ACCOUNT_VALUES:
        yield Send(replies.account_value(key, value, currency, account), "accountValue")
    yield Send(replies.account_time(context.clock), "accountTime")
    yield Send(replies.account_download_end(account), "accountDownloadEnd")


def _account_updates_multi(request: Request, context: Context) -> Iterator[Command]:
    request_id, account = request.integer("reqId"), request.text("account")
    for key, value, currency in _ACCOUNT_VALUES:
        data = replies.account_update_multi(request_id, account, request.text("modelCode"), key, value, currency)
        yield Send(data, "accountUpdateMulti")
    yield Send(replies.end_of(74, request_id), "accountUpdateMultiEnd")


def _account_summary(request: Request, context: Context) -> Iterator[Command]:
    request_id = request.integer("reqId")
    for account in context.account.numbers:
        for key, value, currency in _ACCOUNT_VALUES:
            yield Send(replies.account_summary(request_id, account, key, value, currency), "accountSummary")
    yield Send(replies.end_of(64, request_id), "accountSummaryEnd")


def _order_request(request: Request, context: Context) -> Iterator[Command]:
    """Every request about orders: refused by a read-only API; otherwise lists are empty and orders refused."""
    order_id = request.values.get("orderId", "")
    request_id = int(order_id) if order_id.lstrip("-").isdigit() else replies.NO_REQUEST
    if context.options.read_only_api and context.options.write_access_dialog:
        yield Unanswered(request, "a dialog asks the user for write access")
    elif context.options.read_only_api:
        yield context.error(request_id, 321, cause=replies.READ_ONLY)
    elif request.name in ("reqOpenOrders", "reqAllOpenOrders"):
        yield Send(replies.end_of(53), "openOrderEnd")
    elif request.name == "reqCompletedOrders":
        yield Send(replies.completed_orders_end(), "completedOrdersEnd")
    elif request.name not in ("reqAutoOpenOrders", "reqGlobalCancel"):
        yield context.error(request_id, 321, cause=replies.NO_ORDERS)


def _no_market_data(request: Request, context: Context) -> Iterator[Command]:
    yield context.error(request.integer("reqId"), 354)


def _accept(request: Request, context: Context) -> Iterator[Command]:
    """Requests that a gateway takes without an answer."""
    return iter(())


def _refuse(request: Request, context: Context) -> Iterator[Command]:
    if request.name == "unknown":
        yield context.error(replies.NO_REQUEST, 320, cause=replies.UNKNOWN_MESSAGE)
    else:
        yield context.error(request.integer("reqId", replies.NO_REQUEST), 321, cause=replies.NOT_SIMULATED)


def _just(name: str, reply: Callable[[Request, Context], bytes]) -> Answer:
    """An answer of exactly one message."""
    return lambda request, context: (Send(reply(request, context), name),)


ANSWERS: Mapping[str, Answer] = {
    "reqContractDetails": _contract_details,
    "reqMktDepthExchanges": _depth_exchanges,
    "reqCurrentTime": _just("currentTime", lambda request, context: replies.current_time(context.clock)),
    "reqIds": _just("nextValidId", lambda request, context: replies.next_valid_id(1)),
    "reqManagedAccts": _just("managedAccounts", lambda r, context: replies.managed_accounts(context.account.numbers)),
    "reqPositions": _just("positionEnd", lambda request, context: replies.end_of(62)),
    "reqPositionsMulti": _just("positionMultiEnd", lambda request, c: replies.end_of(72, request.integer("reqId"))),
    "reqExecutions": _just("executionDataEnd", lambda request, c: replies.end_of(55, request.integer("reqId"))),
    "reqAccountUpdates": _account_updates,
    "reqAccountUpdatesMulti": _account_updates_multi,
    "reqAccountSummary": _account_summary,
    "reqFamilyCodes": _just("familyCodes", lambda request, context: replies.family_codes(context.account.numbers)),
    "reqMatchingSymbols": _just("symbolSamples", lambda r, c: replies.no_matching_symbols(r.integer("reqId"))),
    "reqMarketRule": _just("marketRule", lambda request, c: replies.market_rule(request.integer("marketRuleId"))),
    "reqUserInfo": _just("userInfo", lambda request, context: replies.user_info(request.integer("reqId"))),
    "reqOpenOrders": _order_request,
    "reqAllOpenOrders": _order_request,
    "reqAutoOpenOrders": _order_request,
    "reqCompletedOrders": _order_request,
    "reqGlobalCancel": _order_request,
    "placeOrder": _order_request,
    "cancelOrder": _order_request,
    "exerciseOptions": _order_request,
    "reqMktData": _no_market_data,
    "reqHistoricalData": _no_market_data,
    "reqRealTimeBars": _no_market_data,
    "reqTickByTickData": _no_market_data,
    "cancelMktData": _accept,
    "cancelHistoricalData": _accept,
    "cancelRealTimeBars": _accept,
    "cancelTickByTickData": _accept,
    "cancelAccountSummary": _accept,
    "cancelPositions": _accept,
    "cancelPositionsMulti": _accept,
    "cancelAccountUpdatesMulti": _accept,
    "reqMarketDataType": _accept,
    "setServerLogLevel": _accept,
}
