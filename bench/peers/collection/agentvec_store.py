"""AgentVec: memories by id, with a document of metadata each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["AgentvecStore"]


class AgentvecStore(Store):
    """A collection; it has no indexes of metadata to ask for."""

    settings = (
        "add_batch() with ids (it replaces what is there), upsert() for single rows; sync() of"
        " the collection and the database after every call"
    )
    _col: Any

    def create(self) -> None:
        import agentvec

        self._db = agentvec.AgentVec(str(self.folder / "agentvec"))
        self._col = self._db.collection("c", dim=self.dim, metric="l2")

    def open(self) -> None:
        self.create()

    def upsert(self, rows: Records) -> None:
        if len(rows) == 1:
            self._col.upsert(rows.ids[0], rows.vectors[0], rows.dicts()[0])
        else:
            self._col.add_batch(rows.vectors, rows.dicts(), ids=rows.ids)
        self._sync()

    def update_metadata(self, rows: Records) -> None:
        self.upsert(rows)  # whole rows

    def delete(self, ids: list[str]) -> None:
        for one in ids:
            self._col.delete(one)
        self._sync()

    def _sync(self) -> None:
        self._col.sync()
        self._db.sync()

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        where = None if below is None else {"rank": {"$lt": below}}
        return [hit.id for hit in self._col.search(query, k, where)]

    def count(self) -> int:
        return len(self._col)

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        found = {one: self._col.get(one) for one in ids}
        return {
            one: (hit.metadata["text"], int(hit.metadata["rank"]))
            for one, hit in found.items()
            if hit is not None
        }
