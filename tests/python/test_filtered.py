"""Filtered search of a collection: hits fulfil the condition, and are the nearest that do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import upvec
from upvec import Field, Schema, Vector

ROWS, DIM = 12_000, 16
_draw = np.random.default_rng(4)
VECTORS: npt.NDArray[np.float32] = _draw.standard_normal((ROWS, DIM), dtype=np.float32)
RANK = _draw.permutation(ROWS)


def schema(*, index: bool) -> Schema:
    return Schema(
        Field("id", "int64", primary=True),
        Field("rank", "int64", index=index),
        Field("heap", "string", index=index),
        Field("tags", "list<string>", index=index, nullable=True),
        Vector("emb", DIM, metric="l2", nullable=True),
    )


def filled(*, index: bool, path: str = ":memory:") -> upvec.Collection:
    col = upvec.open(path, schema(index=index))
    near = np.square(VECTORS - VECTORS[0]).sum(axis=1).argsort().argsort()
    col.upsert(
        {
            "id": np.arange(ROWS),
            "rank": RANK,
            "heap": ["near" if at < ROWS // 4 else "far" for at in near.tolist()],
            "tags": [[f"t{at % 7}", f"t{at % 11}"] for at in range(ROWS)],
            "emb": VECTORS,
        }
    )
    return col


@pytest.fixture(scope="module", params=[True, False], ids=["indexed", "plain"])
def col(request: pytest.FixtureRequest) -> Iterator[upvec.Collection]:
    with filled(index=request.param) as made:
        yield made


CONDITIONS = [
    f"rank < {ROWS}",
    f"rank < {ROWS // 2}",
    f"rank < {ROWS // 10}",
    f"rank < {ROWS // 50}",
    f"rank < {ROWS // 1000}",
    "rank = 17",
    "rank < 0",
    "heap = 'far'",
    "heap = 'near' and rank >= 6000",
    "not heap = 'near' or 't3' in tags",
]


@pytest.mark.parametrize("where", CONDITIONS)
def test_hits_are_the_nearest_that_fulfil_the_condition(col: upvec.Collection, where: str) -> None:
    queries = VECTORS[_draw.choice(ROWS, 20)] + 0.05
    fulfil = (
        {row["id"] for row in col.scan(where=where).__next__().to_dicts()}
        if col.count(where)
        else set()
    )
    found = col.search(queries, 10, where=where, fields=["id"])
    exact = col.search(queries, 10, where=where, fields=["id"], exact=True)
    assert set(found["id"].tolist()) <= fulfil
    assert exact.counts.tolist() == [min(10, len(fulfil))] * 20
    assert found.counts.tolist() == exact.counts.tolist()
    for query in range(20):
        ids = np.fromiter(fulfil, dtype=np.int64, count=len(fulfil))
        truth = np.sort(np.square(VECTORS[ids] - queries[query]).sum(axis=1))[:10]
        np.testing.assert_allclose(exact[query].distances, truth, rtol=1e-4)
    close = np.isclose(found.distances, exact.distances, rtol=1e-4)
    assert close.mean() >= 0.95 if len(close) else True


@pytest.mark.parametrize("where", CONDITIONS)
def test_a_radius_keeps_to_the_condition(col: upvec.Collection, where: str) -> None:
    query = VECTORS[5]
    radius = float(np.partition(np.square(VECTORS - query).sum(axis=1), 300)[300])
    found = col.search(query, None, radius=radius, where=where, fields=["id"])
    exact = col.search(query, None, radius=radius, where=where, fields=["id"], exact=True)
    assert set(found["id"].tolist()) <= set(exact["id"].tolist())
    assert len(found) >= 0.95 * len(exact)


def test_explain_says_what_was_chosen_and_why(col: upvec.Collection) -> None:
    few = col.search(VECTORS[0], 10, where="rank < 120", explain=True).plan
    assert few is not None
    assert (few.field, few.way, few.rows, few.allowed) == ("emb", "scan", ROWS, 120)
    assert few.selectivity == pytest.approx(0.01)
    assert min(few.costs, key=few.costs.__getitem__) == "scan"
    assert "120 rows" in few.conditions[0]
    assert "rank < 120" in str(few)
    assert "1%" in str(few)
    all_of_them = col.search(VECTORS[0], 10, explain=True).plan
    assert all_of_them is not None
    assert (all_of_them.way, all_of_them.allowed, all_of_them.conditions) == ("graph", ROWS, ())
    exact = col.search(VECTORS[0], 10, where="rank < 120", exact=True, explain=True).plan
    assert exact is not None
    assert exact.way == "exact"
    most = col.search(VECTORS[0], 10, where=f"rank < {ROWS - 10}", explain=True).plan
    assert most is not None
    assert most.way == "walk_all"
    assert col.search(VECTORS[0], 10, where="rank < 120").plan is None
    several = col.search(VECTORS[:3], 10, where="rank < 120", explain=True)
    assert several[1].plan is several.plan


def test_a_condition_on_a_null_vector(tmp_path: Path) -> None:
    with filled(index=True, path=str(tmp_path / "c")) as col:
        gone = np.arange(0, ROWS, 3)
        col.upsert({"id": gone, "emb": [None] * len(gone)})
        found = col.search(VECTORS[:9], 10, where="rank < 6000", fields=["id"])
        assert not set(found["id"].tolist()) & set(gone.tolist())
        assert found.counts.tolist() == [10] * 9
        assert col.search(VECTORS[0], 10, where="emb is null", fields=["id"]).counts.tolist() == [0]
        # And with slots that others have taken since then.
        with col.snapshot() as before:
            want = before.search(VECTORS[:9], 10, where="rank < 300", exact=True)
            col.delete(np.arange(1, ROWS, 3))
            col.upsert({"id": gone, "emb": VECTORS[gone]})
            got = before.search(VECTORS[:9], 10, where="rank < 300")
            assert got["id"].tolist() == want["id"].tolist()
            got = before.search(VECTORS[:9], 10, where="rank < 301")
            assert len(set(got["id"].tolist()) & set(gone.tolist())) == 0


def test_a_transaction_sees_its_own_rows_under_a_condition() -> None:
    with filled(index=True) as col, col.transaction() as tx:
        tx.upsert([{"id": ROWS, "rank": -5, "heap": "near", "emb": VECTORS[7]}])
        assert tx.search(VECTORS[7], 1, where="rank < 0")["id"].tolist() == [ROWS]
        assert col.search(VECTORS[7], 1, where="rank < 0")["id"].tolist() == []


@pytest.mark.parametrize("index", [True, False])
def test_filtered_reads_beside_a_writer_see_one_version(index: bool) -> None:
    """Every commit moves all rows of one generation to the next: no search may see two."""
    rows, rounds = 2_000, 5
    made = schema(index=index)
    vectors = VECTORS[:rows]
    wrong: list[Any] = []
    found: list[bool] = []
    done = threading.Event()
    with upvec.open(":memory:", made) as col:
        ids = np.arange(rows)

        def write(generation: int) -> None:
            col.upsert(
                {
                    "id": ids,
                    "rank": np.full(rows, generation),
                    "heap": [f"g{generation}"] * rows,
                    "emb": vectors + generation,
                }
            )

        def read(seed: int) -> None:
            draw = np.random.default_rng(seed)
            try:
                while not done.is_set():
                    with col.snapshot() as snap:
                        generation = int(snap.get([0], fields=["rank"])["rank"][0])
                        where = [f"rank = {generation}", f"heap = 'g{generation}' and id < 1500"]
                        one = where[int(draw.integers(2))]
                        at = int(draw.integers(1500))
                        query = vectors[at] + generation
                        hits = snap.search(query, 3, where=one)
                        held = vectors[hits["id"]] + generation
                        truth = np.square(held - query).sum(axis=1)
                        np.testing.assert_allclose(hits.distances, truth, rtol=1e-3, atol=1e-3)
                        found.append(hits["id"][0] == at)
                        assert set(hits["rank"].tolist()) == {generation}
                        assert snap.count(f"rank != {generation}") == 0
                        assert snap.count(one) in {rows, 1500}
            except BaseException as error:
                wrong.append(error)
                raise

        write(0)
        readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
        for reader in readers:
            reader.start()
        for generation in range(1, rounds):
            write(generation)
        done.set()
        for reader in readers:
            reader.join()
    assert not wrong, wrong[0]
    assert np.mean(found) >= 0.97, (np.mean(found), len(found))
