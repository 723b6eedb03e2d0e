"""Names and ids of what Redis stores: keys, fields, stream ids. docs/redis-schema.md is their contract. Pure."""

from __future__ import annotations

from typing import NamedTuple

PREFIX = "raw:ibkr:depth"

SCHEMA_VERSION = 1
"""The version of docs/redis-schema.md that is written and read."""

STREAM_FIELDS = (b"ts", b"bids", b"asks", b"seq", b"venue")
"""The fields of a stream entry, in the order in which the recorder writes them."""

LAST_FIELDS = ("ts", "seq", "venue", "bids_json", "asks_json")
"""The fields of the last-value hash that make a snapshot."""

VENUE_FIELDS = (
    "con_id",
    "exchange",
    "primary_exchange",
    "valid_exchanges",
    "depth_supported",
    "reason",
    "checked_ts",
)
"""The fields of the venue hash."""


class StreamId(NamedTuple):
    """The id of a snapshot in its stream, `<ts>-<seq>`: its time in unix ms and its number. Zeros: before the first.

    Ids of a symbol only grow, also if `seq` begins again.
    """

    ts: int = 0
    seq: int = 0

    @classmethod
    def of(cls, stream_id: bytes) -> StreamId:
        """Parses the id as Redis sends it. Raises ValueError if it is not a number or two."""
        ts, _, seq = stream_id.partition(b"-")
        return cls(int(ts), int(seq or 0))

    def __str__(self) -> str:
        return f"{self.ts}-{self.seq}"


LAST_OF_MS = 2**64 - 1
"""The largest number that the id of a millisecond can have."""


def parts_of_id(stream_id: str) -> tuple[int, int]:
    """The ts and the seq of `<ts>-<seq>`. Raises ValueError for any other text."""
    ts, dash, seq = stream_id.partition("-")
    if not (dash and ts.isdecimal() and seq.isdecimal()):
        raise ValueError(f"{stream_id!r} is no stream id: it has the form <ts>-<seq>, such as 1700000000000-42")
    return int(ts), int(seq)


def id_after(stream_id: str) -> str:
    """The smallest id above this one."""
    ts, seq = parts_of_id(stream_id)
    return f"{ts}-{seq + 1}" if seq < LAST_OF_MS else f"{ts + 1}-0"


def stream_key(symbol: str) -> str:
    """Stream of every snapshot."""
    return f"{PREFIX}:stream:{symbol}"


def turns_stream(symbol: str) -> str:
    """Stream of the symbol's ended subscriptions: when it was observed."""
    return f"{PREFIX}:turns:{symbol}"


def open_turn_hash(symbol: str) -> str:
    """Hash of the symbol's open subscription."""
    return f"{PREFIX}:turn:{symbol}"


def rows_stream(symbol: str) -> str:
    """Stream of every row of depth, if rows are kept."""
    return f"{PREFIX}:rows:{symbol}"


def last_key(symbol: str) -> str:
    """Hash of the newest snapshot."""
    return f"{PREFIX}:last:{symbol}"


def heartbeat_key(symbol: str) -> str:
    """Unix ms of the last live row; expires."""
    return f"{PREFIX}:hb:{symbol}"


def venue_key(symbol: str) -> str:
    """Hash of what the gateway knows of the symbol's venue."""
    return f"{PREFIX}:venue:{symbol}"


def ingest_key(name: str) -> str:
    """JSON of an ingest's own figures; `name` is IBKR_GATEWAY_NAME."""
    return f"{PREFIX}:ingest:{name}"


def ingest_heartbeat_key(name: str) -> str:
    """The id of the run that is alive; expires."""
    return f"{PREFIX}:ingest:{name}:hb"


def ingest_hours_key(name: str) -> str:
    """JSON of the hours of an ingest's instruments; expires after some days."""
    return f"{PREFIX}:ingest:{name}:hours"


def lease_key(name: str) -> str:
    """Who may write under this name; expires."""
    return f"{PREFIX}:lease:{name}"


def given_back_key(name: str) -> str:
    """Who gave the lease of this name back last; expires within seconds."""
    return f"{PREFIX}:lease:{name}:given_back"


def standby_key(name: str) -> str:
    """The ingests that stand by under this name, a line each; expires."""
    return f"{PREFIX}:standby:{name}"


def hand_over_key(name: str) -> str:
    """Which run is asked to hand over to its standby; expires within seconds."""
    return f"{PREFIX}:hand_over:{name}"


def claim_key(symbol: str) -> str:
    """Which ingest may write the symbol's stream; expires."""
    return f"{PREFIX}:claim:{symbol}"


def contract_claim_key(con_id: int, venue: str) -> str:
    """Which ingest records the contract on that venue, and under which name; expires."""
    return f"{PREFIX}:contract_claim:{con_id}@{venue}"


def focus_key(symbol: str) -> str:
    """Who asks that the symbol keeps a slot for a while; set by any program, expires."""
    return f"{PREFIX}:focus:{symbol}"


def dump_request_key(name: str) -> str:
    """Who asks the ingest to write out the last minutes of its wire, as JSON; expires."""
    return f"{PREFIX}:ingest:{name}:dump"


def dump_answer_key(name: str, number: str) -> str:
    """What came of the request of that id, as JSON; expires."""
    return f"{PREFIX}:ingest:{name}:dumped:{number}"


def contract_key(symbol: str) -> str:
    """The contract that the symbol was resolved to, as JSON; expires after a day."""
    return f"{PREFIX}:contract:{symbol}"


def contract_changes_key(symbol: str) -> str:
    """Stream of the contracts that the symbol's snapshots were of, each from a snapshot on."""
    return f"{PREFIX}:contract_changes:{symbol}"


def clock_key(name: str) -> str:
    """Stream of the steps of an ingest's clock, and of when `ts` stands; `name` is IBKR_GATEWAY_NAME."""
    return f"{PREFIX}:clock:{name}"


def alerts_stream(name: str) -> str:
    """Stream of the alerts and all-clears of an ingest; `name` is IBKR_GATEWAY_NAME."""
    return f"{PREFIX}:alerts:{name}"
