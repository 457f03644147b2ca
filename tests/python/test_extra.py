"""`extra="store"`: fields that the schema does not know are kept beside those that it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import upvec
from upvec import Field, Schema


def opened(path: Path | str = ":memory:", **options: Any) -> upvec.Collection:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("n", "int64", nullable=True),
        extra="store",
        **options,
    )
    return upvec.open(path, schema)


def test_what_the_schema_does_not_know_comes_back() -> None:
    col = opened()
    row = {"id": 1, "n": 2, "city": "Oslo", "tags": ["a"], "deep": {"x": [1, None]}, "ok": True}
    col.upsert([row, {"id": 2}])
    assert col[1] == row
    assert col[2] == {"id": 2, "n": None}
    assert col.get([1, 2])["_extra"].tolist() == [
        {"city": "Oslo", "tags": ["a"], "deep": {"x": [1, None]}, "ok": True},
        None,
    ]


def test_rows_that_were_read_can_be_written_back() -> None:
    col = opened()
    col.upsert([{"id": 1, "city": "Oslo"}, {"id": 2, "zip": "0150"}])
    r = col.upsert(col.get([1, 2]).to_dicts())
    assert r.counts["unchanged"] == 2


def test_unknown_fields_are_merged_one_by_one() -> None:
    col = opened()
    col.upsert([{"id": 1, "a": 1, "b": 2}])
    r = col.upsert([{"id": 1, "b": 3, "c": 4}])
    assert r.changed[0] == ("_extra",)
    assert col[1] == {"id": 1, "n": None, "a": 1, "b": 3, "c": 4}
    assert col.upsert([{"id": 1, "b": 3}]).counts["unchanged"] == 1
    col.upsert([{"id": 1, "b": None}])
    assert "b" not in col[1]
    col.upsert([{"id": 1, "n": 5}])
    assert col[1] == {"id": 1, "n": 5, "a": 1, "c": 4}
    col.upsert([{"id": 1, "z": 0}], policy="replace")
    assert col[1] == {"id": 1, "n": None, "z": 0}


@pytest.mark.parametrize(
    "rows",
    [
        {"id": [1, 2], "city": ["Oslo", "Bergen"], "size": np.array([1.5, 2.5])},
        pd.DataFrame({"id": [1, 2], "city": ["Oslo", "Bergen"], "size": [1.5, 2.5]}),
        np.array(
            [(1, "Oslo", 1.5), (2, "Bergen", 2.5)],
            dtype=[("id", "i8"), ("city", "O"), ("size", "f8")],
        ),
        iter([{"id": 1, "city": "Oslo", "size": 1.5}, {"id": 2, "city": "Bergen", "size": 2.5}]),
    ],
    ids=["columns", "pandas", "structured", "iterator"],
)
def test_unknown_columns_of_every_kind_of_table_are_stored(rows: Any) -> None:
    col = opened()
    col.upsert(rows)
    assert col[2] == {"id": 2, "n": None, "city": "Bergen", "size": 2.5}


def test_one_row_may_have_a_list() -> None:
    col = opened()
    col.upsert({"id": 1, "tags": ["a", "b"]})
    assert col[1]["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        float("nan"),
        {1, 2},
        b"x",
        np.datetime64("2026-01-01", "ns"),
        np.datetime64("2026-01-01", "us"),
        np.timedelta64(5, "ns"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    col = opened()
    with pytest.raises(upvec.InvalidRowError, match="_extra") as caught:
        col.upsert([{"id": 1}, {"id": 2, "x": value}])
    assert caught.value.rows == (1,)
    assert len(col) == 0
    r = col.upsert([{"id": 1}, {"id": 2, "x": value}], on_invalid="skip")
    assert r.counts == {**dict.fromkeys(r.counts, 0), "inserted": 1, "rejected": 1}


def test_the_field_of_unknown_fields_can_be_named_itself() -> None:
    col = opened()
    col.upsert([{"id": 1, "_extra": {"a": 1}, "b": 2}])
    assert col[1] == {"id": 1, "n": None, "a": 1, "b": 2}
    with pytest.raises(upvec.InvalidRowError, match="wanted a dict"):
        col.upsert([{"id": 1, "_extra": [1], "b": 2}])


def test_they_are_stored_in_files_and_stay_through_alterations(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as col:
        col.upsert([{"id": 1, "city": "Oslo", "n": 3}])
        col.alter(add=[Field("m", "int64", default=7)], rename={"n": "k"})
        col.upsert([{"id": 2, "zip": 1}])
        assert Schema.from_dict(col.schema.to_dict()) == col.schema
    with upvec.open(tmp_path / "c") as col:
        assert col[1] == {"id": 1, "k": 3, "m": 7, "city": "Oslo"}
        assert col[2] == {"id": 2, "k": None, "m": 7, "zip": 1}
        col.checkpoint()
    with upvec.open(tmp_path / "c") as col:
        assert col[1]["city"] == "Oslo"


def test_a_late_row_does_not_change_them() -> None:
    col = opened(order_by="n")
    col.upsert([{"id": 1, "n": 5, "city": "Oslo"}])
    assert col.upsert([{"id": 1, "n": 4, "city": "Bergen"}]).counts["stale"] == 1
    assert col[1]["city"] == "Oslo"


def test_the_name_is_taken_in_a_schema_that_stores_them() -> None:
    with pytest.raises(upvec.SchemaError, match="_extra"):
        Schema(Field("id", "int64", primary=True), Field("_extra", "json"), extra="store")
    col = opened()
    for changes in ({"drop": ["_extra"]}, {"rename": {"_extra": "x"}}):
        with pytest.raises(upvec.SchemaError, match="_extra"):
            col.alter(**changes)  # type: ignore[arg-type]


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(upvec.InvalidRowError, match="_extra"):
        opened().upsert([{"id": 1, "x": deep}])


def test_times_in_a_table_are_refused_too() -> None:
    rows = np.array([(1, "2026-01-01")], dtype=[("id", "i8"), ("x", "M8[ns]")])
    with pytest.raises(upvec.InvalidRowError, match="_extra"):
        opened().upsert(rows)


def test_a_field_of_the_schema_is_not_hidden_among_the_unknown() -> None:
    col = opened()
    with pytest.raises(upvec.InvalidRowError, match="no 'n', which is a field"):
        col.upsert([{"id": 1, "_extra": {"n": 1}}])


def test_a_field_that_the_schema_gains_takes_what_was_stored_as_unknown(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as col:
        col.upsert(
            [
                {"id": 1, "city": "Oslo", "when": "2026-01-02", "pos": [1, 2], "rest": 1},
                {"id": 2, "city": None},
                {"id": 3},
            ]
        )
        col.alter(
            add=[
                Field("city", "string", default="?", nullable=True),
                Field("when", "timestamp", nullable=True),
                upvec.Vector("pos", 2, nullable=True),
            ]
        )
        assert col.get([1, 2, 3])["city"].tolist() == [
            "Oslo",
            "?",
            "?",
        ]  # null is as good as not there
        assert col[1]["when"].isoformat() == "2026-01-02T00:00:00"
        assert col.search([1, 2], k=1, field="pos")["id"].tolist() == [1]
        assert col.get([1, 2, 3])["_extra"].tolist() == [{"rest": 1}, None, None]
        col.upsert([{"id": 1, "city": "Bergen"}])
        col.alter(drop="city")
        assert "city" not in col[1]
    with upvec.open(tmp_path / "c") as col:
        assert "city" not in col[1]
        assert col[1]["rest"] == 1


def test_what_was_stored_as_unknown_must_fit_the_field() -> None:
    col = opened()
    col.upsert([{"id": 1, "city": 5, "when": "never"}])
    digest = col.digest()
    for field in (Field("city", "string"), Field("when", "timestamp")):
        with pytest.raises(upvec.InvalidRowError, match="key 1"):
            col.alter(add=field)
    with pytest.raises(upvec.SchemaError, match="rows store something else as city"):
        col.alter(rename={"n": "city"})
    assert col.digest() == digest
    col.alter(add=Field("city", "string"), backfill={"city": "'Oslo'"})
    assert col[1] == {"id": 1, "n": None, "city": "Oslo", "when": "never"}
