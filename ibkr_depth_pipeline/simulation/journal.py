"""What a simulated gateway received and sent, in order: the truth that a test compares with what was stored.

An entry is made when the bytes are handed to the connection, so rows that were under way when a connection broke stand
in it too.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from ibkr_depth_pipeline.simulation.rows import WireRow

KINDS = (
    *("listening", "stopped_listening", "opened", "closing", "closed", "request", "reply", "error"),
    *(
        "subscribed",
        "unsubscribed",
        "rows",
        "raw_row",
        "fault",
        "replay_ended",
        "unanswered",
        "ready",
        "unready",
        "dead",
        "out_of_step",
    ),
)
"""The kinds of entries."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One happening. `at` is in unix seconds; `connection` counts from 1, 0 is the gateway itself."""

    at: float
    connection: int
    kind: str
    name: str = ""
    """The request's or reply's name, the listing's name for rows, the fault's name."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[WireRow, ...] = ()

    def as_json(self) -> str:
        record: dict[str, Any] = {"at": round(self.at, 6), "connection": self.connection, "kind": self.kind}
        record |= {"name": self.name} if self.name else {}
        record |= self.detail
        if self.rows:
            record["rows"] = [list(row) for row in self.rows]
        return json.dumps(record)


class Journal:
    """Append-only. Keeps the last `limit` entries in memory, and writes all of them to a file if it is given one."""

    def __init__(self, *, keep_rows: bool = True, limit: int | None = None) -> None:
        """Without `keep_rows` an entry for rows has their number, not the rows."""
        self.row_counts: Counter[str] = Counter()
        """Rows sent per listing name, over all connections."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Entries per kind and name, including those no longer kept."""
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._keep_rows = keep_rows
        self._file: IO[str] | None = None
        self._listeners: list[Callable[[Entry], None]] = []

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.counts[entry.kind, entry.name] += 1
        if self._file is not None:
            self._write(self._file, entry)
        for listener in tuple(self._listeners):
            listener(entry)

    def add_rows(self, at: float, connection: int, name: str, request_id: int, rows: list[WireRow]) -> None:
        """Depth rows of one subscription, as one entry."""
        self.row_counts[name] += len(rows)
        detail = {"request_id": request_id, "count": len(rows)}
        self.add(Entry(at, connection, "rows", name, detail, tuple(rows) if self._keep_rows else ()))

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Calls the listener with every new entry; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def entries(self, kind: str | None = None, name: str | None = None, connection: int | None = None) -> list[Entry]:
        """The entries kept, oldest first, of one kind, name or connection if given."""
        return [
            entry
            for entry in tuple(self._entries)
            if kind in (None, entry.kind) and name in (None, entry.name) and connection in (None, entry.connection)
        ]

    def rows(self, name: str | None = None, request_id: int | None = None) -> list[WireRow]:
        """Every row sent, in order; of one listing or request id if given. Empty without `keep_rows`."""
        return [row for entry in self._rows_entries(name, request_id) for row in entry.rows]

    def errors(self, code: int | None = None) -> list[Entry]:
        """The errors sent, of one code if given."""
        return [entry for entry in self.entries("error") if code in (None, entry.detail["code"])]

    def requests(self, name: str | None = None) -> list[Entry]:
        """The requests received, `detail` holding their fields by name."""
        return self.entries("request", name)

    def write_to(self, file: IO[str]) -> None:
        """From now on every entry is also a line of JSON in that file; all but rows are flushed at once."""
        self._file = file

    def _write(self, file: IO[str], entry: Entry) -> None:
        file.write(entry.as_json() + "\n")
        if entry.kind != "rows":
            file.flush()

    def _rows_entries(self, name: str | None, request_id: int | None) -> Iterator[Entry]:
        for entry in self.entries("rows", name):
            if request_id in (None, entry.detail["request_id"]):
                yield entry
