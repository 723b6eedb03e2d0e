"""Replaces what names the account in the bytes of a connection, before they are kept on disk. Pure.

Lengths stay as they are, so that reads and messages do; a flight recorder's ring is kept so. Rows are passed as they
came, without a look at each: a busy wire has little else. A message that no tape may hold keeps its type and its number
of fields; in one that it may, each text that sanitizer.py hashes is replaced by a mark and letters of the same length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate

from ibkr_depth_pipeline.tape.messages import PREAMBLE, MessageSplitter, NotTheProtocol, Way, framed, message_of
from ibkr_depth_pipeline.tape.sanitizer import DEPTH, DEPTH_L2, Sanitizer

MARK = "\x1a"
"""Begins every replacement: a character that no message has in a text."""

_REPLACED = re.compile(f"{MARK}[a-p]*")
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")  # nothing that looks like an account or an address
_PREFIX_BYTES = 4
_ROWS = tuple(f"{kind}\0".encode() for kind in (DEPTH, DEPTH_L2))
_LONGEST_TYPE = 3
_CONTENT = re.compile(rb"[^\0]")


def is_row(framed_bytes: bytes) -> bool:
    """Whether a message, with its length, is a row, as far as its beginning shows it."""
    return framed_bytes.startswith(_ROWS, _PREFIX_BYTES)


class SameLengthSanitizer(Sanitizer):
    """A sanitizer whose hashes are as long as what they replace."""

    def hashed(self, text: str) -> str:
        if not text:
            return text
        size = len(text.encode(errors="replace"))
        digest = blake2b(text.encode(errors="replace"), key=self.key).hexdigest().translate(_LETTERS)
        return f"{MARK}{digest}".ljust(size, "a")[:size]

    def redacted(self, way: Way, message: bytes) -> bytes:
        """The message, as long as before, without what a tape may not hold."""
        try:
            kept = self.sanitized(way, message)
        except Exception:  # whatever a broken message does, the recording goes on
            return blank(message)
        if isinstance(kept, list):
            shown = message_of(kept)
            if not message.endswith(b"\0"):
                shown = shown[:-1]
            if len(shown) == len(message):
                return shown
        return blank(message)


class TapeOfRingSanitizer(Sanitizer):
    """The sanitizer of a tape that is made of redacted bytes: each tape has its own hashes of the same replacements."""

    def _without_accounts(self, text: str) -> str:
        return _REPLACED.sub(self._hash_of, super()._without_accounts(text))


def blank(message: bytes) -> bytes:
    """The message with nothing in it but its type, and as many fields."""
    kind, nul, rest = message.partition(b"\0")
    is_type = kind.isdigit() and len(kind) <= _LONGEST_TYPE
    return (kind if is_type else _CONTENT.sub(b"x", kind)) + nul + _CONTENT.sub(b"x", rest)


class StreamRedactor:
    """Redacts what one connection reads and sends, in pieces that end with a whole message or within a row.

    Call `came` with each message of the gateway that is no row; then `redacted` with the reads since its last call, and
    set `carry` to what of a row they end with.
    """

    def __init__(self, key: bytes) -> None:
        self._sanitizer = SameLengthSanitizer(key)
        self._known: dict[bytes, bytes] = {}
        self.carry = b""
        """The beginning of a row whose rest is to come; it has been redacted already."""

    def sent(self, data: bytes) -> bytes:
        """What the client sends: whole messages with their lengths, the first of them behind the preamble."""
        splitter = MessageSplitter(Way.CLIENT if data.startswith(PREAMBLE) else Way.GATEWAY)
        try:
            messages = list(splitter.split(data))
        except NotTheProtocol:
            return blank(data)
        shown = (each if each == PREAMBLE else self._sanitizer.redacted(Way.CLIENT, each) for each in messages)
        redacted = b"".join(map(framed, shown))
        return redacted if len(redacted) == len(data) else blank(data)

    def came(self, message: bytes, *, keep: bool = True) -> bytes:
        """A message that is no row, redacted; keep: `redacted` is going to have its bytes."""
        shown = self._sanitizer.redacted(Way.GATEWAY, message)
        if keep:
            self._known[message] = shown
        return shown

    def forget(self, carry: bytes) -> None:
        """What was read so far is not kept; what comes next follows on these bytes of a row."""
        self._known.clear()
        self.carry = carry

    @property
    def is_needed(self) -> bool:
        """Whether anything but rows came since the last call of `redacted`."""
        return bool(self._known)

    def redacted(self, reads: Sequence[bytes]) -> list[bytes]:
        """The reads, each as long as before. What is no row and was not passed to `came` is blanked."""
        stream = self.carry + b"".join(reads)
        shown = b"".join(self._messages(stream))[len(self.carry) :]
        self._known.clear()
        ends = accumulate(map(len, reads))
        return [shown[end - len(read) : end] for end, read in zip(ends, reads, strict=True)]

    def _messages(self, stream: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(stream):
            end = at + _PREFIX_BYTES + int.from_bytes(stream[at : at + _PREFIX_BYTES], "big")
            prefix, message = stream[at : at + _PREFIX_BYTES], stream[at + _PREFIX_BYTES : end]
            row = message if is_row(stream[at : at + 8]) else blank(message)
            yield prefix + self._known.get(message, row)
            at = end
