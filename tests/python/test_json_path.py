"""Conditions over paths in json fields: what a look at every value gives, and how they are told."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upvec
from upvec import ExpressionError, Field, Schema, col
from upvec.columns import CHUNK_ROWS
from upvec.expression import Expression, parse

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("group", "int64", default=0, index=True),
    Field("meta", "json", nullable=True),
)
SCALARS: list[Any] = [
    None, True, False, 0, 1, 2, 20, -2, 2.0, 0.0, -0.0, 0.5, 1e15, 10**15, 10**16, 2**53 + 1, 1e300,
    "", "2", "a", "ab", 'a"b', "\\", "ü", '"k":2',
]  # fmt: skip
KEYS = ["k", "l", 'k"', "ü", ""]

scalars = st.sampled_from(SCALARS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=6,
)
metas = st.none() | st.dictionaries(st.sampled_from(KEYS), values, max_size=4) | values
paths = st.lists(st.sampled_from(KEYS), min_size=1, max_size=2).map(tuple)

MISSING = object()
COMPARISONS = {
    "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def value_at(meta: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(meta, dict) or key not in meta:
            return MISSING
        meta = meta[key]
    return meta


def fulfils(value: Any, word: str, literal: Any) -> bool:
    """What the docstrings say, without a thought for speed."""
    if word == "exists":
        return value is not MISSING
    known = value is not MISSING and value is not None
    if word == "is_null":
        return not known
    if not known:
        return False
    if word == "isin":
        return value in literal
    if word == "contains":
        if isinstance(value, str):
            return isinstance(literal, str) and literal in value
        return isinstance(value, list) and literal in value
    if word == "startswith":
        return isinstance(value, str) and isinstance(literal, str) and value.startswith(literal)
    if word == "==":
        return bool(value == literal)
    alike = all(isinstance(one, (int, float)) for one in (value, literal))
    alike |= all(isinstance(one, str) for one in (value, literal))
    return alike and bool(COMPARISONS[word](value, literal))


def ref_of(path: tuple[str, ...]) -> Any:
    ref: Any = col("meta")
    for key in path:
        ref = ref[key]
    return ref


def condition(path: tuple[str, ...], word: str, literal: Any) -> Expression:
    ref = ref_of(path)
    if word in COMPARISONS:
        return COMPARISONS[word](ref, literal)  # type: ignore[no-any-return]
    return getattr(ref, word)(*([] if word in {"exists", "is_null"} else [literal]))  # type: ignore[no-any-return]


not_null = st.sampled_from([value for value in SCALARS if value is not None])
not_null |= st.sampled_from([[], ["a"], [2.0, None], {}, {"k": 1}, {"k": [None, {"l": "a"}]}])
words = st.sampled_from([*COMPARISONS, "contains", "startswith", "is_null", "exists"])
tests = st.tuples(paths, words, not_null) | st.tuples(
    paths, st.just("isin"), st.lists(not_null, max_size=3)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(metas, max_size=8), st.lists(tests, min_size=1, max_size=6))
def test_a_condition_holds_where_a_look_at_the_value_says_so(
    stored: list[Any], asked: list[tuple[tuple[str, ...], str, Any]]
) -> None:
    rows = [{"id": row, "meta": meta} for row, meta in enumerate(stored)]
    with upvec.open(":memory:", SCHEMA) as collection:
        collection.upsert(rows)
        for path, word, literal in asked:
            expression = condition(path, word, literal)
            wanted = [fulfils(value_at(meta, path), word, literal) for meta in stored]
            for where in (expression, ~expression, parse(str(expression))):
                found = {row["id"] for batch in collection.scan(where=where) for row in batch}
                holds = wanted if where is not None and str(where) == str(expression) else [
                    not one for one in wanted
                ]  # fmt: skip
                assert found == {row for row, one in enumerate(holds) if one}, str(where)


@pytest.mark.parametrize(
    "text",
    [
        "meta['a']['b'] == 3",
        "3 <= meta['a']",
        "meta['a'] in ['x', 'y']",
        "meta['a'] not in (1, 2)",
        "'x' in meta['tags']",
        "meta['a'] is not null",
        "meta['a'] BETWEEN 1 AND 3",
        "meta['a'].startswith('x') or meta['b'].exists()",
        "not meta[\"it's\"] = 'x'",
    ],
)
def test_a_string_says_the_same_as_the_expression_that_it_is_read_as(text: str) -> None:
    assert str(parse(str(parse(text)))) == str(parse(text))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("meta[0] == 1", "a string as key"),
        ("meta['a'] == group", "wanted a value"),
        ("group['a'] == 1", "only a json field has"),
        ("meta.exists()", "of a path in a json field"),
        ("meta['a']", "wanted a condition"),
        ("meta['a'] == None", "nothing compares with null"),
        ("unknown['a'] == 1", "unknown field"),
        ("meta" + "['a']" * 200 + " == 1", "nested deeper"),
        ("meta['a'] == " + "[" * 150 + "]" * 150, "nested deeper"),
        ("meta['a'] == {**{}}", "wanted a value"),
        ("meta['a'] == {[]: 1}", "a string as key"),
        ("meta['a'] == [group]", "wanted a value"),
        ("group == [1]", "wanted a value"),
    ],
)
def test_what_cannot_be_told_of_a_path_is_refused(expression: str, message: str) -> None:
    with (
        upvec.open(":memory:", SCHEMA) as collection,
        pytest.raises(ExpressionError, match=message),
    ):
        collection.count(expression)


def test_literals_that_json_cannot_say_are_refused() -> None:
    for literal in (b"x", {1, 2}, float("nan"), object()):
        with pytest.raises(ExpressionError, match="no json"):
            col("meta")["a"] == literal  # noqa: B015
    with pytest.raises(ExpressionError, match="is_null"):
        col("meta")["a"] == None  # noqa: B015, E711
    with pytest.raises(ExpressionError, match="wanted a key"):
        list(col("meta"))  # type: ignore[call-overload]
    with pytest.raises(ExpressionError, match="a list of values"):
        col("meta")["a"].isin("abc")


def test_literals_are_compared_as_json_has_them() -> None:
    with upvec.open(":memory:", SCHEMA) as collection:
        collection.upsert([{"id": 1, "meta": {"a": [1, 2], "b": {1: 2}}}])
        assert collection.count(col("meta")["a"] == (1, 2)) == 1
        assert collection.count(col("meta")["b"] == {1: 2}) == 1


def test_numbers_of_numpy_are_compared_as_python_s() -> None:
    with upvec.open(":memory:", SCHEMA) as collection:
        collection.upsert([{"id": 1, "meta": {"a": 3}}])
        assert collection.count(col("meta")["a"] == np.int64(3)) == 1
        assert collection.count(col("meta")["a"] == np.float32(3)) == 1


def test_an_answer_is_remembered_and_brought_forward_by_the_rows_that_changed() -> None:
    rows = 3 * CHUNK_ROWS
    with upvec.open(":memory:", SCHEMA) as collection:
        metas = [{"a": row % 10} for row in range(rows)]
        collection.upsert({"id": np.arange(rows), "meta": metas})
        where = col("meta")["a"] == 7
        assert collection.count(where) == len(range(7, rows, 10))
        collection.upsert([{"id": 0, "meta": {"a": 7}}, {"id": 7, "meta": None}])
        collection.upsert([{"id": rows, "meta": {"a": 7.0}}])
        assert collection.count(where) == len(range(7, rows, 10)) + 1
        collection.delete([rows])
        assert collection.count(where) == len(range(7, rows, 10))


def test_few_rows_that_an_index_left_are_looked_at_alone() -> None:
    rows = 4 * CHUNK_ROWS
    with upvec.open(
        ":memory:", Schema(*SCHEMA.fields.values(), upvec.Vector("emb", 2))
    ) as collection:
        collection.upsert(
            {
                "id": np.arange(rows),
                "group": np.arange(rows) % 1000,
                "meta": [{"a": row} for row in range(rows)],
                "emb": np.ones((rows, 2)),
            }
        )
        where = (col("group") == 5) & (col("meta")["a"] < 2000)
        hits = collection.search([1.0, 1.0], 10, where=where, explain=True)
        assert sorted(hits["id"].tolist()) == [5, 1005]
        assert "meta['a'] < 2000: candidates only, 2 rows" in hits.plan.conditions


def test_a_schema_keeps_what_is_compared_with(tmp_path: Path) -> None:
    ref = col("meta")["a"]
    check = (ref == ["x", None, {"y": [1.5, True]}]) | ref.isin([[], "z"]) | ref.contains(-2)
    schema = Schema(Field("id", "int64", primary=True), Field("meta", "json", check=check))
    assert Schema.from_dict(schema.to_dict()) == schema
    with upvec.open(tmp_path / "c", schema) as collection:
        collection.upsert([{"id": 1, "meta": {"a": ["x", None, {"y": [1.5, True]}]}}])
    with upvec.open(tmp_path / "c") as collection:
        collection.upsert([{"id": 2, "meta": {"a": []}}, {"id": 3, "meta": {"a": [-2]}}])
        with pytest.raises(upvec.InvalidRowError):
            collection.upsert([{"id": 4, "meta": {"a": "x"}}])


def test_a_check_and_a_condition_of_an_upsert_may_look_into_json() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("meta", "json", check="meta['kind'] in ['a', 'b']"),
    )
    with upvec.open(":memory:", schema) as collection:
        collection.upsert([{"id": 1, "meta": {"kind": "a", "n": 1}}])
        with pytest.raises(upvec.InvalidRowError):
            collection.upsert([{"id": 2, "meta": {"kind": "c"}}])
        result = collection.upsert(
            [{"id": 1, "meta": {"kind": "b", "n": 1}}], where="meta['n'] = 2"
        )
        assert result.counts["skipped"] == 1
