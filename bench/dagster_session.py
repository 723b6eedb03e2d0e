"""Beside a run: evaluates the heartbeat sensor so many times, each as the first time, and stores what it says.

`python -m bench.dagster_session ROUNDS`, in the environment of the run. A line of JSON at the end: how many checks were
stored, and how long the sensor's state is, which each of its ticks holds.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.definitions import defs

SENSOR = "ibkr_depth_heartbeats"


def main(rounds: int) -> None:
    sensor: Any = defs.resolve_sensor_def(SENSOR)
    stored, state = 0, ""
    with dg.DagsterInstance.get() as instance:
        for _ in range(rounds):
            with dg.build_sensor_context(instance=instance) as context:
                result = sensor(context)
                state = result.cursor
                for event in result.asset_events:
                    instance.report_runless_asset_event(event)
                    stored += 1
    print(json.dumps({"checks": stored, "state_bytes": len(state)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
