"""The Prometheus endpoint: names and units, what a scrape gets, that it is off by default and never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import urllib.request

import pytest

from ibkr_depth_pipeline.box.embedded_redis import free_port, port_is_free
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.metrics.samples import PREFIX, families
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.sink.backlog import WriterFigures
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of
from ibkr_depth_pipeline_tests.metrics.sample_figures import FIGURES


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECS) as answer:
        return str(answer.read().decode())


async def scraped(port: int) -> str:
    return await asyncio.to_thread(scrape, port)


def test_metric_names_follow_prometheus_conventions_and_units_are_seconds_and_bytes() -> None:
    served = {family.name.removeprefix(PREFIX): family for family in families(FIGURES, "default")}
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in served)
    assert not any(name.endswith(("_total", "_ms", "_ts")) for name in served)
    assert all(family.documentation for family in served.values())

    def samples(name: str) -> list[tuple[dict[str, str], float]]:
        return [(sample.labels, sample.value) for sample in served[name].samples]

    assert samples("redis_lag_seconds") == [({"percentile": "50"}, 0.004), ({"percentile": "99"}, 0.025)]
    assert samples("last_row_timestamp_seconds") == [({"symbol": "SPY"}, 1_700_000_001.5)]
    assert samples("rows_dropped") == [({"symbol": "SPY", "reason": "past_end"}, 2)]
    assert samples("gateway_clock_offset_seconds") == []


def test_latency_is_a_histogram_whose_buckets_are_cumulative_and_add_up_over_ingests() -> None:
    writer = WriterFigures()
    for secs in (0.0, 0.0001, 0.00011, 0.003, 9.9, 10.0, 11.0):
        writer.note_lag(secs)
    latency = {each.name: each for each in families(FIGURES, "default", writer.latency())}[
        f"{PREFIX}redis_latency_seconds"
    ]
    assert latency.type == "histogram"
    values = {(each.name.rpartition("_")[2], each.labels.get("le", "")): each.value for each in latency.samples}
    bounds = [each.labels["le"] for each in latency.samples if "le" in each.labels]
    assert [bounds[0], *bounds[-2:]] == ["0.0001", "10.0", "+Inf"]
    assert [float(each) for each in bounds] == sorted(map(float, bounds))
    wanted = {"0.0001": 2, "0.00025": 3, "0.0025": 3, "0.005": 4, "5.0": 4, "10.0": 6, "+Inf": 7}
    assert {bound: values["bucket", bound] for bound in wanted} == wanted
    assert values["count", ""] == 7
    assert values["sum", ""] == pytest.approx(30.90321)


async def test_scrape_gets_the_figures_published_last() -> None:
    port = free_port()
    endpoint = MetricsEndpoint("127.0.0.1", port, "default")
    endpoint.open()
    try:
        assert "ibkr_depth_rows_total{" not in await scraped(port)
        endpoint.publish(FIGURES)
        text = await scraped(port)
        assert 'ibkr_depth_rows_total{symbol="SPY"} 70.0' in text
        assert 'ibkr_depth_snapshots_total{symbol="BRK B"} 0.0' in text
        assert 'ibkr_depth_subscribed{symbol="SPY"} 1.0' in text
        assert "ibkr_depth_buffer_bytes 1234.0" in text
        assert 'ibkr_depth_run_info{gateway_name="default",host="host1",run_id="run1"} 1.0' in text
        assert "process_resident_memory_bytes" in text
    finally:
        await endpoint.aclose()
    await endpoint.aclose()
    assert port_is_free(port)


async def test_endpoint_without_a_port_does_not_listen() -> None:
    assert load_settings().ibkr_metrics_port == 0
    endpoint = MetricsEndpoint.of_settings(load_settings())
    endpoint.open()
    endpoint.publish(FIGURES)
    await endpoint.aclose()


def test_endpoint_listens_on_loopback_by_default() -> None:
    assert load_settings().ibkr_metrics_host == "127.0.0.1"


async def test_running_ingest_is_scraped_and_its_port_is_free_afterwards(shared_redis_url: str) -> None:
    port = free_port()
    async with SimulatedGateway() as gateway:
        universe = universe_of("SPY", "QQQ")
        async with recording(gateway, shared_redis_url, universe, ibkr_metrics_port=port) as run:

            async def has_rows() -> object:
                with contextlib.suppress(OSError):  # not up yet
                    return re.search(r'ibkr_depth_rows_total{symbol="QQQ"} [1-9]', await scraped(port))
                return None

            await run.until(has_rows)
            assert "ibkr_depth_gateway_connected 1.0" in await scraped(port)

            async def has_latencies() -> object:
                return re.search(r"ibkr_depth_redis_latency_seconds_count [1-9]", await scraped(port))

            await run.until(has_latencies)
    assert port_is_free(port)


async def test_occupied_port_is_logged_and_the_recording_goes_on(
    shared_redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with SimulatedGateway() as gateway:
            async with recording(gateway, shared_redis_url, universe_of("SPY"), ibkr_metrics_port=port) as run:
                await run.grows("SPY", 10)
    written = capsys.readouterr()
    assert "metrics_not_served" in written.out + written.err


async def test_unfinished_scrape_does_not_delay_the_end_of_the_ingest(shared_redis_url: str) -> None:
    port = free_port()
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), ibkr_metrics_port=port) as run:
            await run.grows("SPY")
            with socket.create_connection(("127.0.0.1", port)) as silent:
                silent.sendall(b"GET /met")
                assert (await run.stop()).drained


def test_start_without_a_metrics_port_does_not_import_prometheus_client() -> None:
    modules = "ibkr_depth_pipeline.cli.ingest_run, ibkr_depth_pipeline.ingest.run"
    program = f"import sys, {modules}; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
