"""faiss: https://github.com/facebookresearch/faiss.

Its HNSW takes rows that are added, but removes none and gives none a new vector. Cosine is measured
by L2 of unit vectors: the same order, and faster than by its inner product.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

import faiss  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Settings, StaticDefaults


class FaissFlatIndex(StaticDefaults):
    """IndexHNSWFlat: float32 vectors."""

    name: ClassVar[str] = "faiss"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        faiss.omp_set_num_threads(settings.threads)
        self._cosine = metric == "cosine"
        # Its M is ours: level 0 has twice as many links.
        self._index = self._empty(dim, settings.M)
        self._index.hnsw.efConstruction = settings.ef_construction

    def _empty(self, dim: int, M: int) -> Any:
        return faiss.IndexHNSWFlat(dim, M, faiss.METRIC_L2)

    @staticmethod
    def version() -> str:
        return f"{metadata.version('faiss-cpu')} ({faiss.get_compile_options().strip()})"

    def build(self, vectors: Floats) -> None:
        self._index.train(vectors)
        self._index.add(vectors)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._index.hnsw.efSearch = ef
        squared, keys = self._index.search(queries, k)
        distances = squared / 2 if self._cosine else squared
        return Answers(keys, distances, (keys >= 0).sum(axis=1))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        self._index.hnsw.efSearch = ef
        for row in range(len(queries)):
            self._index.search(queries[row : row + 1], k)

    def bytes_per_vector(self) -> float | None:
        # The size of its file: the same arrays.
        return float(len(faiss.serialize_index(self._index)) / max(1, self._index.ntotal))


class FaissSq8Index(FaissFlatIndex):
    """IndexHNSWSQ: 8 bits a number, scaled by dimension, and no others to measure answers by."""

    name = "faiss-sq8"
    exact_distances = False

    def _empty(self, dim: int, M: int) -> Any:
        made: Any = faiss.IndexHNSWSQ  # its types know only one of its signatures
        return made(dim, faiss.ScalarQuantizer.QT_8bit, M, faiss.METRIC_L2)
