"""Carries out what the pipeline wants done (effects.py): one deed per type of effect."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.ingest import effects as do
from ibkr_depth_pipeline.ingest.counted_lines import RateLimitedLog
from ibkr_depth_pipeline.ingest.tasks import RunTasks
from ibkr_depth_pipeline.sink.writer import RedisWriter


class EffectExecutor:
    """Each is done at once; what has to wait for an answer goes on as one of `tasks`.

    rows is how many rows a side are asked for; recheck(symbol) looks for its venue anew; reconnect(why) gives the
    connection up, and may have more effects carried out before it returns.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        writer: RedisWriter,
        lines: RateLimitedLog,
        tasks: RunTasks,
        *,
        rows: int,
        recheck: Callable[[str], Coroutine[Any, Any, None]],
        reconnect: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._writer = writer
        self._lines = lines
        self._tasks = tasks
        self._rows = rows
        self._recheck = recheck
        self._reconnect = reconnect

    def carry_out(self, effects: Iterable[do.Effect]) -> None:
        """Do them, in this order."""
        for effect in effects:
            _DEEDS[type(effect)](self, effect)

    # ---- at the gateway

    def _subscribe(self, effect: do.Subscribe) -> None:
        fields = {
            "symbol": effect.instrument.symbol,
            "request_id": effect.request,
            "exchange": effect.instrument.exchange,
            "rows": self._rows,
        }
        self._lines.say(do.LogLine("info", "subscribed", fields))
        self._try_sending(lambda: self._gateway.subscribe(effect.request, effect.instrument, self._rows))

    def _cancel(self, effect: do.Cancel) -> None:
        fields = {"symbol": effect.symbol, "request_id": effect.request}
        self._lines.say(do.LogLine("info", "unsubscribed", fields))
        self._try_sending(lambda: self._gateway.cancel(effect.request))

    def _try_sending(self, send: Callable[[], None]) -> None:
        try:
            send()
        except (GatewayError, ConnectionError) as error:  # the loss itself is on its way as an event
            self._lines.say(do.LogLine("warning", "send_failed", {"error": str(error)}))

    def _look_again(self, effect: do.Recheck) -> None:
        self._tasks.start(self._recheck(effect.symbol))

    def _give_connection_up(self, effect: do.Reconnect) -> None:
        self._reconnect(effect.why)

    # ---- in Redis

    def _record_refusal(self, effect: do.RecordRefusal) -> None:
        self._writer.record_venue(effect.instrument, _now_ms(), effect.reason)

    def _record_venue(self, effect: do.RecordVenue) -> None:
        self._writer.record_venue(effect.instrument, _now_ms(), refused_venues=effect.refused_venues)

    def _set_heartbeat_ttl(self, effect: do.SetHeartbeatTtl) -> None:
        self._writer.heartbeat_ttl = effect.secs
        self._writer.own_heartbeat_ttls = effect.own
        if effect.last_rows:
            self._tasks.start(self._writer.extend_heartbeats(dict(effect.last_rows), _now_ms()))

    # ---- in the log

    def _say(self, effect: do.LogLine) -> None:
        self._lines.say(effect)

    def _report(self, effect: do.ReportPersisted) -> None:
        self._lines.stored(effect.symbols)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_DEEDS: dict[type, Callable[[EffectExecutor, Any], None]] = {
    do.Subscribe: EffectExecutor._subscribe,
    do.Cancel: EffectExecutor._cancel,
    do.Recheck: EffectExecutor._look_again,
    do.Reconnect: EffectExecutor._give_connection_up,
    do.RecordRefusal: EffectExecutor._record_refusal,
    do.RecordVenue: EffectExecutor._record_venue,
    do.SetHeartbeatTtl: EffectExecutor._set_heartbeat_ttl,
    do.LogLine: EffectExecutor._say,
    do.ReportPersisted: EffectExecutor._report,
}
