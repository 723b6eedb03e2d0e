"""Settings: names and defaults, where they come from, and what a bad one says. No password is ever shown."""

from __future__ import annotations

import os
import re
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.settings import Settings, load_settings, mask_url, names_without_setting, unreadable_env_lines
from ibkr_depth_pipeline.sink.connection import open_redis

EXAMPLE = Path(__file__).resolve().parents[1] / ".env.example"
SECRET = "hunter2"

TABLE = {
    "IBKR_HOST": "127.0.0.1",
    "IBKR_PORT": 7497,
    "IBKR_CLIENT_ID": 777,
    "IBKR_CLIENT_ID_MAX_OFFSET": 5,
    "IBKR_DEPTH_ROWS": 10,
    "IBKR_MAX_CONCURRENT_DEPTH": 3,
    "IBKR_ROTATION_SECS": 15,
    "IBKR_STREAM_MAXLEN": 10000,
    "IBKR_HEARTBEAT_TTL": 30,
    "IBKR_ERROR309_COOLDOWN_SECS": 8,
    "IBKR_ERROR309_RECOVERY_CYCLES": 4,
    "IBKR_LOG_LEVEL": "INFO",
    "REDIS_URL": "redis://localhost:6379/0",
    "SYMBOL_CONFIG_PATH": Path("config/ibkr_symbols.yaml"),
}

BAD_VALUES = [
    ("IBKR_PORT", "7_497"),
    ("IBKR_ROTATION_SECS", "1_5"),
    ("IBKR_HOST", "-"),
    ("IBKR_HOST", "127.0.0.1:7497"),
    ("IBKR_HOST", "http://localhost"),
    ("IBKR_HOST", "   "),
    ("IBKR_PORT", "abc"),
    ("IBKR_PORT", "0"),
    ("IBKR_PORT", "65536"),
    ("IBKR_PORT", "74.97"),
    ("IBKR_CLIENT_ID", "-1"),
    ("IBKR_CLIENT_ID_MAX_OFFSET", "-1"),
    ("IBKR_DEPTH_ROWS", "0"),
    ("IBKR_DEPTH_ROWS", "-10"),
    ("IBKR_MAX_CONCURRENT_DEPTH", "0"),
    ("IBKR_ROTATION_SECS", "0"),
    ("IBKR_ROTATION_SECS", "nan"),
    ("IBKR_ROTATION_SECS", "inf"),
    ("IBKR_ROTATION_SECS", "15s"),
    ("IBKR_STREAM_MAXLEN", "0"),
    ("IBKR_HEARTBEAT_TTL", "-30"),
    ("IBKR_ERROR309_COOLDOWN_SECS", "-0.5"),
    ("IBKR_ERROR309_RECOVERY_CYCLES", "0"),
    ("IBKR_LOG_LEVEL", "LOUD"),
    ("REDIS_URL", "http://localhost:6379"),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "redis://"),
    ("REDIS_URL", "redis:///0"),
    ("REDIS_URL", "redis://localhost:0"),
    ("REDIS_URL", "redis://localhost:65536"),
    ("REDIS_URL", "redis://localhost/zero"),
    ("REDIS_URL", "redis://localhost?db=zero"),
    ("REDIS_URL", "redis://localhost?client_name=x&socket_timeout=0"),
    ("REDIS_URL", "rediss://localhost?ssl_cert_reqs=maybe"),
    ("REDIS_URL", "redis://localhost?ssl_cert_reqs=none"),
    ("REDIS_URL", "unix://"),
    ("REDIS_URL", "unix://tmp/redis.sock"),
    ("REDIS_URL", "redis://one,two"),
    ("REDIS_URL", "redis+cluster://"),
    ("REDIS_URL", "redis+cluster://one,,two"),
    ("REDIS_URL", "redis+cluster://one:7000,two:0"),
    ("REDIS_URL", "redis+cluster://one:7000/1"),
    ("REDIS_URL", "redis+cluster://one?db=1"),
    ("REDIS_URL", "redis+cluster://one?ssl_cert_reqs=none"),
    ("REDIS_URL", "redis+sentinel://one,two"),
    ("REDIS_URL", "redis+sentinel://one,two/name/zero"),
    ("REDIS_URL", "redis+sentinel://one,two/a name"),
    ("REDIS_URL", "redis+sentinel:///name"),
    ("REDIS_URL", "redis+sentinels://one/name"),
    ("REDIS_URL", "unix+cluster:///tmp/redis.sock"),
]

