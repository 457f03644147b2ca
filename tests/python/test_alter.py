"""Changing the schema of a collection that has rows: `Collection.alter`."""

from __future__ import annotations

import contextlib
import shutil
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from faulty_files import Crash, FaultyFiles
from upvec import Field, Schema, Unique, Vector
from upvec.collection import open_directory


def people(**options: Any) -> Schema:
    return Schema(
        Field("id", "string", primary=True),
        Field("name", "string", nullable=True),
        Field("age", "int64", default=0, check="age >= 0"),
        Vector("emb", 2, nullable=True),
        **options,
    )


ROWS = [
    {"id": "a", "name": "Ada", "age": 36, "emb": [0, 1]},
    {"id": "b", "name": "Bob", "age": 17, "emb": [1, 0]},
    {"id": "c", "age": 5},
]


def opened(path: Path | str = ":memory:", **options: Any) -> upvec.Collection:
    col = upvec.open(path, people(**options))
    col.upsert(ROWS)
    return col


def everything(col: Any) -> list[Any]:
    return [
        {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in r.items()
        }
        for rows in col.scan()
        for r in rows
    ]


# --- Each change -----------------------------------------------------------------------------


def test_an_added_field_has_its_default_or_null_in_stored_rows() -> None:
    col = opened()
    schema = col.alter(
        add=[Field("city", "string", default="Oslo"), Field("n", "int64", nullable=True)]
    )
    assert schema == col.schema
    assert col.schema.names == ("id", "name", "age", "emb", "city", "n")
    assert col.get(["a", "c"])["city"].tolist() == ["Oslo", "Oslo"]
    assert col.get(["a"])["n"].tolist() == [None]
    col.upsert([{"id": "a", "n": 4}, {"id": "d"}])
    assert (col["a"]["n"], col["d"]["city"], col.count("city = 'Oslo'")) == (4, "Oslo", 4)


def test_an_alteration_changes_no_version_and_makes_one_commit() -> None:
    col = opened()
    before, seq = col.get(["a", "b", "c"]).version.tolist(), col.seq
    col.alter(add=[Field("twice", "int64")], backfill={"twice": "age * 2"})
    assert col.get(["a", "b", "c"]).version.tolist() == before
    assert col.seq == seq + 1


@pytest.mark.parametrize(
    ("kind", "how", "wanted"),
    [
        ("int64", "age * 2 + 1", [73, 35, 11]),
        ("float64", "age / 4", [9.0, 4.25, 1.25]),
        ("float64", "age", [36.0, 17.0, 5.0]),
        ("int64", "-age", [-36, -17, -5]),
        ("int64", "age // 10 % 2", [1, 1, 0]),
        ("string", "id + ':' + name.upper()", ["a:ADA", "b:BOB", None]),
        ("string", upvec.col("name"), ["Ada", "Bob", None]),
        ("bool", "age >= 18 AND name IS NOT NULL", [True, False, False]),
        ("bool", upvec.col("name").startswith("A"), [True, False, None]),
        ("bool", "true", [True, True, True]),
        ("int64", "7", [7, 7, 7]),
        ("int64", 7, [7, 7, 7]),
        ("timestamp", np.datetime64("2026-01-01", "us"), [datetime(2026, 1, 1)] * 3),  # noqa: DTZ001
        ("int64", lambda rows: rows["age"] + 1, [37, 18, 6]),
        ("list<string>", lambda rows: [[key] for key in rows["id"]], [["a"], ["b"], ["c"]]),
    ],
)
def test_a_backfill_computes_a_field_of_the_stored_rows(kind: str, how: Any, wanted: Any) -> None:
    col = opened()
    col.alter(add=[Field("x", kind, nullable=True)], backfill={"x": how})
    assert [row["x"] for row in everything(col)] == wanted


def test_a_backfilled_vector_is_searched() -> None:
    col = opened()
    col.alter(
        add=[Vector("other", 3)],
        backfill={"other": lambda rows: np.eye(3, dtype=np.float32)[: len(rows)]},
    )
    assert col.search([0, 0, 1], k=1, field="other")["id"].tolist() == ["c"]
    assert col.search([0, 1], k=1, field="emb")["id"].tolist() == ["a"]
    with pytest.raises(upvec.InvalidRowError, match="other"):
        col.upsert([{"id": "d"}])


