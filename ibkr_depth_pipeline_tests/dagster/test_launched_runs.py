"""Runs in workers of their own, launched and terminated over GraphQL as the UI does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.dagster.conftest import FEED, SYMBOLS
from ibkr_depth_pipeline_tests.dagster.deployment import Deployment, deployment

PASSWORD = "correct-horse-battery-staple"
WRONG_PASSWORD = "tr0ub4dor-and-3"


@pytest.fixture(scope="module")
def live_gateway() -> Iterator[GatewayThread]:
    with GatewayThread(GatewayOptions(rows_per_second=100)) as running:
        yield running


@pytest.fixture(scope="module")
def guarded_redis() -> Iterator[EmbeddedRedis]:
    """A server with a user who has a password."""
    user = ["--user", "recorder", "on", f">{PASSWORD}", "~*", "+@all"]
    with EmbeddedRedis(extra_args=user) as server:
        yield server


@pytest.fixture(scope="module")
def guarded_url(guarded_redis: EmbeddedRedis) -> str:
    return f"redis://recorder:{PASSWORD}@127.0.0.1:{guarded_redis.port}/0"


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, live_gateway: GatewayThread, guarded_url: str
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    universe = folder / "ibkr_symbols.yaml"
    universe.write_text(json.dumps({"symbols": list(SYMBOLS)}))
    environment = {
        "IBKR_HOST": live_gateway.host,
        "IBKR_PORT": str(live_gateway.port),
        "REDIS_URL": guarded_url,
        "OTHER_REDIS_URL": guarded_url.replace(PASSWORD, WRONG_PASSWORD),
        "SYMBOL_CONFIG_PATH": str(universe),
        "IBKR_ROTATION_SECS": "1",
    }
    with deployment(folder, environment) as running:
        yield running


def stored(url: str) -> dict[str, int]:
    with redis.Redis.from_url(url) as store:
        return {symbol: store.xlen(f"raw:ibkr:depth:stream:{symbol}") for symbol in SYMBOLS}


def sequence(url: str, symbol: str) -> list[int]:
    """The `seq` of every snapshot in the stream, in order."""
    with redis.Redis.from_url(url) as store:
        return [int(fields[b"seq"]) for _, fields in store.xrange(f"raw:ibkr:depth:stream:{symbol}")]


def forget_heartbeats(url: str) -> None:
    """Those of a recorder that has just ended outlive it, and would keep a probe from subscribing."""
    with redis.Redis.from_url(url) as store:
        store.delete(*(f"raw:ibkr:depth:hb:{symbol}" for symbol in SYMBOLS))


def ids(gateway: GatewayThread, happened: str) -> set[tuple[int, int]]:
    """(connection, request id) of every subscription made, or of every cancel received."""
    if happened == "cancelled":
        entries = gateway.journal.requests("cancelMktDepth")
        return {(entry.connection, int(entry.detail["reqId"])) for entry in entries}
    return {(entry.connection, entry.detail["request_id"]) for entry in gateway.journal.entries("subscribed")}


def metadata_of(deployed: Deployment, run_id: str) -> dict[str, Any]:
    """Of the one materialization that the run recorded."""
    events = [
        entry.asset_materialization for entry in deployed.instance.all_logs(run_id) if entry.asset_materialization
    ]
    assert [event.asset_key for event in events] == [FEED]
    return {name: value.value for name, value in events[0].metadata.items()}


def subscribed(deployed: Deployment, run_id: str) -> set[str]:
    """The symbols that held a slot, by the engine's log: lines of JSON in the run's stderr."""
    text = "".join(path.read_text() for path in deployed.home.glob(f"storage/{run_id}/compute_logs/*.err"))
    happenings = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {happening["symbol"] for happening in happenings if happening["event"] == "subscribed"}


def op(**config: Any) -> dict[str, Any]:
    return {"ops": {"ibkr_depth_feed": {"config": config}}}


def resource(name: str, **config: Any) -> dict[str, Any]:
    return {"resources": {name: {"config": config}}}


def test_terminate_cancels_every_subscription_stores_what_was_buffered_and_ends_canceled(
    deployed: Deployment, live_gateway: GatewayThread, guarded_url: str
) -> None:
    run_id = deployed.launch()
    assert wait_until(lambda: all(stored(guarded_url).values()), PATIENCE_SECS), "no snapshot of every symbol came"
    deployed.terminate(run_id)
    assert deployed.wait_for_end(run_id) == "CANCELED"
    assert ids(live_gateway, "cancelled") == ids(live_gateway, "subscribed")
    metadata = metadata_of(deployed, run_id)
    assert (metadata["ended_by"], metadata["drained"]) == ("SIGINT", True)
    assert metadata["session_snapshots"] == sum(stored(guarded_url).values())
    assert "| AAPL | " in metadata["symbols"]
    assert subscribed(deployed, run_id) == set(SYMBOLS)


def test_session_that_a_signal_from_outside_ended_is_drained_and_a_success(
    deployed: Deployment, live_gateway: GatewayThread
) -> None:
    run_id = deployed.launch()
    before = ids(live_gateway, "subscribed")
    assert wait_until(lambda: ids(live_gateway, "subscribed") > before, PATIENCE_SECS), "nothing was subscribed"
    deployed.worker(run_id).terminate()
    assert deployed.wait_for_end(run_id) == "SUCCESS"
    assert ids(live_gateway, "cancelled") == ids(live_gateway, "subscribed")
    metadata = metadata_of(deployed, run_id)
    assert (metadata["ended_by"], metadata["drained"]) == ("SIGTERM", True)


def test_second_launch_waits_until_the_first_run_has_ended_also_by_materialize(
    deployed: Deployment, live_gateway: GatewayThread
) -> None:
    first = deployed.launch(op(duration=1.0))
    second = deployed.launch(op(duration=0.2), job="__ASSET_JOB", asset=FEED)
    assert [deployed.wait_for_end(run_id) for run_id in (first, second)] == ["SUCCESS", "SUCCESS"]
    records = {run_id: deployed.instance.get_run_record_by_id(run_id) for run_id in (first, second)}
    ended, started = records[first], records[second]
    assert ended is not None
    assert started is not None
    assert ended.end_time is not None
    assert started.start_time is not None
    assert ended.end_time <= started.start_time
    steps = deployed.instance.all_logs(second, of_type=dg.DagsterEventType.ENGINE_EVENT)
    assert any("Executing steps in process" in entry.user_message for entry in steps)


def test_terminate_ends_a_waiting_probe_without_a_subscription_left(
    deployed: Deployment, live_gateway: GatewayThread, guarded_url: str
) -> None:
    forget_heartbeats(guarded_url)
    live_gateway.do(lambda simulated: simulated.pause_rows("SPY"))
    before = ids(live_gateway, "subscribed")
    config = {"ops": {"ibkr_depth_probe": {"config": {"symbols": ["SPY"], "first_book_secs": 600.0}}}}
    run_id = deployed.launch(config, job="ibkr_depth_probe_job")
    assert wait_until(lambda: ids(live_gateway, "subscribed") > before, PATIENCE_SECS), "the probe did not subscribe"
    deployed.terminate(run_id)
    assert deployed.wait_for_end(run_id) == "CANCELED"
    live_gateway.do(lambda simulated: simulated.resume_rows("SPY"))
    assert ids(live_gateway, "cancelled") == ids(live_gateway, "subscribed")


@pytest.mark.faults
def test_killed_worker_is_replaced_and_the_stream_goes_on_without_a_gap(
    deployed: Deployment, live_gateway: GatewayThread, guarded_url: str
) -> None:
    run_id = deployed.launch(op(symbols=["SPY"]))
    before = stored(guarded_url)["SPY"]
    assert wait_until(lambda: stored(guarded_url)["SPY"] > before, PATIENCE_SECS), "nothing was recorded"
    deployed.worker(run_id).kill()
    assert deployed.wait_for_end(run_id) == "FAILURE"
    at_death = stored(guarded_url)["SPY"]
    assert wait_until(lambda: stored(guarded_url)["SPY"] > at_death, PATIENCE_SECS), "nobody took over"
    (heir,) = [run for run in deployed.instance.get_runs() if run.parent_run_id == run_id]
    deployed.terminate(heir.run_id)
    assert deployed.wait_for_end(heir.run_id) == "CANCELED"
    assert sequence(guarded_url, "SPY") == list(range(1, len(sequence(guarded_url, "SPY")) + 1))


REFUSALS = {
    "a duration below zero": (op(duration=-5.0), "duration=-5.0 is not allowed"),
    "a duration that is no number": (op(duration="long"), "duration"),
    "a symbol in lower case": (op(symbols=["aapl"]), "'aapl' is not a symbol"),
    "a symbol twice": (op(symbols=["SPY", "SPY"]), "'SPY' is listed 2 times"),
    "a dwell of nothing": (op(rotation_secs=0.0), "IBKR_ROTATION_SECS=0.0 is not allowed"),
    "no subscription at all": (op(max_concurrent_depth=0), "IBKR_MAX_CONCURRENT_DEPTH=0 is not allowed"),
    "an unknown key": (op(durration=5.0), "durration"),
    "a port out of range": (resource("ibkr", port=0), "IBKR_PORT=0 is not allowed"),
    "a port that is no number": (resource("ibkr", port="seven"), "Invalid scalar"),
    "no Redis at all": (resource("redis", url="http://example.com"), "REDIS_URL='http://example.com' is not allowed"),
    "a variable that is not set": (resource("redis", url={"env": "NO_SUCH_URL"}), "NO_SUCH_URL"),
    "a password for all to read": (resource("redis", url="redis://u:hunter2@localhost"), "names a user or a password"),
}


@pytest.mark.parametrize(("config", "words"), REFUSALS.values(), ids=REFUSALS)
def test_bad_config_is_refused_before_a_run_exists(
    deployed: Deployment, live_gateway: GatewayThread, config: dict[str, Any], words: str
) -> None:
    runs, connections = deployed.instance.get_runs_count(), len(live_gateway.journal.entries("opened"))
    refusal = deployed.refusal(config)
    assert words in refusal
    assert "hunter2" not in refusal
    assert deployed.instance.get_runs_count() == runs
    assert len(live_gateway.journal.entries("opened")) == connections


def test_refused_redis_password_fails_the_run_and_is_shown_nowhere(deployed: Deployment) -> None:
    run_id = deployed.launch({**op(duration=1.0), **resource("redis", url={"env": "OTHER_REDIS_URL"})})
    assert deployed.wait_for_end(run_id) == "FAILURE"
    failure = next(
        entry
        for entry in deployed.instance.all_logs(run_id)
        if entry.is_dagster_event and entry.get_dagster_event().is_step_failure
    )
    assert "SinkUnavailable" in str(failure)
    written = deployed.stored_text()
    assert run_id.encode() in written
    assert WRONG_PASSWORD.encode() not in written
    assert PASSWORD.encode() not in written
