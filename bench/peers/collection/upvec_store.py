"""upvec, by its public interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import upvec

from .base import Records, Store

__all__ = ["UpvecStore"]


class UpvecStore(Store):
    """A collection with a condition's fields indexed."""

    settings = 'durability="commit" (every call synced); index=True on rank and tenant'
    _col: upvec.Collection

    def create(self) -> None:
        schema = upvec.Schema(
            upvec.Field("id", "string", primary=True),
            upvec.Field("tenant", "string", index=True),
            upvec.Field("text", "string"),
            upvec.Field("rank", "int64", index=True),
            upvec.Vector("emb", self.dim, metric="l2"),
        )
        self._col = upvec.open(self.folder / "c", schema)

    def open(self) -> None:
        self._col = upvec.open(self.folder / "c")

    def upsert(self, rows: Records) -> None:
        self._col.upsert({**self._metadata(rows), "emb": rows.vectors})

    def update_metadata(self, rows: Records) -> None:
        self._col.upsert(self._metadata(rows))

    @staticmethod
    def _metadata(rows: Records) -> dict[str, Any]:
        return {"id": rows.ids, "tenant": rows.tenants, "text": rows.texts, "rank": rows.ranks}

    def delete(self, ids: list[str]) -> None:
        self._col.delete(ids)

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        where = None if below is None else f"rank < {below}"
        found: list[str] = self._col.search(query, k, where=where, fields=["id"])["id"].tolist()
        return found

    def count(self) -> int:
        return len(self._col)

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        rows = self._col.get(ids, fields=["text", "rank"])
        both = zip(ids, rows.found, rows["text"], rows["rank"], strict=True)
        return {i: (text, int(rank)) for i, found, text, rank in both if found}

    def close(self) -> None:
        self._col.close()
