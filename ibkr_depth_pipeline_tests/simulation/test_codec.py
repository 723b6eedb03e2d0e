import pytest

from ibkr_depth_pipeline.simulation import replies
from ibkr_depth_pipeline.simulation.catalogue import SMART_DEPTH, Catalogue, Listing, depth_venue
from ibkr_depth_pipeline.simulation.codec import (
    InboundStream,
    MalformedRequest,
    Offer,
    ProtocolViolation,
    decode_request,
    fields_of,
    message,
    parse_offer,
)
from ibkr_depth_pipeline.simulation.rows import BID, DELETE, INSERT, WireRow

NOON = 1_717_426_800.0  # Monday, 2024-06-03 15:00 UTC


def listing(name: str) -> Listing:
    found = Catalogue().named(name)
    assert found is not None
    return found


def test_message_is_a_length_and_fields_that_end_in_nul() -> None:
    assert message(9, 1, 42) == b"\x00\x00\x00\x079\x001\x0042\x00"


def test_fields_are_written_as_a_gateway_writes_them() -> None:
    assert message(None, True, False, 100.0, 0.5, "a b") == b"\x00\x00\x00\x11\x001\x000\x00100\x000.5\x00a b\x00"


def test_stream_cut_anywhere_gives_the_same_frames() -> None:
    stream = b"API\0" + message("v157..176") + message(71, 2, 5, "") + message(49, 1)
    whole = InboundStream().feed(stream)
    for cut in range(len(stream)):
        inbound = InboundStream()
        assert inbound.feed(stream[:cut]) + inbound.feed(stream[cut:]) == whole
    assert [fields_of(frame) for frame in whole] == [["v157..176"], ["71", "2", "5", ""], ["49", "1"]]


@pytest.mark.parametrize("stream", [b"GET / HTTP/1.1\r\n", b"APX", b"API\0\xff\xff\xff\xff"])
def test_stream_that_is_no_client_is_a_violation(stream: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        InboundStream().feed(stream)


@pytest.mark.parametrize(
    ("frame", "offer"),
    [
        (b"v157..176", Offer(157, 176)),
        (b"v100..178 +PACEAPI", Offer(100, 178, "+PACEAPI")),
        (b"v150", Offer(150, 150)),
    ],
)
def test_version_offer_is_read(frame: bytes, offer: Offer) -> None:
    assert parse_offer(frame) == offer


@pytest.mark.parametrize("frame", [b"", b"157..176", b"v..", b"vfoo"])
def test_malformed_version_offer_is_a_violation(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_offer(frame)


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (Offer(157, 176), 176),
        (Offer(157, 178), 176),
        (Offer(100, 157), 157),
        (Offer(177, 180), None),
        (Offer(1, 99), None),
    ],
)
def test_highest_common_version_is_agreed_on(offer: Offer, agreed: int | None) -> None:
    assert offer.version_agreed_with(176) == agreed


def test_row_of_a_venue_without_market_makers_is_message_12() -> None:
    venue = depth_venue("NYSE", "STK")
    assert venue is not None
    row = WireRow(3, INSERT, BID, 226.05, 1200.0)
    assert replies.depth_row(7, row, venue, 176) == b"\x00\x00\x00\x1912\x001\x007\x003\x000\x001\x00226.05\x001200\x00"


def test_row_of_a_venue_with_market_makers_is_message_13() -> None:
    venue = depth_venue("NASDAQ", "STK")
    assert venue is not None
    row = WireRow(0, DELETE, BID, 0.0, 0.0, "NSDQ")
    sent = replies.depth_row(7, row, venue, 176)
    assert sent == b"\x00\x00\x00\x1a13\x001\x007\x000\x00NSDQ\x002\x001\x000.0\x000\x000\x00"


def test_row_says_whether_it_is_smart_from_version_146_on() -> None:
    row = WireRow(0, INSERT, BID, 1.5, 0.25, "ARCA")
    assert fields_of(replies.depth_row(7, row, SMART_DEPTH, 146)[4:])[-2:] == ["0.25", "1"]
    assert fields_of(replies.depth_row(7, row, SMART_DEPTH, 145)[4:])[-1] == "0.25"


def test_error_has_one_more_field_from_version_166_on() -> None:
    assert replies.error_message(7, 310, "gone", 165) == b"\x00\x00\x00\x0f4\x002\x007\x00310\x00gone\x00"
    assert replies.error_message(7, 310, "gone", 166) == b"\x00\x00\x00\x104\x002\x007\x00310\x00gone\x00\x00"


@pytest.mark.parametrize(
    ("version", "count"),
    [(100, 32), (110, 33), (121, 34), (122, 36), (126, 37), (134, 38), (152, 39), (163, 40), (164, 40), (176, 40)],
)
def test_contract_details_have_the_fields_of_their_version(version: int, count: int) -> None:
    fields = fields_of(replies.contract_details(9, listing("AAPL"), "SMART", version, NOON)[4:])
    assert len(fields) == count
    assert fields[1] == ("8" if version < 164 else "9")


def test_contract_details_of_a_current_client_read_in_order() -> None:
    fields = fields_of(replies.contract_details(9, listing("AAPL"), "SMART", 176, NOON)[4:])
    assert fields[:14] == [
        "10",
        "9",
        "AAPL",
        "STK",
        "",
        "0",
        "",
        "SMART",
        "USD",
        "AAPL",
        *["NMS"] * 2,
        "265598",
        "0.01",
    ]
    assert fields[16].startswith("SMART,")
    assert fields[19:21] == ["APPLE INC", "NASDAQ"]
    assert fields[25:27] == [
        "US/Eastern",
        ";".join([f"2024060{d}:0400-2024060{d}:2000" for d in range(3, 8)]) + ";20240608:CLOSED",
    ]


def test_names_beyond_ascii_are_escaped_from_version_153_on() -> None:
    named = Listing(1, "X", "NYSE", 1.0, "CAFÉ")
    assert b"CAF\\xc9" in replies.contract_details(1, named, "NYSE", 153, NOON)
    assert "CAFÉ".encode() in replies.contract_details(1, named, "NYSE", 152, NOON)


def test_depth_request_is_decoded_by_name_for_its_version() -> None:
    fields = ["10", "5", "7", "0", "SPY", "STK", "", "0.0", "", "", "ARCA", "ARCA", "USD", "", "", "10", "0", ""]
    request = decode_request(fields, 176)
    assert (request.name, request.integer("reqId"), request.text("exchange")) == ("reqMktDepth", 7, "ARCA")
    assert (request.text("primaryExchange"), request.text("currency")) == ("ARCA", "USD")
    assert (request.integer("numRows"), request.flag("isSmartDepth")) == (10, False)
    older = [*fields[:11], *fields[12:16], ""]
    assert decode_request(older, 145).integer("numRows") == 10


def test_request_with_too_few_fields_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="cancelMktDepth"):
        decode_request(["11", "1"], 176)


def test_request_without_a_number_is_malformed() -> None:
    for fields in ([], [""], ["depth", "1"]):
        with pytest.raises(MalformedRequest):
            decode_request(fields, 176)


def test_text_in_the_place_of_a_number_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="reqId"):
        decode_request(["11", "1", "seven", "0"], 176).integer("reqId")
