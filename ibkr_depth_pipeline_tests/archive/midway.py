"""Stores in the midst of whose work something happens: the process ends, or others do theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.layout import Place, ReportPlace
from ibkr_depth_pipeline.archive.store import ArchiveStore


class DiesAt(ArchiveStore):
    """A store whose process ends at its n-th change: what had been done stays, and nothing else happens."""

    def __init__(self, url: str, at: int, *, swaps: bool = True) -> None:
        super().__init__(url)
        self._left = at
        self.swaps = swaps

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def publish(self, aside: Path, place: Place | ReportPlace) -> None:
        self._step()
        super().publish(aside, place)

    def _swap(self, staged: Path, folder: Path) -> bool:
        self._step()
        return self.swaps and super()._swap(staged, folder)

    def sweep(self, purpose: str) -> None:
        self._step()
        super().sweep(purpose)

    def _delete(self, name: str) -> None:
        self._step()
        super()._delete(name)


class MeanwhileAt(ArchiveStore):
    """A store where somebody else does something right before its n-th file is opened."""

    def __init__(self, url: str, at: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(url)
        self._left = at
        self._meanwhile = meanwhile

    @contextmanager
    def parquet(self, place: Place) -> Iterator[pq.ParquetFile]:
        self._left -= 1
        if self._left == -1:
            self._meanwhile()
        with super().parquet(place) as file:
            yield file


class Overlooks(ArchiveStore):
    """A store whose listings do not show one file, as one may that is made while others are made as well."""

    def __init__(self, url: str, overlooked: Place) -> None:
        super().__init__(url)
        self._overlooked = overlooked

    def places(self, under: str) -> list[Place]:
        return [place for place in super().places(under) if place != self._overlooked]
