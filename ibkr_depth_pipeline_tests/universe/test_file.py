"""config/ibkr_symbols.yaml: what it may hold, and errors that name the file and every bad entry."""

from __future__ import annotations

import contextlib
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.universe import SymbolSpec, Universe, load_universe, parse_universe
from ibkr_depth_pipeline_tests.conftest import REPOSITORY

DEFAULT_FILE = REPOSITORY / "config" / "ibkr_symbols.yaml"


def read(tmp_path: Path, text: str) -> Universe:
    path = tmp_path / "symbols.yaml"
    path.write_text(text, encoding="utf-8")
    return load_universe(path)


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    """What is wrong with a file of that text; asserts that the error names the file."""
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, text)
    assert refused.value.where == str(tmp_path / "symbols.yaml")
    assert refused.value.where in str(refused.value)
    return refused.value.problems


def test_default_universe_is_that_of_the_specification() -> None:
    names = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN", "META", "NVDA", "TSLA")
    assert load_universe(DEFAULT_FILE).symbols == names


def test_spx_is_commented_out_in_the_default_file_and_can_be_added_back(tmp_path: Path) -> None:
    text = DEFAULT_FILE.read_text()
    assert "# - {symbol: SPX" in text
    assert "no order book of its own" in text
    assert read(tmp_path, text.replace("# - {symbol: SPX", "- {symbol: SPX")).specs[-1] == SymbolSpec(
        "SPX", sec_type="IND", exchange="CBOE"
    )


def test_names_and_mappings_keep_their_order(tmp_path: Path) -> None:
    text = (
        "symbols:\n- SPY\n- {symbol: BRK B, exchange: NYSE, primary_exchange: NYSE, currency: USD, con_id: 72063691}\n"
    )
    assert read(tmp_path, text).specs == (
        SymbolSpec("SPY"),
        SymbolSpec("BRK B", "NYSE", "NYSE", None, "USD", 72063691),
    )


def test_override_wins_over_the_entry_and_leaves_its_other_keys(tmp_path: Path) -> None:
    text = "symbols: [{symbol: SPY, exchange: ARCA, currency: USD}, AAPL]\noverrides: {SPY: {exchange: BATS}}"
    assert read(tmp_path, text).specs == (SymbolSpec("SPY", exchange="BATS", currency="USD"), SymbolSpec("AAPL"))


@pytest.mark.parametrize("name", ["SPY", "A", "BRK B", "BF.B", "600519", "X-Y", "A/B", "T&T", "M6E+"])
def test_good_name_is_accepted(name: str) -> None:
    assert parse_universe({"symbols": [name]}, "file").symbols == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "spy",
        "Spy",
        "BRK  B",
        " SPY",
        "SPY ",
        "A B C",
        "SPY\n",
        "S\x00PY",
        "S\tPY",
        "SPY:1",
        "",
        "*",
        "SPÝ",
        "{SPY}",
        "BRK\u00a0B",
        "S\x7fPY",
        "SPY\u2028",
        "\u0660",
        "A" * 33,
        "../SPY",
        "$SPY",
    ],
)
def test_bad_name_is_refused_with_its_place(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_universe({"symbols": ["AAPL", name]}, "the/file.yaml")
    (problem,) = refused.value.problems
    assert problem.startswith(f"symbols[2] {name!r}: ")
    assert "\n" not in str(refused.value)


@given(st.text(max_size=8))
def test_accepted_name_can_not_break_a_key_or_a_log(name: str) -> None:
    try:
        (accepted,) = parse_universe({"symbols": [name]}, "file").symbols
    except ConfigurationError:
        return
    assert accepted == name
    assert set(name) <= set(string.ascii_uppercase + string.digits + ".-/&+ ")
    assert name == " ".join(name.split())


MISREAD = (
    "NO",
    "ON",
    "OFF",
    "Y",
    "N",
    "YES",
    "TRUE",
    "FALSE",
    "NULL",
    "7203",
    "0123",
    "1.5",
    "1E5",
    "5.",
)
MISREAD_ELSEWHERE = (
    "1e+5",
    "1:30",
    "Yes",
    "y",
    "on",
    "~",
    "0x1F",
    "0o17",
    "0b101",
    "1_000",
    ".5",
    "-.inf",
    ".NaN",
    "2020-01-02",
)


@pytest.mark.parametrize("text", MISREAD + MISREAD_ELSEWHERE)
def test_error_of_a_name_that_yaml_reads_as_something_else_asks_to_quote_it(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, f"symbols:\n- AAPL\n- {text}\n")
    assert "symbols[2]" in problem
    assert "quote it" in problem


@pytest.mark.parametrize("text", MISREAD)
@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("{{symbol: {}, exchange: ARCA}}", "symbol"),
        ("{{name: {}, symbol: SPY}}", "name"),
        ("{{symbol: SPY, trading_class: {}}}", "trading_class"),
        ("\n  name: X\n  local_symbol: {}\n", "local_symbol"),
        ("{{symbol: SPY, exchange: {}}}", "exchange"),
    ],
)
def test_name_without_quotes_is_refused_wherever_it_stands(tmp_path: Path, text: str, entry: str, key: str) -> None:
    (problem,) = problems(tmp_path, f"symbols:\n- {entry.format(text)}")
    assert "symbols[1]" in problem
    assert key in problem
    assert f"'{text}' in quotes" in problem
    assert "quote it" in problem


