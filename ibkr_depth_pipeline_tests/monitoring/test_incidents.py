"""Episodes of stale heartbeats: what is alerted, once, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ibkr_depth_pipeline.monitoring.alert import Alert, Kind
from ibkr_depth_pipeline.monitoring.diagnosis import Cause, Look
from ibkr_depth_pipeline.monitoring.incidents import JOIN_MS, Rules, Watch, watch
from ibkr_depth_pipeline.monitoring.state import HeartbeatMemory, recall, remember
from ibkr_depth_pipeline_tests.monitoring.health_reports import MINUTE, OPEN, SECOND, SYMBOLS, look, no_redis

RULES = Rules("default", 30 * SECOND, 2 * MINUTE)
T = 10 * MINUTE
"""Well after the open and its grace."""


@dataclass
class Sensor:
    """Looks, one after another, and all that was told."""

    memory: Watch = field(default_factory=Watch)
    told: list[Alert] = field(default_factory=list)

    def sees(self, *looks: Look) -> list[Alert]:
        """The alerts of these looks. What is remembered goes through the cursor each time."""
        fresh: list[Alert] = []
        for each in looks:
            after, alerts = watch(self.memory, each, OPEN, RULES)
            self.memory = recall(HeartbeatMemory, remember(HeartbeatMemory(after))).watch
            fresh += alerts
        self.told += fresh
        return fresh


@pytest.fixture
def sensor() -> Sensor:
    return Sensor()


def causes(alerts: list[Alert]) -> list[tuple[Kind, str]]:
    return [(alert.kind, alert.cause) for alert in alerts]


FEED_TROUBLES = {
    "redis": no_redis,
    "no_ingest": lambda at: look(at, *SYMBOLS, running=False),
    "gateway": lambda at: look(at, *SYMBOLS, connected=False),
    "market_data": lambda at: look(at, *SYMBOLS, suspended=True),
}


@pytest.mark.parametrize("cause", FEED_TROUBLES)
def test_trouble_of_the_feed_is_one_alert_and_its_end_another(sensor: Sensor, cause: str) -> None:
    trouble = FEED_TROUBLES[cause]
    sensor.sees(look(T), *(trouble(T + step * 15 * SECOND) for step in range(1, 60)))
    sensor.sees(*(look(T + 16 * MINUTE + step * 15 * SECOND) for step in range(20)))
    assert causes(sensor.told) == [(Kind.TROUBLE, cause), (Kind.RECOVERY, cause)]


def test_an_alert_tells_what_since_when_the_last_row_and_the_likely_cause(sensor: Sensor) -> None:
    (alert,) = sensor.sees(look(T, "C"), look(T + 40 * SECOND, "C"))
    assert alert.title == "IBKR depth default: C stale (this symbol only)"
    assert "Likely cause: this symbol only." in alert.text
    assert "For 40 s, since 2023-11-14" in alert.text
    assert "Last row: C at 2023-11-14" in alert.text
    assert "1 min 30 s ago" in alert.text


def test_redis_that_cant_be_asked_is_told_from_a_heartbeat_that_is_gone(sensor: Sensor) -> None:
    (alert,) = sensor.sees(no_redis(T), no_redis(T + 30 * SECOND))
    assert "Redis unreachable" in alert.title
    assert "not known while Redis can't be asked" in alert.text


def test_many_symbols_at_once_are_one_alert(sensor: Sensor) -> None:
    alerts = sensor.sees(look(T, *SYMBOLS), look(T + 30 * SECOND, *SYMBOLS), look(T + 45 * SECOND, *SYMBOLS))
    assert causes(alerts) == [(Kind.TROUBLE, "symbols")]
    assert ", ".join(SYMBOLS) in alerts[0].text


def test_symbols_that_follow_join_the_episode_in_silence_and_end_it_together(sensor: Sensor) -> None:
    stale = [look(T + step * 15 * SECOND, *SYMBOLS[: 1 + step // 2]) for step in range(20)]
    sensor.sees(*stale)
    sensor.sees(*(look(T + 6 * MINUTE + step * 15 * SECOND) for step in range(10)))
    assert [kind for kind, _ in causes(sensor.told)] == [Kind.TROUBLE, Kind.RECOVERY]
    assert f"Concerned: {', '.join(SYMBOLS[:9])}" in sensor.told[1].text


def test_a_symbol_that_joins_long_after_is_alerted(sensor: Sensor) -> None:
    first = [look(T + step * 15 * SECOND, "A") for step in range(30)]
    second = [look(T + JOIN_MS + 3 * MINUTE + step * 15 * SECOND, "A", "B") for step in range(30)]
    assert len(sensor.sees(*first)) == 1
    assert [alert.title for alert in sensor.sees(*second)] == ["IBKR depth default: A, B stale (these symbols only)"]


def test_a_feed_that_fails_in_the_midst_of_a_symbols_episode_is_alerted_at_once(sensor: Sensor) -> None:
    sensor.sees(look(T, "A"), look(T + 30 * SECOND, "A"))
    later = [look(T + (60 + 15 * step) * SECOND, "A", connected=False) for step in range(9)]
    assert causes(sensor.sees(*later)) == [(Kind.TROUBLE, "gateway")]


def test_what_is_left_when_the_feed_is_back_is_alerted_once_its_time_is_over(sensor: Sensor) -> None:
    sensor.sees(look(T, *SYMBOLS, connected=False), look(T + 30 * SECOND, *SYMBOLS, connected=False))
    left = [look(T + MINUTE + step * 15 * SECOND, "K") for step in range(30)]
    assert [alert.title for alert in sensor.sees(*left)] == ["IBKR depth default: K stale (this symbol only)"]


def test_trouble_that_is_over_soon_is_not_alerted(sensor: Sensor) -> None:
    assert not sensor.sees(look(T, "A", connected=False), look(T + 15 * SECOND), look(T + 40 * SECOND, "B"))


def test_a_symbol_that_comes_and_goes_is_one_episode(sensor: Sensor) -> None:
    sensor.sees(look(T, "A"), look(T + 30 * SECOND, "A"))
    flapping = [look(T + (45 + step * 15) * SECOND, *(["A"] if step % 2 else [])) for step in range(40)]
    assert not sensor.sees(*flapping)


def test_a_feed_that_shows_itself_at_every_third_look_is_one_episode(sensor: Sensor) -> None:
    sensor.sees(*(look(T + step * 15 * SECOND, connected=step % 3 == 2) for step in range(60)))
    assert causes(sensor.told) == [(Kind.TROUBLE, "gateway")]


def test_trouble_is_forgotten_once_it_has_been_absent_as_long_as_it_must_last(sensor: Sensor) -> None:
    assert not sensor.sees(*(look(T + step * 15 * SECOND, connected=step % 4 != 0) for step in range(40)))


def test_symbols_that_are_stale_in_a_flapping_feed_are_no_news(sensor: Sensor) -> None:
    sensor.sees(*(look(T + step * 15 * SECOND, "A", connected=step % 3 == 2) for step in range(60)))
    assert causes(sensor.told) == [(Kind.TROUBLE, "gateway")]


def test_another_cause_of_the_feeds_trouble_is_told_once_it_has_lasted(sensor: Sensor) -> None:
    troubles = [lambda at: look(at, connected=False), lambda at: look(at, running=False), no_redis]
    sensor.sees(*(troubles[step // 30](T + step * 15 * SECOND) for step in range(90)))
    assert causes(sensor.told) == [(Kind.TROUBLE, cause) for cause in ("gateway", "no_ingest", "redis")]


def test_causes_that_take_turns_are_told_within_a_limit(sensor: Sensor) -> None:
    by_look = [look(T + step * 15 * SECOND, connected=False, running=step % 2 == 0) for step in range(60)]
    assert len(sensor.sees(*by_look)) == 1
    later = T + 15 * MINUTE
    by_minute = [look(later + step * 15 * SECOND, connected=False, running=step // 4 % 2 == 0) for step in range(80)]
    assert 1 < len(sensor.sees(*by_minute)) <= 4


def test_after_the_open_and_after_a_start_a_rotation_has_time_to_come_round(sensor: Sensor) -> None:
    assert not sensor.sees(*(look(step * 15 * SECOND, *SYMBOLS) for step in range(8)))
    restarted = [look(T + s * 15 * SECOND, *SYMBOLS, started=OPEN + T) for s in range(8)]
    assert not Sensor().sees(*restarted)


def test_outside_sessions_there_is_silence_and_nothing_is_remembered() -> None:
    before, _ = watch(Watch(), look(T, "A"), OPEN, RULES)
    after, alerts = watch(before, no_redis(T + MINUTE), None, RULES)
    assert (after, alerts) == (Watch(), ())


def test_refusals_with_309_of_late_are_the_likely_cause(sensor: Sensor) -> None:
    sensor.sees(look(T), look(T + 15 * SECOND, "A", refused_309=2))
    (alert,) = sensor.sees(look(T + 60 * SECOND, "A", refused_309=2))
    assert alert.cause == Cause.PRESSURE.name.lower()
    assert "309 pressure" in alert.title


def test_a_symbol_without_depth_at_the_gateway_is_no_trouble(sensor: Sensor) -> None:
    assert not sensor.sees(*(look(T + step * 15 * SECOND, unsupported=("A",)) for step in range(10)))


def test_a_memory_of_another_version_is_an_empty_one() -> None:
    assert recall(HeartbeatMemory, '{"watch": 7}') == recall(HeartbeatMemory, None) == HeartbeatMemory()
