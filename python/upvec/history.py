"""What a collection was, and what its commits changed, from a checkpoint and the log.

A :class:`History` replays commits by the engine's own code, with vectors that are kept without a
graph: so it costs the memory of the rows and the time of reading, and no search for links.

How far back it goes is up to what is kept on the disk: the checkpoint before the last one, and the
log after it; without any checkpoint, everything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .apply import Engine
from .codec import ColumnEffect, Effects, VectorEffect
from .columns import Column, ColumnWriter, Selection
from .errors import SchemaError
from .read import read_rows
from .result import Changed, Outcome, Rows, UpsertResult

if TYPE_CHECKING:
    from ._core import Index
    from .fields import Vector
    from .schema import Schema
    from .state import State

__all__ = [
    "Changes",
    "History",
    "changes_between",
    "effects_of_rows",
    "restoring_effects",
    "restoring_result",
]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
Version: TypeAlias = "tuple[Column, Column]"


@dataclass(frozen=True)
class Changes:
    """What one commit did, row by row: the rows that it deleted, then those that it wrote.

    Attributes
    ----------
    seq : int
        The commit.
    schema : Schema
        What its rows are written under.
    status : ndarray, uint8 (n,)
        ``Outcome.DELETED``, ``INSERTED`` or ``UPDATED``.
    key : ndarray (n,)
        Primary keys.
    changed : Changed
        Per row, the names of the fields that were written.
    old, new : Rows
        Each row before and after; ``old.found`` is False for what was inserted, ``new.found`` for
        what was deleted.
    """

    seq: int
    schema: Schema
    status: npt.NDArray[np.uint8]
    key: AnyArray
    changed: Changed
    old: Rows
    new: Rows

    def __len__(self) -> int:
        return len(self.status)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dict per row: ``seq``, ``status`` (a word), ``key``, ``old`` and ``new``."""
        return [
            {
                "seq": self.seq,
                "status": Outcome(status).name.lower(),
                "key": key,
                "old": old,
                "new": new,
            }
            for status, key, old, new in zip(
                self.status.tolist(),
                self.key.tolist(),
                self.old.to_dicts(),
                self.new.to_dicts(),
                strict=True,
            )
        ]

    def __repr__(self) -> str:
        counts = np.bincount(self.status, minlength=len(Outcome)).tolist()
        said = "".join(
            f", {Outcome(at).name.lower()}={count}" for at, count in enumerate(counts) if count
        )
        return f"Changes(seq={self.seq}{said})"


class History(Engine):
    """An engine for looking at what was: its vectors can be read, and not be searched."""

    def new_index(self, vector: Vector) -> Index:
        """Return a place for the vectors of a field."""
        return _Vectors(vector.dim)  # type: ignore[return-value]

    def taken_index(self, vector: Vector, index: Index) -> Index:
        """Take the vectors out of an index."""
        kept = _Vectors(vector.dim)
        rids = np.sort(np.asarray(index.keys(), dtype=np.int64))
        kept.upsert(rids, index.get(rids)[0], publish=False)
        return kept  # type: ignore[return-value]


