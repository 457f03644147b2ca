"""The measurements: build, search at every ef, updates, removals; peers take turns in all of them.

Rounds are in rotating order (A B C, B C A, …), so that what else the machine does, its warmth and
what the predecessor left in the caches fall on all alike. Every index is in a process of its own;
one that fails is left out from there on, with what it has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import Dataset, Doubles, Floats, MissingDataError, true_distances
from bench.measure import AtRecall, Quality, far_moves, quality, rate_at_recall
from bench.peers.base import Keys, Settings
from bench.peers.worker import Cost, Kind, PeerError, Worker

K = 10
RECALLS = (0.95, 0.99)
EF_SWEEP = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
EF_OF_UPDATES = 64

# Peers whose recall is still below the highest of RECALLS go on to these.
_FURTHER = (384, 512, 768, 1024)
# Beyond it a curve says nothing more about any of RECALLS.
_ENOUGH = 0.999
_REMOVED_SHARE = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often.

    Attributes
    ----------
    rounds, build_rounds : int
        Of every search, and of every build.
    ks : tuple of int
        Answers to a query.
    efs : tuple of int
        For k = 10; for others in proportion.
    updates : bool
        Whether to move and remove keys, after the searches.
    update_rows : int or None
        Keys to move; None for all.
    update_batch : int
        Keys of one call.
    reembed : bool
        Move to the second embedding, not to far places.
    """

    rounds: int = 5
    build_rounds: int = 1
    ks: tuple[int, ...] = (K,)
    efs: tuple[int, ...] = EF_SWEEP
    updates: bool = True
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
    """One peer at one ef.

    Attributes
    ----------
    rates : Rates
        Of one call with all queries.
    one_by_one : Rates
        Of a call for every query; empty where that was not measured.
    """

    ef: int
    recall: float
    rates: Rates = field(default_factory=Rates)
    one_by_one: Rates = field(default_factory=Rates)

    def to_dict(self) -> dict[str, Any]:
        found = {"ef": self.ef, "recall": self.recall, "rates": self.rates.to_dict()}
        return found | ({"one_by_one": self.one_by_one.to_dict()} if self.one_by_one.each else {})


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
    """All that was measured of one build of one peer on one set.

    Attributes
    ----------
    costs : list of Cost
        Of every build.
    search : dict of int to list of SearchPoint
        By k, with rising ef.
    failed : str or None
        What ended it.
    """

    kind: Kind
    settings: Settings
    costs: list[Cost] = field(default_factory=list)
    search: dict[int, list[SearchPoint]] = field(default_factory=dict)
    churn: Churn | None = None
    failed: str | None = None

    @property
    def build(self) -> Rates:
        """Rows per second, without tuning."""
        return Rates([cost.rows / cost.seconds for cost in self.costs])

    def at_recall(self, k: int, recall: float) -> AtRecall:
        return at_recall([self], k, recall)

    def to_dict(self) -> dict[str, Any]:
        return {
            "M": self.settings.M,
            "ef_construction": self.settings.ef_construction,
            "static": not self.kind.updates,
            "build": self.build.to_dict() if self.costs else None,
            "costs": [asdict(cost) for cost in self.costs],
            "search": {
                str(k): [point.to_dict() for point in points] for k, points in self.search.items()
            },
            "at_recall": {
                str(k): {str(recall): asdict(self.at_recall(k, recall)) for recall in RECALLS}
                for k in self.search
            },
            "churn": self.churn.to_dict() if self.churn else None,
            "failed": self.failed,
        }


# The builds of every peer: one of equal degree, or those of a grid.
Builds = Mapping[str, Sequence[PeerResult]]


def at_recall(builds: Sequence[PeerResult], k: int, recall: float) -> AtRecall:
    """Queries per second at one recall, on the upper envelope of all builds of a peer."""
    points = [point for result in builds for point in result.search.get(k, [])]
    return rate_at_recall(
        [point.recall for point in points], [point.rates.median for point in points], recall
    )


def measure(
    data: Dataset, kinds: Sequence[Kind], settings: Settings, plan: Plan, say: Say
) -> dict[str, list[PeerResult]]:
    """Measure all peers on one set, all at the same settings."""
    return {
        name: [result]
        for name, result in _measure(
            data, dict.fromkeys(kinds, settings), plan, say, plan.updates
        ).items()
    }


