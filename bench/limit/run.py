"""Measures searches of one set, and what bounds them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data import Dataset, Doubles, Floats, true_distances
from bench.limit.bound import Bound, Machine, Work
from bench.limit.build import Built
from bench.measure import Answers, cpu_seconds, pinned, quality
from upvec.index import Index

K = 10
MOST_EF = 1024
# How searches are called.
BY_ONE_CALL = "by_one_call"
ONE_A_CALL = "one_a_call"


class CountFault(Exception):
    """The build that counts did not do the same work as the one that was timed."""


@dataclass(frozen=True)
class Plan:
    """What to measure: recalls to reach, and how often each is timed."""

    recalls: tuple[float, ...] = (0.95, 0.99)
    rounds: int = 7


@dataclass(frozen=True)
class Point:
    """Searches at one recall, called in one way.

    Attributes
    ----------
    measured_us, call_us : float
        Of one query; and what of it one call takes that has next to nothing to search.
    """

    recall: float
    ef: int
    how: str
    work: Work
    bound: Bound
    measured_us: float
    call_us: float

    @property
    def fraction(self) -> float:
        return self.bound.least_us / self.measured_us


@dataclass(frozen=True)
class SetLimit:
    """All of one set."""

    machine: Machine
    points: list[Point]


@dataclass(frozen=True)
class _Timed:
    recall: float
    ef: int
    us: dict[str, float]
    distances: float
    hops: float


def limit_of(data: Dataset, plan: Plan, built: Built, say: Callable[[str], None]) -> SetLimit:
    """Build an index, time searches, count what they do, and measure what the machine gives."""
    say(f"{data.name}: building")
    index = Index(data.dim, metric=data.metric)
    index.upsert(np.arange(len(data)), data.base, threads=0)
    truth = true_distances(data.metric, data.base, data.queries, K)
    say(f"{data.name}: searching")
    with pinned(1):
        points = _timed_points(index, data, truth, plan)
        call_us = _call_us(data, plan.rounds)
    say(f"{data.name}: counting")
    works = _counted(index, data.queries, [point.ef for point in points], built)
    say(f"{data.name}: measuring the machine")
    slots, threads = index.stats()["slots"], _processors()
    shape = [data.dim, data.metric, index.M, slots, *sorted({1, threads})]
    machine = Machine.of(built.measured(list(map(str, shape))))
    limit = []
    for point, by_way in zip(points, works, strict=True):
        for how, work in by_way.items():
            _require_same_work(point, work, how)
            of_call = call_us if how == ONE_A_CALL else call_us / len(data.queries)
            bound = Bound.of(work, machine)
            limit.append(Point(point.recall, point.ef, how, work, bound, point.us[how], of_call))
    return SetLimit(machine, limit)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _timed_points(index: Index, data: Dataset, truth: Doubles, plan: Plan) -> list[_Timed]:
    efs = [_least_ef(index, data, truth, recall) for recall in plan.recalls]
    best = [{BY_ONE_CALL: np.inf, ONE_A_CALL: np.inf} for _ in efs]
    for _ in range(plan.rounds):
        for ef, us in zip(efs, best, strict=True):
            for how in us:
                us[how] = min(us[how], _seconds(index, data.queries, ef, how))
    points = []
    for ef, us in zip(efs, best, strict=True):
        before = index.stats()
        recall = _recall(index, data, truth, ef)
        after = index.stats()
        per_query = {how: 1e6 * seconds / len(data.queries) for how, seconds in us.items()}
        done = [(after[name] - before[name]) / len(data.queries) for name in ("distances", "hops")]
        points.append(_Timed(recall, ef, per_query, *done))
    return points


def _seconds(index: Index, queries: Floats, ef: int, how: str) -> float:
    if how == BY_ONE_CALL:
        return cpu_seconds(lambda: index.search(queries, K, ef=ef, threads=1))
    return cpu_seconds(lambda: [index.search(query, K, ef=ef, threads=1) for query in queries])


def _call_us(data: Dataset, rounds: int) -> float:
    """A call for one query of a single row: what Python and the preparation of a search take."""
    single = Index(data.dim, metric=data.metric)
    single.upsert(np.arange(1), data.base[:1])
    seconds = min(_seconds(single, data.queries, K, ONE_A_CALL) for _ in range(rounds))
    return 1e6 * seconds / len(data.queries)


def _recall(index: Index, data: Dataset, truth: Doubles, ef: int) -> float:
    found = index.search(data.queries, K, ef=ef, threads=1)
    answers = Answers(found.keys, found.distances, found.counts)
    return quality(
        answers, metric=data.metric, queries=data.queries, current=data.base, truth=truth
    ).recall


def _least_ef(index: Index, data: Dataset, truth: Doubles, recall: float) -> int:
    """The smallest ef that gives this recall; less than K counts as K."""
    low, high = K, MOST_EF
    while low < high:
        middle = (low * high) ** 0.5
        ef = min(max(int(middle), low), high - 1)
        if _recall(index, data, truth, ef) >= recall:
            high = ef
        else:
            low = ef + 1
    return low


def _counted(index: Index, queries: Floats, efs: list[int], built: Built) -> list[dict[str, Work]]:
    with tempfile.TemporaryDirectory() as folder:
        saved, asked = Path(folder, "index"), Path(folder, "queries.npy")
        index.save(saved)
        np.save(asked, queries)
        counted = built.counted([str(saved), str(asked), str(K), *map(str, efs)])
    return [{how: Work.of(*stats) for how, stats in by_way.items()} for by_way in counted]


def _require_same_work(point: _Timed, work: Work, how: str) -> None:
    timed_work = (point.distances, point.hops)
    if not np.allclose(timed_work, (work.distances, work.hops)):
        raise CountFault(
            f"ef {point.ef}, {how}: {timed_work} distances and hops a query were timed, "
            f"{work.distances, work.hops} were counted"
        )
