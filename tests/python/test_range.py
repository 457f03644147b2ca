"""Range search against the exact one, on real embeddings: by the graph, and by a scan."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import upvec
from upvec.sample import Sample

Floats = npt.NDArray[np.float32]
ROWS = 1800


def filled(sample: Sample, **options: Any) -> upvec.Index:
    ix = upvec.Index(384, **{"metric": "cosine", **options})
    ix.upsert(np.arange(ROWS), sample.v1[:ROWS])
    return ix


def radius_for(reader: Any, queries: Floats, mean_hits: float) -> float:
    """The radius within which the queries find so many on average."""
    distances = np.sort(reader.exact_search(queries, ROWS).distances.ravel())
    return float(distances[round(mean_hits * len(queries))])


def recall(reader: Any, queries: Floats, radius: float, **options: Any) -> float:
    """Share of what is within the radius that is found; what is found must be within it."""
    found = reader.range_search(queries, radius, **options)
    exact = reader.exact_search(queries, ROWS, where=options.get("where"))
    hits = wanted = 0
    for query in range(len(queries)):
        keys, distances = found[query]
        within = exact.distances[query] <= radius
        truth = dict(zip(exact.keys[query][within], exact.distances[query][within], strict=True))
        assert len(set(keys.tolist())) == len(keys)
        assert (np.diff(distances) >= 0).all()
        assert [truth[key] for key in keys] == distances.tolist()
        hits += len(keys)
        wanted += len(truth)
    return hits / wanted if wanted else 1.0


@pytest.mark.parametrize("codes", ["int8", "none"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_all_but_one_in_a_hundred_within_the_radius_are_found(
    sample: Sample, metric: str, codes: str
) -> None:
    ix = filled(sample, metric=metric, codes=codes)
    queries = sample.v2[ROWS:]
    assert len(ix.range_search(queries, -10.0).keys) == 0
    for mean_hits in (0.02, 1, 10, 50, 600):
        radius = radius_for(ix, queries, mean_hits)
        assert recall(ix, queries, radius) >= 0.99
    assert recall(ix, queries, radius_for(ix, queries, 400), threads=3) >= 0.999  # most by a scan
    assert recall(ix, queries, 1e30) == 1.0
    assert recall(ix, queries, float("inf")) == 1.0


def test_a_single_query_finds_what_it_finds_in_a_batch(sample: Sample) -> None:
    ix = filled(sample)
    queries = sample.v2[ROWS : ROWS + 20]
    for radius in (radius_for(ix, queries, hits) for hits in (5, 500)):
        batch = ix.range_search(queries, radius)
        for i, query in enumerate(queries):
            alone = ix.range_search(query, radius, threads=2)
            np.testing.assert_array_equal(alone.keys, batch[i][0])


def test_a_snapshot_keeps_its_ranges_while_rows_move_and_go(sample: Sample) -> None:
    ix = filled(sample)
    queries = sample.v2[ROWS : ROWS + 60]
    versions = [ix.snapshot()]
    ix.upsert(np.arange(40), sample.v2[:40])  # few: by the graph and the change log
    versions.append(ix.snapshot())
    ix.remove(np.arange(100, 140))
    ix.upsert(np.arange(5000, 5030), sample.v2[100:130])
    versions.append(ix.snapshot())
    ix.upsert(np.arange(200, 1500), sample.v2[200:1500])  # many: by a scan
    for version in (*versions, ix):
        for mean_hits in (1, 20, 400):
            assert recall(version, queries, radius_for(version, queries, mean_hits)) >= 0.99


def test_readers_find_what_an_unpublished_commit_moves(sample: Sample) -> None:
    ix = filled(sample)
    queries = sample.v2[ROWS : ROWS + 60]
    radii = [radius_for(ix, queries, hits) for hits in (1, 20)]
    before = [ix.range_search(queries, radius) for radius in radii]
    for moved in (50, 1200):
        ix._core.upsert(np.arange(moved), sample.v2[:moved], publish=False)
        for radius, old in zip(radii, before, strict=True):
            now = ix.range_search(queries, radius)
            assert len(now.keys) >= 0.99 * len(old.keys)
            assert recall(ix, queries, radius) >= 0.99


def test_a_filter_leaves_only_its_keys_within_the_radius(sample: Sample) -> None:
    ix = filled(sample)
    queries = sample.v2[ROWS:]
    radius = radius_for(ix, queries, 30)
    for allowed in (np.arange(3), np.arange(0, ROWS, 5), np.arange(ROWS - 10)):
        assert recall(ix, queries, radius, where=allowed) >= 0.99
    assert len(ix.range_search(queries, radius, where=[]).keys) == 0


def test_rows_that_codes_cannot_tell_apart_are_all_found(sample: Sample) -> None:
    ix = filled(sample)
    place = sample.v1[:1] + np.random.default_rng(0).normal(scale=1e-5, size=(900, 384))
    ix.upsert(np.arange(10_000, 10_900), place.astype(np.float32))
    ix.upsert(np.arange(20_000, 30_000), np.repeat(sample.v2[1:1001], 10, axis=0))
    within = int((ix.exact_search(sample.v1[0], 1000).distances <= 1e-4).sum())
    assert within >= 900
    assert len(ix.range_search(sample.v1[0], 1e-4).keys) >= 0.99 * within