@pytest.mark.parametrize("text", MISREAD)
def test_override_of_a_name_needs_its_quotes_too(tmp_path: Path, text: str) -> None:
    overridden = f"symbols: ['{text}']\noverrides: {{{{}}: {{exchange: ARCA}}}}"
    assert read(tmp_path, overridden.replace("{}", f"'{text}'", 1)).specs[0].exchange == "ARCA"
    assert all("quote it" in problem for problem in problems(tmp_path, overridden.replace("{}", text, 1)))


@pytest.mark.parametrize(
    "text", ["E5", "YY", "NOW", "ONE", "T", "F", "TRUEX", "1E", "INF", "NAN", "0X1F", "9988.HK", "A-1"]
)
def test_name_that_no_yaml_reader_mistakes_needs_no_quotes(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"symbols: [{text}, {{name: Q, symbol: {text}, exchange: ARCA}}]").symbols == (text, "Q")


@pytest.mark.parametrize("text", ['"NO"', "'ON'", "'Y'", '"N"', '"123"', "'1E5'", '"NULL"'])
def test_name_that_is_quoted_is_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"symbols: [{text}]").symbols == (text.strip("\"'"),)


def test_error_of_an_override_that_yaml_reads_as_something_else_asks_to_quote_it(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "symbols: ['NO']\noverrides: {NO: {exchange: ARCA}}")
    assert "overrides[False]" in problem
    assert "quote it" in problem


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("symbols: []", "symbols:"),
        ("symbols:", "symbols:"),
        ("symbols: SPY", "symbols:"),
        ("symbols: {SPY: }", "symbols:"),
        ("overrides: {}", "symbols:"),
        ("symbols: [SPY]\nsymbol: [AAPL]", "unknown key 'symbol'"),
        ("symbols: [{symbol: SPY, venue: ARCA}]", "symbols[1] 'SPY': unknown key 'venue'"),
        ("symbols: [{exchange: ARCA}]", "symbols[1] '(no symbol)': a symbol must be a text"),
        ("symbols: [SPY, ]\noverrides: [SPY]", "overrides:"),
        ("symbols: [SPY]\noverrides: {AAPL: {exchange: ISLAND}}", "overrides['AAPL']: no such symbol"),
        ("symbols: [SPY]\noverrides: {SPY: ARCA}", "overrides['SPY']: must be a mapping"),
        ("symbols: [SPY]\noverrides: {SPY: {symbol: SPY}}", "overrides['SPY']: unknown key 'symbol'"),
        ("symbols: [SPY, [AAPL]]", "symbols[2] ['AAPL']"),
        ("symbols: [SPY, null]", "symbols[2] None"),
        ("symbols: [{symbol: SPY, exchange: arca}]", "symbols[1] 'SPY' exchange: 'arca'"),
        ("symbols: [{symbol: SPY, exchange: SMART}]", "SMART is no venue"),
        ("symbols: [{symbol: SPY, primary_exchange: SMART}]", "SMART is no venue"),
        ("symbols: [{symbol: SPY, exchange: ''}]", "symbols[1] 'SPY' exchange: ''"),
        ("symbols: [{symbol: SPY, exchange: NO}]", "quote it"),
        ('symbols: [{symbol: SPY, exchange: "AR\\nCA"}]', "'AR\\nCA'"),
        ("symbols: [{symbol: SPY, sec_type: STOCK}]", "symbols[1] 'SPY' sec_type: 'STOCK'"),
        ("symbols: [{symbol: SPY, currency: dollar}]", "symbols[1] 'SPY' currency: 'dollar'"),
        ("symbols: [{symbol: SPY, con_id: '756733'}]", "symbols[1] 'SPY' con_id: '756733'"),
        ("symbols: [{symbol: SPY, con_id: 0}]", "con_id: 0"),
        ("symbols: [{symbol: SPY, con_id: -1}]", "con_id: -1"),
        ("symbols: [{symbol: SPY, con_id: yes}]", "con_id: True"),
        ("symbols: [{symbol: SPY, con_id: 2147483648}]", "con_id: 2147483648"),
        ("symbols: [{symbol: SPY, con_id: 1.5}]", "con_id: 1.5"),
        ("- SPY", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("just a text", "must hold a mapping"),
        ("symbols: [SPY", "is not YAML"),
        ("symbols: [SPY]\n\tx: 1", "is not YAML"),
        ("symbols: [SPY]\nsymbols: [AAPL]", "the key 'symbols' stands twice"),
        ("symbols: [SPY]\noverrides: {SPY: {exchange: ARCA}, SPY: {exchange: BATS}}", "the key 'SPY' stands twice"),
        ("symbols: [2020-13-45]", "is not YAML"),
        ("symbols: [!!int x]", "is not YAML"),
        ("symbols: [!!timestamp x]", "is not YAML"),
        ("{[a]: b}", "is not YAML"),
        ("[" * 5000, "nested too deeply"),
        ("symbols: ['SPY\x07']", "is not YAML"),
    ],
)
def test_error_names_the_entry(tmp_path: Path, text: str, place: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert place in problem
    assert "\n" not in problem


def test_duplicate_is_refused_in_either_form(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "symbols: [SPY, AAPL, {symbol: SPY, exchange: BATS}]")
    assert problem == "'SPY' is listed 2 times; list each symbol once"


def test_errors_are_all_listed_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "symbols: [spy, {symbol: SPY, venue: X, con_id: x}, SPY]\noverrides: {AAPL: 1}\nmore: 1")
    assert len(found) == 7
    for part in ("'more'", "'spy'", "'venue'", "'SPY' con_id: 'x'", "2 times", "no such symbol", "must be a mapping"):
        assert sum(part in problem for problem in found) == 1, part


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system ", "!thing {}"])
def test_yaml_tags_never_construct_objects(tmp_path: Path, tag: str) -> None:
    (problem,) = problems(tmp_path, f"symbols: [{tag}]")
    assert "could not determine a constructor" in problem


