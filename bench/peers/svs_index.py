"""Intel's Scalable Vector Search: https://github.com/intel/ScalableVectorSearch."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import svs  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import SHORT_GRID, Keys, PeerDefaults, Settings

# The library's advice: above 1 for distances, below 1 for similarities.
_ALPHAS = {"cosine": 0.95, "l2": 1.2}
# Deleted entries stay in the graph until it is consolidated, which reads all of it: so not after
# every batch, but when they are this share of the live ones.
_MOST_DELETED = 0.05


class SvsIndex(PeerDefaults):
    """DynamicVamana. Updates by delete and add, now and then consolidate and compact.

    Its degree is that of the others on level 0; there are no further levels.
    """

    name = "svs"
    grid = SHORT_GRID

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        self._index: Any = None
        self._metric = metric
        self._settings = settings
        self._deleted = 0

    @staticmethod
    def version() -> str:
        return metadata.version("scalable-vs")

    def build(self, vectors: Floats) -> None:
        self.insert(np.arange(len(vectors)), vectors)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        ids = keys.astype(np.uint64)
        if self._index is not None:
            self._index.add(vectors, ids)
            return
        parameters = svs.VamanaBuildParameters(
            graph_max_degree=2 * self._settings.M,
            window_size=self._settings.ef_construction,
            alpha=_ALPHAS[self._metric],
        )
        distance = svs.Cosine if self._metric == "cosine" else svs.L2
        self._index = svs.DynamicVamana.build(
            parameters, vectors, ids, distance, self._settings.threads
        )

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        # It refuses a window smaller than k.
        self._index.search_window_size = max(k, ef)
        keys, found = self._index.search(queries, k)
        distances = 1 - found if self._metric == "cosine" else found
        return Answers(keys.astype(np.int64), distances, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        self._index.search_window_size = max(k, ef)
        for query in queries:
            self._index.search(query[None], k)

    def update(self, keys: Keys, vectors: Floats) -> None:
        self._index.delete(keys.astype(np.uint64))
        self._deleted += len(keys)
        self.insert(keys, vectors)
        self._tidy()

    def remove(self, keys: Keys) -> None:
        self._index.delete(keys.astype(np.uint64))
        self._deleted += len(keys)
        self._tidy()

    def _tidy(self) -> None:
        if self._deleted > _MOST_DELETED * self._index.size:
            self._index.consolidate()
            self._index.compact(1000)
            self._deleted = 0
