"""Index.tune: the ef that a recall takes."""

from typing import Any

import numpy as np
import pytest

import upvec
from upvec.sample import Sample


def filled(sample: Sample, rows: int = 1800, **options: Any) -> upvec.Index:
    ix = upvec.Index(384, **{"metric": "cosine", **options})
    ix.upsert(np.arange(rows), sample.v1[:rows])
    return ix


def recall(ix: Any, queries: Any, k: int, ef: int) -> float:
    last = ix.exact_search(queries, k).distances[:, -1:]
    return float((ix.search(queries, k, ef=ef).distances <= last).mean())


@pytest.mark.parametrize("k", [1, 10])
def test_the_least_ef_is_found_and_its_recall_is_of_other_queries(sample: Sample, k: int) -> None:
    ix = filled(sample, M=4, ef_construction=16)  # a poor graph: ef matters
    queries = sample.v2[1800:]
    tuned = ix.tune(queries, k=k, target_recall=0.95)
    assert (tuned.k, tuned.target_recall, tuned.queries) == (k, 0.95, 200)
    assert recall(ix, queries[::2], k, tuned.ef) >= 0.95
    assert tuned.ef == k or recall(ix, queries[::2], k, tuned.ef - 1) < 0.95
    assert tuned.recall == recall(ix, queries[1::2], k, tuned.ef)
    assert tuned == ix.tune(queries, k=k, target_recall=0.95)
    assert tuned == filled(sample, M=4, ef_construction=16).tune(queries, k=k)
    with pytest.raises(AttributeError):
        tuned.ef = 3  # type: ignore[misc]


def test_a_higher_target_takes_a_wider_search(sample: Sample) -> None:
    ix = filled(sample, M=4, ef_construction=16)
    widths = [ix.tune(sample.v2[1800:], 10, target).ef for target in (0.5, 0.9, 0.99, 1.0)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_a_snapshot_is_tuned_for_what_it_shows(sample: Sample) -> None:
    ix = filled(sample)
    with ix.snapshot() as snap:
        before = snap.tune(sample.v2[1800:], target_recall=0.9)
        ix.remove(np.arange(1795))
        assert snap.tune(sample.v2[1800:], target_recall=0.9).recall >= 0.85
    assert before.ef >= 10
    # Fewer rows than k: all that there are.
    assert ix.tune(sample.v2[1800:], k=10, target_recall=1.0)[:2] == (5, 1.0)


def test_a_target_out_of_reach_names_the_best(sample: Sample) -> None:
    ix = filled(sample, 300)
    real = ix._core

    class Blind:
        """Finds nothing but the nearest."""

        def search(self, queries: Any, k: int, **options: Any) -> Any:
            keys, distances, counts = real.search(queries, k, **options)
            distances[:, 1:] = np.inf
            return keys, distances, counts

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    ix._core = Blind()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"best is 0\.1000, with ef = 10 of 300 rows"):
        ix.tune(sample.v2[1800:], k=10)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"queries": np.ones((0, 384))}, ValueError, "0 queries"),
        ({"queries": np.ones(384)}, ValueError, "1 queries"),
        ({"queries": np.ones((2, 3))}, upvec.DimensionError, "dim 3"),
        ({"k": 0}, ValueError, "k = 0"),
        ({"k": 1.5}, TypeError, "k must"),
        ({"target_recall": 0}, ValueError, "target_recall = 0"),
        ({"target_recall": 1.1}, ValueError, "target_recall = 1.1"),
        ({"target_recall": float("nan")}, ValueError, "target_recall = nan"),
        ({"target_recall": "high"}, ValueError, "target_recall = 'high'"),
    ],
)
def test_a_bad_argument_is_a_clear_error(
    sample: Sample, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    ix = filled(sample, 50)
    with pytest.raises(error) as info:
        ix.tune(**{"queries": sample.v2[:10], **arguments})
    assert words in str(info.value)


def test_an_empty_index_cannot_be_tuned(sample: Sample) -> None:
    with pytest.raises(ValueError, match="empty"):
        upvec.Index(384).tune(sample.v2[:10])
