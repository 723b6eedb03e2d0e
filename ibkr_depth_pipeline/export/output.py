"""An export's files on disk: they appear whole, under their own name, or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ibkr_depth_pipeline.errors import ConfigurationError

MANIFEST_SUFFIX = ".manifest.json"


def manifest_path(path: Path) -> Path:
    """Where the manifest of the export at `path` belongs."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


def check_target(path: Path, *, force: bool = False) -> None:
    """Raises ConfigurationError if no file can be written there, or another program's file would be replaced.

    A file with a manifest beside it is an earlier export: it is replaced without `force`.
    """
    folder = path.parent
    if path.is_dir():
        raise _refused(path, "is a folder; give the path of a file in it")
    if not folder.is_dir():
        raise _refused(path, f"{folder} is no folder that exists; create it first, or give another path")
    if not os.access(folder, os.W_OK):
        raise _refused(path, f"{folder} is not writable for this user")
    if path.exists() and not manifest_path(path).exists() and not force:
        raise _refused(path, "is there already and is no export with a manifest; --force replaces it")


def _refused(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError("export", [f"PATH={str(path)!r} can't be written: {why}"])


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` for the block to write to; at its end the file takes the name, durably.

    If the block fails, what it wrote is deleted and a file that stood at `path` stays. Raises ConfigurationError if the
    disk refuses.
    """
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.writing")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise _refused(path, str(error.strerror or error)) from error
    finally:
        aside.unlink(missing_ok=True)


def checksum(path: Path) -> dict[str, str | int]:
    """The file's name, bytes and SHA-256, as the manifest lists them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
