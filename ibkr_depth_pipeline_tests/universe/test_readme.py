"""README's table of the universe's keys: each key stands in it, and each of its examples is accepted as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ibkr_depth_pipeline.universe import OPTIONAL_KEYS, load_universe
from ibkr_depth_pipeline_tests.conftest import REPOSITORY

SECTION = (REPOSITORY / "README.md").read_text().partition("\n## The universe\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (`[a-z_`, ]+`) \| (`.*?) \| .* \|$", SECTION, re.MULTILINE)
FUTURE = "symbol: ES, sec_type: FUT, exchange: CME"
BESIDE = {
    "name": "symbol: AAPL, exchange: ARCA",
    "symbol": "exchange: NYSE",
    "sec_type": "symbol: ES",
    "expiry": FUTURE,
    "roll": f"{FUTURE}, expiry: front",
    "local_symbol": "name: DEC, sec_type: FUT",
    "trading_class": "symbol: DAX, sec_type: FUT, expiry: front",
    "multiplier": "symbol: DAX, sec_type: FUT, expiry: front",
    "strike": "symbol: SPY, sec_type: OPT, expiry: 202612, right: P",
    "right": "symbol: SPY, sec_type: OPT, expiry: 202612, strike: 500",
    "con_id": "name: APPLE",
}
"""What an entry needs besides the key."""


def examples() -> list[tuple[str, str]]:
    """Each key with each of its examples; a row of several keys has one example for each."""
    found = []
    for keys, shown in ROWS:
        names, values = re.findall("`(.*?)`", keys), re.findall("`(.*?)`", shown)
        found += [(names[0], value) for value in values] if len(names) == 1 else list(zip(names, values, strict=True))
    return found


def test_table_has_every_key() -> None:
    assert {key for key, _ in examples()} == {"name", "symbol", *OPTIONAL_KEYS}


@pytest.mark.parametrize(("key", "value"), examples())
def test_example_is_accepted_as_it_is_written(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "symbols.yaml"
    path.write_text(f"symbols: [{{{BESIDE.get(key, 'symbol: SPY')}, {key}: {value}}}, QQQ]")
    spec = load_universe(path).specs[0]
    found = getattr(spec, key)
    assert found is not None
    if key != "roll":
        assert str(found).removesuffix(".0") == str(yaml.safe_load(value))


def test_example_of_the_section_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "symbols.yaml"
    path.write_text(re.search(r"(?m)^    symbols:\n(?:    .*\n)+", SECTION).group().replace("\n    ", "\n")[4:])  # type: ignore[union-attr]
    assert load_universe(path).symbols == ("SPY", "AAPL.ARCA", "EUR.GBP", "ES")
