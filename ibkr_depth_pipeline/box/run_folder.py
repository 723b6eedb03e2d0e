"""The run folder of a box: its configuration, its children's environment, and its logs as lines for the terminal."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ibkr_depth_pipeline.box.processes import BoxError

UNIVERSE = "ibkr_symbols.yaml"
INSTANCE = "dagster.yaml"
_CHECKOUT = Path(__file__).resolve().parents[2]
# What would lead the ingest to a gateway or a Redis that isn't ours, or Dagster to another instance; a proxy would
# stand between processes on loopback. Names in any case, as the settings read them so.
_REDIRECTS = frozenset(
    {
        "IBKR_HOST",
        "IBKR_PORT",
        "REDIS_URL",
        "SYMBOL_CONFIG_PATH",
        "GATEWAYS_CONFIG_PATH",
        "IBKR_LOG_LEVEL",
        "ALERT_URLS",
        "DEADMAN_URL",
        "ARCHIVE_URL",
        "REDIS_TLS_CA_FILE",
        "REDIS_TLS_CERT_FILE",
        "REDIS_TLS_KEY_FILE",
        "IBKR_GATEWAY_NAME",
        "IBKR_AUTOMATION",
        "IBKR_CALENDAR",
        "IBKR_SESSION",
        "IBKR_STOP_AT_CLOSE",
        "IBKR_METRICS_PORT",
    }
)


# A day of minutes: what takes half a minute or more of a real day comes soon. The user's own values win.
_PACE = {
    "IBKR_ROTATION_SECS": "5",
    "IBKR_OBSERVE_SECS": "15",
    "IBKR_SILENT_LINE_SECS": "3",
    "IBKR_HOURS_REFRESH_SECS": "5",
    "IBKR_FIRST_ROW_SECS": "5",
    "IBKR_ALERT_AFTER_SECS": "0",
    "IBKR_ALERT_GRACE_SECS": "5",
    "ARCHIVE_FLUSH_SECS": "5",
}


class RunFolder:
    """A fresh folder: `logs/`, `redis/`, `dagster_home/`. It is everybody's working directory, so no `.env` is read."""

    def __init__(self, config: Path | None = None) -> None:
        """`config` is the folder with ibkr_symbols.yaml and dagster.yaml; None searches the checkout, then the cwd."""
        self._config = _find_config(config)
        base = _CHECKOUT / ".run" if _is_checkout() and os.access(_CHECKOUT, os.W_OK) else None
        if base is not None:
            base.mkdir(exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="ibkr_market_box_", dir=base))
        self.logs, self.redis, self.home = (self.path / name for name in ("logs", "redis", "dagster_home"))
        for folder in (self.logs, self.redis, self.home):
            folder.mkdir()
        shutil.copy(self._config / INSTANCE, self.home / INSTANCE)
        self.universe = self._config / UNIVERSE

    def limit_universe(self, symbols: Sequence[str]) -> None:
        """Record these symbols instead of those of the configuration."""
        self.universe = self.path / UNIVERSE
        self.universe.write_text(json.dumps({"symbols": list(symbols)}))  # JSON is YAML

    def write_workspace(self, location: str, host: str, port: int) -> Path:
        """A workspace file that names the code server at `host` and `port`."""
        workspace = self.path / "workspace.yaml"
        server = {"host": host, "port": port, "location_name": location}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        return workspace

    @property
    def archive(self) -> Path:
        """Where the archiver keeps its files."""
        return self.path / "archive"

    def environment(
        self, gateway: tuple[str, int] | None = None, redis_url: str | None = None, alert_url: str = ""
    ) -> dict[str, str]:
        """The user's environment without what could redirect us, with what leads to our own servers."""
        env = _without_redirects(os.environ)
        named = {name.upper() for name in env}
        env |= {name: value for name, value in _PACE.items() if name not in named}
        env |= {"ALERT_URLS": alert_url, "ARCHIVE_URL": str(self.archive)}
        env |= {"DAGSTER_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        env |= {"SYMBOL_CONFIG_PATH": str(self.universe), "IBKR_LOG_LEVEL": "INFO"}
        env |= {
            "IBKR_AUTOMATION": "on",
            "IBKR_CALENDAR": "24/7",
            "IBKR_STOP_AT_CLOSE": "false",
        }  # its market never closes
        env["IBKR_WEB_TOKEN"] = ""  # on loopback nobody needs one
        if gateway is not None:
            env |= {"IBKR_HOST": gateway[0], "IBKR_PORT": str(gateway[1])}
        if redis_url is not None:
            env["REDIS_URL"] = redis_url
        return env

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _without_redirects(env: Mapping[str, str]) -> dict[str, str]:
    def harmless(name: str) -> bool:
        upper = name.upper()
        return upper not in _REDIRECTS and not upper.startswith("DAGSTER") and not upper.endswith("_PROXY")

    return {name: value for name, value in env.items() if harmless(name)}


def _is_checkout() -> bool:
    return (_CHECKOUT / "pyproject.toml").is_file()


def _find_config(given: Path | None) -> Path:
    candidates = [given] if given is not None else [_CHECKOUT / "config", Path.cwd() / "config"]
    for folder in candidates:
        if (folder / UNIVERSE).is_file() and (folder / INSTANCE).is_file():
            return folder.resolve()
    searched = " and ".join(map(str, candidates))
    raise BoxError(f"no {UNIVERSE} and {INSTANCE} in {searched}: name the folder that holds them with --config")


# ---- logs


_SHOWN_LEVELS = ("error", "critical")
_OWN_FIELDS = ("event", "level", "timestamp")


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One line of the log, at unix ms `at` (0 if that can't be read); `name` is empty for a line of another program."""

    name: str = ""
    at: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_rotation(self) -> bool:
        """Whether a rotation begins."""
        return self.name == "rotation_started"

    @property
    def clock(self) -> str:
        """The local time, to the second."""
        return datetime.fromtimestamp(self.at / 1000).astimezone().strftime("%H:%M:%S") if self.at else "--:--:--"


def parse_line(raw: str) -> LoggedEvent:
    """A line of the log; of another text nothing is known."""
    try:
        fields = json.loads(raw)
    except ValueError:
        return LoggedEvent()
    if not isinstance(fields, dict) or not isinstance(fields.get("event"), str):
        return LoggedEvent()
    try:
        moment = datetime.fromisoformat(fields["timestamp"].replace("Z", "+00:00"))
        return LoggedEvent(fields["event"], int(moment.timestamp() * 1000), fields)
    except (KeyError, ValueError, AttributeError):
        return LoggedEvent(fields["event"], 0, fields)


class RotationLines:
    """Turns log lines into lines for the terminal: rotations, with what was stored, and errors.

    `stale` are the symbols to name as stale.
    """

    def __init__(self) -> None:
        self.snapshots = 0
        self.rotations = 0
        self.stale: Sequence[str] = ()
        self._before: tuple[int, int] | None = None  # unix ms and snapshots at the last rotation

    def line_for(self, raw: str) -> str | None:
        """What to show for one line of the log; None for most. Lines of other programs are ignored."""
        event = parse_line(raw)
        if event.name == "snapshots_persisted":
            self.snapshots += int(event.fields.get("snapshots", 0))
        if event.is_rotation:
            return self._rotation(event)
        if event.fields.get("level") in _SHOWN_LEVELS:
            details = " ".join(f"{key}={value}" for key, value in event.fields.items() if key not in _OWN_FIELDS)
            return f"{event.clock}  {event.fields['level'].upper()} {event.name} {details}".rstrip()
        return None

    def _rotation(self, event: LoggedEvent) -> str:
        self.rotations += 1
        symbols = " ".join(event.fields.get("symbols", ()))
        turn = event.fields.get("turn", self.rotations)
        counts = f"{self._rate(event.at)} rows/s {self.snapshots:>10,} snapshots so far"
        stale = f"   stale: {' '.join(self.stale)}" if self.stale else ""
        return f"{event.clock}  rotation {turn}: {symbols:<24} {counts}{stale}"

    def _rate(self, at: int) -> str:
        before, self._before = self._before, (at, self.snapshots)
        if before is None or at <= before[0]:
            return f"{'-':>6}"
        return f"{(self.snapshots - before[1]) * 1000 / (at - before[0]):>6,.0f}"


class LogFollower:
    """The complete lines added since the last call to the files under `folder` that match; new files, too."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, pattern
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[str]:
        for path in sorted(self._folder.glob(self._pattern)):
            yield from self._new_lines_of(path)

    def _new_lines_of(self, path: Path) -> list[str]:
        start = self._read.get(path, 0)
        if path.stat().st_size <= start:
            return []
        with path.open("rb") as log:
            log.seek(start)
            complete, newline, _rest = log.read().rpartition(b"\n")
        self._read[path] = start + len(complete) + len(newline)
        return complete.decode(errors="replace").splitlines()
