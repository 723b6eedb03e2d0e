"""The day of a box in Dagster: probe, session, archive, report, by the jobs of the code location, with their pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

from ibkr_depth_pipeline.box.dagster_api import DagsterApi, DagsterUnavailable, LaunchedRun
from ibkr_depth_pipeline.box.faults import Page
from ibkr_depth_pipeline.clock import monotonic

LOCATION = "ibkr_depth_pipeline"
INGEST_JOB, PROBE_JOB = "ibkr_depth_ingest_job", "ibkr_depth_probe_job"
ARCHIVE_JOB, DAY_JOB = "ibkr_depth_archive_job", "ibkr_depth_archive_day_job"
WATCHDOG, HEARTBEATS = "ibkr_depth_watchdog", "ibkr_depth_heartbeats"
REPORT_AFTER_SECS = 30.0
"""From the first row to the first report: long enough for something to be in it."""

ARCHIVED_AFTER_SECS = 10.0
"""From the close until all of the session is in the archive."""

NIGHT_SECS = 35.0
"""From the end of a closed session's run to the next morning: a tick of each sensor, none of which has to alert, and
longer than a symbol's heartbeat stands, beside which a probe takes no slot."""

_SESSION = {"ops": {"ibkr_depth_feed": {"config": {"stop_at_close": True}}}}
"""The run config of the schedule's runs."""

_FEED = "assets/raw/ibkr/depth/feed"
INSTALL_ARCHIVE = (
    "pip install 'ibkr_depth_pipeline[archive]' (in the repository: .venv/bin/pip install -e '.[archive]')"
)


