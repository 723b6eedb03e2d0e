"""Three hosts, each a network namespace: one is lost and comes back, one is cut off, also while a standby takes over.

Each test ends with all that was ever stored compared with all that the gateways ever sent: each book once, in order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.schema.keys import lease_key
from ibkr_depth_pipeline_tests.deploy.hosts import PATIENCE_SECS, UNIVERSES, SeveralHosts, several_hosts
from ibkr_depth_pipeline_tests.faults.sent_books import books_sent, unsent

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
CUT_OFF_SECS = float(os.environ.get("CUT_OFF_SECS", "30"))
"""How long a host is cut off: six times IBKR_LEASE_TTL_SECS."""

ALL_LOADED = {"monitor": True, "alpha": True, "beta": True}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeveralHosts]:
    with several_hosts(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


def measured(what: str, condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    assert wait_until(condition, PATIENCE_SECS), f"not in {PATIENCE_SECS:g} s: {what}"
    print(f"MEASURED {what}: {time.monotonic() - began:.1f} s")


def records(deployed: SeveralHosts, site: str, after: str = "") -> bool:
    """Whether a run other than `after` is alive there, and what comes from the gateway is stored at once."""
    if deployed.recorder(site) in ("", after):
        return False
    newest = [deployed.newest_ts(symbol) for symbol in UNIVERSES[site]]
    return min(newest) > unix_ms() - 2000


def is_shown_as_live(deployed: SeveralHosts, site: str) -> bool:
    """Whether each symbol is an asset of that host's code location, its heartbeat checked by the monitoring one."""
    return all(deployed.shown(symbol) == (site, {"heartbeat": "SUCCEEDED"}) for symbol in UNIVERSES[site])


def all_is_well(deployed: SeveralHosts) -> None:
    """Wait until both hosts record and no incident stands, such as that of a start on a busy machine."""
    assert wait_until(lambda: all(records(deployed, site) for site in UNIVERSES), PATIENCE_SECS)
    assert wait_until(lambda: not any(deployed.is_in_trouble(site) for site in UNIVERSES), PATIENCE_SECS)


def each_book_stands_once(deployed: SeveralHosts) -> None:
    """What is stored is what was sent, of each subscription from its first book on, and is numbered without a hole."""
    for site, symbols in UNIVERSES.items():
        stored = {symbol: deployed.stored(symbol) for symbol in symbols}
        sent = books_sent(deployed.sites[site].sent())
        for symbol, snapshots in stored.items():
            assert [each.seq for each in snapshots] == list(range(1, len(snapshots) + 1))
            assert unsent(snapshots, sent[symbol]) is None


def unstored(deployed: SeveralHosts, site: str) -> int:
    """How many rows of the first subscriptions, which have ended, are not stored."""
    sent = books_sent(deployed.sites[site].sent())
    return sum(len(sent[symbol][0]) - deployed.length(symbol) for symbol in UNIVERSES[site])


def test_both_universes_are_recorded_by_runs_of_their_own_hosts(deployed: SeveralHosts) -> None:
    for site in UNIVERSES:
        measured(f"{site} records", partial(records, deployed, site))
        assert deployed.status(deployed.recorder(site)) == "STARTED"
        assert deployed.host_of(site) == site
    measured("webserver lists all code locations", lambda: deployed.locations() == ALL_LOADED)
    for site in UNIVERSES:
        assert wait_until(partial(is_shown_as_live, deployed, site), PATIENCE_SECS)
    each_book_stands_once(deployed)


