"""Reading records: ordered scans, several vector fields, fusion, diversity and groups.

Every answer is compared with a plain reference, over rows kept as dicts beside the collection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import upvec
from upvec import Field, Schema, Unique, Vector
from upvec.diversity import diverse

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("n", "int64", nullable=True),
    Field("f", "float64", nullable=True),
    Field("t", "timestamp", nullable=True),
    Field("s", "string", nullable=True),
    Field("b", "bytes", nullable=True),
    Field("flag", "bool", nullable=True),
    Field("j", "json", nullable=True),
    Field("tags", "list<string>", nullable=True),
    Vector("emb", 2, nullable=True),
    Vector("face", 3, metric="cosine", nullable=True),
)
ORDERED = ("id", "n", "f", "t", "s", "b", "flag")
Row = dict[str, Any]
Rows = list[Row]

small = st.integers(-3, 3)
cells = {
    "n": st.sampled_from([-(2**63), 2**63 - 1, 0, 1, 2]),
    "f": st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 1.5, -1.5]),
    "t": small.map(lambda days: np.datetime64("2020-01-01", "us") + np.timedelta64(days, "D")),
    "s": st.sampled_from(["", "a", "B", "b", "é", "😀", "\uffff"]),
    "b": st.sampled_from([b"", b"a", b"\xff", b"\x00"]),
    "flag": st.booleans(),
    "emb": st.tuples(small, small),
    "face": st.tuples(st.integers(1, 3), small, small),
}


@st.composite
def batches(draw: st.DrawFn) -> Rows:
    ids = draw(st.lists(st.integers(0, 40), unique=True, max_size=25))
    return [{"id": i} | {n: draw(st.none() | cell) for n, cell in cells.items()} for i in ids]


@st.composite
def histories(draw: st.DrawFn) -> tuple[upvec.Collection, dict[int, Row]]:
    """A collection that was written to a few times, and its rows by key."""
    col = upvec.open(":memory:", SCHEMA)
    rows: dict[int, Row] = {}
    for _ in range(draw(st.integers(1, 3))):
        batch = draw(batches())
        col.upsert(batch)
        rows |= {row["id"]: row for row in batch}
        gone = draw(st.lists(st.integers(0, 40), max_size=5))
        col.delete(gone)
        rows = {key: row for key, row in rows.items() if key not in gone}
    return col, rows


def ways_to_read(col: upvec.Collection) -> Iterator[Any]:
    """The collection, then a transaction and a snapshot of the same while it changes."""
    yield col
    with col.transaction() as tx:
        yield tx
        tx.rollback()
    with col.snapshot() as snap:
        ids = [row["id"] for rows in col.scan(fields=["id"]) for row in rows]
        col.upsert([{"id": i, "emb": [9, 9], "face": [1, 1, 1], "s": "zz", "n": 7} for i in ids])
        col.upsert([{"id": i, "emb": [i, 0], "f": 0.5} for i in range(100, 120)])
        col.delete(ids[::2])
        yield snap


def stored_order(col: upvec.Collection) -> list[int]:
    return [row["id"] for rows in col.scan(fields=["id"]) for row in rows]


def in_order(rows: Rows, name: str, *, descending: bool) -> Rows:
    def rank(row: Row) -> int:
        value = row[name]
        if value is None:
            return 2
        return int(isinstance(value, float) and math.isnan(value))

    parts: list[Rows] = [[row for row in rows if rank(row) == part] for part in range(3)]
    return sorted(parts[0], key=lambda r: r[name], reverse=descending) + parts[1] + parts[2]


@settings(max_examples=60, deadline=None)
@given(histories(), st.sampled_from(ORDERED), st.booleans(), st.none() | st.integers(0, 30))
def test_a_scan_in_order_is_a_stable_sort_with_nan_and_null_last(
    history: tuple[upvec.Collection, dict[int, Row]],
    name: str,
    descending: bool,
    limit: int | None,
) -> None:
    col, rows = history
    stored = [rows[key] for key in stored_order(col)]
    wanted = [r["id"] for r in in_order(stored, name, descending=descending)][:limit]
    for reader in ways_to_read(col):
        batches = list(reader.scan(order_by=name, descending=descending, limit=limit, batch_rows=4))
        assert [key for batch in batches for key in batch["id"].tolist()] == wanted
        assert all(len(batch) == 4 for batch in batches[:-1])


@pytest.mark.parametrize("name", ["n", "f", "s", "b"])
@pytest.mark.parametrize("limit", [1, 100, 1500, 2999, None])
def test_an_order_holds_over_many_rows_of_few_values(name: str, limit: int | None) -> None:
    rng = np.random.default_rng(3)
    numbers = rng.integers(0, 400, 3000).tolist()
    made: dict[str, Callable[[int], Any]] = {
        "n": int,
        "f": float,
        "s": str,
        "b": lambda i: b"%d" % i,
    }
    col = upvec.open(":memory:", SCHEMA)
    rows = [{"id": i, name: made[name](n) if n % 10 else None} for i, n in enumerate(numbers)]
    col.upsert(rows)
    for descending in (False, True):
        got = [
            key
            for batch in col.scan(order_by=name, descending=descending, limit=limit, fields=["id"])
            for key in batch["id"].tolist()
        ]
        assert got == [r["id"] for r in in_order(rows, name, descending=descending)][:limit]


def test_a_limit_without_an_order_takes_the_first_stored() -> None:
    col = upvec.open(":memory:", SCHEMA)
    col.upsert([{"id": i, "n": i % 2} for i in range(10)])
    assert next(col.scan(where="n = 1", limit=3))["id"].tolist() == [1, 3, 5]
    assert list(col.scan(limit=0)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order_by": "emb"}, "order_by='emb', a vector.*wanted one of: id, n, f, t, s, b, flag"),
        ({"order_by": "j"}, "order_by='j', a json, which has no order"),
        ({"order_by": "tags"}, "a list<string>, which has no order"),
        ({"order_by": "zz"}, "order_by='zz', which is no field"),
        ({"order_by": ["n"]}, "which is no field"),
        ({"limit": -1}, "limit=-1"),
        ({"limit": 1.5}, "limit=1.5"),
        ({"limit": True}, "limit=True"),
        ({"descending": True}, "descending=True without order_by="),
    ],
)
def test_a_scan_refuses_what_is_no_order(arguments: Any, message: str) -> None:
    col = upvec.open(":memory:", SCHEMA)
    with pytest.raises(ValueError, match=message):
        col.scan(**arguments)


# --- Search -------------------------------------------------------------------------------------


def distance(name: str, query: Any, row: Row) -> float:
    if name == "emb":
        return float(((np.float32(query) - np.float32(row["emb"])) ** 2).sum())
    query, face = np.float64(query), np.float64(row["face"])
    return float(1 - query @ face / np.linalg.norm(query) / np.linalg.norm(face))


@settings(max_examples=40, deadline=None)
@given(
    histories(),
    st.lists(st.tuples(cells["emb"], cells["face"]), min_size=1, max_size=3),
    st.sampled_from([{}, {"emb": 0.7, "face": 0.3}, {"face": 5.0}]),
    st.sampled_from([0.5, 60]),
    st.integers(1, 12),
    st.integers(0, 30),
)
def test_fusion_is_the_weighted_sum_of_reciprocal_ranks(
    history: tuple[upvec.Collection, dict[int, Row]],
    pairs: list[Any],
    weights: dict[str, float],
    constant: float,
    k: int,
    more: int,
) -> None:
    col, _ = history
    order = stored_order(col)
    queries = {"emb": [pair[0] for pair in pairs], "face": [pair[1] for pair in pairs]}
    wanted = []
    for emb, face in pairs:
        scores: dict[int, float] = {}
        near: dict[str, dict[int, float]] = {"emb": {}, "face": {}}
        for name, query in (("emb", emb), ("face", face)):
            hits = col.search(query, k + more, field=name, exact=True)
            for rank, (key, far) in enumerate(
                zip(hits["id"].tolist(), hits["distance"].tolist(), strict=True), 1
            ):
                scores[key] = scores.get(key, 0.0) + weights.get(name, 1.0) / (constant + rank)
                near[name][key] = far
        best = sorted(scores, key=lambda key: (-scores[key], order.index(key)))[:k]
        wanted.append((best, scores, near))
    for reader in ways_to_read(col):
        hits = reader.search(
            queries,
            k,
            weights=weights or None,
            rank_constant=constant,
            candidates=k + more,
            exact=True,
        )
        assert hits.counts.tolist() == [len(best) for best, _, _ in wanted]
        for query, (best, scores, near) in enumerate(wanted):
            of_query = hits[query]
            assert of_query["id"].tolist() == best
            assert np.allclose(of_query["score"], [scores[key] for key in best])
            for name in near:
                found = [near[name].get(key, math.nan) for key in best]
                assert np.array_equal(of_query.distances[name], np.float32(found), equal_nan=True)


def plain_mmr(far: list[float], rows: Rows, name: str, k: int, balance: float) -> list[int]:
    """The definition, one pair at a time."""
    if name == "emb":

        def like(a: Any, b: Any) -> float:
            return -float(((np.float64(a) - np.float64(b)) ** 2).sum())

        near = [-value for value in far]
    else:

        def like(a: Any, b: Any) -> float:
            return float(np.dot(np.float64(a), np.float64(b)))

        near = [1 - value for value in far]
    chosen: list[int] = []
    while len(chosen) < min(k, len(rows)):
        best, best_value = -1, -math.inf
        for at in range(len(rows)):
            if at in chosen:
                continue
            value = balance * near[at]
            if chosen:
                closest = max(like(rows[at][name], rows[c][name]) for c in chosen)
                value -= (1 - balance) * closest
            if value > best_value + 1e-12:
                best, best_value = at, value
        chosen.append(best)
    return chosen


@settings(max_examples=40, deadline=None)
@given(
    histories(),
    st.lists(cells["emb"], min_size=1, max_size=3),
    st.sampled_from([0, 0.25, 0.5, 1]),
    st.integers(1, 6),
    st.integers(0, 10),
)
def test_mmr_is_its_definition(
    history: tuple[upvec.Collection, dict[int, Row]],
    queries: list[Any],
    balance: float,
    k: int,
    more: int,
) -> None:
    col, rows = history
    wanted = []
    for query in queries:
        hits = col.search(query, k + more, field="emb", exact=True)
        found = [rows[key] for key in hits["id"].tolist()]
        order = plain_mmr(hits["distance"].tolist(), found, "emb", k, balance)
        wanted.append([found[at]["id"] for at in order])
    for reader in ways_to_read(col):
        hits = reader.search(queries, k, field="emb", mmr=balance, candidates=k + more, exact=True)
        assert [hits[query]["id"].tolist() for query in range(len(queries))] == wanted


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_mmr_of_real_numbers_is_its_definition(metric: str) -> None:
    rng = np.random.default_rng(5)
    col = upvec.open(
        ":memory:", Schema(Field("id", "int64", primary=True), Vector("v", 8, metric=metric))
    )
    col.upsert({"id": np.arange(200), "v": rng.standard_normal((200, 8))})
    stored = col.get(np.arange(200))["v"]
    for query in rng.standard_normal((5, 8)).astype(np.float32):
        near = col.search(query, 50, exact=True)
        found = [{"emb" if metric == "l2" else "v": stored[i]} for i in near["id"].tolist()]
        name = "emb" if metric == "l2" else "v"
        for balance in (0.3, 0.7, 1.0):
            order = plain_mmr(near["distance"].tolist(), found, name, 12, balance)
            hits = col.search(query, 12, mmr=balance, candidates=50, exact=True)
            assert hits["id"].tolist() == near["id"][order].tolist()
            assert hits["distance"].tolist() == near["distance"][order].tolist()


def test_mmr_without_candidates_chooses_nothing() -> None:
    nothing = diverse(
        np.zeros(0, np.float32), np.zeros((0, 2), np.float32), 3, metric="l2", balance=0.5
    )
    assert len(nothing) == 0


def plain_groups(near: Rows, name: str, groups: int | None, size: int) -> list[int]:
    found: dict[Any, list[int]] = {}
    for row in near:
        label = ("row", row["id"]) if row[name] is None else ("value", row[name])
        found.setdefault(label, []).append(row["id"])
    return [key for members in list(found.values())[:groups] for key in members[:size]]


@settings(max_examples=60, deadline=None)
@given(
    histories(),
    st.lists(cells["emb"], min_size=1, max_size=3),
    st.sampled_from(["n", "t", "s", "b", "flag", "id"]),
    st.integers(1, 6),
    st.integers(1, 3),
    st.none() | st.integers(0, 12),
)
def test_groups_are_those_of_the_whole_ranking(
    history: tuple[upvec.Collection, dict[int, Row]],
    queries: list[Any],
    name: str,
    k: int,
    size: int,
    radius: int | None,
) -> None:
    col, rows = history
    wanted, within = [], []
    for query in queries:
        near = col.search(query, 1000, field="emb", exact=True, radius=radius)
        found = [rows[key] for key in near["id"].tolist()]
        wanted.append(plain_groups(found, name, k, size))
        within.append(plain_groups(found, name, None, size))
    for reader in ways_to_read(col):
        asked = {"field": "emb", "group_by": name, "group_size": size, "exact": True}
        hits = reader.search(queries, k, radius=radius, **asked)
        assert [hits[query]["id"].tolist() for query in range(len(queries))] == wanted
        if radius is not None:
            hits = reader.search(queries, None, radius=radius, **asked)
            assert [hits[query]["id"].tolist() for query in range(len(queries))] == within


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("where", [None, "n < 12"])
def test_groups_come_back_although_the_nearest_rows_are_all_of_one(
    exact: bool, where: str | None
) -> None:
    col = upvec.open(":memory:", SCHEMA)
    rng = np.random.default_rng(2)
    places = rng.standard_normal((3000, 2)) * 0.1
    groups = np.where(np.arange(3000) < 2900, 0, np.arange(3000) % 20)
    places[groups > 0] += 50 + groups[groups > 0, None]
    col.upsert({"id": np.arange(3000), "n": groups, "emb": places})
    hits = col.search([[0, 0], [70, 70]], 8, field="emb", group_by="n", exact=exact, where=where)
    assert hits[0]["n"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert hits[1]["n"].tolist() == (
        [11, 10, 9, 8, 7, 6, 5, 4] if where else [19, 18, 17, 16, 15, 14, 13, 12]
    ), "by the best of each"
    many = col.search([0, 0], 100, field="emb", group_by="n", exact=exact, where=where)
    assert many["n"].tolist() == list(range(12 if where else 20))


def test_groups_of_fused_hits_widen_the_candidates() -> None:
    col = upvec.open(":memory:", SCHEMA)
    numbers = np.arange(400)
    faces = np.stack([np.ones(400), numbers / 400, np.zeros(400)], axis=1)
    col.upsert(
        {
            "id": numbers,
            "n": np.where(numbers < 390, 0, numbers),
            "emb": np.stack([numbers, numbers * 0], axis=1),
            "face": faces,
        }
    )
    hits = col.search({"emb": [0, 0], "face": [1, 0, 0]}, 3, group_by="n", group_size=2, exact=True)
    assert hits["id"].tolist() == [0, 1, 390, 391]


SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({"weights": {"emb": 1}}, "weights=.*with one query, wanted queries by vector field"),
    ({"rank_constant": 9}, "rank_constant=9 with one query"),
    ({"candidates": 9}, "candidates=9, wanted them with mmr= or queries by field"),
    ({"mmr": 0.5, "candidates": 3}, "candidates=3, wanted at least k=10"),
    ({"mmr": 0.5, "candidates": 0}, "candidates=0, wanted a positive integer"),
    ({"mmr": 1.5}, "mmr=1.5, wanted a number from 0 to 1"),
    ({"mmr": math.nan}, "mmr=nan"),
    ({"mmr": True}, "mmr=True"),
    ({"mmr": 0.5, "k": None, "radius": 1.0}, "mmr=0.5 with k=None"),
    ({"mmr": 0.5, "group_by": "n"}, "mmr=0.5 and group_by='n', wanted one of the two"),
    ({"group_size": 2}, "group_size=2 without group_by="),
    ({"group_by": "n", "group_size": 0}, "group_size=0, wanted a positive integer"),
    ({"group_by": "n", "group_size": None}, "group_size=None"),
    ({"group_by": "f"}, "group_by='f', a float64.*wanted one of: id, n, t, s, b, flag"),
    ({"group_by": "emb"}, "group_by='emb', a vector"),
    ({"group_by": "zz"}, "group_by='zz', which is no field"),
]
FUSED: list[tuple[dict[str, Any], str]] = [
    ({"field": "emb"}, "field='emb' and queries by field"),
    ({"radius": 1.0}, "radius=1.0 with queries by field"),
    ({"k": None}, "k=None wants a radius="),
    ({"k": None, "radius": 1.0}, "radius=1.0 with queries by field"),
    ({"mmr": 0.5}, "mmr=0.5 with queries by field"),
    ({"weights": {"zz": 1}}, "weights=.'zz': 1., wanted .*of: emb, face"),
    ({"weights": {"emb": 0}}, r"weights\['emb'\]=0, wanted a positive number"),
    ({"weights": {"emb": math.inf}}, "wanted a positive number"),
    ({"weights": [1, 2]}, r"weights=\[1, 2\]"),
    ({"rank_constant": -1}, "rank_constant=-1, wanted a number from 0 on"),
    ({"queries": {}}, "queries={}"),
    ({"queries": {"emb": [[0, 0]], "face": [1, 0, 0]}}, "wanted as many for every field"),
    ({"queries": {"emb": np.zeros((2, 2)), "face": np.ones((3, 3))}}, "as many for every field"),
]


@pytest.mark.parametrize(("arguments", "message"), SEARCHES)
def test_a_search_refuses_options_that_do_not_go_together(
    arguments: dict[str, Any], message: str
) -> None:
    col = upvec.open(":memory:", SCHEMA)
    with pytest.raises(ValueError, match=message):
        col.search([0, 0], **{"field": "emb"} | arguments)


@pytest.mark.parametrize(("arguments", "message"), FUSED)
def test_a_search_of_several_fields_refuses_what_is_for_one(
    arguments: dict[str, Any], message: str
) -> None:
    col = upvec.open(":memory:", SCHEMA)
    arguments = {"queries": {"emb": [0, 0], "face": [1, 0, 0]}} | arguments
    with pytest.raises(ValueError, match=message):
        col.search(**arguments)


def test_queries_by_field_have_to_fit_their_fields() -> None:
    col = upvec.open(":memory:", SCHEMA)
    with pytest.raises(upvec.SchemaError, match="field='zz'"):
        col.search({"zz": [0, 0]})
    with pytest.raises(upvec.DimensionError, match="field 'face' wants"):
        col.search({"emb": [0, 0], "face": [0, 0]})


def test_a_stored_score_is_not_taken_for_that_of_the_hits() -> None:
    col = upvec.open(
        ":memory:", Schema(Field("id", "int64", primary=True), Field("score", "int64"),
                           Vector("v", 1))
    )  # fmt: skip
    col.upsert([{"id": 1, "score": 5, "v": [0]}])
    assert col.search([0])["score"].tolist() == [5]
    assert col.search([[0], [0]])[1]["score"].tolist() == [5]
    with pytest.raises(ValueError, match="wanted fields= without 'score'"):
        col.search({"v": [0]})
    assert col.search({"v": [0]}, fields=["id"]).to_dicts() == [{"id": 1, "score": 1 / 61}]


def test_an_empty_collection_answers_all_of_it() -> None:
    col = upvec.open(":memory:", SCHEMA)
    assert list(col.scan(order_by="s", limit=3)) == []
    assert len(col.search({"emb": [0, 0], "face": [1, 0, 0]})) == 0
    assert len(col.search([0, 0], field="emb", mmr=0.5)) == 0
    assert len(col.search([0, 0], field="emb", group_by="n")) == 0
    for queries in (np.zeros((0, 2)), {"emb": np.zeros((0, 2))}):
        field = None if isinstance(queries, dict) else "emb"
        assert len(col.search(queries, field=field, group_by="n")) == 0
        assert len(col.search(queries, field=field)) == 0


# --- Several vector fields ----------------------------------------------------------------------


def test_a_row_without_one_vector_is_found_by_the_other() -> None:
    col = upvec.open(":memory:", SCHEMA)
    col.upsert(
        [
            {"id": 1, "emb": [0, 0], "face": [1, 0, 0]},
            {"id": 2, "emb": [1, 0]},
            {"id": 3, "face": [0, 1, 0]},
            {"id": 4},
        ]
    )

    def found() -> tuple[list[int], list[int]]:
        by_emb = col.search([0, 0], field="emb")["id"].tolist()
        return by_emb, col.search([1, 0, 0], field="face")["id"].tolist()

    assert found() == ([1, 2], [1, 3])
    assert col.count() == 4
    assert col.get([4, 3]).null("emb").tolist() == [True, True]
    assert col.get([4, 3])["face"][1].tolist() == [0, 1, 0]
    col.update([{"id": 2, "face": [0, 0, 1]}, {"id": 1, "emb": None}])
    assert found() == ([2], [1, 3, 2])
    col.update([{"id": 1, "emb": [0, 0]}, {"id": 2, "face": None}, {"id": 4, "emb": [5, 5]}])
    assert found() == ([1, 2, 4], [1, 3])
    fused = col.search({"emb": [0, 0], "face": [0, 1, 0]})
    assert sorted(fused["id"].tolist()) == [1, 2, 3, 4]


def test_a_vector_field_that_is_added_is_searched_and_one_dropped_is_not() -> None:
    col = upvec.open(":memory:", Schema(Field("id", "int64", primary=True), Vector("first", 1)))
    col.upsert([{"id": i, "first": [i]} for i in range(3)])
    with col.snapshot() as before:
        col.alter(add=[Vector("second", 2, nullable=True)])
        col.update([{"id": 1, "second": [1, 0]}])
        assert col.search([0, 0], field="second")["id"].tolist() == [1]
        assert col.search({"first": [0], "second": [0, 0]}, k=2)["id"].tolist() == [1, 0]
        col.alter(drop=["first"])
        assert col.search([0, 0])["id"].tolist() == [1]
        assert before.search([2])["id"].tolist() == [2, 1, 0]
        with pytest.raises(upvec.SchemaError, match="field='first'; the vector fields are: second"):
            col.search({"first": [0]})


def test_a_transaction_reads_its_own_rows_in_every_way() -> None:
    col = upvec.open(":memory:", SCHEMA)
    col.upsert([{"id": 1, "n": 5, "emb": [0, 0], "face": [1, 0, 0]}])
    with col.transaction() as tx:
        tx.upsert([{"id": 2, "n": 3, "emb": [0, 0], "face": [0, 1, 0]}, {"id": 3, "n": 3}])
        tx.update([{"id": 3, "emb": [4, 0]}])
        assert next(tx.scan(order_by="n", limit=2))["id"].tolist() == [2, 3]
        fused = tx.search({"emb": [0, 0], "face": [0, 1, 0]}, k=1, weights={"face": 2})
        assert fused["id"].tolist() == [2]
        assert tx.search([0, 0], 3, field="emb", mmr=0.1)["id"].tolist()[1] == 3
        assert len(tx.search([0, 0], field="emb", group_by="n")) == 2
        assert len(col.search([0, 0], field="emb", group_by="n")) == 1


# --- Reading by key -----------------------------------------------------------------------------

KEYED = Schema(
    Field("id", "string", primary=True),
    Field("tenant", "string", nullable=True),
    Field("name", "string", nullable=True),
    Field("seen", "timestamp", nullable=True),
    unique=[Unique("tenant", "name", name="handle"), Unique("seen")],
    ttl=("seen", "1d"),
)


@pytest.fixture
def keyed() -> upvec.Collection:
    col = upvec.open(":memory:", KEYED)
    now = np.datetime64("now", "us")
    col.upsert(
        [
            {"id": "a", "tenant": "x", "name": "n", "seen": now},
            {"id": "b", "tenant": "x", "name": None},
            {"id": "c", "tenant": "x", "name": "old", "seen": now - np.timedelta64(2, "D")},
        ]
    )
    return col


def test_get_by_a_composite_key_with_nulls_and_expired_rows(keyed: upvec.Collection) -> None:
    for reader in (keyed, keyed.snapshot()):
        rows = reader.get(
            [("x", "n"), ("x", None), (None, None), ("x", "old"), ("y", "n")], on="handle"
        )
        assert rows["id"].tolist() == ["a", None, None, None, None]
        assert reader.get(("x", "n"), on="handle")["id"].tolist() == ["a"]
        assert reader.get([], on="handle").found.tolist() == []
        assert reader.get(["a", "c", "b", "a"]).found.tolist() == [True, False, True, True]
        with pytest.raises(upvec.InvalidRowError, match="wanted a tuple of 2 for handle"):
            reader.get(["x"], on="handle")


def test_a_projection_of_nothing_tells_what_is_stored(keyed: upvec.Collection) -> None:
    rows = keyed.get(["a", "zz"], fields=[])
    assert (rows.fields, rows.found.tolist()) == ((), [True, False])
    assert rows.version.tolist() == [1, 0]
    assert rows.to_dicts() == [{}, None]
    assert [len(batch) for batch in keyed.scan(fields=[], batch_rows=1)] == [1, 1]
    with pytest.raises(ValueError, match="unknown field 'zz'"):
        keyed.get(["a"], fields=["id", "zz"])
    assert keyed.get(["a"], fields=["id", "id"]).fields == ("id",)


def test_a_query_is_the_same_in_whatever_form_it_comes() -> None:
    schema = upvec.Schema(upvec.Field("id", "int64", primary=True), upvec.Vector("emb", 8))
    col = upvec.open(":memory:", schema)
    rows = np.random.default_rng(0).random((50, 8), dtype=np.float32)
    col.upsert({"id": np.arange(50), "emb": rows})
    wide = np.repeat(rows[7], 2)
    forms = (rows[7], rows[7:8], wide[::2], rows[7].astype(">f4"), rows[7].tolist(), list(rows[7]))
    wanted = col.search(rows[7], 5)
    for form in forms:
        found = col.search(form, 5)
        assert found["id"].tolist() == wanted["id"].tolist(), form
        assert found["distance"].tolist() == wanted["distance"].tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_query_that_is_no_vector_is_refused(bad: float) -> None:
    schema = upvec.Schema(upvec.Field("id", "int64", primary=True), upvec.Vector("emb", 8))
    col = upvec.open(":memory:", schema)
    col.upsert([{"id": 1, "emb": [0] * 8}])
    query = np.zeros(8, dtype=np.float32)
    query[3] = bad
    with pytest.raises(upvec.InvalidRowError, match="wanted"):
        col.search(query)
