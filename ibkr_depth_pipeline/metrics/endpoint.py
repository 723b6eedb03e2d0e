"""The endpoint that Prometheus scrapes: `http://IBKR_METRICS_HOST:IBKR_METRICS_PORT/metrics`, off by default.

It answers from a thread of its own with the newest published figures, which are frozen, so that a scrape and the
recording never wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import FeedFigures, LatencyFigures
from ibkr_depth_pipeline.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric


class MetricsEndpoint:
    """Serves the published figures on host and port; port 0 serves nothing. `gateway_name` is IBKR_GATEWAY_NAME.

    prometheus-client is imported when the endpoint opens: it would add 60 ms to every start without one.
    """

    def __init__(self, host: str, port: int, gateway_name: str) -> None:
        self._host = host
        self._port = port
        self._gateway_name = gateway_name
        self._published: tuple[FeedFigures, LatencyFigures] | None = None
        self._serving: tuple[WSGIServer, Thread] | None = None
        self._refused = False

    @classmethod
    def of_settings(cls, settings: Settings) -> MetricsEndpoint:
        """The endpoint that the settings ask for."""
        return cls(settings.ibkr_metrics_host, settings.ibkr_metrics_port, settings.ibkr_gateway_name)

    def open(self) -> None:
        """Start to serve, unless that is done. Call it again if the port can't be bound: that is logged once.

        It changes nothing else: recording comes first, and a standby beside the recorder gets its port only with the
        recording.
        """
        if not self._port or self._serving is not None:
            return
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        registry.register(self)
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.GCCollector(registry=registry)
        address = {"host": self._host, "port": self._port}
        try:
            self._serving = prometheus_client.start_http_server(self._port, self._host, registry)
        except OSError as error:
            if not self._refused:
                get_log().error("metrics_not_served", error=str(error), **address)
            self._refused = True
        else:
            self._refused = False
            get_log().info("metrics_served", **address)

    def publish(self, figures: FeedFigures, latency: LatencyFigures | None = None) -> None:
        """Serve these figures from now on."""
        self._published = figures, latency or LatencyFigures()

    def collect(self) -> Iterator[Metric]:
        """The metrics of the newest figures, none before the first. prometheus-client calls it at each scrape."""
        from ibkr_depth_pipeline.metrics.samples import families

        published = self._published
        if published is not None:
            figures, latency = published
            yield from families(figures, self._gateway_name, latency)

    async def aclose(self) -> None:
        """Stop serving; the port is free afterwards. Repeatable."""
        if self._serving is not None:
            await asyncio.to_thread(self._stop, *self._serving)
            self._serving = None

    @staticmethod
    def _stop(server: WSGIServer, thread: Thread) -> None:
        with contextlib.suppress(OSError):
            server.shutdown()
        server.server_close()
        thread.join()