class _Vectors:
    """Vectors by row id: what `Engine` and `read` ask of an index. Old versions stay readable."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._values = Column(np.dtype((np.float32, (dim,))))
        self._present = Column(np.dtype(np.bool_))

    def upsert(self, rids: RowIds, vectors: npt.NDArray[np.float32], *, publish: bool) -> None:  # noqa: ARG002
        if len(rids):
            self._write(rids, vectors, present=True)

    def remove(self, rids: RowIds, *, publish: bool) -> None:  # noqa: ARG002
        known = rids[rids < self._values.size]
        if len(known):
            self._write(known, np.zeros((len(known), self.dim), dtype=np.float32), present=False)

    def _write(self, rids: RowIds, vectors: npt.NDArray[np.float32], *, present: bool) -> None:
        size, selection = int(rids.max()) + 1, Selection(rids)
        values, held = ColumnWriter(self._values, size), ColumnWriter(self._present, size)
        values.write(selection, vectors)
        held.write(selection, np.full(len(rids), present))
        self._values, self._present = values.finish(), held.finish()

    def publish(self) -> None:
        """Whoever has a version reads that one."""

    def snapshot(self, *, head: bool) -> Version:  # noqa: ARG002
        return self._values, self._present

    def get(self, rids: RowIds, *, snapshot: Version) -> tuple[npt.NDArray[np.float32], BoolArray]:
        values, present = snapshot
        vectors = np.zeros((len(rids), self.dim), dtype=np.float32)
        found = rids < values.size
        found[found] = present.gather(rids[found])[0]
        if found.any():
            vectors[found] = values.gather(rids[found])[0]
        return vectors, found

    def keys(self, *, snapshot: Version) -> RowIds:
        present, _ = snapshot[1].to_array()
        rids: RowIds = np.flatnonzero(present)
        return rids


# Changes


def changes_between(head: State, state: State, effects: Effects) -> Changes:
    """Return what ``effects`` made of ``head``: ``state``."""
    deleted, written = effects.deleted, effects.rids
    before = np.full(len(written), -1, dtype=np.int64)
    known = (written < head.size).nonzero()[0]
    known = known[head.live.gather(written[known])[0]]
    known = known[~np.isin(written[known], deleted)]
    before[known] = written[known]
    status = np.full(len(deleted) + len(written), Outcome.DELETED, dtype=np.uint8)
    status[len(deleted) :] = np.where(before < 0, Outcome.INSERTED, Outcome.UPDATED)
    none = np.full(len(deleted), -1, dtype=np.int64)
    old = read_rows(head, np.concatenate([deleted, before]), head.schema.names)
    new = read_rows(state, np.concatenate([none, written]), state.schema.names)
    gone = head.columns[head.schema.primary.name].gather(deleted)[0]
    come = state.columns[state.schema.primary.name].gather(written)[0]
    return Changes(
        state.seq,
        state.schema,
        status,
        np.concatenate([gone, come]),
        _changed(state.schema, effects),
        old,
        new,
    )


def _changed(schema: Schema, effects: Effects) -> Changed:
    rows = len(effects.deleted) + len(effects.rids)
    masks = {}
    effects_of: dict[int, ColumnEffect | VectorEffect] = {**effects.columns, **effects.vectors}
    for name in schema.names:
        effect = effects_of.get(schema.numbers[name])
        if effect is not None:
            mask = np.zeros(rows, dtype=np.bool_)
            written = mask[len(effects.deleted) :]
            written[slice(None) if effect.rows is None else effect.rows] = True
            masks[name] = mask
    return Changed.from_masks(rows, masks)


# Restoring


def restoring_effects(head: State, wanted: State) -> Effects:
    """Return what makes the rows of ``head`` those of an earlier state of the same collection.

    Rows that have not changed since are left alone: they have the same id and version.

    Raises
    ------
    SchemaError
        The schema was changed in between.
    """
    if head.schema != wanted.schema or head.schema.numbers != wanted.schema.numbers:
        raise SchemaError(
            f"the schema was changed after commit {wanted.seq}: restore(seq=...) goes back to"
            " commits under the present schema only"
        )
    size = max(head.size, wanted.size)
    lives, lived = _by_rid(head.live, size), _by_rid(wanted.live, size)
    same = _by_rid(head.versions, size) == _by_rid(wanted.versions, size)
    # A row id that another row has by now: that one goes, and the earlier one comes.
    other = lives & lived
    both = np.flatnonzero(other & ~same)
    name = head.schema.primary.name
    keys, earlier = head.columns[name].gather(both)[0], wanted.columns[name].gather(both)[0]
    other[:] = False
    other[both[keys != earlier]] = True
    deleted: RowIds = np.flatnonzero((lives & ~lived) | other)
    rids: RowIds = np.flatnonzero(lived & ~(lives & same))
    return replace(effects_of_rows(wanted, rids, rids, head.seq + 1), deleted=deleted)


def effects_of_rows(state: State, rids: RowIds, written: RowIds, version: int) -> Effects:
    """Return what writes all fields of some rows of a state, to rows of these ids."""
    schema, selection = state.schema, Selection(rids)
    columns, vectors = {}, {}
    for name, field in schema.fields.items() if len(rids) else ():
        values, null = state.columns[name].take(selection)
        null = np.zeros(len(rids), dtype=np.bool_) if null is None else null
        columns[schema.numbers[name]] = ColumnEffect(None, field.type, values, null)
    for name in schema.vectors if len(rids) else ():
        kept, found = state.indexes[name].get(rids, snapshot=state.snapshots[name])
        vectors[schema.numbers[name]] = VectorEffect(None, kept, ~found)
    none = np.empty(0, dtype=np.int64)
    return Effects(none, written, np.full(len(rids), version, dtype=np.int64), columns, vectors)


def restoring_result(head: State, state: State, effects: Effects) -> UpsertResult:
    """Return what became of each row: those that were deleted, then those that were written."""
    done = changes_between(head, state, effects)
    return UpsertResult(
        done.status,
        key=done.key,
        version=np.where(done.new.found, done.new.version, done.old.version),
        changed=done.changed,
        seq=state.seq,
    )


def _by_rid(column: Column, size: int) -> AnyArray:
    values = np.zeros(size, dtype=column.dtype)
    values[: column.size] = column.to_array()[0]
    return values
