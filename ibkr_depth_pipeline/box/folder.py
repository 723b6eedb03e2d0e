"""Where a box lives: its run folder, the configuration it takes from the repository, its children's environment."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ibkr_depth_pipeline.box.processes import BoxError

UNIVERSE = "ibkr_symbols.yaml"
INSTANCE = "dagster.yaml"
_CHECKOUT = Path(__file__).resolve().parents[2]
# What would lead the ingest to a gateway or a Redis that isn't ours, or Dagster to somebody's instance; a proxy would
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
        """`config` is the folder with ibkr_symbols.yaml and dagster.yaml; None looks in the checkout, then the cwd."""
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
    looked = " and ".join(map(str, candidates))
    raise BoxError(f"no {UNIVERSE} and {INSTANCE} in {looked}: name the folder that holds them with --config")
