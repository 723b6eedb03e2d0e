"""What of a message a tape may hold. Pure.

A tape is made to be sent to strangers, so a message is dropped but for its type unless it stands in KEPT: only what a
recording of market depth needs. Within a kept message, a field that could name the account or its owner is replaced by
a keyed hash: equal texts of one tape stay equal, and the key is thrown away with the program.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from hashlib import blake2b

from ibkr_depth_pipeline.tape.messages import (
    PREAMBLE,
    Way,
    fields_of,
    is_protobuf,
    type_of,
    version_of,
)

REQ_CONTRACT_DETAILS, REQ_DEPTH, CANCEL_DEPTH, REQ_TIME, START_API, REQ_DEPTH_EXCHANGES = 9, 10, 11, 49, 71, 82
ERROR, NEXT_VALID_ID, CONTRACT_DETAILS, DEPTH, DEPTH_L2, MANAGED_ACCOUNTS = 4, 9, 10, 12, 13, 15
TIME, CONTRACT_DETAILS_END, DEPTH_EXCHANGES = 49, 52, 80

KEPT: Mapping[Way, frozenset[int]] = {
    Way.CLIENT: frozenset({REQ_CONTRACT_DETAILS, REQ_DEPTH, CANCEL_DEPTH, REQ_TIME, START_API, REQ_DEPTH_EXCHANGES}),
    Way.GATEWAY: frozenset(
        {
            *(ERROR, NEXT_VALID_ID, CONTRACT_DETAILS, DEPTH, DEPTH_L2, MANAGED_ACCOUNTS),
            *(TIME, CONTRACT_DETAILS_END, DEPTH_EXCHANGES),
        }
    ),
}
"""Types whose fields are kept, by who sends them; their numbers are from IBKR's own client (ibapi, message.py)."""

_FIELDS: Mapping[tuple[Way, int], int] = {
    (Way.CLIENT, REQ_DEPTH): 17,  # what follows are the client's own options
    (Way.CLIENT, CANCEL_DEPTH): 4,
    (Way.CLIENT, REQ_TIME): 2,
    (Way.CLIENT, START_API): 3,
    (Way.CLIENT, REQ_DEPTH_EXCHANGES): 1,
    (Way.GATEWAY, ERROR): 5,
    (Way.GATEWAY, NEXT_VALID_ID): 3,
    (Way.GATEWAY, DEPTH): 8,
    (Way.GATEWAY, DEPTH_L2): 10,
    (Way.GATEWAY, TIME): 3,
    (Way.GATEWAY, CONTRACT_DETAILS_END): 3,
}
"""Of a kept message at most so many fields: what a later version may add is hashed."""

GREETING_FIELDS = 2
"""A gateway's first message: its version and its time."""

_ACCOUNT = re.compile(r"\b(?:DU|DF|DI|U|F|I)\d{5,9}\b")
"""IBKR's own accounts, live and on paper. Symbols may be spelled as accounts at brokers: those go from texts only."""
_LIKE_ACCOUNT = re.compile(r"\b[A-Za-z]{1,4}\d{4,9}\b")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_SESSION = ("-1", "0", "")
"""The ids of errors that are about no request."""
_HASH_BYTES = 6

Kept = list[str] | dict[str, int]
"""A message on a tape: its fields; or of a dropped one its type, its number of fields (-1: not known) and of bytes."""


class Sanitizer:
    """The two sides of one connection. `key` is the tape's: hashes of one tape can be compared, of two they can't."""

    def __init__(self, key: bytes | None = None) -> None:
        self.key = key or secrets.token_bytes(32)
        self.version = 0
        """The connection's server version; 0 before the gateway's greeting."""
        self._greeted = {Way.CLIENT: False, Way.GATEWAY: False}
        self._requests: set[str] = set()

    def sanitized(self, way: Way, message: bytes) -> Kept:
        """The message as the tape may hold it. Messages of a connection come in their order."""
        if message == PREAMBLE and way is Way.CLIENT:
            return ["API"]
        if not self._greeted[way]:
            self._greeted[way] = True
            return self._greeting(way, message)
        kind = type_of(message, self.version)
        if kind not in KEPT[way] or is_protobuf(message, self.version):
            return self._dropped(message, kind)
        fields = fields_of(message, self.version)
        return self._kept(way, kind, fields)

    def _greeting(self, way: Way, message: bytes) -> Kept:
        """The versions that a client offers; the version that the gateway takes, and its time."""
        if way is Way.GATEWAY:
            self.version = version_of(message)
        fields = fields_of(message, 0)
        kept = 1 if way is Way.CLIENT else GREETING_FIELDS
        return [*(self._without_accounts(field) for field in fields[:kept]), *map(self.hashed, fields[kept:])]

    def _dropped(self, message: bytes, kind: int) -> Kept:
        count = -1 if is_protobuf(message, self.version) else len(fields_of(message, self.version))
        return {"type": kind, "fields": count, "bytes": len(message)}

    def _kept(self, way: Way, kind: int, fields: list[str]) -> Kept:
        if way is Way.CLIENT:
            if kind in (REQ_CONTRACT_DETAILS, REQ_DEPTH) and len(fields) > 2:
                self._requests.add(fields[2])
        elif kind == MANAGED_ACCOUNTS:
            return [
                fields[0],
                *map(self._without_accounts, fields[1:2]),
                *(",".join(map(self.hashed, text.split(","))) for text in fields[2:]),
            ]
        elif kind == ERROR:
            fields = self._error(fields)
        limit = _FIELDS.get((way, kind), len(fields))
        return [*(self._without_accounts(field) for field in fields[:limit]), *map(self.hashed, fields[limit:])]

    def _error(self, fields: list[str]) -> list[str]:
        """The text of an error is kept if it is about the session or a request that is kept: not about an order."""
        if len(fields) < 5 or fields[2] in _SESSION or fields[2] in self._requests:
            return [*fields[:4], *map(self.cleaned, fields[4:])]
        return [*fields[:4], *map(self.hashed, fields[4:])]

    def cleaned(self, text: str) -> str:
        """A text for people, such as an error's, with hashes in the place of all that is spelled as some account."""
        return self._without_accounts(_LIKE_ACCOUNT.sub(self._hash_of, text))

    def _without_accounts(self, text: str) -> str:
        """The text, with hashes in the place of what is spelled as an account's number or a mail address."""
        if "@" in text:
            text = _ADDRESS.sub(self._hash_of, text)
        return _ACCOUNT.sub(self._hash_of, text)

    def _hash_of(self, match: re.Match[str]) -> str:
        return self.hashed(match.group())

    def hashed(self, text: str) -> str:
        """A text that shows of `text` only whether it is the same; an empty one stays empty."""
        if not text:
            return text
        return "#" + blake2b(text.encode(errors="replace"), key=self.key, digest_size=_HASH_BYTES).hexdigest()
