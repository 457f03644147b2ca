"""Conditions as bitmaps: the rows that a look at every row gives, and how they are found."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upvec
from upvec import Field, Schema, Vector, col
from upvec.bitmap import Bitmap
from upvec.columns import CHUNK_ROWS
from upvec.condition import condition_in, select_bits
from upvec.expression import Expression, bind
from upvec.read import StateSource
from upvec.scalar_index import Dictionary

TYPES = {
    "n": "int64", "x": "float64", "s": "string", "b": "bool", "at": "timestamp", "raw": "bytes",
    "tags": "list<string>", "sizes": "list<int64>", "parts": "list<float64>",
}  # fmt: skip
TEXTS = ["", "a", "ab", "b", "Ⅳ", "a\0"]
INTEGERS = [0, 1, -1, 7, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, 1.5, -1.0, float(2**53), 1e300, math.inf, -math.inf, math.nan]
TIMES = [np.datetime64(f"20{year}-01-01", "us") for year in (20, 21, 22)]
VALUES: dict[str, list[Any]] = {
    "n": INTEGERS,
    "x": FLOATS,
    "s": TEXTS,
    "b": [True, False],
    "at": TIMES,
    "raw": [text.encode() for text in TEXTS],
}
LISTS: dict[str, list[Any]] = {"tags": TEXTS, "sizes": INTEGERS, "parts": FLOATS}


def schema_of(*, index: bool) -> Schema:
    fields = [Field(name, kind, nullable=True, index=index) for name, kind in TYPES.items()]
    return Schema(Field("id", "int64", primary=True), *fields, Vector("emb", 2, nullable=True))


def cells() -> st.SearchStrategy[dict[str, Any]]:
    """Rows, of which some fields are absent."""
    singles = {name: st.none() | st.sampled_from(values) for name, values in VALUES.items()}
    listed = {
        name: st.none() | st.lists(st.sampled_from(values), max_size=3)
        for name, values in LISTS.items()
    }
    vector = {"emb": st.none() | st.just([1.0, 2.0])}
    return st.fixed_dictionaries({}, optional={**singles, **listed, **vector})


def leaves() -> st.SearchStrategy[Expression]:
    def of(name: str) -> st.SearchStrategy[Expression]:
        field, values = col(name), VALUES[name]
        literals = st.sampled_from(values)
        if name in {"n", "x"}:
            literals = st.sampled_from([*INTEGERS, *FLOATS, 2**70, -(2**70), 2**53 + 2])
        kinds = [
            literals.map(lambda v: field == v),
            literals.map(lambda v: field != v),
            st.lists(literals, max_size=7).map(field.isin),
            st.just(field.is_null()),
        ]
        if name == "b":
            return st.one_of(*kinds, st.just(field))
        kinds += [
            literals.map(lambda v: field < v),
            literals.map(lambda v: field <= v),
            literals.map(lambda v: field > v),
            literals.map(lambda v: field >= v),
            st.tuples(literals, literals).map(lambda pair: field.between(*pair)),
        ]
        if name in {"s", "raw"}:
            kinds += [literals.map(field.contains), literals.map(field.startswith)]
        return st.one_of(*kinds)

    def inside(name: str) -> st.SearchStrategy[Expression]:
        literals = st.sampled_from(
            TEXTS if name == "tags" else [*INTEGERS, *FLOATS, 2**53 + 2, 2**64]
        )
        return literals.map(col(name).contains) | st.just(col(name).is_null())

    both = st.sampled_from([col("n") < col("x"), col("x") == col("n"), col("n") != col("n")])
    vectors = st.just(col("emb").is_null())
    return st.one_of(*map(of, VALUES), *map(inside, LISTS), both, vectors)


def expressions() -> st.SearchStrategy[Expression]:
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
            inner.map(lambda one: ~one),
        ),
        max_leaves=5,
    )


def row_by_row(state: Any, where: Any) -> list[int]:
    rids = state.live_rids()
    return rids[bind(where, state.schema.types).matches(StateSource(state, rids))].tolist()


def check(state: Any, where: Any) -> list[int]:
    selected = select_bits(state, condition_in(state, where))
    found = selected.rids().tolist()
    assert found == row_by_row(state, where), (str(where), selected.explanation)
    assert selected.count == len(found)
    return found


# Ids beside each other, at the ends of chunks, and apart.
IDS = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(st.just("upsert"), st.lists(st.tuples(IDS, cells()), min_size=1, max_size=4)),
    st.tuples(st.just("delete"), st.lists(IDS, min_size=1, max_size=3)),
    st.tuples(st.just("rename"), st.none()),
    st.tuples(st.just("swap"), st.none()),
    st.tuples(st.just("replace"), st.none()),
    st.tuples(st.just("widen"), st.none()),
    st.tuples(st.just("snapshot"), st.none()),
    st.tuples(st.just("transaction"), st.lists(st.tuples(IDS, cells()), min_size=1, max_size=3)),
)


def upsert(target: Any, rows: list[tuple[int, dict[str, Any]]]) -> None:
    known = target.schema.fields.keys() | {"emb"}
    last = {key: {"id": key, **cell} for key, cell in rows}
    for row in last.values():
        target.upsert([{name: value for name, value in row.items() if name in known}])


def transact(collection: upvec.Collection, rows: list[Any], wheres: list[Any]) -> None:
    """Write, go back and write again in the same places, beside another writer."""
    with collection.transaction() as tx:
        for where in wheres:
            check(tx._reading(), where)
        upsert(collection, [(500 + len(rows), rows[0][1])])
        upsert(tx, rows)
        with tx.savepoint() as point:
            upsert(tx, [(900, {"n": 1, "s": "a"})])
            for where in wheres:
                check(tx._reading(), where)
            point.rollback()
        upsert(tx, [(901, {"n": 7, "s": "b"})])
        for where in wheres:
            check(tx._reading(), where)
        tx.rollback()


def apply(
    collection: upvec.Collection, step: tuple[str, Any], held: list[Any], wheres: list[Any]
) -> None:
    kind, what = step
    if kind == "upsert":
        upsert(collection, what)
    elif kind == "delete":
        collection.delete(what)
    elif kind == "snapshot":
        held.append(collection.snapshot()._reading())
    elif kind == "transaction":
        transact(collection, what, wheres)
    elif kind == "rename":
        collection.alter(rename={"s": "t"})
        collection.alter(rename={"t": "s"})
    elif kind == "swap":  # another field has the name from now on
        index = collection.schema.fields["s"].index
        fresh = Field("s", "string", nullable=True, default="ab", index=index)
        collection.alter(rename={"s": "spare"})
        collection.alter(drop="spare", add=fresh)
    elif kind == "replace":
        index = collection.schema.fields["b"].index
        collection.alter(drop="b")
        collection.alter(add=Field("b", "bool", nullable=True, index=index))
    elif kind == "widen":
        index = collection.schema.fields["b"].index
        collection.alter(add=Field("extra_b", "bool", default=True, index=index))
        collection.alter(widen={"extra_b": "int64"})
        check(collection._reading(), "extra_b = 1")
        collection.alter(drop="extra_b")


@pytest.mark.parametrize("index", [True, False], ids=["indexed", "plain"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(STEPS, min_size=1, max_size=8),
    wheres=st.lists(expressions(), min_size=1, max_size=4),
    crowd=st.sampled_from([0, CHUNK_ROWS - 3, CHUNK_ROWS]),
)
def test_bitmaps_select_what_a_look_at_every_row_selects(
    index: bool, steps: list[Any], wheres: list[Expression], crowd: int
) -> None:
    collection = upvec.open(":memory:", schema_of(index=index))
    if crowd:
        ids = np.arange(1000, 1000 + crowd)
        collection.upsert({"id": ids, "n": ids % 5, "s": [TEXTS[i % 6] for i in ids.tolist()]})
    held = [collection._reading()]
    for step in steps:
        apply(collection, step, held, wheres)
        for where in wheres:
            check(collection._reading(), where)
            check(held[len(held) // 2], where)
    for state in held:  # also such as nobody asked before
        for where in wheres:
            check(state, where)
    assert collection.count(wheres[0]) == len(row_by_row(collection._reading(), wheres[0]))


def test_rows_that_come_in_place_are_seen_by_what_is_remembered() -> None:
    for index in (True, False):
        collection = upvec.open(":memory:", schema_of(index=index))
        for n in range(200):
            collection.upsert([{"id": n, "n": n % 3, "s": "ab"[n % 2], "tags": ["a"] * (n % 2)}])
            assert collection.count("n = 1") == (n + 2) // 3
            assert collection.count("s = 'b' and 'a' in tags") == (n + 1) // 2


def explained(collection: upvec.Collection, where: str) -> list[str]:
    state = collection._reading()
    return select_bits(state, condition_in(state, where)).explanation


def test_the_explanation_says_how_each_comparison_was_answered() -> None:
    collection = upvec.open(
        ":memory:",
        Schema(
            Field("id", "int64", primary=True),
            Field("city", "string", index=True),
            Field("age", "int64"),
            Field("bio", "string"),
        ),
    )
    ids = np.arange(10_000)
    cities = [f"city {i % 100}" for i in ids.tolist()]
    collection.upsert({"id": ids, "city": cities, "age": ids % 50, "bio": cities})
    where = "city = 'city 7' and bio.startswith('city') and age < 10"
    assert explained(collection, where) == [
        "city == 'city 7': index, 100 rows",
        "age < 10: column, 2000 rows",
        "bio.startswith('city'): candidates only, 100 rows",
    ]
    assert explained(collection, where)[0].endswith("cached, 100 rows")
    collection.upsert([{"id": 1, "city": "city 7", "age": 3, "bio": "city"}])
    assert explained(collection, where)[1] == "age < 10: cached and column, 2000 rows"


@pytest.mark.parametrize("index", [True, False], ids=["indexed", "plain"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", [2**63, -1]),
        ("n", [-(2**64), 2.0**63]),
        ("n", [2**53 + 1, 1.5]),
        ("n", [2**63 - 1, 2**64]),
        ("n", [2.0**62, 7, math.nan, math.inf]),
        ("x", [2**53 + 1, 2**70]),
        ("x", [math.nan, 1, 2**53]),
    ],
)
def test_isin_is_equality_with_one_of_the_values(index: bool, name: str, values: Any) -> None:
    collection = upvec.open(":memory:", schema_of(index=index))
    numbers = [*INTEGERS, 2**62, 2**62 - 1, 2**62 - 1000]
    collection.upsert([{"id": at, "n": n, "x": float(n)} for at, n in enumerate(numbers)])
    either = col(name) == values[0]
    for value in values[1:]:
        either = either | (col(name) == value)
    wanted = [key for rows in collection.scan(where=either) for key in rows["id"].tolist()]
    where = col(name).isin(values)
    assert [key for rows in collection.scan(where=where) for key in rows["id"].tolist()] == wanted


def test_what_is_remembered_is_bounded() -> None:
    collection = upvec.open(":memory:", schema_of(index=False))
    collection.upsert({"id": np.arange(5000), "n": np.arange(5000)})
    for n in range(400):
        assert collection.count(col("n") < n) == n
    selector = collection._reading().selector
    assert len(selector._entries) <= 256
    assert selector.nbytes() == sum(e.size_bytes for e in selector._entries.values())


def test_a_dictionary_whose_values_are_not_in_use_any_more_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upvec.scalar_index._SPARE_VALUES", 50)
    collection = upvec.open(":memory:", schema_of(index=True))
    collection.upsert([{"id": n, "s": "a"} for n in range(10)])
    assert collection.count("s = 'a'") == 10
    for n in range(500):
        collection.upsert([{"id": n % 10, "s": f"text {n}"}])
    index = collection._reading().columns["s"].index
    assert index is not None
    assert isinstance(index.dictionary, Dictionary)
    assert len(index.dictionary.names) < 150
    assert collection.count("s.startswith('text 49')") == 10


def test_a_transaction_does_not_see_rows_that_others_commit() -> None:
    collection = upvec.open(":memory:", schema_of(index=True))
    collection.upsert([{"id": 1, "n": 5}])
    with collection.transaction() as tx:
        collection.upsert([{"id": 2, "n": 5}])
        assert (len(tx), tx.count("n = 5"), sum(len(rows) for rows in tx.scan())) == (1, 1, 1)


def test_bitmaps_know_their_rows() -> None:
    for size in (0, 1, 63, 64, 65, 200):
        mask = np.arange(size) % 3 == 0
        bits = Bitmap.from_mask(mask)
        assert bits == Bitmap.from_rids(np.flatnonzero(mask), size)
        assert (~bits).rids().tolist() == np.flatnonzero(~mask).tolist()
        assert (bits.count, (bits | ~bits).count, (bits & ~bits).count) == (mask.sum(), size, 0)
        assert bits.without(bits).count == 0
    with pytest.raises(ValueError, match="beyond"):
        Bitmap.from_rids([64], 64)


def test_readers_beside_a_writer_get_rows_that_fulfil_the_condition() -> None:
    collection = upvec.open(":memory:", schema_of(index=True))
    ids = np.arange(5000)

    def batch(turn: int) -> dict[str, Any]:
        # n and s say the same, so that an index that is behind shows.
        values = (ids + turn) % 7
        return {"id": ids, "n": values, "s": [f"s{v}" for v in values.tolist()], "x": values * 1.0}

    collection.upsert(batch(0))
    ended, wrong = threading.Event(), []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not ended.is_set():
            value = int(random.integers(7))
            with collection.snapshot() as snap:
                state = snap._reading()
                for where in (f"n = {value}", f"s = 's{value}'", f"x = {value} and n = {value}"):
                    rids = select_bits(state, condition_in(state, where)).rids()
                    if not (state.columns["n"].gather(rids)[0] == value).all():
                        wrong.append((where, state.seq))
                    if rids.tolist() != row_by_row(state, where):
                        wrong.append((where, state.seq, "rows"))

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    random = np.random.default_rng(9)
    for turn in range(60):
        if turn % 10 == 0:
            collection.upsert(batch(turn))
        n = int(random.integers(7))
        new = 5000 + turn
        collection.upsert([{"id": new, "n": n, "s": f"s{n}", "x": n}])
        collection.delete([int(random.integers(5000))])
    ended.set()
    for reader in readers:
        reader.join()
    assert not wrong
