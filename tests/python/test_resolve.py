"""Matching, duplicates in a batch, and unique keys in the state that a whole batch gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import upvec
from upvec import ConflictError, DuplicateKeyError, Field, InvalidRowError, Policy, Schema, Unique

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("email", "string", nullable=True),
    Field("tenant", "string", default="t"),
    Field("name", "string", nullable=True),
    Field("n", "int64", default=0),
    unique=[Unique("email"), Unique("tenant", "name", name="handle")],
)
DROP = Policy(atomic=False)


@pytest.fixture
def col() -> upvec.Collection:
    collection = upvec.open(":memory:", SCHEMA)
    collection.upsert(
        [
            {"id": 1, "email": "a", "name": "ada"},
            {"id": 2, "email": "b", "name": "bob"},
            {"id": 3},
        ]
    )
    return collection


def names(result: upvec.UpsertResult) -> list[str]:
    return [upvec.Outcome(status).name.lower() for status in result.status]


def emails(col: upvec.Collection) -> dict[int, Any]:
    return {row["id"]: row["email"] for rows in col.scan() for row in rows}


def test_rows_match_on_the_primary_key_a_unique_or_a_composite(col: upvec.Collection) -> None:
    assert names(col.upsert([{"id": 1, "n": 5}, {"id": 9}])) == ["updated", "inserted"]
    result = col.upsert([{"email": "b", "n": 6}], on="email")
    assert (names(result), result.key.tolist()) == (["updated"], [2])
    result = col.upsert([{"tenant": "t", "name": "ada", "n": 7}], on="handle")
    assert (names(result), result.key.tolist()) == (["updated"], [1])
    assert [row["n"] for row in col.get([1, 2])] == [7, 6]


def test_null_in_a_unique_key_matches_nothing(col: upvec.Collection) -> None:
    rows = [{"id": 8, "email": None}, {"id": 9, "email": None}]
    assert names(col.upsert(rows, on="email")) == ["inserted", "inserted"]
    rows = [{"id": 10, "tenant": "t", "name": None}]
    assert names(col.upsert(rows, on="handle")) == ["inserted"]
    with pytest.raises(InvalidRowError, match="a new row needs its primary key") as caught:
        col.upsert([{"email": "b"}, {"email": None}], on="email")
    assert caught.value.rows == (1,)


def test_a_row_must_mention_its_key(col: upvec.Collection) -> None:
    with pytest.raises(InvalidRowError, match="row 1, field 'name'") as caught:
        col.upsert([{"tenant": "t", "name": "x", "id": 7}, {"tenant": "t", "id": 8}], on="handle")
    assert caught.value.rows == (1,)
    with pytest.raises(InvalidRowError):
        col.upsert([{"n": 1}])


def test_duplicates_are_found_after_matching_and_among_new_rows(col: upvec.Collection) -> None:
    rows = [{"id": 1, "n": 1}, {"id": 7, "n": 1}, {"id": 1, "n": 2}, {"id": 7, "n": 2}]
    with pytest.raises(DuplicateKeyError, match=r"key 1|1 in rows") as caught:
        col.upsert(rows)
    assert (caught.value.keys, caught.value.rows) == ((1, 7), (0, 1, 2, 3))
    first = col.upsert(rows, duplicates="first")
    assert names(first) == ["updated", "inserted", "skipped", "skipped"]
    assert first.reason.tolist() == [None, None, "duplicate", "duplicate"]
    assert first.detail[2] == "row 0 has the same key"
    last = col.upsert(rows, duplicates="last")
    assert names(last) == ["skipped", "skipped", "updated", "updated"]
    assert [row["n"] for row in col.get([1, 7])] == [2, 2]


def test_the_loser_of_duplicates_gives_nothing_to_the_winner(col: upvec.Collection) -> None:
    rows = [{"id": 1, "email": "new"}, {"id": 1, "n": 4}]
    col.upsert(rows, duplicates="last")
    assert (col[1]["email"], col[1]["n"]) == ("a", 4)


def test_two_rows_may_swap_their_unique_values(col: upvec.Collection) -> None:
    col.upsert([{"id": 1, "email": "b"}, {"id": 2, "email": "a"}])
    assert emails(col) == {1: "b", 2: "a", 3: None}
    assert col.get(["a", "b"], on="email")["id"].tolist() == [2, 1]


def test_a_value_may_move_along_a_chain_of_rows(col: upvec.Collection) -> None:
    rows = [{"id": 1, "email": None}, {"id": 2, "email": "a"}, {"id": 4, "email": "b"}]
    col.upsert(rows)
    assert emails(col) == {1: None, 2: "a", 3: None, 4: "b"}
    assert col.get(["a", "b"], on="email")["id"].tolist() == [2, 4]


def test_a_value_that_is_held_is_rejected_and_both_are_named(col: upvec.Collection) -> None:
    with pytest.raises(ConflictError, match=r"row 1 \(key 3\): email 'a' is held by the row .* 1"):
        col.upsert([{"id": 4}, {"id": 3, "email": "a"}])
    with pytest.raises(ConflictError, match=r"handle \('t', 'bob'\) is held by the row with key 2"):
        col.upsert([{"id": 1, "name": "bob"}])
    result = col.upsert([{"id": 4}, {"id": 3, "email": "a"}], policy=DROP)
    assert names(result) == ["inserted", "rejected"]
    assert result.reason.tolist() == [None, "unique"]
    assert result.version.tolist() == [2, 1]


def test_a_part_of_a_composite_key_may_change_alone(col: upvec.Collection) -> None:
    col.upsert([{"id": 2, "tenant": "u"}])
    assert col.get(("u", "bob"), on="handle")["id"].tolist() == [2]
    assert not col.get(("t", "bob"), on="handle").found[0]
    col.upsert([{"id": 1, "name": "bob"}])
    with pytest.raises(ConflictError, match="handle"):
        col.upsert([{"id": 2, "tenant": "t"}])


def test_two_new_rows_may_not_claim_one_value(col: upvec.Collection) -> None:
    rows = [{"id": 5, "email": "n"}, {"id": 6, "email": "n"}, {"id": 7, "email": "n"}]
    with pytest.raises(ConflictError, match="also claimed by row 0") as caught:
        col.upsert(rows)
    assert names(caught.value.result) == ["inserted", "rejected", "rejected"]
    assert names(col.upsert(rows, policy=DROP)) == ["inserted", "rejected", "rejected"]
    assert emails(col)[5] == "n"


def test_rejecting_a_row_takes_back_what_it_would_have_given_up(col: upvec.Collection) -> None:
    # 1 may not take "x" (twice claimed), so it keeps "a", so 3 may not have "a".
    rows = [{"id": 5, "email": "x"}, {"id": 1, "email": "x"}, {"id": 3, "email": "a"}]
    result = col.upsert(rows, policy=DROP)
    assert names(result) == ["inserted", "rejected", "rejected"]
    assert emails(col) == {1: "a", 2: "b", 3: None, 5: "x"}


def test_the_next_claimant_takes_the_place_of_a_rejected_one(col: upvec.Collection) -> None:
    rows = [
        {"id": 5, "email": "x", "name": "bob"},  # the name is held
        {"id": 6, "email": "x"},
        {"id": 7, "email": "x"},
    ]
    result = col.upsert(rows, policy=DROP)
    assert names(result) == ["rejected", "inserted", "rejected"]
    assert emails(col)[6] == "x"


def test_matching_on_a_unique_checks_the_primary_key_too(col: upvec.Collection) -> None:
    with pytest.raises(ConflictError, match=r"primary key cannot change: email matches .* id 1"):
        col.upsert([{"id": 5, "email": "a"}], on="email")
    with pytest.raises(ConflictError, match="id 2 is held"):
        col.upsert([{"id": 2, "email": "new"}], on="email")
    with pytest.raises(ConflictError, match="id 5 is also claimed by row 0"):
        col.upsert([{"id": 5, "email": "p"}, {"id": 5, "email": "q"}], on="email")
    result = col.upsert([{"id": 2, "email": "new"}, {"id": 1, "email": "a", "n": 1}],
                        on="email", policy=DROP)  # fmt: skip
    assert names(result) == ["rejected", "updated"]


def test_a_deleted_row_frees_its_keys(col: upvec.Collection) -> None:
    col.delete([1])
    assert names(col.upsert([{"id": 7, "email": "a", "name": "ada"}])) == ["inserted"]
    assert col.get("a", on="email")["id"].tolist() == [7]
    assert not col.get([1]).found[0]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string", ["a", "é" * 50]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("bool", [True, False]),
        ("timestamp", [np.datetime64("1900-01-01"), np.datetime64("2021-01-01")]),
        ("bytes", [b"", b"\x00\xff"]),
    ],
)
def test_key_types_all_work_as_unique_keys(kind: str, values: list[Any]) -> None:
    schema = Schema(Field("id", "int64", primary=True), Field("k", kind), unique=[Unique("k")])
    col = upvec.open(":memory:", schema)
    col.upsert({"id": [1, 2], "k": values})
    assert col.get(values[::-1], on="k")["id"].tolist() == [2, 1]
    assert names(col.upsert({"id": [2], "k": values[1:]}, on="k")) == ["unchanged"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"duplicates": ["last"]}, ValueError),
        ({"policy": ["merge"]}, ValueError),
        ({"on": ["id"]}, upvec.SchemaError),
        ({"on": {}}, upvec.SchemaError),
    ],
)
def test_an_argument_of_another_type_is_told_by_name(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    collection = upvec.open(":memory:", Schema(Field("id", "int64", primary=True)))
    (name,) = arguments
    with pytest.raises(error, match=f"{name}="):
        collection.upsert([{"id": 1}], **arguments)
    assert len(collection) == 0
