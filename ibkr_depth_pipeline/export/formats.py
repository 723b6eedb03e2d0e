"""The formats of an export: what each is called, holds, loses and needs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import Enum
from importlib import metadata

from ibkr_depth_pipeline.errors import ConfigurationError


class ExportFormat(str, Enum):
    """What `--to` takes."""

    PARQUET = "parquet"
    CSV = "csv"
    DBN = "dbn"
    HFTBACKTEST = "hftbacktest"
    NAUTILUS = "nautilus"


class Content(str, Enum):
    """What a record is: a snapshot by price, a snapshot with its rows as they stood, or a row of depth."""

    LEVELS = "levels"
    ROWS = "rows"
    INCREMENTS = "increments"


def check_content(of: ExportFormat, content: Content) -> None:
    """Raises ConfigurationError for a content that the format does not have."""
    if content is not Content.LEVELS and of not in (ExportFormat.PARQUET, ExportFormat.CSV):
        problem = f"--{content.value} is not allowed with --to {of.value}; it is with parquet and csv"
        raise ConfigurationError("export", [problem])


@dataclass(frozen=True, slots=True)
class FormatNotes:
    """What a manifest holds of a format. library is the module that writes it, extra what installs that.

    settled_only: by default an export in this format has settled books only, as its readers act on each one.
    """

    layout: str
    library: str
    extra: str
    settled_only: bool
    loses: tuple[str, ...]


_NO_MAKERS = "the market makers or venues of the rows"
_NOTES = {
    ExportFormat.PARQUET: FormatNotes("tidy columns, version 1", "pyarrow", "archive", False, (_NO_MAKERS,)),
    ExportFormat.CSV: FormatNotes("tidy columns, version 1", "pyarrow", "archive", False, (_NO_MAKERS,)),
    ExportFormat.DBN: FormatNotes(
        "DBN version 3, schema mbp-10, zstd",
        "databento_dbn",
        "dbn",
        False,
        (_NO_MAKERS, "subscription numbers; a record of action R ends each"),
    ),
    ExportFormat.HFTBACKTEST: FormatNotes(
        "npz of event_dtype, hftbacktest 2",
        "numpy",
        "archive",
        True,
        (_NO_MAKERS, "counts of rows", "seq", "books that are not settled, and those before a whole one"),
    ),
    ExportFormat.NAUTILUS: FormatNotes(
        "ParquetDataCatalog of OrderBookDepth10",
        "nautilus_trader",
        "nautilus",
        True,
        (_NO_MAKERS, "subscription numbers; an empty book ends each", "books that are not settled"),
    ),
}


def parse_format(text: str) -> ExportFormat:
    """The format of that name. Raises ConfigurationError, which lists what there is."""
    try:
        return ExportFormat(text.strip().lower())
    except ValueError:
        allowed = ", ".join(each.value for each in ExportFormat)
        raise ConfigurationError("export", [f"--to {text!r} is not allowed; one of {allowed}"]) from None


def notes(of: ExportFormat) -> FormatNotes:
    """What a manifest holds of the format."""
    return _NOTES[of]


def need_library(of: ExportFormat) -> None:
    """Raises ConfigurationError, which names the remedy, if the library that writes the format is not installed."""
    note = notes(of)
    if importlib.util.find_spec(note.library) is None:
        remedy = f"pip install 'ibkr_depth_pipeline[{note.extra}]'"
        raise ConfigurationError("export", [f"--to {of.value} needs {note.library}, which is not installed: {remedy}"])


def library_version(of: ExportFormat) -> str:
    """The installed version of the library that writes the format."""
    return metadata.version(notes(of).library.replace("_", "-"))
