"""Reads under conditions against a model of dicts and three-valued logic that shares no code.

Random conditions over all types of fields, with and without indexes, are counted, scanned and
searched under, in a collection that is written to, deleted from, opened again, followed by a
reader, and seen by transactions and snapshots.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import Field, Schema, Vector, col
from upvec.reader import Reader

Row = dict[str, Any]
Truth = Callable[[Row], "bool | None"]
Condition = tuple[Any, Truth]

VALUES: dict[str, list[Any]] = {
    "s": ["", "a", "ab", "é", "日本", "a\0", "A"],
    "n": [0, 1, -1, 2**63 - 1, -(2**63), 5, 7],
    "m": [0, 1, -1, 2**63 - 1, -(2**63), 5, 7],
    "x": [0.0, -0.0, 1.5, float("inf"), -float("inf"), float("nan"), 5.0],
    "b": [True, False],
    "t": [np.datetime64(at, "us") for at in (0, 1, -1, 10**15)],
    "y": [b"", b"a", b"\0", b"ab"],
}
FIELDS = (*VALUES, "ls", "li", "e")
COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)


def schema(*, index: bool) -> Schema:
    kinds = {"s": "string", "n": "int64", "m": "int64", "x": "float64", "b": "bool"}
    kinds |= {"t": "timestamp", "y": "bytes", "ls": "list<string>", "li": "list<int64>"}
    indexed = set("snxbt") | {"ls", "li"} if index else set()
    return Schema(
        Field("id", "int64", primary=True),
        *(Field(f, kind, nullable=True, index=f in indexed) for f, kind in kinds.items()),
        Vector("e", 3, nullable=True),
    )


class Draw:
    """Random rows and conditions, each with what it means to the model."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, field: str) -> Any:
        if self.random.random() < 0.2:
            return None
        if field == "e":
            return [float(self.random.randint(0, 3)) for _ in range(3)]
        if field in {"ls", "li"}:
            among = VALUES[field[1].replace("i", "n")]
            return [self.random.choice(among) for _ in range(self.random.randint(0, 3))]
        return self.random.choice(VALUES[field])

    def rows(self, count: int) -> list[Row]:
        keys = self.random.sample(range(4000), count)
        return [{"id": key, **{field: self.value(field) for field in FIELDS}} for key in keys]

    def condition(self, depth: int) -> Condition:
        if depth == 0 or self.random.random() < 0.3:
            return self.random.choice(
                [self._compared] * 4
                + [self._one_of, self._null, self._text, self._element, self._flag]
                + [self._fields, self._between]
            )()
        left, is_left = self.condition(depth - 1)
        word = self.random.choice(["and", "or", "not"])
        if word == "not":
            return ~left, lambda row: None if is_left(row) is None else not is_left(row)
        right, is_right = self.condition(depth - 1)
        decides = word == "or"

        def joined(row: Row) -> bool | None:
            sides = (is_left(row), is_right(row))
            if decides in sides:
                return decides
            return None if None in sides else not decides

        return (left | right if decides else left & right), joined

    def _compared(self) -> Condition:
        field, compare = self.random.choice("snmxty"), self.random.choice(COMPARISONS)
        value = self.random.choice(VALUES[field])
        if field in "nm" and self.random.random() < 0.3:
            value = self.random.choice([0.5, 5.0, 1e30, -1e30])
        return compare(col(field), value), known(field, lambda held: compare(held, value))

    def _one_of(self) -> Condition:
        field = self.random.choice("snxt")
        values = [self.random.choice(VALUES[field]) for _ in range(self.random.randint(0, 3))]
        return col(field).isin(values), known(field, lambda held: any(held == v for v in values))

    def _null(self) -> Condition:
        field = self.random.choice(FIELDS)
        return col(field).is_null(), lambda row: row[field] is None

    def _text(self) -> Condition:
        part = self.random.choice(VALUES["s"])
        if self.random.random() < 0.5:
            return col("s").contains(part), known("s", lambda held: part in held)
        return col("s").startswith(part), known("s", lambda held: held.startswith(part))

    def _element(self) -> Condition:
        field, among = self.random.choice([("ls", "s"), ("li", "n")])
        value = self.random.choice(VALUES[among])
        return col(field).contains(value), known(field, lambda held: value in held)

    def _flag(self) -> Condition:
        return col("b"), lambda row: row["b"]

    def _fields(self) -> Condition:
        compare = self.random.choice(COMPARISONS)

        def compared(row: Row) -> bool | None:
            if row["n"] is None or row["m"] is None:
                return None
            return bool(compare(row["n"], row["m"]))

        return compare(col("n"), col("m")), compared

    def _between(self) -> Condition:
        field = self.random.choice("nx")
        low, high = self.random.choice(VALUES["n"]), self.random.choice(VALUES["n"])
        return col(field).between(low, high), known(field, lambda held: low <= held <= high)


