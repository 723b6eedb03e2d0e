"""The operator's phone of a box: takes the alerts that Dagster's sensors send, as any target of ALERT_URLS does."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ibkr_depth_pipeline.box.embedded_redis import HOST
from ibkr_depth_pipeline.clock import unix_ms

_LONGEST = 1_000_000
_NAMES = {"failure": "ALERT", "success": "RECOVERED", "warning": "NOTICE"}


@dataclass(frozen=True, slots=True)
class ReceivedAlert:
    """An alert as it came in at unix ms `ts`. `kind` is apprise's: failure, success, warning or info."""

    ts: int
    kind: str
    title: str
    text: str

    @property
    def of_trouble(self) -> bool:
        """Whether it reports trouble, not its end."""
        return self.kind != "success"

    def lines(self) -> list[str]:
        """It as a message on a phone, in text."""
        head = f"┏━ {_NAMES.get(self.kind, 'NOTICE')}  {self.title}"
        return [head, *(f"┃  {line}" for line in self.text.splitlines()), "┗━"]


class AlertReceiver:
    """Listens on loopback inside the block; `url` is its entry in ALERT_URLS."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[ReceivedAlert] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self._server.daemon_threads = True

    def __enter__(self) -> AlertReceiver:
        threading.Thread(target=self._server.serve_forever, name="alerts", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"json://{HOST}:{self._server.server_port}/"

    def new(self) -> Iterator[ReceivedAlert]:
        """The alerts since the last call, in the order in which they came."""
        while not self._received.empty():
            yield self._received.get()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        received = self._received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                try:
                    body = self.rfile.read(min(_LONGEST, int(self.headers.get("Content-Length") or 0)))
                    received.put(_alert(json.loads(body)))
                except (ValueError, AttributeError):
                    self.send_error(400)
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the terminal is for the alerts themselves."""

        return Handler


def _alert(sent: dict[str, Any]) -> ReceivedAlert:
    return ReceivedAlert(
        unix_ms(), str(sent.get("type", "info")), str(sent.get("title", "")), str(sent.get("message", ""))
    )
