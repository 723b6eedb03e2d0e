"""Every code becomes the event of its documented meaning, with any text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.gateway.events import (
    CLIENT_ID_IN_USE,
    NO_REQUEST,
    BookReset,
    CancelRejected,
    ConnectivityLost,
    ConnectivityRestored,
    DepthHalted,
    DepthRefused,
    FarmStatus,
    GatewayEvent,
    Notice,
    PacingViolation,
    RequestIdRejected,
    SlotRefused,
    SocketPortReset,
    event_of,
)

REFUSALS = (200, 321, 354, 10089, 10090, 10091, 10092, 10168, 10186)
OF_A_REQUEST = (*REFUSALS, 309, 310, 316, 317, 322)
texts = st.text(max_size=20)


@pytest.mark.parametrize("code", REFUSALS)
def test_refusal_code_is_a_refusal_of_its_request(code: int) -> None:
    assert event_of(7, code, "why") == DepthRefused(7, code, "why")


@pytest.mark.parametrize(
    ("code", "event"),
    [
        (309, SlotRefused(7, "text")),
        (310, CancelRejected(7)),
        (316, DepthHalted(7)),
        (317, BookReset(7)),
        (322, RequestIdRejected(7)),
    ],
)
def test_code_of_a_request_is_its_own_event(code: int, event: GatewayEvent) -> None:
    assert event_of(7, code, "text") == event


@pytest.mark.parametrize(
    ("code", "event"),
    [
        (100, PacingViolation("text")),
        (1100, ConnectivityLost("text")),
        (1101, ConnectivityRestored(data_lost=True, text="text")),
        (1102, ConnectivityRestored(data_lost=False, text="text")),
        (1300, SocketPortReset("text")),
        (2103, FarmStatus(False, 2103, "text")),
        (2105, FarmStatus(False, 2105, "text")),
        (2108, FarmStatus(False, 2108, "text")),
        (2157, FarmStatus(False, 2157, "text")),
        (2104, FarmStatus(True, 2104, "text")),
        (2106, FarmStatus(True, 2106, "text")),
        (2158, FarmStatus(True, 2158, "text")),
        (10197, FarmStatus(False, 10197, "text")),
    ],
)
def test_session_code_is_the_same_event_with_and_without_a_request(code: int, event: GatewayEvent) -> None:
    assert event_of(NO_REQUEST, code, "text") == event
    assert event_of(7, code, "text") == event


@pytest.mark.parametrize("request_id", [NO_REQUEST, 7])
def test_2152_is_a_notice(request_id: int) -> None:
    named = None if request_id == NO_REQUEST else request_id
    assert event_of(request_id, 2152, "Exchanges - Depth: IEX") == Notice(named, 2152, "Exchanges - Depth: IEX")


@pytest.mark.parametrize("code", OF_A_REQUEST)
def test_request_code_without_a_request_id_is_a_notice(code: int) -> None:
    assert event_of(NO_REQUEST, code, "text") == Notice(None, code, "text")


def test_client_id_in_use_is_326() -> None:
    assert CLIENT_ID_IN_USE == 326


@given(st.sampled_from(OF_A_REQUEST), texts, texts)
def test_text_of_an_error_never_changes_its_event(code: int, one: str, other: str) -> None:
    assert type(event_of(7, code, one)) is type(event_of(7, code, other))


@given(st.integers(), st.integers(), texts)
def test_any_code_has_an_event(request_id: int, code: int, text: str) -> None:
    event = event_of(request_id, code, text)
    if isinstance(event, Notice):
        assert (event.code, event.text) == (code, text)


def test_every_code_with_a_meaning_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ibkr-market-depth.md").read_text()
    codes = {int(code) for line in re.findall(r"^\| ([\d, ]+) \|", page, re.M) for code in line.split(",")}
    meant = {code for code in range(11_000) if code not in range(2100, 2170)}
    meant = {code for code in meant if not isinstance(event_of(7, code, ""), DepthRefused)}
    assert meant | set(REFUSALS) <= codes
