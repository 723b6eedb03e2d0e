"""A gateway that plays a tape: `python -m bench.player TAPE --symbols N --rows N [--rate R] [--sent-times FILE]`.

Everything but depth is answered by a simulated gateway in this process; its part in the machine's work is over before
the first row. Rows are encoded before the clock starts, and leave as fast as the socket takes them, or one at a time
at `--rate` rows a second. On stdout, one JSON object a line: the port; when the first byte left; when the last had.
Times are time.monotonic_ns, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from array import array
from pathlib import Path

from bench.tape import Tape, framed, frames_of
from ibkr_depth_pipeline.simulation import GatewayOptions, GatewayThread

CHUNK_BYTES = 1 << 16
_PREAMBLE = b"API\0"
_REQUEST_DEPTH, _CANCEL_DEPTH = b"10\0", b"11\0"


class Player:
    """One client's connection. The tape begins once `symbols` have been subscribed to and `settle` seconds are over."""

    def __init__(self, client: socket.socket, gateway: socket.socket, options: argparse.Namespace) -> None:
        self._client = client
        self._gateway = gateway
        self._options = options
        self._tape = Tape.load(options.tape)
        self._requests: list[bytes] = []
        self._writing = threading.Lock()  # whole frames only: two threads write

    def serve(self) -> None:
        """Until the client is gone."""
        greeting = self._client.recv(len(_PREAMBLE), socket.MSG_WAITALL)
        self._gateway.sendall(greeting)
        threading.Thread(target=self._forward_answers, daemon=True).start()
        for body in frames_of(self._client):
            if body.startswith(_REQUEST_DEPTH):
                self._subscribed(body)
            elif not body.startswith(_CANCEL_DEPTH):
                self._gateway.sendall(framed(body))

    def _forward_answers(self) -> None:
        for body in frames_of(self._gateway):
            with self._writing:
                self._client.sendall(framed(body))

    def _subscribed(self, body: bytes) -> None:
        self._requests.append(body.split(b"\0")[2])
        if len(self._requests) == self._options.symbols:
            threading.Thread(target=self._play, daemon=True).start()

    def _play(self) -> None:
        frames = self._frames()
        time.sleep(self._options.settle)
        send = self._send_paced if self._options.rate else self._send_at_once
        try:
            send(frames)
        except OSError:  # the client is gone, and has said why
            return
        say(sent=time.monotonic_ns())

    def _frames(self) -> list[bytes]:
        """Every row as a frame, the symbols in turn."""
        each = self._options.rows // self._options.symbols
        streams = [
            [framed(head + request + b"\0" + tail) for head, tail in self._tape.stream(number, each)]
            for number, request in enumerate(self._requests)
        ]
        return [frame for row in zip(*streams, strict=True) for frame in row]

    def _send_at_once(self, frames: list[bytes]) -> None:
        chunks, chunk = [], bytearray()
        for frame in frames:
            chunk += frame
            if len(chunk) >= CHUNK_BYTES:
                chunks.append(bytes(chunk))
                chunk.clear()
        chunks.append(bytes(chunk))
        say(started=time.monotonic_ns())
        for each in chunks:
            with self._writing:
                self._client.sendall(each)

    def _send_paced(self, frames: list[bytes]) -> None:
        sent = array("q")
        interval, start = int(1e9 / self._options.rate), time.monotonic_ns()
        say(started=start)
        for number, frame in enumerate(frames):
            wait = start + number * interval - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            sent.append(time.monotonic_ns())
            with self._writing:
                self._client.sendall(frame)
        self._options.sent_times.write_bytes(sent.tobytes())


def say(**fields: int) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tape", type=Path)
    parser.add_argument("--symbols", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True, help="of all symbols together")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--sent-times", type=Path)
    parser.add_argument("--settle", type=float, default=0.3)
    options = parser.parse_args()
    with GatewayThread(GatewayOptions()) as gateway, socket.create_server(("127.0.0.1", 0)) as listening:
        say(port=listening.getsockname()[1])
        client, _ = listening.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, socket.create_connection((gateway.host, gateway.port)) as behind:
            try:
                Player(client, behind, options).serve()
            except ConnectionError:
                pass
            finally:
                behind.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