def test_a_dropped_field_is_gone_and_one_of_its_name_begins_anew() -> None:
    col = opened()
    col.alter(drop=["age"])
    assert "age" not in col["a"]
    with pytest.raises(upvec.InvalidRowError, match="unknown field 'age'"):
        col.upsert([{"id": "a", "age": 1}])
    col.alter(add=[Field("age", "string", nullable=True)])
    assert col["a"]["age"] is None


def test_dropping_and_adding_in_one_call_is_not_renaming() -> None:
    col = opened()
    col.alter(drop=["age"], add=[Field("age", "string", default="old")])
    assert col["a"]["age"] == "old"


def test_a_dropped_vector_is_gone() -> None:
    col = opened()
    col.alter(drop=["emb"])
    with pytest.raises(upvec.SchemaError, match="vector fields are: none"):
        col.search([0, 1])
    assert col["a"] == {"id": "a", "name": "Ada", "age": 36}


def test_a_renamed_field_takes_everything_along() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("email", "string", check="email.contains('@')"),
        Field("at", "timestamp"),
        Field("n", "int64", merge="sum_"),
        Field("score", "float64", merge=upvec.mean(weight="n")),
        Field("price_ts", "int64", nullable=True),
        Field("price", "int64", nullable=True),
        Vector("emb", 2, source="email", nullable=True),
        unique=[Unique("email"), Unique("email", "price", name="both")],
        order_by="at",
        groups={"price_ts": ["price"]},
        ttl=("at", "90000d"),
    )
    col = upvec.open(":memory:", schema)
    moment = np.datetime64("2026-01-01", "us")
    col.upsert([{"id": 1, "email": "a@x", "at": moment, "n": 1, "score": 1.0, "price": 3}])
    names = {name: f"{name}2" for name in schema.names}
    after = col.alter(rename=names)
    assert after.primary.name == "id2"
    assert list(after.unique) == ["email2", "both"]
    assert after.unique["both"].fields == ("email2", "price2")
    assert (after.order_by, after.groups) == ("at2", {"price_ts2": ("price2",)})
    assert after.ttl == ("at2", "90000d")
    assert after.rule("score2") == upvec.mean(weight="n2")
    assert after.vectors["emb2"].source == ("email2",)
    r = col.upsert(
        [{"email2": "a@x", "at2": moment, "n2": 3, "score2": 5.0, "emb2": [0, 1]}], on="email2"
    )
    assert r.key.tolist() == [1]
    assert (col[1]["n2"], col[1]["score2"]) == (4, 4.0)
    with pytest.raises(upvec.InvalidRowError, match="email2"):
        col.upsert([{"id2": 2, "email2": "nobody", "at2": moment, "n2": 1, "score2": 1.0}])


def test_names_can_be_swapped() -> None:
    col = upvec.open(
        ":memory:",
        Schema(Field("id", "int64", primary=True), Field("a", "int64"), Field("b", "int64")),
    )
    col.upsert([{"id": 1, "a": 10, "b": 20}])
    col.alter(rename={"a": "b", "b": "a"})
    assert col[1] == {"id": 1, "b": 10, "a": 20}


@pytest.mark.parametrize(
    ("kind", "values", "wider", "wanted"),
    [
        ("int64", [1, None, -(2**53)], "float64", [1.0, None, -(2.0**53)]),
        ("bool", [True, None, False], "int64", [1, None, 0]),
        ("bool", [True, None, False], "float64", [1.0, None, 0.0]),
        ("string", ["x", None, ""], "json", ["x", None, ""]),
        ("list<int64>", [[1, 2], None, []], "list<float64>", [[1.0, 2.0], None, []]),
    ],
)
def test_a_widened_field_keeps_its_values(kind: str, values: Any, wider: str, wanted: Any) -> None:
    col = upvec.open(
        ":memory:", Schema(Field("id", "int64", primary=True), Field("x", kind, nullable=True))
    )
    col.upsert([{"id": at, "x": value} for at, value in enumerate(values)])
    col.alter(widen={"x": wider})
    assert col.schema.fields["x"].type == wider
    assert [row["x"] for row in everything(col)] == wanted


