"""Schemas as TOML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, Unique, Vector

TEXT = """
order_by = "seen_at"
ttl = ["seen_at", "90d"]

[fields.id]
type = "string"
primary = true

[fields.tenant]
type = "string"

[fields.email]
type = "string"
nullable = true
check = '[^@]+@[^@]+'

[fields.logins]
type = "int64"
default = 0
merge = "sum_"

[fields.tags]
type = "list<string>"
default = ["new"]
merge = {rule = "union", limit = 64}

[fields.seen_at]
type = "timestamp"
index = true

[fields.price_ts]
type = "int64"
nullable = true

[fields.price]
type = "float64"
nullable = true

[fields.emb]
type = "vector"
dim = 768
metric = "cosine"
source = ["tags"]

[[unique]]
fields = ["email"]

[[unique]]
fields = ["tenant", "email"]
name = "handle"

[groups]
price_ts = ["price"]
"""


def written() -> Schema:
    return Schema(
        Field("id", "string", primary=True),
        Field("tenant", "string"),
        Field("email", "string", nullable=True, check="[^@]+@[^@]+"),
        Field("logins", "int64", default=0, merge=upvec.sum_()),
        Field("tags", "list<string>", default=["new"], merge=upvec.union(limit=64)),
        Field("seen_at", "timestamp", index=True),
        Field("price_ts", "int64", nullable=True),
        Field("price", "float64", nullable=True),
        Vector("emb", 768, metric="cosine", source="tags"),
        unique=[Unique("email"), Unique("tenant", "email", name="handle")],
        order_by="seen_at",
        groups={"price_ts": ["price"]},
        ttl=("seen_at", "90d"),
    )


def test_a_text_is_the_schema_that_it_says() -> None:
    assert Schema.from_toml(TEXT) == written()


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(TEXT, encoding="utf-8")
    assert Schema.from_toml(path) == written()
    assert Schema.from_toml(str(path)) == written()


@pytest.mark.parametrize(
    "schema",
    [
        written(),
        Schema(Field("id", "int64", primary=True), extra="store"),
        Schema(
            Field("id", "int64", primary=True),
            Field("t", "string", default='a "quoted"\n\t\\ \x7f \u00e9 \U0001f600'),
            Field("f", "float64", default=1e300, merge=upvec.ema(alpha=0.25)),
            Field("g", "float64", default=-2.0),
            Field("h", "float64", default=1e20),
            Field("w", "timestamp", default=np.datetime64("2026-01-01", "us")),
            Field("b", "bytes", default=b"\x00\xff"),
            Field("j", "json", default={"a": [1, {"b": "c"}], "d e": 2}),
            Field("n", "int64", nullable=True, default=None),
            Field("inf", "float64", default=float("-inf")),
            Vector("v", 3, nullable=True, merge="mean", M=8, ef_construction=50),
        ),
    ],
)
def test_a_schema_comes_back_from_its_text(schema: Schema) -> None:
    text = schema.to_toml()
    again = Schema.from_toml(text)
    assert again.to_toml() == text
    assert again == schema
    col, other = upvec.open(":memory:", schema), upvec.open(":memory:", again)
    row = {name: 0.5 for name in schema.fields if name == "g"}
    if "seen_at" in schema.fields:
        return
    for one in (col, other):
        one.upsert([{"id": 1, **row}])
    assert str(col[1]) == str(other[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = \n", "not TOML"),
        ("a = 1\n", "unknown 'a'"),
        ("extra = 'reject'\n", "a schema has fields"),
        ("[fields.id]\nprimary = true\n", r"\[fields.id\] has no type"),
        ("[fields.id]\ntype = 'int64'\nprimary = true\nwhat = 1\n", "what"),
        ("[fields.id]\ntype = 'int64'\nprimary = true\n[[unique]]\nname = 'x'\n", "has fields"),
        ("[fields.id]\ntype = 'int65'\nprimary = true\n", "unknown type 'int65'"),
        ("[fields.v]\ntype = 'vector'\n", "not the description"),
        ("unique = 5\n[fields.id]\ntype = 'int64'\n", "written as"),
        ("[[unique]]\nfields = 5\n[fields.id]\ntype = 'int64'\n", "has fields"),
        ("[fields.id]\nname = 'x'\ntype = 'int64'\nprimary = true\n", "has a name already"),
        ("[fields.id]\ntype = 'int64'\nprimary = 'yes'\n", "wanted true or false"),
        ("x = " + "[" * 5000 + "]" * 5000 + "\n", "TOML"),
    ],
)
def test_what_is_no_schema_is_refused(text: str, words: str) -> None:
    with pytest.raises(upvec.SchemaError, match=words):
        Schema.from_toml(text)


def test_a_null_within_a_default_has_no_toml() -> None:
    schema = Schema(Field("id", "int64", primary=True), Field("j", "json", default={"a": None}))
    with pytest.raises(upvec.SchemaError, match="TOML has no null"):
        schema.to_toml()


def test_a_time_may_be_written_as_toml_has_it() -> None:
    text = "[fields.id]\ntype = 'int64'\nprimary = true\n[fields.t]\ntype = 'timestamp'\n"
    schema = Schema.from_toml(text + "default = 2026-01-01T02:00:00+01:00\n")
    assert schema.fields["t"].default_cell[0][0] == np.datetime64("2026-01-01T01:00", "us")
