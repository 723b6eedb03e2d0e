"""What an operator should know of a Redis before it is recorded into: eviction, room, persistence."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.sink.advice import Server, advice_of, entries_of, log_redis_advice, redis_advice
from ibkr_depth_pipeline_tests.sink.writing import reading

POLICIES = ("allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl", "volatile-random")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_but_noeviction_is_warned_of(policy: str) -> None:
    (found,) = advice_of("", Server(policy, 0, True, True), 1)
    assert found.is_warning
    assert policy in found.text
    assert ("heartbeats" in found.text) == policy.startswith("volatile")


def test_redis_that_reveals_nothing_is_not_warned_of() -> None:
    assert not [*advice_of("", Server(None, None, None, None), 10**9)]
    assert not [*advice_of("", Server("noeviction", 0, True, False), 10**9)]


async def test_real_redis_is_inspected(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        before = {name: await client.config_get(name) for name in ("maxmemory", "maxmemory-policy", "save")}
        try:
            await client.config_set("maxmemory", 512 * 2**20)
            await client.config_set("maxmemory-policy", "volatile-ttl")
            await client.config_set("save", "")
            subjects = {each.subject: each for each in await redis_advice(shared_redis_url, 100 * 10_000)}
            assert set(subjects) == {"redis eviction", "redis memory", "redis persistence"}
            assert "512 MiB" in subjects["redis memory"].text
            assert not subjects["redis persistence"].is_warning
            with capture_logs() as lines:
                await log_redis_advice(load_settings(redis_url=shared_redis_url), 100)
            levels = {line["event"]: line["log_level"] for line in lines}
            assert levels == {"redis_eviction": "warning", "redis_memory": "warning", "redis_persistence": "info"}
        finally:
            for values in before.values():
                for name, value in values.items():
                    await client.config_set(name, value)


async def test_advice_comes_from_info_if_config_is_forbidden_and_is_absent_if_both_are(
    shared_redis_url: str,
) -> None:
    async with reading(shared_redis_url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            for name, rights in (("looker", "+info"), ("blind", "+ping")):
                await client.execute_command("ACL", "SETUSER", name, "reset", "on", ">pass", "~*", "-@all", rights)
            asked = shared_redis_url.replace("//", "//{}:pass@")
            assert [each.subject for each in await redis_advice(asked.format("looker"), 1)] == ["redis eviction"]
            assert await redis_advice(asked.format("blind"), 1) == []
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
            await client.execute_command("ACL", "DELUSER", "looker", "blind")


def test_rows_that_are_kept_count_for_the_memory() -> None:
    plain, with_rows = (load_settings(ibkr_stream_maxlen=1000, ibkr_stream_rows=kept) for kept in (False, True))
    assert [entries_of(settings, 10) for settings in (plain, with_rows)] == [10_000, 11_250]
