"""Resolved effects → the next state; the same code when a commit is made and when it is replayed.

:class:`Engine` owns what exists only once: the key tables, the vector indexes, and the row ids
that are free. One thread at a time calls it: the writer, with its lock held.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import Index
from .alter import filled_column, widened_column
from .base import Base
from .codec import ColumnEffect, Effects, Operation, VectorEffect
from .columns import Column, ColumnWriter, Selection
from .condition import Selector
from .errors import CorruptionError, LimitError
from .operations import Operations
from .schema import Schema
from .state import State, empty_state, key_tables
from .ttl import now_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._core import Snapshot
    from .fields import Vector
    from .resolve import Resolution
    from .state import KeyTable

__all__ = ["MAX_ROWS", "Engine", "new_index"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]

# Half of what the rows of a vector index are numbered by: in one commit, every row may get a second
# version.
MAX_ROWS = 2**30
# What the log calls a change of the schema.
_SCHEMA_NOTE = "schema"
_NO_RIDS = np.empty(0, dtype=np.int64)


class Engine:
    """The parts of a collection that change in place, and the step from one state to the next.

    Attributes
    ----------
    tables : dict of str to KeyTable
        The primary key's first.
    indexes : dict of str to Index
        By vector field; their keys are row ids.
    free : deque of int
        Row ids to use again, oldest first: so that replay hands out the same ones.
    remembered : dict
        The order value of rows that were deleted, by primary key, if the schema has ``order_by``:
        a row that is older must not bring them back.
    operations : Operations
        The results of calls that may be repeated.
    selector : Selector
        The scalar indexes, and what conditions remember.
    """

    def __init__(self, schema: Schema, *, seed: int) -> None:
        self.schema = schema
        # Never changed once a state has them, but replaced: older states go on with theirs.
        self.tables: dict[str, KeyTable] = key_tables(schema, seed=seed)
        self.indexes = {name: self.new_index(vector) for name, vector in schema.vectors.items()}
        self._seed = seed
        self.free: deque[int] = deque()
        self.remembered: dict[Any, Any] = {}
        self.operations = Operations()
        self.selector = Selector()
        self._names = {number: name for name, number in schema.numbers.items()}

    def start(self) -> State:
        """Return the state without rows."""
        return empty_state(self.schema, self.tables, self.indexes, self._snapshots(), self.selector)

    def new_index(self, vector: Vector) -> Index:
        """Return an empty index for a vector field."""
        return new_index(vector)

    def taken_index(self, vector: Vector, index: Index) -> Index:  # noqa: ARG002
        """Return what stands for an index that was read from a checkpoint."""
        return index

    def based_on(self, head: State) -> Base:
        """Return what the next commit is resolved against."""
        return Base(head, self.remembered, now_us())

    def restore(
        self,
        seq: int,
        columns: Mapping[str, Column],
        *,
        live: Column,
        versions: Column,
        indexes: Mapping[str, Index],
        free: Iterable[int],
    ) -> State:
        """Take over what a checkpoint held, and return its state."""
        self.indexes.update(indexes)
        self.free.extend(free)
        count = int(np.count_nonzero(live.to_array()[0]))
        state = State(
            seq,
            live.size,
            count,
            live=live,
            versions=versions,
            columns=dict(columns),
            snapshots=self._snapshots(),
            schema=self.schema,
            tables=self.tables,
            indexes=self.indexes,
            selector=self.selector,
        )
        rids = state.live_rids()
        for table in self.tables.values():
            keys, keyed = _keys_of(state.columns, table.fields, rids)
            table.change(_none_of(keys), keys, rids[keyed])
        return state

    def upsert_effects(
        self, head: State, resolution: Resolution, rows: int, op: Operation | None = None
    ) -> Effects:
        """Return what a resolved batch of ``rows`` writes; new rows get their ids here.

        Raises
        ------
        LimitError
            There are no row ids left.
        """
        stored = np.zeros(rows, dtype=np.bool_)
        stored[resolution.inserts] = True
        stored[resolution.updates] = True
        written = stored.nonzero()[0]
        rids = resolution.rids[written]
        rids[rids < 0] = self._new_rids(head, len(resolution.inserts))
        everything = len(written) == rows
        columns: dict[int, ColumnEffect] = {}
        vectors: dict[int, VectorEffect] = {}
        for name, write in resolution.writes.items():
            subset = write.write if everything else write.write[written]
            picked = None if np.count_nonzero(subset) == len(subset) else subset.nonzero()[0]
            if picked is not None and not len(picked):
                continue
            take: Any = written if picked is None else written[picked]
            if picked is None and everything:
                take = slice(None)
            number, values, null = self.schema.numbers[name], write.values[take], write.null[take]
            if name in self.schema.vectors:
                vectors[number] = VectorEffect(picked, values, null)
            else:
                kind = self.schema.fields[name].type
                columns[number] = ColumnEffect(picked, kind, values, null)
        versions = np.full(len(rids), head.seq + 1, dtype=np.int64)
        return Effects(resolution.leaving, rids, versions, columns, vectors, op)

    def delete_effects(self, rids: RowIds) -> Effects:
        """Return what deleting these rows writes."""
        return Effects(rids, _NO_RIDS, _NO_RIDS)

    def alter_effects(self, schema: Schema, filled: Effects, gone: RowIds) -> Effects:
        """Return what changing the schema writes: values of new fields, and without some rows."""
        described = json.dumps(schema.to_dict(), ensure_ascii=False, allow_nan=False).encode()
        return replace(filled, deleted=gone, notes={_SCHEMA_NOTE: described})

    def adopt(self, state: State, schema: Schema) -> None:
        """Take a schema that is equal, but for the functions that no file holds."""
        self.schema = state.schema = schema

    def apply(
        self, head: State, effects: Effects, seq: int, *, schema: Schema | None = None
    ) -> State:
        """Carry out effects on the newest state, and return the state after it.

        ``schema`` is what the effects change the schema to, if it is at hand: what is read from
        the log has no functions.

        Raises
        ------
        CorruptionError
            The effects do not fit the state: a field or a row that cannot be.
        """
        if _SCHEMA_NOTE in effects.notes:
            if len(
                effects.deleted
            ):  # before the schema changes: their keys are free under the new one
                head = self.apply(head, self.delete_effects(effects.deleted), seq)
                effects = replace(effects, deleted=_NO_RIDS)
            head = self._altered(head, schema or _schema_of(effects.notes[_SCHEMA_NOTE]))
        step = _Step(head, effects)
        columns = self._columns(head, effects, step)
        live = self._live(head, effects, step)
        versions = ColumnWriter(head.versions, step.size)
        versions.write(step.selection, effects.versions)
        self._change_keys(head, effects, step, columns)
        snapshots = self._change_vectors(head, effects, step)
        state = State(
            seq,
            step.size,
            head.count - len(effects.deleted) + len(step.new_rids),
            live=live,
            versions=versions.finish(),
            columns=columns,
            snapshots=snapshots,
            schema=self.schema,
            tables=self.tables,
            indexes=self.indexes,
            selector=self.selector,
        )
        head.link.next = state.link
        self._remember(head, effects.deleted, state, step)
        if effects.op is not None:
            self.operations.add(effects.op)
        self._settle_free(effects.deleted, step)
        return state

    def _altered(self, head: State, schema: Schema) -> State:
        """Return the newest state under another schema; what is new in it has its defaults."""
        old = head.schema
        was = {number: name for name, number in old.numbers.items()}
        before = {name: was.get(schema.numbers[name]) for name in schema.names}
        columns = {}
        for name, field in schema.fields.items():
            source = before[name]
            columns[name] = (
                filled_column(field, head.size)
                if source is None
                else widened_column(head.columns[source], old.fields[source].type, field.type)
            )
        indexes, snapshots = {}, {}
        for name, vector in schema.vectors.items():
            source = before[name]
            indexes[name] = self.new_index(vector) if source is None else head.indexes[source]
            snapshots[name] = (
                indexes[name].snapshot(head=True) if source is None else head.snapshots[source]
            )
        self.tables = self._altered_tables(head, schema, columns)
        self.indexes = indexes
        self._widen_remembered(old, schema)
        self.schema = schema
        self._names = {number: name for name, number in schema.numbers.items()}
        self.selector.indexes.forget(schema)
        state = State(
            head.seq,
            head.size,
            head.count,
            live=head.live,
            versions=head.versions,
            columns=columns,
            snapshots=snapshots,
            schema=schema,
            tables=self.tables,
            indexes=indexes,
            selector=self.selector,
        )
        state.link = head.link
        return state

    def _altered_tables(
        self, head: State, schema: Schema, columns: Mapping[str, Column]
    ) -> dict[str, KeyTable]:
        """Return the key tables: those of before whose keys are the same, and new ones, filled."""

        def signed(table: KeyTable, numbers: Mapping[str, int]) -> tuple[Any, ...]:
            return tuple((numbers[n], t) for n, t in zip(table.fields, table.types, strict=True))

        known: dict[tuple[Any, ...], list[KeyTable]] = {}
        for table in head.tables.values():
            known.setdefault(signed(table, head.schema.numbers), []).append(table)
        tables = {}
        rids = head.live_rids()
        for name, table in key_tables(schema, seed=self._seed).items():
            same = known.get(signed(table, schema.numbers))
            if same:
                tables[name] = same.pop(0).renamed(name, table.fields)
                continue
            keys, keyed = _keys_of(columns, table.fields, rids)
            table.change(_none_of(keys), keys, rids[keyed])
            tables[name] = table
        return tables

    def _widen_remembered(self, old: Schema, new: Schema) -> None:
        if old.order_by is None or new.order_by is None or not self.remembered:
            return
        if old.fields[old.order_by].type != new.fields[new.order_by].type:
            dtype = new.fields[new.order_by].dtype
            self.remembered = {key: dtype.type(at) for key, at in self.remembered.items()}

    def _remember(self, head: State, deleted: RowIds, state: State, step: _Step) -> None:
        """Note when deleted rows were last written, and forget it of those that are back."""
        if self.schema.order_by is None:
            return
        name = self.schema.primary.name
        if len(deleted):
            selection = Selection(deleted)
            keys = head.columns[name].take(selection)[0].tolist()
            order, null = head.columns[self.schema.order_by].take(selection)
            for at, key in enumerate(keys):
                if null is None or not null[at]:
                    self.remembered[key] = order[at]
        if self.remembered and len(step.new_rids):
            for key in state.columns[name].gather(step.new_rids)[0].tolist():
                self.remembered.pop(key, None)

    def _columns(self, head: State, effects: Effects, step: _Step) -> dict[str, Column]:
        columns = dict(head.columns)
        for number, effect in effects.columns.items():
            name = self._names.get(number, "")
            if name not in columns or effect.type != self.schema.fields[name].type:
                raise CorruptionError(f"a commit writes field {number} as {effect.type}")
            writer = ColumnWriter(head.columns[name], step.size)
            null = effect.null if np.count_nonzero(effect.null) else None
            writer.write(step.rows(effect.rows), effect.values, null)
            columns[name] = writer.finish()
        if step.size > head.size:
            for name, column in columns.items():
                if column.size < step.size:
                    columns[name] = ColumnWriter(column, step.size).finish()
        self.selector.indexes.carry(self.schema, head.columns, columns)
        return columns

    def _live(self, head: State, effects: Effects, step: _Step) -> Column:
        if not len(effects.deleted) and not len(step.new_rids):
            return head.live
        live = ColumnWriter(head.live, step.size)
        live.write(Selection(effects.deleted), np.zeros(len(effects.deleted), dtype=np.bool_))
        live.write(step.selection, np.ones(len(effects.rids), dtype=np.bool_))
        return live.finish()

    def _change_keys(
        self, head: State, effects: Effects, step: _Step, columns: Mapping[str, Column]
    ) -> None:
        written = {self._names[number]: effect for number, effect in effects.columns.items()}
        for table in self.tables.values():
            changed = _NO_RIDS
            involved = [written[name] for name in table.fields if name in written]
            if involved:
                touched = np.zeros(len(effects.rids), dtype=np.bool_)
                for effect in involved:
                    touched[slice(None) if effect.rows is None else effect.rows] = True
                changed = effects.rids[touched]
            if not len(changed) and not len(effects.deleted):
                continue
            losing = effects.deleted
            if step.updates and len(changed):
                losing = np.concatenate([losing, effects.rids[touched & step.was_live]])
            gone, gone_keyed = _keys_of(head.columns, table.fields, losing)
            keys, keyed = _keys_of(columns, table.fields, changed)
            table.note(head, gone, losing[gone_keyed])
            table.change(gone, keys, changed[keyed])

    def _change_vectors(self, head: State, effects: Effects, step: _Step) -> dict[str, Snapshot]:
        snapshots = dict(head.snapshots)
        for number in effects.vectors:
            if self._names.get(number) not in self.indexes:
                raise CorruptionError(f"a commit writes vector {number}, which the schema lacks")
        for name, index in self.indexes.items():
            effect = effects.vectors.get(self.schema.numbers[name])
            if effect is None and not len(effects.deleted):
                continue
            self._change_index(index, effect, effects, step)
            # Readers hold snapshots, so publishing to the index alone shows them nothing.
            index.publish()
            snapshots[name] = index.snapshot(head=True)
        return snapshots

    def _change_index(
        self, index: Index, effect: VectorEffect | None, effects: Effects, step: _Step
    ) -> None:
        removed = effects.deleted
        if effect is not None and effect.null.any():
            nulls = step.rows(effect.rows).rids[effect.null]
            removed = np.concatenate([removed, nulls])
        if len(removed):
            index.remove(removed, publish=False)
        if effect is None or effect.null.all():
            return
        rids, values = step.rows(effect.rows).rids, effect.values
        if values.shape[1] != index.dim:
            raise CorruptionError(f"a commit has vectors of {values.shape[1]}, not {index.dim}")
        if effect.null.any():
            rids, values = rids[~effect.null], values[~effect.null]
        index.upsert(rids, np.ascontiguousarray(values), publish=False)

    def _new_rids(self, head: State, count: int) -> RowIds:
        """Choose ids for new rows: free ones first. They are taken when the effects apply."""
        reused = list(islice(self.free, count))
        fresh = count - len(reused)
        if head.size + fresh > MAX_ROWS:
            total = head.count + count
            message = f"{total} rows; a collection holds at most {MAX_ROWS}"
            raise LimitError(message, got=total, want=MAX_ROWS)
        if not reused:
            return np.arange(head.size, head.size + fresh, dtype=np.int64)
        return np.array([*reused, *range(head.size, head.size + fresh)], dtype=np.int64)

    def _settle_free(self, deleted: RowIds, step: _Step) -> None:
        reused = step.new_rids[step.new_rids < step.old_size].tolist()
        if reused == list(islice(self.free, len(reused))):
            for _ in reused:
                self.free.popleft()
        else:
            taken = set(reused)
            self.free = deque(rid for rid in self.free if rid not in taken)
        if len(deleted):
            again = set(step.new_rids.tolist())
            self.free.extend(rid for rid in deleted.tolist() if rid not in again)

    def _snapshots(self) -> dict[str, Snapshot]:
        return {name: index.snapshot(head=True) for name, index in self.indexes.items()}


class _Step:
    """What applying needs to know of effects again and again."""

    __slots__ = ("new_rids", "old_size", "rids", "selection", "size", "updates", "was_live")

    def __init__(self, head: State, effects: Effects) -> None:
        rids = effects.rids
        self.rids = rids
        self.old_size = head.size
        self.size = max(head.size, int(rids.max()) + 1 if len(rids) else 0)
        if self.size > head.size + len(rids):
            raise CorruptionError(f"a commit of {len(rids)} rows uses row id {self.size - 1}")
        if len(effects.deleted) and int(effects.deleted.max()) >= head.size:
            raise CorruptionError(f"a commit deletes row {int(effects.deleted.max())}")
        self.selection = Selection(rids)
        self.was_live = np.zeros(len(rids), dtype=np.bool_)
        known = rids < head.size
        if np.count_nonzero(known):
            self.was_live[known] = head.live.gather(rids[known])[0]
            if len(effects.deleted):
                self.was_live &= ~np.isin(rids, effects.deleted)
        self.updates = np.count_nonzero(self.was_live) > 0
        self.new_rids = rids[~self.was_live]

    def rows(self, positions: RowIds | None) -> Selection:
        """Return the row ids at some positions of the effects; None: all."""
        return self.selection if positions is None else Selection(self.rids[positions])


def new_index(vector: Vector) -> Index:
    """Return an empty index for a vector field."""
    return Index(
        vector.dim,
        metric=vector.metric,
        key="int64",
        M=vector.M,
        ef_construction=vector.ef_construction,
    )


def _keys_of(
    columns: Mapping[str, Column], fields: Iterable[str], rids: RowIds
) -> tuple[list[AnyArray], BoolArray]:
    """Return the keys of some rows without a null in them, and which rows these are."""
    selection = Selection(rids)
    keyed = np.ones(len(rids), dtype=np.bool_)
    keys = []
    for name in fields:
        values, null = columns[name].take(selection)
        keys.append(values)
        if null is not None:
            keyed &= ~null
    return (keys, keyed) if keyed.all() else ([column[keyed] for column in keys], keyed)


def _schema_of(described: bytes) -> Schema:
    try:
        return Schema.from_dict(json.loads(described))
    except (ValueError, RecursionError) as error:  # a SchemaError too
        raise CorruptionError(f"a commit changes the schema to what is none: {error}") from None


def _none_of(keys: list[AnyArray]) -> list[AnyArray]:
    return [column[:0] for column in keys]
