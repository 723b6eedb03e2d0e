"""Incidents of stale heartbeats: an alert when one begins, another when it is over. Pure.

Trouble must last before it counts, and is forgotten once it has been absent for as long, so that flapping counts too.
Troubles at the same time are one incident: a symbol that joins within JOIN_MS of the alert is reported by its check
alone, later ones share one further alert. Symbols' trouble that grows into the feed's is alerted once more, and so are
the symbols that stay stale after the feed has recovered. A new cause of the feed's trouble is alerted after it has
lasted, at the earliest JOIN_MS after the previous alert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.formatting import duration, utc
from ibkr_depth_pipeline.monitoring.diagnosis import (
    FEED,
    Cause,
    Reading,
    RefusalHistory,
    Unreachable,
    feed_cause,
    feed_problem,
    has_ended,
    running_since,
    symbol_cause,
    unhealthy_symbols,
)
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind

JOIN_MS = 300_000
_MOST_NAMES = 12


@dataclass(frozen=True, slots=True)
class IncidentRules:
    """`gateway` names the recording; trouble must last after_ms; grace_ms follow the open, a start, and a run's end."""

    gateway: str
    after_ms: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident that was alerted and is not over. `alerted_ts`: its newest alert; `symbols`: all that took part."""

    since_ts: int
    alerted_ts: int
    of_feed: bool
    cause: Cause
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IncidentState:
    """What is remembered between readings. Times are unix ms.

    `since`: when each unhealthy symbol (or FEED) was first seen so. `absent`: which of them look healthy now, and since
    when. `feed`: the cause of the feed's trouble, since `feed_ts`. `healthy_ts`: since when nothing is unhealthy.
    """

    since: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, int] = field(default_factory=dict)
    feed: Cause | None = None
    feed_ts: int = 0
    healthy_ts: int = 0
    incident: Incident | None = None
    refusals: RefusalHistory = field(default_factory=RefusalHistory)


def track_incidents(
    before: IncidentState, reading: Reading, session_open: int | None, rules: IncidentRules
) -> tuple[IncidentState, tuple[Alert, ...]]:
    """The state and the alerts after this reading. Readings come in the order of their time.

    session_open is unix ms; outside sessions (None) nothing is alerted or remembered.
    """
    if session_open is None:
        return IncidentState(), ()
    if reading.ts < session_open + rules.grace_ms:
        return replace(before, refusals=before.refusals.updated(reading)), ()
    assessment = _Assessment(before, reading, rules)
    incident, alerts = _step(assessment, before.incident)
    return replace(assessment.after, incident=incident), alerts


class _Assessment:
    """A reading beside what is remembered. `unhealthy`: names, FEED included; `confirmed`: symbols that lasted."""

    def __init__(self, before: IncidentState, reading: Reading, rules: IncidentRules) -> None:
        self.reading, self.rules, self.now = reading, rules, reading.ts
        self.feed_cause = feed_cause(reading)
        self.unhealthy = _unhealthy(before, reading)
        self.after = _without_incident(before, reading, self.unhealthy, rules)
        lasted = {name for name in self.unhealthy if self.now - self.after.since[name] >= rules.after_ms}
        handing_over = self._is_handing_over()
        self.feed_confirmed = FEED in lasted and not handing_over
        starting = self.now < running_since(reading) + rules.grace_ms
        flapping = FEED in self.after.absent  # the feed may be why symbols are stale
        self.confirmed = set() if starting or flapping or handing_over else lasted - {FEED}

    def _is_handing_over(self) -> bool:
        """Whether the newest run ended by itself, as a restart makes it, and the next has time left to start."""
        ended = self.feed_cause is Cause.NO_INGEST and has_ended(self.reading)
        return ended and self.now - self.after.since[FEED] < self.rules.grace_ms

    def has_new_cause(self, alerted: Cause) -> bool:
        """Whether the feed's trouble has another cause than was alerted, and that one has lasted."""
        lasted = self.now - self.after.feed_ts >= self.rules.after_ms
        return self.feed_cause not in (None, alerted) and lasted

    @property
    def cause(self) -> Cause:
        return self.feed_cause or symbol_cause(self.reading, self.after.refusals, len(self.unhealthy), self.now)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self.unhealthy if name != FEED))


def _unhealthy(before: IncidentState, reading: Reading) -> list[str]:
    """FEED and symbols. While Redis is unreachable, the symbols are those of the reading before."""
    cause = feed_cause(reading)
    names = [each.symbol for each in unhealthy_symbols(reading)]
    if cause is Cause.REDIS:
        names = [name for name in before.since if name != FEED and name not in before.absent]
    return [*([FEED] if cause else []), *names]


