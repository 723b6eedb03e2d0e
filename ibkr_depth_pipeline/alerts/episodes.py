"""Episodes of trouble with heartbeats: one alert when one begins, one when it is over. Pure.

Trouble ripens for a while before it counts. What goes wrong together is one episode: a symbol that joins it within
JOIN_MS of its alert is told of by its check alone, later ones share one further alert. Symbols' trouble that grows into
the feed's is alerted once more, and so is what is left when the feed is well again while some symbols are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.alerts.alert import Alert, Kind
from ibkr_depth_pipeline.alerts.causes import (
    Cause,
    Look,
    Pressure,
    feed_cause,
    running_since,
    symbol_cause,
    unwell,
)
from ibkr_depth_pipeline.alerts.wording import recovered, troubled

JOIN_MS = 300_000
FEED = ""
"""The feed's place among the symbols in `since`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`gateway` names the recording; trouble must last after_ms; grace_ms follow the open, and a start."""

    gateway: str
    after_ms: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Episode:
    """Alerted and not over. `told_ts` is when the newest alert of it was raised, `symbols` all that took part."""

    since_ts: int
    told_ts: int
    of_feed: bool
    cause: Cause
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered from look to look. `since`: when each that is not well now was first seen so."""

    since: Mapping[str, int] = field(default_factory=dict)
    well_ts: int = 0
    episode: Episode | None = None
    pressure: Pressure = field(default_factory=Pressure)


def watch(before: Watch, look: Look, session_open: int | None, rules: Rules) -> tuple[Watch, tuple[Alert, ...]]:
    """What to remember and what to tell after this look. `session_open` is unix ms, None outside sessions: silence.

    The looks come in the order of their time.
    """
    now = look.ts
    if session_open is None or now < session_open + rules.grace_ms:
        return (Watch(), ()) if session_open is None else (replace(before, pressure=before.pressure.seen(look)), ())
    scene = _Scene(before, look, rules)
    remembered = replace(before, since=scene.since, well_ts=scene.well_ts, pressure=scene.pressure)
    episode, alerts = _course(scene, before.episode)
    return replace(remembered, episode=episode), alerts


class _Scene:
    """One look beside what is remembered."""

    def __init__(self, before: Watch, look: Look, rules: Rules) -> None:
        self.look, self.rules, self.now = look, rules, look.ts
        self.pressure = before.pressure.seen(look)
        self.of_feed = feed_cause(look)
        known = before.since
        names = [each.symbol for each in unwell(look)]
        if self.of_feed is Cause.REDIS:
            names = [name for name in known if name != FEED]
        sick = [*([FEED] if self.of_feed else []), *names]
        self.since = {name: known.get(name, self.now) for name in sick}
        self.well_ts = 0 if self.since else before.well_ts or self.now
        starting = self.now < running_since(look) + rules.grace_ms
        ripe = {name for name, ts in self.since.items() if self.now - ts >= rules.after_ms}
        self.feed_ripe = FEED in ripe
        self.ripe = set() if starting else ripe - {FEED}
        self.starting = starting

    @property
    def cause(self) -> Cause:
        return self.of_feed or symbol_cause(self.pressure, len(self.since), self.now)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self.since if name != FEED))


Outcome = tuple[Episode | None, tuple[Alert, ...]]


def _course(scene: _Scene, episode: Episode | None) -> Outcome:
    if episode is None:
        return _beginning(scene)
    if not scene.since:
        return _ending(scene, episode)
    if not episode.of_feed and scene.feed_ripe:
        return _told_anew(scene, episode, of_feed=True)
    if episode.of_feed and not scene.of_feed and scene.ripe and scene.now - episode.told_ts >= JOIN_MS:
        return _told_anew(scene, episode, of_feed=False)
    joined = scene.ripe - set(episode.symbols)
    if joined and not episode.of_feed and scene.now - episode.told_ts >= JOIN_MS:
        return _told_anew(scene, episode, of_feed=False)
    return replace(episode, symbols=tuple(sorted({*episode.symbols, *scene.ripe}))), ()


def _beginning(scene: _Scene) -> Outcome:
    if not scene.feed_ripe and not scene.ripe:
        return None, ()
    since = min(scene.since.values())
    fresh = Episode(since, scene.now, scene.feed_ripe, scene.cause, ())
    return _told_anew(scene, fresh, of_feed=scene.feed_ripe)


def _told_anew(scene: _Scene, episode: Episode, *, of_feed: bool) -> Outcome:
    symbols = tuple(sorted({*episode.symbols, *scene.symbols}))
    current = Episode(episode.since_ts, scene.now, of_feed, scene.cause, symbols)
    title, text = troubled(scene.rules.gateway, scene.look, scene.cause, scene.symbols, episode.since_ts)
    return current, (Alert(scene.now, Kind.TROUBLE, scene.cause.name.lower(), title, text),)


def _ending(scene: _Scene, episode: Episode) -> Outcome:
    if scene.now - scene.well_ts < scene.rules.after_ms:
        return episode, ()
    title, text = recovered(scene.rules.gateway, episode.cause, episode.symbols, scene.well_ts - episode.since_ts)
    return None, (Alert(scene.now, Kind.RECOVERY, episode.cause.name.lower(), title, text),)
