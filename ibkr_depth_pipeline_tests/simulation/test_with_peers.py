"""Clients that the gateway was not written for: ib_async, IBKR's own ibapi of 2021 and its ibapi of today.

ib_async's event library overwrites the module of ib_insync's, and both ibapi have one name, so they live in virtual
environments of their own, in the repository's root or beside the folder that PEERS_FOLDER names. peers/ runs there.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions, GatewayThread
from ibkr_depth_pipeline.simulation.rows import Book, WireRow, apply_rows
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

SESSIONS = Path(__file__).parent / "peers"
REPOSITORY = Path(__file__).parents[2]
PEERS = {
    "ib_async": (".venv-peers", "ib_async_session.py", 176),
    "ibapi": (".venv-peers", "ibapi_session.py", 157),
    "ibapi_latest": (".venv-peers-latest", "ibapi_session.py", 176),
}
"""Virtual environment, script, and the newest protocol version that both sides speak."""


def _python(folder: str, package: str) -> str:
    """The interpreter of a peer's virtual environment; skips the test if it lacks the package."""
    python = str(Path(os.environ.get("PEERS_FOLDER", REPOSITORY)) / folder / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"no {python}: `make test` makes it, or name the folder that holds {folder} in PEERS_FOLDER")
    probe = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"{python} lacks {package}: {probe.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(params=PEERS)
def report(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], GatewayThread]]:
    """What the peer saw of one whole session, and the gateway that it saw."""
    folder, session, version = PEERS[request.param]
    python = _python(folder, session.removesuffix("_session.py"))
    with GatewayThread(GatewayOptions(rows_per_second=500.0)) as gateway:
        done = subprocess.run(
            [python, str(SESSIONS / session), gateway.host, str(gateway.port)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        gateway.wait_for(lambda simulated: not simulated.clients)
        seen = json.loads(done.stdout.splitlines()[-1])
        assert seen["server_version"] == version
        yield seen, gateway


def test_peer_gets_through_a_whole_session(report: tuple[dict[str, Any], GatewayThread]) -> None:
    """Connect, contract details, depth of both kinds of venues, 309, 310, 326, cancel."""
    seen, gateway = report
    assert seen["accounts"] == ["DU1234567"]
    assert seen["details"] == [265598, "NASDAQ", "APPLE INC", 0.01]
    assert {"ISLAND", "ARCA", "IDEALPRO"} <= set(seen["depth_exchanges"])
    assert {200, 309, 310, 2104, 2106, 2158} <= set(seen["codes"])
    assert seen["second_client_codes"] == [326]
    for name, rows in seen["rows"].items():
        received = [WireRow(*row) for row in rows]
        named = name == "AAPL"
        sent = [row if named else row._replace(market_maker="") for row in gateway.journal.rows(name)]
        assert len(received) >= 200
        assert received == sent[: len(received)]
        assert len(apply_rows(Book(), received).bids) in (9, 10)
    cancelled = [entry.name for entry in gateway.journal.entries("unsubscribed")]
    assert cancelled[0] == "AAPL"
    assert gateway.journal.requests("cancelMktDepth")
