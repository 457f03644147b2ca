"""What is measured of answers and of curves, without regard to who gave them."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.data import Doubles, Floats, pair_distances

# Distances of one pair differ by about 1e-7 between single and double precision; the distances of
# unrelated pairs by 1e-2 and more.
_SAME = 1e-6
_STALE = 1e-4


class Answers(NamedTuple):
    """Answers as a library returns them; places from counts[i] on are not filled."""

    keys: npt.NDArray[np.integer]  # (q, k)
    distances: Floats  # (q, k)
    counts: npt.NDArray[np.integer]  # (q,)


@dataclass(frozen=True)
class Quality:
    """How good a set of answers is.

    Attributes
    ----------
    recall : float
        Right answers among the q * k that there are; a key named twice counts once.
    stale : int
        Answers whose distance is not that of the key's current vector.
    doubled : int
        Answers that repeat a key of the same query.
    gone : int
        Answers that name a removed key.
    """

    recall: float
    stale: int
    doubled: int
    gone: int

    @property
    def faults(self) -> int:
        return self.stale + self.doubled + self.gone


def quality(
    answers: Answers,
    *,
    metric: str,
    queries: Floats,
    current: Floats,
    truth: Doubles,
    live: npt.NDArray[np.bool_] | None = None,
) -> Quality:
    """Compare answers with the truth.

    Parameters
    ----------
    answers : Answers
        Of all queries.
    metric : str
        "cosine" or "l2".
    queries : ndarray of shape (q, dim), float32
        What was looked for.
    current : ndarray of shape (n, dim), float32
        Row i is the vector that key i has now.
    truth : ndarray of shape (q, k), float64
        Distances of the true answers, nearest first.
    live : ndarray of shape (n,), bool, optional
        False where the key was removed.

    Returns
    -------
    Quality
        Recall and counts of faults.
    """
    k = truth.shape[1]
    filled = np.arange(answers.keys.shape[1]) < answers.counts[:, None]
    keys = np.where(filled, answers.keys, 0).astype(np.int64)
    exact = np.concatenate(
        [
            pair_distances(metric, queries[part], current[keys[part]])
            for part in np.array_split(np.arange(len(keys)), max(1, len(keys) // 256))
        ]
    )
    repeated = filled & _repeats(np.where(filled, keys, -1))
    removed = filled & ~live[keys] if live is not None else np.zeros_like(filled)
    scale = np.maximum(1.0, np.abs(exact))
    stale = filled & ~removed & (np.abs(exact - answers.distances) > _STALE * scale)
    right = filled & ~repeated & ~removed & (exact <= truth[:, -1:] + _SAME * scale)
    return Quality(
        recall=float(np.minimum(right.sum(axis=1), k).sum() / truth.size),
        stale=int(stale.sum()),
        doubled=int(repeated.sum()),
        gone=int(removed.sum()),
    )


def _repeats(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    order = np.argsort(keys, axis=1, kind="stable")
    ranked = np.take_along_axis(keys, order, axis=1)
    again = np.zeros_like(keys, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    return again


@dataclass(frozen=True)
class AtRecall:
    """Queries per second read off a curve at one recall.

    Attributes
    ----------
    rate : float or None
        None if the curve never comes so high.
    at_least : bool
        The whole curve lies above this recall: the rate is that of its lowest point.
    """

    rate: float | None
    at_least: bool = False


def envelope(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (recall, rate) points that no other beats in both, by rising recall."""
    # From the best recall down, a point counts if it is faster than all that are better.
    found: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found[::-1]


def rate_at_recall(recalls: Sequence[float], rates: Sequence[float], recall: float) -> AtRecall:
    """Interpolate log rate against logit recall, on the upper envelope of the points.

    Both scales make a curve of this kind nearly straight, so the points need not be dense.
    """
    upper = envelope(zip(recalls, rates, strict=True))
    if not upper or upper[-1][0] < recall:
        return AtRecall(None)
    if upper[0][0] >= recall:
        return AtRecall(upper[0][1], at_least=upper[0][0] > recall)
    # A perfect recall has no logit; half an error in a million answers stands for it.
    xs = [logit(min(point[0], 1 - 5e-7)) for point in upper]
    ys = [float(np.log(point[1])) for point in upper]
    return AtRecall(float(np.exp(np.interp(logit(recall), xs, ys))))


def logit(share: float) -> float:
    """Log of the odds: what makes the last percents of recall as long as the first."""
    share = max(share, 5e-7)
    return float(np.log(share / (1 - share)))


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes, with the garbage collector out of the way."""
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    finally:
        gc.enable()


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process that the work takes: what else runs does not count."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this process on as many processors as it has threads, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # The last ones: interrupts are mostly served by the first.
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def far_moves(
    base: Floats, rows: int | None = None, seed: int = 2
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Give `rows` keys (all by default) each other's vectors, in one random cycle.

    The set of vectors stays what it was, so recall before and after can be compared, and no key
    keeps its vector.

    Returns
    -------
    keys : ndarray of shape (rows,), int64
        The keys that move, ascending.
    moved : ndarray of shape (n, dim), float32
        Row i is the vector of key i after the move.
    """
    cycle = np.random.default_rng(seed).permutation(len(base))[:rows]
    moved = base.copy()
    moved[cycle] = base[np.roll(cycle, 1)]
    return np.sort(cycle).astype(np.int64), moved
