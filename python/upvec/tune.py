"""How wide a search has to be: :func:`tune` finds the ef that a recall takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .index import SearchResult

__all__ = ["Tuning", "tune"]

FloatArray = npt.NDArray[np.float32]


class Tuning(NamedTuple):
    """What :meth:`Index.tune` found.

    Attributes
    ----------
    ef : int
        For ``search(queries, k, ef=ef)``.
    recall : float
        Share of the true k nearest that this finds, of queries that `ef` was not chosen by.
    k : int
    target_recall : float
    queries : int
        How many queries there were: half of them to choose by, half to measure.
    """

    ef: int
    recall: float
    k: int
    target_recall: float
    queries: int


def tune(
    queries: FloatArray,
    k: int,
    target_recall: float,
    *,
    rows: int,
    search: Callable[[FloatArray, int], SearchResult],
    exact: Callable[[FloatArray], SearchResult],
) -> Tuning:
    """Find the smallest ef whose recall reaches the target.

    Parameters
    ----------
    queries : ndarray (q, dim) of float32
        Every other one is held out.
    rows : int
        No search can be wider than that.
    search : callable
        From queries and ef to the result of a search for `k`.
    exact : callable
        From queries to the true result.

    Raises
    ------
    ValueError
        Fewer than two queries, or no row; a target that even ``ef=rows`` does not reach.
    """
    if len(queries) < 2:
        raise ValueError(
            f"tune: got {len(queries)} queries; want at least 2, to choose by one half and "
            "measure with the other"
        )
    if rows == 0:
        raise ValueError("tune: the index is empty; want rows to search")
    chosen_by, held_out = queries[::2], queries[1::2]
    truth = exact(chosen_by)
    known: dict[int, float] = {}

    def recall_at(ef: int) -> float:
        if ef not in known:
            known[ef] = recall(search(chosen_by, ef), truth)
        return known[ef]

    # A search never holds fewer than k candidates.
    low = high = min(k, rows)
    while recall_at(high) < target_recall:
        if high == rows:
            ef = max(known, key=lambda ef: (known[ef], -ef))
            raise ValueError(
                f"tune: target_recall = {target_recall} is not reached; "
                f"the best is {known[ef]:.4f}, with ef = {ef} of {rows} rows"
            )
        low, high = high + 1, min(2 * high, rows)
    while low < high:
        middle = (low + high) // 2
        if recall_at(middle) < target_recall:
            low = middle + 1
        else:
            high = middle
    measured = recall(search(held_out, high), exact(held_out))
    return Tuning(high, measured, k, target_recall, len(queries))


def recall(found: SearchResult, truth: SearchResult) -> float:
    """Share of the true rows that were found; of rows at the same distance any one will do."""
    there = np.arange(truth.distances.shape[1]) < truth.counts[:, None]
    last = np.take_along_axis(truth.distances, np.maximum(truth.counts - 1, 0)[:, None], axis=1)
    wanted = int(np.count_nonzero(there))
    found_of_them = int(np.count_nonzero((found.distances <= last) & there))
    return found_of_them / wanted if wanted else 1.0
