"""The two byte streams of a TWS connection -> messages, and what each message is. Pure; shares no code with the engine.

docs/ibkr-market-depth.md, "Wire protocol": a client begins with `API` and NUL; then both sides send 4-byte big-endian
lengths, each before so many bytes. Fields end with NUL. From server version 201 on a message begins with its type as
a 4-byte number, and types above 200 are protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

LARGEST_MESSAGE_BYTES = 0xFFFFFF
"""The largest message that IBKR's own client takes (ibapi, common.py: MAX_MSG_LEN)."""

PREAMBLE = b"API\0"
BINARY_IDS = 201
"""The first server version whose messages begin with a binary type."""

PROTOBUF = 200
"""Types above this one are protobuf messages of the type that many below."""

_PREFIX_BYTES = 4


class Way(str, Enum):
    """From whom a message came."""

    CLIENT = ">"
    GATEWAY = "<"


class NotTheProtocol(ValueError):
    """Bytes that no TWS API connection has."""


class MessageSplitter:
    """Splits one side's bytes into messages. The preamble of a client counts as a message of its own."""

    def __init__(self, way: Way) -> None:
        self._pending = bytearray()
        self._wants_preamble = way is Way.CLIENT

    def split(self, data: bytes) -> Iterator[bytes]:
        """Yields the messages that `data` completes, without their lengths. Raises NotTheProtocol."""
        self._pending += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> bytes | None:
        pending = self._pending
        if len(pending) < _PREFIX_BYTES:
            return None
        if self._wants_preamble:
            if not pending.startswith(PREAMBLE):
                raise NotTheProtocol(f"a client of the API begins with {PREAMBLE!r}, not with {bytes(pending[:4])!r}")
            self._wants_preamble = False
            del pending[:_PREFIX_BYTES]
            return PREAMBLE
        length = int.from_bytes(pending[:_PREFIX_BYTES], "big")
        if length > LARGEST_MESSAGE_BYTES:
            raise NotTheProtocol(f"a message of {length} bytes; at most {LARGEST_MESSAGE_BYTES} are allowed")
        end = _PREFIX_BYTES + length
        if len(pending) < end:
            return None
        message = bytes(pending[_PREFIX_BYTES:end])
        del pending[:end]
        return message


def framed(message: bytes) -> bytes:
    """The bytes of a message on the socket."""
    return message if message == PREAMBLE else len(message).to_bytes(_PREFIX_BYTES, "big") + message


def version_of(greeting: bytes) -> int:
    """The server version in a gateway's first message; 0 if it names none."""
    text = greeting.partition(b"\0")[0]
    return int(text) if text.isdigit() and len(text) < 7 else 0


def type_of(message: bytes, version: int) -> int:
    """The type of a message after the greeting, of protobuf messages that which they stand for; 0 if it has none."""
    if version >= BINARY_IDS:
        kind = int.from_bytes(message[:_PREFIX_BYTES], "big")
        return kind - PROTOBUF if kind > PROTOBUF else kind
    text = message.partition(b"\0")[0]
    return int(text) if text.isdigit() and len(text) < 5 else 0


def is_protobuf(message: bytes, version: int) -> bool:
    """Whether the message's fields are not texts."""
    return version >= BINARY_IDS and int.from_bytes(message[:_PREFIX_BYTES], "big") > PROTOBUF


def fields_of(message: bytes, version: int) -> list[str]:
    """The fields of a message as texts, its type first. Bytes that are no UTF-8 are replaced."""
    if version >= BINARY_IDS:
        rest = message[_PREFIX_BYTES:].decode(errors="replace")
        return [str(type_of(message, version)), *_texts(rest)]
    return _texts(message.decode(errors="replace"))


def message_of(fields: list[str]) -> bytes:
    """The message that has these fields, as a text protocol spells it."""
    return "".join(f"{field}\0" for field in fields).encode()


def _texts(text: str) -> list[str]:
    return text.split("\0")[:-1] if text.endswith("\0") else text.split("\0")
