"""hnswlib: https://github.com/nmslib/hnswlib."""

from __future__ import annotations

from importlib import metadata

import hnswlib  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Keys, Settings


class HnswlibIndex:
    """Updates by add_items on live labels, which relinks the neighbourhood in place.

    Its capacity is fixed when it is made, so build() may be called once.
    """

    name = "hnswlib"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        self._index = hnswlib.Index(space=metric, dim=dim)
        self._settings = settings

    @staticmethod
    def version() -> str:
        return metadata.version("hnswlib")

    def build(self, vectors: Floats) -> None:
        self._index.init_index(
            len(vectors), M=self._settings.M, ef_construction=self._settings.ef_construction
        )
        self._index.set_num_threads(self._settings.threads)
        self._index.add_items(vectors, np.arange(len(vectors)))

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._index.set_ef(ef)
        keys, distances = self._index.knn_query(queries, k)
        # It raises if it finds fewer than k.
        return Answers(keys, distances, np.full(len(queries), k))

    def update(self, keys: Keys, vectors: Floats) -> None:
        self._index.add_items(vectors, keys)

    def remove(self, keys: Keys) -> None:
        for key in keys.tolist():
            self._index.mark_deleted(key)

    def broken(self) -> str | None:
        return None
