"""Lookups in older states, while the key tables hold the newest mapping only."""

from __future__ import annotations

import gc
from typing import Any

import upvec
from upvec import Field, Schema, Unique
from upvec.state import State

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("mail", "string", nullable=True),
    unique=[Unique("mail")],
)


def find(col: upvec.Collection, state: State, on: str, *keys: Any) -> list[Any]:
    """The primary keys of what a state holds under some keys."""
    rids = col._find(state, col._table(state, on), list(keys))
    return [
        None if rid < 0 else int(state.columns["id"].gather(rids[at : at + 1])[0][0])
        for at, rid in enumerate(rids)
    ]


def test_every_state_keeps_its_own_mapping() -> None:
    col = upvec.open(":memory:", SCHEMA)
    states = [col._published]
    steps = [
        lambda: col.upsert([{"id": 1, "mail": "a"}, {"id": 2, "mail": "b"}]),
        lambda: col.upsert([{"id": 1, "mail": "b"}, {"id": 2, "mail": "a"}]),
        lambda: col.delete([1]),
        lambda: col.upsert([{"id": 3, "mail": "b"}]),  # takes the place of row 1
        lambda: col.upsert([{"id": 3, "mail": None}, {"id": 1, "mail": "b"}]),
    ]
    for step in steps:
        step()
        states.append(col._published)
    seen = [find(col, state, "mail", "a", "b") for state in states]
    assert seen == [[None, None], [1, 2], [2, 1], [2, None], [2, 3], [2, 1]]
    seen = [find(col, state, "id", 1, 2, 3) for state in states]
    assert seen == [
        [None, None, None], [1, 2, None], [1, 2, None], [None, 2, None], [None, 2, 3], [1, 2, 3],
    ]  # fmt: skip


def test_a_key_that_came_and_went_was_never_in_an_older_state() -> None:
    col = upvec.open(":memory:", SCHEMA)
    empty = col._published
    col.upsert([{"id": 1, "mail": "a"}])
    col.delete([1])
    assert find(col, empty, "id", 1) == [None]
    assert find(col, empty, "mail", "a") == [None]


def test_holding_an_old_state_does_not_hold_those_in_between() -> None:
    col = upvec.open(":memory:", SCHEMA)
    col.upsert([{"id": 1, "mail": "a"}])
    held = col._published
    for turn in range(50):
        col.upsert([{"id": 1, "mail": str(turn)}])
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, State)]
    mine = [state for state in alive if state.columns.keys() == held.columns.keys()]
    assert sorted(state.seq for state in mine if state.link in chain(held)) == [1, 51]
    assert find(col, held, "mail", "a", "3", "49") == [1, None, None]


def chain(state: State) -> list[Any]:
    links, at = [], state.link
    while at is not None:
        links.append(at)
        at = at.next
    return links
