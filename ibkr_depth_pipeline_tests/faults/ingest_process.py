"""The real console script as a process, which a test may kill, pause and read."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

SCRIPT = Path(sys.executable).with_name("ibkr_ingest_run")
SYMBOLS = ("SPY", "QQQ", "IWM")


class IngestProcess:
    """One `ibkr_ingest_run run` under way. wrapper: a command that runs it in another namespace, say."""

    def __init__(self, folder: Path, name: str, environment: dict[str, str], wrapper: Sequence[str] = ()) -> None:
        self.log_path = folder / f"{name}.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith(("IBKR_", "REDIS_", "SYMBOL_"))}
        self.process = GuardedProcess(
            [*wrapper, SCRIPT, "run"], log_path=self.log_path, env={**env, **environment}, cwd=folder
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log's lines so far, all or of one event."""
        texts = self.log_path.read_text(errors="replace").splitlines()
        lines = [json.loads(text) for text in texts if text.startswith("{") and text.endswith("}")]
        return [line for line in lines if event is None or line["event"] == event]

    def said(self, event: str) -> None:
        """Wait until the log holds `event`."""
        assert wait_until(lambda: bool(self.lines(event)) or not self.process.running, PATIENCE_SECS)
        assert self.lines(event), self.log_path.read_text()

    def ended(self) -> int:
        """Wait for its end. Returns the exit code."""
        assert wait_until(lambda: not self.process.running, PATIENCE_SECS), self.log_path.read_text()[-3000:]
        code = self.process.exit_code
        assert code is not None
        return code

    def kill(self) -> None:
        self.process.send(signal.SIGKILL)
        self.ended()


@contextmanager
def ingest_process(
    folder: Path, name: str, environment: dict[str, str], wrapper: Sequence[str] = ()
) -> Iterator[IngestProcess]:
    """A run that is gone at the end, however the test ends."""
    run = IngestProcess(folder, name, environment, wrapper)
    try:
        yield run
    finally:
        run.process.send(signal.SIGCONT)
        run.process.end(grace_secs=6)


def environment_of(folder: Path, port: int, redis_url: str, *symbols: str, **settings: object) -> dict[str, str]:
    """The settings of a run of `symbols` against two servers; streams are kept whole and the lease is short."""
    universe = folder / "symbols.yaml"
    universe.write_text("symbols: [" + ", ".join(symbols) + "]\n")
    given = {
        "ibkr_port": port,
        "redis_url": redis_url,
        "symbol_config_path": universe,
        "ibkr_stream_maxlen": 10_000_000,
        "ibkr_lease_ttl_secs": 2,
        **settings,
    }
    return {key.upper(): str(value) for key, value in given.items()}


def grows(url: str, symbol: str, by: int) -> None:
    """Wait until the stream of `symbol` is longer by `by`."""
    with redis.Redis.from_url(url) as client:
        before = client.xlen(stream_key(symbol))
        assert wait_until(lambda: client.xlen(stream_key(symbol)) >= before + by, PATIENCE_SECS)
