"""Match incoming rows with stored ones, and decide which may be written.

:func:`resolve` turns a validated batch into a :class:`Resolution`: one outcome per row and the
final values of every field that will be written. It reads the newest state and changes nothing,
so whatever it raises has changed nothing. The writer's lock is held meanwhile.

The steps: match on one key; find rows of the batch that match the same row; leave out what the
policy's mode leaves out; resolve the fields; check every other key *in the state that the whole
batch would give*, so that rows may hand unique values to each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import first_occurrence
from .columns import Selection, equal_values, tuples_of
from .errors import ConflictError, DuplicateKeyError, InvalidRowError
from .policy import FieldWrite, Rules, field_writes
from .result import Changed, Outcome, UpsertResult

if TYPE_CHECKING:
    from ._core import Index
    from .ingest import Batch
    from .schema import Schema
    from .state import KeyTable, State

__all__ = ["DUPLICATES", "Resolution", "resolve"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]

DUPLICATES = ("error", "first", "last")


@dataclass(eq=False)
class Resolution:
    """What a batch will do.

    Attributes
    ----------
    status : uint8 array (n,)
    rids : int64 array (n,)
        The stored row that each row matched, or -1.
    writes : dict of str to FieldWrite
        The fields that are written.
    inserts, updates : int64 array
        Positions in the batch of the rows that will be stored or changed, increasing.
    reasons : dict of int to (word, sentence)
        Of the rows that are left out.
    """

    status: npt.NDArray[np.uint8]
    rids: Rows
    writes: dict[str, FieldWrite]
    inserts: Rows
    updates: Rows
    reasons: dict[int, tuple[str, str]]


@dataclass(eq=False)
class _Work:
    """A batch on its way: the arguments, and what is known of its rows so far."""

    schema: Schema
    batch: Batch
    state: State
    tables: Mapping[str, KeyTable]
    rules: Rules
    on: KeyTable
    rids: Rows
    status: npt.NDArray[np.uint8]
    # Rows that are still to be written.
    alive: BoolArray
    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)

    def leave_out(self, rows: Iterable[int], outcome: Outcome, word: str, sentence: str) -> None:
        """Give rows their outcome, and write them no more."""
        for row in rows:
            self.alive[row] = False
            self.status[row] = outcome
            self.reasons[row] = (word, sentence)

    def new(self) -> Rows:
        """Return the positions of the rows to insert."""
        return (self.alive & (self.rids < 0)).nonzero()[0]

    def old(self) -> Rows:
        """Return the positions of the rows that match a stored one."""
        return (self.alive & (self.rids >= 0)).nonzero()[0]


def resolve(
    schema: Schema,
    batch: Batch,
    *,
    state: State,
    tables: Mapping[str, KeyTable],
    indexes: Mapping[str, Index],
    rules: Rules,
    on: str,
    duplicates: str,
    if_version: Mapping[Any, int] | None = None,
) -> Resolution:
    """Decide what a batch does to the newest state.

    Parameters
    ----------
    on : str
        The key to match on: a name in ``tables``.
    duplicates : str
        ``"error"``, ``"first"`` or ``"last"``.
    if_version : mapping of key to int
        The version that the matched row must have; 0: that there is none.

    Raises
    ------
    InvalidRowError
        A row does not mention its key, or lacks a field that it needs.
    DuplicateKeyError
        Rows of the batch match the same row, or are the same new row.
    ConflictError
        A row was rejected or is in conflict, and the policy is atomic.
    ValueError
        ``if_version`` names a key that is not in the batch.
    """
    table = tables[on]
    rids, keyed = _match(batch, table)
    count = batch.rows
    status = np.full(count, Outcome.SKIPPED, dtype=np.uint8)
    alive = np.ones(count, dtype=np.bool_)
    work = _Work(schema, batch, state, tables, rules, table, rids, status, alive)
    if count > 1:
        _leave_out_duplicates(work, keyed, duplicates)
    if if_version is not None:
        _check_versions(work, keyed, if_version)
    _apply_mode(work)
    if table.name != schema.primary.name:
        _check_primary(work)
    writes = field_writes(
        schema,
        rules,
        batch,
        state=state,
        indexes=indexes,
        new=work.new(),
        old=work.old(),
        rids=rids,
    )
    _check_unique(work, writes)
    return _finish(work, writes)


def _match(batch: Batch, table: KeyTable) -> tuple[Rows, BoolArray | None]:
    """Return the stored row of each row or -1, and where the key has no null (None: nowhere)."""
    columns: list[AnyArray] = []
    null: BoolArray | None = None
    for name in table.fields:
        cells = batch.cells.get(name)
        if cells is None or cells.present is not None:
            absent = [*range(batch.rows)]
            if cells is not None and cells.present is not None:
                absent = np.flatnonzero(~cells.present).tolist()
            if absent:
                message = f"row {absent[0]}, field {name!r}: got nothing, wanted a value to match"
                raise InvalidRowError(message, rows=absent, field=name, want="a value")
        if cells is not None:
            columns.append(cells.values)
            if cells.null is not None:
                null = cells.null if null is None else null | cells.null
    if batch.rows == 0:
        return np.empty(0, dtype=np.int64), None
    if null is None:
        return table.find(columns), None
    keyed = ~null
    rids = np.full(batch.rows, -1, dtype=np.int64)
    rids[keyed] = table.find([column[keyed] for column in columns])
    return rids, keyed


def _leave_out_duplicates(work: _Work, keyed: BoolArray | None, duplicates: str) -> None:
    """Leave out, or refuse, all but one of the rows that have the same key."""
    rows = np.arange(work.batch.rows) if keyed is None else np.flatnonzero(keyed)
    columns = [work.batch.cells[name].values for name in work.on.fields]
    if keyed is not None:
        columns = [column[rows] for column in columns]
    if not len(rows):
        return
    first = first_occurrence(work.on.types, columns)
    repeated = first != np.arange(len(rows))
    if not repeated.any():
        return
    if duplicates == "error":
        concerned = np.isin(first, first[repeated])
        at = np.unique(first[repeated])
        keys = tuples_of([column[at] for column in columns])
        named = rows[concerned].tolist()
        message = (
            f"{len(keys)} keys come more than once in the batch, such as {keys[0]!r} in rows "
            f"{rows[first == at[0]].tolist()}; duplicates='first' or 'last' would choose"
        )
        raise DuplicateKeyError(message, keys=keys, rows=named)
    chosen = first
    if duplicates == "last":
        last = np.zeros(len(rows), dtype=np.int64)
        np.maximum.at(last, first, np.arange(len(rows)))
        chosen = last[first]
    lost = np.flatnonzero(chosen != np.arange(len(rows)))
    for row, winner in zip(rows[lost].tolist(), rows[chosen[lost]].tolist(), strict=True):
        work.leave_out([row], Outcome.SKIPPED, "duplicate", f"row {winner} has the same key")


def _check_versions(work: _Work, keyed: BoolArray | None, if_version: Mapping[Any, int]) -> None:
    """Make rows conflicts whose stored row has not the version that the caller expects."""
    rows = np.arange(work.batch.rows) if keyed is None else np.flatnonzero(keyed)
    columns = [work.batch.cells[name].values[rows] for name in work.on.fields] if len(rows) else []
    keys = dict(zip(rows.tolist(), tuples_of(columns) if columns else [], strict=True))
    strangers = if_version.keys() - set(keys.values())
    if strangers:
        named = sorted(strangers, key=repr)
        raise ValueError(f"if_version names keys that are not in the batch: {named!r}")
    for row, key in keys.items():
        wanted = if_version.get(key)
        if wanted is None or not work.alive[row]:
            continue
        rids = work.rids[row : row + 1]
        got = int(work.state.versions.gather(rids)[0][0]) if rids[0] >= 0 else 0
        if got != wanted:
            sentence = f"key {key!r} has version {got}, wanted {wanted} (0: not stored)"
            work.leave_out([row], Outcome.CONFLICT, "version", sentence)


def _apply_mode(work: _Work) -> None:
    """Leave out what an insert or an update does not touch."""
    outcome = Outcome.CONFLICT if work.rules.strict else Outcome.SKIPPED
    if work.rules.mode == "insert_only":
        work.leave_out(work.old().tolist(), outcome, "exists", "a row with this key is stored")
    elif work.rules.mode == "update_only":
        work.leave_out(work.new().tolist(), outcome, "missing", "no row with this key is stored")


def _check_primary(work: _Work) -> None:
    """Check primary keys when the batch was matched on another key."""
    name = work.schema.primary.name
    cells = work.batch.cells.get(name)
    new = work.new()
    lacking = new if cells is None else new[:0]
    if cells is not None and cells.present is not None:
        lacking = new[~cells.present[new]]
    if len(lacking):
        rows = lacking.tolist()
        message = f"row {rows[0]}, field {name!r}: got nothing; a new row needs its primary key"
        raise InvalidRowError(message, rows=rows, field=name, want="a primary key")
    if cells is None:
        return
    old = work.old()
    if cells.present is not None:
        old = old[cells.present[old]]
    stored = work.state.columns[name].gather(work.rids[old])[0]
    moved = np.flatnonzero(~equal_values(stored, cells.values[old]))
    for row, at in zip(old[moved].tolist(), moved.tolist(), strict=True):
        got, held = cells.values[row : row + 1].tolist()[0], stored[at : at + 1].tolist()[0]
        sentence = (
            f"the primary key cannot change: {work.on.name} matches the row with "
            f"{name} {held!r}, got {got!r}"
        )
        work.leave_out([row], Outcome.REJECTED, "primary", sentence)


@dataclass(eq=False)
class _Claim:
    """Rows of the batch that would come to hold a key of one table which they do not hold now.

    ``rows`` are positions in the batch, ``rids`` their stored rows or -1, ``columns`` their new
    keys, ``owners`` who holds these now or -1, and ``twin`` the first claimant of the same key.
    Rows with a null in the key claim nothing (``keyed`` False), but give up their old key.
    """

    table: KeyTable
    rows: Rows
    rids: Rows
    columns: list[AnyArray]
    keyed: BoolArray
    owners: Rows
    twin: Rows


def _check_unique(work: _Work, writes: Mapping[str, FieldWrite]) -> None:
    """Reject rows until what remains breaks no unique key."""
    claims = [
        claim
        for table in work.tables.values()
        if table is not work.on
        for claim in _claims(work, table, writes)
    ]
    # Rejecting a row takes back the key that it would have given up, which may be one that
    # another row claims: so until nothing changes. Keys that are held come first, since that
    # verdict can only be confirmed by further rejections.
    while True:
        held = [_reject_held(work, claim) for claim in claims]
        if any(held):
            continue
        twins = [_reject_twins(work, claim) for claim in claims]
        if not any(twins):
            return


def _claims(work: _Work, table: KeyTable, writes: Mapping[str, FieldWrite]) -> Iterable[_Claim]:
    involved = [writes[name] for name in table.fields if name in writes]
    if not involved:
        return
    rows = np.flatnonzero(np.logical_or.reduce([write.write for write in involved]) & work.alive)
    if not len(rows):
        return
    rids = work.rids[rows]
    columns: list[AnyArray] = []
    keyed = np.ones(len(rows), dtype=np.bool_)
    for name in table.fields:
        values, null = _final(work, writes.get(name), name, rows, rids)
        columns.append(values)
        keyed &= ~null
    at = np.flatnonzero(keyed)
    owners = np.full(len(rows), -1, dtype=np.int64)
    twin = np.arange(len(rows))
    if len(at):
        keys = [column[at] for column in columns]
        owners[at] = table.find(keys)
        twin[at] = at[first_occurrence(table.types, keys)]
    yield _Claim(table, rows, rids, columns, keyed, owners, twin)


def _final(
    work: _Work, write: FieldWrite | None, name: str, rows: Rows, rids: Rows
) -> tuple[AnyArray, BoolArray]:
    """Return what a field of some rows will be: as written, or as stored."""
    stored_rows = rids >= 0
    if write is not None:
        values, null = write.values[rows], write.null[rows]
        kept = np.flatnonzero(stored_rows & ~write.write[rows])
    else:
        values = np.empty(len(rows), dtype=work.state.columns[name].dtype)
        null = np.zeros(len(rows), dtype=np.bool_)
        kept = np.flatnonzero(stored_rows)
    if len(kept):
        held, held_null = work.state.columns[name].gather(rids[kept])
        values[kept] = held
        null[kept] = False if held_null is None else held_null
    return values, null


def _reject_held(work: _Work, claim: _Claim) -> bool:
    """Reject claims to a key whose holder keeps it; return whether there were any."""
    contested = work.alive[claim.rows] & (claim.owners >= 0) & (claim.owners != claim.rids)
    if not contested.any():
        return False
    leaving = claim.rids[work.alive[claim.rows] & (claim.rids >= 0)]
    held = np.flatnonzero(contested & ~np.isin(claim.owners, leaving))
    primary = work.state.columns[work.schema.primary.name].gather(claim.owners[held])[0]
    for at, owner in zip(held.tolist(), primary.tolist(), strict=True):
        name, key = _named(claim, at)
        sentence = f"{name} {key!r} is held by the row with key {owner!r}"
        work.leave_out([int(claim.rows[at])], Outcome.REJECTED, "unique", sentence)
    return len(held) > 0


def _reject_twins(work: _Work, claim: _Claim) -> bool:
    """Of the rows that claim one key, reject all but the first; return whether there were any."""
    later = claim.keyed & (claim.twin != np.arange(len(claim.rows))) & work.alive[claim.rows]
    rejected = False
    taken: dict[int, int] = {}
    for at in np.flatnonzero(later).tolist():
        twin = int(claim.twin[at])
        first = int(claim.rows[twin])
        if not work.alive[first]:
            # The first claimant is gone: the next one stands in its place.
            first = taken.setdefault(twin, int(claim.rows[at]))
            if first == int(claim.rows[at]):
                continue
        name, key = _named(claim, at)
        sentence = f"{name} {key!r} is also claimed by row {first} of the batch"
        work.leave_out([int(claim.rows[at])], Outcome.REJECTED, "unique", sentence)
        rejected = True
    return rejected


def _named(claim: _Claim, at: int) -> tuple[str, Any]:
    return claim.table.name, tuples_of([column[at : at + 1] for column in claim.columns])[0]


def _finish(work: _Work, writes: dict[str, FieldWrite]) -> Resolution:
    changed = np.zeros(work.batch.rows, dtype=np.bool_)
    for write in writes.values():
        changed |= write.write
    inserts, old = work.new(), work.old()
    updates = old[changed[old]]
    work.status[inserts] = Outcome.INSERTED
    work.status[old] = Outcome.UNCHANGED
    work.status[updates] = Outcome.UPDATED
    resolution = Resolution(work.status, work.rids, writes, inserts, updates, work.reasons)
    left_out = work.status[list(work.reasons)] if work.reasons else work.status[:0]
    if work.rules.atomic and np.count_nonzero(left_out >= Outcome.CONFLICT):
        raise _conflict(work, resolution)
    return resolution


def _conflict(work: _Work, resolution: Resolution) -> ConflictError:
    result = result_of(work.schema, work.batch, work.state, resolution, seq=work.state.seq)
    faults = np.flatnonzero(work.status >= Outcome.CONFLICT).tolist()
    keys = [None] * len(faults) if result.key is None else result.key[faults].tolist()
    shown = [
        f"row {row} (key {key!r}): {work.reasons[row][1]}"
        for row, key in zip(faults[:5], keys[:5], strict=True)
    ]
    more = [f"and {len(faults) - 5} more"] if len(faults) > 5 else []
    message = f"{len(faults)} of {work.batch.rows} rows; nothing was written. "
    return ConflictError(message + "; ".join(shown + more), result=result)


def result_of(
    schema: Schema, batch: Batch, state: State, resolution: Resolution, *, seq: int
) -> UpsertResult:
    """Return what the caller is told; ``seq`` is the commit, or that of ``state`` if none."""
    rows = batch.rows
    matched = (resolution.rids >= 0).nonzero()[0]
    selection = Selection(resolution.rids[matched])
    name = schema.primary.name
    key: AnyArray
    cells = batch.cells.get(name)
    if cells is not None and cells.present is None:
        key = cells.values
    else:
        key = np.full(rows, None, dtype=object)
        if cells is not None and cells.present is not None:
            key[cells.present] = cells.values[cells.present]
        key[matched] = state.columns[name].take(selection)[0]
        if all(value is not None for value in key.tolist()):
            key = key.astype(schema.primary.dtype)
    version = np.zeros(rows, dtype=np.int64)
    version[matched] = state.versions.take(selection)[0]
    written = _written(resolution) if seq > state.seq else None
    if written is not None:
        version[written] = seq
    masks: dict[str, BoolArray] = {}
    stored = np.zeros(rows, dtype=np.bool_)
    stored[resolution.inserts] = True
    stored[resolution.updates] = True
    for field_name, write in resolution.writes.items():
        masks[field_name] = write.write & stored
    changed = Changed.from_masks(rows, masks)
    return UpsertResult(
        resolution.status,
        key=key,
        version=version,
        changed=changed,
        reason=resolution.reasons,
        seq=seq,
    )


def _written(resolution: Resolution) -> Rows:
    return np.concatenate([resolution.inserts, resolution.updates])


def check_duplicates(duplicates: str) -> None:
    """Refuse an unknown way to treat duplicates.

    Raises
    ------
    ValueError
    """
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates={duplicates!r}; wanted one of {', '.join(DUPLICATES)}")
