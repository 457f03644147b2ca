"""What each policy writes, and what counts as a change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import upvec
from upvec import Field, InvalidRowError, Outcome, Policy, Schema, Vector

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("name", "string", nullable=True),
    Field("bio", "string", default="none"),
    Field("need", "int64"),
    Field("x", "float64", nullable=True),
    Field("doc", "json", nullable=True),
    Field("tags", "list<string>", nullable=True),
    Vector("emb", 2, nullable=True),
)
STORED = {"id": "a", "name": "ada", "bio": "b", "need": 1, "x": 0.5, "doc": {"k": 1},
          "tags": ["t"], "emb": [1, 2]}  # fmt: skip


@pytest.fixture
def col() -> upvec.Collection:
    collection = upvec.open(":memory:", SCHEMA)
    collection.upsert([STORED])
    return collection


def plain(col: upvec.Collection, key: str = "a") -> dict[str, Any]:
    row = col[key]
    return {**row, "emb": None if row["emb"] is None else row["emb"].tolist()}


def only(result: upvec.UpsertResult) -> tuple[str, tuple[str, ...]]:
    return upvec.Outcome(result.status[0]).name.lower(), result.changed[0]


def test_merge_writes_what_is_present_and_keeps_the_rest(col: upvec.Collection) -> None:
    assert only(col.upsert({"id": "a", "need": 2, "name": None})) == ("updated", ("name", "need"))
    assert plain(col) == {**STORED, "need": 2, "name": None}


def test_replace_sets_what_is_absent_to_its_default_or_null(col: upvec.Collection) -> None:
    outcome, changed = only(col.upsert({"id": "a", "need": 1}, policy="replace"))
    assert (outcome, changed) == ("updated", ("name", "bio", "x", "doc", "tags", "emb"))
    assert plain(col) == {**dict.fromkeys(STORED), "id": "a", "bio": "none", "need": 1}
    assert len(col.search([1, 2])) == 0
    assert only(col.upsert({"id": "a", "need": 1}, policy="replace")) == ("unchanged", ())


def test_a_needed_field_that_is_absent_is_refused(col: upvec.Collection) -> None:
    for rows, policy in (({"id": "new"}, "merge"), ({"id": "a"}, "replace")):
        with pytest.raises(InvalidRowError, match="field 'need': got nothing") as caught:
            col.upsert(rows, policy=policy)
        assert (caught.value.rows, caught.value.field) == ((0,), "need")
    assert only(col.upsert({"id": "a"})) == ("unchanged", ())


def test_keep_leaves_stored_rows_alone(col: upvec.Collection) -> None:
    result = col.upsert([{"id": "a", "need": 9}, {"id": "b", "need": 9}], policy="keep")
    assert result.status.tolist() == [upvec.Outcome.skipped, upvec.Outcome.inserted]
    assert result.reason.tolist() == ["exists", None]
    assert result.version.tolist() == [1, 2]
    assert plain(col) == STORED


def test_fill_writes_only_where_the_stored_value_is_null(col: upvec.Collection) -> None:
    col.upsert({"id": "b", "need": 1})
    row = {"name": "n", "bio": "other", "need": 5, "emb": [3, 4]}
    result = col.upsert([{"id": "a", **row}, {"id": "b", **row}], policy="fill")
    assert result.changed == [(), ("name", "emb")]
    assert plain(col) == STORED
    assert plain(col, "b")["bio"] == "none"
    assert plain(col, "b")["emb"] == [3, 4]


def test_only_limits_what_is_written_to_stored_rows_not_to_new_ones(col: upvec.Collection) -> None:
    row = {"name": "n", "need": 5, "emb": [3, 4]}
    rows = [{"id": "a", **row}, {"id": "b", **row}]
    result = col.upsert(rows, policy=Policy(only=["need"]))
    assert result.changed[0] == ("need",)
    assert plain(col) == {**STORED, "need": 5}
    assert plain(col, "b")["name"] == "n"
    col.upsert({"id": "a", "need": 5}, policy=Policy(only=["bio"], absent="default"))
    assert plain(col) == {**STORED, "need": 5, "bio": "none"}


def test_update_only_leaves_new_rows_out(col: upvec.Collection) -> None:
    rows = [{"id": "a", "need": 2}, {"id": "b", "need": 2}]
    result = col.upsert(rows, policy=Policy("update_only"))
    assert result.status.tolist() == [upvec.Outcome.updated, upvec.Outcome.skipped]
    assert (result.reason[1], result.version.tolist(), "b" in col) == ("missing", [2, 0], False)


def test_what_is_equal_is_unchanged_and_bumps_no_version(col: upvec.Collection) -> None:
    again = {**STORED, "doc": {"k": 1}, "emb": np.array([1, 2], np.float64)}
    result = col.upsert(again)
    assert (only(result), result.seq, result.version.tolist()) == (("unchanged", ()), 1, [1])
    col.upsert({"id": "a", "x": float("nan")})
    assert only(col.upsert({"id": "a", "x": float("nan")}))[0] == "unchanged"


def test_each_field_reports_its_own_change(col: upvec.Collection) -> None:
    changes = {"name": "z", "bio": "z", "need": 7, "x": 7.5, "doc": [1], "tags": [], "emb": [0, 0]}
    for name, value in changes.items():
        assert only(col.upsert({"id": "a", name: value})) == ("updated", (name,))
        assert only(col.upsert({"id": "a", name: value})) == ("unchanged", ())
    assert plain(col) == {"id": "a", **changes}
    for name in ("name", "x", "doc", "tags", "emb"):
        assert only(col.upsert({"id": "a", name: None})) == ("updated", (name,))
        assert only(col.upsert({"id": "a", name: None})) == ("unchanged", ())


def test_an_update_without_vectors_does_not_touch_the_vector_index(
    col: upvec.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = col._engine.indexes["emb"]
    digest, snapshot = index.digest(), col._published.snapshots["emb"]
    assert only(col.upsert({"id": "a", "need": 8, "emb": [1, 2]})) == ("updated", ("need",))
    col.upsert({"id": "a", "bio": "z"})
    assert index.digest() == digest
    assert col._published.snapshots["emb"] is snapshot


def test_a_cosine_vector_that_comes_again_is_unchanged() -> None:
    col = upvec.open(
        ":memory:",
        Schema(Field("id", "int64", primary=True), Vector("v", 301, metric="cosine")),
    )
    vectors = np.random.default_rng(1).standard_normal((20, 301)) * 50
    col.upsert({"id": np.arange(20), "v": vectors})
    assert col.upsert({"id": np.arange(20), "v": vectors}).counts["unchanged"] == 20
    stored = col.get(np.arange(20))["v"]
    assert col.upsert({"id": np.arange(20), "v": stored}).counts["unchanged"] == 20


def test_returning_gives_the_rows_before_and_after(col: upvec.Collection) -> None:
    rows = [{"id": "b", "need": 1}, {"id": "a", "need": 2}, {"id": "c"}]
    policy = Policy("upsert", atomic=False)
    result = col.upsert(rows[:2], policy=policy, returning=("old", "new"))
    assert [row and row["need"] for row in result.old] == [None, 1]
    assert [row["need"] for row in result.new] == [1, 2]
    assert result.new.version.tolist() == [2, 2]
    again = col.upsert(rows[1:2], returning="new")
    assert (again.old, again.new[0]["need"]) == (None, 2)
    kept = col.upsert([{"id": "a", "need": 9}], policy="keep", returning=["old", "new"])
    assert kept.old[0]["need"] == kept.new[0]["need"] == 2


def test_if_version_writes_only_what_was_not_changed_since(col: upvec.Collection) -> None:
    assert only(col.upsert({"id": "a", "need": 2}, if_version={"a": 1}))[0] == "updated"
    rows = [{"id": "a", "need": 3}, {"id": "n", "need": 3}, {"id": "m", "need": 3}]
    result = col.upsert(rows, if_version={"a": 1, "n": 0}, policy=Policy(atomic=False))
    assert [Outcome(s).name for s in result.status] == ["CONFLICT", "INSERTED", "INSERTED"]
    assert result.version.tolist() == [2, 3, 3]
    assert col["a"]["need"] == 2


def test_a_policy_shows_what_is_not_usual() -> None:
    assert repr(Policy("update_only", only=["a"], atomic=False)) == (
        "Policy(mode='update_only', only=('a',), atomic=False)"
    )