class TradingDay:
    """Launches what a day consists of, in order. `base` is the URL of Dagster's UI; `say` gets lines for the terminal.

    open_markets() is called in the morning after a close, before the probe. The watchdog waits until the probe is
    through: it would start the ingest beside it, and the probe would get no slot. The heartbeats are monitored from the
    first rotation on: the box's market is open before it.
    """

    def __init__(
        self,
        dagster: DagsterApi,
        base: str,
        archive: Path,
        say: Callable[[str], None],
        open_markets: Callable[[], None] = lambda: None,
    ) -> None:
        self._dagster, self._base, self._archive, self._say = dagster, base, archive, say
        self._open_markets = open_markets
        self._closing = False
        self._morning_due: float | None = None
        self._probe = ""  # the run of the morning's probe, as long as it is under way
        self._archives = all(find_spec(name) is not None for name in ("pyarrow", "fsspec", "jinja2"))
        self._runs: dict[str, LaunchedRun] = {}  # of the ingest, newest first
        self._live = self._monitored = self._archiving = False
        self._report_due: float | None = None
        self._report_run = ""

    @property
    def pages(self) -> dict[Page, str]:
        """The pages of Dagster that show a fault."""
        return {
            Page.CHECKS: f"{self._base}/{_FEED}?view=checks",
            Page.PLOTS: f"{self._base}/{_FEED}?view=overview",
            Page.RUNS: f"{self._base}/runs",
        }

    @property
    def held(self) -> bool:
        """Whether the newest run of the ingest has not failed."""
        return not any(run.status == "FAILURE" for run in list(self._runs.values())[:1])

    # ---- the morning

    def hold_sensors(self) -> None:
        """To be called before the daemon starts. Raises DagsterUnavailable."""
        for sensor in (WATCHDOG, HEARTBEATS):
            self._dagster.stop_sensor(LOCATION, sensor)

    def start_probe(self) -> str:
        """The run's id. Raises DagsterUnavailable."""
        run = self._dagster.launch(LOCATION, PROBE_JOB)
        self._say(f"Probe        {self._base}/runs/{run}   each symbol: its venue, its first book")
        return run

    def is_probed(self, run_id: str) -> bool:
        """Whether the probe is over; a busy webserver is asked again later."""
        with contextlib.suppress(DagsterUnavailable):
            return any(run.id == run_id and run.ended for run in self._dagster.runs(PROBE_JOB))
        return False

    @property
    def is_probing(self) -> bool:
        """Whether what the gateway sends is the probe's alone: from the second morning on, as a box begins with one."""
        return bool(self._probe)

    def _launch_session(self) -> str:
        run = self._dagster.launch(LOCATION, INGEST_JOB, _SESSION)
        self._dagster.reset_sensor(LOCATION, WATCHDOG)
        return run

    def open_session(self) -> None:
        """Launch the ingest, as its schedule does, and print the pages. Raises DagsterUnavailable."""
        run = self._launch_session()
        for title, path, about in (
            ("Dagster UI", f"runs/{run}", "the session: its log, its observations, Terminate"),
            ("Lineage", "asset-groups", "the universe, the feed and the probe, with their checks"),
            ("Figures", f"{_FEED}?view=overview", "Plots: rows, coverage, 309s, lag, every 15 s"),
            ("Heartbeats", f"{_FEED}?view=checks", "what fails when the gateway goes away"),
            ("Automation", "automation", "schedules, sensors, watchdog"),
        ):
            self._say(f"{title:<12} {self._base}/{path}   {about}")
        if not self._archives:
            self._say(f"Archive      off, and no report; to have both: {INSTALL_ARCHIVE}")

    def _open_archive(self) -> None:
        run = self._dagster.launch(LOCATION, ARCHIVE_JOB)
        self._say(f"Archive      {self._base}/runs/{run}   every snapshot, in {self._archive}")

    # ---- the day

    def on_rotation(self) -> None:
        """The first one shows that the market is recorded."""
        if not self._live:
            self._live, self._report_due = True, self._report_due or monotonic() + REPORT_AFTER_SECS

    def on_close(self) -> None:
        """The session's hours end. Sensors and schedules stay on: the run ends by itself, and nobody starts another."""
        self._closing = True

    def _begin_next_day(self) -> None:
        """What comes after a close: the night, the probe, the session."""
        if self._morning_due is not None and monotonic() >= self._morning_due:
            self.hold_sensors()
            self._live = self._monitored = False
            self._open_markets()
            self._probe = self.start_probe()
            self._morning_due = None
        elif self._probe and self.is_probed(self._probe):
            self._launch_session()
            self._probe = ""

    def tick(self) -> Iterator[LaunchedRun]:
        """Do what is due; the runs of the ingest that ended since the last call. A busy webserver is asked again."""
        with contextlib.suppress(DagsterUnavailable):
            self._begin_next_day()
            if self._live and not self._monitored:
                self._dagster.reset_sensor(LOCATION, HEARTBEATS)
                self._monitored = True
            if self._archives and self._live and not self._archiving:
                self._open_archive()
                self._archiving = True
            self._report_when_due()
        yield from self.newly_ended()

    def newly_ended(self) -> list[LaunchedRun]:
        """The runs of the ingest that ended since the last call; a busy webserver is asked again later."""
        known = self._runs
        with contextlib.suppress(DagsterUnavailable):
            self._runs = {run.id: run for run in self._dagster.runs(INGEST_JOB)}
        for run in self._runs.values():
            if run.id not in known and known:
                self._say(f"Session      {self._base}/runs/{run.id}   the next run of the ingest")
        ended = [run for run in self._runs.values() if run.ended and run != known.get(run.id)]
        for run in ended:
            self._say(f"Ingest run {run.id[:8]} has ended: {run.status}")
            if run.status == "SUCCESS":
                self._report_due = monotonic() + ARCHIVED_AFTER_SECS
                if self._closing:
                    self._closing, self._morning_due = False, monotonic() + NIGHT_SECS
        return ended

    def _report_when_due(self) -> None:
        if self._archives and self._report_due is not None and monotonic() >= self._report_due:
            self._report_due = None
            tags = {"dagster/partition": f"{datetime.now(timezone.utc):%Y-%m-%d}"}
            self._report_run = self._dagster.launch(LOCATION, DAY_JOB, tags=tags)
        if self._report_run:
            self._conclude_report()

    def _conclude_report(self) -> None:
        for run in self._dagster.runs(DAY_JOB):
            if run.id == self._report_run and run.ended:
                self._report_run = ""
                pages = sorted((self._archive / "reports").glob("*.html"))
                shown = pages[-1].as_uri() if pages and run.status == "SUCCESS" else f"{self._base}/runs/{run.id}"
                self._say(f"Report       {shown}   the day so far on one page")

    # ---- the evening

    def terminate(self) -> None:
        """As Terminate in the UI does, for every run that is not over. Raises DagsterUnavailable."""
        for run in self._dagster.active_runs():
            self._dagster.terminate(run.id)

    def is_drained(self) -> bool:
        """Whether no run of the ingest is under way. Raises DagsterUnavailable."""
        return all(run.ended for run in self._dagster.runs(INGEST_JOB))
