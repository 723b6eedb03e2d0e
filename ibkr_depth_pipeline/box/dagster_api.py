"""The box's client of the Dagster webserver: GraphQL over plain HTTP on loopback, never through a proxy.

Dagster's own `DagsterGraphQLClient` launches and terminates runs, but it neither lists the runs of a job nor names the
instance, except by its private `_execute`, and its import takes 2.0 s and 53 MB more than this module (measured).
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibkr_depth_pipeline.box.processes import BoxError

TIMEOUT_SECS = 20.0
ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_ACTIVE = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]

_LOADED = "query($name: String!) { instance { info } workspaceLocationEntryOrError(name: $name) { __typename } }"
_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) {
  ... on Runs { results { runId status endTime jobName } } ... on Error { message } } }"""
_SENSOR = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
  __typename ... on Sensor { sensorState { id } } } }"""
_STOP_SENSOR = "mutation($id: String!) { stopSensor(id: $id) { __typename ... on Error { message } } }"
_RESET_SENSOR = """mutation($selector: SensorSelector!) { resetSensor(sensorSelector: $selector) {
  __typename ... on Error { message } } }"""
_TERMINATE = """mutation($run: String!) { terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) {
  __typename ... on Error { message } } }"""


class DagsterUnavailable(BoxError):
    """The webserver does not answer, or not as it should."""


@dataclass(frozen=True, slots=True)
class LaunchedRun:
    """`ended_ts` is unix ms, 0 while it is not over."""

    id: str
    status: str
    job: str = ""
    ended_ts: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class DagsterApi:
    """One webserver at `host` and `port`. Every method raises DagsterUnavailable if it gets no answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def serves(self, home: Path, location: str) -> bool:
        """Whether it answers, keeps its instance in `home` (so it is ours), and knows the code location."""
        try:
            data = self._ask(_LOADED, name=location)
        except DagsterUnavailable:
            return False
        known = data["workspaceLocationEntryOrError"]["__typename"] == "WorkspaceLocationEntry"
        return known and str(home) in (data["instance"]["info"] or "")

    def launch(
        self, location: str, job: str, config: Mapping[str, object] | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Launch `job`; its run id. DagsterUnavailable if the job is unknown or Dagster refuses."""
        selector = {**_repository(location), "jobName": job}
        named = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        params = {"selector": selector, "runConfigData": config or {}, "executionMetadata": {"tags": named}}
        answer = self._ask(_LAUNCH, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise DagsterUnavailable(f"Dagster does not launch {job}: {json.dumps(answer)}")
        return str(answer["run"]["runId"])

    def runs(self, job: str) -> list[LaunchedRun]:
        """The runs of `job`, newest first."""
        return self._runs({"pipelineName": job})

    def active_runs(self) -> list[LaunchedRun]:
        """The runs of all jobs that are not over, newest first."""
        return self._runs({"statuses": _ACTIVE})

    def _runs(self, filters: Mapping[str, object]) -> list[LaunchedRun]:
        answer = self._ask(_RUNS, filter=filters)["runsOrError"]
        return [
            LaunchedRun(found["runId"], found["status"], found["jobName"], int((found["endTime"] or 0) * 1000))
            for found in answer.get("results", ())
        ]

    def stop_sensor(self, location: str, sensor: str) -> None:
        """As its switch in the UI does. DagsterUnavailable if there is no such sensor."""
        found = self._ask(_SENSOR, selector={**_repository(location), "sensorName": sensor})["sensorOrError"]
        if found["__typename"] != "Sensor":
            raise DagsterUnavailable(f"Dagster knows no sensor {sensor}")
        self._ask(_STOP_SENSOR, id=found["sensorState"]["id"])

    def reset_sensor(self, location: str, sensor: str) -> None:
        """Let it run, or not, as the definitions have it."""
        self._ask(_RESET_SENSOR, selector={**_repository(location), "sensorName": sensor})

    def terminate(self, run_id: str) -> None:
        """As Terminate in the UI does: the run is asked to stop, and takes its time. A refusal is no error."""
        self._ask(_TERMINATE, run=run_id)

    def _ask(self, query: str, **variables: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECS)
        try:
            body = json.dumps({"query": query, "variables": variables})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.load(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DagsterUnavailable(f"the Dagster webserver does not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.get("errors"):
            raise DagsterUnavailable(f"Dagster refuses a query: {json.dumps(answer['errors'])}")
        data: dict[str, Any] = answer["data"]
        return data


def _repository(location: str) -> dict[str, str]:
    return {"repositoryLocationName": location, "repositoryName": "__repository__"}
