"""Archived snapshots carry their contract: a roll changes it at the right row, whatever order things are read in."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.archive.contracts import ContractHistory
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import read_day
from ibkr_depth_pipeline.schema.keys import StreamId, contract_changes_key
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, parts_of

DEC, MAR = (495512563, "ESZ6", "20261218"), (495512566, "ESH7", "20270319")
NONE = (None, None, None)


def change(mirror: Mirror, symbol: str, after: StreamId, contract: tuple[int, str, str]) -> None:
    fields = dict(zip(("con_id", "local_symbol", "expiry"), contract, strict=True))
    mirror.redis.xadd(contract_changes_key(symbol), {"after": str(after), **fields})


def contracts_of(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(table[name].to_pylist() for name in ("con_id", "local_symbol", "expiry")), strict=True))


def test_roll_changes_the_contract_at_its_row(mirror: Mirror, desk: Desk) -> None:
    change(mirror, "ES", StreamId(NOON - 5, 0), DEC)
    change(mirror, "ES", StreamId(NOON + 6, 7), MAR)
    mirror.write("ES", range(1, 21))
    mirror.write("BRK B", range(1, 4))
    desk.keep()
    assert contracts_of(read_day(desk.store, DAY, "ES")) == [DEC] * 7 + [MAR] * 13
    assert contracts_of(read_day(desk.store, DAY, "BRK B")) == [NONE] * 3
    compact_day(desk.store, DAY)
    assert contracts_of(read_day(desk.store, DAY, "ES")) == [DEC] * 7 + [MAR] * 13


def test_stock_has_no_expiry(mirror: Mirror, desk: Desk) -> None:
    change(mirror, "SPY", StreamId(), (756733, "SPY", ""))
    mirror.write("SPY", range(1, 3))
    desk.keep()
    assert contracts_of(read_day(desk.store, DAY, "SPY")) == [(756733, "SPY", None)] * 2


def test_archiver_that_starts_again_knows_the_contract(mirror: Mirror, desk: Desk) -> None:
    change(mirror, "ES", StreamId(), DEC)
    mirror.write("ES", range(1, 6))
    desk.keep()
    mirror.write("ES", range(6, 11), start=NOON + 100)
    desk.keep()
    change(mirror, "ES", StreamId(NOON + 104, 10), MAR)
    mirror.write("ES", range(11, 13), start=NOON + 200)
    desk.keep()
    assert contracts_of(read_day(desk.store, DAY, "ES")) == [DEC] * 10 + [MAR] * 2


async def test_archiver_that_follows_reads_the_change_with_the_first_snapshot_after_it(
    mirror: Mirror, desk: Desk
) -> None:
    change(mirror, "ES", StreamId(), DEC)
    for seq in range(1, 31):
        if seq == 17:
            change(mirror, "ES", StreamId(NOON + 16, 16), MAR)
        mirror.write("ES", [seq], start=NOON + seq)
        await Archiver(desk.settings).run(once=True)
    assert contracts_of(read_day(desk.store, DAY, "ES")) == [DEC] * 16 + [MAR] * 14


def test_files_of_before_the_columns_were_there_are_read_and_compacted_with_new_ones(
    mirror: Mirror, desk: Desk
) -> None:
    mirror.write("ES", range(1, 6))
    desk.keep()
    (old,) = parts_of(desk.store)
    path = f"{desk.settings.archive_url}/{old.name}"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["con_id", "local_symbol", "expiry"]), path)
    change(mirror, "ES", StreamId(NOON + 4, 5), MAR)
    mirror.write("ES", range(6, 9), start=NOON + 50)
    desk.keep()
    expected = [NONE] * 5 + [MAR] * 3
    assert contracts_of(read_day(desk.store, DAY, "ES")) == expected
    compact_day(desk.store, DAY)
    assert contracts_of(read_day(desk.store, DAY, "ES")) == expected


@pytest.mark.parametrize("reading", ["no stream", "not our fields"])
def test_contracts_that_cannot_be_read_cost_no_snapshot(mirror: Mirror, desk: Desk, reading: str) -> None:
    if reading == "no stream":
        mirror.redis.set(contract_changes_key("ES"), "a text")
    else:
        mirror.redis.xadd(contract_changes_key("ES"), {"after": "yesterday", "con_id": "many"})
    mirror.write("ES", range(1, 4))
    desk.keep()
    assert contracts_of(read_day(desk.store, DAY, "ES")) == [NONE] * 3


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=6),
    st.lists(st.integers(1, 40), min_size=1, unique=True),
    st.integers(1, 40),
)
def test_contract_of_a_snapshot_is_the_newest_change_before_it(
    changes: list[tuple[int, int]], seqs: list[int], split: int
) -> None:
    history = ContractHistory()
    for at, (after, con_id) in enumerate(changes):
        fields = {b"after": b"%d-%d" % (after, after), b"con_id": b"%d" % con_id, b"local_symbol": b"", b"expiry": b""}
        history.note([(b"1-%d" % at, fields)])
    ids = [StreamId(seq, seq) for seq in sorted(seqs)]
    parts = [part for part in ([i for i in ids if i.seq <= split], [i for i in ids if i.seq > split]) if part]
    found = [con_id for part in parts for con_id in history.columns(part)[0].to_pylist()]
    known = dict(changes)
    newest = [max((after for after in known if after < each.seq), default=None) for each in ids]
    assert found == [None if after is None else known[after] for after in newest]
