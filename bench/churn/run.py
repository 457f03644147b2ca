"""The measurement: every peer goes through the same changes, and is asked after each of them.

Peers take turns batch by batch. Rates are by processor time, so that what else the machine does
counts less; they still suffer from caches and clocks that are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

import numpy as np

from bench.churn.moves import KINDS, Change
from bench.data import Dataset, Doubles, Floats, true_distances
from bench.measure import AtRecall, Quality, cpu_seconds, pinned, quality, rate_at_recall
from bench.peers.base import Keys, Peer, Settings
from bench.peers.run import EF_SWEEP, RECALLS, K, Say

EFS = (32, 64, 128, 256)
# Of a fresh build, so many rows come last, in batches like those of the updates.
_LATE_SHARE = 0.1


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often.

    Attributes
    ----------
    kinds : sequence of str
        Names of KINDS.
    turnovers : int
        Of all keys; kinds that are one batch by nature have one.
    batch : int
        Keys of one call.
    efs : tuple of int
        At which recall is measured.
    fresh : set of int, or None
        Turnovers after which a fresh index of the same data is built; None for all of them.
        The last is always among them.
    rounds : int
        Of the searches that compare rates with the fresh build; 0 leaves them out.
    """

    kinds: Sequence[str] = tuple(KINDS)
    turnovers: int = 10
    batch: int = 1000
    efs: tuple[int, ...] = EFS
    fresh: frozenset[int] | None = frozenset({1})
    rounds: int = 5


@dataclass
class Step:
    """One peer after one change.

    Attributes
    ----------
    turnover : int
        0 before the first change.
    what : str
        The change.
    quality : dict of int to Quality
        By ef.
    fresh : dict of int to Quality, or None
        Of a fresh build of the same data, where there was one.
    check : dict of str to int, or None
        What the index counts of its own faults; see Index.check().
    bytes_per_vector : float or None
        By its own account.
    """

    turnover: int
    what: str
    quality: dict[int, Quality]
    fresh: dict[int, Quality] | None = None
    check: dict[str, int] | None = None
    bytes_per_vector: float | None = None

    @property
    def points_behind(self) -> float | None:
        """By how many points recall is below the fresh build's, at the ef where that is most."""
        if self.fresh is None:
            return None
        return max(100 * (self.fresh[ef].recall - self.quality[ef].recall) for ef in self.fresh)


@dataclass
class Rate:
    """Rows per second of processor time."""

    rows: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        # A clock of coarse ticks may show nothing for very little work.
        return self.rows / max(self.seconds, 1e-9)


@dataclass
class Curve:
    """Recall and queries/s of one index at every ef of the sweep."""

    recalls: list[float] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)

    def at(self, recall: float) -> AtRecall:
        return rate_at_recall(self.recalls, [median(each) for each in self.rates], recall)

    def to_dict(self) -> dict[str, Any]:
        at_recall = {str(recall): asdict(self.at(recall)) for recall in RECALLS}
        return asdict(self) | {"efs": EF_SWEEP, "at_recall": at_recall}


@dataclass
class PeerChurn:
    """One peer and one kind of change.

    Attributes
    ----------
    steps : list of Step
        The first is before any change.
    updates : list of Rate
        Of each turnover; rows of a turnover that removes and inserts count once.
    inserts : list of Rate
        Of the last tenth of each fresh build.
    curves : dict of str to Curve
        "churned" and "fresh", after the last change.
    """

    steps: list[Step] = field(default_factory=list)
    updates: list[Rate] = field(default_factory=list)
    inserts: list[Rate] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def update_rate(self) -> float:
        return median(rate.per_second for rate in self.updates)

    @property
    def insert_rate(self) -> float:
        return median(rate.per_second for rate in self.inserts)

    @property
    def changed(self) -> list[Step]:
        """The steps after a change."""
        return self.steps[1:]

    def recalls(self, ef: int) -> list[float]:
        return [step.quality[ef].recall for step in self.changed]

    def faults(self, name: str) -> int:
        """Answers that were "stale", "doubled" or "gone", of all steps and efs."""
        return sum(getattr(one, name) for step in self.steps for one in step.quality.values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "steps": [asdict(step) for step in self.steps],
            "update_rates": [rate.per_second for rate in self.updates],
            "insert_rates": [rate.per_second for rate in self.inserts],
            "update_per_insert": self.update_rate / self.insert_rate,
            "search": {name: curve.to_dict() for name, curve in self.curves.items()},
        }


def churn(
    data: Dataset,
    kind: str,
    peers: Sequence[type[Peer]],
    settings: Settings,
    plan: Plan,
    say: Say,
) -> dict[str, PeerChurn]:
    """Measure all peers through one kind of change, on as many processors as there are threads."""
    changes = list(_with_truth(data, kind, plan, say))
    run = _Run(data, kind, peers, settings, plan, say)
    with pinned(settings.threads):
        run.begin()
        for change, truth in changes:
            run.step(change, truth, last=change is changes[-1][0])
    return run.results


def _with_truth(data: Dataset, kind: str, plan: Plan, say: Say) -> Sequence[tuple[Change, Doubles]]:
    # First of all, so that the threads of the matrix product are idle while rates are measured.
    # A change of each turnover is kept: with ten of them, ten times the base.
    found = []
    for change in KINDS[kind](data, plan.turnovers):
        say(f"{kind}: exact answers of turnover {change.turnover}")
        current = change.current[change.live]
        found.append((change, true_distances(data.metric, current, change.queries, K)))
    return found


