"""Options, fixtures and the two kinds of benchmark.

A *gate* counts work that is the same on every machine and fails if it grows; it always runs on the
sample, for which its bounds were measured. A timing only informs; it takes the set that
`--bench-set` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from bench.data import Dataset, Doubles, Floats, load, true_distances
from bench.measure import Answers, Quality, quality
from upvec.index import Index

K = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("upvec benchmarks")
    group.addoption("--bench-set", default="sample", help="data set of the timings")
    group.addoption("--bench-data", default=None, metavar="DIR", help="folder of larger sets")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gate: deterministic; fails if work per row or query grows")


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Dataset:
    """What the timings run on."""
    return load(request.config.getoption("--bench-set"), request.config.getoption("--bench-data"))


@pytest.fixture(scope="session")
def built(data: Dataset) -> Index:
    """The whole base of `data`. Shared: write to a copy of it."""
    return build(data.base, data.metric)


@pytest.fixture(scope="session")
def small() -> Dataset:
    """What the gates run on, whatever the options say."""
    return load("sample")


@pytest.fixture(scope="session")
def small_built(small: Dataset) -> Index:
    """The whole base of `small`. Shared: write to a copy of it."""
    return build(small.base)


def build(vectors: Floats, metric: str = "cosine", threads: int = 1) -> Index:
    index = Index(vectors.shape[1], metric=metric)
    index.upsert(np.arange(len(vectors)), vectors, threads=threads)
    return index


def answers_of(index: Index, data: Dataset, current: Floats, ef: int) -> Quality:
    """Quality of the index's answers, if row i of `current` is what key i has now."""
    found = index.search(data.queries, K, ef=ef, threads=1)
    truth: Doubles = true_distances(data.metric, current, data.queries, K)
    return quality(
        Answers(found.keys, found.distances, found.counts),
        metric=data.metric,
        queries=data.queries,
        current=current,
        truth=truth,
    )


@dataclass
class Work:
    """What an index counted."""

    distances: int = 0
    hops: int = 0


@contextmanager
def counted(index: Index) -> Iterator[Work]:
    """Count the work of a `with` block; the figures are there when it ends."""
    before, work = index.stats(), Work()
    yield work
    after = index.stats()
    work.distances = after["distances"] - before["distances"]
    work.hops = after["hops"] - before["hops"]
