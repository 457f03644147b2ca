"""Rows in every form → one batch: absent, null and value apart, and nothing guessed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from upvec import DimensionError, Field, InvalidRowError, Schema, Vector
from upvec.ingest import Batch, ingest, vector_column

SCHEMA = Schema(
    Field("id", "string", primary=True),
    Field("n", "int64", nullable=True),
    Field("f", "float64", nullable=True),
    Field("ok", "bool", nullable=True),
    Field("t", "timestamp", nullable=True),
    Field("s", "string", nullable=True),
    Field("b", "bytes", nullable=True),
    Field("j", "json", nullable=True),
    Field("l", "list<int64>", nullable=True),
    Vector("v", 2, nullable=True),
)
UTC = dt.timezone.utc


def cells(batch: Batch, name: str) -> list[Any]:
    """A field as a list: values, None for null, ... for absent."""
    cell = batch.cells.get(name)
    if cell is None:
        return [...] * batch.rows
    listed: list[Any] = cell.values.tolist()
    for row in range(batch.rows):
        if cell.null is not None and cell.null[row]:
            listed[row] = None
        if cell.present is not None and not cell.present[row]:
            listed[row] = ...
    return listed


def one(name: str, value: Any) -> Any:
    return cells(ingest(SCHEMA, [{"id": "a", name: value}]), name)[0]


def test_absent_null_and_value_are_kept_apart_for_every_type() -> None:
    values = {
        "n": 3, "f": 1.5, "ok": True, "s": "x", "b": b"x", "l": [1], "v": [1.0, 2.0],
        "t": dt.datetime(2020, 1, 1),  # noqa: DTZ001
    }  # fmt: skip
    rows = [{"id": "a"}, {"id": "b", **dict.fromkeys(values)}, {"id": "c", **values}]
    batch = ingest(SCHEMA, rows)
    for name, value in values.items():
        assert cells(batch, name) == [..., None, value], name
    assert cells(batch, "j") == [..., ..., ...]


def test_all_forms_of_rows_give_the_same_batch() -> None:
    expected = [["a", "b"], [1, 2], [[1.0, 2.0], [3.0, 4.0]]]
    structured = np.array(
        [("a", 1, [1, 2]), ("b", 2, [3, 4])], dtype=[("id", "U4"), ("n", "i2"), ("v", "f8", (2,))]
    )
    columns = {"id": ["a", "b"], "n": np.array([1, 2], np.uint8), "v": np.array([[1, 2], [3, 4]])}
    dicts = [{"id": "a", "n": 1, "v": [1, 2]}, {"id": "b", "n": 2, "v": np.array([3, 4])}]
    frame = pd.DataFrame({"id": ["a", "b"], "n": [1, 2], "v": [[1, 2], [3, 4]]}, index=[7, 7])
    for rows in (dicts, tuple(dicts), columns, structured, frame):
        batch = ingest(SCHEMA, rows)
        assert [cells(batch, name) for name in ("id", "n", "v")] == expected
    assert cells(ingest(SCHEMA, dicts[0]), "v") == [[1.0, 2.0]]
    assert cells(ingest(SCHEMA, {"id": "a", "l": [1, 2]}), "l") == [[1, 2]]


def test_no_rows_are_a_batch_of_none() -> None:
    for rows in ([], {}, {"id": []}, pd.DataFrame({"id": []}), np.empty(0, [("id", "U1")])):
        assert ingest(SCHEMA, rows).rows == 0


def test_data_frame_gaps_are_null_but_nan_in_a_float_field_stays() -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", "b"],
            "n": [1.0, np.nan],
            "f": [1.5, np.nan],
            "ok": pd.array([True, None], dtype="boolean"),
            "t": pd.to_datetime(["2020-01-01T12:00+02:00", None]),
            "s": pd.Series(["x", None], dtype="string"),
            "l": [[1], None],
            "v": [None, [1, 2]],
        }
    )
    batch = ingest(SCHEMA, frame)
    assert cells(batch, "n") == [1, None]
    assert cells(batch, "f")[0] == 1.5
    assert np.isnan(cells(batch, "f")[1])
    assert cells(batch, "ok") == [True, None]
    assert cells(batch, "t") == [dt.datetime(2020, 1, 1, 10), None]  # noqa: DTZ001
    assert cells(batch, "s") == ["x", None]
    assert cells(batch, "l") == [[1], None]
    assert cells(batch, "v") == [None, [1.0, 2.0]]
    with pytest.raises(InvalidRowError, match=r"row 1, field 'n': got 1.5"):
        ingest(SCHEMA, pd.DataFrame({"id": ["a", "b"], "n": [1.0, 1.5]}))


def test_timestamps_come_from_datetimes_dates_and_datetime64() -> None:
    wanted = dt.datetime(2020, 1, 2, 3)  # noqa: DTZ001
    plus_two = dt.timezone(dt.timedelta(hours=2))
    for value in (
        wanted,
        wanted.replace(tzinfo=UTC),
        dt.datetime(2020, 1, 2, 5, tzinfo=plus_two),
        np.datetime64("2020-01-02T03", "ns"),
        pd.Timestamp("2020-01-02T03"),
    ):
        assert one("t", value) == wanted, value
    assert one("t", dt.date(2020, 1, 2)) == dt.datetime(2020, 1, 2)  # noqa: DTZ001
    assert one("t", np.datetime64("NaT", "us")) is None
    mixed = [{"id": "a", "t": dt.date(2020, 1, 2)}, {"id": "b", "t": np.datetime64("2020-01-03")}]
    assert cells(ingest(SCHEMA, mixed), "t")[1] == dt.datetime(2020, 1, 3)  # noqa: DTZ001
    before_1970 = np.array(["1900-01-01", "NaT"], "M8[D]")
    batch = ingest(SCHEMA, {"id": ["a", "b"], "t": before_1970})
    assert cells(batch, "t") == [dt.datetime(1900, 1, 1), None]  # noqa: DTZ001


def test_numpy_scalars_and_subclasses_are_what_they_stand_for() -> None:
    assert one("n", np.uint8(3)) == 3
    assert one("f", np.float32(1.5)) == 1.5
    assert one("f", 3) == 3.0
    assert one("ok", np.bool_(True)) is True
    assert type(one("s", np.str_("x"))) is str
    assert one("b", bytearray(b"x")) == b"x"
    assert one("l", np.array([1, 2])) == [1, 2]
    assert cells(ingest(SCHEMA, {"id": np.array(["a"]), "n": np.ma.array([1], mask=[True])}), "n") \
        == [None]  # fmt: skip


def test_json_is_kept_as_sorted_text() -> None:
    assert one("j", {"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'
    with pytest.raises(InvalidRowError, match="json"):
        one("j", {1, 2})
    with pytest.raises(InvalidRowError, match="json"):
        one("j", float("nan"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", True), ("n", 1.0), ("n", "1"), ("n", 2**63), ("n", -(2**63) - 1),
        ("n", np.uint64(2**63)), ("n", np.array([2**63], np.uint64)),
        ("f", True), ("f", "1"), ("f", 10**400), ("ok", 1), ("ok", "true"),
        ("t", 5), ("t", "2020-01-01"), ("s", 5), ("s", b"x"), ("s", "\ud800"),
        ("b", "x"), ("l", 5), ("l", [1, "x"]), ("l", [1, None]), ("l", [True]), ("l", "12"),
    ],
)  # fmt: skip
def test_nothing_is_guessed(name: str, value: Any) -> None:
    rows: Any = [{"id": "a"}, {"id": "b", name: value}, {"id": "c"}]
    if isinstance(value, np.ndarray):
        rows = {"id": ["a", "b"], name: np.array([0, value[0]], value.dtype)}
    with pytest.raises(InvalidRowError) as caught:
        ingest(SCHEMA, rows)
    assert (caught.value.rows, caught.value.field) == ((1,), name)


def test_all_offending_rows_are_named_by_their_place_in_the_batch() -> None:
    rows = [{"id": "a"}, {"id": "b", "n": "x"}, {"id": "c", "n": 1}, {"id": "d", "n": "y"}]
    with pytest.raises(InvalidRowError, match="rows 1, 3, field 'n': got 'x'") as caught:
        ingest(SCHEMA, rows)
    assert caught.value.rows == (1, 3)


def test_extra_fields_are_refused_or_ignored() -> None:
    rows = [{"id": "a"}, {"id": "b", "zz": 1}]
    with pytest.raises(InvalidRowError, match="unknown field 'zz'") as caught:
        ingest(SCHEMA, rows)
    assert caught.value.rows == (1,)
    loose = Schema(Field("id", "string", primary=True), extra="ignore")
    assert list(ingest(loose, rows).cells) == ["id"]


@pytest.mark.parametrize(
    "rows",
    [
        5, "abc", None, [1, 2], {"id": ["a"], "n": [1, 2]}, {"id": ["a"], "n": 1},
        pd.DataFrame([[1, 2]], columns=["id", "id"]), np.zeros(3), {1, 2},
        {"id": ["a"], "n": np.zeros((1, 2), int)},
    ],
    ids=lambda rows: type(rows).__name__,
)  # fmt: skip
def test_what_holds_no_rows_is_refused(rows: Any) -> None:
    with pytest.raises(InvalidRowError):
        ingest(SCHEMA, rows)


def test_vectors_take_all_number_types_and_are_copied() -> None:
    vector = Vector("v", 2)
    for dtype in (np.float16, np.float32, np.float64, np.int8, np.uint64):
        given = np.ones((3, 2), dtype)
        values, null = vector_column(vector, given)
        given[:] = 0
        assert (values.dtype, values.shape, null) == (np.float32, (3, 2), None)
        assert (values == 1).all()
    strided = np.ones((3, 4), np.float32)[:, ::2]
    assert vector_column(vector, strided)[0].flags.c_contiguous


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([[1, 2], [1]], DimensionError), ([[1, 2], [1, 2, 3]], DimensionError),
        ([[1, 2], []], DimensionError), ([[1, 2], None], InvalidRowError),
        ([[1, 2], 5], InvalidRowError), ([[1, 2], [[1, 2]]], InvalidRowError),
        ([[1, 2], [float("nan"), 1]], InvalidRowError), ([[1, 2], [-1e39, 1]], InvalidRowError),
        ([[3e38, 3e38], [float("inf"), 1]], InvalidRowError),
    ],
)  # fmt: skip
def test_vectors_that_do_not_fit_name_their_row(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        vector_column(Vector("v", 2), value)
    assert caught.value.rows == (1,)


def test_large_vectors_are_not_mistaken_for_infinite() -> None:
    values, _ = vector_column(Vector("v", 2, metric="cosine"), np.full((4, 2), 3e38))
    assert np.isfinite(values).all()
    vector_column(Vector("v", 2), np.full((4, 2), 7e17))


@pytest.mark.parametrize("dim", [2, 7, 301])
def test_cosine_vectors_get_unit_length_once_and_the_same_bytes_in_any_batch(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vector = Vector("v", dim, metric="cosine")
    raw = rng.standard_normal((40, dim)) * 10 ** rng.uniform(-18, 18, (40, 1))
    together, _ = vector_column(vector, raw)
    alone = np.concatenate([vector_column(vector, row[None])[0] for row in raw])
    assert together.tobytes() == alone.tobytes()
    assert np.allclose(np.linalg.norm(together.astype(np.float64), axis=1), 1, atol=3e-7)
    assert vector_column(vector, together)[0].tobytes() == together.tobytes()


LATE = dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=1)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("f", [0.0, 2**1024 - 1]),
        ("f", [0.0, 10**5000]),
        ("n", [0, 10**5000]),
        ("j", [0, 10**5000]),
        ("t", [dt.datetime(2020, 1, 1, tzinfo=UTC), LATE]),
        ("t", np.array([0, 2**62], "M8[s]")),
        ("t", [np.datetime64(0, "s"), np.datetime64(2**62, "s")]),
    ],
)
def test_what_overflows_is_refused_with_its_row(name: str, values: Any) -> None:
    with pytest.raises(InvalidRowError) as caught:
        ingest(SCHEMA, {"id": ["a", "b"], name: values})
    assert (caught.value.rows, caught.value.field) == ((1,), name)


def test_masked_values_are_null_and_a_vector_is_masked_as_a_whole() -> None:
    mask = [[True, True], [False, False]]
    vectors = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=mask)
    batch = ingest(SCHEMA, {"id": ["a", "b"], "v": vectors, "n": np.ma.array([5, 6])})
    assert cells(batch, "v") == [None, [3.0, 4.0]]
    assert type(batch.cells["n"].values) is np.ndarray
    vectors.mask = [[True, False], [False, False]]
    with pytest.raises(InvalidRowError, match="all of them masked"):
        ingest(SCHEMA, {"id": ["a", "b"], "v": vectors})


def test_nat_of_pandas_is_null_beside_other_moments() -> None:
    moment = dt.datetime(2020, 1, 1, tzinfo=UTC)
    values = [pd.NaT, moment, np.datetime64("NaT", "us"), dt.date(2020, 1, 1), pd.Timestamp(moment)]
    batch = ingest(SCHEMA, {"id": list("abcde"), "t": values})
    naive = moment.replace(tzinfo=None)
    assert cells(batch, "t") == [None, naive, None, naive, naive]
