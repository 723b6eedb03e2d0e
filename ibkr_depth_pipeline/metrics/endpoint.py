"""The endpoint that Prometheus scrapes: `http://IBKR_METRICS_HOST:IBKR_METRICS_PORT/metrics`, off by default.

It answers from a thread of its own with the newest figures that it was told, which are frozen; so a scrape never waits
for the recording nor holds it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.metrics.samples import Family, families
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.settings import Settings

PREFIX = "ibkr_depth"


class MetricsEndpoint:
    """Serves what it is told on host and port; port 0 serves nothing. `gateway_name` is IBKR_GATEWAY_NAME."""

    def __init__(self, host: str, port: int, gateway_name: str) -> None:
        self._host = host
        self._port = port
        self._gateway_name = gateway_name
        self._figures: FeedFigures | None = None
        self._server: Any = None
        self._thread: Any = None

    @classmethod
    def of_settings(cls, settings: Settings) -> MetricsEndpoint:
        """The endpoint that the settings ask for. Raises ConfigurationError where its library is not installed."""
        port = settings.ibkr_metrics_port
        if port and importlib.util.find_spec("prometheus_client") is None:
            hint = f"IBKR_METRICS_PORT={port} needs prometheus-client: pip install 'ibkr_depth_pipeline[metrics]'"
            raise ConfigurationError("settings", [hint])
        return cls(settings.ibkr_metrics_host, port, settings.ibkr_gateway_name)

    def open(self) -> None:
        """Begin to serve. A port that can't be had is logged and costs nothing else: recording comes first."""
        if not self._port or self._server is not None:
            return
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        registry.register(self.collector())
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.GCCollector(registry=registry)
        where = {"host": self._host, "port": self._port}
        try:
            self._server, self._thread = prometheus_client.start_http_server(self._port, self._host, registry)
        except OSError as error:
            get_log().error("metrics_not_served", error=str(error), **where)
        else:
            get_log().info("metrics_served", **where)

    def tell(self, figures: FeedFigures) -> None:
        """Serve these from now on."""
        self._figures = figures

    async def aclose(self) -> None:
        """Stop serving; the port is free afterwards. Repeatable."""
        if self._server is not None:
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def collector(self) -> Any:
        """What prometheus-client asks at each scrape."""
        return _Collector(self)

    def families(self) -> Iterable[Family]:
        """What is served now: nothing before the first figures."""
        return () if self._figures is None else families(self._figures, self._gateway_name)


class _Collector:
    def __init__(self, endpoint: MetricsEndpoint) -> None:
        self._endpoint = endpoint

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family in self._endpoint.families():
            make: Any = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(f"{PREFIX}_{family.name}", family.text, labels=family.labels)
            for labels, value in family.samples:
                metric.add_metric(labels, value)
            yield metric
