"""Which messages of a connection a client needs before it can go on in the middle of it. Pure.

They are the connection's head (ring.py): the greeting and the start, questions about contracts and venues with their
answers, and what the gateway is. No row passes here, depth requests and cancels leave only what is live.
"""

from __future__ import annotations

from ibkr_depth_pipeline.tape.messages import PREAMBLE, version_of
from ibkr_depth_pipeline.tape.sanitizer import (
    CANCEL_DEPTH,
    CONTRACT_DETAILS,
    CONTRACT_DETAILS_END,
    DEPTH_EXCHANGES,
    ERROR,
    MANAGED_ACCOUNTS,
    NEXT_VALID_ID,
    REQ_CONTRACT_DETAILS,
    REQ_DEPTH,
    REQ_DEPTH_EXCHANGES,
    REQ_TIME,
    START_API,
    TIME,
)

_SENT = {str(kind).encode() for kind in (START_API, REQ_CONTRACT_DETAILS, REQ_DEPTH_EXCHANGES)}
_CAME = {
    str(kind).encode()
    for kind in (NEXT_VALID_ID, MANAGED_ACCOUNTS, CONTRACT_DETAILS, CONTRACT_DETAILS_END, DEPTH_EXCHANGES)
}
_REQ_DEPTH, _CANCEL, _REQ_DETAILS, _REQ_TIME, _TIME, _ERROR, _START = (
    str(kind).encode() for kind in (REQ_DEPTH, CANCEL_DEPTH, REQ_CONTRACT_DETAILS, REQ_TIME, TIME, ERROR, START_API)
)
_OF_THE_SESSION = (b"-1", b"0", b"")
_PLACE_OF_ID = 2


class ConnectionHead:
    """Decides of each message but rows whether it belongs to the head.

    requests: the live depth requests, as they were sent, by id. version and client_id are 0 before they are known.
    """

    def __init__(self) -> None:
        self.requests: dict[int, str] = {}
        self.version = 0
        self.client_id = 0
        self._questions: set[bytes] = set()
        self._asked_time = self._told_time = False

    def sent(self, data: bytes) -> bool:
        """Whether what is sent belongs to the head: the offer of versions, or one message with its length."""
        if data.startswith(PREAMBLE):
            return True
        fields = data[4:].split(b"\0")
        kind = fields[0]
        if kind in (_REQ_DEPTH, _CANCEL):
            self._depth(kind, fields, data[4:])
            return False
        if kind == _REQ_TIME:
            is_first, self._asked_time = not self._asked_time, True
            return is_first
        if kind == _REQ_DETAILS:
            self._questions.add(_id_of(fields))
        elif kind == _START:
            self.client_id = int(_id_of(fields) or 0)
        return kind in _SENT

    def _depth(self, kind: bytes, fields: list[bytes], message: bytes) -> None:
        request = int(_id_of(fields) or 0)
        if kind == _REQ_DEPTH:
            self.requests[request] = message.decode(errors="replace")
        else:
            self.requests.pop(request, None)

    def came(self, message: bytes) -> bool:
        """Whether a message of the gateway, without its length, belongs to the head."""
        if not self.version:
            self.version = version_of(message)
            return True
        fields = message.split(b"\0", 3)
        kind = fields[0]
        if kind == _ERROR:
            return _id_of(fields) in _OF_THE_SESSION or _id_of(fields) in self._questions
        if kind == _TIME:
            is_first, self._told_time = not self._told_time, True
            return is_first
        return kind in _CAME

    def keep(self, requests: set[int]) -> None:
        """Forgets depth requests other than these: they were refused."""
        for request in self.requests.keys() - requests:
            del self.requests[request]


def _id_of(fields: list[bytes]) -> bytes:
    return fields[_PLACE_OF_ID] if len(fields) > _PLACE_OF_ID else b""
