"""The version that a write is resolved against, and the stored rows that its rows match.

:class:`Base` is the newest state and the key tables with it. :class:`Matched` shows the stored
rows of a batch, and :class:`Folded` the same rows as earlier rows of the batch have left them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import Selection
from .ttl import is_expired

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ingest import Batch
    from .policy import FieldWrite, Stored
    from .schema import Schema
    from .state import KeyTable, State

__all__ = ["Base", "Folded", "Matched", "Meeting"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
Rows: TypeAlias = npt.NDArray[np.int64]


class Base:
    """What a write is resolved against: read under the writer's lock.

    Attributes
    ----------
    state : State
    tables : mapping of str to KeyTable
    remembered : mapping
        The order value of rows that were deleted, by primary key.
    leaving : set of int
        Row ids that the commit deletes: those that were found to be expired, and those that a
        sync no longer has. Their keys are free.
    """

    def __init__(self, state: State, remembered: Mapping[Any, Any], now: np.datetime64) -> None:
        self.schema = state.schema
        self.state = state
        self.tables = state.tables
        self.remembered = remembered
        self.leaving: set[int] = set()
        self._now = now

    def find(self, table: KeyTable, columns: Sequence[AnyArray]) -> RowIds:
        """Return the row id of each key, or -1 also where the row is leaving; int64 (n,)."""
        rids = self.lookup(table, columns)
        if self.schema.ttl is not None and len(rids):
            at = (rids >= 0).nonzero()[0]
            gone = at[is_expired(self.state, rids[at], self._now)]
            self.leaving.update(rids[gone].tolist())
        if not self.leaving:
            return rids
        stays = np.isin(rids, list(self.leaving), invert=True)
        return np.where(stays, rids, -1)

    def lookup(self, table: KeyTable, columns: Sequence[AnyArray]) -> RowIds:
        """Return the row id of each key, or -1; int64 (n,)."""
        return table.find(columns)

    def vectors(self, name: str, rids: RowIds) -> tuple[AnyArray, BoolArray]:
        """Return the vectors of rows (n, dim), and where there are some."""
        index = self.state.indexes[name]
        vectors, found = index.get(rids, snapshot=self.state.snapshots[name])
        return vectors, found

    def versions(self, rids: RowIds) -> RowIds:
        """Return the version of each row; int64 (n,)."""
        versions: RowIds = self.state.versions.gather(rids)[0]
        return versions


class Matched:
    """The stored rows that the rows of a batch match, by position in the batch."""

    def __init__(self, base: Base, rids: RowIds) -> None:
        self._base = base
        self._rids = rids
        # One set of rows is asked for field by field.
        self._rows: Rows | None = None
        self._selection = Selection(rids[:0])

    def take(self, name: str, rows: Rows) -> tuple[AnyArray, BoolArray | None]:
        """Return a field of the stored rows that these rows match, and its nulls."""
        if name in self._base.schema.vectors:
            vectors, found = self._base.vectors(name, self._rids[rows])
            return vectors, None if found.all() else ~found
        if rows is not self._rows:
            self._rows, self._selection = rows, Selection(self._rids[rows])
        return self._base.state.columns[name].take(self._selection)


class Folded:
    """Stored rows as the rows of a batch that came before have left them.

    ``group_of`` gives each row of the batch the position that stands for its stored row, or for
    the new row that is being made.
    """

    def __init__(self, matched: Matched, group_of: Rows, exists: BoolArray) -> None:
        self._matched = matched
        self._group_of = group_of
        self.exists = exists  # by group: whether there is a row by now
        self._fields: dict[str, tuple[AnyArray, BoolArray, BoolArray]] = {}

    def take(self, name: str, rows: Rows) -> tuple[AnyArray, BoolArray | None]:
        """Return a field of the rows as they are by now, and its nulls."""
        groups = self._group_of[rows]
        known = self._fields.get(name)
        if known is None:
            return self._matched.take(name, groups)
        values, null, has = known
        taken, taken_null = values[groups], null[groups]
        rest = (~has[groups]).nonzero()[0]
        if len(rest):
            held, held_null = self._matched.take(name, groups[rest])
            taken[rest] = held
            taken_null[rest] = False if held_null is None else held_null
        return taken, taken_null

    def absorb(self, writes: Mapping[str, FieldWrite], rows: Rows) -> None:
        """Put what these rows, one of each group, write in the place of what was there."""
        for name, write in writes.items():
            at = rows[write.write[rows]]
            groups = self._group_of[at]
            if name not in self._fields:
                count = len(self._group_of)
                shape = (count, *write.values.shape[1:])
                empty: AnyArray = np.zeros(shape, dtype=write.values.dtype)
                none = np.zeros(count, dtype=np.bool_)
                self._fields[name] = empty, none.copy(), none
            values, null, has = self._fields[name]
            values[groups], null[groups], has[groups] = write.values[at], write.null[at], True

    def written(self) -> dict[str, tuple[AnyArray, BoolArray, BoolArray]]:
        """Return, by field, values, nulls, and where there are some; by group."""
        return self._fields


class Meeting:
    """Both sides of some rows of a batch, for the condition of an upsert.

    ``new.f`` is the incoming row's field, null where it does not mention it; ``old.f``, or ``f``,
    the stored row's.
    """

    def __init__(self, schema: Schema, batch: Batch, stored: Stored, rows: Rows) -> None:
        self._schema = schema
        self._batch = batch
        self._stored = stored
        self._rows = rows

    def column(self, name: str) -> tuple[AnyArray, BoolArray | None]:
        """Return the values and nulls of a field of one side."""
        side, _, field = name.rpartition(".")
        if side != "new":
            return self._stored.take(field, self._rows)
        cells = self._batch.cells.get(field)
        rows = self._rows
        if cells is None:
            item = self._schema.fields.get(field)
            dtype = np.dtype(np.float32) if item is None else item.dtype
            values = np.full(len(rows), None) if dtype.hasobject else np.zeros(len(rows), dtype)
            return values, np.ones(len(rows), dtype=np.bool_)
        null = None if cells.null is None else cells.null[rows]
        if cells.present is not None:
            unsaid = ~cells.present[rows]
            null = unsaid if null is None else null | unsaid
        return cells.values[rows], null