def measure_grid(
    data: Dataset, kinds: Sequence[Kind], threads: int, plan: Plan, say: Say
) -> dict[str, list[PeerResult]]:
    """Measure all peers on one set, each at all settings of its own grid; without updates.

    Peers take turns within a step of their grids, and forget their indexes after it.
    """
    found: dict[str, list[PeerResult]] = {kind.name: [] for kind in kinds}
    for step in zip_longest(*(kind.grid for kind in kinds)):
        chosen = {
            kind: Settings(M=pair[0], ef_construction=pair[1], threads=threads)
            for kind, pair in zip(kinds, step, strict=True)
            if pair is not None
        }
        for name, result in _measure(data, chosen, plan, say, updates=False).items():
            found[name].append(result)
    return found


def _measure(
    data: Dataset, chosen: Mapping[Kind, Settings], plan: Plan, say: Say, updates: bool
) -> dict[str, PeerResult]:
    with tempfile.TemporaryDirectory(prefix="upvec-peers-") as folder:
        run = _Run(data, chosen, plan, say, Path(folder))
        try:
            run.build()
            for k in plan.ks:
                run.search(k)
            if updates:
                run.churn()
        finally:
            run.close()
    return run.results


def _turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    for turn in range(rounds):
        start = turn % len(names) if names else 0
        yield [*names[start:], *names[:start]]


