"""Insertion: gates on its work, timings of its rate."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import answers_of, build, counted
from bench.data import Dataset
from upvec.index import Index

# Gates ------------------------------------------------------------------------------------

# Measured: 2,251, with searches, choice of links and reverse pruning.
DISTANCES_PER_ROW = 2_480


@pytest.mark.gate
def test_distances_per_inserted_row(small: Dataset) -> None:
    index = Index(small.dim, metric=small.metric)
    with counted(index) as work:
        index.upsert(np.arange(len(small)), small.base, threads=1)
    assert work.distances <= DISTANCES_PER_ROW * len(small)


@pytest.mark.gate
def test_graph_is_whole_and_good_when_built(small: Dataset, small_built: Index) -> None:
    assert small_built.check().ok
    assert answers_of(small_built, small, small.base, ef=64).recall >= 0.995  # measured: 0.9995


@pytest.mark.gate
def test_threads_do_the_same_work_and_build_the_same_graph(
    small: Dataset, small_built: Index
) -> None:
    assert build(small.base, threads=2).digest() == small_built.digest()


# Timings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 0], ids=["one thread", "all processors"])
def test_insert_all_by_one_call(data: Dataset, threads: int, benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["rows"] = len(data)
    benchmark.pedantic(build, (data.base, data.metric, threads), rounds=3)


@pytest.mark.parametrize("batch", [1, 100, 1000])
def test_insert_the_last_thousand(data: Dataset, batch: int, benchmark: BenchmarkFixture) -> None:
    keys = np.arange(len(data))
    first = max(0, len(data) - 1000)
    before = build(data.base[:first], data.metric)
    benchmark.extra_info["rows"] = len(data) - first

    def insert(index: Index) -> None:
        for start in range(first, len(data), batch):
            part = slice(start, start + batch)
            index.upsert(keys[part], data.base[part], threads=1)

    benchmark.pedantic(insert, setup=lambda: ((before.copy(),), {}), rounds=3)
