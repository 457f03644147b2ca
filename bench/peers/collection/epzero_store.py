"""Epzero: an index of vectors with a log of its own, by whole numbers; no metadata."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store, Unable

__all__ = ["EpzeroStore"]

_NONE = "its Database keeps vectors by number, and no metadata"
_OTHERS = 1 << 32  # labels of ids that are not numbered
_MOST = 250_000  # rows; it takes their memory when it is opened


class EpzeroStore(Store):
    """A Database, whose labels are the numbers in the ids."""

    settings = (
        'Database, sync="always", max_elements 250,000; its default HNSW (M 16, ef_construction'
        " 200) and ef 64"
    )
    _db: Any

    def create(self) -> None:
        import epzero

        self._db = epzero.Database.open(
            str(self.folder / "epzero"), dim=self.dim, metric="l2", max_elements=_MOST
        )

    def open(self) -> None:
        self.create()

    @staticmethod
    def _label(key: str) -> int:
        number = key.removeprefix("row-")
        return int(number) if number.isdigit() else _OTHERS + zlib.crc32(key.encode())

    def upsert(self, rows: Records) -> None:
        labels = np.array([self._label(key) for key in rows.ids])
        self._db.upsert(rows.vectors, labels=labels)

    def update_metadata(self, rows: Records) -> None:
        raise Unable(_NONE)

    def delete(self, ids: list[str]) -> None:
        for one in ids:
            self._db.remove(self._label(one))
        self._db.flush()

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        if below is not None:
            raise Unable("its Database searches under no condition")
        labels, _ = self._db.search(query[None, :], k=k)
        return [f"row-{label:08d}" for label in labels[0].tolist() if label >= 0]

    def count(self) -> int:
        return len(self._db)

    def has(self, ids: list[str]) -> int:
        return sum(self._label(one) in self._db for one in ids)

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        raise Unable(_NONE)
