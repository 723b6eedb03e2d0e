"""What an ingest tells of itself in Redis: the figures, as JSON under one key."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which process records. No two runs share a `run_id`; `started_ts` is unix ms.

    `process` is the mark of the process (process_mark), "" where none is known.
    """

    run_id: str
    host: str
    pid: int
    started_ts: int
    process: str = ""

    @classmethod
    def of_this_process(cls, now_ms: int, run_id: str | None = None) -> RunIdentity:
        """A new identity for a run of this process that starts now; run_id is one that its runner knows it by."""
        pid = os.getpid()
        return cls(run_id or secrets.token_hex(8), socket.gethostname(), pid, now_ms, process_mark(pid))


def process_mark(pid: int) -> str:
    """What tells a process from every other that has, had or will have its number: boot, PID namespace, start time.

    The start time is in ticks since the boot, so that no step of the clock changes it. "" where there is no such
    process or no /proc.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # a name may hold blanks
        return f"{boot} {namespace} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return ""


@dataclass(frozen=True, slots=True)
class SymbolFigures:
    """One symbol, since the run started. `lost` are snapshots that the buffer's bound dropped.

    live_ms is for how long its book was live; bid0 and ask0 are the best prices then, 0.0 where a side was empty.
    """

    subscribed: bool = False
    last_row_ts: int = 0
    rows: int = 0
    live_ms: int = 0
    bid0: float = 0.0
    ask0: float = 0.0
    snapshots: int = 0
    newest_seq: int = 0
    lost: int = 0
    refused_309: int = 0
    venue: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """A run and its symbols. Sizes are bytes, `_ts` unix ms, lags milliseconds from row to Redis.

    ended_ts is 0 while the run goes on. `ailments` are the codes of the data farms' troubles that still stand.
    pacing_violations counts the gateway's 100s.
    """

    run: RunIdentity
    written_ts: int
    ended_ts: int = 0
    connected: bool = False
    suspended: bool = False
    ailments: tuple[int, ...] = ()
    batch_size: int = 0
    connections: int = 0
    reconnects: int = 0
    turns: int = 0
    refused_309: int = 0
    pacing_violations: int = 0
    buffer_bytes: int = 0
    buffer_bound: int = 0
    buffer_entries: int = 0
    lost: int = 0
    write_failures: int = 0
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    symbols: Mapping[str, SymbolFigures] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(self)

    @classmethod
    def of_json(cls, text: bytes | None) -> FeedFigures | None:
        """Read what `to_json` wrote, of this version or a near one; None where there is nothing to read."""
        try:
            return None if text is None else _ADAPTER.validate_json(text)
        except ValidationError:
            return None

    @property
    def buffer_share(self) -> float:
        """How full the buffer is, from 0 to 1."""
        return self.buffer_bytes / self.buffer_bound if self.buffer_bound else 0.0


_ADAPTER = TypeAdapter(FeedFigures)
