"""voyager: https://github.com/spotify/voyager."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import voyager  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Keys, PeerDefaults, Settings


class VoyagerIndex(PeerDefaults):
    """Updates by add_items on live ids, which relinks the neighbourhood in place."""

    name = "voyager"

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        spaces = {"cosine": voyager.Space.Cosine, "l2": voyager.Space.Euclidean}
        self._index = voyager.Index(
            spaces[metric], dim, M=settings.M, ef_construction=settings.ef_construction
        )
        self._threads = settings.threads
        self._removed: set[int] = set()

    @staticmethod
    def version() -> str:
        return metadata.version("voyager")

    def build(self, vectors: Floats) -> None:
        # Otherwise it would grow, and copy all of it, again and again.
        self._index.resize(max(1, len(vectors)))
        self.insert(np.arange(len(vectors)), vectors)

    def insert(self, keys: Keys, vectors: Floats) -> None:
        for key in keys.tolist():
            if key in self._removed:
                self._index.unmark_deleted(key)
                self._removed.remove(key)
        self._index.add_items(vectors, keys.tolist(), num_threads=self._threads)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        # It refuses an ef below k.
        keys, distances = self._index.query(
            queries, k, num_threads=self._threads, query_ef=max(k, ef)
        )
        return Answers(keys, distances, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        for query in queries:
            self._index.query(query, k, num_threads=1, query_ef=max(k, ef))

    def update(self, keys: Keys, vectors: Floats) -> None:
        self._index.add_items(vectors, keys.tolist(), num_threads=self._threads)

    def remove(self, keys: Keys) -> None:
        for key in keys.tolist():
            self._index.mark_deleted(key)
        self._removed.update(keys.tolist())
