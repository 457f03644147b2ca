"""update_where: the same values for all rows that fulfil a condition, in one commit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import upvec
from upvec import Field, Schema, Vector, col

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("n", "int64", nullable=True, index=True),
    Field("tier", "string", default="plain"),
    Field("logins", "int64", default=0, merge=upvec.sum_()),
    Field("mail", "string", nullable=True, check=r".+@.+"),
    Vector("emb", 2, nullable=True),
    unique=[upvec.Unique("mail")],
)


def made(rows: int = 10) -> upvec.Collection:
    collection = upvec.open(":memory:", SCHEMA)
    ids = np.arange(rows)
    collection.upsert({"id": ids, "n": ids % 5, "emb": np.ones((rows, 2), np.float32)})
    return collection


def counts(result: upvec.UpsertResult) -> dict[str, int]:
    return {outcome: count for outcome, count in result.counts.items() if count}


def test_rows_that_fulfil_the_condition_are_changed_in_one_commit() -> None:
    collection = made()
    result = collection.update_where("n >= 3", {"tier": "gold", "n": None, "emb": [3, 4]})
    assert counts(result) == {"updated": 4}
    assert (result.seq, collection.seq) == (2, 2)
    assert result.key.tolist() == [3, 4, 8, 9]
    rows = collection.get([2, 3])
    assert rows["tier"].tolist() == ["plain", "gold"]
    assert rows.null("n").tolist() == [False, True]
    assert rows["emb"].tolist() == [[1, 1], [3, 4]]
    assert collection.search([3, 4], k=4)["id"].tolist() == [3, 4, 8, 9]


def test_values_are_written_by_the_merge_rules_of_their_fields() -> None:
    collection = made()
    collection.update_where("id < 2", {"logins": 5})
    collection.update_where(upvec.ALL, {"logins": 1})
    assert collection.get([0, 1, 2])["logins"].tolist() == [6, 6, 1]


def test_what_changes_nothing_makes_no_commit() -> None:
    collection = made()
    assert counts(collection.update_where("id < 3", {"tier": "plain"})) == {"unchanged": 3}
    assert counts(collection.update_where("n = 77", {"tier": "gold"})) == {}
    assert collection.seq == 1


def test_both_sides_of_each_row_are_returned_where_asked_for() -> None:
    collection = made()
    result = collection.update_where(col("id") == 4, {"tier": "x"}, returning=("old", "new"))
    assert result.old is not None
    assert result.new is not None
    assert (result.old["tier"].tolist(), result.new["tier"].tolist()) == (["plain"], ["x"])


@pytest.mark.parametrize(
    ("where", "values", "error", "match"),
    [
        ("id < 3", {}, ValueError, "wanted a dict by field"),
        ("id < 3", [("tier", "x")], ValueError, "wanted a dict by field"),
        ("id < 3", {"id": 9}, ValueError, "primary key"),
        ("id < 3", {"nothing": 9}, upvec.InvalidRowError, "nothing"),
        ("id < 3", {"n": "many"}, upvec.InvalidRowError, "int64"),
        ("id < 3", {"tier": None}, upvec.InvalidRowError, "null"),
        ("id < 3", {"mail": "no at"}, upvec.InvalidRowError, "mail"),
        ("id < 3", {"emb": [1, 2, 3]}, upvec.DimensionError, "3"),
        ("id < 3", {"mail": "a@b"}, upvec.ConflictError, "mail"),
        ("nothing < 3", {"n": 1}, upvec.ExpressionError, "nothing"),
        ("id < 'x'", {"n": 1}, upvec.ExpressionError, "id"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(
    where: str, values: Any, error: type[Exception], match: str
) -> None:
    collection = made()
    digest = collection.digest()
    with pytest.raises(error, match=match):
        collection.update_where(where, values)
    assert collection.digest() == digest


def test_a_unique_value_may_be_given_to_a_single_row() -> None:
    collection = made()
    collection.update_where("id = 3", {"mail": "a@b"})
    assert collection.get("a@b", on="mail")["id"].tolist() == [3]


def test_a_transaction_updates_by_condition_what_it_has_written() -> None:
    collection = made()
    with collection.transaction() as tx:
        tx.upsert([{"id": 50, "n": 4}])
        assert counts(tx.update_where("n = 4", {"tier": "gold"})) == {"updated": 3}
        assert collection.count("tier = 'gold'") == 0
    assert collection.count("tier = 'gold'") == 3


def test_what_it_did_is_there_after_opening_again(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as collection:
        collection.upsert([{"id": i, "n": i} for i in range(10)])
        collection.update_where("n > 6", {"tier": "gold"})
        digest = collection.digest()
    with upvec.open(tmp_path / "c") as again:
        assert again.digest() == digest
        assert again.count("tier = 'gold'") == 3


def test_concurrent_updates_see_each_other_whole() -> None:
    """Each takes all rows of one tier to the next: none is left behind, or taken twice."""
    collection = made(200)

    def promote() -> None:
        for _ in range(20):
            collection.update_where("logins >= 0", {"logins": 1})

    threads = [threading.Thread(target=promote) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(next(collection.scan())["logins"].tolist()) == {80}


def test_an_update_of_rows_takes_a_condition_on_both_sides() -> None:
    collection = made()
    rows = [{"id": 1, "n": 9}, {"id": 3, "n": 1}]
    result = collection.update(rows, where="new.n > old.n")
    assert counts(result) == {"updated": 1, "skipped": 1}
    assert collection.get([1, 3])["n"].tolist() == [9, 3]
    with collection.transaction() as tx:
        assert counts(tx.update([{"id": 3, "n": 0}], where="new.n > old.n")) == {"skipped": 1}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=8))
def test_it_does_what_a_dict_of_rows_does(steps: list[tuple[int, int]]) -> None:
    collection = made(12)
    model = {i: i % 5 for i in range(12)}
    for low, new in steps:
        result = collection.update_where(f"n >= {low}", {"n": new})
        wanted = {key for key, n in model.items() if n >= low}
        assert set(result.key.tolist()) == wanted
        model.update(dict.fromkeys(wanted, new))
        stored = next(collection.scan(fields=["id", "n"]))
        assert dict(zip(stored["id"].tolist(), stored["n"].tolist(), strict=True)) == model
