"""A session is pure: bytes in, commands out. No socket, no clock."""

import pytest

from ibkr_depth_pipeline.simulation.account import Account, SlotTable
from ibkr_depth_pipeline.simulation.catalogue import Catalogue
from ibkr_depth_pipeline.simulation.codec import message
from ibkr_depth_pipeline.simulation.options import EarlyCancel, GatewayOptions
from ibkr_depth_pipeline.simulation.replies import Close, Command, Received, Send, StartDepth, StopDepth, Subscription
from ibkr_depth_pipeline.simulation.session import Session, SessionState

NOW = 1_717_426_800.0  # 2024-06-03 15:00 UTC
HELLO = b"API\0\x00\x00\x00\x09v157..176"


class Talk:
    """A session and what it answers, in a shorter notation."""

    def __init__(self, account: Account | None = None, connection: int = 1, **options: object) -> None:
        self.options = GatewayOptions(**options)  # type: ignore[arg-type]
        catalogue = Catalogue(strict=self.options.strict_catalogue, nasdaq_name=self.options.nasdaq_name)
        self.account = account or Account(catalogue, SlotTable(self.options.slots))
        self.session = Session(self.account, self.options, connection)
        self.now = NOW

    def started(self, client_id: int = 1) -> "Talk":
        self.session.receive(HELLO, self.now)
        self.ask(71, 2, client_id, "")
        return self

    def ask(self, *fields: str | int | float | bool) -> list[Command]:
        return [c for c in self.session.receive(message(*fields), self.now) if not isinstance(c, Received)]

    def codes(self, *fields: str | int | float | bool) -> list[object]:
        """The error codes that the request is answered with."""
        return [c.detail["code"] for c in self.ask(*fields) if isinstance(c, Send) and c.name == "error"]

    def names(self, *fields: str | int | float | bool) -> list[str]:
        return [c.name for c in self.ask(*fields) if isinstance(c, Send)]

    def subscribe(
        self, request_id: int, symbol: str, exchange: str, smart: bool = False, rows: int = 10
    ) -> list[object]:
        """The outcome: error codes, or the subscription."""
        outcome: list[object] = []
        sec_type = {"SPX": "IND", "EUR": "CASH"}.get(symbol, "STK")
        contract = (0, symbol, sec_type, "", 0.0, "", "", exchange, "", "USD", "", "")
        for command in self.ask(10, 5, request_id, *contract, rows, smart, ""):
            outcome.append(command.subscription if isinstance(command, StartDepth) else _code(command))
        return outcome

    def live(self, request_id: int, symbol: str = "SPY", exchange: str = "ARCA") -> Subscription:
        (subscription,) = self.subscribe(request_id, symbol, exchange)
        assert isinstance(subscription, Subscription)
        return subscription

    def cancel(self, request_id: int, smart: bool = False) -> list[object]:
        """The outcome: error codes, or the word stopped."""
        commands = self.ask(11, 1, request_id, smart)
        return ["stopped" if isinstance(command, StopDepth) else _code(command) for command in commands]


def _code(command: Command) -> object:
    assert isinstance(command, Send)
    return command.detail["code"]


def test_client_is_greeted_with_the_version_and_then_told_its_ids() -> None:
    talk = Talk()
    (greeting,) = talk.session.receive(b"API\0\x00\x00\x00\x09v157..178", NOW)
    assert isinstance(greeting, Send)
    assert greeting.data == b"\x00\x00\x00\x1a176\x0020240603 10:00:00 EST\x00"
    assert talk.names(71, 2, 5, "") == ["nextValidId", "managedAccounts", "error", "error", "error"]
    assert talk.session.state is SessionState.READY


def test_farm_notices_carry_request_id_minus_one() -> None:
    talk = Talk()
    talk.session.receive(HELLO, NOW)
    notices = [c.detail for c in talk.ask(71, 2, 5, "") if isinstance(c, Send) and c.name == "error"]
    assert [(notice["request_id"], notice["code"]) for notice in notices] == [(-1, 2104), (-1, 2106), (-1, 2158)]


def test_client_without_a_common_version_is_closed() -> None:
    talk = Talk(server_version=150)
    (close,) = talk.session.receive(HELLO, NOW)
    assert isinstance(close, Close)
    assert talk.session.receive(message(49, 1), NOW) == []


