"""The kinds of change: what happens to which keys, turnover by turnover.

All draws have fixed seeds, so a kind is the same history for every peer and every version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.data import Dataset, Doubles, Floats, MissingDataError, true_distances, true_neighbours
from bench.measure import far_moves
from bench.peers.base import Keys

Bools = npt.NDArray[np.bool_]

_SEED = 5
# Of which a row's partner is drawn: nearer ones are hardly a move, farther ones another cluster.
_RANKS = (10, 50)
# Enough rows for the median of their nearest neighbour's distance.
_SAMPLED = 1000
_BURST = 2000
_BURST_QUERIES = 200
# Distance of burst rows from their centre, as a share of the median distance of nearest neighbours.
_BURST_SPREAD = 0.1


@dataclass(frozen=True)
class Change:
    """What is done to some keys, in batches, and what is true afterwards.

    Attributes
    ----------
    turnover : int
        From 1. A turnover may be several changes.
    what : {"update", "insert", "remove"}
        Inserted keys are new, or were removed before.
    keys : ndarray of int64
        Whose turn it is, in this order.
    current : ndarray of shape (n, dim), float32
        Row i is the vector of key i, as far as it is live.
    live : ndarray of shape (n,), bool
        Which keys are there.
    queries : ndarray of shape (q, dim), float32
        What to look for now.
    whole : bool
        In one batch, whatever the size of the others.
    """

    turnover: int
    what: Literal["update", "insert", "remove"]
    keys: Keys
    current: Floats
    live: Bools
    queries: Floats
    whole: bool = False


Kind = Callable[[Dataset, int], Iterator[Change]]


def neighbour_distance(data: Dataset) -> float:
    """Median Euclidean distance of a row to its nearest neighbour that is not its twin."""
    rows = np.random.default_rng(_SEED).permutation(data.base)[:_SAMPLED]
    nearest = true_distances(data.metric, data.base, rows, 2)[:, 1]
    nearest = nearest[nearest > 0]
    if not len(nearest):
        raise MissingDataError(f"all rows of {data.name} have twins: there is no distance to go by")
    # The cosine distance of unit vectors is half their squared distance.
    return float(np.median(np.sqrt(2 * nearest if data.metric == "cosine" else nearest)))


def _noise(shape: tuple[int, int], length: float, draw: np.random.Generator) -> Doubles:
    direction = draw.standard_normal(shape)
    return np.asarray(direction * (length / np.linalg.norm(direction, axis=1, keepdims=True)))


def _shaped(metric: str, vectors: Doubles) -> Floats:
    if metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _updates(
    data: Dataset, states: Iterator[Floats], turnovers: int, whole: bool = False
) -> Iterator[Change]:
    keys, live = np.arange(len(data)), np.ones(len(data), dtype=bool)
    for turnover, current in enumerate(islice(states, turnovers), start=1):
        yield Change(turnover, "update", keys, current, live, data.queries, whole)


def unrelated(data: Dataset, turnovers: int) -> Iterator[Change]:
    """Every key gets another one's vector, along one random cycle: the set of vectors stays."""

    def states() -> Iterator[Floats]:
        current, seed = data.base, _SEED
        while True:
            _, current = far_moves(current, seed=seed)
            seed += 1
            yield current

    return _updates(data, states(), turnovers)


