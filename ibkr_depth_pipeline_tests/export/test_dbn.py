"""DBN exports, read back by databento's own DBNStore: each book, its flags, and clears where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import databento
import databento_dbn as dbn
import pytest
from databento.common.publishers import Dataset, Publisher

from ibkr_depth_pipeline.errors import ExportRefused
from ibkr_depth_pipeline.export.dbn import DATASET, PUBLISHER
from ibkr_depth_pipeline.export.formats import ExportFormat
from ibkr_depth_pipeline_tests.export.conftest import MakeSource, Source
from ibkr_depth_pipeline_tests.export.kept import (
    CON_ID,
    NOON,
    Kept,
    Side,
    book,
    books_by_price,
    interval_of,
    settled_of,
    turn,
)

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # databento under pandas 3
SCALE = 1_000_000_000


def store_of(path: Path) -> databento.DBNStore:
    return databento.DBNStore.from_bytes(path.read_bytes())  # from_file leaves its file open


def records_in(path: Path) -> list[Any]:
    return list(store_of(path))


def side_of(record: Any, side: str) -> Side:
    parts = ([getattr(level, f"{side}_{what}") for level in record.levels] for what in ("px", "sz", "ct"))
    return [(px / SCALE, size, count) for px, size, count in zip(*parts, strict=True) if px != dbn.UNDEF_PRICE]


def book_of(record: Any) -> tuple[int, int, Side, Side]:
    return record.ts_event // 1_000_000, record.sequence, side_of(record, "bid"), side_of(record, "ask")


def is_clear(record: Any) -> bool:
    return str(record.action) == "R"


def has(record: Any, flag: int) -> bool:
    return bool(int(record.flags) & flag)


def test_every_archived_book_is_a_record_that_the_library_reads(source: Source) -> None:
    records = records_in(source.export(ExportFormat.DBN).path)
    assert {type(record) for record in records} == {dbn.MBP10Msg}
    assert [book_of(record) for record in records if not is_clear(record)] == books_by_price(source.snapshots)
    assert {(record.publisher_id, record.instrument_id) for record in records} == {(PUBLISHER, CON_ID)}


def test_frame_of_the_library_has_prices_symbols_and_times(rotation: Source) -> None:
    frame = store_of(rotation.export(ExportFormat.DBN).path).to_df()
    books = frame[frame.action != "R"]
    assert set(frame.symbol) == {"SPY"}
    assert [round(each.timestamp() * 1000) for each in books.index] == [each.ts for each in rotation.snapshots]
    assert books.bid_px_00.tolist() == [each.bids[0][0] for each in rotation.snapshots]
    assert books.bid_px_09.isna().sum() == 3 * 18


def test_dataset_and_publisher_are_none_of_databentos(rotation: Source) -> None:
    store = store_of(rotation.export(ExportFormat.DBN).path)
    assert store.dataset == DATASET
    assert DATASET not in {each.value for each in Dataset}
    assert PUBLISHER not in {each.to_int() for each in Publisher}
    assert (store.schema, store.symbols) == (dbn.Schema.MBP_10, ["SPY"])
    assert store.mappings["SPY"][0]["symbol"] == str(CON_ID)


def test_book_is_cleared_where_an_interval_ends_and_at_a_hole(rotation: Source) -> None:
    records = records_in(rotation.export(ExportFormat.DBN).path)
    clears = [record for record in records if is_clear(record)]
    untils = [each.until for each in rotation.intervals]
    before_hole = next(each.ts for each in rotation.snapshots if each.seq == 129)
    assert [each.ts_event // 1_000_000 for each in clears] == [untils[0], before_hole, untils[1], untils[2]]
    assert all(
        has(each, dbn.F_MAYBE_BAD_BOOK) and side_of(each, "bid") == [] == side_of(each, "ask") for each in clears
    )
    behind = [after.sequence for before, after in pairwise(records) if is_clear(before)]
    assert behind == [80, 135, 179]


def test_flags_tell_the_first_whole_book_settled_books_and_partial_ones(rotation: Source) -> None:
    records = [each for each in records_in(rotation.export(ExportFormat.DBN).path) if not is_clear(each)]
    assert [each.sequence for each in records if has(each, dbn.F_SNAPSHOT)] == [20, 99, 135, 198]
    settled = {each.seq for each in settled_of(rotation.snapshots, rotation.intervals)}
    assert {each.sequence for each in records if has(each, dbn.F_LAST)} == settled
    partial = {each.seq for each in rotation.snapshots if len(each.bids) + len(each.asks) < 20}
    assert {each.sequence for each in records if has(each, dbn.F_MAYBE_BAD_BOOK)} == partial


def test_times_never_fall(source: Source) -> None:
    for name in ("ts_event", "ts_recv"):
        times = [getattr(each, name) for each in records_in(source.export(ExportFormat.DBN).path)]
        assert times == sorted(times)


def test_time_of_receipt_is_in_nanoseconds_if_it_was_recorded(source_of: MakeSource) -> None:
    ms = NOON * 1_000_000
    source = source_of([Kept(NOON, 1, *book(1), ms + 5), Kept(NOON + 1, 2, *book(2))])
    records = records_in(source.export(ExportFormat.DBN).path)
    assert [each.ts_recv for each in records[:2]] == [ms + 5, ms + 1_000_000]
    assert [each.ts_event for each in records[:2]] == [ms, ms + 1_000_000]


def test_interval_that_goes_on_after_midnight_is_not_cleared(source_of: MakeSource) -> None:
    midnight = NOON + 12 * 3_600_000
    snapshots = [Kept(midnight - 100 * (5 - at), 50 + at, *book(at)) for at in range(10)]
    records = records_in(source_of(snapshots, [interval_of(snapshots, 3)]).export(ExportFormat.DBN).path)
    assert [each.sequence for each in records] == [50, 51, 52, 53, 54]
    assert not any(map(is_clear, records))


def changed(
    source_of: MakeSource, *books: tuple[list[Any], list[Any]]
) -> list[tuple[str, str, int, float | None, int]]:
    """Action, side, depth, price and size of each record of these books, a second apart."""
    snapshots = [Kept(NOON + 1000 * at, at + 1, *sides) for at, sides in enumerate(books)]
    records = [each for each in records_in(source_of(snapshots).export(ExportFormat.DBN).path) if not is_clear(each)]
    return [
        (
            str(each.action),
            str(each.side),
            each.depth,
            None if each.price == dbn.UNDEF_PRICE else each.price / SCALE,
            each.size,
        )
        for each in records
    ]


def test_action_is_that_of_the_first_changed_level(source_of: MakeSource) -> None:
    bids, asks = [(99.0, 5.0, "A"), (98.0, 6.0, "A")], [(101.0, 7.0, "A")]
    assert changed(
        source_of,
        (bids, asks),
        ([bids[0], (98.0, 4.0, "A")], asks),  # less at the second bid
        ([(99.5, 1.0, "A"), *bids], asks),  # a better bid
        (bids, asks),  # and gone
        (bids, [*asks, (102.0, 3.0, "B")]),  # an ask behind the others
        (bids, [*asks, (102.0, 3.0, "C")]),  # another market maker there: no level changes
        (bids, []),
    ) == [
        ("A", "B", 0, 99.0, 5),
        ("M", "B", 1, 98.0, 4),
        ("A", "B", 0, 99.5, 1),
        ("C", "B", 0, 99.5, 1),
        ("A", "A", 1, 102.0, 3),
        ("N", "N", 0, None, 0),
        ("C", "A", 0, 101.0, 7),
    ]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ((100.0, 0.5, "A"), "seq 3: size 0.5 does not fit DBN, whose sizes are whole numbers"),
        ((100.0, 2.0**32, "A"), "size 4294967296.0 does not fit DBN"),
        ((100.0, -1.0, "A"), "size -1.0 does not fit DBN"),
        ((1e10, 5.0, "A"), "price 10000000000.0 does not fit DBN"),
        ((1.0000000001, 5.0, "A"), "price 1.0000000001 does not fit DBN"),
    ],
)
def test_value_that_does_not_fit_is_refused_and_no_file_left(source_of: MakeSource, level: Any, told: str) -> None:
    source = source_of(
        [Kept(NOON + at, at, [(50.0, 1.0, "A")], []) for at in (1, 2)] + [Kept(NOON + 3, 3, [level], [])]
    )
    with pytest.raises(ExportRefused, match="parquet, csv") as refused:
        source.export(ExportFormat.DBN)
    assert told in str(refused.value)
    assert [each.name for each in source.folder.iterdir()] == ["archive"]


def test_sizes_of_one_price_that_add_up_to_more_than_32_bits_are_refused(source_of: MakeSource) -> None:
    rows = [(100.0, 3e9, "A"), (100.0, 3e9, "B")]
    with pytest.raises(ExportRefused, match=r"size 6000000000\.0"):
        source_of([Kept(NOON, 1, rows, [])]).export(ExportFormat.DBN)


@pytest.mark.parametrize("price", [-37.63, 0.00390625, 0.000000001, 117.4921875, 9_000_000_000.0, 0.1 + 0.2 - 0.2])
def test_price_is_exact_in_whole_units_of_a_billionth(source_of: MakeSource, price: float) -> None:
    price = round(price, 9)
    first, *_ = records_in(source_of([Kept(NOON, 1, [(price, 5.0, "A")], [])]).export(ExportFormat.DBN).path)
    assert side_of(first, "bid") == [(price, 5, 1)]


def test_seq_beyond_32_bits_is_refused(source_of: MakeSource) -> None:
    with pytest.raises(ExportRefused, match="seq 4294967296 does not fit"):
        source_of([Kept(NOON, 2**32, *book(1))]).export(ExportFormat.DBN)


def test_contract_that_rolls_within_a_day_has_both_ids_under_its_symbol(source_of: MakeSource) -> None:
    turns = [turn(NOON, 1, 5), turn(NOON + 60_000, 25, 5)]
    intervals = [interval_of(turns[0], 1, con_id=11), interval_of(turns[1], 2, con_id=12)]
    path = source_of([*turns[0], *turns[1]], intervals).export(ExportFormat.DBN).path
    frame = store_of(path).to_df()
    assert set(frame.symbol) == {"SPY"}
    assert list(dict.fromkeys(frame.instrument_id)) == [11, 12]


def test_contract_of_snapshots_in_no_recorded_interval_is_that_of_their_rows(source_of: MakeSource) -> None:
    turns = [turn(NOON, 1, 5), turn(NOON + 60_000, 25, 5)]
    source = source_of([*turns[0], *turns[1]], [interval_of(turns[0], 1)])
    frame = store_of(source.export(ExportFormat.DBN).path).to_df()
    assert set(frame.instrument_id) == {CON_ID}


def test_symbol_without_a_recorded_contract_has_an_id_all_the_same(source_of: MakeSource) -> None:
    snapshots = turn(NOON, 1, 5)
    intervals = [replace(interval_of(snapshots, 1), con_id=0)]
    frame = store_of(source_of(snapshots, intervals).export(ExportFormat.DBN).path).to_df()
    assert set(frame.symbol) == {"SPY"}
    assert frame.instrument_id.nunique() == 1
