"""A page about an archive in S3 stands in S3: a moto server on loopback, the real s3fs and botocore."""

from __future__ import annotations

import fsspec
import pytest

from ibkr_depth_pipeline.report.page import make_report
from ibkr_depth_pipeline_tests.archive.cloud import bucket, cloud, s3_server
from ibkr_depth_pipeline_tests.archive.conftest import DAY, Desk, Mirror
from ibkr_depth_pipeline_tests.report.conftest import NEXT_DAY, OPEN, Page

__all__ = ["bucket", "cloud", "s3_server"]
pytestmark = pytest.mark.filterwarnings("default")  # what botocore and its friends have to say is not ours


def test_page_stands_beside_the_archive(mirror: Mirror, cloud: Desk) -> None:
    mirror.write("SPY", range(1, 101), start=OPEN, every=1000)
    cloud.keep()
    url = cloud.settings.archive_url
    written = make_report(url, str(DAY), calendar="XNYS", now=NEXT_DAY)
    assert written.path == f"{url}/reports/2026-01-05.html"
    content = fsspec.filesystem("s3", skip_instance_cache=True).cat(written.path)
    assert len(content) == written.bytes
    assert Page(content.decode()).fact("snapshots") == ("100", "of 1 symbols")
    assert [place.symbol for place in cloud.store.places("")] == ["SPY"], "a page is no file of snapshots"
