"""The dead man's switch hears of it each minute if all is well, at once if not, and nothing of its URL is logged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.monitoring.deadman import EVERY_MS, fail_url, ping
from ibkr_depth_pipeline.monitoring.state import DeadmanPing
from ibkr_depth_pipeline.settings import load_settings

T = 1_700_000_000_000
SECRET = "s3cr3t-of-the-switch"


class Switch:
    """A web server that notes the paths it is asked for; `code` is its answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.code = 200
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                self.send_response(owner.code)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"

    def __enter__(self) -> Switch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def switch() -> Iterator[Switch]:
    with Switch() as running:
        yield running


def test_switch_is_pinged_each_minute_and_a_change_is_reported_at_once(switch: Switch) -> None:
    last = ping(switch.url, DeadmanPing(), well=True, now=T)
    last = ping(switch.url, last, well=True, now=T + EVERY_MS - 1)
    last = ping(switch.url, last, well=True, now=T + EVERY_MS)
    assert switch.asked == [f"/{SECRET}"] * 2
    last = ping(switch.url, last, well=False, now=T + EVERY_MS + 1)
    last = ping(switch.url, last, well=True, now=T + EVERY_MS + 2)
    assert switch.asked[2:] == [f"/{SECRET}/fail", f"/{SECRET}"]
    assert last == DeadmanPing(T + EVERY_MS + 2, True)


def test_switch_that_refuses_or_is_away_is_tried_again_and_its_url_is_not_logged(
    switch: Switch, capfd: pytest.CaptureFixture[str]
) -> None:
    switch.code = 500
    assert ping(switch.url, DeadmanPing(), well=True, now=T) == DeadmanPing()
    away = f"http://127.0.0.1:{free_port()}/{SECRET}"
    assert ping(away, DeadmanPing(), well=False, now=T) == DeadmanPing()
    logged = "".join(capfd.readouterr())
    assert logged.count("deadman_not_reached") == 2
    assert SECRET not in logged


def test_dead_mans_switch_without_a_url_pings_nothing() -> None:
    assert ping("", DeadmanPing(), well=False, now=T) == DeadmanPing()


@pytest.mark.parametrize(
    ("url", "failing"),
    [
        ("https://hc.example/uuid", "https://hc.example/uuid/fail"),
        ("https://hc.example/uuid/?a=1", "https://hc.example/uuid/fail?a=1"),
        ("http://kuma/api/push/x?status=up&msg=OK&ping=", "http://kuma/api/push/x?status=down&msg=trouble&ping="),
    ],
)
def test_failure_is_reported_as_the_service_expects_it(url: str, failing: str) -> None:
    assert fail_url(url) == failing


@pytest.mark.parametrize("url", [f"ftp://host/{SECRET}", SECRET, f"http:///{SECRET} x"])
def test_other_urls_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DEADMAN_URL") as refused:
        load_settings(deadman_url=url)
    assert SECRET not in str(refused.value)
