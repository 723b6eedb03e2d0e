"""What a tape sends to a client: its connections as scripts. Pure, but for reading the tape.

An answer is bound to what was asked, not to the number that it was asked under: `Script.answers` has for each question
what came of it, each time that it was asked.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ibkr_depth_pipeline.tape.files import LinkEvent, Read, UnreadableTape, read_entries
from ibkr_depth_pipeline.tape.messages import BINARY_IDS, Way
from ibkr_depth_pipeline.tape.sanitizer import (
    CONTRACT_DETAILS,
    CONTRACT_DETAILS_END,
    DEPTH,
    DEPTH_EXCHANGES,
    DEPTH_L2,
    ERROR,
    REQ_CONTRACT_DETAILS,
    REQ_DEPTH,
    REQ_DEPTH_EXCHANGES,
    REQ_TIME,
    START_API,
    TIME,
    Kept,
)

_UNVERSIONED_DETAILS = 164
"""From this server version on contract details have no version field before their request's id (ibapi, decoder.py)."""

Question = tuple[str, ...]
"""What is asked: the type of the message, and of a contract's question its fields without the request's id."""


@dataclass(slots=True)
class Answer:
    """What came of one question: messages with the time after the question in ns, and where the request's id stands.

    asked_at is unix ns.
    """

    asked_at: int
    messages: list[tuple[int, list[str], int | None]] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """One connection of a tape. Times of `unasked` are ns after the client's start (startApi), or after the tape's
    begin if the connection is older; `lasts` is when the gateway ended it, None if it did not."""

    version: int
    greeting: list[str]
    started_at: int
    unasked: list[tuple[int, list[str]]] = field(default_factory=list)
    answers: dict[Question, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    lasts: int | None = None


def read_scripts(path: Path, skipped: Callable[[str], object] = lambda why: None) -> list[Script]:
    """The connections of a tape in their order. Raises UnreadableTape if none of them can be played.

    skipped(why) is called if some of them can't be.
    """
    connections: dict[int, list[Read | LinkEvent]] = {}
    for entry in read_entries(path):
        if isinstance(entry, LinkEvent) and entry.name == "opened":
            connections.setdefault(entry.connection, [])
        if entry.connection in connections:
            connections[entry.connection].append(entry)
    scripts = [script for entries in connections.values() if (script := script_of(entries)) is not None]
    if not scripts:
        raise UnreadableTape(f"{path}: no connection on it has a greeting and a client that started (startApi)")
    newer = [script for script in scripts if script.version >= BINARY_IDS]
    if len(newer) == len(scripts):
        raise UnreadableTape(f"{path}: {_why_not_played(newer)}")
    if newer:
        skipped(f"{path}: {len(newer)} of {len(scripts)} connections are left out: {_why_not_played(newer)}")
    return [script for script in scripts if script.version < BINARY_IDS]


def _why_not_played(scripts: Sequence[Script]) -> str:
    return (
        f"of server version {scripts[0].version}; below {BINARY_IDS} can be played: from then on messages have binary "
        "types and many are protobuf, of which a tape holds no content. `ibkr_gateway_tap show` prints what it holds; "
        f"record again with `ibkr_gateway_tap --newest-version {BINARY_IDS - 1}`, or this recorder, which speaks 176"
    )


def script_of(entries: Iterable[Read | LinkEvent]) -> Script | None:
    """The script of one connection's entries; None if the client never started."""
    greeting: list[str] | None = None
    script: Script | None = None
    reader: _ScriptReader | None = None
    for entry in entries:
        if isinstance(entry, LinkEvent):
            if script is not None and entry.name == "resumed":
                script.started_at = entry.at
                script.unasked = [(0, fields) for _, fields in script.unasked]
            elif script is not None and entry.name == "closed" and entry.detail.get("by") == "gateway":
                script.lasts = entry.at - script.started_at
            continue
        for message in entry.messages:
            if isinstance(message, dict) or not message:
                if greeting is not None and script is None and _is_start(entry.way, message):
                    script = Script(int(greeting[0] or 0), greeting, entry.at)  # of a protocol that is not played
                continue
            if greeting is None:
                greeting = message if entry.way is Way.GATEWAY else None
            elif reader is None:
                if entry.way is Way.CLIENT and message[0] == str(START_API):
                    script = Script(int(greeting[0] or 0), greeting, entry.at)
                    reader = _ScriptReader(script)
            elif entry.way is Way.CLIENT:
                reader.asked(entry.at, message)
            else:
                reader.came(entry.at, message)
    return script


def _is_start(way: Way, message: Kept) -> bool:
    return way is Way.CLIENT and isinstance(message, dict) and message["type"] == START_API


class _ScriptReader:
    """Sorts the messages of a connection into its script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._by_id: dict[str, Answer] = {}
        self._waiting: dict[int, deque[Answer]] = defaultdict(deque)  # questions without an id, by type of answer

    def asked(self, at: int, fields: list[str]) -> None:
        question, request = question_of(fields)
        if question is None:
            return
        answer = Answer(at)
        self._script.answers[question].append(answer)
        if request is not None:
            self._by_id[request] = answer
        else:
            self._waiting[_ANSWERED_BY[int(fields[0])]].append(answer)

    def came(self, at: int, fields: list[str]) -> None:
        kind, place = int(fields[0]), place_of_id(fields, self._script.version)
        if place is not None and place < len(fields) and (answer := self._by_id.get(fields[place])) is not None:
            answer.messages.append((at - answer.asked_at, fields, place))
        elif waiting := self._waiting.get(kind):
            answer = waiting.popleft()
            answer.messages.append((at - answer.asked_at, fields, None))
        elif kind not in (DEPTH, DEPTH_L2, CONTRACT_DETAILS, CONTRACT_DETAILS_END):
            self._script.unasked.append((at - self._script.started_at, fields))


_ANSWERED_BY = {REQ_TIME: TIME, REQ_DEPTH_EXCHANGES: DEPTH_EXCHANGES}
_CONTRACT = slice(
    3, 15
)  # conId, symbol, type, expiry, strike, right, multiplier, exchange, primary, currency, local, class


def question_of(fields: Sequence[str]) -> tuple[Question | None, str | None]:
    """What a client's message asks, and under which request id. None: it asks nothing."""
    kind = fields[0]
    if kind in (str(REQ_TIME), str(REQ_DEPTH_EXCHANGES)):
        return (kind,), None
    if kind in (str(REQ_CONTRACT_DETAILS), str(REQ_DEPTH)) and len(fields) > 2:
        return (kind, *fields[_CONTRACT]), fields[2]
    return None, None


def place_of_id(fields: Sequence[str], version: int) -> int | None:
    """Which field of a gateway's message is the id of a request; None if it has none."""
    kind = int(fields[0])
    if kind == CONTRACT_DETAILS:
        return 1 if version >= _UNVERSIONED_DETAILS else 2
    return 2 if kind in (DEPTH, DEPTH_L2, CONTRACT_DETAILS_END, ERROR) else None


def alike(asked: Question, known: Iterable[Question]) -> Question | None:
    """The question of `known` that is meant by `asked`: the same, or the same contract at the same venue."""
    candidates = [each for each in known if each[0] == asked[0]]
    if asked in candidates:
        return asked
    for same in (_same_contract, _same_words):
        if found := next((each for each in candidates if same(asked, each)), None):
            return found
    return None


def _same_contract(one: Question, other: Question) -> bool:
    return one[1] not in ("", "0") and one[1] == other[1] and one[8] == other[8]


def _same_words(one: Question, other: Question) -> bool:
    """Of symbol, type, expiry, strike, right, exchange and currency none differs where both name it."""
    compared = (2, 3, 4, 5, 6, 8, 10)
    return one[2] == other[2] != "" and all(
        not {one[at], other[at]} - {""} or one[at] == other[at] or "" in (one[at], other[at]) for at in compared
    )