def test_connection_that_is_no_api_client_is_closed() -> None:
    (close,) = Talk().session.receive(b"GET / HTTP/1.1\r\n\r\n", NOW)
    assert isinstance(close, Close)


def test_request_before_start_api_closes() -> None:
    talk = Talk()
    talk.session.receive(HELLO, NOW)
    (close,) = talk.ask(49, 1)
    assert isinstance(close, Close)


def test_client_id_in_use_is_refused_with_326_and_closed() -> None:
    first = Talk().started(7)
    second = Talk(first.account, connection=2)
    second.session.receive(HELLO, NOW)
    error, close = second.ask(71, 2, 7, "")
    assert _code(error) == 326
    assert isinstance(close, Close)


def test_client_id_is_free_again_after_the_connection_is_gone() -> None:
    first = Talk(client_id_held_after_drop=2.0).started(7)
    first.session.connection_lost(NOW)
    early = Talk(first.account, connection=2)
    early.now = NOW + 1.9
    assert early.started(7).session.state is SessionState.CLOSED
    late = Talk(first.account, connection=3)
    late.now = NOW + 2.0
    assert late.started(7).session.state is SessionState.READY


def test_start_up_requests_are_answered_to_their_end() -> None:
    talk = Talk(read_only_api=False).started()
    assert talk.names(61, 1) == ["positionEnd"]
    assert talk.names(5, 1) == ["openOrderEnd"]
    assert talk.names(99, 0) == ["completedOrdersEnd"]
    assert talk.names(6, 2, True, "DU1234567")[-1] == "accountDownloadEnd"
    assert talk.names(76, 1, 3, "DU1234567", "", False)[-1] == "accountUpdateMultiEnd"
    assert talk.names(7, 3, 4, "", "", "", "", "", "", "") == ["executionDataEnd"]
    assert talk.names(62, 1, 5, "All", "NetLiquidation")[-1] == "accountSummaryEnd"


@pytest.mark.parametrize("request_fields", [(5, 1), (16, 1), (99, 0), (3, 12, "order"), (4, 1, 12, ""), (58, 1)])
def test_read_only_api_refuses_everything_about_orders_with_321(request_fields: tuple[int, ...]) -> None:
    assert Talk().started().codes(*request_fields) == [321]


def test_no_order_is_ever_accepted() -> None:
    assert Talk(read_only_api=False).started().codes(3, 12, "order") == [321]


def test_unknown_message_is_an_error_and_the_session_goes_on() -> None:
    talk = Talk().started()
    assert talk.codes(9999, "x") == [320]
    assert talk.codes("what", "x") == [320]
    assert talk.codes(11, 1) == [320]
    assert talk.names(49, 1) == ["currentTime"]


# --- contract details ------------------------------------------------------------------------------------------------


def details(talk: Talk, symbol: str, exchange: str = "SMART", sec_type: str = "STK", con_id: int = 0) -> list[object]:
    contract = (con_id, symbol, sec_type, "", 0.0, "", "", exchange, "", "USD", "", "")
    commands = talk.ask(9, 8, 1, *contract, False, "", "", "")
    return [c.detail.get("exchange", c.detail.get("code", c.name)) for c in commands if isinstance(c, Send)]


def test_details_for_smart_are_one_row() -> None:
    assert details(Talk().started(), "AAPL") == ["SMART", "contractDetailsEnd"]


def test_details_for_a_concrete_exchange_are_its_row() -> None:
    assert details(Talk().started(), "AAPL", "ISLAND") == ["ISLAND", "contractDetailsEnd"]


def test_details_without_an_exchange_are_one_row_each() -> None:
    rows = details(Talk().started(), "AAPL", "")
    assert "ISLAND" in rows
    assert "ARCA" in rows
    assert rows[-1] == "contractDetailsEnd"


@pytest.mark.parametrize("name", ["ISLAND", "NASDAQ"])
def test_both_names_of_nasdaq_are_accepted_and_the_set_one_comes_back(name: str) -> None:
    talk = Talk(nasdaq_name=name).started()
    assert details(talk, "AAPL", "ISLAND") == details(talk, "AAPL", "NASDAQ") == [name, "contractDetailsEnd"]
    (reply,) = talk.ask(82)
    assert isinstance(reply, Send)
    assert (b"\0%s\0STK\0" % name.encode()) in reply.data