GOOD_URLS = [
    "redis://localhost:6379/0",
    "redis://localhost",
    "redis://10.0.0.7:6380/15",
    "redis://redis_cache:6379/",
    "redis://[::1]:6379/0",
    "rediss://host.example:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
    "redis://host?db=3&client_name=depth",
    "unix:///var/run/redis.sock",
    "unix:///var/run/redis.sock?db=2",
    "redis+cluster://localhost",
    "redis+cluster://one:7000,[::1]:7001,three/0?client_name=depth",
    "rediss+cluster://one.example:7000?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
    "redis+sentinel://one,two:26380/mymaster",
    "rediss+sentinel://one,two:26380/mymaster/3?ssl_ca_certs=/etc/ca.pem",
]

URLS_WITH_A_SECRET = [
    "redis://:hunter2@localhost:6379/0",
    "redis://user:hunter2@localhost",
    "redis://hunter2@localhost",
    "rediss://user:hunter2@[::1]:6380/1",
    "redis://user:hunter2@@localhost",
    "redis://user:x@hunter2@localhost",
    "redis://localhost?password=hunter2",
    "redis://localhost/0?db=1&password=hunter2",
    "redis://localhost?p%61ssword=hunter2",
    "rediss://localhost?ssl_password=hunter2",
    "unix://user:hunter2@/tmp/redis.sock",
    "unix:///tmp/redis.sock?password=hunter2&db=1",
    "redis+cluster://user:hunter2@one:7000,two",
    "redis+cluster://one,two?password=hunter2",
    "redis+sentinel://:hunter2@one,two/mymaster",
    "redis+sentinel://one/mymaster?sentinel_password=hunter2&sentinel_username=watch",
    "rediss+sentinel://user:hunter2@one/mymaster/1?sentinel_password=hunter2",
]

MALFORMED_WITH_A_SECRET = [
    "redis://:hun/hunter2@localhost/0",
    "redis+cluster://user:hunter2@one,two:99999",
    "redis+cluster://user:hunter2@one,t wo",
    "redis+cluster://user:hun/hunter2@one,two",
    "redis+sentinel://user:hunter2@one,two",
    "redis+sentinel://one/mymaster?sentinel_PASSWORD=hunter2",
    "redis+cluster://one?sentinel_password=hunter2",
    "redis://:hun?hunter2@localhost/0",
    "redis://:hun#hunter2@localhost/0",
    "redis://:hunter2#x@localhost/0",
    "redis://:hunter2/x@localhost/0",
    "redis://:hunter2?x@localhost/0",
    "redis://:[hunter2@localhost/0",
    "redis://:hunter2]@localhost/0",
    "redis://:hunter2 x@localhost/0",
    "redis://:hunter2",
    "redis://user:hunter2/0",
    "redis:hunter2@localhost",
    "redis:/:hunter2@localhost",
    "user:hunter2@localhost:6379",
    "http://user:hunter2@localhost",
    "REDIS://user:hunter2@localhost",
    "redis://user:hunter2@local host",
    "redis://user:hunter2@localhost:99999",
    "redis://user:hunter2@localhost:port",
    "redis://localhost?PASSWORD=hunter2",
    "redis://localhost?hunter2",
    "redis://localhost?auth=hunter2",
    "redis://localhost?password=x@hunter2",
    "redis://localhost#password=hunter2",
    "redis://user:hunter2\u2100@localhost",
    "://hunter2@localhost",
    "redis://user:hunter2\n@localhost",
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper() in TABLE or name.upper().startswith("IBKR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def value_of(settings: Settings, key: str) -> object:
    return getattr(settings, key.lower())


@pytest.mark.parametrize(("key", "default"), TABLE.items())
def test_setting_has_the_default_of_the_specification(key: str, default: object) -> None:
    assert value_of(load_settings(), key) == default


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("IBKR_HOST", "gateway.example", "gateway.example"),
        ("IBKR_HOST", "::1", "::1"),
        ("IBKR_PORT", " 4002 ", 4002),
        ("IBKR_CLIENT_ID", "1", 1),
        ("IBKR_ROTATION_SECS", "0.5", 0.5),
        ("IBKR_ERROR309_COOLDOWN_SECS", "0", 0),
        ("IBKR_LOG_LEVEL", "debug", "DEBUG"),
        ("REDIS_URL", " redis://other:6380/2 ", "redis://other:6380/2"),
        ("SYMBOL_CONFIG_PATH", "elsewhere/my symbols.yaml", Path("elsewhere/my symbols.yaml")),
    ],
)
def test_setting_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, key: str, text: str, value: object
) -> None:
    monkeypatch.setenv(key, text)
    assert value_of(load_settings(), key) == value


