"""upvec.Index."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata

import numpy as np

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Keys, PeerDefaults, Settings
from upvec.index import Index


class UpvecIndex(PeerDefaults):
    """Updates by upsert: the graph is repaired around what moved."""

    name = "upvec"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        self._index = Index(
            dim, metric=metric, M=settings.M, ef_construction=settings.ef_construction
        )
        self._threads = settings.threads

    @staticmethod
    def version() -> str:
        try:
            version = metadata.version("upvec")
        except metadata.PackageNotFoundError:
            version = "not installed: from the checkout"
        return f"{version} ({Index(1).simd})"

    def build(self, vectors: Floats) -> None:
        self.insert(np.arange(len(vectors)), vectors)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        self._index.upsert(keys, vectors, threads=self._threads)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        found = self._index.search(queries, k, ef=ef, threads=self._threads)
        return Answers(found.keys, found.distances, found.counts)

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        for query in queries:
            self._index.search(query, k, ef=ef, threads=1)

    def update(self, keys: Keys, vectors: Floats) -> None:
        self._index.upsert(keys, vectors, threads=self._threads)

    def remove(self, keys: Keys) -> None:
        self._index.remove(keys, threads=self._threads)

    def bytes_per_vector(self) -> float | None:
        stats = self._index.stats()
        used = sum(value for name, value in stats.items() if name.endswith("_bytes"))
        return float(used / max(1, stats["live"]))

    def check(self) -> dict[str, int] | None:
        report = asdict(self._index.check())
        # What is left are counts; the histograms of a large index would fill the results.
        return {name: int(count) for name, count in report.items() if isinstance(count, int)}

    def broken(self) -> str | None:
        report = self._index.check()
        return "" if report.ok else repr(report)