def known(field: str, test: Callable[[Any], Any]) -> Truth:
    return lambda row: None if row[field] is None else bool(test(row[field]))


def check(draw: Draw, reader: Reader, model: dict[int, Row], conditions: int) -> None:
    for _ in range(conditions):
        where, is_true = draw.condition(3)
        wanted = [key for key, row in model.items() if is_true(row) is True]
        assert reader.count(where) == len(wanted), where
        found = [key for rows in reader.scan(where=where) for key in rows["id"].tolist()]
        assert sorted(found) == sorted(wanted), where
        query = [draw.random.random() * 3 for _ in range(3)]
        near = {
            key: sum((a - b) ** 2 for a, b in zip(model[key]["e"], query, strict=True))
            for key in wanted
            if model[key]["e"] is not None
        }
        k = draw.random.choice([1, 3, 50, 2000])
        exact = reader.search(query, k, where=where, exact=True)
        assert set(exact["id"].tolist()) <= near.keys(), where
        np.testing.assert_allclose(
            exact["distance"], sorted(near.values())[:k], rtol=1e-4, atol=1e-4
        )
        hits = reader.search(query, k, where=where)
        assert len(hits) == len(exact), where
        assert set(hits["id"].tolist()) <= near.keys(), where
        radius = draw.random.random() * 6
        within = set(reader.search(query, None, radius=radius, where=where)["id"].tolist())
        assert {key for key, d in near.items() if d <= radius - 1e-4} <= within, where
        assert within <= {key for key, d in near.items() if d <= radius + 1e-4}, where


@pytest.mark.parametrize("seed", range(4))
def test_reads_are_those_of_a_model_whatever_is_done_between(seed: int, tmp_path: Path) -> None:
    draw = Draw(seed)
    collection = upvec.open(tmp_path / "c", schema(index=bool(seed % 2)), durability="os")
    follower = upvec.open(tmp_path / "c", read_only=True)
    model: dict[int, Row] = {}

    def write(writer: Any, count: int) -> None:
        rows = draw.rows(count)
        writer.upsert(rows)
        model.update({row["id"]: row for row in rows})

    for step in range(30):
        act = draw.random.choice(
            ["write"] * 9 + ["delete", "delete where", "update where"]
            + ["open", "checkpoint", "transaction", "snapshot"]
        )  # fmt: skip
        where, is_true = draw.condition(2)
        true = [key for key, row in model.items() if is_true(row) is True]
        if act == "write":
            write(collection, draw.random.choice([1, 3, 200, 1500]))
        elif act == "delete":
            gone = [key for key in model if draw.random.random() < 0.2]
            collection.delete(gone)
            for key in gone:
                del model[key]
        elif act == "delete where":
            assert sorted(collection.delete(where=where).key.tolist()) == sorted(true)
            for key in true:
                del model[key]
        elif act == "update where":
            value = draw.value("n")
            collection.update_where(where, {"n": value})
            for key in true:
                model[key] = {**model[key], "n": value}
        elif act == "open":
            collection.close()
            collection = upvec.open(tmp_path / "c", durability="os")
        elif act == "checkpoint":
            collection.checkpoint()
        elif act == "transaction":
            with collection.transaction() as tx:
                write(tx, 50)
                check(draw, tx, model, 2)
        else:
            with collection.snapshot() as snap:
                before = dict(model)
                write(collection, 20)
                check(draw, snap, before, 2)
        check(draw, collection, model, 3)
        if step % 5 == 0:
            follower.refresh()
            check(draw, follower, model, 2)
    follower.close()
    collection.close()
