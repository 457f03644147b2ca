"""The laws that merge rules claim, and that late rows come to the same in any order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import upvec
from upvec import Field, InvalidRowError, MergeRule, Schema, Vector

_small = st.integers(-5, 5)
_floats = _small.map(lambda n: n / 4)
_texts = st.lists(st.sampled_from("abcd"), max_size=3)
_timed = st.dictionaries(
    st.sampled_from("xy"),
    st.fixed_dictionaries({"t": st.integers(0, 2), "v": st.integers(0, 2)}),
    max_size=2,
)
_plain = st.dictionaries(st.sampled_from("xy"), st.integers(0, 3), max_size=2)

RULES: list[tuple[MergeRule, str, Any]] = [
    (upvec.replace(), "int64", _small),
    (upvec.keep(), "int64", _small),
    (upvec.coalesce(), "int64", _small),
    (upvec.fill(), "int64", _small),
    (upvec.min_(), "float64", _floats | st.just(float("nan"))),
    (upvec.max_(), "string", st.sampled_from("abc")),
    (upvec.any_(), "bool", st.booleans()),
    (upvec.all_(), "bool", st.booleans()),
    (upvec.sum_(), "int64", _small),
    (upvec.sum_(), "float64", _floats),
    (upvec.union(), "list<string>", _texts),
    (upvec.union(limit=2), "list<string>", _texts),
    (upvec.append(), "list<string>", _texts),
    (upvec.append(limit=2), "list<string>", _texts),
    (upvec.concat("-"), "string", st.sampled_from("abc")),
    (upvec.merge_map(), "json", _plain),
    (upvec.merge_map(ts="t"), "json", _timed),
    (upvec.remove_(), "list<string>", _texts),
    (upvec.mean(), "float64", _floats),
    (upvec.ema(0.5), "float64", _floats),
]


def _after(rule: MergeRule, kind: str, values: list[Any]) -> Any:
    """Return what is stored after these values have come one by one."""
    item = Field("f", kind, nullable=True, merge=rule)
    col = upvec.open(":memory:", Schema(Field("id", "int64", primary=True), item))
    for value in values:
        col.upsert([{"id": 1, "f": value}])
    stored = col[1]["f"]
    if rule.name == "union" and stored is not None:
        return sorted(set(stored)) if rule.order_free else stored
    return repr(stored)


@pytest.mark.parametrize(("rule", "kind", "values"), RULES, ids=lambda part: str(part)[:28])
@given(data=st.data())
def test_rules_keep_the_laws_that_they_claim(
    rule: MergeRule, kind: str, values: Any, data: st.DataObject
) -> None:
    first, one, two = (data.draw(values) for _ in range(3))
    if rule.idempotent:
        assert _after(rule, kind, [first, one]) == _after(rule, kind, [first, one, one])
    if rule.commutative:
        assert _after(rule, kind, [first, one, two]) == _after(rule, kind, [first, two, one])
        assert _after(rule, kind, [first, one, two]) == _after(rule, kind, [two, one, first])
    if rule.null == "ignored" and rule.name not in {"keep", "fill"}:
        assert _after(rule, kind, [first, None]) == _after(rule, kind, [first])


def test_the_sum_of_the_weights_is_all_that_a_weighted_mean_needs() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("w", "float64", default=0.0, merge=upvec.sum_()),
        Field("m", "float64", nullable=True, merge=upvec.mean("w")),
        Vector("v", 2, nullable=True, merge=upvec.mean("w")),
    )
    rows = [{"id": 1, "w": w, "m": m, "v": [m, w]} for w, m in [(1, 2.0), (3, 6.0), (4, 1.0)]]
    for order in itertools.permutations(rows):
        col = upvec.open(":memory:", schema)
        for row in order:
            col.upsert([row])
        assert col[1]["m"] == pytest.approx((2 + 18 + 4) / 8)
        assert col[1]["v"].tolist() == pytest.approx([3.0, (1 + 9 + 16) / 8])
        with pytest.raises(InvalidRowError, match="a weight 'w' of 0 or more"):
            col.upsert([{"id": 1, "m": 1.0}])


def test_histories_of_whole_rows_end_the_same_in_any_order() -> None:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("at", "int64"),
        Field("bio", "string"),
        Field("logins", "int64", merge=upvec.sum_()),
        Field("best", "int64", merge=upvec.max_()),
        Field("price_at", "int64"),
        Field("price", "int64", nullable=True),
        order_by="at",
        groups={"price_at": ["price"]},
    )
    rows = [
        {"id": 1, "at": at, "bio": f"b{at}", "logins": 1, "best": best, "price_at": p, "price": p}
        for at, best, p in [(1, 9, 40), (2, 1, 10), (3, 5, 30), (4, 7, 20)]
    ]
    ends = set()
    for order in itertools.permutations(rows):
        col = upvec.open(":memory:", schema)
        for row in order:
            col.upsert([row])
        folded = upvec.open(":memory:", schema)
        folded.upsert(list(order), duplicates="fold")
        ends |= {repr(col[1]), repr(folded[1])}
    want = {"id": 1, "at": 4, "bio": "b4", "logins": 4, "best": 9, "price_at": 40, "price": 40}
    assert ends == {repr(want)}


def test_what_a_function_returns_is_validated() -> None:
    def wrong(old: Any, new: Any) -> Any:
        del old
        return ["x"] * len(new)

    field = Field("n", "int64", merge=upvec.custom(wrong))
    col = upvec.open(":memory:", Schema(Field("id", "int64", primary=True), field))
    col.upsert([{"id": 1, "n": 1}])
    digest = col.digest()
    with pytest.raises(InvalidRowError, match=r"custom.*got 'x'"):
        col.upsert([{"id": 1, "n": 2}])
    assert col.digest() == digest


def test_a_file_keeps_a_functions_name_alone(tmp_path: Any) -> None:
    field = Field("n", "int64", merge=upvec.custom(_larger))
    schema = Schema(Field("id", "int64", primary=True), field)
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": 1, "n": 1}])
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": 1, "n": 5}])
        assert col[1]["n"] == 5
    with (
        upvec.open(tmp_path / "c") as col,
        pytest.raises(upvec.SchemaError, match="open the collection with the schema"),
    ):
        col.upsert([{"id": 1, "n": 9}])


def _larger(old: Any, new: Any) -> Any:
    return [max(pair) for pair in zip(old, new, strict=True)]
