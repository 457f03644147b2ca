"""hnswlib: https://github.com/nmslib/hnswlib."""

from __future__ import annotations

from importlib import metadata

import hnswlib  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Keys, PeerDefaults, Settings

# Its capacity is fixed and growing copies everything, so it grows by so much at once.
_GROWTH = 1.5


class HnswlibIndex(PeerDefaults):
    """Updates by add_items on live labels, which relinks the neighbourhood in place."""

    name = "hnswlib"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        self._index = hnswlib.Index(space=metric, dim=dim)
        self._settings = settings
        self._capacity = 0
        self._removed: set[int] = set()

    @staticmethod
    def version() -> str:
        return metadata.version("hnswlib")

    def build(self, vectors: Floats) -> None:
        self.insert(np.arange(len(vectors)), vectors)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        # A removed label is still there: adding it again makes it live and relinks it.
        new = len(set(keys.tolist()) - self._removed)
        self._reserve(self._index.element_count + new if self._capacity else new)
        self._index.add_items(vectors, keys)
        self._removed.difference_update(keys.tolist())

    def _reserve(self, wanted: int) -> None:
        if not self._capacity:
            self._index.init_index(
                wanted, M=self._settings.M, ef_construction=self._settings.ef_construction
            )
            self._index.set_num_threads(self._settings.threads)
            self._capacity = wanted
        elif wanted > self._capacity:
            self._capacity = max(wanted, int(_GROWTH * self._capacity))
            self._index.resize_index(self._capacity)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._index.set_ef(ef)
        keys, distances = self._index.knn_query(queries, k)
        # It raises if it finds fewer than k.
        return Answers(keys, distances, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        self._index.set_ef(ef)
        for query in queries:
            self._index.knn_query(query, k)

    def update(self, keys: Keys, vectors: Floats) -> None:
        self._index.add_items(vectors, keys)

    def remove(self, keys: Keys) -> None:
        for key in keys.tolist():
            self._index.mark_deleted(key)
        self._removed.update(keys.tolist())

    def bytes_per_vector(self) -> float | None:
        # The size of its file: the same arrays, without the map of labels.
        live = self._index.element_count - len(self._removed)
        return float(self._index.index_file_size() / max(1, live))