def test_a_field_made_nullable_takes_null() -> None:
    col = opened()
    col.alter(widen={"age": "nullable", "emb": "nullable"})
    col.upsert([{"id": "a", "age": None}])
    assert col["a"]["age"] is None


def test_a_default_is_widened_with_its_field() -> None:
    col = opened()
    col.alter(widen={"age": "float64"})
    col.upsert([{"id": "z"}])
    assert col["z"]["age"] == 0.0
    assert isinstance(col["z"]["age"], float)


# --- Unique -----------------------------------------------------------------------------------


def test_an_added_unique_holds_from_then_on() -> None:
    col = opened()
    col.alter(add_unique=Unique("name"))
    r = col.upsert([{"name": "Bob", "age": 18}], on="name")
    assert r.key.tolist() == ["b"]
    with pytest.raises(upvec.ConflictError, match="Ada"):
        col.upsert([{"id": "d", "name": "Ada"}])
    assert col.get(["Ada", "Eve"], on="name").found.tolist() == [True, False]
    col.upsert([{"id": "d"}])  # a null equals no other
    assert len(col) == 4


def test_adding_a_unique_over_violating_data_lists_them_and_changes_nothing() -> None:
    col = opened()
    col.upsert([{"id": "d", "name": "Ada"}, {"id": "e", "name": "Bob"}, {"id": "f", "name": "Ada"}])
    before, digest = col.schema, col.digest()
    with pytest.raises(upvec.ViolationError) as caught:
        col.alter(add=[Field("x", "int64", default=1)], add_unique=[Unique("name")])
    assert caught.value.violations == [("Ada", ["a", "d", "f"]), ("Bob", ["b", "e"])]
    assert "'Ada' in ['a', 'd', 'f']" in str(caught.value)
    assert isinstance(caught.value, upvec.SchemaError)
    assert isinstance(caught.value, upvec.ConflictError)
    assert (col.schema, col.digest()) == (before, digest)


def test_a_unique_can_be_made_of_fields_that_come_with_it() -> None:
    col = opened()
    col.alter(
        add=[Field("handle", "string"), Field("tenant", "string", default="t")],
        rename={"name": "called"},
        backfill={"handle": "id.upper()"},
        add_unique=[Unique("tenant", "handle", name="who"), Unique("called")],
    )
    assert col.get([("t", "B")], on="who")["id"].tolist() == ["b"]
    assert col.get(["Ada"], on="called")["id"].tolist() == ["a"]
    with pytest.raises(upvec.ViolationError, match="'t' in"):
        col.alter(add_unique=[Unique("tenant")])


def test_a_dropped_unique_no_longer_holds() -> None:
    col = opened(unique=[Unique("name")])
    with pytest.raises(upvec.SchemaError, match="drop_unique='called' too"):
        opened(unique=[Unique("name", name="called")]).alter(drop=["name"])
    with pytest.raises(upvec.SchemaError, match="drop_unique='name' too"):
        col.alter(drop="name")
    col.alter(drop="name", drop_unique="name")
    assert "name" not in col["a"]
    assert not col.schema.unique


@pytest.mark.parametrize("called", ["name", "called"])
def test_a_unique_that_is_dropped_leaves_its_fields(called: str) -> None:
    col = opened(unique=[Unique("name", name=called)])
    with pytest.raises(upvec.ConflictError):
        col.upsert([{"id": "d", "name": "Ada"}])
    col.alter(drop_unique=called)
    assert col["a"]["name"] == "Ada"
    col.upsert([{"id": "d", "name": "Ada"}])
    assert col.count("name = 'Ada'") == 2


