"""The run folder: where the box's configuration comes from, and what its children are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ibkr_depth_pipeline.box.processes import BoxError
from ibkr_depth_pipeline.box.run_folder import RunFolder


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    folder = RunFolder()
    yield folder
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.parametrize("name", ["IBKR_HOST", "ibkr_port", "REDIS_URL", "redis_url", "DAGSTER_HOME", "HTTP_PROXY"])
def test_users_environment_cannot_redirect_the_children(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "elsewhere")
    env = folder.environment(("127.0.0.1", 4002), "redis://127.0.0.1:6390/0")
    assert "elsewhere" not in env.values()
    assert (env["IBKR_HOST"], env["IBKR_PORT"], env["REDIS_URL"]) == ("127.0.0.1", "4002", "redis://127.0.0.1:6390/0")


def test_other_settings_of_the_user_reach_the_children(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBKR_ROTATION_SECS", "3")
    assert folder.environment()["IBKR_ROTATION_SECS"] == "3"


def test_paths_for_the_children_are_absolute_and_there(folder: RunFolder) -> None:
    env = folder.environment()
    for path in (Path(env["SYMBOL_CONFIG_PATH"]), Path(env["DAGSTER_HOME"], "dagster.yaml")):
        assert path.is_absolute()
        assert path.is_file()


def test_universe_can_be_limited(folder: RunFolder) -> None:
    folder.limit_universe(["AAPL", "MSFT"])
    universe = Path(folder.environment()["SYMBOL_CONFIG_PATH"])
    assert yaml.safe_load(universe.read_text()) == {"symbols": ["AAPL", "MSFT"]}


def test_folder_without_configuration_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(BoxError, match=f"{tmp_path}.*--config"):
        RunFolder(tmp_path)
