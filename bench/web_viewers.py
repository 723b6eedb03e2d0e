"""Viewers of the web page without a browser: `python -m bench.web_viewers ADDRESS SYMBOL COUNT SECS`."""

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


async def view(address: str, symbol: str, counts: Counts) -> None:
    async with connect(address.replace("http", "ws", 1) + "live", compression=None, max_queue=None) as socket:
        await socket.send(json.dumps({"watch": symbol}))
        got = 0
        async for message in socket:
            got += 1
            counts.bytes += len(message)
            counts.frames += message.startswith(b'{"k":"frame"')
            if got % ACKNOWLEDGE_EVERY == 0:
                await socket.send(json.dumps({"got": got}))


async def main(address: str, symbol: str, count: int, secs: float) -> None:
    counts = Counts()
    viewers = [asyncio.ensure_future(view(address, symbol, counts)) for _ in range(count)]
    while count and counts.frames < count:
        await asyncio.sleep(0.05)
        for each in viewers:
            if each.done():
                each.result()
    print(json.dumps({"connected": count}), flush=True)
    frames, size, began = counts.frames, counts.bytes, time.monotonic()
    await asyncio.sleep(secs)
    took = (time.monotonic() - began) * max(1, count)
    print(
        json.dumps({"frames": (counts.frames - frames) / took, "kb": (counts.bytes - size) / took / 1000}), flush=True
    )
    for each in viewers:
        each.cancel()
    await asyncio.gather(*viewers, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
