"""One ranking out of several: :func:`fused`, weighted reciprocal rank fusion.

Cormack, Clarke and Büttcher, *Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods*, SIGIR 2009: a row that the rankings f place at r_f = 1, 2, … scores the sum of
w_f / (c + r_f); a ranking that does not hold the row adds nothing. Distances of different metrics
need not be comparable, as only ranks count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["fused"]


def fused(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float], rank_constant: float
) -> Ranking:
    """Fuse rankings of the same queries by different fields; equal scores in order of row id.

    Examples
    --------
    >>> near, far = np.array([0.5, 1.5], np.float32), np.array([2.0, 3.0], np.float32)
    >>> rankings = {"a": Ranking(np.array([0, 2]), np.array([7, 9]), {"a": near}),
    ...             "b": Ranking(np.array([0, 2]), np.array([9, 8]), {"b": far})}
    >>> both = fused(rankings, {"a": 1.0, "b": 1.0}, 60)
    >>> both.rids.tolist(), both.distances["b"].tolist()
    ([9, 7, 8], [2.0, nan, 3.0])
    """
    queries, rids, ranks = [], [], []
    for ranking in rankings.values():
        counts = np.diff(ranking.offsets)
        queries.append(np.repeat(np.arange(len(counts)), counts))
        rids.append(ranking.rids)
        ranks.append(np.arange(len(ranking.rids)) - np.repeat(ranking.offsets[:-1], counts) + 1)
    query_of, rid_of = np.concatenate(queries), np.concatenate(rids)
    width = int(rid_of.max()) + 1 if len(rid_of) else 1
    # One number a pair of query and row.
    pairs, place = np.unique(query_of * width + rid_of, return_inverse=True)
    scores = np.zeros(len(pairs))
    distances = {}
    start = 0
    for (name, ranking), rank in zip(rankings.items(), ranks, strict=True):
        held = place[start : start + len(rank)]
        start += len(rank)
        scores[held] += weights[name] / (rank_constant + rank)
        distances[name] = np.full(len(pairs), np.nan, dtype=np.float32)
        distances[name][held] = ranking.distances[name]
    query, rid = pairs // width, pairs % width
    order = np.lexsort((rid, -scores, query))
    count = len(next(iter(rankings.values())).offsets) - 1
    offsets = np.searchsorted(query[order], np.arange(count + 1)).astype(np.int64)
    by_field = {name: column[order] for name, column in distances.items()}
    return Ranking(offsets, rid[order], by_field, scores[order])
