"""What ib_insync, Dagster and apprise do not document and this program uses: there, and used in one module each.

docs/architecture.md lists it with the reasons. What redis-py does not document has a test beside its module.
"""

from __future__ import annotations

import ast
import inspect
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import apprise
import dagster as dg
import pytest
from ib_insync.client import Client
from ib_insync.connection import Connection
from ib_insync.decoder import Decoder

import ibkr_depth_pipeline
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import instance_of

PACKAGE = Path(ibkr_depth_pipeline.__file__).parent

CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (Client._onSocketHasData, (None, b""), {}),
    (Client._onSocketDisconnected, (None, ""), {}),
    (Client.send, (None, 1), {"makeEmpty": True}),
    (Client.sendMsg, (None, ""), {}),
    (Client.connectAsync, (None, "h", 1, 1, 0), {}),
    (Decoder.__init__, (None, None, 0), {}),
    (Decoder.wrap, (None, "name", [int]), {"skip": 2}),
    (Decoder.interpret, (None, [""]), {}),
    (Connection.data_received, (None, b""), {}),
    (Connection.sendMsg, (None, b""), {}),
    (Connection.disconnect, (None,), {}),
    (Connection.connection_lost, (None, None), {}),
    (dg.DagsterInstance.report_run_failed, (None, None, "why"), {}),
    (dg.DagsterInstance.all_logs, (None, "run"), {"of_type": {dg.DagsterEventType.STEP_START}}),
    (dg.DagsterInstance.from_ref, (None,), {}),
    (apprise.Apprise.instantiate, ("json://h",), {"suppress_exceptions": True}),
]

HOMES = {
    "_onSocketHasData": "gateway/ib_client.py",
    "_onSocketDisconnected": "gateway/ib_client.py",
    "report_run_failed": "orchestration/monitoring/tracked_jobs.py",
    "all_logs": "orchestration/monitoring/tracked_jobs.py",
    "from_ref": "orchestration/monitoring/tracked_jobs.py",
    "instance_ref": "orchestration/monitoring/tracked_jobs.py",
    "event_log_storage": "orchestration/purging.py",
    "socket_read_timeout": "monitoring/delivery.py",
    "instantiate": "monitoring/delivery.py",
}
"""Attribute -> the only module that may use it. `__ASSET_JOB` is a text, see below."""


@pytest.mark.parametrize(("called", "args", "options"), CALLS, ids=lambda it: getattr(it, "__qualname__", ""))
def test_library_still_takes_the_call(called: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    inspect.signature(called).bind(*args, **options)


class Wrapper:
    """What ib_insync's client calls; `heard` is what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.heard.append(name)


async def test_ib_insync_client_takes_the_greeting_as_one_whole_frame_and_has_the_parts_that_are_replaced() -> None:
    wrapper = Wrapper()
    client: Any = Client(wrapper)
    assert isinstance(client.conn, Connection)
    assert isinstance(client.decoder, Decoder)
    assert isinstance(client.decoder.handlers, dict)
    assert (client.MaxRequests, client.conn.transport) == (45, None)
    sent: list[bytes] = []
    client.conn.sendMsg = sent.append
    greeting = b"178\0" + b"20260105 10:00:00 EST\0"
    client._onSocketHasData(struct.pack(">I", len(greeting)) + greeting)
    assert client._serverVersion == client.decoder.serverVersion == 178
    assert "connectAck" in wrapper.heard


def test_ib_insync_decoder_finds_its_methods_on_the_wrapper_by_name() -> None:
    wrapper: Any = Wrapper()
    Decoder(wrapper, 178).handlers[49](["49", "1", "1700000000"])
    assert wrapper.heard == ["currentTime"]


def test_recorder_has_no_numpy_and_eventkit_gets_it_with_the_first_use() -> None:
    program = (
        "import sys, ibkr_depth_pipeline.ingest.run, eventkit; assert 'numpy' not in sys.modules;"
        "seen = []; event = eventkit.Event(); event.array(2).connect(seen.append); event.emit(1); event.emit(2);"
        "import numpy; assert seen[-1].tolist() == [1, 2] and type(seen[-1]) is numpy.ndarray"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_dagster_names_the_job_of_the_materialize_button_as_before() -> None:
    @dg.asset
    def any_asset() -> None: ...

    job = dg.Definitions(assets=[any_asset]).resolve_implicit_global_asset_job_def()
    assert job.name == "__ASSET_JOB"


def test_run_that_is_reported_as_failed_has_failed_and_its_events_can_be_filtered() -> None:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def some_job() -> None:
        nothing()

    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(some_job)
        instance.report_run_failed(run, "stuck")
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status is dg.DagsterRunStatus.FAILURE
        assert len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)) == 1
        assert list(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)) == []


def test_sensor_finds_the_instance_opened_by_its_reference_as_it_is_now(tmp_path: Path) -> None:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def some_job() -> None:
        nothing()

    def a_tick(instance: dg.DagsterInstance) -> dg.SensorEvaluationContext:
        return dg.SensorEvaluationContext(
            instance.get_ref(), last_tick_completion_time=None, last_run_key=None, cursor=None, log_key=None
        )

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        opened = instance_of(a_tick(instance))
        run = instance.create_run_for_job(some_job)
        assert instance_of(a_tick(instance)) is opened
        assert opened.get_run_by_id(run.run_id) is not None
        opened.dispose()


def test_apprise_target_has_a_read_timeout_of_its_own() -> None:
    target = apprise.Apprise.instantiate("json://localhost", suppress_exceptions=True)
    assert target is not None
    assert target.socket_read_timeout == type(target).socket_read_timeout
    longer = apprise.Apprise.instantiate("json://localhost?rto=9", suppress_exceptions=True)
    assert longer is not None
    assert longer.socket_read_timeout == 9.0
    assert apprise.Apprise.instantiate("nonsense://localhost", suppress_exceptions=True) is None


def test_undocumented_attributes_of_a_library_are_used_in_one_module_each() -> None:
    found: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place, tree = str(path.relative_to(PACKAGE)), ast.parse(path.read_text())
        found += [
            f"{place}: {node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and HOMES.get(node.attr, place) != place
        ]
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        if "__ASSET_JOB" in texts and place != HOMES["all_logs"]:
            found.append(f"{place}: __ASSET_JOB")
    assert found == []
