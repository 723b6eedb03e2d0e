"""Books as Databento's MBP-10 records (DBN). Pure: numpy arrays of records, in the layout that the library reads.

One record a book: its action is that of the first changed level, N if no level has changed. A record of action R
(clear) with F_MAYBE_BAD_BOOK stands where nothing more is known of the book: at the end of an interval and at a hole.
The first whole book behind it carries F_SNAPSHOT. A settled book carries F_LAST, one that comes before the first whole
book F_MAYBE_BAD_BOOK. IBKR names no exchange time: ts_event is the time of receipt in ms, ts_recv the same in ns if it
was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING
from zlib import crc32

import databento_dbn as dbn
import numpy as np

from ibkr_depth_pipeline.errors import ExportRefused
from ibkr_depth_pipeline.export.books import NS_PER_MS, Books, Ends, Ladder, ends, first_whole, preceding
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.price_levels import Array

if TYPE_CHECKING:
    from databento_dbn.metadata import MappingInterval

DATASET = "IBKR.DEPTH"
"""The dataset's name in the files: this project's own, none of Databento's."""
PUBLISHER = 60_000
"""The publisher id of every record; Databento counts its own from 1 on."""

_LEVEL = np.dtype(
    [("bid_px", "<i8"), ("ask_px", "<i8"), ("bid_sz", "<u4"), ("ask_sz", "<u4"), ("bid_ct", "<u4"), ("ask_ct", "<u4")]
)
RECORD = np.dtype(
    [
        ("length", "u1"),
        ("rtype", "u1"),
        ("publisher_id", "<u2"),
        ("instrument_id", "<u4"),
        ("ts_event", "<u8"),
        ("price", "<i8"),
        ("size", "<u4"),
        ("action", "S1"),
        ("side", "S1"),
        ("flags", "u1"),
        ("depth", "u1"),
        ("ts_recv", "<u8"),
        ("ts_in_delta", "<i4"),
        ("sequence", "<u4"),
        ("levels", _LEVEL, SNAPSHOT_LEVELS),
    ]
)
"""A record of MBP-10, as DBN lays it out."""

_RTYPE = 10
_MOST = 2**32 - 2
"""The highest size and sequence; the highest number that fits stands for an unknown one."""
_EXACT = 2**53
_MOST_PRICE = 2.0**63 - 2**10
_NO_LEVEL = np.array([(dbn.UNDEF_PRICE, dbn.UNDEF_PRICE, 0, 0, 0, 0)], _LEVEL)


def records(books: Books, before: Books | None, instrument_ids: Array) -> Array:
    """A record for each book, and one of action R where a segment has ended.

    `before` is the book before these, None at the beginning. instrument_ids holds one for each interval of the day.
    Raises ExportRefused for what the format can't hold.
    """
    earlier, same = preceding(books, before)
    made = _blank(books, instrument_ids[books.interval])
    made["levels"] = _levels(books)
    made["flags"] = (
        np.where(books.settled, dbn.F_LAST, 0)
        | np.where(first_whole(books, earlier, same), dbn.F_SNAPSHOT, 0)
        | np.where(books.whole, 0, dbn.F_MAYBE_BAD_BOOK)
    )
    levels_before = np.concatenate((_levels(earlier[:1]), made["levels"][:-1]))
    levels_before[~same] = _NO_LEVEL
    _fill_change(made, levels_before)
    over = ends(books, earlier, same, before)
    return np.insert(made, over.at, clears(over, instrument_ids))


def clears(over: Ends, instrument_ids: Array) -> Array:
    """The records of action R for these ends."""
    made = np.zeros(len(over.at), RECORD)
    _fill_head(made, instrument_ids[over.of], over.ts, over.received, over.seq)
    made["action"], made["side"], made["price"] = b"R", b"N", dbn.UNDEF_PRICE
    made["flags"] = dbn.F_MAYBE_BAD_BOOK | dbn.F_LAST
    made["levels"] = _NO_LEVEL
    return made


def _blank(books: Books, instrument_ids: Array) -> Array:
    made = np.zeros(len(books), RECORD)
    _fill_head(made, instrument_ids, books.ts, books.received, books.seq)
    return made


def _fill_head(made: Array, instrument_ids: Array, ts: Array, received: Array, seq: Array) -> None:
    if len(seq) and seq.max() > _MOST:
        raise ExportRefused(f"seq {seq.max()} does not fit DBN's 32 bits: export to parquet, csv or nautilus")
    made["length"], made["rtype"], made["publisher_id"] = RECORD.itemsize // 4, _RTYPE, PUBLISHER
    made["instrument_id"], made["sequence"] = instrument_ids, seq
    made["ts_event"], made["ts_recv"] = ts * NS_PER_MS, received


# ---- levels


def _levels(books: Books) -> Array:
    made = np.empty((len(books), SNAPSHOT_LEVELS), _LEVEL)
    for side, ladder in (("bid", books.bids), ("ask", books.asks)):
        made[f"{side}_px"] = _fixed(ladder, books.seq)
        made[f"{side}_sz"] = _whole_sizes(ladder, books.seq)
        made[f"{side}_ct"] = ladder.counts
    return made


