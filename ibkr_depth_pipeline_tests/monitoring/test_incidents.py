"""Incidents of stale heartbeats: what is alerted, once, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ibkr_depth_pipeline.monitoring.diagnosis import Cause, Reading
from ibkr_depth_pipeline.monitoring.incidents import (
    JOIN_MS,
    IncidentRules,
    IncidentState,
    track_incidents,
)
from ibkr_depth_pipeline.monitoring.state import HeartbeatState, dump_state, load_state
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline_tests.monitoring.health_reports import MINUTE, OPEN, SECOND, SYMBOLS, reading, unreachable

RULES = IncidentRules("default", 30 * SECOND, 2 * MINUTE)
T = 10 * MINUTE
"""Well after the open and its grace."""


@dataclass
class Sensor:
    """Readings, one after another, and all alerts that they raised."""

    state: IncidentState = field(default_factory=IncidentState)
    alerts: list[Alert] = field(default_factory=list)

    def read(self, *readings: Reading) -> list[Alert]:
        """The alerts of these readings. The state goes through the cursor each time."""
        fresh: list[Alert] = []
        for each in readings:
            after, alerts = track_incidents(self.state, each, OPEN, RULES)
            self.state = load_state(HeartbeatState, dump_state(HeartbeatState(after))).incidents
            fresh += alerts
        self.alerts += fresh
        return fresh


@pytest.fixture
def sensor() -> Sensor:
    return Sensor()


def causes(alerts: list[Alert]) -> list[tuple[AlertKind, str]]:
    return [(alert.kind, alert.cause) for alert in alerts]


FEED_TROUBLES = {
    "redis": unreachable,
    "no_ingest": lambda at: reading(at, *SYMBOLS, running=False),
    "gateway": lambda at: reading(at, *SYMBOLS, connected=False),
    "sizes": lambda at: reading(at, size_changes="A: sizes are in lots, they were in shares"),
    "market_data": lambda at: reading(at, *SYMBOLS, suspended=True),
}


@pytest.mark.parametrize("cause", FEED_TROUBLES)
def test_trouble_of_the_feed_is_one_alert_and_its_end_another(sensor: Sensor, cause: str) -> None:
    trouble = FEED_TROUBLES[cause]
    sensor.read(reading(T), *(trouble(T + step * 15 * SECOND) for step in range(1, 60)))
    sensor.read(*(reading(T + 16 * MINUTE + step * 15 * SECOND) for step in range(20)))
    assert causes(sensor.alerts) == [(AlertKind.TROUBLE, cause), (AlertKind.RECOVERY, cause)]


def test_alert_names_symbol_duration_last_row_and_likely_cause(sensor: Sensor) -> None:
    (alert,) = sensor.read(reading(T, "C"), reading(T + 40 * SECOND, "C"))
    assert alert.title == "IBKR depth default: C stale (this symbol only)"
    assert "Likely cause: this symbol only." in alert.text
    assert "For 40 s, since 2023-11-14" in alert.text
    assert "Last row: C at 2023-11-14" in alert.text
    assert "1 min 30 s ago" in alert.text


def test_unreachable_redis_is_distinguished_from_an_expired_heartbeat(sensor: Sensor) -> None:
    (alert,) = sensor.read(unreachable(T), unreachable(T + 30 * SECOND))
    assert "Redis unreachable" in alert.title
    assert "not known while Redis can't be asked" in alert.text


def test_many_symbols_at_once_are_one_alert(sensor: Sensor) -> None:
    alerts = sensor.read(reading(T, *SYMBOLS), reading(T + 30 * SECOND, *SYMBOLS), reading(T + 45 * SECOND, *SYMBOLS))
    assert causes(alerts) == [(AlertKind.TROUBLE, "symbols")]
    assert ", ".join(SYMBOLS) in alerts[0].text


def test_later_symbols_join_the_incident_without_an_alert_and_end_with_it(sensor: Sensor) -> None:
    stale = [reading(T + step * 15 * SECOND, *SYMBOLS[: 1 + step // 2]) for step in range(20)]
    sensor.read(*stale)
    sensor.read(*(reading(T + 6 * MINUTE + step * 15 * SECOND) for step in range(10)))
    assert [kind for kind, _ in causes(sensor.alerts)] == [AlertKind.TROUBLE, AlertKind.RECOVERY]
    assert f"Concerned: {', '.join(SYMBOLS[:9])}" in sensor.alerts[1].text


def test_symbol_that_joins_long_after_is_alerted(sensor: Sensor) -> None:
    first = [reading(T + step * 15 * SECOND, "A") for step in range(30)]
    second = [reading(T + JOIN_MS + 3 * MINUTE + step * 15 * SECOND, "A", "B") for step in range(30)]
    assert len(sensor.read(*first)) == 1
    assert [alert.title for alert in sensor.read(*second)] == ["IBKR depth default: A, B stale (these symbols only)"]


def test_feed_failure_within_a_symbols_incident_is_alerted_at_once(sensor: Sensor) -> None:
    sensor.read(reading(T, "A"), reading(T + 30 * SECOND, "A"))
    later = [reading(T + (60 + 15 * step) * SECOND, "A", connected=False) for step in range(9)]
    assert causes(sensor.read(*later)) == [(AlertKind.TROUBLE, "gateway")]


def test_symbols_still_stale_after_the_feed_is_back_are_alerted_after_the_join_time(sensor: Sensor) -> None:
    sensor.read(reading(T, *SYMBOLS, connected=False), reading(T + 30 * SECOND, *SYMBOLS, connected=False))
    left = [reading(T + MINUTE + step * 15 * SECOND, "K") for step in range(30)]
    assert [alert.title for alert in sensor.read(*left)] == ["IBKR depth default: K stale (this symbol only)"]


def test_short_trouble_is_not_alerted(sensor: Sensor) -> None:
    assert not sensor.read(reading(T, "A", connected=False), reading(T + 15 * SECOND), reading(T + 40 * SECOND, "B"))


def test_flapping_symbol_is_one_incident(sensor: Sensor) -> None:
    sensor.read(reading(T, "A"), reading(T + 30 * SECOND, "A"))
    flapping = [reading(T + (45 + step * 15) * SECOND, *(["A"] if step % 2 else [])) for step in range(40)]
    assert not sensor.read(*flapping)


def test_feed_that_works_at_every_third_reading_is_one_incident(sensor: Sensor) -> None:
    sensor.read(*(reading(T + step * 15 * SECOND, connected=step % 3 == 2) for step in range(60)))
    assert causes(sensor.alerts) == [(AlertKind.TROUBLE, "gateway")]


def test_trouble_is_forgotten_after_it_was_absent_as_long_as_it_must_last(sensor: Sensor) -> None:
    assert not sensor.read(*(reading(T + step * 15 * SECOND, connected=step % 4 != 0) for step in range(40)))


def test_stale_symbols_of_a_flapping_feed_are_not_alerted(sensor: Sensor) -> None:
    sensor.read(*(reading(T + step * 15 * SECOND, "A", connected=step % 3 == 2) for step in range(60)))
    assert causes(sensor.alerts) == [(AlertKind.TROUBLE, "gateway")]


def test_new_cause_of_the_feeds_trouble_is_alerted_after_it_has_lasted(sensor: Sensor) -> None:
    troubles = [lambda at: reading(at, connected=False), lambda at: reading(at, running=False), unreachable]
    sensor.read(*(troubles[step // 30](T + step * 15 * SECOND) for step in range(90)))
    assert causes(sensor.alerts) == [(AlertKind.TROUBLE, cause) for cause in ("gateway", "no_ingest", "redis")]


def test_alternating_causes_are_alerted_within_a_limit(sensor: Sensor) -> None:
    by_look = [reading(T + step * 15 * SECOND, connected=False, running=step % 2 == 0) for step in range(60)]
    assert len(sensor.read(*by_look)) == 1
    later = T + 15 * MINUTE
    by_minute = [reading(later + step * 15 * SECOND, connected=False, running=step // 4 % 2 == 0) for step in range(80)]
    assert 1 < len(sensor.read(*by_minute)) <= 4


def test_grace_after_open_and_start_lets_a_rotation_come_round(sensor: Sensor) -> None:
    assert not sensor.read(*(reading(step * 15 * SECOND, *SYMBOLS) for step in range(8)))
    restarted = [reading(T + s * 15 * SECOND, *SYMBOLS, started=OPEN + T) for s in range(8)]
    assert not Sensor().read(*restarted)


def test_run_that_ended_by_itself_has_the_grace_to_be_followed_by_another(sensor: Sensor) -> None:
    away = [reading(T + step * 15 * SECOND, *SYMBOLS, running=False, ended=True) for step in range(1, 20)]
    assert not sensor.read(reading(T), *away[:8], reading(T + 2 * MINUTE + 10 * SECOND, started=OPEN + T + 2 * MINUTE))
    assert not Sensor().read(*away[:8])
    assert causes(Sensor().read(*away)) == [(AlertKind.TROUBLE, "no_ingest")]


def test_state_outside_sessions_is_empty_and_nothing_is_alerted() -> None:
    before, _ = track_incidents(IncidentState(), reading(T, "A"), OPEN, RULES)
    after, alerts = track_incidents(before, unreachable(T + MINUTE), None, RULES)
    assert (after, alerts) == (IncidentState(), ())


def test_recent_309s_are_the_likely_cause(sensor: Sensor) -> None:
    sensor.read(reading(T), reading(T + 15 * SECOND, "A", refused_309=2))
    (alert,) = sensor.read(reading(T + 60 * SECOND, "A", refused_309=2))
    assert alert.cause == Cause.PRESSURE.name.lower()
    assert "309 pressure" in alert.title


def test_symbol_without_depth_is_no_trouble(sensor: Sensor) -> None:
    assert not sensor.read(*(reading(T + step * 15 * SECOND, unsupported=("A",)) for step in range(10)))


def test_state_of_another_version_is_read_as_empty() -> None:
    assert load_state(HeartbeatState, '{"incidents": 7}') == load_state(HeartbeatState, None) == HeartbeatState()
