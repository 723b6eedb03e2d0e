"""Viewers of the web page without a browser: `python -m bench.web_viewers ADDRESS SYMBOL COUNT SECS [PACE]`.

With a PACE each handles so many messages a second and reads nothing in between, so that what is sent to it piles up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect

ACKNOWLEDGE_EVERY = 6


class Counts:
    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        self.thinned = 0
        """Frames that the server says it left out."""


async def view(address: str, symbol: str, counts: Counts, pace: float) -> None:
    queue = 1 if pace else None
    async with connect(address.replace("http", "ws", 1) + "live", compression=None, max_queue=queue) as socket:
        await socket.send(json.dumps({"watch": symbol}))
        got = 0
        async for message in socket:
            got += 1
            counts.bytes += len(message)
            counts.frames += message.startswith(b'{"k":"frame"')
            if message.startswith(b'{"k":"thinned"'):
                counts.thinned += json.loads(message)["frames"]
            if got % ACKNOWLEDGE_EVERY == 0:
                await socket.send(json.dumps({"got": got}))
            if pace:
                await asyncio.sleep(1 / pace)


async def main(address: str, symbol: str, count: int, secs: float, pace: float = 0.0) -> None:
    counts = Counts()
    viewers = [asyncio.ensure_future(view(address, symbol, counts, pace)) for _ in range(count)]
    while count and counts.frames < count:
        await asyncio.sleep(0.05)
        for each in viewers:
            if each.done():
                each.result()
    print(json.dumps({"connected": count}), flush=True)
    frames, size, thinned, began = counts.frames, counts.bytes, counts.thinned, time.monotonic()
    await asyncio.sleep(secs)
    took = (time.monotonic() - began) * max(1, count)
    found = {
        "frames": (counts.frames - frames) / took,
        "kb": (counts.bytes - size) / took / 1000,
        "thinned": (counts.thinned - thinned) / took,
    }
    print(json.dumps(found), flush=True)
    for each in viewers:
        each.cancel()
    await asyncio.gather(*viewers, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(float, sys.argv[4:])))
