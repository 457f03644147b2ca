"""Schemas: what is accepted, what is refused, and that a description gives the same schema."""

from __future__ import annotations

import datetime as dt
import json
import re

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, SchemaError, Unique, Vector, col

ID = Field("id", "string", primary=True)
T = Field("t", "timestamp", nullable=True)
N = Field("n", "int64", default=0)


def test_fields_vectors_and_numbers_follow_the_declaration() -> None:
    schema = Schema(ID, Vector("v", 2), Field("n", "int64"), Vector("w", 3))
    assert schema.names == ("id", "v", "n", "w")
    assert (list(schema.fields), list(schema.vectors)) == (["id", "n"], ["v", "w"])
    assert schema.numbers == {"id": 0, "v": 1, "n": 2, "w": 3}
    assert schema.types == {"id": "string", "v": "vector", "n": "int64", "w": "vector"}
    assert schema.primary is schema.fields["id"]


@pytest.mark.parametrize(
    "name", ["", "a b", "1a", "__x", "distance", "query", "old", "new", "NOT", "null", 5]
)
def test_reserved_and_invalid_names_are_refused(name: object) -> None:
    for make in (lambda: Field(name, "int64"), lambda: Vector(name, 2)):
        with pytest.raises(SchemaError, match=r"identifier|reserved"):
            make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Field("x", "int32"), "unknown type 'int32'"),
        (lambda: Field("x", "float64", primary=True), "int64 or string"),
        (lambda: Field("x", "string", primary=True, nullable=True), "never null"),
        (lambda: Field("x", "string", primary=True, default=""), "no default"),
        (lambda: Field("x", "int64", default="1"), "default: .* got '1'"),
        (lambda: Field("x", "int64", default=None), "default null"),
        (lambda: Field("x", "int64", default=-1, check="x >= 0"), "default: .* check"),
        (lambda: Field("x", "int64", check="[0-9]+"), "no condition"),
        (lambda: Field("x", "int64", check="x >= 'a'"), "check: field 'x' is int64"),
        (lambda: Field("x", "int64", check="x >= y"), "unknown field 'y'"),
        (lambda: Field("x", "string", check="("), "neither a condition nor a pattern"),
        (lambda: Field("x", "int64", check=re.compile("a")), "only a string"),
        (lambda: Field("x", "int64", merge="summ"), "wanted a merge rule or one of replace"),
        (lambda: Field("x", "string", merge="sum"), "'x' is string; sum_\\(\\) combines float64"),
        (lambda: Field("x", "int64", primary=True, merge="max"), "never changes"),
        (lambda: Field("x", "int64", merge=upvec.union()), "combines list"),
        (lambda: upvec.union(limit=0), "wanted a positive integer"),
        (lambda: upvec.ema(0), "above 0, at most 1"),
        (lambda: upvec.concat(1), "wanted a text"),
        (lambda: upvec.merge_map(ts=1), "wanted the name of a member"),
        (lambda: upvec.mean(weight=1), "wanted the name of a field"),
        (lambda: upvec.custom("f"), "wanted a function"),
        (upvec.any_of, "different keys"),
        (lambda: Schema(ID, Field("m", "float64", merge=upvec.mean("w"))), "wants a number field"),
        (lambda: Vector("v", 0), "dim is 1 to"),
        (lambda: Vector("v", 2.0), "dim is an integer"),
        (lambda: Vector("v", True), "dim is an integer"),
        (lambda: Vector("v", 2, metric="dot"), "none of l2"),
        (lambda: Vector("v", 2, M=3), "M is 4 to 256"),
        (lambda: Schema(ID, Vector("v", 2, source="x")), "unknown source 'x'"),
        (lambda: Vector("v", 2, source=[1]), "wanted the names of fields"),
        (lambda: Vector("v", 2, merge="sum"), "wanted one of replace"),
        (Unique, "names of fields"),
        (lambda: Unique("a", "a"), "twice"),
        (Schema, "exactly one .* got none"),
        (lambda: Schema(ID, Field("k", "int64", primary=True)), "got id, k"),
        (lambda: Schema(ID, Field("id", "int64")), "'id' is declared twice"),
        (lambda: Schema(ID, "x"), "made of Field and Vector"),
        (lambda: Schema(ID, unique=[Unique("x")]), "unknown field 'x'"),
        (lambda: Schema(ID, unique=["id"]), "wants Unique"),
        (lambda: Schema(ID, unique=[Unique("id")]), "unique already"),
        (lambda: Schema(ID, Field("f", "float64"), unique=[Unique("f")]), "no key"),
        (lambda: Schema(ID, Vector("v", 2), unique=[Unique("v")]), "unknown field"),
        (
            lambda: Schema(ID, Field("a", "int64"), Field("b", "int64"),
                           unique=[Unique("a", name="b")]),
            "is taken",
        ),
        (lambda: Schema(ID, order_by="id"), "'id' is the primary key"),
        (lambda: Schema(ID, order_by="x"), "unknown field 'x'"),
        (lambda: Schema(ID, Field("b", "bool"), order_by="b"), "'b' is bool; wanted int64"),
        (lambda: Schema(ID, groups={"id": []}), "'id' is the primary key"),
        (lambda: Schema(ID, T, groups={"t": ["x"]}), "unknown field 'x'"),
        (lambda: Schema(ID, T, groups={"t": ["id"]}), "never changes"),
        (lambda: Schema(ID, T, N, groups={"t": ["n"], "n": []}), "'n' has two clocks"),
        (lambda: Schema(ID, T, order_by="t", groups={"t": []}), "'t' has two clocks"),
        (lambda: Schema(ID, ttl=("id", "1d")), "'id' is no timestamp"),
        (lambda: Schema(ID, T, ttl=("t", "1 day")), "got '1 day', wanted a number and one of"),
        (lambda: Schema(ID, extra="keep"), "wanted 'reject', 'ignore' or 'store'"),
        (lambda: Schema.from_dict({"fields": []}), "not the description"),
        (lambda: Schema.from_dict({"fields": [{"field": {"nme": "x"}}]}), "not the description"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_what_was_got(make: object, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        make()


def test_description_round_trips_through_json() -> None:
    schema = Schema(
        ID,
        Field("s", "string", default="x", check=r"[a-z]+"),
        Field("p", "string", nullable=True, check=re.compile("[a-z]+", re.IGNORECASE)),
        Field("e", "int64", nullable=True, check=(col("e") > 1) & ~col("e").isin([5, 6])),
        Field("t", "timestamp", default=dt.datetime(2020, 1, 2, tzinfo=dt.timezone.utc)),
        Field("b", "bytes", default=b"\x00\xff"),
        Field("j", "json", default={"a": [1, None]}),
        Field("l", "list<float64>", default=[1, 2.5]),
        Field("n", "float64", nullable=True, default=None, index=True),
        Vector("v", 3, metric="cosine", nullable=True, M=8),
        unique=[Unique("s"), Unique("s", "e", name="both")],
        extra="ignore",
    )
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.to_dict() == schema.to_dict()
    assert hash(again) == hash(schema)
    assert again.fields["t"].default_cell[0][0] == np.datetime64("2020-01-02", "us")
    assert again != Schema(ID)


def test_repr_says_how_to_make_it() -> None:
    schema = Schema(
        ID, Field("n", "int64", default=0), Vector("v", 3), unique=[Unique("n", name="m")]
    )
    assert eval(repr(schema), vars(upvec)) == schema


def test_a_check_that_reads_as_a_condition_on_the_field_is_one() -> None:
    condition = Field("a", "string", check="a != 'x'")
    pattern = Field("a", "string", check="b != 'x'")
    values = np.array(["x", "b != 'x'"], dtype=object)
    assert condition.violations(values, None).tolist() == [True, False]
    assert pattern.violations(values, None).tolist() == [True, False]


def test_a_pattern_must_match_the_whole_value_and_null_passes() -> None:
    field = Field("a", "string", nullable=True, check="[a-z]+")
    values = np.array(["ab", "ab1", None], dtype=object)
    null = np.array([False, False, True])
    assert field.violations(values, null).tolist() == [False, True, False]


def test_infer_reads_types_nulls_and_vectors_off_a_table() -> None:
    schema = Schema.infer(
        {
            "id": np.arange(2),
            "name": ["a", None],
            "ok": [True, False],
            "x": [1, 2.5],
            "at": [dt.datetime(2020, 1, 1), dt.date(2020, 1, 2)],  # noqa: DTZ001
            "tags": [["a"], []],
            "emb": np.zeros((2, 4), dtype=np.float32),
        },
        metric="cosine",
    )
    assert schema.types == {
        "id": "int64", "name": "string", "ok": "bool", "x": "float64", "at": "timestamp",
        "tags": "list<string>", "emb": "vector",
    }  # fmt: skip
    assert schema.fields["name"].nullable
    assert (schema.vectors["emb"].dim, schema.vectors["emb"].metric) == (4, "cosine")
    with pytest.raises(SchemaError, match="got none"):
        Schema.infer([{"x": 1}])
