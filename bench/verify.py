"""Whether what Redis holds is what the tape says: every row once, in order, the books right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import redis

from bench.tape import Book, Row, Tape, books

EVERY = 50
"""Of so many stored books one is compared with the model, besides the first hundred and the last."""

_FIRST = 100
_PAGE = 5000


def key(kind: str, symbol: str) -> str:
    """As docs/redis-schema.md says."""
    return f"raw:ibkr:depth:{kind}:{symbol}"


def stored_rows(store: Any, symbols: Sequence[str]) -> int:
    """How many rows of each symbol are mirrored, all keys included, added up."""
    pipe = store.pipeline(transaction=False)
    for symbol in symbols:
        pipe.hget(key("last", symbol), "seq")
    return sum(int(seq or 0) for seq in pipe.execute())


def faults(store: Any, tape: Tape, symbols: Sequence[str], rows: int, *, trimmed: bool = False) -> list[str]:
    """What is wrong with what is stored of `symbols`, the tape's streams in this order, `rows` rows each.

    trimmed: the stream may hold only its newest entries.
    """
    found = []
    for number, symbol in enumerate(symbols):
        stream = tape.stream(number, rows)
        entries = store.xlen(key("stream", symbol))
        if entries != rows and not trimmed:
            found.append(f"{symbol}: {entries} entries for {rows} rows")
        found += [f"{symbol}: {fault}" for fault in _stream_faults(store, tape, symbol, stream)]
    return found


def _stream_faults(store: Any, tape: Tape, symbol: str, stream: Sequence[Row]) -> list[str]:
    newest = store.hgetall(key("last", symbol))
    if not newest:
        return ["the hash is missing"]
    venue = newest[b"venue"].decode()
    expected = dict(_sample(stream, tape.depth, venue))
    found = _page_faults(store, symbol, expected, len(stream))
    last = (json.loads(newest[b"bids_json"]), json.loads(newest[b"asks_json"]))
    if last != expected[len(stream)] or int(newest[b"seq"]) != len(stream):
        found.append("the hash is not the final book")
    best = tuple(float(newest[name]) for name in (b"bid0", b"ask0"))
    if best != (last[0][0][0], last[1][0][0]):
        found.append("bid0 and ask0 are not the final book's")
    if store.ttl(key("hb", symbol)) <= 0 or store.get(key("hb", symbol)) != newest[b"ts"]:
        found.append("the heartbeat is missing or not that of the last row")
    return found


def _sample(stream: Sequence[Row], depth: int, venue: str) -> list[tuple[int, Book]]:
    """seq -> book. The copy of each side is shallow: a level is never changed, only replaced."""
    last = len(stream)
    return [
        (seq, book)
        for seq, book in enumerate(books(stream, depth, venue), start=1)
        if seq <= _FIRST or seq % EVERY == 0 or seq == last
    ]


def _page_faults(store: Any, symbol: str, expected: dict[int, Book], last: int) -> list[str]:
    start, seq = "-", 0
    while page := store.xrange(key("stream", symbol), start, "+", count=_PAGE):
        for entry_id, fields in page:
            if seq and int(fields[b"seq"]) != seq + 1:
                return [f"after seq {seq} comes {int(fields[b'seq'])}"]
            seq = int(fields[b"seq"])
            if entry_id != b"%b-%b" % (fields[b"ts"], fields[b"seq"]):
                return [f"seq {seq}: its id is {entry_id!r}"]
            if seq in expected and (json.loads(fields[b"bids"]), json.loads(fields[b"asks"])) != expected[seq]:
                return [f"seq {seq}: not the book of the model"]
        start = f"({page[-1][0].decode()}"
    return [] if seq == last else [f"the newest entry is seq {seq} of {last}"]


def connect(url: str) -> Any:
    """A blocking client for the benchmark itself."""
    return redis.Redis.from_url(url)
