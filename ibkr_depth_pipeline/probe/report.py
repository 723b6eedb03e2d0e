"""The report of a probe, symbol by symbol; `as_dict` is what `--json` prints. Frozen, no I/O."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from ibkr_depth_pipeline.model import Instrument, Levels, Unresolved
from ibkr_depth_pipeline.probe.gateway_notices import GatewayNotice


class Outcome(Enum):
    """How the probe of a symbol ended, or that it goes on."""

    PENDING = "pending"  # in progress; never in a finished report
    DEPTH = "depth"  # a book with both sides
    VENUE_ONLY = "venue_only"  # not subscribed, since an ingest holds the slots; contract and venue are right
    UNRESOLVED = "unresolved"  # no contract, or no venue with depth
    REFUSED = "refused"  # the gateway refuses depth: no permission, or none at any venue
    NO_SLOT = "no_slot"  # other clients hold every slot (309)
    SILENT = "silent"  # subscribed, and no row in time
    ONE_SIDED = "one_sided"  # rows of one side only
    HALTED = "halted"  # the gateway ended the subscription again and again
    NO_ANSWER = "no_answer"  # the gateway or the way to it failed
    INTERRUPTED = "interrupted"  # the operator ended the probe first


PASSED = frozenset({Outcome.DEPTH, Outcome.VENUE_ONLY})
DECIDED = frozenset({Outcome.DEPTH, Outcome.UNRESOLVED, Outcome.REFUSED})
"""Outcomes that settle whether a symbol has depth. The others leave its venue hash unchanged."""


@dataclass(frozen=True, slots=True)
class SizeHints:
    """Properties of the sizes of `rows` rows, as a hint at their unit: lots or shares is a setting of the gateway."""

    rows: int
    fractional: bool
    multiples_of_100: bool
    smallest: float
    largest: float

    @property
    def text(self) -> str:
        """`fractional`, `all x100` or `whole`."""
        if self.fractional:
            return "fractional"
        return "all x100" if self.multiples_of_100 else "whole"


@dataclass(frozen=True, slots=True)
class SymbolReport:
    """The result of one symbol. Times are in seconds from its subscription; bids and asks are best first.

    venues_granted: the market makers or venues that the rows name, the most frequent first, or the venue requested if
    they name none. l2: whether it has depth, None if unknown. codes: TWS's, in the order in which they first came.
    """

    symbol: str
    outcome: Outcome
    reason: str
    con_id: int = 0
    venue_requested: str = ""
    primary_exchange: str = ""
    valid_exchanges: tuple[str, ...] = ()
    venues_granted: tuple[str, ...] = ()
    l2: bool | None = None
    bids: Levels = ()
    asks: Levels = ()
    first_row_secs: float | None = None
    book_secs: float | None = None
    sizes: SizeHints | None = None
    codes: tuple[int, ...] = ()

    @classmethod
    def unresolved(cls, found: Unresolved, codes: tuple[int, ...]) -> SymbolReport:
        """The report of a symbol without a contract or venue."""
        return cls(
            found.symbol,
            Outcome.UNRESOLVED,
            found.reason,
            con_id=found.con_id,
            primary_exchange=found.primary_exchange,
            valid_exchanges=found.valid_exchanges,
            l2=False,
            codes=codes,
        )

    @classmethod
    def venue_only(cls, found: Instrument) -> SymbolReport:
        """The report of a resolved symbol that is not subscribed to, since an ingest runs."""
        return cls(
            found.symbol,
            Outcome.VENUE_ONLY,
            f"has depth on {found.exchange} by the gateway's list; not subscribed, an ingest holds the slots",
            con_id=found.con_id,
            venue_requested=found.exchange,
            primary_exchange=found.primary_exchange,
            valid_exchanges=found.valid_exchanges,
        )

    @property
    def passed(self) -> bool:
        """Whether the symbol has depth, as far as it was checked."""
        return self.outcome in PASSED

    @property
    def verdict(self) -> str:
        """Outcome and reason in one line."""
        if self.outcome is Outcome.PENDING:
            return self.reason
        return f"{_WORDS.get(self.outcome, 'FAIL')}: {self.reason}"

    def closed(self) -> SymbolReport:
        """This report, or an interrupted one if it is pending."""
        if self.outcome is not Outcome.PENDING:
            return self
        return replace(self, outcome=Outcome.INTERRUPTED, reason="interrupted")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        counted = {"passed": self.passed, "bid_rows": len(self.bids), "ask_rows": len(self.asks)}
        return asdict(self) | {"outcome": self.outcome.value} | counted


_WORDS = {Outcome.DEPTH: "ok", Outcome.VENUE_ONLY: "venue ok"}


@dataclass(frozen=True, slots=True)
class IngestSign:
    """Evidence of a running ingest at `seen_ts`: its lease, and heartbeats (symbol -> unix ms of its last row)."""

    heartbeats: dict[str, int]
    seen_ts: int

    @property
    def text(self) -> str:
        """One line for an operator."""
        if not self.heartbeats:
            return "an ingest is running (it holds the lease; no book is live yet)"
        age = max(0, self.seen_ts - max(self.heartbeats.values())) / 1000
        names = sorted(self.heartbeats)
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"an ingest is running (heartbeats of {shown}; the last row {age:.0f} s ago)"


class RedisUse(Enum):
    """How the probe used Redis."""

    OFF = "off"
    RECORDED = "recorded"
    READ_ONLY = "read_only"  # an ingest runs: the venue hashes are its own; hours are published if none holds the lease
    UNAVAILABLE = "unavailable"
    NOT_REACHED = "not_reached"  # the probe ended before there was anything to record


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The result of a probe. Times are unix ms. interrupted_by: the signal that ended it early."""

    started_ts: int
    ended_ts: int
    host: str
    port: int
    client_id: int | None
    symbols: tuple[SymbolReport, ...]
    ingest: IngestSign | None = None
    redis: RedisUse = RedisUse.OFF
    redis_error: str = ""
    notices: tuple[GatewayNotice, ...] = ()
    interrupted_by: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every symbol has depth, as far as it was checked."""
        return self.interrupted_by is None and all(report.passed for report in self.symbols)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "passed": self.passed,
            "started_ts": self.started_ts,
            "ended_ts": self.ended_ts,
            "host": self.host,
            "port": self.port,
            "client_id": self.client_id,
            "ingest_running": self.ingest is not None,
            "ingest": self.ingest.text if self.ingest else None,
            "redis": self.redis.value,
            "redis_error": self.redis_error or None,
            "notices": [asdict(notice) for notice in self.notices],
            "interrupted_by": self.interrupted_by,
            "symbols": [report.as_dict() for report in self.symbols],
        }

    def as_markdown(self) -> str:
        """A table with one line a symbol."""
        lines = ["| symbol | venue | L2 | bids / asks | first row | sizes | codes | verdict |", "|" + " --- |" * 8]
        return "\n".join([*lines, *map(_markdown_line, self.symbols)])


def l2_word(l2: bool | None) -> str:
    """`yes`, `no`, or `?` for None."""
    return "?" if l2 is None else "yes" if l2 else "no"


def seconds(value: float | None) -> str:
    """`1.25 s`; `-` for None."""
    return "-" if value is None else f"{value:.2f} s"


def _markdown_line(report: SymbolReport) -> str:
    cells = (
        report.symbol,
        report.venue_requested or "-",
        l2_word(report.l2),
        f"{len(report.bids)} / {len(report.asks)}",
        seconds(report.first_row_secs),
        report.sizes.text if report.sizes else "-",
        ", ".join(map(str, report.codes)) or "-",
        report.verdict,
    )
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
