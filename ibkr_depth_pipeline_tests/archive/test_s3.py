"""The archive in S3: a moto server on loopback, the real s3fs and botocore."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import fsspec
import pytest

from ibkr_depth_pipeline.archive.audit import audit_day
from ibkr_depth_pipeline.archive.layout import BOOKS
from ibkr_depth_pipeline.archive.maintenance import compact_day, prune_expired
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.errors import ArchiveHeld, ArchiveUnavailable
from ibkr_depth_pipeline_tests.archive.cloud import CREDENTIALS, bucket, cloud, s3_server
from ibkr_depth_pipeline_tests.archive.conftest import (
    DAY,
    MS_PER_DAY,
    NOON,
    Desk,
    Mirror,
    compacted_of,
    parts_of,
)
from ibkr_depth_pipeline_tests.archive.recorder import recorder
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

__all__ = ["bucket", "cloud", "s3_server"]
pytestmark = pytest.mark.filterwarnings("default")  # what botocore and its friends have to say is not ours


def test_day_in_a_bucket_is_kept_compacted_checked_and_pruned(mirror: Mirror, cloud: Desk) -> None:
    for first in (1, 101, 201):
        mirror.write("BRK B", range(first, first + 100), start=NOON + first)
        cloud.keep()
    assert cloud.kept() == mirror.written
    assert len(parts_of(cloud.store)) == 3
    compact_day(cloud.store, DAY)
    assert parts_of(cloud.store) == []
    assert cloud.kept() == mirror.written
    assert cloud.keep().summary.files == 0, "the position is in the compacted file"
    assert all(audit.passed for audit in audit_day(cloud.settings, DAY))
    later = DAY + timedelta(days=7)
    mirror.write("SPY", [1], start=NOON + 7 * MS_PER_DAY)
    cloud.keep()
    assert prune_expired(cloud.store, 3, later).deleted == (DAY,)
    assert cloud.kept() == {"SPY": mirror.written["SPY"]}


def test_another_archiver_of_the_bucket_is_kept_out_by_the_lease(mirror: Mirror, cloud: Desk, s3_server: str) -> None:
    mirror.write("SPY", range(1, 11))
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_server, "IBKR_LEASE_TTL_SECS": "2"}
    with cloud.starts("run", **environment):
        assert wait_until(lambda: bool(parts_of(cloud.store)), PATIENCE_SECS)
        with pytest.raises(ArchiveHeld, match="another archiver"):
            cloud.keep()
    assert cloud.keep().summary.files == 0, "the lease of one who was killed runs out"


@pytest.mark.faults
def test_kills_lose_and_double_nothing_in_a_bucket_either(mirror: Mirror, cloud: Desk, s3_server: str) -> None:
    environment = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": s3_server,
        "IBKR_LEASE_TTL_SECS": "2",
        "ARCHIVE_FLUSH_SECS": "0.1",
    }
    with recorder(mirror):
        for kill in range(3):
            enough = len(parts_of(cloud.store)) + 1 + kill
            with cloud.starts("run", **environment):
                assert wait_until(lambda enough=enough: len(parts_of(cloud.store)) >= enough, PATIENCE_SECS)
    cloud.keep()
    assert cloud.kept() == mirror.written
    spans = [place.span for place in parts_of(cloud.store) if place.symbol == "SPY"]
    assert all(one.last < other.first for one, other in pairwise(spans)), "no part overlaps another"


def test_bucket_that_is_not_there_is_an_error_at_the_start(mirror: Mirror, cloud: Desk) -> None:
    mirror.write("SPY", [1])
    gone = cloud.settings.model_copy(update={"archive_url": "s3://no-such-bucket/depth"})
    with pytest.raises(ArchiveUnavailable, match="no-such-bucket"):
        replace(cloud, settings=gone).keep()


def test_reader_that_knows_only_parquet_finds_date_and_symbol_in_the_names(mirror: Mirror, cloud: Desk) -> None:
    import pyarrow.dataset as dataset

    mirror.write("BRK B", range(1, 11))
    cloud.keep()
    compact_day(cloud.store, DAY)
    filesystem, root = fsspec.core.url_to_fs(cloud.settings.archive_url)
    table = dataset.dataset(f"{root}/{BOOKS}", filesystem=filesystem, format="parquet", partitioning="hive").to_table()
    assert set(table["symbol"].to_pylist()) == {"BRK B"}
    assert {str(day) for day in table["date"].to_pylist()} == {DAY.isoformat()}
    assert table.num_rows == 10
    assert [cloud.store.size(place) > 0 for place in compacted_of(cloud.store)] == [True]


def test_compaction_cut_short_in_a_bucket_doubles_nothing_for_our_readers_and_is_finished_later(
    mirror: Mirror, cloud: Desk
) -> None:
    pytest.importorskip("duckdb")
    from ibkr_depth_pipeline.archive.sql import query

    for first in (1, 101):
        mirror.write("BRK B", range(first, first + 100), start=NOON + first)
        cloud.keep()
    filesystem = cloud.store.filesystem
    parts = {place: filesystem.cat_file(cloud.store.address(place)) for place in parts_of(cloud.store)}
    compact_day(cloud.store, DAY)
    (day_file,) = compacted_of(cloud.store)
    for place, content in parts.items():  # as they are between the put of the new file and the end of the deletion
        cloud.store.put(place, content)
    cloud.store.note_unfinished(day_file)
    assert cloud.kept() == mirror.written
    assert query(cloud.store, "SELECT symbol, count(*), max(seq) FROM books GROUP BY symbol")[1] == [
        ("BRK B", 200, 200)
    ]
    cloud.keep()
    assert cloud.store.places(BOOKS) == [day_file], "the start of an archiver finishes it"
    assert cloud.store.unfinished() == []
