"""A real web server that takes apprise's JSON, or refuses it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "s3cr3t-of-the-webhook"


class Webhook:
    """`received` holds each message that was taken; `refuse` answers 500 instead, `answer_secs` says how late.

    An answer that is not due when it ends is given then. Its URL holds SECRET twice.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.received: list[dict[str, Any]] = []
        self.refuse = False
        self.refused = 0
        self.answer_secs = 0.0
        self._over = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner._take(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"json://user:{SECRET}@{self._host}:{self._server.server_port}/hook/{SECRET}"

    def titles(self) -> list[str]:
        return [str(message["title"]) for message in self.received]

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        if self.refuse:
            self.refused += 1
        else:
            self.received.append(body)
        self._over.wait(self.answer_secs)
        request.send_response(500 if self.refuse else 200)
        request.end_headers()

    def __enter__(self) -> Webhook:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