def test_missing_file_folder_and_binary_file_are_one_clear_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(ConfigurationError, match="can't be read") as refused:
            load_universe(path)
        assert refused.value.where == str(path)


def test_error_names_the_whole_path_of_a_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("symbols: []")
    with pytest.raises(ConfigurationError) as refused:
        load_universe(Path("s.yaml"))
    assert refused.value.where == str(tmp_path / "s.yaml")


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffsymbols: [SPY]").symbols == ("SPY",)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers() | st.sampled_from(["symbols", "overrides"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_document_is_a_universe_or_a_configuration_error(document: object) -> None:
    for each in (document, {"symbols": document}, {"symbols": ["SPY"], "overrides": document}):
        with contextlib.suppress(ConfigurationError):
            assert parse_universe(each, "file").specs


def test_subset_has_the_requested_order_and_keeps_the_options_of_the_file() -> None:
    universe = parse_universe({"symbols": ["SPY", {"symbol": "AAPL", "exchange": "BATS"}]}, "file")
    assert universe.subset(["AAPL", "SPY"]).specs == (SymbolSpec("AAPL", exchange="BATS"), SymbolSpec("SPY"))


def test_subset_may_name_a_symbol_that_the_file_does_not_hold() -> None:
    assert parse_universe({"symbols": ["SPY"]}, "file").subset(["IBM"]).specs == (SymbolSpec("IBM"),)


