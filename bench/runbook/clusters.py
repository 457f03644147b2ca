"""Rows in the order of clusters, so that a range of ids is a part of one cluster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bench.data import Floats

_SEED = 12
_ROUNDS = 10
_BLOCK = 4096


def by_cluster(rows: Floats, clusters: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Cluster rows by Lloyd's k-means, from random rows.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32
        At least as many as clusters.
    clusters : int
        Some may end empty.

    Returns
    -------
    order : ndarray of shape (n,), intp
        Rows of cluster 0, then those of cluster 1, …; within one, as they were.
    bounds : ndarray of shape (clusters + 1,), intp
        Cluster i is ``order[bounds[i] : bounds[i + 1]]``.
    """
    draw = np.random.default_rng(_SEED)
    centres = rows[draw.permutation(len(rows))[:clusters]].copy()
    label = _nearest(rows, centres)
    for _ in range(_ROUNDS):
        for cluster in range(clusters):
            mine = rows[label == cluster]
            if len(mine):
                centres[cluster] = mine.mean(axis=0)
        label = _nearest(rows, centres)
    sizes = np.bincount(label, minlength=clusters)
    return np.argsort(label, kind="stable"), np.concatenate([[0], np.cumsum(sizes)])


def _nearest(rows: Floats, centres: Floats) -> npt.NDArray[np.intp]:
    half = 0.5 * np.einsum("cd,cd->c", centres, centres)
    blocks = range(0, len(rows), _BLOCK)
    return np.concatenate(
        [np.argmax(rows[start : start + _BLOCK] @ centres.T - half, axis=1) for start in blocks]
    )
