"""An export's files on disk: they appear whole, under their own name, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ibkr_depth_pipeline.errors import ConfigurationError

MANIFEST_SUFFIX = ".manifest.json"


class Output(Protocol):
    """Where an export goes. It is written to `aside`, and appears by `publish`; without that, nothing stays of it."""

    aside: Path

    @property
    def files(self) -> list[dict[str, str | int]]:
        """Name, bytes and SHA-256 of what was written, as the manifest lists them."""

    def publish(self, manifest: str) -> Path:
        """Puts the files and the manifest in their places, durably; returns where the manifest is."""


@contextmanager
def file_output(path: Path, *, force: bool) -> Iterator[Output]:
    """An export that is the one file `path`.

    Raises ConfigurationError if no file can be written there, or if one stands there without a manifest, so that it is
    no earlier export, and `force` is not set.
    """
    _check_folder(path)
    if path.is_dir():
        raise _refused(path, "is a folder; give the path of a file in it")
    if path.exists() and not _manifest_of(path).exists() and not force:
        raise _refused(path, "is there already and is no export with a manifest; --force replaces it")
    output = _FileOutput(path)
    try:
        with _refusals_of_disk(path):
            yield output
    finally:
        output.aside.unlink(missing_ok=True)


@contextmanager
def folder_output(path: Path, name: str) -> Iterator[Output]:
    """An export that adds files to the folder `path`, its manifest there is called `name`.

    Files of an earlier export of that name go; others stay. Raises ConfigurationError if `path` can't be such a folder.
    """
    _check_folder(path)
    if path.exists() and not path.is_dir():
        raise _refused(path, "is no folder; this format fills one, which may be new")
    output = _FolderOutput(path, name)
    try:
        with _refusals_of_disk(path):
            output.aside.mkdir()
            yield output
    finally:
        shutil.rmtree(output.aside, ignore_errors=True)


class _FileOutput:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.aside = _aside(path)

    @property
    def files(self) -> list[dict[str, str | int]]:
        return [_checked(self.aside, self._path.name)]

    def publish(self, manifest: str) -> Path:
        place = _manifest_of(self._path)
        with _written(place, manifest) as ready:
            _sync(self.aside)
            self.aside.replace(self._path)
            ready.replace(place)
        return place


class _FolderOutput:
    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._manifest = path / f"{name}{MANIFEST_SUFFIX}"
        self.aside = _aside(path)

    @property
    def files(self) -> list[dict[str, str | int]]:
        return [_checked(self.aside / name, name) for name in self._names()]

    def publish(self, manifest: str) -> Path:
        names, earlier = self._names(), self._earlier()
        taken = [name for name in names if name not in earlier and (self._path / name).exists()]
        if taken:
            raise _refused(self._path, f"{taken[0]} is there already, and not by an export of this name")
        self._path.mkdir(exist_ok=True)
        with _written(self._manifest, manifest) as ready:
            for name in earlier:
                (self._path / name).unlink(missing_ok=True)
            for name in names:
                _sync(self.aside / name)
                (self._path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.aside / name).replace(self._path / name)
            ready.replace(self._manifest)
        return self._manifest

    def _names(self) -> list[str]:
        return sorted(str(path.relative_to(self.aside)) for path in self.aside.rglob("*") if path.is_file())

    def _earlier(self) -> list[str]:
        try:
            listed = json.loads(self._manifest.read_text())["files"]
            return [str(each["name"]) for each in listed]
        except (OSError, ValueError, KeyError, TypeError):
            return []


def _manifest_of(path: Path) -> Path:
    return path.with_name(path.name + MANIFEST_SUFFIX)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}.writing")


@contextmanager
def _written(path: Path, text: str) -> Iterator[Path]:
    """The text in a file beside `path`, ready to take that name."""
    aside = _aside(path)
    try:
        aside.write_text(text, encoding="utf-8")
        _sync(aside)
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise _refused(path, f"{folder} is no folder that exists; create it first, or give another path")
    if not os.access(folder, os.W_OK):
        raise _refused(path, f"{folder} is not writable for this user")


@contextmanager
def _refusals_of_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refused(path, str(error.strerror or error)) from error


def _refused(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError("export", [f"PATH={str(path)!r} can't be written: {why}"])


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _checked(path: Path, name: str) -> dict[str, str | int]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"name": name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
