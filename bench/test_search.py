"""Search: gates on its work and recall, timings of its rate."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import K, answers_of, counted
from bench.data import Dataset
from upvec.index import Index

# Gates ------------------------------------------------------------------------------------


@pytest.mark.gate
@pytest.mark.parametrize(
    ("ef", "distances", "hops", "recall"),
    [
        # Measured, with entries and the exact vectors at the end: 327, 17.4; 694, 64.5.
        (16, 359, 19, 0.970),
        (64, 763, 70, 0.995),
    ],
)
def test_work_and_recall_of_a_query(
    small: Dataset, small_built: Index, ef: int, distances: int, hops: int, recall: float
) -> None:
    with counted(small_built) as work:
        answers = answers_of(small_built, small, small.base, ef)
    assert answers.recall >= recall
    assert answers.faults == 0
    assert work.distances <= distances * len(small.queries)
    assert work.hops <= hops * len(small.queries)


# Timings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ef", [16, 64, 256])
def test_search_all_queries_by_one_call(
    data: Dataset, built: Index, ef: int, benchmark: BenchmarkFixture
) -> None:
    benchmark.extra_info["queries"] = len(data.queries)
    benchmark(built.search, data.queries, K, ef=ef, threads=1)
    benchmark.extra_info["recall"] = answers_of(built, data, data.base, ef).recall


def test_search_on_all_processors(data: Dataset, built: Index, benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["queries"] = len(data.queries)
    benchmark(built.search, data.queries, K, ef=64)


def test_search_one_query_a_call(data: Dataset, built: Index, benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["queries"] = len(data.queries)

    def one_by_one() -> None:
        for query in data.queries:
            built.search(query, K, ef=64, threads=1)

    benchmark(one_by_one)


@pytest.mark.parametrize("every", [2, 10, 100])
def test_search_where_one_key_in_so_many_is_allowed(
    data: Dataset, built: Index, every: int, benchmark: BenchmarkFixture
) -> None:
    allowed = built.filter(np.arange(0, len(data), every))
    benchmark.extra_info["queries"] = len(data.queries)
    benchmark(built.search, data.queries, K, ef=64, where=allowed, threads=1)


def test_exact_search(data: Dataset, built: Index, benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["queries"] = len(data.queries)
    benchmark(built.exact_search, data.queries, K, threads=1)