# --- What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"drop": ["id"]}, upvec.SchemaError, "is the primary key"),
        ({"drop": ["nope"]}, upvec.SchemaError, "unknown 'nope'"),
        ({"drop_unique": ["age"]}, upvec.SchemaError, "unknown 'age'; there are: none"),
        ({"widen": {"age": ["float64"]}}, upvec.SchemaError, "wanted a type or 'nullable'"),
        ({"widen": {"age": None}}, upvec.SchemaError, "wanted a type or 'nullable'"),
        ({"backfill": 5}, upvec.SchemaError, "backfill: got 5; wanted a dict"),
        (
            {"add": [Field("x", "float64")], "backfill": {"x": "*".join(["age"] * 900) + "/3"}},
            upvec.ExpressionError,
            "nested deeper than 200",
        ),
        (
            {
                "add": [Field("x", "float64")],
                "backfill": {"x": "1" + "*(age + 9)" * 95 + "*99" * 95 + "*0.5"},
            },
            upvec.ExpressionError,
            "too large",
        ),
        (
            {"add": [Vector("v", 2)], "backfill": {"v": "emb"}},
            upvec.SchemaError,
            "come from a function",
        ),
        (
            {"add": [Field("x", "json")], "backfill": {"x": lambda _: {"a": 1, "b": 2, "c": 3}}},
            upvec.SchemaError,
            "wanted a column",
        ),
        (
            {"add": [Field("x", "string")], "backfill": {"x": lambda _: "abc"}},
            upvec.SchemaError,
            "got 'abc' of 'x', wanted a column",
        ),
        ({"drop": ["age", "age"]}, upvec.SchemaError, "comes twice"),
        ({"rename": {"nope": "x"}}, upvec.SchemaError, "rename: unknown 'nope'"),
        ({"rename": {"age": "name"}}, upvec.SchemaError, "'name' is declared twice"),
        ({"rename": {"age": "no word"}}, upvec.SchemaError, "identifier"),
        ({"rename": {"age": "x"}, "drop": ["age"]}, upvec.SchemaError, "is dropped"),
        ({"widen": {"age": "string"}}, upvec.SchemaError, "wanted float64, 'nullable'"),
        ({"widen": {"name": "int64"}}, upvec.SchemaError, "wanted json, 'nullable'"),
        ({"widen": {"emb": "float64"}}, upvec.SchemaError, "is a vector"),
        ({"widen": {"id": "nullable"}}, upvec.SchemaError, "primary key"),
        ({"add": [Field("x", "int64")]}, upvec.SchemaError, "3 rows have no 'x'"),
        ({"add": [Vector("v", 2)]}, upvec.SchemaError, "3 rows have no 'v'"),
        ({"add": [Field("age", "int64", default=1)]}, upvec.SchemaError, "declared twice"),
        ({"add": ["x"]}, upvec.SchemaError, "got 'x'; wanted Field or Vector"),
        ({"add": 7}, upvec.SchemaError, "got 7; wanted Field or Vector"),
        ({"drop": [1]}, upvec.SchemaError, "got 1; wanted str"),
        ({"add_unique": "age"}, upvec.SchemaError, "got 'age'; wanted Unique"),
        ({"rename": [("age", "x")]}, upvec.SchemaError, "rename: got .*; wanted a dict"),
        ({"widen": ["age"]}, upvec.SchemaError, "widen: got .*; wanted a dict"),
        ({"rename": {"age": 3}}, upvec.SchemaError, "wanted a name"),
        ({"add": [Field("p", "string", primary=True)]}, upvec.SchemaError, "exactly one"),
        ({"add_unique": [Unique("nope")]}, upvec.SchemaError, "unknown field 'nope'"),
        ({"backfill": {"age": "1"}}, upvec.SchemaError, "none of the fields"),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": "nope + 1"}},
            upvec.ExpressionError,
            "unknown field 'nope'",
        ),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": "name + 1"}},
            upvec.ExpressionError,
            "no add of string and int64",
        ),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": "age // 0"}},
            upvec.ExpressionError,
            "divisor is zero",
        ),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": "age / 2"}},
            upvec.SchemaError,
            "age / 2 is float64; field 'x' is int64",
        ),
        (
            {"add": [Field("x", "string")], "backfill": {"x": "name"}},
            upvec.InvalidRowError,
            "key 'c', field 'x': got None",
        ),
        (
            {"add": [Field("x", "int64", check="x < 20")], "backfill": {"x": "age"}},
            upvec.InvalidRowError,
            "key 'a', field 'x': got 36",
        ),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": "age * 9223372036854775807"}},
            upvec.InvalidRowError,
            "field 'x'",
        ),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": lambda rows: [1]}},
            upvec.SchemaError,
            "got 1 values of 'x' for 3 rows",
        ),
        (
            {"add": [Field("x", "int64")], "backfill": {"x": lambda _: None}},
            upvec.SchemaError,
            "got None of 'x', wanted a column",
        ),
        (
            {"add": [Vector("v", 2)], "backfill": {"v": lambda rows: [[1, 2, 3]] * len(rows)}},
            upvec.DimensionError,
            "got dimension 3, wanted 2",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    changes: Any, error: type[Exception], words: str
) -> None:
    col = opened()
    schema, digest, seq = col.schema, col.digest(), col.seq
    with pytest.raises(error, match=words):
        col.alter(**changes)
    assert (col.schema, col.digest(), col.seq) == (schema, digest, seq)
    col.upsert([{"id": "a", "age": 40}])  # and it goes on


