"""What the flight recorder keeps on disk names no account and no order either, not even while it is raw material."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.wire_trace import WireRing
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.dump_requests import ask_for_dump
from ibkr_depth_pipeline.tape.files import Entry, Read, read_entries
from ibkr_depth_pipeline.tape.messages import MessageSplitter, Way, framed, message_of
from ibkr_depth_pipeline.tape.redaction import MARK, SameLengthSanitizer, StreamRedactor, TapeOfRingSanitizer, is_row
from ibkr_depth_pipeline.tape.ring import SEGMENTS, RingFiles
from ibkr_depth_pipeline.tape.ring_dump import entries_of_ring
from ibkr_depth_pipeline.tape.scribe import TapeRecorder
from ibkr_depth_pipeline_tests.flight_recorder.dumping import flown

ACCOUNT = "DU7654321"
GREETING = message_of(["176", "20261126 09:30:00 EST"])
ROW = message_of(["12", "1", "7", "0", "1", "1", "150.25", "100"])
ACCOUNTS = message_of(["15", "1", f"{ACCOUNT},U1234567"])
ERROR = message_of(["4", "2", "-1", "2104", f"Market data farm is OK for {ACCOUNT}", ""])
ORDER = message_of(["5", "17", "0", "SPY", "BUY", "4711", ACCOUNT, "a note"])
DETAILS = message_of(["10", "8", "SPY", "STK", "", "0", "", "SMART", "USD", "SPY", "SPY"])
TIME = message_of(["49", "1", "1795707000"])
ODD = message_of(["15"])
SECRETS = (ACCOUNT.encode(), b"7654321", b"1234567", b"4711", b"a note")

messages = st.lists(st.sampled_from([ROW, ROW, ROW, ROW, ACCOUNTS, ERROR, ORDER, DETAILS, TIME, ODD]), max_size=12)


@asynccontextmanager
async def ring_in(folder: Path, segment_secs: float = 4.0) -> AsyncIterator[WireRing]:
    """A ring that forgets nothing meanwhile."""
    ring = WireRing(RingFiles(folder / "ring", 1 << 22, 60.0, {}), 1 << 22, segment_secs * SEGMENTS, list, set)
    ring.begin()
    try:
        yield ring
    finally:
        await ring.close()


class Wire:
    """A connection that hands over its reads as gateway/ib_client.py does: the read, then its messages but rows."""

    def __init__(self, ring: WireRing) -> None:
        self.pending = b""
        self.trace = ring.opened(lambda: self.pending)

    def read(self, data: bytes) -> None:
        self.trace.received(data)
        splitter = MessageSplitter(Way.GATEWAY)
        whole = list(splitter.split(self.pending + data))
        self.pending = (self.pending + data)[sum(4 + len(message) for message in whole) :]
        for message in whole:
            if not message.startswith(b"12\0"):
                self.trace.came(message)


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def entries(folder: Path) -> list[Entry]:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return list(entries_of_ring(folder, sizes, TapeRecorder(TapeOfRingSanitizer)))


def told(found: list[Entry]) -> list[Any]:
    """The messages, with each hash replaced by the same word."""
    kept = [message for entry in found if isinstance(entry, Read) and entry.size for message in entry.messages]
    return [[re.sub(r"#[0-9a-f]+", "#", field) for field in each] if isinstance(each, list) else each for each in kept]


def pieces(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        if stream[at : at + size]:
            yield stream[at : at + size]
        at += size
    if stream[at:]:
        yield stream[at:]


@settings(max_examples=40)
@given(messages, st.lists(st.integers(1, 60), max_size=30), st.sets(st.integers(0, 30)), st.booleans())
def test_ring_holds_no_secret_however_reads_are_cut_and_makes_the_tape_that_raw_bytes_would_make(
    tmp_path_factory: pytest.TempPathFactory, sent: list[bytes], sizes: list[int], handed: set[int], closes: bool
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    stream = b"".join(map(framed, [GREETING, *sent]))
    raw = TapeRecorder()
    wanted: list[Entry] = []

    async def fly() -> None:
        async with ring_in(folder) as ring:
            wire = Wire(ring)
            for number, data in enumerate(pieces(stream, sizes)):
                wire.read(data)
                wanted.append(raw.read(0, 1, Way.GATEWAY, data))
                if number in handed:
                    ring.hand_over()
                    await ring.writer.call(lambda: None)
                    assert not any(secret in bytes_on_disk(folder) for secret in SECRETS)
            if closes:
                wire.trace.closed("gateway")
            ring.hand_over()
            await ring.writer.call(lambda: None)
            kept = bytes_on_disk(folder / "ring")
            assert not any(secret in kept for secret in SECRETS)
            assert told(entries(folder / "ring")) == told(wanted)

    asyncio.run(fly())


async def test_message_that_is_cut_off_for_ever_is_blanked_at_the_end_of_its_connection(tmp_path: Path) -> None:
    async with ring_in(tmp_path) as ring:
        wire = Wire(ring)
        wire.read(framed(GREETING) + framed(ACCOUNTS)[:15])
        ring.hand_over()
        await ring.writer.call(lambda: None)
        assert b"DU" not in bytes_on_disk(tmp_path), "it waits"
        wire.trace.closed("gateway")
        await ring.writer.call(lambda: None)
        kept = bytes_on_disk(tmp_path)
        assert b"DU" not in kept
        assert b"15\0x\0xx" in kept


async def test_segment_that_begins_within_a_message_has_it_whole(tmp_path: Path) -> None:
    async with ring_in(tmp_path, segment_secs=0.0) as ring:
        wire = Wire(ring)
        wire.read(framed(GREETING) + framed(ERROR)[:30])
        ring.tick()
        wire.read(framed(ERROR)[30:] + framed(ROW)[:9])
        ring.tick()
        wire.read(framed(ROW)[9:])
        ring.hand_over()
        await ring.writer.call(lambda: None)
        first, *others = sorted((tmp_path / "ring").glob("segment-*"))
        assert len(others) == 2
        for segment in (first, others[0]):
            segment.unlink()
        assert told(entries(tmp_path / "ring"))[-1] == ["12", "1", "7", "0", "1", "1", "150.25", "100"]


@pytest.mark.parametrize("sent", [ACCOUNTS, framed(ACCOUNTS)[:20], b"API\0" + framed(ACCOUNTS)[:20], framed(ORDER)])
def test_what_is_sent_keeps_its_length_and_tells_nothing_even_if_it_is_no_whole_message(sent: bytes) -> None:
    redactor = StreamRedactor(secrets.token_bytes(32))
    for _ in range(2):  # the first message is an offer of versions
        shown = redactor.sent(sent)
        assert len(shown) == len(sent)
        assert not any(secret in shown for secret in SECRETS)


def test_bytes_behind_a_broken_message_are_blanked() -> None:
    redactor = StreamRedactor(secrets.token_bytes(32))
    redactor.came(GREETING)
    broken = b"\x7f\xff\xff\xff" + ACCOUNTS
    (shown,) = redactor.redacted([framed(GREETING) + broken])
    assert len(shown) == len(framed(GREETING) + broken)
    assert ACCOUNT.encode() not in shown


@pytest.mark.parametrize("text", ["U1", "DU1234567", "ä", "x" * 300, "\ufffd"])
def test_replacement_is_as_long_as_the_text_and_the_same_for_the_same_key(text: str) -> None:
    key = secrets.token_bytes(32)
    shown = SameLengthSanitizer(key).hashed(text)
    assert len(shown.encode()) == len(text.encode())
    assert shown.startswith(MARK)
    assert SameLengthSanitizer(key).hashed(text) == shown
    if len(text) > 4:
        assert SameLengthSanitizer().hashed(text) != shown


def test_row_is_known_by_its_first_bytes() -> None:
    assert is_row(framed(ROW)[:7])
    assert not is_row(framed(ROW)[:6])
    assert not is_row(framed(message_of(["120", "1"])))


async def test_ring_of_a_running_recorder_names_no_account_and_its_tape_has_one_hash_of_it(
    tmp_path: Path, shared_redis_url: str
) -> None:
    seen: list[bytes] = []

    async def rows_are_on_disk() -> bool:
        kept = bytes_on_disk(tmp_path)
        return b"150" in kept or b"12\0" in kept

    options = GatewayOptions(rows_per_second=300, accounts=(ACCOUNT,), texts={2104: f"Farm is OK for {ACCOUNT}"})
    async with SimulatedGateway(options) as gateway:
        async with flown(gateway, shared_redis_url, tmp_path, "SPY", ibkr_flight_recorder_minutes=1) as run:
            await run.grows("SPY", 20)
            gateway.send_error(2104)
            await run.until(rows_are_on_disk)
            seen.append(bytes_on_disk(tmp_path))
            answer = await ask_for_dump(shared_redis_url, "default", "a test")
            await run.grows("SPY", 200)
            await run.until(rows_are_on_disk)
            seen.append(bytes_on_disk(tmp_path))
    for kept in seen:
        assert ACCOUNT.encode() not in kept
        assert b"7654321" not in kept
    tape = [
        message for entry in read_entries(Path(answer.path)) if isinstance(entry, Read) for message in entry.messages
    ]
    (accounts,) = {message[2] for message in tape if isinstance(message, list) and message[0] == "15"}
    texts = [message[4] for message in tape if isinstance(message, list) and message[0] == "4" and "#" in message[4]]
    assert {text.partition("#")[2] for text in texts} == {accounts.lstrip("#")}
