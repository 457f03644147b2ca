"""usearch: https://github.com/unum-cloud/usearch."""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from usearch.index import Index  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Keys, PeerDefaults, Settings

_METRICS = {"cosine": "cos", "l2": "l2sq"}


class UsearchIndex(PeerDefaults):
    """Updates by remove and add, because adding a live key is an error there."""

    name: ClassVar[str] = "usearch"
    stored: ClassVar[str] = "f32"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        # Its connectivity is M: level 0 has twice as many links.
        self._index = Index(
            ndim=dim,
            metric=_METRICS[metric],
            dtype=self.stored,
            connectivity=settings.M,
            expansion_add=settings.ef_construction,
        )
        self._metric = metric
        self._threads = settings.threads

    @staticmethod
    def version() -> str:
        return f"{metadata.version('usearch')} ({Index(ndim=1).hardware_acceleration})"

    def build(self, vectors: Floats) -> None:
        self.insert(np.arange(len(vectors)), vectors)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        self._index.add(keys, self._stored(vectors), threads=self._threads)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._index.expansion_search = ef  # type: ignore[misc,unused-ignore]
        found: Any = self._index.search(self._stored(queries), k, threads=self._threads)
        return Answers(found.keys, found.distances, found.counts)

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        self._index.expansion_search = ef  # type: ignore[misc,unused-ignore]
        for query in self._stored(queries):
            self._index.search(query, k, threads=1)

    def update(self, keys: Keys, vectors: Floats) -> None:
        self.remove(keys)
        self.insert(keys, vectors)

    def remove(self, keys: Keys) -> None:
        self._index.remove(keys, threads=self._threads)

    def bytes_per_vector(self) -> float | None:
        return float(self._index.memory_usage / max(1, len(self._index)))

    def _stored(self, vectors: Floats) -> npt.NDArray[Any]:
        return vectors


class UsearchBf16Index(UsearchIndex):
    """Its vectors have 16 bits a number, and no others to measure answers by."""

    name = "usearch-bf16"
    stored = "bf16"
    exact_distances = False


class UsearchI8Index(UsearchIndex):
    """Its vectors have 8 bits a number, and no others to measure answers by.

    The library turns floats to bytes by the length of each vector, which is right for cosine. For
    l2 it would lose the lengths, so they are scaled here, all by the same factor: that of the first
    batch, with a tenth to spare for what comes later.
    """

    name = "usearch-i8"
    stored = "i8"
    exact_distances = False

    _middle = 0.0
    _scale = 0.0

    def insert(self, keys: Keys, vectors: Floats) -> None:
        if not self._scale:
            low, high = float(vectors.min()), float(vectors.max())
            self._middle = (low + high) / 2
            self._scale = 127 / (1.1 * max(high - self._middle, 1e-30))
        super().insert(keys, vectors)

    def _stored(self, vectors: Floats) -> npt.NDArray[Any]:
        if self._metric != "l2":
            return vectors
        scaled = np.rint((vectors - self._middle) * self._scale)
        return np.asarray(np.clip(scaled, -127, 127).astype(np.int8))