def test_integers_that_no_float_is_equal_to_are_not_widened() -> None:
    col = opened()
    col.upsert([{"id": "a", "age": 2**53 + 1}])
    with pytest.raises(upvec.ViolationError, match="9007199254740993") as caught:
        col.alter(widen={"age": "float64"})
    assert caught.value.violations == [(2**53 + 1, ["a"])]


@pytest.mark.parametrize("needed", ["at", "n", "bio", "price_ts"])
def test_a_field_that_another_needs_is_not_dropped(needed: str) -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("at", "int64", nullable=True),
        Field("bio", "string", nullable=True),
        Field("n", "int64", default=0, merge="sum_"),
        Field("m", "float64", nullable=True, merge=upvec.mean(weight="n")),
        Field("price_ts", "int64", nullable=True),
        Field("price", "int64", nullable=True),
        Vector("emb", 2, source="bio", nullable=True),
        order_by="at",
        groups={"price_ts": ["price"]},
    )
    col = upvec.open(":memory:", schema)
    with pytest.raises(upvec.SchemaError, match=f"drop: '{needed}' is"):
        col.alter(drop=[needed])
    col.alter(drop=["price", "emb", "m"])


# --- Files ------------------------------------------------------------------------------------


def history(col: upvec.Collection) -> None:
    """Commits under five schemas."""
    col.upsert(ROWS)
    col.alter(add=[Field("city", "string", default="Oslo")])
    col.upsert([{"id": "a", "city": "Bergen"}, {"id": "d", "age": 1}])
    col.alter(rename={"age": "years"}, widen={"age": "float64"})
    col.upsert([{"id": "b", "years": 17.5}])
    col.alter(
        drop=["name"], add=[Field("name", "int64", nullable=True), Vector("v", 2, nullable=True)]
    )
    col.delete(["c"])
    col.upsert([{"id": "e", "name": 3, "v": [1, 1]}])
    col.alter(
        add_unique=[Unique("name", name="called")],
        add=[Field("code", "string")],
        backfill={"code": "id + city"},
    )
    col.upsert([{"name": 3, "years": 9.0}], on="called")


@pytest.mark.parametrize("checkpoint_after", [None, 1, 2, 3, 4, 5, 8, 10])
def test_old_commits_are_replayed_under_the_schema_they_were_written_with(
    tmp_path: Path, checkpoint_after: int | None
) -> None:
    path = tmp_path / "c"
    with upvec.open(path, people()) as col:
        step = 0
        original = col._commit

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal step
            state = original(*args, **kwargs)
            step += 1
            return state

        col._commit = counted  # type: ignore[method-assign]
        if checkpoint_after is None:
            history(col)
        else:
            # Step by step, so that the checkpoint comes between two of them.
            upsert, alter, delete = col.upsert, col.alter, col.delete

            def then_checkpoint(method: Any) -> Any:
                def call(*args: Any, **kwargs: Any) -> Any:
                    result = method(*args, **kwargs)
                    if step == checkpoint_after:
                        col.checkpoint()
                    return result

                return call

            col.upsert = then_checkpoint(upsert)  # type: ignore[method-assign]
            col.alter = then_checkpoint(alter)  # type: ignore[method-assign]
            col.delete = then_checkpoint(delete)  # type: ignore[method-assign]
            history(col)
        rows, digest, schema = everything(col), col.digest(), col.schema
        assert step == 10
    with upvec.open(path) as col:
        assert (everything(col), col.digest(), col.schema) == (rows, digest, schema)
        assert col.get([3], on="called")["years"].tolist() == [9.0]
        col.upsert([{"id": "f", "code": "x"}])
    with upvec.open(path, read_only=True) as col:
        assert len(col) == 5
        assert col.schema == schema