def test_lost_host_is_alerted_and_records_again_once_it_is_back(deployed: SeveralHosts) -> None:
    all_is_well(deployed)
    before = {site: deployed.recorder(site) for site in UNIVERSES}
    seen = len(deployed.webhook.received)

    deployed.sites["beta"].lose()
    measured("lost host alerted", lambda: deployed.alerted("beta: feed stale", seen))
    measured("webserver has the lost host's location as an error", lambda: not deployed.locations().get("beta", True))
    assert deployed.grows("alpha")
    assert not deployed.alerted("alpha", seen)

    print(f"MEASURED rows that the lost host had not stored: {unstored(deployed, 'beta')}")
    deployed.sites["beta"].host.regain_link()
    deployed.sites["beta"].start(deployed)
    measured("host that is back records", lambda: records(deployed, "beta", before["beta"]))
    measured("webserver lists it again", lambda: deployed.locations() == ALL_LOADED)
    measured("its recovery alerted", lambda: deployed.alerted("beta: recovered", seen))
    assert deployed.status(before["beta"]) == "FAILURE"
    assert deployed.status(deployed.recorder("beta")) == "STARTED"
    assert deployed.recorder("alpha") == before["alpha"]
    assert deployed.ended_subscriptions("alpha") == 0
    each_book_stands_once(deployed)


def test_host_that_was_cut_off_stores_what_it_held_once(deployed: SeveralHosts) -> None:
    all_is_well(deployed)
    run, seen = deployed.recorder("alpha"), len(deployed.webhook.received)

    deployed.sites["alpha"].host.cut_off()
    began = time.monotonic()
    assert wait_until(lambda: not deployed.shared.store.exists(lease_key("alpha")), PATIENCE_SECS)
    held = deployed.lengths("alpha")
    while time.monotonic() < began + CUT_OFF_SECS or not deployed.alerted("alpha: feed stale", seen):
        assert deployed.grows("beta", by=20)
        assert time.monotonic() < began + PATIENCE_SECS, "no alert came"
    assert deployed.lengths("alpha") == held
    ticks = deployed.ticks("ibkr_depth_watchdog_alpha")

    deployed.sites["alpha"].host.rejoin()
    away = time.monotonic() - began
    print(f"MEASURED cut off for {away:.0f} s")
    measured("all that the host held is stored", lambda: records(deployed, "alpha"))
    measured("its sensors tick", lambda: deployed.ticks("ibkr_depth_watchdog_alpha") > ticks)
    measured("webserver lists it", lambda: deployed.locations() == ALL_LOADED)
    measured("its recovery alerted", lambda: deployed.alerted("alpha: recovered", seen))
    assert deployed.recorder("alpha") == run
    assert deployed.status(run) == "STARTED"
    assert deployed.ended_subscriptions("alpha") == 0
    each_book_stands_once(deployed)


def test_host_that_was_replaced_while_cut_off_adds_nothing(deployed: SeveralHosts) -> None:
    all_is_well(deployed)
    alpha, run = deployed.sites["alpha"], deployed.recorder("alpha")
    standby = deployed.start_standby("alpha", deployed.shared.host)

    alpha.host.cut_off()
    measured("standby elsewhere has taken over", lambda: records(deployed, "alpha", run))
    assert deployed.host_of("alpha") == "shared"
    time.sleep(CUT_OFF_SECS / 3)  # the host that is cut off gathers rows that must not be stored

    alpha.host.rejoin()
    measured("run that was replaced has ended", lambda: deployed.status(run) == "FAILURE")
    assert deployed.grows("alpha")
    assert deployed.host_of("alpha") == "shared"
    standby.end(grace_secs=10.0)
    alpha.end_last_gateway()
    measured("its own host records again", lambda: records(deployed, "alpha") and deployed.host_of("alpha") == "alpha")
    each_book_stands_once(deployed)


def test_hosts_record_through_the_loss_of_what_they_share(deployed: SeveralHosts) -> None:
    all_is_well(deployed)
    runs = {site: deployed.recorder(site) for site in UNIVERSES}

    deployed.shared.host.cut_off()  # Redis, Postgres, daemon and webserver
    time.sleep(CUT_OFF_SECS)

    deployed.shared.host.rejoin()
    for site in UNIVERSES:
        measured(f"all that {site} held is stored", partial(records, deployed, site))
        assert deployed.recorder(site) == runs[site]
        assert deployed.status(runs[site]) == "STARTED"
    measured("webserver lists all code locations", lambda: deployed.locations() == ALL_LOADED)
    each_book_stands_once(deployed)