def test_dot_env_is_read_and_the_environment_wins_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("IBKR_PORT=4002\nIBKR_CLIENT_ID=12\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("IBKR_CLIENT_ID", "13")
    settings = load_settings()
    assert (settings.ibkr_port, settings.ibkr_client_id) == (4002, 13)


def test_override_wins_over_the_environment_and_none_means_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBKR_PORT", "4002")
    monkeypatch.setenv("IBKR_CLIENT_ID", "13")
    settings = load_settings(ibkr_port=4001, ibkr_client_id=None)
    assert (settings.ibkr_port, settings.ibkr_client_id) == (4001, 13)


@pytest.mark.parametrize("key", TABLE)
def test_empty_value_means_the_default(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(key, "")
    assert value_of(load_settings(), key) == TABLE[key]


def test_empty_value_in_the_environment_leaves_that_of_dot_env(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("IBKR_PORT=4002\nIBKR_CLIENT_ID=\n")
    monkeypatch.setenv("IBKR_PORT", "")
    settings = load_settings()
    assert (settings.ibkr_port, settings.ibkr_client_id) == (4002, 777)


def test_binary_dot_env_is_one_clear_error() -> None:
    Path(".env").write_bytes(b"IBKR_HOST=\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=r"^\.env: can't be read"):
        load_settings()


@pytest.mark.parametrize(("key", "text"), BAD_VALUES)
def test_error_names_the_bad_value_and_what_is_allowed(monkeypatch: pytest.MonkeyPatch, key: str, text: str) -> None:
    monkeypatch.setenv(key, text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    (problem,) = refused.value.problems
    assert problem.startswith(f"{key}=")
    assert str(Settings.model_fields[key.lower()].description) in problem
    if key != "REDIS_URL":
        assert repr(text.strip()) in problem or repr(text) in problem


@pytest.mark.parametrize("key", ["ibkr_max_concurrent_depth", "ibkr_rotation_secs"])
def test_number_is_refused_for_a_switch(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key.upper()}=True"):
        load_settings(**{key: True})


def test_every_bad_setting_is_listed_in_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    worst = dict(BAD_VALUES)
    for key, text in worst.items():
        monkeypatch.setenv(key, text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert {problem.partition("=")[0] for problem in refused.value.problems} == set(worst)


def test_misspelt_name_is_found_in_the_environment_and_in_dot_env(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_without_setting() == []
    Path(".env").write_text("IBKR_PORT=4002\nIBKR_ROTATION_SEC=5\nOTHER=1\n")
    monkeypatch.setenv("IBKR_PROT", "4002")
    monkeypatch.setenv("ibkr_host", "localhost")
    assert names_without_setting() == ["IBKR_PROT", "IBKR_ROTATION_SEC"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("IBKR_PORT: 4999\n", [1]),
        ("A=1\n\n\nstray text\nB=2\n", [4]),
        ("IBKR_PORT\nexport IBKR_HOST=x\n# a comment\n", [1]),
        ("IBKR_PORT=4002\nIBKR_HOST = there\n'X'=1\nE=\n", []),
        ("- IBKR_PORT=1\n=5\n", [1, 2]),
        ("", []),
    ],
)
def test_line_that_sets_nothing_is_found_with_its_number(text: str, lines: list[int]) -> None:
    Path(".env").write_text(text)
    found = unreadable_env_lines()
    assert [int(each.partition(", line ")[2].partition(":")[0]) for each in found] == lines


def test_override_of_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="IBKR_PROT: there is no such setting"):
        load_settings(ibkr_prot=1)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_good_url_without_a_secret_is_shown_unchanged_and_suits_the_client(url: str) -> None:
    assert load_settings(redis_url=url).redis_url_masked == url
    open_redis(url)


@pytest.mark.parametrize("url", URLS_WITH_A_SECRET)
def test_good_url_never_shows_its_password(url: str) -> None:
    settings = load_settings(redis_url=url)
    assert settings.redis_url == url
    assert SECRET not in settings.redis_url_masked
    assert SECRET not in repr(settings) + str(settings)
    open_redis(url)


@pytest.mark.parametrize("url", MALFORMED_WITH_A_SECRET)
def test_refused_url_never_shows_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(redis_url=url)
    assert "REDIS_URL=" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "hun" not in str(refused.value)


def test_redis_url_in_another_setting_does_not_show_its_password() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(ibkr_host="redis://:hunter2@localhost", ibkr_port="redis://:hunter2@localhost")
    assert len(refused.value.problems) == 2
    assert SECRET not in str(refused.value)


def test_masked_url_still_names_host_and_port() -> None:
    assert mask_url("redis://user:hunter2@cache:6380/2") == "redis://user:***@cache:6380/2"
    assert mask_url("redis://hunter2@cache") == "redis://***@cache"
    assert mask_url("unix:///tmp/r.sock?password=hunter2&db=2") == "unix:///tmp/r.sock?***&db=2"
    assert mask_url("redis://:a/b@cache") == "redis://***"


@given(st.text(min_size=1), st.sampled_from(["redis", "rediss", "unix", "redis+cluster"]))
def test_percent_encoded_password_is_accepted_and_hidden(password: str, scheme: str) -> None:
    # marked, so that a chance find in the rest of the text is no find
    encoded = quote(f"<{password}>".encode("utf-8", "surrogatepass"), safe="")
    target = "/tmp/redis.sock" if scheme == "unix" else "localhost:6379"
    url = f"{scheme}://user:{encoded}@{target}"
    masked = load_settings(redis_url=url).redis_url_masked
    assert masked == f"{scheme}://user:***@{target}"


@given(
    st.text(alphabet=string.punctuation + "ab19 é\n", max_size=12),
    st.sampled_from(
        ["{}@localhost/0", ":{}@localhost", "u:{}@localhost:1/0", "localhost?password={}", "@h?password={}"]
    ),
)
def test_password_is_never_shown_in_any_form(noise: str, form: str) -> None:
    password = f"{noise}Q{noise}Z{noise}"  # capitals that stand nowhere else
    shown = mask_url("redis://" + form.format(password))
    assert not re.search("[QZ]", shown)


def test_example_file_holds_every_setting_with_its_meaning_and_default() -> None:
    blocks = [block.splitlines() for block in EXAMPLE.read_text().split("\n\n")]
    told = {lines[-1].partition("=")[0]: lines for lines in blocks if "=" in lines[-1] and lines[-1][0] != "#"}
    assert set(told) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        *comment, assignment = told[name.upper()]
        assert assignment == f"{name.upper()}={field.default}"
        default = "none" if field.default == "" else field.default
        assert " ".join(line.removeprefix("# ") for line in comment) == f"{field.description}; default {default}"


def test_example_file_as_dot_env_changes_nothing() -> None:
    defaults = load_settings()
    Path(".env").write_text(EXAMPLE.read_text())
    assert load_settings() == defaults