def test_the_schema_to_open_with_is_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with upvec.open(path, people()) as col:
        history(col)
        schema = col.schema
    with pytest.raises(upvec.SchemaError, match="another schema"):
        upvec.open(path, people())
    fresh = Schema.from_dict({n: v for n, v in schema.to_dict().items() if "number" not in n})
    assert fresh == schema
    assert fresh.numbers != schema.numbers  # as a user would declare it
    with upvec.open(path, fresh) as col:
        assert col.schema.numbers == schema.numbers
        assert col.get([3], on="called")["id"].tolist() == ["e"]
        col.checkpoint()
    with upvec.open(path, fresh) as col:
        assert col.get([3], on="called")["id"].tolist() == ["e"]


def test_a_damaged_checkpoint_is_passed_over_for_one_of_an_older_schema(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with upvec.open(path, people()) as col:
        col.upsert(ROWS)
        col.checkpoint()
        col.alter(add=[Field("city", "string", default="Oslo")], drop=["age"])
        col.checkpoint()
        rows, digest = everything(col), col.digest()
    newest = max(path.glob("checkpoint-*"))
    (newest / "live").write_bytes(b"nothing")
    with pytest.warns(RuntimeWarning, match="older checkpoint"):
        col = upvec.open(path)
    with col:
        assert (everything(col), col.digest()) == (rows, digest)


def test_functions_of_custom_rules_stay(tmp_path: Path) -> None:
    def longest(old: Any, new: Any) -> Any:
        return np.where([len(a) >= len(b) for a, b in zip(old, new, strict=True)], old, new)

    schema = Schema(
        Field("id", "int64", primary=True), Field("text", "string", merge=upvec.custom(longest))
    )
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": 1, "text": "long"}])
        schema = col.alter(add=[Field("n", "int64", default=0)])
        col.upsert([{"id": 1, "text": "x"}])
        assert col[1]["text"] == "long"
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": 1, "text": "y"}])
        assert col[1]["text"] == "long"


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "half", "crash"])
def test_an_alteration_that_fails_anywhere_is_whole_or_not_there(
    tmp_path: Path, fault: Any
) -> None:
    old = opened()
    new = opened()
    changes: dict[str, Any] = {
        "add": [Field("city", "string"), Vector("v", 2, nullable=True)],
        "backfill": {"city": "id + '!'"},
        "drop": "name",
        "rename": {"age": "years"},
        "widen": {"age": "float64"},
        "add_unique": Unique("city"),
    }
    new.alter(**changes)
    states = {c.schema.names: everything(c) for c in (old, new)}
    failed = 0
    for at in range(1, 50):
        root = tmp_path / str(at)
        files = FaultyFiles()
        col = open_directory(str(root), people(), files)
        col.upsert(ROWS)
        operations = len(files.log)
        files.fail(at, fault)
        made = False
        try:
            col.alter(**changes)
            made = True
        except (OSError, upvec.PoisonedError, Crash):
            failed += 1
        for number, tail in enumerate(("lost", "kept", "torn", "zeros")):
            image = tmp_path / f"{at}-{number}"
            files.crash_image(str(root), str(image), tail=tail)
            with upvec.open(image) as again:
                assert everything(again) == states[again.schema.names]
                assert again.schema == (new if made else again).schema
                again.upsert([{"id": "a"}])
            shutil.rmtree(image)
        with contextlib.suppress(Crash, upvec.PoisonedError):
            col.close()
        if made and len(files.log) - operations < at:
            break
    assert failed >= 2


# --- Others meanwhile -------------------------------------------------------------------------


def test_a_snapshot_goes_on_with_its_schema() -> None:
    col = opened(unique=[Unique("name", name="called")])
    with col.snapshot() as snap:
        before = everything(snap)
        col.alter(drop="emb", drop_unique="called", rename={"age": "years", "name": "label"})
        col.upsert([{"id": "a", "label": "Zoe"}, {"id": "z", "label": "Ada"}])
        col.delete(["b"])
        assert everything(snap) == before
        assert snap.schema.names == ("id", "name", "age", "emb")
        assert snap.get(["Ada", "Bob", "Zoe"], on="called")["id"].tolist() == ["a", "b", None]
        assert snap.search([1, 0], k=1)["id"].tolist() == ["b"]
        assert snap.count("age > 10") == 2
    assert col.count("years > 10") == 1


def test_a_snapshot_finds_keys_whose_index_was_renamed() -> None:
    col = opened(unique=[Unique("name", name="called")])
    with col.snapshot() as snap:
        col.alter(rename={"name": "label", "id": "key"})
        col.upsert([{"key": "a", "label": "Zoe"}])
        col.delete(["b"])
        assert snap.get(["Ada", "Bob", "Zoe"], on="called")["id"].tolist() == ["a", "b", None]
        assert snap.get(["b"])["name"].tolist() == ["Bob"]


def test_a_transaction_and_a_plan_from_before_are_refused() -> None:
    col = opened()
    plan = col.upsert([{"id": "p"}], dry_run=True)
    tx = col.transaction()
    tx.upsert([{"id": "t", "age": 3}])
    col.alter(rename={"age": "years"})
    assert tx["t"]["age"] == 3
    with pytest.raises(upvec.ConflictError, match="schema was changed"), tx:
        pass
    with pytest.raises(upvec.ConflictError, match="schema was changed"):
        plan.commit()
    assert len(col) == 3


def test_writers_and_readers_beside_alterations_see_one_schema_at_a_time() -> None:
    col = upvec.open(
        ":memory:",
        Schema(Field("id", "int64", primary=True), Field("n", "int64", default=0), Vector("v", 2)),
    )
    col.upsert([{"id": at, "v": [at, 1]} for at in range(64)])
    wrong: list[Any] = []
    over = threading.Event()

    def write(first: int) -> None:
        count = 0
        while not over.is_set():
            count += 1
            rows = [{"id": first + at, "v": [count, at]} for at in range(8)]
            try:
                col.upsert(rows)
                col.delete([first])
            except Exception as error:  # noqa: BLE001
                wrong.append(error)
                return

    def read() -> None:
        while not over.is_set():
            with col.snapshot() as snap:
                names = snap.schema.names
                wrong.extend((tuple(r), names) for r in everything(snap) if tuple(r) != names)
                if len(snap.search([1, 1], k=4)) != 4:
                    wrong.append("search")

    threads = [threading.Thread(target=write, args=(100 * at,)) for at in (1, 2)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    for at in range(30):
        col.alter(add=[Field(f"x{at}", "int64", default=at)], rename={"n": "m"})
        col.alter(drop=[f"x{at}"], rename={"m": "n"})
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:2]
    assert col.schema.names == ("id", "n", "v")
    assert col.schema.next_number == 33


def expiring() -> Schema:
    return Schema(
        Field("id", "int64", primary=True),
        Field("at", "timestamp"),
        Field("name", "string"),
        Field("n", "int64", default=0),
        Vector("emb", 2, nullable=True),
        ttl=("at", "1d"),
    )


NOW = np.datetime64("now", "us")
OLD = NOW - np.timedelta64(2, "D")