def cluster(data: Dataset, turnovers: int) -> Iterator[Change]:
    """Every key swaps with one of the neighbours 10 to 50: the set of vectors stays."""

    def states() -> Iterator[Floats]:
        draw = np.random.default_rng(_SEED)
        low, high = min(_RANKS[0], len(data) // 4), min(_RANKS[1], len(data) // 2)
        near = true_neighbours(data.metric, data.base, high)[:, low - 1 :]
        holder = np.arange(len(data))  # of every vector of the base: the key that has it
        while True:
            _swap(holder, near, draw)
            current = np.empty_like(data.base)
            current[holder] = data.base
            yield current

    return _updates(data, states(), turnovers)


def _swap(
    holder: npt.NDArray[np.int64], near: npt.NDArray[np.int32], draw: np.random.Generator
) -> None:
    free = np.ones(len(holder), dtype=bool)
    for row in draw.permutation(len(holder)):
        if not free[row]:
            continue
        partners = near[row]
        # A row whose neighbours have all swapped already takes the place of one of them.
        choice = partners[free[partners]] if free[partners].any() else partners
        other = draw.choice(choice)
        holder[row], holder[other] = holder[other], holder[row]
        free[row] = free[other] = False


def drift(percent: float) -> Kind:
    """Every key gets noise of a share of the distance of neighbours, on top of all before."""

    def kind(data: Dataset, turnovers: int) -> Iterator[Change]:
        return _updates(data, _noisy(data, percent), turnovers)

    return kind


def _noisy(data: Dataset, percent: float) -> Iterator[Floats]:
    draw = np.random.default_rng(_SEED)
    length = percent / 100 * neighbour_distance(data)
    current = data.base
    while True:
        current = _shaped(data.metric, current + _noise(current.shape, length, draw))
        yield current


def identical(data: Dataset, turnovers: int) -> Iterator[Change]:
    """Every key gets the vector that it has."""
    return _updates(data, iter([data.base] * turnovers), turnovers)


def reinsert(data: Dataset, turnovers: int) -> Iterator[Change]:
    """A random half of the keys is removed, and inserted again with the same vectors."""
    draw = np.random.default_rng(_SEED)
    everything = np.ones(len(data), dtype=bool)
    for turnover in range(1, turnovers + 1):
        half = np.sort(draw.permutation(len(data))[: len(data) // 2])
        rest = everything.copy()
        rest[half] = False
        yield Change(turnover, "remove", half, data.base, rest, data.queries)
        yield Change(turnover, "insert", half, data.base, everything, data.queries)


def shift(data: Dataset, turnovers: int) -> Iterator[Change]:
    """One batch: every key gets noise of 30 % of the distance of neighbours."""
    return _updates(data, _noisy(data, 30), 1, whole=True)


def reembed(data: Dataset, turnovers: int) -> Iterator[Change]:
    """One batch: every key gets the second embedding of its record."""
    if data.reembedded is None:
        raise MissingDataError(f"{data.name} has only one embedding of its records")
    return _updates(data, iter([data.reembedded]), 1, whole=True)


def burst(data: Dataset, turnovers: int) -> Iterator[Change]:
    """New keys, all nearly the same and far from everything; queries are among them."""
    draw = np.random.default_rng(_SEED)
    rows = min(_BURST, len(data) // 4)
    middle = data.base.mean(axis=0, dtype=np.float64)
    if data.metric == "cosine":
        centre = -middle / np.linalg.norm(middle)
    else:
        spread = np.linalg.norm(data.base - middle, axis=1).max()
        centre = middle + _noise((1, data.dim), 3 * float(spread), draw)[0]
    length = _BURST_SPREAD * neighbour_distance(data)
    drawn = centre + _noise((rows + _BURST_QUERIES, data.dim), length, draw)
    vectors = _shaped(data.metric, drawn)
    yield Change(
        turnover=1,
        what="insert",
        keys=np.arange(len(data), len(data) + rows),
        current=np.concatenate([data.base, vectors[:rows]]),
        live=np.ones(len(data) + rows, dtype=bool),
        queries=vectors[rows:],
    )


KINDS: dict[str, Kind] = {
    "unrelated": unrelated,
    "cluster": cluster,
    "drift-1": drift(1),
    "drift-3": drift(3),
    "drift-10": drift(10),
    "drift-30": drift(30),
    "identical": identical,
    "reinsert": reinsert,
    "shift": shift,
    "reembed": reembed,
    "burst": burst,
}
