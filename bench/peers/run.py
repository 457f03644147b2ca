"""The measurements: build, search at every ef, updates, removals; peers take turns in all of them.

Rounds are in rotating order (A B C, B C A, …), so that what else the machine does, its warmth and
what the predecessor left in the caches fall on all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import Dataset, Doubles, Floats, MissingDataError, true_distances
from bench.measure import AtRecall, Quality, far_moves, pinned, quality, rate_at_recall, timed
from bench.peers.base import Keys, Peer, Settings

K = 10
RECALLS = (0.95, 0.99)
EF_SWEEP = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
EF_OF_UPDATES = 64

_REMOVED_SHARE = 0.1


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    rounds: int = 5
    build_rounds: int = 1
    efs: tuple[int, ...] = EF_SWEEP
    update_rows: int | None = None
    update_batch: int = 1000
    reembed: bool = False


@dataclass
class Rates:
    """Rows or queries per second, one of each round."""

    each: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.each)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.percentile(self.each, [25, 75])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        return {"median": self.median, "quartiles": self.quartiles, "rounds": self.each}


@dataclass
class SearchPoint:
    """One peer at one ef."""

    ef: int
    recall: float
    rates: Rates = field(default_factory=Rates)

    def to_dict(self) -> dict[str, Any]:
        return {"ef": self.ef, "recall": self.recall, "rates": self.rates.to_dict()}


@dataclass
class Churn:
    """Quality of one peer's answers around its updates, all at the same ef.

    Attributes
    ----------
    before, after, fresh, removed : Quality
        As built; when all keys have moved; of a new index of the moved data; and after a tenth
        of the keys was removed from the updated one.
    broken : str or None
        What the index says of itself after all that; None if it has no way to say.
    """

    before: Quality
    rates: Rates
    after: Quality
    fresh: Quality
    removal_rate: float
    removed: Quality
    broken: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"rates": self.rates.to_dict()}


@dataclass
class PeerResult:
    """All that was measured of one peer on one set."""

    build: Rates = field(default_factory=Rates)
    search: list[SearchPoint] = field(default_factory=list)
    churn: Churn | None = None

    def at_recall(self, recall: float) -> AtRecall:
        points = self.search
        return rate_at_recall(
            [point.recall for point in points], [point.rates.median for point in points], recall
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "build": self.build.to_dict(),
            "search": [point.to_dict() for point in self.search],
            "at_recall": {str(recall): asdict(self.at_recall(recall)) for recall in RECALLS},
            "churn": self.churn.to_dict() if self.churn else None,
        }


Say = Callable[[str], None]


def measure(
    data: Dataset, peers: Sequence[type[Peer]], settings: Settings, plan: Plan, say: Say
) -> dict[str, PeerResult]:
    """Measure all peers on one set, on as many processors as there are threads."""
    run = _Run(data, peers, settings, plan, say)
    with pinned(settings.threads):
        run.build()
        run.search()
        run.churn()
    return run.results


def _turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    for turn in range(rounds):
        start = turn % len(names)
        yield [*names[start:], *names[:start]]


class _Run:
    """Carries the indexes from one measurement to the next."""

    def __init__(
        self,
        data: Dataset,
        peers: Sequence[type[Peer]],
        settings: Settings,
        plan: Plan,
        say: Say,
    ) -> None:
        self._data = data
        self._kinds = {peer.name: peer for peer in peers}
        self._names = list(self._kinds)
        self._settings = settings
        self._plan = plan
        self._say = say
        self._indexes: dict[str, Peer] = {}
        self.results = {name: PeerResult() for name in self._names}
        say("exact answers")
        self._truth = true_distances(data.metric, data.base, data.queries, K)

    def build(self) -> None:
        for order in _turns(self._names, self._plan.build_rounds):
            for name in order:
                self._say(f"build: {name}")
                self._indexes.pop(name, None)  # its memory, before the next one takes as much
                self._indexes[name] = self._build_one(name, self._data.base)

    def search(self) -> None:
        plan = self._plan
        for name, index in self._indexes.items():
            # Answers are the same in every round; these also warm the index up.
            self.results[name].search = [
                SearchPoint(ef, self._ask(index, self._data.base, self._truth, ef).recall)
                for ef in plan.efs
            ]
        for turn in range(plan.rounds):
            self._say(f"search: round {turn + 1} of {plan.rounds}")
            for at, order in enumerate(_turns(self._names, len(plan.efs))):
                for name in order[turn % len(order) :] + order[: turn % len(order)]:
                    self._time_search(name, at)

    def _time_search(self, name: str, at: int) -> None:
        point = self.results[name].search[at]
        index, queries = self._indexes[name], self._data.queries
        seconds = timed(lambda: index.search(queries, K, point.ef))
        point.rates.each.append(len(queries) / seconds)

    def churn(self) -> None:
        data, base = self._data, self._data.base
        keys, moved = self._moves()
        before = {
            name: self._ask(index, base, self._truth) for name, index in self._indexes.items()
        }
        rates = self._update(keys, moved)
        truth = true_distances(data.metric, moved, data.queries, K)
        gone = np.random.default_rng(3).permutation(len(data))[: int(_REMOVED_SHARE * len(data))]
        live = np.ones(len(data), dtype=bool)
        live[gone] = False
        truth_of_live = true_distances(data.metric, moved[live], data.queries, K)
        for name in self._names:
            # One peer after the other; each needs a second index for a while.
            self._say(f"after the updates: {name}")
            index = self._indexes[name]
            after = self._ask(index, moved, truth)
            removal_seconds = timed(partial(index.remove, np.sort(gone)))
            self.results[name].churn = Churn(
                before=before[name],
                rates=rates[name],
                after=after,
                fresh=self._ask(self._build_one(name, moved), moved, truth),
                removal_rate=len(gone) / removal_seconds,
                removed=self._ask(index, moved, truth_of_live, live=live),
                broken=index.broken(),
            )

    def _update(self, keys: Keys, moved: Floats) -> dict[str, Rates]:
        rates = {name: Rates() for name in self._names}
        starts = range(0, len(keys), self._plan.update_batch)
        for start, order in zip(starts, _turns(self._names, len(starts)), strict=True):
            self._say(f"update: {start:,} of {len(keys):,} rows")
            batch = keys[start : start + self._plan.update_batch]
            vectors = moved[batch]
            for name in order:
                seconds = timed(partial(self._indexes[name].update, batch, vectors))
                rates[name].each.append(len(batch) / seconds)
        return rates

    def _moves(self) -> tuple[Keys, Floats]:
        keys, moved = far_moves(self._data.base, self._plan.update_rows)
        if not self._plan.reembed:
            return keys, moved
        if self._data.reembedded is None:
            raise MissingDataError(f"{self._data.name} has only one embedding of its records")
        moved = self._data.base.copy()
        moved[keys] = self._data.reembedded[keys]
        return keys, moved

    def _build_one(self, name: str, vectors: Floats) -> Peer:
        index = self._kinds[name](self._data.dim, self._data.metric, self._settings)
        seconds = timed(lambda: index.build(vectors))
        self.results[name].build.each.append(len(vectors) / seconds)
        return index

    def _ask(
        self,
        index: Peer,
        current: Floats,
        truth: Doubles,
        ef: int = EF_OF_UPDATES,
        live: npt.NDArray[np.bool_] | None = None,
    ) -> Quality:
        return quality(
            index.search(self._data.queries, K, ef),
            metric=self._data.metric,
            queries=self._data.queries,
            current=current,
            truth=truth,
            live=live,
        )
