"""Replays hftbacktest exports with the package itself; runs in an environment of its own.

    hftbacktest_books.py TICK_SIZE FILE...

Prints a JSON list for each file: [unix ns, best bid, best ask, bids, asks] at each moment at which something is seen
from here, each side as [tick, quantity] over all ticks that the file has, best first.
"""

import json
import math
import sys

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.data.validation import validate_event_order
from hftbacktest.types import event_dtype

NEXT_FEED = 2
FOREVER = 10**18


def books(path, tick_size):
    data = np.load(path)["data"]
    assert data.dtype == event_dtype, data.dtype
    validate_event_order(data)
    ticks = np.unique(np.round(data["px"][np.isfinite(data["px"])] / tick_size).astype(int)).tolist()
    asset = (
        BacktestAsset()
        .data([path])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(tick_size)
        .lot_size(1.0)
    )
    replay = HashMapMarketDepthBacktest([asset])
    found = []
    while replay.wait_next_feed(False, FOREVER) == NEXT_FEED:
        depth = replay.depth(0)
        bids = [[tick, depth.bid_qty_at_tick(tick)] for tick in reversed(ticks)]
        asks = [[tick, depth.ask_qty_at_tick(tick)] for tick in ticks]
        best = [None if math.isnan(price) else price for price in (depth.best_bid, depth.best_ask)]
        found.append([replay.current_timestamp, *best, *([each for each in side if each[1]] for side in (bids, asks))])
    replay.close()
    return found


if __name__ == "__main__":
    print(json.dumps([books(path, float(sys.argv[1])) for path in sys.argv[2:]]))
