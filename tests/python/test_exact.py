"""Exact search: the same answers however the work is shared out, at every version."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import upvec

Floats = npt.NDArray[np.float32]
DIM = 48
ROWS = 9000  # 1.7 MB: two pieces for two threads


def normal(rows: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)


def truth(stored: dict[int, Floats], queries: Floats, k: int) -> npt.NDArray[np.int64]:
    keys = np.array(sorted(stored))
    rows = np.array([stored[key] for key in keys], dtype=np.float64)
    distances = ((queries[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    return np.asarray(keys[np.argsort(distances, axis=1, kind="stable")[:, :k]])


@pytest.fixture(scope="module")
def index() -> upvec.Index:
    ix = upvec.Index(DIM, M=4, ef_construction=8)
    ix.upsert(np.arange(ROWS), normal(ROWS, 0))
    return ix


@pytest.mark.parametrize("queries", [0, 1, 3, 17, 200])
@pytest.mark.parametrize("k", [1, 10, 1000, 20_000])
def test_threads_and_tiles_do_not_change_an_answer(
    index: upvec.Index, queries: int, k: int
) -> None:
    asked = normal(queries, 1) if queries else np.empty((0, DIM), np.float32)
    one, two, three = (index.exact_search(asked, k, threads=threads) for threads in (1, 2, 3))
    for other in (two, three):
        np.testing.assert_array_equal(one.keys, other.keys)
        np.testing.assert_array_equal(one.distances, other.distances)
    assert one.counts.tolist() == [min(k, ROWS)] * queries
    assert (np.diff(one.distances[:, : min(k, ROWS)], axis=1) >= 0).all()
    for query in range(0, queries, 50):
        alone = index.exact_search(asked[query], k, threads=2)
        np.testing.assert_array_equal(alone.keys[0], one.keys[query])


def test_every_version_is_shown_whole_and_a_filter_leaves_its_keys() -> None:
    vectors = normal(3000, 2)
    ix = upvec.Index(DIM, M=4, ef_construction=8)
    ix.upsert(np.arange(2000), vectors[:2000])
    model = dict(enumerate(vectors[:2000]))
    versions: list[tuple[Any, dict[int, Floats]]] = [(ix.snapshot(), dict(model))]
    moved = np.random.default_rng(3).permutation(2000)[:700]
    ix.upsert(moved, vectors[2000:2700])
    model.update(zip(moved.tolist(), vectors[2000:2700], strict=True))
    versions.append((ix.snapshot(), dict(model)))
    ix.remove(np.arange(0, 2000, 3))
    ix.upsert(np.arange(5000, 5300), vectors[2700:])  # in the slots of the removed ones
    model = {key: row for key, row in model.items() if key % 3}
    model.update(zip(range(5000, 5300), vectors[2700:], strict=True))
    versions.append((ix, model))
    queries = normal(20, 4)
    for reader, shown in versions:
        found = reader.exact_search(queries, 12, threads=2)
        np.testing.assert_array_equal(found.keys, truth(shown, queries, 12))
        allowed = sorted(shown)[::7]
        filtered = reader.exact_search(queries, 12, where=allowed)
        some = {key: shown[key] for key in allowed}
        np.testing.assert_array_equal(filtered.keys, truth(some, queries, 12))


def test_a_filter_does_not_allow_another_key_in_the_same_slot() -> None:
    ix = upvec.Index(DIM)
    ix.upsert(np.arange(100), normal(100, 5))
    compiled = ix.filter(np.arange(50))
    ix.remove(np.arange(50))
    ix.upsert(np.arange(200, 250), normal(50, 6))
    assert ix.exact_search(normal(3, 7), 10, where=compiled).counts.tolist() == [0, 0, 0]