def _without_incident(
    before: IncidentState, reading: Reading, unhealthy: Sequence[str], rules: IncidentRules
) -> IncidentState:
    now = reading.ts
    gone = {name: before.absent.get(name, now) for name in before.since if name not in unhealthy}
    absent = {name: ts for name, ts in gone.items() if now - ts < rules.after_ms}
    since = {name: before.since.get(name, now) for name in (*unhealthy, *absent)}
    feed = feed_cause(reading) or (before.feed if FEED in absent else None)
    return IncidentState(
        since=since,
        absent=absent,
        feed=feed,
        feed_ts=before.feed_ts if feed is before.feed else now,
        healthy_ts=0 if unhealthy else before.healthy_ts or now,
        refusals=before.refusals.updated(reading),
    )


_Step = tuple[Incident | None, tuple[Alert, ...]]


def _step(assessment: _Assessment, incident: Incident | None) -> _Step:
    if incident is None:
        return _begin(assessment)
    if not assessment.unhealthy:
        return _end(assessment, incident)
    if not incident.of_feed and assessment.feed_confirmed:
        return _alerted_again(assessment, incident, of_feed=True)
    if assessment.now - incident.alerted_ts >= JOIN_MS and _has_changed(assessment, incident):
        of_feed = assessment.feed_cause is not None and incident.of_feed
        return _alerted_again(assessment, incident, of_feed=of_feed)
    return replace(incident, symbols=tuple(sorted({*incident.symbols, *assessment.confirmed}))), ()


def _has_changed(assessment: _Assessment, incident: Incident) -> bool:
    if not incident.of_feed:
        return bool(assessment.confirmed - set(incident.symbols))
    return assessment.has_new_cause(incident.cause) or (assessment.feed_cause is None and bool(assessment.confirmed))


def _begin(assessment: _Assessment) -> _Step:
    if not assessment.feed_confirmed and not assessment.confirmed:
        return None, ()
    since = min(assessment.after.since[name] for name in assessment.unhealthy)
    incident = Incident(since, assessment.now, assessment.feed_confirmed, assessment.cause, ())
    return _alerted_again(assessment, incident, of_feed=assessment.feed_confirmed)


def _alerted_again(assessment: _Assessment, incident: Incident, *, of_feed: bool) -> _Step:
    now, cause = assessment.now, assessment.cause
    symbols = tuple(sorted({*incident.symbols, *assessment.symbols}))
    current = Incident(incident.since_ts, now, of_feed, cause, symbols)
    what = "feed" if cause.concerns_feed else _names(assessment.symbols)
    title = f"IBKR depth {assessment.rules.gateway}: {what} stale ({cause.value})"
    text = _trouble_text(assessment.reading, cause, assessment.symbols, incident.since_ts)
    return current, (Alert(now, AlertKind.TROUBLE, cause.name.lower(), title, text),)


def _end(assessment: _Assessment, incident: Incident) -> _Step:
    healthy_ts = assessment.after.healthy_ts
    if assessment.now - healthy_ts < assessment.rules.after_ms:
        return incident, ()
    text = f"All is fresh again after {duration(healthy_ts - incident.since_ts)}. It was: {incident.cause.value}."
    if incident.symbols:
        text += f"\nConcerned: {_names(incident.symbols)}."
    title = f"IBKR depth {assessment.rules.gateway}: recovered"
    return None, (Alert(assessment.now, AlertKind.RECOVERY, incident.cause.name.lower(), title, text),)


# ---- texts


def _trouble_text(reading: Reading, cause: Cause, symbols: Sequence[str], since_ts: int) -> str:
    lasted = reading.ts - since_ts
    since = f"For {duration(lasted)}, since {utc(since_ts)}." if lasted >= 1000 else f"Since {utc(since_ts)}."
    lines = [f"Likely cause: {cause.value}.", since]
    if problem := feed_problem(reading):
        lines.append(f"{problem[:1].upper()}{problem[1:]}.")
    lines.append(f"Not fresh: {_names(symbols)}." if symbols else "No symbol's heartbeat has expired yet.")
    lines.append(_line_troubles(reading, symbols))
    lines.append(_last_row(reading, symbols))
    return "\n".join(line for line in lines if line)


def _line_troubles(reading: Reading, symbols: Sequence[str]) -> str:
    """What is wrong with single lines, as far as the ingest knows."""
    unhealthy = unhealthy_symbols(reading)
    troubles = [f"{each.symbol}: {each.trouble}" for each in unhealthy if each.trouble and each.symbol in symbols]
    return f"{'; '.join(troubles[:_MOST_NAMES])}." if troubles else ""


def _last_row(reading: Reading, symbols: Sequence[str]) -> str:
    if isinstance(reading, Unreachable):
        return "Last row: not known while Redis can't be asked."
    stale = {each.symbol: each.last_row_ts for each in unhealthy_symbols(reading) if each.symbol in symbols}
    rows = stale or {each.symbol: each.last_row_ts for each in reading.symbols}
    symbol, newest = max(rows.items(), key=lambda row: row[1], default=("", 0))
    if not newest:
        return "Last row: none was ever recorded."
    return f"Last row: {symbol} at {utc(newest)}, {duration(reading.ts - newest)} ago."


def _names(symbols: Sequence[str]) -> str:
    shown = ", ".join(symbols[:_MOST_NAMES])
    rest = len(symbols) - _MOST_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown
