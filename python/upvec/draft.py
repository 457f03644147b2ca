"""Writes that nobody else sees yet: a private continuation of one version of a collection.

A :class:`Draft` goes on from a state by the engine's own code, with tables and indexes that hold
only what was changed (:class:`_DraftTable`, :class:`_DraftIndex`). Columns are persistent anyway.
In the end it gives the effects of all its steps as one commit, if the state that it began with
still holds where it was relied on.

Rows that a draft makes have ids that no real row has, beyond the chunks of its first state, so
that what it writes lies in chunks of its own; they get real ids when they are committed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import Index
from .apply import Engine
from .codec import ColumnEffect, Effects, VectorEffect
from .columns import CHUNK_ROWS, Column, ColumnWriter, Selection, tuples_of
from .errors import ConflictError
from .match import arbiter_of
from .operations import Operations
from .state import KeyTable, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._core import Snapshot
    from .base import Base
    from .fields import Vector
    from .ingest import Batch
    from .resolve import Call
    from .schema import Schema

__all__ = ["Draft"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
Found: TypeAlias = "tuple[RowIds, npt.NDArray[np.float32], npt.NDArray[np.int64]]"

# Up to so many changed vectors, a search asks for as many hits more; beyond, it excludes them by
# a list of all others, which takes a pass over all rows.
_FEW = 256


class Draft(Engine):
    """What an engine is to a collection, for writes that wait to be committed.

    Attributes
    ----------
    base : State
        The version that it goes on from.
    """

    def __init__(self, engine: Engine, base: State) -> None:
        # Not by Engine.__init__: it would make tables and indexes of its own.
        self.schema = base.schema
        self.free = deque()
        self.operations = Operations()
        self.selector = engine.selector
        self._names = {number: name for name, number in self.schema.numbers.items()}
        self.base = base
        self._engine = engine
        self.tables = {name: _DraftTable(table, base) for name, table in base.tables.items()}
        self._overlays = {
            name: _DraftIndex(vector, base.indexes[name], base.snapshots[name])
            for name, vector in base.schema.vectors.items()
        }
        # They do all that is asked of an index here.
        self.indexes = self._overlays  # type: ignore[assignment]
        self.remembered = dict(engine.remembered)
        self._first_new = len(base.live.chunks) * CHUNK_ROWS
        self._written: dict[str, set[int]] = {}
        self._gone: set[int] = set()
        self._relied: dict[int, int] = {}
        self._absent: dict[str, set[Any]] = {name: set() for name in self.tables}

    def begin(self) -> State:
        """Return the state to go on from: that of the base, with room up to the new ids."""
        base, size = self.base, self._first_new
        columns = {name: ColumnWriter(c, size).finish() for name, c in base.columns.items()}
        self.selector.indexes.carry(self.schema, base.columns, columns)
        return State(
            base.seq,
            size,
            base.count,
            live=self._live_in_base(),
            versions=ColumnWriter(base.versions, size).finish(),
            columns=columns,
            snapshots=base.snapshots,
            schema=self.schema,
            tables=self.tables,
            indexes=self.indexes,
            selector=self.selector,
        )

    def _live_in_base(self) -> Column:
        """Return which rows live, with a last chunk that nobody else has.

        Others write their new rows behind the last one of the base, in place.
        """
        live, size = self.base.live, self._first_new
        if not live.size % CHUNK_ROWS:
            return ColumnWriter(live, size).finish()
        last = np.zeros(CHUNK_ROWS, dtype=np.bool_)
        rows = live.size % CHUNK_ROWS
        last[:rows] = live.chunks[-1][:rows]
        stamps = ColumnWriter(live, size).finish().stamps
        return Column(live.dtype, (*live.chunks[:-1], last), live.nulls, size, stamps)

    def rely_on_rows(self, rids: RowIds) -> None:
        """Note rows of the base that a step has looked at: they must not change meanwhile."""
        known = np.unique(rids[(rids >= 0) & (rids < self.base.size)])
        if len(known):
            versions = self.base.versions.gather(known)[0].tolist()
            for rid, version in zip(known.tolist(), versions, strict=True):
                self._relied.setdefault(rid, version)

    def rely_on(self, base: Base, batch: Batch, call: Call) -> None:
        """Note what the rows of a batch match, and the keys that match nothing."""
        for name in call.on:
            arbiter = arbiter_of(batch, self.tables[name], None)[0]
            if not len(arbiter.columns) or not len(arbiter.columns[0]):
                continue
            rids = base.lookup(arbiter.table, arbiter.columns)
            self.rely_on_rows(rids)
            absent = (rids < 0).nonzero()[0]
            if len(absent):
                keys = tuples_of([column[absent] for column in arbiter.columns])
                self.rely_on_absence(name, keys)

    def rely_on_absence(self, table: str, keys: Sequence[Any]) -> None:
        """Note keys that the base does not have: nobody must store them meanwhile."""
        self._absent[table].update(keys)

    # --- Steps --------------------------------------------------------------------------------

    def apply(
        self, head: State, effects: Effects, seq: int, *, schema: Schema | None = None
    ) -> State:
        """Carry out effects on the draft, and note what they touch."""
        self.rely_on_rows(effects.deleted)
        self.rely_on_rows(effects.rids)
        self._gone.update(rid for rid in effects.deleted.tolist() if rid < self._first_new)
        written: dict[int, ColumnEffect | VectorEffect] = {**effects.columns, **effects.vectors}
        for number, effect in written.items():
            rids = effects.rids if effect.rows is None else effects.rids[effect.rows]
            self._written.setdefault(self._names[number], set()).update(rids.tolist())
        state = super().apply(head, effects, seq, schema=schema)
        self.free = deque()  # ids are not used again: a commit must tell old rows from new ones
        return state

    def marked(self) -> tuple[Any, ...]:
        """Return what :meth:`back_to` needs: everything that steps change in place."""
        return (
            {name: table.copied() for name, table in self._draft_tables()},
            {name: dict(index.changed) for name, index in self._overlays.items()},
            dict(self.remembered),
            {name: set(rids) for name, rids in self._written.items()},
            set(self._gone),
        )

    def back_to(self, mark: tuple[Any, ...]) -> None:
        """Forget the steps since a mark. What was relied on stays relied on."""
        tables, changed, remembered, written, gone = mark
        self._gone = set(gone)
        for name, table in self._draft_tables():
            table.restore(tables[name])
        for name, index in self._overlays.items():
            index.restore(changed[name])
        self.remembered = dict(remembered)
        self._written = {name: set(rids) for name, rids in written.items()}

    def _draft_tables(self) -> list[tuple[str, _DraftTable]]:
        return [(n, t) for n, t in self.tables.items() if isinstance(t, _DraftTable)]

    # --- The end ------------------------------------------------------------------------------

    def check(self, head: State) -> set[int]:
        """Return the rows of the base that are not as they were; raise if a key has come.

        Raises
        ------
        ConflictError
            A key that was not stored, and was relied on to be so, is stored now; or the schema is
            another one.
        """
        if head.seq == self.base.seq:
            return set()
        relies = self._relied or self._written or self._gone or any(self._absent.values())
        if head.schema is not self.schema and relies:
            raise ConflictError("the schema was changed by others meanwhile; nothing was written")
        rids = np.array(sorted(self._relied), dtype=np.int64)
        wanted = np.array([self._relied[rid] for rid in rids.tolist()], dtype=np.int64)
        same = head.live.gather(rids)[0] & (head.versions.gather(rids)[0] == wanted)
        for name, keys in self._absent.items():
            self._check_absent(name, keys)
        return set(rids[~same].tolist())

    def _check_absent(self, name: str, keys: set[Any]) -> None:
        if not keys:
            return
        listed = list(keys)
        table = self.base.tables[name]
        columns = _columns_of(listed, table)
        now = table.find(columns)
        before = table.find_at(self.base, columns)
        came = np.flatnonzero((now >= 0) & (now != before)).tolist()
        if came:
            shown = ", ".join(repr(listed[at]) for at in came[:5])
            message = f"{len(came)} keys of {name} were stored by others meanwhile, such as {shown}"
            raise ConflictError(f"{message}; nothing was written")

    def effects(self, head: State, final: State) -> Effects | None:
        """Return all steps as one commit upon ``head``; None if they come to nothing."""
        touched = np.array(sorted(set().union(*self._written.values(), ())), dtype=np.int64)
        alive = final.live.gather(touched)[0] if len(touched) else np.empty(0, dtype=np.bool_)
        touched = touched[alive]
        deleted = np.array(sorted(self._gone), dtype=np.int64)
        if not len(touched) and not len(deleted):
            return None
        is_new = touched >= self._first_new
        rids = touched.copy()
        rids[is_new] = self._engine._new_rids(head, int(is_new.sum()))  # noqa: SLF001
        columns: dict[int, ColumnEffect] = {}
        vectors: dict[int, VectorEffect] = {}
        for name, written in self._written.items():
            rows = np.flatnonzero(np.isin(touched, list(written)))
            if not len(rows):
                continue
            picked = None if len(rows) == len(touched) else rows
            number = self.schema.numbers[name]
            if name in self._overlays:
                values, found = self._overlays[name].get(touched[rows])
                vectors[number] = VectorEffect(picked, values, ~found)
                continue
            values, null = final.columns[name].take(Selection(touched[rows]))
            null = np.zeros(len(rows), dtype=np.bool_) if null is None else null
            columns[number] = ColumnEffect(picked, self.schema.fields[name].type, values, null)
        versions = np.full(len(rids), head.seq + 1, dtype=np.int64)
        return Effects(deleted, rids, versions, columns, vectors)

    def claims(self) -> None:
        """Rely on the absence of every key that the draft has brought."""
        for name, table in self._draft_tables():
            self._absent[name].update(key for key, rid in table.changed.items() if rid >= 0)


def _columns_of(keys: list[Any], table: KeyTable) -> list[AnyArray]:
    from .fields import Field  # noqa: PLC0415
    from .ingest import field_column  # noqa: PLC0415

    parts = [keys] if len(table.fields) == 1 else [list(part) for part in zip(*keys, strict=True)]
    return [
        field_column(Field(name, kind), part)[0]
        for name, kind, part in zip(table.fields, table.types, parts, strict=True)
    ]


class _DraftTable(KeyTable):
    """A key table of the base, and the keys that the draft has brought or taken away."""

    __slots__ = ("_base", "_table", "changed")

    def __init__(self, table: KeyTable, base: State) -> None:
        self.name, self.fields, self.types = table.name, table.fields, table.types
        self._table = table
        self._base = base
        self.changed: dict[Any, int] = {}

    def find(self, columns: Sequence[AnyArray]) -> RowIds:
        rids = self._table.find_at(self._base, columns)
        if not self.changed:
            return rids
        rids = rids.copy()
        for at, key in enumerate(tuples_of(columns)):
            if key in self.changed:
                rids[at] = self.changed[key]
        return rids

    def find_at(self, state: State, columns: Sequence[AnyArray]) -> RowIds:  # noqa: ARG002
        return self.find(columns)

    def note(self, state: State, columns: Sequence[AnyArray], rids: RowIds) -> None:
        """Nobody follows the versions of a draft."""

    def change(self, gone: Sequence[AnyArray], columns: Sequence[AnyArray], rids: RowIds) -> None:
        if len(gone[0]):
            self.changed.update(dict.fromkeys(tuples_of(gone), -1))
        if len(rids):
            self.changed.update(zip(tuples_of(columns), rids.tolist(), strict=True))

    def copied(self) -> dict[Any, int]:
        return dict(self.changed)

    def restore(self, changed: dict[Any, int]) -> None:
        self.changed = dict(changed)


class _DraftIndex:
    """A version of an index, and the vectors that the draft has changed or taken away."""

    def __init__(self, vector: Vector, index: Index, snapshot: Snapshot) -> None:
        self.dim = vector.dim
        self._vector = vector
        self._index = index
        self._snapshot = snapshot
        self.changed: dict[int, npt.NDArray[np.float32] | None] = {}
        self._own: Index | None = None  # of the changed vectors, for searches; made when needed

    # --- Changes ------------------------------------------------------------------------------

    def upsert(self, rids: RowIds, vectors: npt.NDArray[np.float32], *, publish: bool) -> None:  # noqa: ARG002
        self.changed.update(zip(rids.tolist(), vectors.copy(), strict=True))
        self._own = None

    def remove(self, rids: RowIds, *, publish: bool) -> None:  # noqa: ARG002
        self.changed.update(dict.fromkeys(rids.tolist()))
        self._own = None

    def restore(self, changed: dict[int, npt.NDArray[np.float32] | None]) -> None:
        self.changed = dict(changed)
        self._own = None

    def publish(self) -> None:
        """A draft shows nothing to anybody."""

    def snapshot(self, *, head: bool) -> Snapshot:  # noqa: ARG002
        return self._snapshot

    # --- Reading ------------------------------------------------------------------------------

    def get(
        self,
        rids: RowIds,
        *,
        snapshot: Snapshot | None = None,  # noqa: ARG002
    ) -> tuple[npt.NDArray[np.float32], BoolArray]:
        vectors, found = self._index.get(rids, snapshot=self._snapshot)
        for at, rid in enumerate(rids.tolist()):
            if rid in self.changed:
                vector = self.changed[rid]
                found[at] = vector is not None
                vectors[at] = 0.0 if vector is None else vector
        return vectors, found

    def keys(self, *, snapshot: Snapshot | None = None) -> RowIds:  # noqa: ARG002
        held = np.asarray(self._index.keys(snapshot=self._snapshot), dtype=np.int64)
        own = [rid for rid, vector in self.changed.items() if vector is not None]
        rest = held[np.isin(held, list(self.changed), invert=True)]
        return np.concatenate([rest, np.array(own, dtype=np.int64)])

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        ef: int = 0,
        allowed: RowIds | None = None,
        snapshot: Snapshot | None = None,  # noqa: ARG002
    ) -> Found:
        def ask(wanted: int, among: RowIds | None) -> Found:
            found: Found = self._index.search(
                queries, wanted, ef=ef, allowed=among, snapshot=self._snapshot
            )
            return found

        return self._nearest(queries, k, allowed, ask)

    def exact_search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: RowIds | None = None,
        snapshot: Snapshot | None = None,  # noqa: ARG002
    ) -> Found:
        def ask(wanted: int, among: RowIds | None) -> Found:
            found: Found = self._index.exact_search(
                queries, wanted, allowed=among, snapshot=self._snapshot
            )
            return found

        return self._nearest(queries, k, allowed, ask)

    def range_search(
        self,
        queries: npt.NDArray[np.float32],
        radius: float,
        *,
        ef: int = 0,
        allowed: RowIds | None = None,
        snapshot: Snapshot | None = None,  # noqa: ARG002
    ) -> tuple[npt.NDArray[np.int64], RowIds, npt.NDArray[np.float32]]:
        among = self._others(allowed)
        offsets, rids, distances = self._index.range_search(
            queries, radius, ef=ef, allowed=among, snapshot=self._snapshot
        )
        own = self._own_index()
        if not len(own):
            return offsets, rids, distances
        more = own.range_search(queries, radius, allowed=self._mine(allowed))
        pieces = []
        for query in range(len(queries)):
            one = slice(offsets[query], offsets[query + 1])
            two = slice(more[0][query], more[0][query + 1])
            keys = np.concatenate([rids[one], more[1][two]])
            far = np.concatenate([distances[one], more[2][two]])
            order = np.lexsort((keys, far))
            pieces.append((keys[order], far[order]))
        counts = [len(keys) for keys, _ in pieces]
        return (
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([keys for keys, _ in pieces]),
            np.concatenate([far for _, far in pieces]),
        )

    def _nearest(
        self, queries: npt.NDArray[np.float32], k: int, allowed: RowIds | None, ask: Any
    ) -> Found:
        """Merge what the base has, without what was changed there, with the draft's own."""
        if not self.changed:
            found: Found = ask(k, allowed)
            return found
        if allowed is None and len(self.changed) <= _FEW:
            keys, distances, counts = ask(k + len(self.changed), None)
            stands = np.isin(keys, list(self.changed), invert=True)
            stands &= np.arange(keys.shape[1]) < counts[:, None]
        else:
            keys, distances, counts = ask(k, self._others(allowed))
            stands = np.arange(keys.shape[1]) < counts[:, None]
        own = self._own_index()
        if len(own):
            more = own.exact_search(queries, min(k, len(own)), allowed=self._mine(allowed))
            keys = np.concatenate([keys, more[0]], axis=1)
            distances = np.concatenate([distances, more[1]], axis=1)
            filled = np.arange(more[0].shape[1]) < more[2][:, None]
            stands = np.concatenate([stands, filled], axis=1)
        distances = np.where(stands, distances, np.inf).astype(np.float32)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        keys = np.take_along_axis(keys, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        counts = np.minimum(stands.sum(axis=1), k)
        keys[np.arange(keys.shape[1]) >= counts[:, None]] = 0
        return keys, distances, counts

    def _others(self, allowed: RowIds | None) -> RowIds:
        """Return what may be found in the base: what is allowed, and was not changed."""
        if allowed is None:
            allowed = np.asarray(self._index.keys(snapshot=self._snapshot), dtype=np.int64)
        others: RowIds = allowed[np.isin(allowed, list(self.changed), invert=True)]
        return others

    def _mine(self, allowed: RowIds | None) -> RowIds | None:
        if allowed is None:
            return None
        mine: RowIds = allowed[np.isin(allowed, list(self.changed))]
        return mine

    def _own_index(self) -> Index:
        if self._own is None:
            own = Index(self.dim, metric=self._vector.metric, key="int64")
            rids = [rid for rid, vector in self.changed.items() if vector is not None]
            if rids:
                vectors = np.array([self.changed[rid] for rid in rids], dtype=np.float32)
                own.upsert(np.array(rids, dtype=np.int64), vectors)
            self._own = own
        return self._own
