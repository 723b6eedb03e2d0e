"""A folder or an object store, as the archive needs it: whole files appear at once or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote, unquote

import fsspec  # type: ignore[import-untyped]
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.layout import TEMPORARY, Place, ReportPlace, parse, places
from ibkr_depth_pipeline.errors import ArchiveHeld, ArchiveUnavailable, ConfigurationError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PUT_IS_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"})
"""Object stores: what is put is there as a whole or not at all. Elsewhere files are written aside and moved."""

_NOTES = f"{TEMPORARY}/replacing"
_SWAPPED = ".swapped"


class ArchiveStore:
    """The archive at `url`: a local folder, or anything that fsspec knows.

    Names are paths below it, with slashes. Every method raises ArchiveUnavailable if the store fails; the
    constructor raises ConfigurationError for a URL of a kind that is unknown or needs a package that is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            # Listings must be of now: fsspec would keep them.
            options = {"use_listings_cache": False, "skip_instance_cache": True} if "://" in url else {}
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise ConfigurationError("archive", [f"ARCHIVE_URL={url!r} can't be used: {error}"]) from None
        self._root = str(root).rstrip("/")
        protocol = self._fs.protocol if isinstance(self._fs.protocol, str) else self._fs.protocol[0]
        self.is_local = protocol in ("file", "local")
        self._puts_atomically = protocol in _PUT_IS_ATOMIC

    @property
    def place(self) -> str:
        """The archive as a person finds it: a whole path, or the URL."""
        return str(Path(self._root).absolute()) if self.is_local else self.url

    # ---- reading

    def places(self, under: str) -> list[Place]:
        """The archive's files in that folder and below it, by name; none if there is no such folder."""
        start = len(self._root) + 1
        found = self._guarded(self._find, under)
        return places(str(name)[start:] for name in found)

    def _find(self, under: str, *, detail: bool = False) -> Any:
        """Names, or with `detail` a mapping from names to what is known of each."""
        try:
            self._fs.invalidate_cache()
            return self._fs.find(f"{self._root}/{under}", detail=detail)
        except FileNotFoundError:
            return {}

    @contextmanager
    def parquet(self, place: Place) -> Iterator[pq.ParquetFile]:
        """The file, opened. Raises ArchiveUnavailable if it can't be read, FileNotFoundError if it is gone."""
        with contextlib.ExitStack() as stack:
            if self.is_local:  # pyarrow reads files of its own faster than through Python
                yield stack.enter_context(self._guarded(pq.ParquetFile, self._path(place.name)))
            else:
                file = stack.enter_context(self._guarded(self._fs.open, self._path(place.name), "rb"))
                yield stack.enter_context(self._guarded(pq.ParquetFile, file))

    def report(self, place: ReportPlace) -> bytes | None:
        """The page of a date; None if there is none."""
        try:
            content: bytes = self._guarded(self._fs.cat_file, self._path(place.name))
        except FileNotFoundError:
            return None
        return content

    def size(self, place: Place) -> int:
        """The file's size in bytes."""
        return int(self._guarded(self._fs.size, self._path(place.name)))

    def has_any_of(self, *trees: str) -> bool:
        """Whether one of these trees is there."""
        return any(self._guarded(self._is_folder, tree) for tree in trees)

    def _is_folder(self, name: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.isdir(self._path(name)))

    def sizes(self, under: str) -> dict[Place, int]:
        """The archive's files in that folder and below it, with their sizes in bytes."""
        start = len(self._root) + 1
        found = self._guarded(self._find, under, detail=True)
        return {place: int(info["size"]) for name, info in found.items() if (place := parse(str(name)[start:]))}

    def address(self, place: Place) -> str:
        """The file as another program opens it: a local path, or a URL."""
        return str(self._fs.unstrip_protocol(self._path(place.name))) if not self.is_local else self._path(place.name)

    def address_below(self, *names: str) -> str:
        """A local path below the archive's folder, such as a glob."""
        return self._path("/".join(names))

    @property
    def filesystem(self) -> Any:
        """The fsspec file system, for libraries that read through one."""
        return self._fs

    # ---- writing

    def put(self, place: Place, content: bytes) -> None:
        """Store a whole file, for good: on return it survives a loss of power. A file of that name is replaced."""
        self._guarded(self._put, place.name, content)

    def _put(self, name: str, content: bytes) -> None:
        if self._puts_atomically:
            self._fs.pipe_file(self._path(name), content)
            return
        with self.written_aside("put") as aside:
            aside.write_bytes(content)
            self._publish(aside, name)

    def check_writable(self) -> None:
        """Store a file of no content, and delete it. A bucket that is not there, too, raises ArchiveUnavailable."""
        name = f"{TEMPORARY}/check-{secrets.token_hex(8)}.writing"
        try:
            self._guarded(self._put, name, b"")
            self._guarded(self._fs.rm_file, self._path(name))
        except FileNotFoundError as error:
            raise ArchiveUnavailable(f"archive {self.url}: {error}") from None

    @contextmanager
    def written_aside(self, purpose: str) -> Iterator[Path]:
        """A local path for a file to be written; `publish` it within the block, or it is thrown away."""
        folder = Path(self._root) / TEMPORARY if self.is_local else Path(tempfile.gettempdir())
        self._guarded(lambda: folder.mkdir(parents=True, exist_ok=True))
        path = folder / f"{purpose}-{secrets.token_hex(8)}.writing"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def publish(self, aside: Path, place: Place | ReportPlace) -> None:
        """Make the file written aside the one at `place`, at once and for good."""
        self._guarded(self._publish, aside, place.name)

    def _publish(self, aside: Path, name: str) -> None:
        target = self._path(name)
        if self.is_local:
            with self._folders_stay():
                _move_durably(aside, Path(target))
        elif self._puts_atomically:
            self._fs.put_file(str(aside), target)
        else:
            passing = self._path(f"{TEMPORARY}/{name.replace('/', '_')}.writing")
            self._fs.makedirs(passing.rpartition("/")[0], exist_ok=True)
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(aside), passing)
            self._fs.mv(passing, target)

    def replace(self, aside: Path, place: Place, gone: Sequence[Place]) -> None:
        """Makes the file written aside the one at `place`, in exchange for `gone`: files of the same folder.

        In a local folder that is one step: a listing of the folder finds either what was there or what is there now.
        If the file system can't do that, and in an object store, the file appears first and `gone` go after it; a note
        in TEMPORARY marks the folder until that is done (`unfinished`).
        """
        if gone and self.is_local and self._guarded(self._swap_in, aside, Path(self._path(place.name)), gone):
            return
        if gone:
            self.note_unfinished(place)
        self.publish(aside, place)
        self.delete(gone)
        if gone:
            self.finished(place)

    def note_unfinished(self, place: Place) -> None:
        """Puts a place on the list of `unfinished`."""
        self._guarded(self._put, _note(place), b"")

    def unfinished(self) -> list[Place]:
        """The compacted files beside which a kill has left what they were to replace."""
        names = (unquote(str(name).rpartition("/")[2]) for name in self._guarded(self._find, _NOTES))
        return places(names)

    def finished(self, place: Place) -> None:
        """Takes a place off the list of `unfinished`."""
        self._guarded(self._delete, _note(place))

    def _swap_in(self, aside: Path, target: Path, gone: Sequence[Place]) -> bool:
        """False, and nothing has changed, if this folder can't be swapped. The former one waits for `sweep`."""
        staged = aside.with_suffix(_SWAPPED)
        staged.mkdir()
        left_out = {target.name, *(place.file for place in gone)}
        try:
            os.link(aside, staged / target.name)
            _sync(staged / target.name)
            with self._folders_stay(exclusive=True):
                for path in target.parent.iterdir():
                    if path.name not in left_out:
                        os.link(path, staged / path.name)
                _sync(staged)
                swapped = self._swap(staged, target.parent)
                _sync(staged.parent)
                _sync(target.parent.parent)
        except OSError:  # no hard links here, or a folder that is none of ours
            swapped = False
        if not swapped:
            shutil.rmtree(staged)
        return swapped

    def _swap(self, staged: Path, folder: Path) -> bool:
        return swap_folders(staged, folder)

    @contextmanager
    def _folders_stay(self, *, exclusive: bool = False) -> Iterator[None]:
        """No folder is swapped in the meantime; or, if exclusive, no file appears in one."""
        import fcntl  # not on Windows, if nothing else needs it either

        folder = Path(self._root) / TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "folders.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def delete(self, gone: Iterable[Place]) -> None:
        """Delete these; one that is not there any more is no error. Local folders that this empties go as well."""
        names = [place.name for place in gone]
        if not self._puts_atomically:
            for name in names:
                self._guarded(self._delete, name)
        elif names:
            with contextlib.suppress(FileNotFoundError):
                self._guarded(self._fs.rm, [self._path(name) for name in names])  # many in one request

    def _delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))
        if self.is_local:
            for parent in Path(self._path(name)).parents[:3]:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # refuses if something is left

    # ---- one at a time

    @contextmanager
    def alone(self, role: str) -> Iterator[None]:
        """Hold `role` in a local folder; ends with the process, however that ends. Elsewhere it is no lock.

        Raises ArchiveHeld if another process holds it.
        """
        if not self.is_local:
            yield
            return
        folder = Path(self._root) / TEMPORARY
        self._guarded(lambda: folder.mkdir(parents=True, exist_ok=True))
        with self._guarded((folder / f"{role}.lock").open, "w") as file:
            _lock(file.fileno(), f"{self.url}: another {role} is at work there")
            yield

    def sweep(self, purpose: str) -> None:
        """Deletes what a kill left unfinished. The caller must be the only one that writes files for that purpose."""
        if self.is_local:
            for path in (Path(self._root) / TEMPORARY).glob(f"{purpose}-*.writing"):
                path.unlink(missing_ok=True)
            for folder in (Path(self._root) / TEMPORARY).glob(f"{purpose}-*{_SWAPPED}"):
                shutil.rmtree(folder, ignore_errors=True)

    # ---- inside

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _guarded(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return work(*args, **kwargs)
        except FileNotFoundError:
            raise
        except Exception as error:  # each backend of fsspec has exceptions of its own
            raise ArchiveUnavailable(f"archive {self.url}: {str(error) or type(error).__name__}") from error


def _note(place: Place) -> str:
    return f"{_NOTES}/{quote(place.name, safe='')}"


def _move_durably(aside: Path, target: Path) -> None:
    _sync(aside)
    missing = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(target)
    except FileNotFoundError:  # another process removed the folder, as it was empty
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(target)
    for folder in [target.parent, *(folder.parent for folder in missing)]:
        _sync(folder)


def _sync(path: Path) -> None:
    """What a file or a folder holds survives a loss of power from here on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(handle: int, refusal: str) -> None:
    import fcntl  # not on Windows, if nothing else needs it either

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ArchiveHeld(refusal) from None


# ---- folders that change places

_EXCHANGE = _SWAP = 2
_AT_FDCWD = -100


def swap_folders(one: Path, other: Path) -> bool:
    """Each takes the other's name, at once. False, and nothing is changed, if that can't be done here.

    Linux has renameat2 with RENAME_EXCHANGE (ext4, xfs, btrfs, tmpfs, ...), macOS renamex_np with RENAME_SWAP (APFS).
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(*names, _SWAP) == 0)
        return bool(libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):  # no such call in this C library, or no such library
        return False
