"""pyglass: https://github.com/zilliztech/pyglass. Its module is called glass.

The graph is made first, and then searched by codes of a choice; the refined ones find half as many
answers again as are asked for, and measure them by float32 vectors. tune() tries out how far ahead
to prefetch.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

import glass  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Settings, StaticDefaults

# What the prefetching is tried out with: the library's own default.
_TUNED_EF = 32


class GlassIndex(StaticDefaults):
    """Built and searched by float32 vectors."""

    name: ClassVar[str] = "glass"
    codes: ClassVar[str] = "FP32"
    refined: ClassVar[str] = ""

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        glass.set_num_threads(settings.threads)
        # Cosine by L2 of unit vectors.
        self._cosine = metric == "cosine"
        self._settings = settings
        self._searcher: Any = None

    @staticmethod
    def version() -> str:
        return metadata.version("pyglass-portable")

    def build(self, vectors: Floats) -> None:
        settings = self._settings
        # R is the degree of level 0.
        index = glass.Index("HNSW", "L2", "FP32", 2 * settings.M, settings.ef_construction)
        # A searcher takes the graph away from whoever made it, so each has its own.
        graph = index.build(vectors)
        self._searcher = glass.Searcher(graph, vectors, "L2", self.codes, self.refined)

    def tune(self) -> None:
        self._searcher.set_ef(_TUNED_EF)
        self._searcher.optimize(self._settings.threads)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        self._searcher.set_ef(ef)
        keys, squared = self._searcher.batch_search(queries, k, self._settings.threads)
        distances = squared / 2 if self._cosine else squared
        return Answers(keys, distances, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        self._searcher.set_ef(ef)
        for query in queries:
            self._searcher.search(query, k)


class GlassSq8Index(GlassIndex):
    """Searched by 8 bits a number, then refined."""

    name = "glass-sq8u"
    codes = "SQ8U"
    refined = "FP32"


class GlassSq4Index(GlassIndex):
    """Searched by 4 bits a number, then refined."""

    name = "glass-sq4u"
    codes = "SQ4U"
    refined = "FP32"