@pytest.mark.parametrize("symbol", ["NOSUCH", "ZZTOP", "aapl", "TOOLONG"])
def test_unknown_names_are_200(symbol: str) -> None:
    assert details(Talk().started(), symbol) == [200]


def test_exchange_that_does_not_list_it_is_200() -> None:
    assert details(Talk().started(), "AAPL", "IDEALPRO") == [200]


def test_plausible_name_is_made_up_unless_the_catalogue_is_strict() -> None:
    assert details(Talk().started(), "QWERT") == ["SMART", "contractDetailsEnd"]
    assert details(Talk(strict_catalogue=True).started(), "QWERT") == [200]


def test_made_up_contract_is_found_by_its_con_id_alone() -> None:
    made_up = Catalogue(seed=3).named("QWERT")
    assert made_up is not None
    assert Catalogue(seed=3).named("QWERT") == made_up
    assert details(Talk().started(), "", "SMART", "STK", made_up.con_id) == ["SMART", "contractDetailsEnd"]


def test_share_class_is_found_by_its_name_with_a_blank() -> None:
    assert details(Talk().started(), "BRK B") == ["SMART", "contractDetailsEnd"]


def test_contract_without_a_security_type_is_321() -> None:
    assert details(Talk().started(), "AAPL", sec_type="") == [321]


# --- depth -----------------------------------------------------------------------------------------------------------


def test_depth_request_is_granted_on_its_venue_with_the_rows_asked_for() -> None:
    talk = Talk().started()
    subscription = talk.live(1)
    assert (subscription.listing.name, subscription.venue.name, subscription.depth) == ("SPY", "ARCA", 10)


def test_depth_request_for_no_rows_gets_five() -> None:
    (subscription,) = Talk().started().subscribe(1, "SPY", "ARCA", rows=0)
    assert isinstance(subscription, Subscription)
    assert subscription.depth == 5


def test_fourth_subscription_is_refused_with_309() -> None:
    talk = Talk().started()
    for request_id, symbol in enumerate(("SPY", "IWM", "IBM")):
        talk.live(request_id, symbol, "ARCA")
    assert talk.subscribe(9, "QQQ", "ISLAND") == [309]
    assert talk.subscribe(10, "SPY", "BATS") != [309]


def test_slots_are_shared_between_connections() -> None:
    first = Talk(slots=1).started(1)
    first.live(1)
    second = Talk(first.account, connection=2, slots=1).started(2)
    assert second.subscribe(1, "QQQ", "ISLAND") == [309]
    first.session.connection_lost(NOW)
    assert second.subscribe(2, "QQQ", "ISLAND") != [309]


def test_slots_of_a_lost_connection_may_stay_taken_for_a_while() -> None:
    first = Talk(slots=1, slots_held_after_drop=3.0).started(1)
    first.live(1)
    first.session.connection_lost(NOW)
    second = Talk(first.account, connection=2).started(2)
    second.now = NOW + 2.9
    assert second.subscribe(1, "QQQ", "ISLAND") == [309]
    second.now = NOW + 3.0
    assert second.subscribe(2, "QQQ", "ISLAND") != [309]


def test_refused_request_holds_no_slot() -> None:
    talk = Talk(slots=1).started()
    assert talk.subscribe(1, "NOSUCH", "ARCA") == [200]
    assert talk.subscribe(2, "SPX", "CBOE") == [10092]
    assert talk.account.slots.in_use(NOW) == 0


@pytest.mark.parametrize(
    ("symbol", "exchange", "code"),
    [
        ("SPY", "", 321),
        ("SPY", "SMART", 10092),
        ("SPX", "CBOE", 10092),
        ("OTCX", "PINK", 10092),
        ("NOSUCH", "ARCA", 200),
    ],
)
def test_unavailable_depth_is_refused_with_its_code(symbol: str, exchange: str, code: int) -> None:
    assert Talk().started().subscribe(1, symbol, exchange) == [code]


def test_smart_depth_is_granted_on_request() -> None:
    (subscription,) = Talk().started().subscribe(1, "SPY", "SMART", smart=True)
    assert isinstance(subscription, Subscription)
    assert subscription.venue.name == "SMART"