class _Run:
    """Carries the indexes from one measurement to the next."""

    def __init__(
        self,
        data: Dataset,
        chosen: Mapping[Kind, Settings],
        plan: Plan,
        say: Say,
        folder: Path,
    ) -> None:
        self._data = data
        self._plan = plan
        self._say = say
        self._folder = folder
        self._workers: dict[str, Worker] = {}
        self.results = {kind.name: PeerResult(kind, settings) for kind, settings in chosen.items()}
        say("exact answers")
        # First of all, as the threads of the matrix product spin for a while.
        self._truth = {k: self._truth_of(data.base, k) for k in {*plan.ks, K}}
        self._base = self._file("base", data.base)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def build(self) -> None:
        for order in _turns(list(self.results), self._plan.build_rounds):
            for name in order:
                if self.results[name].failed:
                    continue
                self._say(f"build: {name}")
                if name in self._workers:  # its memory, before the next one takes as much
                    self._workers.pop(name).close()
                self._guarded(name, self._build_first)

    def search(self, k: int) -> None:
        plan = self._plan
        for name in list(self._workers):
            self._say(f"recall, k {k}: {name}")
            self._guarded(name, partial(self._find_points, k=k))
        for turn in range(plan.rounds):
            self._say(f"search, k {k}: round {turn + 1} of {plan.rounds}")
            longest = max((len(self._points(name, k)) for name in self._workers), default=0)
            for at in range(longest):
                for name in self._in_turn(turn + at):
                    self._guarded(name, partial(self._time_point, k=k, at=at))
            for name in self._in_turn(turn):
                self._guarded(name, partial(self._time_each, k=k))

    def churn(self) -> None:
        for name, result in self.results.items():
            if not result.kind.updates and name in self._workers:
                self._workers.pop(name).close()
        keys, moved = self._moves()
        before = self._of_all(lambda name: self._ask(name, self._data.base, self._truth[K]))
        rates = self._update(keys, moved)
        truth = self._truth_of(moved, K)
        gone = np.random.default_rng(3).permutation(len(moved))[: int(_REMOVED_SHARE * len(moved))]
        live = np.ones(len(moved), dtype=bool)
        live[gone] = False
        truth_of_live = self._truth_of(moved[live], K)
        file = self._file("moved", moved)

        def finish(name: str) -> None:
            # One peer after the other; each needs a second index for a while.
            self._say(f"after the updates: {name}")
            worker = self._workers[name]
            after = self._ask(name, moved, truth)
            seconds = worker.call("remove", np.sort(gone))
            self.results[name].churn = Churn(
                before=before[name],
                rates=rates[name],
                after=after,
                fresh=self._fresh(name, file, moved, truth),
                removal_rate=len(gone) / seconds,
                removed=self._ask(name, moved, truth_of_live, live=live),
                broken=worker.call("broken"),
            )

        self._of_all(finish)

    def _of_all(self, work: Callable[[str], Any]) -> dict[str, Any]:
        found = {name: self._guarded(name, work) for name in list(self._workers)}
        return {name: found[name] for name in self._workers}

    def _guarded(self, name: str, work: Callable[[str], Any]) -> Any:
        """Do the work of one peer; if it fails, go on without that peer."""
        try:
            return work(name)
        except PeerError as error:
            self.results[name].failed = str(error)
            with suppress(KeyError):
                self._workers.pop(name).close()
            return None

    def _in_turn(self, turn: int) -> list[str]:
        names = [name for name in self.results if name in self._workers]
        start = turn % len(names) if names else 0
        return [*names[start:], *names[:start]]

    def _points(self, name: str, k: int) -> list[SearchPoint]:
        return self.results[name].search.get(k, [])

    def _build_first(self, name: str) -> None:
        worker, cost = self._built(name, self._base)
        self._workers[name] = worker
        self.results[name].costs.append(cost)

    def _built(self, name: str, file: str) -> tuple[Worker, Cost]:
        result = self.results[name]
        worker = Worker(result.kind.where, result.settings.threads)
        cost: Cost = worker.call(
            "build", file, self._data.queries, self._data.metric, result.settings
        )
        return worker, cost

    def _find_points(self, name: str, k: int) -> None:
        """Find recall at every ef that is worth it; answers are the same in every round."""
        points: list[SearchPoint] = []
        for ef in _efs(self._plan.efs, k):
            answers = self._ask(name, self._data.base, self._truth[k], k=k, ef=ef)
            if answers.doubled:
                raise self._closed(name, f"{answers.doubled} keys are twice in one answer")
            points.append(SearchPoint(ef, answers.recall))
            if answers.recall >= _ENOUGH or self._is_far(ef, k, answers.recall):
                break
        self.results[name].search[k] = points

    def _is_far(self, ef: int, k: int, recall: float) -> bool:
        """Say whether the sweep proper is over, and the recall looked for reached."""
        return ef >= _scaled(self._plan.efs[-1], k) and recall >= RECALLS[-1]

    def _time_point(self, name: str, k: int, at: int) -> None:
        points = self._points(name, k)
        if at < len(points):
            seconds = self._workers[name].call("time_search", k, points[at].ef)
            points[at].rates.each.append(len(self._data.queries) / seconds)

    def _time_each(self, name: str, k: int) -> None:
        points = self._points(name, k)
        # Where the first of RECALLS is reached.
        point = next((point for point in points if point.recall >= RECALLS[0]), points[-1])
        seconds = self._workers[name].call("time_each", k, point.ef)
        point.one_by_one.each.append(len(self._data.queries) / seconds)

    def _update(self, keys: Keys, moved: Floats) -> dict[str, Rates]:
        rates = {name: Rates() for name in self._workers}
        for turn, start in enumerate(range(0, len(keys), self._plan.update_batch)):
            self._say(f"update: {start:,} of {len(keys):,} rows")
            batch = keys[start : start + self._plan.update_batch]
            vectors = moved[batch]

            def move(name: str, batch: Keys = batch, vectors: Floats = vectors) -> None:
                seconds = self._workers[name].call("update", batch, vectors)
                rates[name].each.append(len(batch) / seconds)

            for name in self._in_turn(turn):
                self._guarded(name, move)
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

    def _fresh(self, name: str, file: str, moved: Floats, truth: Doubles) -> Quality:
        worker, cost = self._built(name, file)
        try:
            self.results[name].costs.append(cost)
            return self._judge(worker, moved, truth)
        finally:
            worker.close()

    def _ask(
        self,
        name: str,
        current: Floats,
        truth: Doubles,
        *,
        k: int = K,
        ef: int = EF_OF_UPDATES,
        live: npt.NDArray[np.bool_] | None = None,
    ) -> Quality:
        return self._judge(self._workers[name], current, truth, k=k, ef=ef, live=live)

    def _judge(
        self,
        worker: Worker,
        current: Floats,
        truth: Doubles,
        *,
        k: int = K,
        ef: int = EF_OF_UPDATES,
        live: npt.NDArray[np.bool_] | None = None,
    ) -> Quality:
        return quality(
            worker.call("search", k, ef),
            metric=self._data.metric,
            queries=self._data.queries,
            current=current,
            truth=truth,
            live=live,
        )

    def _closed(self, name: str, message: str) -> PeerError:
        self._workers.pop(name).close()
        return PeerError(message)

    def _truth_of(self, base: Floats, k: int) -> Doubles:
        return true_distances(self._data.metric, base, self._data.queries, k)

    def _file(self, name: str, vectors: Floats) -> str:
        path = self._folder / f"{name}.npy"
        np.save(path, vectors)
        return str(path)


def _efs(efs: Sequence[int], k: int) -> list[int]:
    """The sweep for k answers and what lies beyond it; below k, ef counts as k."""
    found = {max(k, _scaled(ef, k)) for ef in efs}
    top = max(found)
    return sorted(found | {ef for ef in (_scaled(ef, k) for ef in _FURTHER) if ef > top})


def _scaled(ef: int, k: int) -> int:
    return ef * k // K if k > K else ef
