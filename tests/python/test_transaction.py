"""Transactions beside other writers, and plans that are committed too late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import ConflictError, Field, InvalidRowError, Schema, Unique, Vector

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("email", "string", nullable=True),
    Field("bio", "string", default=""),
    Field("n", "int64", default=0, merge=upvec.sum_()),
    Vector("emb", 2, source="bio"),
    unique=[Unique("email")],
)


@pytest.fixture
def col() -> upvec.Collection:
    made = upvec.open(":memory:", SCHEMA)
    made.upsert([{"id": key, "email": f"{key}@x", "emb": [i, 0]} for i, key in enumerate("abcd")])
    return made


def test_a_transaction_sees_its_own_writes_and_nobody_else_does(col: upvec.Collection) -> None:
    with col.transaction() as tx:
        tx.upsert([{"id": "e", "emb": [1.1, 0]}, {"id": "c", "emb": [9, 9]}])
        tx.delete("d")
        for exact in (False, True):
            assert tx.search([1.2, 0], k=2, exact=exact)["id"].tolist() == ["e", "b"]
        assert tx.search([1, 0], k=None, radius=0.1)["id"].tolist() == ["b", "e"]
        assert col.search([1.2, 0], k=2)["id"].tolist() == ["b", "c"]
        assert (len(tx), len(col), "d" in tx, "d" in col) == (4, 4, False, True)
    assert col.seq == 2
    assert sorted(col.scan().__next__()["id"].tolist()) == ["a", "b", "c", "e"]


def test_many_changes_are_excluded_from_searches_too(col: upvec.Collection) -> None:
    points = np.arange(600, dtype=np.float32)
    rows = [{"id": f"k{i}", "emb": [p, 1]} for i, p in enumerate(points.tolist())]
    col.upsert(rows)
    with col.transaction() as tx:
        tx.upsert([{"id": f"k{i}", "emb": [-p, 5]} for i, p in enumerate(points.tolist())])
        assert tx.search([300, 1], k=1, where="id != 'd'")["id"].tolist() == ["c"]
        assert tx.search([-300, 5], k=1)["id"].tolist() == ["k300"]


BESIDE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "the same row": (
        lambda tx: tx.upsert([{"id": "a", "n": 1}]),
        lambda col: col.upsert([{"id": "a", "n": 1}]),
    ),
    "a row deleted": (
        lambda tx: tx.upsert([{"id": "a", "n": 1}]),
        lambda col: col.delete("a"),
    ),
    "a row deleted by both": (lambda tx: tx.delete("a"), lambda col: col.delete("a")),
    "the same new key": (
        lambda tx: tx.upsert([{"id": "new", "emb": [0, 0]}]),
        lambda col: col.upsert([{"id": "new", "emb": [0, 1]}]),
    ),
    "the same unique value": (
        lambda tx: tx.upsert([{"id": "new", "email": "z@x", "emb": [0, 0]}]),
        lambda col: col.upsert([{"id": "b", "email": "z@x"}]),
    ),
    "a key that was missing": (
        lambda tx: tx.upsert([{"id": "new"}], policy=upvec.Policy("update_only")),
        lambda col: col.upsert([{"id": "new", "emb": [0, 1]}]),
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_of_two_that_conflict_the_second_changes_nothing(case: str, col: upvec.Collection) -> None:
    inside, outside = BESIDE[case]
    digests = []

    def conflict() -> None:
        with col.transaction() as tx:
            inside(tx)
            outside(col)
            digests.append(col.digest())

    with pytest.raises(ConflictError, match="nothing was written"):
        conflict()
    assert [col.digest()] == digests


def test_writers_of_other_rows_do_not_disturb(col: upvec.Collection) -> None:
    with col.transaction() as tx:
        result = tx.upsert([{"id": "a", "n": 1}, {"id": "new", "emb": [0, 0]}])
        col.upsert([{"id": "b", "n": 1}, {"id": "other", "emb": [0, 0]}])
    assert result.version.tolist() == [3, 3]
    assert result.seq == col.seq == 3
    assert len(col) == 6


def test_counters_raced_by_transactions_lose_nothing(col: upvec.Collection) -> None:
    def add() -> None:
        done = 0
        while done < 10:
            try:
                with col.transaction() as tx:
                    tx.upsert([{"id": "a", "n": 1}])
            except ConflictError:
                continue
            done += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert col["a"]["n"] == 40


def test_an_exception_leaves_nothing_behind(col: upvec.Collection) -> None:
    digest = col.digest()
    tx = col.transaction()

    def fail() -> None:
        with tx:
            tx.upsert([{"id": "a", "n": 1}])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert col.digest() == digest
    with pytest.raises(upvec.ClosedError):
        tx.upsert([{"id": "a", "n": 1}])


def test_a_savepoint_takes_back_keys_vectors_and_fields(col: upvec.Collection) -> None:
    with col.transaction() as tx:
        point = tx.savepoint()
        tx.upsert([{"id": "e", "email": "e@x", "emb": [5, 5]}, {"id": "a", "emb": [7, 7]}])
        tx.delete("b")
        tx.rollback(point)
        assert tx.upsert([{"id": "e", "emb": [1, 1]}]).status.tolist() == [upvec.Outcome.INSERTED]
        assert tx["a"]["emb"].tolist() == [0, 0]
        assert "b" in tx
        tx.upsert([{"id": "f", "email": "e@x", "emb": [1, 1]}])
    assert len(col) == 6


def test_a_plan_names_what_is_stale_and_takes_it(col: upvec.Collection) -> None:
    rows = [{"id": "a", "bio": "x"}, {"id": "b", "n": 1}, {"id": "e", "bio": "y"}]
    digest = col.digest()
    plan = col.upsert(rows, dry_run=True)
    assert plan.stale("emb")["id"].tolist() == ["a", "e"]
    with pytest.raises(InvalidRowError, match=r"commit\(emb=...\)"):
        plan.commit()
    with pytest.raises(InvalidRowError, match="got 1 vectors for 2 stale rows"):
        plan.commit(emb=[[1, 1]])
    assert col.digest() == digest
    result = plan.commit(emb=[[5, 5], [6, 6]])
    assert result.counts["updated"] == 2
    assert (col["a"]["emb"].tolist(), col["e"]["emb"].tolist()) == ([5, 5], [6, 6])
    with pytest.raises(ConflictError, match="already"):
        plan.commit(emb=[[5, 5], [6, 6]])


@pytest.mark.parametrize("change", ["touched", "came"])
def test_a_plan_is_void_when_what_it_saw_has_changed(change: str, col: upvec.Collection) -> None:
    plan = col.upsert([{"id": "a", "n": 1}, {"id": "e", "emb": [0, 0]}], dry_run=True)
    col.upsert([{"id": "a", "n": 1}] if change == "touched" else [{"id": "e", "emb": [1, 1]}])
    digest = col.digest()
    with pytest.raises(ConflictError, match="nothing was written"):
        plan.commit()
    assert col.digest() == digest
