"""Rows that have outlived their time: no read shows them, and writes take their places.

A row is expired from the moment on that the schema's ``ttl`` names; it stays in memory and in the
files until a commit deletes it: :meth:`Collection.reap`, or a write to its keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .schema import Schema
    from .state import State

__all__ = ["expired_since", "is_expired", "now_us"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]


def now_us() -> np.datetime64:
    """Return the present, in UTC."""
    return np.datetime64("now", "us")


def expired_since(schema: Schema) -> np.datetime64 | None:
    """Return the newest moment that is a lifetime ago; None: rows live for ever."""
    lifetime = schema.lifetime
    return None if lifetime is None else now_us() - lifetime


def is_expired(state: State, rids: RowIds, now: np.datetime64) -> BoolArray:
    """Return True where an existing row has outlived its time; bool (n,)."""
    schema = state.schema
    lifetime = schema.lifetime
    if schema.ttl is None or lifetime is None:
        return np.zeros(len(rids), dtype=np.bool_)
    since, null = state.columns[schema.ttl[0]].gather(rids)
    # Not since + lifetime: that may be beyond what a timestamp holds.
    old: BoolArray = since <= now - lifetime
    return old if null is None else old & ~null
