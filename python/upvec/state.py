"""One version of a collection, and how keys are looked up in it.

A :class:`State` is immutable but for its :class:`Link`, which says what the commit after it
changed in the key indexes, which exist only once and always hold the newest mapping. A reader
that holds an older state checks what a lookup gives against the columns of its state; where that
fails, it follows the chain forward to the first commit that changed the key, which noted the
mapping from before. So readers are exact and take no lock. The chain runs through the links, not
the states: a reader that holds an old state keeps the changed keys of later commits, but not
their columns, and what nobody holds is freed by reference counting.

The order of writing makes that work: the writer notes the keys *before* it touches the index, and
a reader looks at the notes *after* it has looked into the index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import KeyIndex
from .columns import Column, Selection, equal_values, tuples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._core import Index, Snapshot
    from .condition import Selector
    from .schema import Schema

__all__ = ["KeyTable", "Link", "State", "empty_state", "key_tables"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]


class Link:
    """What the commit after a state changed in the key tables, and the link of the state it made.

    Attributes
    ----------
    undo : dict of KeyIndex to dict
        By key table that was touched: key to the row id that it had before, for all keys that
        lost or changed theirs. A table that is called otherwise by now has the same index.
    next : Link or None
    """

    __slots__ = ("next", "undo")

    def __init__(self) -> None:
        self.undo: dict[KeyIndex, dict[Any, int]] = {}
        self.next: Link | None = None


class State:
    """What readers see: columns, the rows that live, and one snapshot per vector index.

    Attributes
    ----------
    seq : int
        The commit that made this state.
    size, count : int
        Row ids in use are below ``size``; ``count`` of them live.
    live, versions : Column
        bool and int64, by row id.
    columns : dict of str to Column
        By field.
    snapshots : dict of str to Snapshot
        By vector field.
    schema : Schema
        What its rows were written under.
    tables, indexes : mapping of str to KeyTable, Index
        By name in ``schema``. Both change with later commits; what a state reads in them goes by
        its link and its snapshots.
    selector : Selector
        What conditions are evaluated with; one for all states of a collection.
    link : Link
        What later commits changed.
    """

    __slots__ = (
        "columns",
        "count",
        "indexes",
        "link",
        "live",
        "schema",
        "selector",
        "seq",
        "size",
        "snapshots",
        "tables",
        "versions",
    )

    def __init__(
        self,
        seq: int,
        size: int,
        count: int,
        *,
        live: Column,
        versions: Column,
        columns: Mapping[str, Column],
        snapshots: Mapping[str, Snapshot],
        schema: Schema,
        tables: Mapping[str, KeyTable],
        indexes: Mapping[str, Index],
        selector: Selector,
    ) -> None:
        self.seq = seq
        self.size = size
        self.count = count
        self.live = live
        self.versions = versions
        self.columns = columns
        self.snapshots = snapshots
        self.schema = schema
        self.tables = tables
        self.indexes = indexes
        self.selector = selector
        self.link = Link()

    def live_rids(self) -> RowIds:
        """Return the ids of all rows, in order; int64 (count,)."""
        if self.count == self.size:
            return np.arange(self.size, dtype=np.int64)
        rids: RowIds = np.flatnonzero(self.live.to_array()[0])
        return rids


def empty_state(
    schema: Schema,
    tables: Mapping[str, KeyTable],
    indexes: Mapping[str, Index],
    snapshots: Mapping[str, Snapshot],
    selector: Selector,
) -> State:
    """Return the state of a collection without rows."""
    return State(
        0,
        0,
        0,
        live=Column(np.dtype(np.bool_)),
        versions=Column(np.dtype(np.int64)),
        columns={name: Column(field.dtype) for name, field in schema.fields.items()},
        snapshots=snapshots,
        schema=schema,
        tables=tables,
        indexes=indexes,
        selector=selector,
    )


class KeyTable:
    """The mapping from one key, primary or unique, to row ids.

    ``columns`` are always one array (n,) per field of the key, without nulls.
    One writer at a time calls ``find``, ``note`` and ``change``; readers call ``find_at``.
    """

    __slots__ = ("_index", "fields", "name", "types")

    def __init__(
        self, name: str, fields: Sequence[str], types: Sequence[str], *, seed: int = 0
    ) -> None:
        self.name = name
        self.fields = tuple(fields)
        self.types = tuple(types)
        self._index = KeyIndex(self.types, seed=seed)

    def find(self, columns: Sequence[AnyArray]) -> RowIds:
        """Return the newest row id of each key, or -1; int64 (n,)."""
        rids: RowIds = self._index.find(columns)
        return rids

    def find_at(self, state: State, columns: Sequence[AnyArray]) -> RowIds:
        """Return the row id of each key in ``state``, or -1; int64 (n,)."""
        rids: RowIds = self._index.find(columns)
        changes = self._changes_since(state)
        if not changes:
            return rids
        rids = np.where(self._holds(state, rids, columns), rids, -1)
        rows = np.flatnonzero(rids < 0)
        for row, key in zip(rows.tolist(), tuples_of([c[rows] for c in columns]), strict=True):
            rids[row] = next((undo[key] for undo in changes if key in undo), -1)
        # A key that came and went since then was noted too, but nothing held it here.
        rids[rows] = np.where(
            self._holds(state, rids[rows], [c[rows] for c in columns]), rids[rows], -1
        )
        return rids

    def note(self, state: State, columns: Sequence[AnyArray], rids: RowIds) -> None:
        """Note in ``state`` the keys that the next commit takes away. Call it before ``change``."""
        state.link.undo[self._index] = dict(zip(tuples_of(columns), rids.tolist(), strict=True))

    def change(self, gone: Sequence[AnyArray], columns: Sequence[AnyArray], rids: RowIds) -> None:
        """Erase the keys ``gone``, then map ``columns`` to ``rids``."""
        if len(gone[0]):
            self._index.erase(gone)
        if len(rids):
            self._index.assign(columns, rids)

    def renamed(self, name: str, fields: Sequence[str]) -> KeyTable:
        """Return the same table under the names that its key and its fields have from now on."""
        table = KeyTable.__new__(KeyTable)
        table.name, table.fields, table.types = name, tuple(fields), self.types
        table._index = self._index  # noqa: SLF001
        return table

    def nbytes(self) -> int:
        """Return the bytes that the index holds."""
        return int(self._index.nbytes())

    def __len__(self) -> int:
        return len(self._index)

    def _changes_since(self, state: State) -> list[dict[Any, int]]:
        changes = []
        at: Link | None = state.link
        while at is not None:
            if self._index in at.undo:
                changes.append(at.undo[self._index])
            at = at.next
        return changes

    def _holds(self, state: State, rids: RowIds, columns: Sequence[AnyArray]) -> BoolArray:
        """Return True where the row exists and lives in ``state``, with that key; bool (n,)."""
        holds = (rids >= 0) & (rids < state.size)
        known = np.flatnonzero(holds)
        selection = Selection(rids[known])
        same = state.live.take(selection)[0].copy()
        for name, wanted in zip(self.fields, columns, strict=True):
            values, null = state.columns[name].take(selection)
            same &= equal_values(values, wanted[known])
            if null is not None:
                same &= ~null
        holds[known] = same
        return holds


def key_tables(schema: Schema, *, seed: int = 0) -> dict[str, KeyTable]:
    """Return an empty table for the primary key, then one for every Unique, by name."""
    primary = schema.primary
    tables = {primary.name: KeyTable(primary.name, [primary.name], [primary.type], seed=seed)}
    for name, unique in schema.unique.items():
        types = [schema.fields[field].type for field in unique.fields]
        tables[name] = KeyTable(name, unique.fields, types, seed=seed)
    return tables
