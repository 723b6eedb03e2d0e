"""An account's number can't be found by its hash on a tape, by trying all, nor can two tapes be linked by it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.dump_requests import ask_for_dump
from ibkr_depth_pipeline.tape.files import Read, read_entries
from ibkr_depth_pipeline.tape.messages import Way, message_of
from ibkr_depth_pipeline.tape.sanitizer import Sanitizer
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of
from ibkr_depth_pipeline_tests.flight_recorder.dumping import flown
from ibkr_depth_pipeline_tests.tape.tapping import tapped

ACCOUNT = "DU74213"
PREFIXES = ("U", "DU")
TOKEN = re.compile(r"#([0-9a-f]+)")


def every_account() -> Iterator[str]:
    """All numbers that an account of five digits could have; it is one of them."""
    return (f"{prefix}{number:05}" for prefix, number in product(PREFIXES, range(100_000)))


HASHES: list[Callable[[bytes], str]] = [
    *(lambda text, name=name: hashlib.new(name, text).hexdigest() for name in ("md5", "sha256")),  # type: ignore[misc]
    lambda text: hashlib.blake2b(text, digest_size=6).hexdigest(),
    lambda text: hashlib.blake2b(text, digest_size=6, key=bytes(32)).hexdigest(),
]
"""What a stranger may try without the key."""


def found_by_trying_all(digests: set[str]) -> list[str]:
    """The accounts of which some hash begins with one of the digests."""
    length = min(map(len, digests))
    short = {digest[:length] for digest in digests}
    tried = ((account, account.encode()) for account in every_account())
    return [account for account, text in tried if any(of(text)[:length] in short for of in HASHES)]


def tokens_of_accounts(stem: Path) -> list[set[str]]:
    """What stands in the place of the account numbers, in each message that says them."""
    messages: list[Any] = [
        message for entry in read_entries(stem) if isinstance(entry, Read) for message in entry.messages
    ]
    told = [message for message in messages if isinstance(message, list) and message[0] == "15"]
    assert told
    return [set(TOKEN.findall(",".join(message[2:]))) for message in told]


@pytest.fixture
async def two_tapes(tmp_path: Path) -> list[Path]:
    """Two of the tap, one after the other, of one account."""
    options = GatewayOptions(rows_per_second=100, accounts=(ACCOUNT,))
    with EmbeddedRedis() as redis:
        async with SimulatedGateway(options) as gateway:
            for name in ("first", "second"):
                async with tapped(gateway.host, gateway.port, tmp_path / name) as tap:
                    for _ in range(2):  # connections
                        async with recording(tap, redis.url, universe_of("SPY")) as run:  # type: ignore[arg-type]
                            await run.grows("SPY", 5)
    return [tmp_path / name for name in ("first", "second")]


async def test_account_has_one_token_on_a_tape_and_another_on_the_next_and_is_not_found_by_trying_all(
    two_tapes: list[Path],
) -> None:
    first, second = (tokens_of_accounts(tape) for tape in two_tapes)
    assert len(first) == len(second) == 2
    assert len(set(chain(*first))) == 1, "the same account, over two connections"
    assert set(chain(*first)).isdisjoint(chain(*second))
    assert found_by_trying_all({*chain(*first), *chain(*second)}) == []


async def test_two_dumps_of_one_recorder_do_not_show_that_they_are_of_one_account(
    tmp_path: Path, shared_redis_url: str
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100, accounts=(ACCOUNT,))) as gateway:
        async with flown(gateway, shared_redis_url, tmp_path, "SPY") as run:
            await run.grows("SPY", 20)
            answers = [await ask_for_dump(shared_redis_url, "default", "test") for _ in range(2)]
    first, second = (set(chain(*tokens_of_accounts(Path(answer.path)))) for answer in answers)
    assert len(first) == len(second) == 1
    assert first.isdisjoint(second)
    assert found_by_trying_all(first | second) == []


def test_trying_all_would_find_an_account_whose_hash_had_no_key() -> None:
    digest = hashlib.blake2b(ACCOUNT.encode(), digest_size=6).hexdigest()
    assert found_by_trying_all({digest}) == [ACCOUNT]


def test_key_of_a_tape_is_new_and_long_each_time() -> None:
    keys = {Sanitizer().key for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}


def test_nothing_of_the_key_is_in_what_a_sanitizer_gives_out() -> None:
    sanitizer = Sanitizer()
    sanitizer.sanitized(Way.GATEWAY, message_of(["176", "20261126 09:30:00 EST"]))
    told = repr(sanitizer.sanitized(Way.GATEWAY, message_of(["15", "1", ACCOUNT])))
    assert sanitizer.key.hex()[:8] not in told
