"""The files that `ibkr_ingest_run init` writes into a new folder: the repository's own `.env` and `config/`.

A wheel holds them beside this module (pyproject.toml), an editable install finds them in the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ibkr_depth_pipeline.errors import ConfigurationError

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]


class StarterFile(NamedTuple):
    """A file of the starter. `written` is False if it existed already; then it is unchanged."""

    path: Path
    written: bool


def write_starter(folder: Path) -> list[StarterFile]:
    """Write the files that `folder` lacks. Raises ConfigurationError if a file can't be written."""
    return [_write(folder / name, source) for name, source in _sources()]


def _sources() -> Iterator[tuple[str, Path]]:
    packed = (_HERE / "config").is_dir()
    yield ".env", _HERE / "env.example" if packed else _REPOSITORY / ".env.example"
    for source in sorted(((_HERE if packed else _REPOSITORY) / "config").glob("*.yaml")):
        yield f"config/{source.name}", source


def _write(path: Path, source: Path) -> StarterFile:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:  # never over a file, nor through a link to one
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        return StarterFile(path, written=False)
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be written: {error.strerror}"]) from None
    return StarterFile(path, written=True)
