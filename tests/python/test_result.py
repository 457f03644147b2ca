"""What calls give back: shapes, conversions, and what stands for null."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

import upvec
from upvec import Field, Outcome, Schema, UpsertResult, Vector
from upvec.result import Changed

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("n", "int64", nullable=True),
    Field("f", "float64", nullable=True),
    Field("t", "timestamp", nullable=True),
    Field("s", "string", nullable=True),
    Field("l", "list<int64>", nullable=True),
    Field("j", "json", nullable=True),
    Vector("v", 2, nullable=True),
)


@pytest.fixture
def col() -> upvec.Collection:
    collection = upvec.open(":memory:", SCHEMA)
    collection.upsert(
        [
            {"id": 1, "n": 5, "f": 0.5, "t": np.datetime64("2020-01-01"), "s": "x", "l": [1],
             "j": {"a": 1}, "v": [0, 1]},
            {"id": 2},
            {"id": 3, "v": [5, 5]},
        ]
    )  # fmt: skip
    return collection


def test_outcome_numbers_are_fixed() -> None:
    names = [
        "inserted",
        "updated",
        "unchanged",
        "skipped",
        "stale",
        "conflict",
        "rejected",
        "deleted",
    ]
    assert [Outcome[name].value for name in names] == list(range(8))


def test_counts_have_every_outcome() -> None:
    counts = UpsertResult.from_status(np.array([0, 0, 7], np.uint8)).counts
    assert (counts["inserted"], counts["deleted"], counts["stale"]) == (2, 1, 0)
    assert list(counts) == [outcome.name.lower() for outcome in Outcome]


def test_changed_holds_more_fields_than_a_byte_has_bits() -> None:
    masks = {f"f{i}": np.array([i % 3 == 0, i == 10]) for i in range(11)}
    changed = Changed.from_masks(2, masks)
    assert changed[0] == ("f0", "f3", "f6", "f9")
    assert changed[1] == ("f10",)
    assert changed == [("f0", "f3", "f6", "f9"), ("f10",)]
    assert changed.mask("f10").tolist() == [False, True]
    assert changed[1:][0] == ("f10",)
    assert Changed.from_masks(2, {})[1] == ()


def test_nulls_are_nan_nat_or_none_by_type(col: upvec.Collection) -> None:
    rows = col.get([1, 2])
    assert rows["n"].tolist() == [5, None]
    assert col.get([1])["n"].dtype == np.int64
    assert np.isnan(rows["f"][1])
    assert np.isnat(rows["t"][1])
    assert rows["s"].tolist() == ["x", None]
    assert np.isnan(rows["v"][1]).all()
    assert rows.null("v").tolist() == [False, True]
    assert rows.null("id").tolist() == [False, False]


def test_rows_keep_the_order_and_give_none_for_what_was_not_found(col: upvec.Collection) -> None:
    rows = col.get([3, 99, 1, 3])
    assert rows.found.tolist() == [True, False, True, True]
    dicts = rows.to_dicts()
    assert [row and row["id"] for row in dicts] == [3, None, 1, 3]
    assert dicts[2] == {
        "id": 1, "n": 5, "f": 0.5, "t": dt.datetime(2020, 1, 1), "s": "x",  # noqa: DTZ001
        "l": [1], "j": {"a": 1}, "v": dicts[2]["v"],
    }  # fmt: skip
    assert dicts[0]["v"].tolist() == [5, 5]
    assert dicts[0]["f"] is None
    assert rows.version.tolist() == [1, 0, 1, 1]
    assert rows[1] is None
    assert rows[-1]["id"] == 3
    assert len(rows[1:3]) == 2
    assert "1 not found" in repr(rows)
    assert ("n" in rows, "zz" in rows) == (True, False)
    with pytest.raises(IndexError):
        rows[4]


def test_what_is_read_may_be_changed_without_changing_the_collection(
    col: upvec.Collection,
) -> None:
    rows = col.get([1])
    rows["l"][0].append(9)
    rows["j"][0]["b"] = 9
    rows["n"][0] = rows["v"][0][0] = 9
    again = col[1]
    assert (again["l"], again["j"], again["n"], again["v"].tolist()) == ([1], {"a": 1}, 5, [0, 1])


def test_hits_are_flat_and_nearest_first(col: upvec.Collection) -> None:
    hits = col.search([0, 1], k=5)
    assert hits["id"].tolist() == [1, 3]
    assert hits["distance"].tolist() == hits.distances.tolist() == [0.0, 41.0]
    assert "query" not in hits
    assert hits[0]["s"] == "x"
    assert hits.counts.tolist() == [2]
    assert "v" not in hits
    assert col.search([0, 1], fields=["v"])["v"].tolist() == [[0, 1], [5, 5]]


def test_hits_of_several_queries_are_indexed_by_query(col: upvec.Collection) -> None:
    hits = col.search([[0, 1], [5, 5], [0, 0]], k=2)
    assert hits["query"].tolist() == [0, 0, 1, 1, 2, 2]
    assert hits[1]["id"].tolist() == [3, 1]
    assert hits[-1][0]["id"] == 1
    assert [row["id"] for row in hits[0]] == [1, 3]
    with pytest.raises(IndexError):
        hits[3]
    assert "of 3 queries" in repr(hits)


def test_data_frames_have_the_columns(col: upvec.Collection) -> None:
    frame = col.get([1, 2]).to_pandas()
    assert list(frame.columns) == list(SCHEMA.names)
    assert frame["s"].isna().tolist() == [False, True]
    hits = col.search([[0, 1], [5, 5]], k=1).to_pandas()
    assert hits["query"].tolist() == [0, 1]
