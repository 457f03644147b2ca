"""Peers through a runbook: recall at every search step, and rows per second of each operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.churn.run import Rate
from bench.data import Dataset, Doubles, Floats, true_distances
from bench.measure import Quality, cpu_seconds, pinned, quality
from bench.peers.base import Keys, Peer, Settings
from bench.peers.run import K, Say
from bench.runbook.clusters import by_cluster
from bench.runbook.format import Delete, Insert, Operation, Runbook, RunbookError, Search, Tags

OPERATIONS = ("insert", "delete", "replace")


@dataclass
class Replayed:
    """One peer through one runbook.

    Attributes
    ----------
    searches : list of (int, dict of int to Quality)
        Number of the step, and the quality of its answers by ef.
    rates : dict of str to Rate
        By operation; rows per second of processor time.
    check : dict of str to int, or None
        What the index counts of its own faults in the end; see Index.check().
    """

    searches: list[tuple[int, dict[int, Quality]]] = field(default_factory=list)
    rates: dict[str, Rate] = field(default_factory=lambda: {name: Rate() for name in OPERATIONS})
    check: dict[str, int] | None = None

    def mean(self, ef: int) -> float:
        """Recall, as the track counts it: the plain mean over all search steps."""
        return sum(found[ef].recall for _, found in self.searches) / len(self.searches)

    def worst(self, ef: int) -> tuple[float, int]:
        """The least recall, and its step."""
        return min((found[ef].recall, number) for number, found in self.searches)

    @property
    def faults(self) -> int:
        """Answers that were stale, doubled or of deleted tags."""
        return sum(one.faults for _, found in self.searches for one in found.values())

    def to_dict(self) -> dict[str, Any]:
        searches = [
            {"step": number, "quality": {ef: asdict(one) for ef, one in found.items()}}
            for number, found in self.searches
        ]
        rates = {name: rate.per_second for name, rate in self.rates.items() if rate.rows}
        return {"searches": searches, "rates": rates, "check": self.check}


def replay(
    book: Runbook,
    data: Dataset,
    peers: Sequence[type[Peer]],
    settings: Settings,
    efs: Sequence[int],
    say: Say,
) -> dict[str, Replayed]:
    """Take all steps with all peers in turns, on as many processors as there are threads."""
    base = rows_for(book, data)
    # Before anything is timed, so that the threads of the matrix product are idle by then.
    truths = _truths(book, data, base, say)
    indexes = {peer.name: peer(data.dim, data.metric, settings) for peer in peers}
    results = {name: Replayed() for name in indexes}
    names = list(indexes)
    turns = cycle([*names[i:], *names[:i]] for i in range(len(names)))
    tags = Tags(book)
    with pinned(settings.threads):
        for number, step in enumerate(book.steps, start=1):
            say(f"{book.name}: step {number} of {len(book.steps)}")
            tags.apply(number, step)
            for name in next(turns):
                if isinstance(step, Search):
                    asked = partial(_ask, indexes[name], data, base, tags, truths[number])
                    results[name].searches.append((number, {ef: asked(ef) for ef in efs}))
                else:
                    _take(indexes[name], step, base, tags, results[name])
        for name, index in indexes.items():
            results[name].check = index.check()
    return results


def rows_for(book: Runbook, data: Dataset) -> Floats:
    """Return the rows that the book's ids mean; float32 (max_pts, dim)."""
    if len(data) < book.max_pts:
        raise RunbookError(
            f"{book.name} has max_pts {book.max_pts:,}, but {data.name} has {len(data):,} rows"
        )
    rows = data.base[: book.max_pts]
    if book.clusters is None:
        return rows
    return np.ascontiguousarray(rows[by_cluster(rows, book.clusters)[0]])


def _truths(book: Runbook, data: Dataset, base: Floats, say: Say) -> dict[int, Doubles]:
    tags = Tags(book)
    truths = {}
    for number, step in enumerate(book.steps, start=1):
        tags.apply(number, step)
        if isinstance(step, Search):
            say(f"{book.name}: exact answers of step {number}")
            live = base[tags.rows[tags.live]]
            truths[number] = true_distances(data.metric, live, data.queries, min(K, len(live)))
    return truths


def _take(index: Peer, step: Operation, base: Floats, tags: Tags, result: Replayed) -> None:
    assert not isinstance(step, Search)
    keys: Keys = step.tags.numbers()
    if isinstance(step, Delete):
        name, call = "delete", partial(index.remove, keys)
    else:
        name = "insert" if isinstance(step, Insert) else "replace"
        write = index.insert if isinstance(step, Insert) else index.update
        call = partial(write, keys, base[tags.rows[keys]])
    rate = result.rates[name]
    rate.seconds += cpu_seconds(call)
    rate.rows += len(keys)


def _ask(index: Peer, data: Dataset, base: Floats, tags: Tags, truth: Doubles, ef: int) -> Quality:
    live = tags.live
    current = np.zeros((len(live), data.dim), dtype=np.float32)
    current[live] = base[tags.rows[live]]
    return quality(
        index.search(data.queries, truth.shape[1], ef),
        metric=data.metric,
        queries=data.queries,
        current=current,
        truth=truth,
        live=live,
    )
