"""Every line of `python/guides/refusals.md`, provoked: what raises has changed nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import Field, Outcome, Schema, Unique, Vector
from upvec.operations import MOST_NUMBERS

TABLE = Path(__file__).parents[2] / "python" / "guides" / "refusals.md"


def lines() -> dict[str, tuple[set[str], str]]:
    """What the table says: by name, the errors, and the outcome with its reason."""
    said: dict[str, tuple[set[str], str]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[3].startswith("`"):
            assert cells[3].strip("`") not in said
            said[cells[3].strip("`")] = set(re.findall(r"`(\w+)`", cells[1])), cells[2]
    return said


LINES = lines()


def opened(path: Path | str) -> upvec.Collection:
    schema = Schema(
        Field("id", "int64", primary=True),
        Field("email", "string", nullable=True, check=r"[^@]+@[^@]+"),
        Field("phone", "string", nullable=True),
        Field("name", "string"),
        Field("n", "int64", default=0, merge="sum_"),
        Field("at", "timestamp", nullable=True),
        Field("data", "json", nullable=True),
        Vector("emb", 2, metric="cosine"),
        unique=[Unique("email"), Unique("phone")],
    )
    col = upvec.open(path, schema)
    col.upsert(
        [
            {**GOOD, "id": 1, "email": "a@x", "n": 2**62},
            {**GOOD, "id": 2, "phone": "2"},
            {**GOOD, "id": 3, "phone": "3"},
        ]
    )
    return col


GOOD: dict[str, Any] = {"name": "x", "emb": [0, 1]}
NEW: dict[str, Any] = {**GOOD, "id": 9}

# One bad row each, beside good ones. They are tried under on_invalid="skip", or atomic=False, too.
BAD_ROWS: dict[str, dict[str, Any]] = {
    "type": {**NEW, "n": "many"},
    "range": {**NEW, "n": 2**63},
    "null": {**NEW, "name": None},
    "check": {**NEW, "email": "nobody"},
    "unknown field": {**NEW, "what": 1},
    "text": {**NEW, "name": "\ud800"},
    "json": {**NEW, "data": {"a": object()}},
    "timestamp": {**NEW, "at": np.datetime64("300000-01-01", "s") + np.timedelta64(2**55, "s")},
    "dimension": {**NEW, "emb": [1, 2, 3]},
    "finite": {**NEW, "emb": [1, float("nan")]},
    "zero vector": {**NEW, "emb": [0, 0]},
    "unique": {**NEW, "email": "a@x"},
    "unique in batch": {**NEW, "phone": "8"},
    "ambiguous": {"email": "a@x", "phone": "2"},
    "primary": {"id": 5, "email": "a@x", "phone": "7"},
    "version": {"id": 2, "name": "other"},
    "exists": {**NEW, "id": 2},
    "missing": NEW,
}
BY = upvec.any_of("email", "phone")


def upserting(name: str, col: Any, rows: list[dict[str, Any]], **options: Any) -> Any:
    """Make the call that the row of this name is bad for."""
    if name in {"ambiguous", "primary"}:
        return col.upsert(rows, on=BY, **options)
    if name == "version":
        return col.upsert(rows, if_version={2: 7}, **options)
    if name in {"exists", "missing"} and not options:
        return col.insert(rows) if name == "exists" else col.update(rows)
    return col.upsert(rows, **options)


def good_rows(name: str) -> list[dict[str, Any]]:
    """Rows that are fine beside the bad one."""
    if name in {"ambiguous", "primary"}:
        return [{"email": None, "phone": "3", "name": "y"}]
    if name == "exists":
        return [{**GOOD, "id": 8}]
    return [{"id": 3, "name": "y", "phone": "8" if name == "unique in batch" else "3"}]


def changed_meanwhile(col: Any) -> None:
    plan = col.upsert([{"id": 2, "name": "planned"}], dry_run=True)
    with col.transaction() as tx:
        tx.upsert([{"id": 2, "name": "also"}])
        digest = col.digest()
        col.upsert([{"id": 2, "n": 1}])
        with pytest.raises(upvec.ConflictError, match="changed by others"):
            plan.commit()
        assert col.digest() != digest


def old_operation(col: Any) -> None:
    for number in range(1, MOST_NUMBERS + 2):
        col.upsert([{"id": 2, "name": "x"}], op_id=("w", number))
    col.upsert([{"id": 2, "name": "y"}], op_id=("w", 0))


def read_only(col: Any) -> None:
    with upvec.open(col.path, read_only=True) as other:
        other.upsert([NEW])


def closed(col: Any) -> None:
    with upvec.open(":memory:", col.schema) as other:
        pass
    other.upsert([NEW])


CALLS: dict[str, Callable[[Any], Any]] = {
    "missing field": lambda col: col.upsert([{"id": 9, "emb": [1, 0]}]),
    "missing vector": lambda col: col.upsert([{"id": 9, "name": "x"}]),
    "missing key": lambda col: col.upsert([{"id": 2, "name": "y"}, {"name": "x"}]),
    "missing primary": lambda col: col.upsert([{**GOOD, "email": "new@x"}], on="email"),
    "merge": lambda col: col.upsert([{"id": 2, "n": 1}, {"id": 1, "n": 2**62}]),
    "lengths": lambda col: col.upsert({"id": [2, 3], "name": ["x"]}),
    "rows": lambda col: col.upsert(7),
    "duplicate": lambda col: col.upsert([{"id": 2, "name": "a"}, {"id": 2, "name": "b"}]),
    "changed meanwhile": changed_meanwhile,
    "old operation": old_operation,
    "condition": lambda col: col.upsert([{"id": 2, "name": "y"}], where="new.nope > 1"),
    "on": lambda col: col.upsert([{"id": 2, "name": "y"}], on="name"),
    "policy": lambda col: col.upsert([{"id": 2}], policy=upvec.Policy(merge={"name": "sum_"})),
    "strange version": lambda col: col.upsert([{"id": 2, "name": "y"}], if_version={3: 1}),
    "sync": lambda col: col.sync([{"id": 2, "name": "y"}], scope=upvec.ALL),
    "alter": lambda col: col.alter(add_unique=[Unique("name")]),
    "read only": read_only,
    "closed": closed,
}
# These change something on purpose before they are refused.
CHANGING = {"changed meanwhile", "old operation"}


def provoke(name: str, col: Any, *, bad_last: bool) -> None:
    if name in CALLS:
        CALLS[name](col)
    else:
        rows = [*good_rows(name), BAD_ROWS[name]]
        upserting(name, col, rows if bad_last else rows[::-1])


def test_every_line_of_the_table_is_provoked_here() -> None:
    assert set(LINES) == set(BAD_ROWS) | set(CALLS)


@pytest.mark.parametrize("name", [*BAD_ROWS, *CALLS])
def test_what_is_refused_raises_and_changes_nothing(tmp_path: Path, name: str) -> None:
    errors = tuple(getattr(upvec, error, ValueError) for error in LINES[name][0])
    with opened(tmp_path / "c") as col:
        digest, seq = col.digest(), col.seq
        for last in (True, False):
            with pytest.raises(errors) as caught:
                provoke(name, col, bad_last=last)
            assert type(caught.value).__name__ in LINES[name][0]
            assert str(caught.value)
            if name not in CHANGING:
                assert (col.digest(), col.seq, len(col)) == (digest, seq, 3)
        digest = col.digest()
    with upvec.open(tmp_path / "c") as col:  # nor is anything in the log
        assert col.digest() == digest


@pytest.mark.parametrize("name", BAD_ROWS)
def test_what_may_be_left_out_is_reported_with_its_reason(name: str) -> None:
    outcome, _, reason = LINES[name][1].partition(", ")
    col = opened(":memory:")
    options: dict[str, Any] = {"on_invalid": "skip"}
    if reason != "invalid":
        mode = {"exists": "insert_only", "missing": "update_only"}.get(name, "upsert")
        options = {"policy": upvec.Policy(mode, atomic=False)}
    rows = [BAD_ROWS[name], *good_rows(name)]
    r = upserting(name, col, rows, **options)
    if name in {"exists", "missing"}:
        outcome = "skipped"  # what upsert() calls it, where nobody asked for a conflict
    bad = 1 if name == "unique in batch" else 0  # of two that claim a key, the first has it
    assert Outcome(r.status[bad]).name.lower() == outcome
    assert r.reason[bad] == reason
    assert r.detail[bad]
    written = Outcome(r.status[1 - bad])
    assert written in {Outcome.UPDATED, Outcome.INSERTED}
    assert sum(r.counts.values()) == 2