@pytest.mark.parametrize("code", [200, 354, 10089, 10090, 10092])
def test_symbol_can_be_set_to_be_refused(code: int) -> None:
    talk = Talk().started()
    talk.account.refusals["SPY"] = code
    assert talk.subscribe(1, "SPY", "ARCA") == [code]
    talk.account.refusals.clear()
    assert talk.subscribe(1, "SPY", "ARCA") != [code]


def test_depth_checks_come_in_the_order_321_322_309_10092() -> None:
    talk = Talk(slots=1).started()
    talk.live(1)
    assert talk.subscribe(1, "NOSUCH", "") == [321]
    assert talk.subscribe(1, "SPX", "CBOE") == [322]
    assert talk.subscribe(2, "SPX", "CBOE") == [309]
    talk.account.slots.limit = 2
    assert talk.subscribe(2, "SPX", "CBOE") == [10092]


def test_live_request_id_cannot_be_used_again() -> None:
    talk = Talk().started()
    talk.live(1)
    assert talk.subscribe(1, "QQQ", "ISLAND") == [322]


def test_cancel_ends_the_subscription_and_frees_the_slot() -> None:
    talk = Talk(slots=1).started()
    talk.live(1)
    assert talk.cancel(1) == ["stopped"]
    assert talk.subscribe(2, "QQQ", "ISLAND") != [309]


def test_slot_may_be_freed_a_moment_after_the_cancel() -> None:
    talk = Talk(slots=1, slot_free_delay=0.3).started()
    talk.live(1)
    talk.cancel(1)
    talk.now += 0.29
    assert talk.subscribe(2, "QQQ", "ISLAND") == [309]
    talk.now += 0.02
    assert talk.subscribe(3, "QQQ", "ISLAND") != [309]


def test_cancel_of_a_request_that_is_not_live_is_310() -> None:
    talk = Talk().started()
    assert talk.cancel(7) == [310]
    talk.live(1)
    talk.cancel(1)
    assert talk.cancel(1) == [310]


def test_smart_and_direct_requests_are_cancelled_apart() -> None:
    talk = Talk().started()
    talk.live(1)
    assert talk.cancel(1, smart=True) == [310]
    assert talk.subscribe(1, "SPY", "SMART", smart=True) != [322]
    assert talk.cancel(1, smart=True) == ["stopped"]
    assert talk.cancel(1) == ["stopped"]


def test_early_cancel_is_lost_and_holds_its_slot_until_the_session_ends() -> None:
    talk = Talk(slots=1, early_cancel=EarlyCancel.LOST).started()
    subscription = talk.live(1)
    assert talk.cancel(1) == []
    assert talk.cancel(1) == [310]
    subscription.first_row_sent = True
    assert talk.cancel(1) == [310]
    assert talk.subscribe(2, "QQQ", "ISLAND") == [309]
    talk.session.connection_lost(NOW)
    assert talk.account.slots.in_use(NOW) == 0


def test_early_cancel_may_be_made_good_after_the_first_row() -> None:
    talk = Talk(early_cancel=EarlyCancel.LOST_UNTIL_FIRST_ROW).started()
    subscription = talk.live(1)
    assert talk.cancel(1) == []
    assert talk.cancel(1) == [310]
    subscription.first_row_sent = True
    assert talk.cancel(1) == ["stopped"]


def test_cancel_after_the_first_row_is_never_lost() -> None:
    talk = Talk(early_cancel=EarlyCancel.LOST).started()
    talk.live(1).first_row_sent = True
    assert talk.cancel(1) == ["stopped"]


def test_error_309_names_the_limit() -> None:
    talk = Talk(slots=0).started()
    contract = (0, "SPY", "STK", "", 0.0, "", "", "ARCA", "", "USD", "", "")
    (error,) = talk.ask(10, 5, 1, *contract, 10, False, "")
    assert isinstance(error, Send)
    assert error.detail["text"] == "Max number (0) of market depth requests has been reached"


def test_lost_connection_ends_its_subscriptions() -> None:
    talk = Talk().started()
    subscription = talk.live(1)
    assert talk.session.connection_lost(NOW) == [StopDepth(subscription)]
    assert talk.session.subscriptions == ()
