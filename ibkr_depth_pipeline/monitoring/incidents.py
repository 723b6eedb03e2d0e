"""Episodes of trouble with heartbeats: one alert when one begins, one when it is over. Pure.

Trouble ripens for a while before it counts, and is forgotten once it has been absent for as long: what comes and goes
ripens too. What goes wrong together is one episode: a symbol that joins it within JOIN_MS of its alert is told of by
its check alone, later ones share one further alert. Symbols' trouble that grows into the feed's is alerted once more,
and so is what is left when the feed is well again while some symbols are not. Another cause of the feed's trouble is
told once it has lasted, JOIN_MS after the alert before at the earliest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.monitoring.alert import Alert, Kind
from ibkr_depth_pipeline.monitoring.diagnosis import (
    Cause,
    Look,
    Pressure,
    feed_cause,
    running_since,
    symbol_cause,
    unwell,
)
from ibkr_depth_pipeline.monitoring.wording import recovered, troubled

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
    """What is remembered from look to look.

    `since`: when each that is not well was first seen so. `absent`: which of them look well now, and since when.
    `feed`: the cause of the feed's trouble, since `feed_ts`.
    """

    since: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, int] = field(default_factory=dict)
    feed: Cause | None = None
    feed_ts: int = 0
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
    episode, alerts = _course(scene, before.episode)
    return replace(scene.after, episode=episode), alerts


class _Scene:
    """One look beside what is remembered. `sick` are the feed and the symbols that are not well now."""

    def __init__(self, before: Watch, look: Look, rules: Rules) -> None:
        self.look, self.rules, self.now = look, rules, look.ts
        self.of_feed = feed_cause(look)
        self.sick = _sick(before, look)
        self.after = _after(before, look, self.sick, rules)
        ripe = {name for name in self.sick if self.now - self.after.since[name] >= rules.after_ms}
        self.feed_ripe = FEED in ripe
        starting = self.now < running_since(look) + rules.grace_ms
        flapping = FEED in self.after.absent  # what is stale then may be the feed's doing
        self.ripe = set() if starting or flapping else ripe - {FEED}

    def changed(self, told: Cause) -> bool:
        """Whether the feed's trouble has another cause than was told, and it has lasted."""
        return self.of_feed not in (None, told) and self.now - self.after.feed_ts >= self.rules.after_ms

    @property
    def cause(self) -> Cause:
        return self.of_feed or symbol_cause(self.look, self.after.pressure, len(self.sick), self.now)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self.sick if name != FEED))


def _sick(before: Watch, look: Look) -> list[str]:
    """While Redis can't be asked, the symbols are what they were."""
    cause = feed_cause(look)
    names = [each.symbol for each in unwell(look)]
    if cause is Cause.REDIS:
        names = [name for name in before.since if name != FEED and name not in before.absent]
    return [*([FEED] if cause else []), *names]


def _after(before: Watch, look: Look, sick: Sequence[str], rules: Rules) -> Watch:
    """What to remember, but for the episode."""
    now = look.ts
    away = {name: before.absent.get(name, now) for name in before.since if name not in sick}
    absent = {name: ts for name, ts in away.items() if now - ts < rules.after_ms}
    since = {name: before.since.get(name, now) for name in (*sick, *absent)}
    feed = feed_cause(look) or (before.feed if FEED in absent else None)
    return Watch(
        since=since,
        absent=absent,
        feed=feed,
        feed_ts=before.feed_ts if feed is before.feed else now,
        well_ts=0 if sick else before.well_ts or now,
        pressure=before.pressure.seen(look),
    )


Outcome = tuple[Episode | None, tuple[Alert, ...]]


def _course(scene: _Scene, episode: Episode | None) -> Outcome:
    if episode is None:
        return _beginning(scene)
    if not scene.sick:
        return _ending(scene, episode)
    if not episode.of_feed and scene.feed_ripe:
        return _told_anew(scene, episode, of_feed=True)
    if scene.now - episode.told_ts >= JOIN_MS and _is_news(scene, episode):
        return _told_anew(scene, episode, of_feed=scene.of_feed is not None and episode.of_feed)
    return replace(episode, symbols=tuple(sorted({*episode.symbols, *scene.ripe}))), ()


def _is_news(scene: _Scene, episode: Episode) -> bool:
    if not episode.of_feed:
        return bool(scene.ripe - set(episode.symbols))
    return scene.changed(episode.cause) or (scene.of_feed is None and bool(scene.ripe))


def _beginning(scene: _Scene) -> Outcome:
    if not scene.feed_ripe and not scene.ripe:
        return None, ()
    since = min(scene.after.since[name] for name in scene.sick)
    fresh = Episode(since, scene.now, scene.feed_ripe, scene.cause, ())
    return _told_anew(scene, fresh, of_feed=scene.feed_ripe)


def _told_anew(scene: _Scene, episode: Episode, *, of_feed: bool) -> Outcome:
    symbols = tuple(sorted({*episode.symbols, *scene.symbols}))
    current = Episode(episode.since_ts, scene.now, of_feed, scene.cause, symbols)
    title, text = troubled(scene.rules.gateway, scene.look, scene.cause, scene.symbols, episode.since_ts)
    return current, (Alert(scene.now, Kind.TROUBLE, scene.cause.name.lower(), title, text),)


def _ending(scene: _Scene, episode: Episode) -> Outcome:
    if scene.now - scene.after.well_ts < scene.rules.after_ms:
        return episode, ()
    title, text = recovered(scene.rules.gateway, episode.cause, episode.symbols, scene.after.well_ts - episode.since_ts)
    return None, (Alert(scene.now, Kind.RECOVERY, episode.cause.name.lower(), title, text),)
