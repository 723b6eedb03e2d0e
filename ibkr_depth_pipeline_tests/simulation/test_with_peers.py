"""Two clients that the gateway was not written for: ib_async and IBKR's own ibapi.

ib_async's event library overwrites the module of ib_insync's, so both live in a second virtual environment: the
interpreter that PEERS_PYTHON names, else `.venv-peers` in the repository's root. The scripts in peers/ run there.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions, GatewayThread
from ibkr_depth_pipeline.simulation.rows import Book, WireRow, apply_rows

PEERS = Path(__file__).parent / "peers"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def peers_python() -> str:
    python = os.environ.get("PEERS_PYTHON") or str(REPOSITORY / ".venv-peers" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"no {python}: make a virtual environment with ib_async and ibapi, or name one in PEERS_PYTHON")
    probe = subprocess.run([python, "-c", "import ib_async, ibapi"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"{python} lacks ib_async or ibapi: {probe.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(params=["ib_async_session.py", "ibapi_session.py"])
def report(request: pytest.FixtureRequest, peers_python: str) -> tuple[dict[str, Any], GatewayThread]:
    """What the peer saw of one whole session, and the gateway that it saw."""
    with GatewayThread(GatewayOptions(rows_per_second=500.0)) as gateway:
        done = subprocess.run(
            [peers_python, str(PEERS / request.param), gateway.host, str(gateway.port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        gateway.wait_for(lambda simulated: not simulated.clients)
        return json.loads(done.stdout.splitlines()[-1]), gateway


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
