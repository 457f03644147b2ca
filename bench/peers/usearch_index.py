"""usearch: https://github.com/unum-cloud/usearch."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
from usearch.index import Index  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Keys, Settings

_METRICS = {"cosine": "cos", "l2": "l2sq"}


class UsearchIndex:
    """Updates by remove and add, because adding a live key is an error there."""

    name = "usearch"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        # Its connectivity is M: level 0 has twice as many links.
        self._index = Index(
            ndim=dim,
            metric=_METRICS[metric],
            dtype="f32",
            connectivity=settings.M,
            expansion_add=settings.ef_construction,
        )
        self._threads = settings.threads

    @staticmethod
    def version() -> str:
        return f"{metadata.version('usearch')} ({Index(ndim=1).hardware_acceleration})"

    def build(self, vectors: Floats) -> None:
        self.insert(np.arange(len(vectors)), vectors)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        self._index.add(keys, vectors, threads=self._threads)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._index.expansion_search = ef  # type: ignore[misc,unused-ignore]
        found: Any = self._index.search(queries, k, threads=self._threads)
        return Answers(found.keys, found.distances, found.counts)

    def update(self, keys: Keys, vectors: Floats) -> None:
        self.remove(keys)
        self.insert(keys, vectors)

    def remove(self, keys: Keys) -> None:
        self._index.remove(keys, threads=self._threads)

    def bytes_per_vector(self) -> float | None:
        return float(self._index.memory_usage / max(1, len(self._index)))

    def check(self) -> dict[str, int] | None:
        return None

    def broken(self) -> str | None:
        return None
