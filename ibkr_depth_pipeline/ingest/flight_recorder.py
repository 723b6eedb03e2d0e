"""The flight recorder: keeps the last minutes of the wire, and writes them out as a tape when something went wrong.

The connections hand over what they read and send (wire_trace.py); a thread writes it to a ring of files (tape/ring.py),
and a process of its own makes a tape of a ring (tape/ring_dump.py), so that no row waits for either. If this process is
killed its ring stays, and the next run makes the tape.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from time import time_ns
from typing import Any

import orjson

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.ingest.dump_schedule import SETTLE_SECS, DumpSchedule, DumpTrigger
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.ingest.wire_trace import WireRing
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.tape.retention import KeptTapes, stem_of_dump
from ibkr_depth_pipeline.tape.ring import RingFiles, adopt
from ibkr_depth_pipeline.tasks import at_most

ASKED, KILLED = "asked", "killed"
FAREWELL_SECS = 0.5
"""How long the end of a run waits for a dump under way, which goes on without it, and for the ring's removal."""

_OFF = "the flight recorder is off (IBKR_FLIGHT_RECORDER_MINUTES=0)"


class DumpFailed(Exception):
    """No tape was written; the text says why."""


@dataclass(frozen=True, slots=True)
class DumpReport:
    """A tape that the flight recorder has written. began is ISO 8601; secs is how much of the wire it holds."""

    path: str
    why: tuple[str, ...]
    began: str
    secs: float
    messages: int
    bytes: int


