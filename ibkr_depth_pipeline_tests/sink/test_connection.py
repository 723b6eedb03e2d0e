"""Whether a Redis can be used, asked of real servers: what is missing is said, without a secret, and nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.sink.connection import check_writable

SECRET = "hunter2"


@pytest.fixture
def admin(shared_redis_url: str) -> Iterator[Any]:
    """A client that may do anything; the users that a test makes are removed."""
    client: Any = redis.Redis.from_url(shared_redis_url)
    yield client
    for name in client.acl_users():
        if name != "default":
            client.acl_deluser(name)
    client.close()


def url_of(shared_redis_url: str, user: str) -> str:
    return shared_redis_url.replace("redis://", f"redis://{user}:{SECRET}@")


async def test_writable_redis_reports_its_version_and_keeps_nothing(admin: Any, shared_redis_url: str) -> None:
    version = await check_writable(shared_redis_url)
    assert version == admin.info("server")["redis_version"]
    assert admin.keys() == []


async def test_user_with_no_more_rights_than_a_run_needs_passes_the_check(admin: Any, shared_redis_url: str) -> None:
    commands = ["xadd", "xinfo", "xgroup", "xsetid", "hset", "hget", "hmget", "set", "get", "exists", "expire"]
    commands += ["pexpire", "pttl", "eval", "multi", "exec"]
    admin.acl_setuser("recorder", enabled=True, passwords=f"+{SECRET}", keys=["raw:ibkr:depth:*"])
    admin.execute_command("ACL", "SETUSER", "recorder", *(f"+{command}" for command in commands))
    assert await check_writable(url_of(shared_redis_url, "recorder")) == "unknown"
    assert all(admin.ttl(key) > 0 for key in admin.scan_iter())  # what it may not delete goes by itself


@pytest.mark.parametrize("missing", ["xadd", "xsetid", "hset", "set", "expire", "xinfo", "hmget", "multi", "eval"])
async def test_check_finds_a_missing_right_before_the_run(admin: Any, shared_redis_url: str, missing: str) -> None:
    admin.acl_setuser("reader", enabled=True, passwords=f"+{SECRET}", keys=["*"], commands=["+@all", f"-{missing}"])
    with pytest.raises(SinkUnavailable, match=f"(?i){missing}") as refused:
        await check_writable(url_of(shared_redis_url, "reader"))
    assert SECRET not in str(refused.value)


async def test_wrong_password_is_a_reason_that_does_not_show_it(admin: Any, shared_redis_url: str) -> None:
    admin.acl_setuser("recorder", enabled=True, passwords="+another", keys=["*"], commands=["+@all"])
    with pytest.raises(SinkUnavailable, match="recorder:\\*\\*\\*@") as refused:
        await check_writable(url_of(shared_redis_url, "recorder"))
    assert SECRET not in str(refused.value)


async def test_read_only_replica_is_not_writable(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.replicaof("127.0.0.1", str(redis_server.port))
    with pytest.raises(SinkUnavailable, match=r"(?i)read only replica"):
        await check_writable(redis_server.url)


async def test_absent_redis_is_named(redis_server: EmbeddedRedis) -> None:
    url = redis_server.url
    redis_server.stop()
    with pytest.raises(SinkUnavailable, match=url):
        await check_writable(url)