def test_error_of_a_subset_lists_all_bad_and_doubled_names() -> None:
    universe = parse_universe({"symbols": ["SPY"]}, "file")
    with pytest.raises(ConfigurationError) as refused:
        universe.subset(["spy", "SPY", "SPY", "A:B"])
    assert len(refused.value.problems) == 3
    assert refused.value.where == "symbols asked for"


def test_file_written_by_yaml_is_read_back(tmp_path: Path) -> None:
    document = {"symbols": ["NO", "SPY", {"symbol": "123", "con_id": 7}], "overrides": {"NO": {"exchange": "OSE"}}}
    assert read(tmp_path, yaml.safe_dump(document)) == parse_universe(document, "file")


def test_entries_say_who_comes_first_and_in_which_hours(tmp_path: Path) -> None:
    text = "symbols: [{symbol: SPY, pin: true}, {symbol: ES, weight: 3, hours: trading}, AAPL]\n"
    text += "overrides: {AAPL: {hours: always, weight: 2}}"
    spy, es, aapl = read(tmp_path, text).specs
    assert (spy.pin, spy.weight, spy.hours) == (True, 1, None)
    assert (es.pin, es.weight, es.hours) == (False, 3, "trading")
    assert (aapl.pin, aapl.weight, aapl.hours) == (False, 2, "always")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("pin", "1", "true or false"),
        ("pin", "'yes'", "true or false"),
        ("weight", "0", "a whole number from 1 to 100"),
        ("weight", "101", "a whole number from 1 to 100"),
        ("weight", "1.5", "a whole number from 1 to 100"),
        ("weight", "true", "a whole number from 1 to 100"),
        ("hours", "rth", "liquid, trading, always"),
    ],
)
def test_bad_priority_or_hours_are_named_with_what_is_allowed(
    tmp_path: Path, key: str, value: str, allowed: str
) -> None:
    (problem,) = problems(tmp_path, f"symbols: [{{symbol: SPY, {key}: {value}}}]")
    assert f"{key}:" in problem
    assert allowed in problem


@pytest.mark.parametrize(("pinned", "others", "slots", "good"), [(2, 1, 3, True), (3, 1, 3, False), (3, 0, 3, True)])
def test_pins_leave_a_slot_unless_nothing_else_is_listed(pinned: int, others: int, slots: int, good: bool) -> None:
    specs = [SymbolSpec(f"P{number}", pin=True) for number in range(pinned)]
    universe = Universe((*specs, *(SymbolSpec(f"O{number}") for number in range(others))))
    if good:
        universe.check_pins(slots, "symbols.yaml")
        return
    with pytest.raises(ConfigurationError, match=r"P0, P1, P2.*at most 2.*IBKR_MAX_CONCURRENT_DEPTH"):
        universe.check_pins(slots, "symbols.yaml")