class FlightRecorder:
    """`begin` it before the first connection, `run` it beside the recording; `aclose` at the end.

    `wire` is what connections report to, None if it is off. `trigger` has a tape written soon, `dump` now. pipeline()
    is the run's; settle: seconds from a trigger to its dump; written(report) is called for each tape, in a thread of
    its own: what it raises is logged, and ends nothing.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Callable[[], DepthPipeline],
        settle: float = SETTLE_SECS,
        written: Callable[[DumpReport], None] | None = None,
    ) -> None:
        self._name = settings.ibkr_gateway_name
        self._folder = Path(settings.ibkr_flight_recorder_dir).absolute()
        self._port = settings.ibkr_port
        secs = settings.ibkr_flight_recorder_minutes * 60
        bound = settings.ibkr_flight_recorder_bytes
        self._keep = KeptTapes(
            settings.ibkr_flight_recorder_keep,
            settings.ibkr_flight_recorder_keep_days,
            settings.ibkr_flight_recorder_keep_bytes,
        )
        self._written = written
        self._schedule = DumpSchedule(secs, settle)
        self._dumps: set[asyncio.Task[Any]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._log = get_log()
        self.wire: WireRing | None = None
        if secs:
            files = RingFiles(self._hidden("ring"), bound, secs, self._about({}))
            books = (lambda: live_lines(pipeline())), (lambda: pipeline().books.requests())
            self.wire = WireRing(files, bound, secs, *books)

    def _hidden(self, kind: str) -> Path:
        return self._folder / f".{kind}-{self._name}-{secrets.token_hex(4)}"

    # ---- the course of a run

    def begin(self) -> None:
        """Start to keep what comes, and make tapes of what killed runs have left."""
        if self.wire is not None and self._survives(self.wire.begin):
            self.adopt()

    def adopt(self) -> None:
        """Make tapes of what killed runs have left; also to be called by a standby that takes over from one."""
        if self.wire is not None:
            self._start(self._adopt(self.wire))

    async def run(self) -> None:
        """Write tapes as they are due, until cancelled. Nothing to do if it is off."""
        while self.wire is not None:
            await asyncio.sleep(self.wire.period)
            if not self._survives(self.wire.tick):
                return
            if triggers := self._schedule.take(loop_time()):
                self._start(self._dump_of(triggers))

    def _survives(self, step: Callable[[], None]) -> bool:
        """Carry a step out. What it raises is a fault of this program, and ends the flight recorder alone."""
        try:
            step()
        except Exception as error:
            self._log.error("flight_recorder_failed", error=repr(error), hint="recording goes on without it")
            if self.wire is not None:
                self.wire.is_on = False
            return False
        return True

    def trigger(self, reason: str, detail: str) -> None:
        """Have a tape written, unless it is off."""
        if self.wire is not None:
            self._schedule.trigger(DumpTrigger(reason, self.wire.cleaned(detail)), loop_time())

    async def aclose(self) -> None:
        """End the ring. A tape that is due is still written, by a process that outlives this one."""
        if self.wire is None:
            return
        if triggers := self._schedule.take(loop_time() + self._schedule.settle):
            self._start(self._dump_of(triggers))
        if self._dumps:
            await asyncio.wait(self._dumps, timeout=FAREWELL_SECS)
        for task in self._dumps:
            task.cancel()
        await asyncio.gather(*self._dumps, return_exceptions=True)
        await at_most(FAREWELL_SECS, self.wire.close())
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # if it holds nothing

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._dumps.add(task)
        task.add_done_callback(self._dumps.discard)

    # ---- dumps

    async def dump(self, by: str) -> DumpReport:
        """Write what there is now. by: who asks. Raises DumpFailed."""
        return await self._dump({DumpTrigger(ASKED, by): 1})

    async def asked(self, by: str) -> tuple[str, str]:
        """The same, for sink/dump_requests.py: the path of the tape, and why there is none."""
        try:
            return (await self.dump(by)).path, ""
        except DumpFailed as failure:
            return "", str(failure)

    async def _dump_of(self, triggers: Mapping[DumpTrigger, int]) -> None:
        with contextlib.suppress(DumpFailed):  # it is logged
            await self._dump(triggers)

    async def _dump(self, triggers: Mapping[DumpTrigger, int]) -> DumpReport:
        wire = self.wire
        if wire is None:
            raise DumpFailed(_OFF)
        async with self._one_at_a_time:
            why, target = [*triggers], self._hidden("dump")
            wire.hand_over()
            try:
                about = self._about(triggers)
                await wire.writer.call(lambda: wire.files.hold(target, self._with_stem(about, why[0].reason)))
            except OSError as error:
                shutil.rmtree(target, ignore_errors=True)
                raise self._failed(why, str(error)) from None
            return await self._make_tape(target, why)

    async def _make_tape(self, target: Path, why: list[DumpTrigger]) -> DumpReport:
        made = await _in_a_process(target)
        if "error" in made:
            raise self._failed(why, made["error"])
        report = DumpReport(why=tuple(_worded(trigger) for trigger in why), **made)
        self._log.warning("tape_dumped", **asdict(report))
        if self._written is not None:
            try:
                await asyncio.to_thread(self._written, report)
            except Exception as error:
                self._log.warning("watcher_failed", error=repr(error))
        return report

    def _failed(self, why: Iterable[DumpTrigger], error: str) -> DumpFailed:
        self._log.error("tape_not_dumped", why=[_worded(trigger) for trigger in why], error=error)
        return DumpFailed(error)

    async def _adopt(self, wire: WireRing) -> None:
        """Make tapes of the rings of killed runs, and of what they had begun to dump."""
        left = re.compile(rf"\.(ring|dump)-{re.escape(self._name)}-[0-9a-f]{{8}}")
        own, found = wire.files.folder, []

        def take_over() -> None:
            for folder in [*self._folder.iterdir()]:
                if left.fullmatch(folder.name) and folder != own:
                    target = self._hidden("dump")
                    try:
                        if adopt(folder, target, self._of_killed):
                            found.append(target)
                    except (OSError, ValueError, KeyError, TypeError):  # cut off before it began, or half lost
                        shutil.rmtree(folder, ignore_errors=True)

        with contextlib.suppress(OSError):
            await wire.writer.call(take_over)
        for target in found:
            with contextlib.suppress(DumpFailed):
                await self._make_tape(target, [DumpTrigger(KILLED)])

    def _of_killed(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        """about.json of a ring whose process is dead, or of a dump that was cut off."""
        if "stem" in about:
            return about
        why = [{"reason": KILLED, "detail": "the run before was killed, or its machine went down", "times": 1}]
        return self._with_stem({**about, "notes": {**about["notes"], "why": why}}, KILLED)

    def _with_stem(self, about: Mapping[str, Any], reason: str) -> Mapping[str, Any]:
        return {**about, "stem": str(stem_of_dump(self._folder, self._name, reason, time_ns()))}

    def _about(self, triggers: Mapping[DumpTrigger, int]) -> dict[str, Any]:
        program = f"ibkr_depth_pipeline {version('ibkr_depth_pipeline')}"
        newest = self.wire.newest.head if self.wire is not None and self.wire.newest is not None else None
        python = ".".join(map(str, sys.version_info[:3]))
        versions = {"program": program, "ib_insync": version("ib_insync"), "python": python}
        notes = {
            "why": [{**asdict(trigger), "times": times} for trigger, times in triggers.items()],
            "dumped": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "gateway": {"name": self._name, "port": self._port, "server_version": newest.version if newest else 0},
            "client": {"id": newest.client_id if newest else 0, **versions},
        }
        return {"made_by": f"the flight recorder of {program}", "notes": notes, "keep": asdict(self._keep)}


def live_lines(pipeline: DepthPipeline) -> list[dict[str, Any]]:
    """The books of the live subscriptions, as a checkpoint has them."""
    books, troubles = pipeline.books, pipeline.lines.troubles()
    lines = []
    for state in books.states(lambda request, rows: True):
        book = books.book(state.request)
        if book is not None:
            trouble = troubles.get(book.symbol, "")
            named = {"symbol": book.symbol, "request": state.request, "trouble": trouble}
            lines.append({**named, **book.newest._asdict(), "bids": state.bids, "asks": state.asks})
    return lines


def _worded(trigger: DumpTrigger) -> str:
    words = trigger.reason.replace("_", " ")
    return f"{words}: {trigger.detail}" if trigger.detail else words


async def _in_a_process(folder: Path) -> dict[str, Any]:
    """What ring_dump.py reports. A thread waits for it, which no end of this process has to wait for."""
    made: Future[dict[str, Any]] = Future()
    made.set_running_or_notify_cancel()
    threading.Thread(
        target=lambda: made.set_result(_ring_dump(folder)), name="flight_recorder_dump", daemon=True
    ).start()
    return await asyncio.wrap_future(made)


def _ring_dump(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "ibkr_depth_pipeline.tape.ring_dump", str(folder)]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False
        )
        return dict(orjson.loads(ended.stdout))
    except OSError as error:
        return {"error": str(error)}
    except ValueError:
        return {"error": f"the process that writes it ended with {ended.returncode}: {ended.stderr[-500:]!r}"}
