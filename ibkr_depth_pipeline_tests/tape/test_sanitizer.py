"""Nothing that could name the account, its owner or its orders gets onto a tape, whatever message carries it."""

from __future__ import annotations

import itertools

import pytest

from ibkr_depth_pipeline.tape.files import Read, encode_entry
from ibkr_depth_pipeline.tape.messages import PREAMBLE, Way, message_of
from ibkr_depth_pipeline.tape.sanitizer import KEPT, REQ_DEPTH, Sanitizer

GREETING = b"176\x0020261126 09:30:00 EST\0"
SECRETS = ("U1234567", "DU7654321", "F765432", "Jane.Doe@example.com", "Jane Doe", "4711.13", "secret order")
FIELDS_TODAY = 10
"""Of the longest message that is not about contracts: a row with its market maker."""

LARGEST_TYPE = 300
"""IBKR's clients know types up to some 110, and protobuf ones up to some 310."""

LIKE_ACCOUNTS = [secret for secret in SECRETS if "@" in secret or secret[-5:].isdigit()]
"""Those go from every field; the others can't be told from words, and go with the messages that may hold them."""

ABOUT_CONTRACTS = {(Way.CLIENT, 9), (Way.CLIENT, 10), (Way.GATEWAY, 10), (Way.GATEWAY, 80)}
"""Messages all of whose fields are of contracts and venues."""


def greeted(version: bytes = GREETING) -> Sanitizer:
    sanitizer = Sanitizer()
    for way, message in ((Way.CLIENT, PREAMBLE), (Way.CLIENT, b"v100..176"), (Way.GATEWAY, version)):
        sanitizer.sanitized(way, message)
    return sanitizer


def on_tape(way: Way, message: bytes, sanitizer: Sanitizer) -> str:
    return encode_entry(Read(1, 1, way, len(message), [sanitizer.sanitized(way, message)])).decode()


@pytest.mark.parametrize("way", Way)
def test_no_message_of_any_type_brings_a_secret_onto_the_tape(way: Way) -> None:
    sanitizer = greeted()
    for kind in range(LARGEST_TYPE):
        for secret in LIKE_ACCOUNTS if kind in KEPT[way] else SECRETS:
            texts = [secret, f"text with {secret} in it", f"{secret},{secret}"]
            for fields in (texts * 8, ["1", *texts * 8], ["2", "17", "201", *texts * 8]):
                assert secret not in on_tape(way, message_of([str(kind), *fields]), sanitizer)


@pytest.mark.parametrize(("way", "kind"), [(way, kind) for way in Way for kind in sorted(KEPT[way])])
def test_field_that_a_kept_message_does_not_have_today_is_hashed(way: Way, kind: int) -> None:
    if (way, kind) in ABOUT_CONTRACTS:
        return
    later = "Jane Doe"
    for length in range(2, 30):
        fields = [str(kind), *["1"] * length, later]
        if length >= FIELDS_TODAY:
            assert later not in on_tape(way, message_of(fields), greeted())


@pytest.mark.parametrize("way", Way)
def test_no_message_of_a_newer_protocol_brings_a_secret_onto_the_tape(way: Way) -> None:
    sanitizer = greeted(b"215\x0020261126 09:30:00 EST\0")
    for kind, secret in itertools.product((*range(1, 120), *range(201, 320)), LIKE_ACCOUNTS):
        texts = message_of(["1", secret, f"text with {secret}", secret])
        assert secret not in on_tape(way, kind.to_bytes(4, "big") + texts, sanitizer)


def test_greetings_with_secrets_in_them_are_cleaned() -> None:
    sanitizer = Sanitizer()
    offered = sanitizer.sanitized(Way.CLIENT, b"v100..176 +PACEAPI U1234567")
    taken = sanitizer.sanitized(Way.GATEWAY, b"176\x0020261126 09:30:00 EST\0U1234567\0Jane Doe\0")
    assert "U1234567" not in str(offered)
    assert taken[:2] == ["176", "20261126 09:30:00 EST"]
    assert not {"U1234567", "Jane Doe"} & set(taken)


def test_text_of_an_error_is_kept_if_it_is_about_the_session_or_a_kept_request_only() -> None:
    sanitizer = greeted()
    depth = message_of([str(REQ_DEPTH), "5", "7", "756733", "SPY"])
    sanitizer.sanitized(Way.CLIENT, depth)
    kept = sanitizer.sanitized(
        Way.GATEWAY, message_of(["4", "2", "7", "309", "Max number (3) of market depth requests", ""])
    )
    session = sanitizer.sanitized(
        Way.GATEWAY, message_of(["4", "2", "-1", "2104", "Market data farm is OK:usfarm", ""])
    )
    order = sanitizer.sanitized(
        Way.GATEWAY, message_of(["4", "2", "8", "201", "Order rejected - reason:BUY 100 SPY", ""])
    )
    assert kept[4] == "Max number (3) of market depth requests"
    assert session[4] == "Market data farm is OK:usfarm"
    assert "BUY" not in str(order)
    assert order[3] == "201"


def test_equal_accounts_of_one_tape_stay_equal_and_those_of_two_tapes_do_not() -> None:
    accounts = message_of(["15", "1", "U1234567,DU7654321,U1234567"])
    sanitizer = greeted()
    first = sanitizer.sanitized(Way.GATEWAY, accounts)
    one, other, again = first[2].split(",")
    assert one == again != other
    assert sanitizer.sanitized(Way.GATEWAY, accounts) == first
    assert greeted().sanitized(Way.GATEWAY, accounts) != first


def test_what_a_recording_is_about_is_kept_as_it_is() -> None:
    sanitizer = greeted()
    row = ["13", "1", "7", "0", "NSDQ", "0", "1", "150.25", "300", "0"]
    details = [
        "10",
        "9",
        "SPY",
        "STK",
        "",
        "0",
        "",
        "ARCA",
        "USD",
        "SPY",
        "SPY",
        "SPY",
        "756733",
        "0.01",
        "",
        "20261126:0930",
    ]
    assert sanitizer.sanitized(Way.GATEWAY, message_of(row)) == row
    assert sanitizer.sanitized(Way.GATEWAY, message_of(details)) == details