class _Run:
    def __init__(
        self,
        data: Dataset,
        kind: str,
        peers: Sequence[type[Peer]],
        settings: Settings,
        plan: Plan,
        say: Say,
    ) -> None:
        self._data = data
        self._kind = kind
        self._kinds = {peer.name: peer for peer in peers}
        self._settings = settings
        self._plan = plan
        self._say = say
        self._indexes: dict[str, Peer] = {}
        names = list(self._kinds)
        self._turns = cycle([*names[i:], *names[:i]] for i in range(len(names)))
        self.results = {name: PeerChurn() for name in names}

    def begin(self) -> None:
        data = self._data
        truth = true_distances(data.metric, data.base, data.queries, K)
        everything = np.ones(len(data), dtype=bool)
        for name in self._kinds:
            self._say(f"{self._kind}: build {name}")
            self._indexes[name] = self._empty(name)
            self._indexes[name].build(data.base)
            self._note(name, Change(0, "insert", _NONE, data.base, everything, data.queries), truth)

    def step(self, change: Change, truth: Doubles, *, last: bool) -> None:
        self._apply(change)
        for name in self._kinds:
            self._note(name, change, truth)
        plan = self._plan
        if last or plan.fresh is None or change.turnover in plan.fresh:
            for name in self._kinds:
                self._compare(name, change, truth, with_rates=last and plan.rounds > 0)

    def _empty(self, name: str) -> Peer:
        return self._kinds[name](self._data.dim, self._data.metric, self._settings)

    def _apply(self, change: Change) -> None:
        for result in self.results.values():
            if len(result.updates) < change.turnover:
                result.updates.append(Rate())
        size = len(change.keys) if change.whole else self._plan.batch
        for start in range(0, len(change.keys), size):
            self._say(f"{self._kind}: turnover {change.turnover}, {start:,} keys done")
            keys = change.keys[start : start + size]
            for name in next(self._turns):
                rate = self.results[name].updates[-1]
                rate.seconds += _apply_batch(self._indexes[name], change, keys)
                rate.rows += 0 if change.what == "remove" else len(keys)

    def _note(self, name: str, change: Change, truth: Doubles) -> None:
        index = self._indexes[name]
        asked = partial(self._ask, index, change, truth)
        self.results[name].steps.append(
            Step(
                turnover=change.turnover,
                what=change.what,
                quality={ef: asked(ef) for ef in self._plan.efs},
                check=index.check(),
                bytes_per_vector=index.bytes_per_vector(),
            )
        )

    def _compare(self, name: str, change: Change, truth: Doubles, *, with_rates: bool) -> None:
        self._say(f"{self._kind}: fresh build of {name}")
        fresh, of_fresh, rate = self._fresh(name, change)
        result = self.results[name]
        result.inserts.append(rate)
        result.steps[-1].fresh = {
            ef: self._ask(fresh, of_fresh, truth, ef) for ef in self._plan.efs
        }
        if with_rates:
            self._say(f"{self._kind}: queries/s of {name}")
            both = {"churned": (self._indexes[name], change), "fresh": (fresh, of_fresh)}
            result.curves = {
                which: Curve([self._ask(index, state, truth, ef).recall for ef in EF_SWEEP])
                for which, (index, state) in both.items()
            }
            self._time(result.curves, {which: index for which, (index, _) in both.items()}, change)

    def _time(self, curves: dict[str, Curve], indexes: dict[str, Peer], change: Change) -> None:
        for curve in curves.values():
            curve.rates = [[] for _ in EF_SWEEP]
        turns = cycle([list(indexes), list(reversed(indexes))])
        for _ in range(self._plan.rounds):
            for at, ef in enumerate(EF_SWEEP):
                for which in next(turns):
                    seconds = cpu_seconds(partial(indexes[which].search, change.queries, K, ef))
                    curves[which].rates[at].append(len(change.queries) / seconds)

    def _fresh(self, name: str, change: Change) -> tuple[Peer, Change, Rate]:
        """Build an index of what is live; its keys are new ones, in random order of the old."""
        rows = change.current[change.live]
        rows = np.random.default_rng(len(rows)).permutation(rows)
        first = len(rows) - int(_LATE_SHARE * len(rows))
        index = self._empty(name)
        index.build(rows[:first])
        rate = Rate()
        for start in range(first, len(rows), self._plan.batch):
            keys = np.arange(start, min(start + self._plan.batch, len(rows)))
            rate.seconds += cpu_seconds(partial(index.insert, keys, rows[keys]))
            rate.rows += len(keys)
        everything = np.ones(len(rows), dtype=bool)
        state = Change(change.turnover, "insert", _NONE, rows, everything, change.queries)
        return index, state, rate

    def _ask(self, index: Peer, change: Change, truth: Doubles, ef: int) -> Quality:
        return quality(
            index.search(change.queries, K, ef),
            metric=self._data.metric,
            queries=change.queries,
            current=change.current,
            truth=truth,
            live=change.live,
        )


_NONE: Keys = np.empty(0, dtype=np.int64)


def _apply_batch(index: Peer, change: Change, keys: Keys) -> float:
    if change.what == "remove":
        return cpu_seconds(partial(index.remove, keys))
    vectors: Floats = change.current[keys]
    call = index.update if change.what == "update" else index.insert
    return cpu_seconds(partial(call, keys, vectors))
