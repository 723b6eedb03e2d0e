"""What a URL means, and that nothing which is shown of it is a secret."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.redis_link.url import Kind, mask_url, parse_redis_url


def test_url_of_a_single_server_is_left_to_redis_py() -> None:
    target = parse_redis_url("redis://user:hunter2@cache:6380/2")
    assert (target.kind, target.plain, target.nodes) == (Kind.SERVER, "redis://user:hunter2@cache:6380/2", ())
    assert target.address == "cache:6380"
    assert parse_redis_url("unix:///run/redis.sock?db=1").address == "/run/redis.sock"


def test_url_of_a_cluster_is_its_nodes_and_their_common_options() -> None:
    target = parse_redis_url("rediss+cluster://user:h%40nter2@one:7000,[::1]?ssl_ca_certs=/etc/ca.pem")
    assert target.kind is Kind.CLUSTER
    assert target.nodes == (("one", 7000), ("::1", 6379))
    assert target.plain == "rediss://user:h%40nter2@one:7000/0?ssl_ca_certs=%2Fetc%2Fca.pem"
    assert target.address == "cluster of one:7000,[::1]:6379"


def test_sentinels_have_secrets_of_their_own_which_the_master_is_not_told() -> None:
    url = "redis+sentinel://:hunter2@one,two:26380/depth/3?sentinel_username=watch&sentinel_password=2nd&client_name=x"
    target = parse_redis_url(url)
    assert (target.kind, target.service) == (Kind.SENTINEL, "depth")
    assert target.nodes == (("one", 26379), ("two", 26380))
    assert target.plain == "redis://:hunter2@one:26379/3?client_name=x"
    assert (target.sentinel_username, target.sentinel_password) == ("watch", "2nd")
    assert target.address == "depth of the Sentinels one:26379,two:26380"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+cluster://user:hunter2@one,two:7000", "redis+cluster://user:***@one,two:7000"),
        ("redis+sentinel://one/d?sentinel_password=hunter2&client_name=x", "redis+sentinel://one/d?***&client_name=x"),
        ("redis+cluster://user:hunter2@one,tw o", "redis+cluster://***"),
    ],
)
def test_shown_url_still_names_its_host(url: str, shown: str) -> None:
    assert mask_url(url) == shown
    assert "hunter2" not in shown


def test_no_secret_is_in_what_a_debugger_or_a_log_shows() -> None:
    target = parse_redis_url("redis+sentinel://:hunter2@one/depth?sentinel_password=hunter2")
    assert "hunter2" not in repr(target) + str(target) + target.address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+cluster://one/1", "no database but 0"),
        ("redis+cluster://one?db=1", "options after the"),
        ("redis+sentinel://one", "followed by /name"),
        ("redis+cluster://one,,two", "an empty one"),
        ("redis://one,two", "several hosts"),
        ("redis+cluster://one:0", "no such URL"),
    ],
)
def test_bad_url_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_redis_url(url)
