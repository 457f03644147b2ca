"""Dataclasses and pydantic models as rows, and as schemas."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, Vector

pydantic = pytest.importorskip("pydantic", reason="pip install pydantic")


class Colour(str, enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    x: int = 1


class User(pydantic.BaseModel):
    id: str = pydantic.Field(default_factory=lambda: uuid.uuid4().hex)
    age: int = pydantic.Field(default=0, ge=0, le=150)
    name: Optional[str] = None  # noqa: UP045  (a spelling to be read)
    mail: Annotated[str | None, pydantic.Field(pattern="@")] = None
    seen: dt.datetime | None = None
    size: float = 1.5
    ok: bool = True
    raw: bytes = b""
    tags: list[str] = []  # noqa: RUF012  (pydantic copies it)
    counts: list[int] = []  # noqa: RUF012
    inner: Inner = Inner()
    any_of: int | str | None = None
    level: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    emb: Annotated[list[float], pydantic.Field(min_length=2, max_length=2)]
    other: Annotated[list[float] | None, Vector("other", 3, metric="ip", nullable=True)] = None


def test_a_pydantic_model_gives_a_schema() -> None:
    schema = Schema.from_pydantic(
        User, metric="cosine", unique=[upvec.Unique("name")], extra="ignore"
    )
    assert schema == Schema(
        Field("id", "string", primary=True),
        Field("age", "int64", default=0, check="age >= 0 and age <= 150"),
        Field("name", "string", nullable=True),
        Field("mail", "string", nullable=True, check="(?s:.*?)(?:@)(?s:.*)"),
        Field("seen", "timestamp", nullable=True),
        Field("size", "float64", default=1.5),
        Field("ok", "bool", default=True),
        Field("raw", "bytes", default=b""),
        Field("tags", "list<string>", default=[]),
        Field("counts", "list<int64>", default=[]),
        Field("inner", "json", default={"x": 1}),
        Field("any_of", "json", nullable=True),
        Field("level", "string", default="a"),
        Field("colour", "string", default="red"),
        Vector("emb", 2, metric="cosine"),
        Vector("other", 3, metric="ip", nullable=True),
        unique=[upvec.Unique("name")],
        extra="ignore",
    )


def test_models_are_rows_and_come_back() -> None:
    col = upvec.open(":memory:", Schema.from_pydantic(User))
    user = User(age=3, name="Ada", mail="a@x", emb=[0, 1], inner=Inner(x=5), tags=["t"])
    col.upsert([user, User(id="b", emb=[1, 0])])
    col.upsert(User(id="c", emb=[1, 1]))
    row = col[user.id]
    assert row["inner"] == {"x": 5}
    assert (
        User(**{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}) == user
    )
    assert len(col) == 3


def test_a_field_of_a_model_that_was_never_set_is_absent() -> None:
    col = upvec.open(":memory:", Schema.from_pydantic(User))
    col.upsert([User(id="a", age=5, emb=[0, 1], tags=["t"])])
    r = col.upsert([User(id="a", name="Ada", emb=[0, 1])])
    assert r.changed[0] == ("name",)
    assert (col["a"]["age"], col["a"]["tags"]) == (5, ["t"])


def test_a_check_of_a_model_holds() -> None:
    col = upvec.open(":memory:", Schema.from_pydantic(User))
    with pytest.raises(upvec.InvalidRowError, match="age"):
        col.upsert([{"id": "a", "age": 151, "emb": [0, 1]}])
    with pytest.raises(upvec.InvalidRowError, match="mail"):
        col.upsert([{"id": "a", "mail": "nobody", "emb": [0, 1]}])


def test_dataclasses_are_rows() -> None:
    @dataclasses.dataclass
    class Point:
        id: int
        emb: Any
        note: str | None = None

    schema = Schema(
        Field("id", "int64", primary=True),
        Vector("emb", 2),
        Field("note", "string", nullable=True),
    )
    col = upvec.open(":memory:", schema)
    col.upsert(Point(at, [at, 1]) for at in range(3))
    col.upsert(Point(7, [7, 7], "x"))
    assert col[7]["note"] == "x"
    assert col.search([2, 1], k=1)["id"].tolist() == [2]


@pytest.mark.parametrize("rows", [[1], [{"id": 1}, "x"], 7, "x", [["id", 1]]])
def test_what_is_no_row_is_refused(rows: Any) -> None:
    col = upvec.open(":memory:", Schema(Field("id", "int64", primary=True)))
    with pytest.raises(upvec.InvalidRowError, match="wanted a"):
        col.upsert(rows)


def test_what_is_no_model_gives_no_schema() -> None:
    class Plain:
        id: int

    class Other(enum.Enum):
        A = 1

    class Bad(pydantic.BaseModel):
        id: int
        x: Other

    class Wrong(pydantic.BaseModel):
        id: int
        emb: Annotated[list[float], Vector("vec", 2)]

    for model, words in (
        (Plain, "wanted a pydantic"),
        (User(emb=[1, 2]), "wanted a pydantic"),
        (Bad, "whose values have no one type"),
        (Wrong, "is marked as"),
    ):
        with pytest.raises(upvec.SchemaError, match=words):
            Schema.from_pydantic(model)
    with pytest.raises(upvec.SchemaError, match="no field 'key'"):
        Schema.from_pydantic(User, primary="key")


def test_what_a_model_holds_can_be_stored() -> None:
    class When(pydantic.BaseModel):
        at: dt.datetime

    class Rich(pydantic.BaseModel):
        id: int
        names: set[str] = {"a"}  # noqa: RUF012
        code: uuid.UUID
        price: decimal.Decimal
        when: When
        span: dt.timedelta = dt.timedelta(seconds=5)
        size: Annotated[float, pydantic.Field(gt=float("-inf"), le=9)] = 1.0

    col = upvec.open(":memory:", Schema.from_pydantic(Rich))
    code = uuid.UUID(int=7)
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    rich = Rich(id=1, names={"b"}, code=code, price="1.50", when=When(at=moment))
    col.upsert([rich])
    assert Rich(**col[1]) == rich
    assert col.schema.fields["size"].check == "size <= 9"
