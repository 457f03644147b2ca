"""Chroma, in a directory of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Records, Store

__all__ = ["ChromaStore"]


class ChromaStore(Store):
    """A PersistentClient with one collection."""

    settings = "PersistentClient, hnsw:space l2, its other defaults; batches of its maximum"
    _client: Any
    _col: Any

    def create(self) -> None:
        self._connect()
        self._col = self._client.create_collection("records", metadata={"hnsw:space": "l2"})

    def open(self) -> None:
        self._connect()
        self._col = self._client.get_collection("records")

    def _connect(self) -> None:
        import chromadb
        from chromadb.config import Settings

        quiet = Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(str(self.folder / "chroma"), settings=quiet)

    def upsert(self, rows: Records) -> None:
        most = self._client.get_max_batch_size()
        for start in range(0, len(rows), most):
            part = rows.part(start, start + most)
            self._col.upsert(ids=part.ids, embeddings=list(part.vectors), metadatas=part.dicts())

    def update_metadata(self, rows: Records) -> None:
        most = self._client.get_max_batch_size()
        for start in range(0, len(rows), most):
            part = rows.part(start, start + most)
            self._col.update(ids=part.ids, metadatas=part.dicts())

    def delete(self, ids: list[str]) -> None:
        most = self._client.get_max_batch_size()
        for start in range(0, len(ids), most):
            self._col.delete(ids=ids[start : start + most])

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        where = None if below is None else {"rank": {"$lt": below}}
        found = self._col.query(
            query_embeddings=query[None, :], n_results=k, where=where, include=[]
        )
        listed: list[str] = found["ids"][0]
        return listed

    def count(self) -> int:
        return int(self._col.count())

    def get(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        got = self._col.get(ids=ids, include=["metadatas"])
        both = zip(got["ids"], got["metadatas"], strict=True)
        return {i: (str(m["text"]), int(m["rank"])) for i, m in both}