def _fixed(ladder: Ladder, seq: Array) -> Array:
    """Prices in units of 1e-9."""
    prices = np.where(ladder.present, ladder.prices, 0.0)
    fixed = np.rint(prices * dbn.FIXED_PRICE_SCALE)
    wrong = np.abs(fixed) >= _MOST_PRICE
    wrong |= (np.abs(fixed) < _EXACT) & (fixed / dbn.FIXED_PRICE_SCALE != prices)
    _refuse_any(wrong, prices, seq, "price {} does not fit DBN, whose prices are whole units of 1e-9 in 64 bits")
    return np.where(ladder.present, fixed.astype(np.int64), dbn.UNDEF_PRICE)


def _whole_sizes(ladder: Ladder, seq: Array) -> Array:
    sizes = ladder.sizes
    wrong = (sizes != np.rint(sizes)) | (sizes < 0) | (sizes > _MOST)
    _refuse_any(wrong, sizes, seq, f"size {{}} does not fit DBN, whose sizes are whole numbers from 0 to {_MOST}")
    return sizes


def _refuse_any(wrong: Array, values: Array, seq: Array, text: str) -> None:
    at = np.argwhere(wrong)
    if len(at):
        (row, level), *_ = at
        found = text.format(float(values[row, level]))
        raise ExportRefused(f"seq {seq[row]}: {found}; --to parquet, csv and hftbacktest take it as it is")


# ---- what has changed


def _fill_change(made: Array, before: Array) -> None:
    """Sets action, side, depth, price and size by the first level that differs from the levels `before`."""
    after = made["levels"]
    old_px, new_px, old_sz, new_sz = (_both(levels, what) for what in ("px", "sz") for levels in (before, after))
    changed = (old_px != new_px) | (old_sz != new_sz) | (_both(before, "ct") != _both(after, "ct"))
    first = changed.argmax(axis=1)[:, None]
    old, new, old_size, new_size = (
        np.take_along_axis(values, first, axis=1)[:, 0] for values in (old_px, new_px, old_sz, new_sz)
    )
    is_ask = first[:, 0] % 2 == 1
    step = _rank(new, is_ask) - _rank(old, is_ask)
    some = changed.any(axis=1)
    made["action"] = np.where(some, np.select([step < 0, step > 0], [b"A", b"C"], b"M"), b"N")
    made["side"] = np.where(some, np.where(is_ask, b"A", b"B"), b"N")
    made["depth"] = np.where(some, first[:, 0] // 2, 0)
    made["price"] = np.where(some, np.where(step > 0, old, new), dbn.UNDEF_PRICE)
    made["size"] = np.where(some, np.where(step > 0, old_size, new_size), 0)


def _both(levels: Array, what: str) -> Array:
    """Bid and ask of the best level, of the next one, and so on: twenty columns."""
    sides: Array = np.stack([levels[f"bid_{what}"], levels[f"ask_{what}"]], axis=2).reshape(len(levels), -1)
    return sides


def _rank(prices: Array, is_ask: Array) -> Array:
    """Lower is better; a level that is not there comes last."""
    return np.where(prices == dbn.UNDEF_PRICE, np.inf, np.where(is_ask, prices, -prices))


# ---- the header of a file


@dataclass
class _MappingInterval:
    start_date: date
    end_date: date
    symbol: str


@dataclass
class _Mapping:
    raw_symbol: str
    intervals: Sequence[MappingInterval]


def instrument_ids(symbol: str, con_ids: Iterable[int]) -> Array:
    """The instrument id of each interval of the day: its con_id, or a hash of the symbol if that was not recorded.

    The last one is that of books in no interval.
    """
    unknown = crc32(symbol.encode())
    numbers = [con_id if 0 < con_id < 2**32 else unknown for con_id in con_ids]
    return np.array([*numbers, numbers[-1] if numbers else unknown], np.uint32)


def header(symbol: str, day: date, span: tuple[int, int], numbers: Array) -> bytes:
    """The file's metadata: `symbol` has these instrument ids on that date; span is in unix ms."""
    ends = day + timedelta(days=1)
    intervals = [_MappingInterval(day, ends, str(number)) for number in sorted(set(numbers.tolist()))]
    metadata = dbn.Metadata(
        dataset=DATASET,
        start=span[0] * NS_PER_MS,
        end=span[1] * NS_PER_MS,
        stype_in=dbn.SType.from_str("raw_symbol"),
        stype_out=dbn.SType.from_str("instrument_id"),
        schema=dbn.Schema.from_str("mbp-10"),
        symbols=[symbol],
        mappings=[_Mapping(symbol, intervals)],
    )
    try:
        encoded: bytes = metadata.encode()
    except dbn.DBNError as error:
        raise ExportRefused(f"{symbol!r} is no symbol for DBN: {error}; --to parquet or csv take it") from None
    return encoded
