"""NGT: https://github.com/NGT-labs/NGT, its graph ANNG.

It gives out ids of its own in the order of insertion, which are our keys as long as nothing is
removed; so it is static here. Its quantized graph (QG) is made by a command that the package does
not have. In place of an ef it has an epsilon: how much farther than the k-th answer it may look.
"""

from __future__ import annotations

import tempfile
from importlib import metadata
from math import log2
from pathlib import Path

import ngtpy  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import SHORT_GRID, Settings, StaticDefaults

_DISTANCES = {"cosine": "Normalized Cosine", "l2": "L2"}


class NgtIndex(StaticDefaults):
    """Edges are made in both directions, so a node has at least as many as asked for."""

    name = "ngt"
    grid = SHORT_GRID  # it has no ef_construction that would say the same

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        self._metric = metric
        self._threads = settings.threads
        self._folder = tempfile.TemporaryDirectory(prefix="upvec-ngt-")
        path = str(Path(self._folder.name) / "index")
        # Half of the links are its own choice, the other half are others' to it. -2: a walk may
        # look at all of them.
        ngtpy.create(
            path,
            dim,
            edge_size_for_creation=settings.M,
            edge_size_for_search=-2,
            distance_type=_DISTANCES[metric],
        )
        self._index = ngtpy.Index(path, log_disabled=True)

    @staticmethod
    def version() -> str:
        return metadata.version("ngt")

    def build(self, vectors: Floats) -> None:
        self._index.batch_insert(vectors, num_threads=self._threads)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._index.set(num_of_search_objects=k, epsilon=_epsilon(k, ef))
        found = ngtpy.BatchResults()
        self._index.batch_search(queries, found, k)  # on OMP_NUM_THREADS threads
        keys = np.asarray(found.get_indexed_ids()).reshape(len(queries), k)
        distances = np.asarray(found.get_indexed_distances()).reshape(len(queries), k)
        if self._metric == "l2":
            distances = distances * distances
        return Answers(keys, distances, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        epsilon = _epsilon(k, ef)
        for query in queries:
            self._index.search(query, k, epsilon)


def _epsilon(k: int, ef: int) -> float:
    # Found by trial: about the recall that the others have at this ef.
    return 0.05 * log2(max(ef, 8) * 10 / k / 24)
