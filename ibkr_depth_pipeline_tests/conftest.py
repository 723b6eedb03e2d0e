"""What every test may ask for: a real Redis of its own or a shared one, the real data, and no process left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog
from hypothesis import HealthCheck, settings

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until

# Without bytecode each worker, and each process that a test starts, would compile all that it imports again. That is a
# third of the whole suite's time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

os.environ["IBKR_FLIGHT_RECORDER_MINUTES"] = "0"  # no ring in the folder of the tests: those that are about it set it

# No example fails for the time that it takes: the machine may be busy.
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True)
# In CI the same examples in each run: new ones are looked for at a developer's desk.
settings.load_profile("ci" if os.environ.get("CI") else "desk")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
PATIENCE_SECS = 100.0
"""For what takes a moment on a quiet machine. A busy one may take its time; no test measures how long it took."""

_DEAR = ("dagster", "cli", "cluster", "deploy", "end_to_end", "faults", "rotation", "tui", "web")
"""Folders with files that take long begin first, so that at the end no process works at one alone (--dist loadfile)."""
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LEFTOVER_GRACE_SECS = 5.0


@pytest.fixture(autouse=True)
def _logging_as_at_the_start() -> None:
    """What one test sets up for its log, a level above all, is none of the next one's business."""
    structlog.reset_defaults()


@pytest.fixture
def redis_server() -> Iterator[EmbeddedRedis]:
    """A fresh, empty server for one test, which may kill, pause and restart it."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The URL of this test's `redis_server`."""
    return redis_server.url


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def shared_redis_url(_shared_redis: EmbeddedRedis) -> str:
    """The URL of a server that the whole run shares; it is empty when the test begins. Don't stop or pause it."""
    _shared_redis.flush()
    return _shared_redis.url


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real recordings; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real recordings are not here: expected in ../shared/data beside the repository")
    return SHARED_DATA


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--live", action="store_true", help="also run the tests that need the gateway and Redis of the settings"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _mix(items)
    if config.getoption("--live"):
        return
    skip = pytest.mark.skip(reason="needs a real gateway and Redis: ask for it with --live")
    for item in items:
        if item.get_closest_marker("live") is not None:
            item.add_marker(skip)


def _mix(items: list[pytest.Item]) -> None:
    """Files of each folder in turn: those that need the processor run beside those that wait."""
    seen: Counter[Path] = Counter()
    places: dict[Path, tuple[bool, int, str]] = {}
    for path in dict.fromkeys(item.path for item in items):
        folder = path.parent
        places[path] = (folder.name not in _DEAR, seen[folder], str(folder))
        seen[folder] += 1
    items.sort(key=lambda item: places[item.path])


def pytest_sessionstart() -> None:
    """Orphans of the run become our children, so that the check at its end finds them, too (Linux only).

    A shell's background job starts with SIGINT and SIGQUIT ignored, which all that the tests start would inherit.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that the run started and left behind fails the run; it is ended here all the same."""
    wait_until(lambda: not _leftover(), _LEFTOVER_GRACE_SECS)
    for process in _leftover():
        print(f"\nleft behind by the tests: {process}", file=sys.stderr)
        process.kill()
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _leftover() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _counts(child)]


def _counts(process: psutil.Process) -> bool:
    try:
        # multiprocessing keeps one of these until the interpreter ends
        helper = any("resource_tracker" in argument for argument in process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not helper
    except psutil.NoSuchProcess:
        return False
