"""The run folder of a box: its configuration, its children's environment, and its logs as lines for the terminal."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
    }
)


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

    def environment(self, gateway: tuple[str, int] | None = None, redis_url: str | None = None) -> dict[str, str]:
        """The user's environment without what could redirect us, with what leads to our own servers."""
        env = _without_redirects(os.environ)
        env |= {"DAGSTER_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        env |= {"SYMBOL_CONFIG_PATH": str(self.universe), "IBKR_LOG_LEVEL": "INFO"}
        env |= {"IBKR_STOP_AT_CLOSE": "false", "IBKR_AUTOMATION": "off"}  # its market never closes; it launches itself
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


class RotationLines:
    """Turns log lines into lines for the terminal: rotations, with the snapshots so far, and errors."""

    def __init__(self) -> None:
        self.snapshots = 0
        self.rotations = 0

    def line_for(self, raw: str) -> str | None:
        """What to show for one line of the log; None for most. Lines of other programs are ignored."""
        happening = _parse(raw)
        event = happening.get("event")
        if event == "snapshots_persisted":
            self.snapshots += int(happening.get("snapshots", 0))
        if event == "rotation_started":
            return self._rotation(happening)
        if happening.get("level") in _SHOWN_LEVELS:
            details = " ".join(f"{key}={value}" for key, value in happening.items() if key not in _OWN_FIELDS)
            return f"{_clock(happening)}  {happening['level'].upper()} {event} {details}".rstrip()
        return None

    def _rotation(self, happening: dict[str, Any]) -> str:
        self.rotations += 1
        symbols = " ".join(happening.get("symbols", ()))
        turn = happening.get("turn", self.rotations)
        return f"{_clock(happening)}  rotation {turn}: {symbols:<24} {self.snapshots:>10,} snapshots so far"


def _parse(raw: str) -> dict[str, Any]:
    try:
        happening = json.loads(raw)
    except ValueError:
        return {}
    return happening if isinstance(happening, dict) else {}


def _clock(happening: dict[str, Any]) -> str:
    """The local time of a happening, to the second."""
    try:
        return datetime.fromisoformat(happening["timestamp"].replace("Z", "+00:00")).astimezone().strftime("%H:%M:%S")
    except (KeyError, ValueError, AttributeError):
        return "--:--:--"


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
