"""Hits that are near the query and unlike each other: :func:`diverse`.

Maximal marginal relevance (Carbonell and Goldstein, *The use of MMR, diversity-based reranking for
reordering documents and producing summaries*, SIGIR 1998). Of the candidates c that are left, the
next is the one with the largest

    lambda * sim(query, c) - (1 - lambda) * max over the chosen s of sim(c, s)

where for the first the second term is nothing, and of equal ones the nearer comes first. Similarity
is the metric's own: the dot product for "ip" and "cosine", minus the squared distance for "l2". So
both terms are of one scale, and scaling all vectors changes no order.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["diverse"]

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
Positions: TypeAlias = npt.NDArray[np.int64]


def diverse(
    distances: npt.NDArray[np.float32],
    vectors: FloatMatrix,
    k: int,
    *,
    metric: str,
    balance: float,
) -> Positions:
    """Choose up to k of one query's candidates; int64 (m,), in the order of choice.

    Parameters
    ----------
    distances : array (c,)
        From the query, ascending.
    vectors : array (c, dim)
        As they are stored.
    balance : float
        The lambda: 1 is the order by distance.

    Examples
    --------
    >>> distances = np.array([0.0, 0.01, 1.0], np.float32)
    >>> vectors = np.array([[0, 0], [0, 0.1], [1, 0]], np.float32)
    >>> diverse(distances, vectors, 2, metric="l2", balance=0.4).tolist()
    [0, 2]
    """
    count = min(k, len(distances))
    if balance == 1.0 or count == 0:
        return np.arange(count)
    points = vectors.astype(np.float64)
    near = -distances.astype(np.float64) if metric == "l2" else 1.0 - distances.astype(np.float64)
    relevance = balance * near
    chosen = np.zeros(count, dtype=np.int64)
    left = np.ones(len(points), dtype=np.bool_)
    likeness = np.full(len(points), -np.inf)
    chosen[0] = int(np.argmax(relevance))
    for place in range(1, count):
        newest = int(chosen[place - 1])
        left[newest] = False
        np.maximum(likeness, _similarity(points, points[newest], metric), out=likeness)
        marginal = np.where(left, relevance - (1.0 - balance) * likeness, -np.inf)
        chosen[place] = int(np.argmax(marginal))
    return chosen


def _similarity(
    points: npt.NDArray[np.float64], to: npt.NDArray[np.float64], metric: str
) -> npt.NDArray[np.float64]:
    if metric == "l2":
        apart = points - to
        similarity: npt.NDArray[np.float64] = -np.einsum("ij,ij->i", apart, apart)
        return similarity
    dot: npt.NDArray[np.float64] = np.einsum("ij,j->i", points, to)  # the same sum for equal rows
    return dot
