"""VSAG: https://github.com/antgroup/vsag, its index HGraph.

Of the library's Python package. The C++ library can add and remove; the package cannot, and it
takes one query a call, on one thread. So a batch is a loop in Python here, where every call parses
its parameters anew: its rates are lower bounds of what the C++ library does.
"""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import pyvsag  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.data import Floats
from bench.measure import Answers
from bench.peers.base import Settings, StaticDefaults

pyvsag.set_logger_off()


class VsagIndex(StaticDefaults):
    """Searched by float32 vectors."""

    name: ClassVar[str] = "vsag"
    codes: ClassVar[dict[str, Any]] = {"base_quantization_type": "fp32"}

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        # Without its use_elp_optimizer: for 6,000 rows of SIFT it takes 12 s after a build of 1 s,
        # and searches at ef 1, 32 and 512 took 12, 45 and 441 us with it, 12, 48 and 391 without.
        parameters = {
            "dtype": "float32",
            "metric_type": metric,
            "dim": dim,
            "index_param": {
                **self.codes,
                "max_degree": 2 * settings.M,
                "ef_construction": settings.ef_construction,
                "build_thread_count": settings.threads,
            },
        }
        self._index = pyvsag.Index("hgraph", json.dumps(parameters))

    @staticmethod
    def version() -> str:
        return metadata.version("pyvsag")

    def build(self, vectors: Floats) -> None:
        rows, dim = vectors.shape
        self._index.build(vectors.reshape(-1), np.arange(rows), rows, dim)

    def search(self, queries: Floats, k: int, ef: int) -> Answers:
        parameters = _effort(ef, k)
        answers = [self._index.knn_search(query, k, parameters) for query in queries]
        keys, distances = (np.stack(part) for part in zip(*answers, strict=True))
        return Answers(keys, distances, np.full(len(queries), k))

    def search_each(self, queries: Floats, k: int, ef: int) -> None:
        parameters = _effort(ef, k)
        for query in queries:
            self._index.knn_search(query, k, parameters)


class VsagSq8Index(VsagIndex):
    """Searched by 8 bits a number of one scale; answers are measured by float32 vectors."""

    name = "vsag-sq8"
    codes: ClassVar[dict[str, Any]] = {
        "base_quantization_type": "sq8_uniform",
        "use_reorder": True,
        "precise_quantization_type": "fp32",
    }


class VsagRabitqIndex(VsagIndex):
    """Searched by one bit a number; answers are measured by float32 vectors."""

    name = "vsag-rabitq"
    codes: ClassVar[dict[str, Any]] = {
        "base_quantization_type": "rabitq",
        "use_reorder": True,
        "precise_quantization_type": "fp32",
    }


def _effort(ef: int, k: int) -> str:
    # Fewer than k would leave the rest of its arrays unset.
    return json.dumps({"hgraph": {"ef_search": max(ef, k)}})