def test_expired_rows_do_not_stand_in_the_way(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", expiring()) as col:
        old = {"id": 1, "at": OLD, "name": "x", "n": 2**53 + 1, "emb": [1, 0]}
        col.upsert([old, {"id": 2, "at": NOW, "name": "x", "emb": [0, 1]}])
        with col.snapshot() as snap:
            col.alter(add_unique=[Unique("name")], widen={"n": "float64"})
            assert snap.get([2])["n"].tolist() == [0]
        assert (col.seq, col.stats()["rows"]) == (2, 1)  # gone, in the same commit
        assert col.get(["x"], on="name")["id"].tolist() == [2]
        digest = col.digest()
    with upvec.open(tmp_path / "c") as col:
        assert col.digest() == digest
        assert col.get(["x"], on="name")["id"].tolist() == [2]
        col.upsert([{"id": 1, "at": NOW, "name": "y"}])
    # Nor does a field that they would lack.
    only_old = upvec.open(":memory:", expiring())
    only_old.upsert([{"id": 1, "at": OLD, "name": "x"}])
    seen: list[int] = []
    only_old.alter(
        add=[Field("y", "int64"), Field("z", "int64")],
        backfill={"z": lambda rows: seen.append(len(rows)) or rows["n"]},
    )
    assert not seen


def test_an_alteration_that_is_refused_keeps_expired_rows_too(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", expiring()) as col:
        col.upsert([{"id": at, "at": OLD if at == 1 else NOW, "name": "x"} for at in (1, 2, 3)])
        digest = col.digest()
        with pytest.raises(upvec.ViolationError) as caught:
            col.alter(add_unique=[Unique("name")])
        assert caught.value.violations == [("x", [2, 3])]
        assert (col.digest(), col.stats()["seq"], col.stats()["rows"]) == (digest, 1, 3)
    with upvec.open(tmp_path / "c") as col:
        assert (col.digest(), col.seq) == (digest, 1)


def test_an_order_value_of_a_deleted_row_is_not_rounded() -> None:
    schema = Schema(Field("id", "int64", primary=True), Field("at", "int64"), order_by="at")
    col = upvec.open(":memory:", schema)
    col.upsert([{"id": 7, "at": 2**53 + 1}])
    col.delete([7])
    with pytest.raises(upvec.ViolationError) as caught:
        col.alter(widen={"at": "float64"})
    assert caught.value.violations == [(2**53 + 1, [7])]
    assert col.upsert([{"id": 7, "at": 2**53}]).counts["stale"] == 1


def test_a_default_is_not_rounded() -> None:
    col = upvec.open(
        ":memory:",
        Schema(Field("id", "int64", primary=True), Field("n", "int64", default=2**53 + 1)),
    )
    with pytest.raises(upvec.SchemaError, match="no float64 is equal to the default"):
        col.alter(widen={"n": "float64"})


def test_nulls_that_a_function_passes_on_stay_nulls() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("f", "float64", nullable=True),
        Vector("v", 2, nullable=True),
    )
    col = upvec.open(":memory:", schema)
    col.upsert([{"id": 1, "f": 1.5, "v": [1, 2]}, {"id": 2}])
    col.alter(
        add=[Field("g", "float64", nullable=True), Vector("w", 2, nullable=True)],
        backfill={"g": lambda rows: rows["f"], "w": lambda rows: rows["v"]},
    )
    assert (col[1]["g"], col[1]["w"].tolist()) == (1.5, [1, 2])
    assert (col[2]["g"], col[2]["w"]) == (None, None)
    with pytest.raises(upvec.InvalidRowError, match="key 2"):
        col.alter(add=[Vector("x", 2)], backfill={"x": lambda rows: rows["v"]})


def test_a_clock_goes_with_its_group_or_after_it() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("ts", "int64", nullable=True),
        Field("price", "int64", nullable=True),
        groups={"ts": ["price"]},
    )
    at_once, in_turn = upvec.open(":memory:", schema), upvec.open(":memory:", schema)
    at_once.alter(drop=["price", "ts"])
    in_turn.alter(drop="price")
    in_turn.alter(drop="ts")
    assert at_once.schema == in_turn.schema == Schema(Field("id", "int64", primary=True))


def test_a_pattern_that_reads_as_the_new_name_stays_a_pattern() -> None:
    schema = Schema(Field("id", "int64", primary=True), Field("k", "string", check="abc"))
    col = upvec.open(":memory:", schema)
    col.alter(rename={"k": "abc"})
    col.upsert([{"id": 1, "abc": "abc"}])
    with pytest.raises(upvec.InvalidRowError):
        col.upsert([{"id": 2, "abc": "abd"}])


def test_a_transaction_that_only_read_ends_well_beside_an_alteration() -> None:
    col = opened()
    with col.transaction() as tx:
        assert tx["a"]["age"] == 36
        col.alter(rename={"age": "years"})
    assert col["a"]["years"] == 36


def test_deletes_are_remembered_across_a_widened_clock() -> None:
    schema = Schema(Field("id", "int64", primary=True), Field("at", "int64"), order_by="at")
    col = upvec.open(":memory:", schema)
    col.upsert([{"id": 1, "at": 10}])
    col.delete([1])
    col.alter(widen={"at": "float64"}, rename={"at": "when"})
    assert col.stats()["remembered_deletes"] == 1
    assert col.upsert([{"id": 1, "when": 9.5}]).counts["stale"] == 1
    assert col.upsert([{"id": 1, "when": 10.5}]).counts["inserted"] == 1
    assert col.stats()["remembered_deletes"] == 0
