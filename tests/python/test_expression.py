"""Conditions: both spellings, three-valued logic, and what is refused."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

import numpy as np
import pytest

from upvec import ExpressionError, col
from upvec.expression import bind, parse

TYPES = {
    "age": "int64", "score": "float64", "city": "string", "vip": "bool", "at": "timestamp",
    "raw": "bytes", "tags": "list<string>", "sizes": "list<int64>", "doc": "json", "emb": "vector",
}  # fmt: skip


def objects(*values: Any) -> np.ndarray:
    return np.fromiter(values, dtype=object, count=len(values))


class People:
    """Four rows; the last is null in every field."""

    null = np.array([False, False, False, True])
    columns: ClassVar = {
        "age": np.array([10, 30, 40, 99]),
        "score": np.array([1.5, 30.0, np.nan, 99.0]),
        "city": objects("Oslo", "Bergen", "it's", None),
        "vip": np.array([True, False, True, True]),
        "at": np.array(["2020-01-01", "2021-01-01", "2022-01-01", "2099-01-01"], "M8[us]"),
        "raw": objects(b"a", b"ab", b"", None),
        "tags": objects(["a"], ["b", "c"], [], None),
        "sizes": objects([1], [2, 3], [], None),
        "doc": objects("{}", "1", "[]", None),
        "emb": np.zeros(4),
    }

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.columns[name], self.null


def rows(expression: Any) -> list[int]:
    return np.flatnonzero(bind(expression, TYPES).matches(People())).tolist()


CASES: list[tuple[Any, str, list[int]]] = [
    (col("age") >= 30, "age >= 30", [1, 2]),
    (col("age") == 30, "age = 30", [1]),
    (col("age") != 30, "age <> 30", [0, 2]),
    (~(col("age") >= 30), "NOT age >= 30", [0]),
    (col("age").between(10, 30), "age BETWEEN 10 AND 30", [0, 1]),
    (~col("age").between(10, 30), "not (age between 10 and 30)", [2]),
    (
        col("age").between(1, 20) | col("age").between(35, 50),
        "age BETWEEN 1 AND 20 OR age BETWEEN 35 AND 50",
        [0, 2],
    ),
    ((col("age") > 20) & col("vip"), "age > 20 AND vip", [2]),
    ((col("age") > 20) | col("vip"), "(age > 20) | vip", [0, 1, 2]),
    (col("vip") == False, "vip = FALSE", [1]),  # noqa: E712
    (~col("vip"), "~vip", [1]),
    (col("city").isin(["Oslo", "Rome"]), "city IN ('Oslo', 'Rome')", [0]),
    (~col("city").isin(["Oslo"]), "city not in ('Oslo')", [1, 2]),
    (col("age").isin([]), "age in []", []),
    (~col("age").isin([10.0, 40]), "age NOT IN (10.0, 40)", [1]),
    (col("city") == "it's", "city = 'it''s'", [2]),
    (col("city") == "it's", 'city == "it\'s"', [2]),
    (col("city") > "C", "city > 'C'", [0, 2]),
    (col("city").contains("er"), "'er' in city", [1]),
    (col("city").startswith("O"), "city.startswith('O')", [0]),
    (col("city").is_null(), "city IS NULL", [3]),
    (~col("city").is_null(), "city is not None", [0, 1, 2]),
    (col("emb").is_null(), "emb IS NULL", [3]),
    (col("doc").is_null(), "doc.is_null()", [3]),
    (col("tags").contains("b"), "'b' in tags", [1]),
    (~col("tags").contains("b"), "'b' not in tags", [0, 2]),
    (col("sizes").contains(2), "sizes.contains(2)", [1]),
    (col("raw").contains(b"b"), "b'b' in raw", [1]),
    (col("at") > dt.date(2020, 6, 1), "at > '2020-06-01'", [1, 2]),
    (col("at") == np.datetime64("2021-01-01"), "at = '2021-01-01T02:00+02:00'", [1]),
    (col("score") == col("age"), "score = age", [1]),
    (col("age") < col("score"), "age < score", []),
    (col("age") > -1.5, "-1.5 < age", [0, 1, 2]),
    ((col("age") >= 10) & (col("age") < 40), "10 <= age < 40", [0, 1]),
    (col("age") < 2**70, f"age < {2**70}", [0, 1, 2]),
]


@pytest.mark.parametrize(("built", "text", "expected"), CASES, ids=[case[1] for case in CASES])
def test_both_spellings_select_the_same_rows(built: Any, text: str, expected: list[int]) -> None:
    assert rows(built) == expected
    assert rows(text) == expected
    assert rows(str(built)) == expected  # the text form reads back


@pytest.mark.parametrize("text", [case[1] for case in CASES if "NULL" not in case[1]])
def test_what_is_null_is_neither_true_nor_false(text: str) -> None:
    if "null" in text.lower() or "none" in text.lower():
        return
    assert 3 not in rows(text)
    assert 3 not in rows(f"not ({text})")
    assert rows(f"({text}) or city is null")[-1] == 3
    assert rows(f"not (({text}) and city is not null)")[-1] == 3  # null and false is false


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agee > 1", "unknown field 'agee'"),
        ("age = 'x'", "'age' is int64; got 'x'"),
        ("age = TRUE", "'age' is int64; got True"),
        ("city = 1", "'city' is string; got 1"),
        ("at > 5", "'at' is timestamp; got 5"),
        ("at > 'soon'", "'at' is timestamp; got 'soon'"),
        ("vip < TRUE", "has no <"),
        ("tags = 'a'", "has no =="),
        ("emb = 1", "has no =="),
        ("doc in ['x']", "no isin"),
        ("5 in tags", "'tags' is string; got 5"),
        ("5 in age", "no contains"),
        ("age.startswith('x')", "no startswith"),
        ("age", "must be bool"),
        ("age = city", "cannot compare"),
        ("age = NULL", "use 'is null'"),
        ("age in [NULL]", "use 'is null'"),
        ("age is 5", "null after 'is'"),
        ("1 = 1", "wanted a field"),
        ("age + 1 > 3", "wanted a field"),
        ("age @ 1 @ 2", "no meaning"),
        ("", "cannot read"),
        ("age >", "cannot read"),
        ("age > 1; vip", "cannot read"),
        ("(" * 5000 + "vip" + ")" * 5000, "cannot read"),
        ("not " * 5000 + "vip", "cannot read|deeper than 100"),  # as deep as Python parses
        ("not " * 101 + "vip", "deeper than 100"),
        ("__import__('os').system('x')", "wanted one of the methods"),
        ("age.__class__", "wanted a condition"),
        ("city.upper() = 'X'", "wanted a field"),
        ("city.contains('a', 'b')", "wanted 1 arguments"),
        ("city.contains(*tags)", "wanted a value"),
        ("[vip for vip in tags]", "wanted a condition"),
        ("lambda: vip", "wanted a condition"),
        ("(vip := TRUE)", "cannot read"),
        ("f'{vip}' = city", "wanted"),
    ],
    ids=lambda text: text[:30],
)
def test_everything_else_is_refused_before_any_work(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said) as caught:
        bind(text, TYPES)
    assert caught.value.expression == text


def test_python_words_for_and_or_not_are_caught() -> None:
    with pytest.raises(ExpressionError, match=r"combine with & | ~"):
        bool((col("age") > 1) and (col("age") < 5))
    with pytest.raises(ExpressionError, match="wanted an expression"):
        (col("age") > 1) & True
    with pytest.raises(ExpressionError, match="wants a list"):
        col("city").isin("Oslo")
    with pytest.raises(ExpressionError):
        col("")


def test_words_inside_strings_are_left_alone() -> None:
    assert str(parse("city = 'x = 1 AND y IS NULL'")) == "city == 'x = 1 AND y IS NULL'"
    assert str(parse("city = 'a\\'b'")) == 'city == "a\'b"'


def test_fields_names_all_fields() -> None:
    assert parse("a > 1 and not (b in [1] or 'x' in c) and d = e").fields() == set("abcde")


def test_a_thousand_terms_are_no_deep_nesting() -> None:
    assert rows(" or ".join(["age = 10"] * 5000)) == [0]
    deep = col("vip")
    for _ in range(20_000):
        deep = ~deep
    with pytest.raises(ExpressionError, match="nested too deeply"):
        bind(deep, TYPES)


@pytest.mark.parametrize(("name", "end"), [("city", "\0"), ("raw", b"\0")])
def test_a_zero_at_the_end_of_a_text_counts(name: str, end: Any) -> None:
    short = end[:0] + (b"a" if isinstance(end, bytes) else "a")

    class Texts:
        def column(self, _: str) -> Any:
            return objects(short, short + end), None

    for condition, expected in [
        (col(name) == short + end, [False, True]),
        (col(name) == short, [True, False]),
        (col(name) < short + end, [True, False]),
    ]:
        assert bind(condition, TYPES).matches(Texts()).tolist() == expected


def test_an_integer_beyond_float64_is_refused_before_any_work() -> None:
    with pytest.raises(ExpressionError, match="larger integer"):
        bind(col("score") < 10**400, TYPES)
