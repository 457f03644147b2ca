"""Decide what a batch does to the rows that are stored.

:func:`resolve` turns a validated batch into a :class:`Resolution`: one outcome per row and the
final values of every field that will be written. It reads the newest state and changes nothing,
so whatever it raises has changed nothing. The writer's lock is held meanwhile.

The steps: match; find rows of the batch that mean the same row; leave out what the call's
conditions and the policy's mode leave out; resolve the fields; check every other key *in the state
that the whole batch would give*. Rows that are folded take turns: in each round, one row of each
group meets the row as those before have left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .base import Base, Folded, Matched, Meeting
from .clocks import is_before
from .columns import Selection, equal_values, same_cells
from .errors import ConflictError, DuplicateKeyError, InvalidRowError
from .expression import SIDES, bind
from .match import Match, keys_named, match
from .policy import FieldWrite, Rules, field_writes, rules_of
from .read import StateSource
from .result import Changed, Outcome, UpsertResult
from .unique import check_unique

if TYPE_CHECKING:
    from .expression import Expression, Predicate
    from .ingest import Batch
    from .match import AnyOf
    from .policy import Policy
    from .schema import Schema
    from .state import KeyTable, State
    from .sync import Sync

__all__ = [
    "DUPLICATES",
    "Call",
    "Resolution",
    "Work",
    "call_of",
    "is_skipped",
    "resolve",
    "resolve_delete",
    "result_of",
]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]

DUPLICATES = ("error", "first", "last", "fold")


@dataclass(frozen=True)
class Call:
    """What a call asks for, beside its rows.

    Attributes
    ----------
    schema : Schema
        What it was checked against.
    on : sequence of str
        The keys to match on, in order.
    rules : Rules
    duplicates : str
        ``"error"``, ``"first"``, ``"last"`` or ``"fold"``.
    where : Predicate or None
        Of both sides; rows that match a stored row and do not fulfil it are left out.
    if_version : mapping of key to int
        The version that the matched row must have; 0: that there is none.
    awaited : set of str
        Fields that a new row may lack, as they will be given later.
    sync : Sync or None
        Which stored rows leave if the batch does not have them.
    """

    schema: Schema
    on: tuple[str, ...]
    rules: Rules
    duplicates: str = "error"
    where: Predicate | None = None
    if_version: Mapping[Any, int] | None = None
    awaited: frozenset[str] = frozenset()
    sync: Sync | None = None


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
    changed : dict of str to bool array (n,)
        By field, where a row changes it.
    stands_for : int64 array (n,) or None
        Of rows that were folded: the position, in ``inserts`` or ``updates``, of what they
        became. None: every row is its own.
    leaving : int64 array
        Row ids to delete.
    """

    status: npt.NDArray[np.uint8]
    rids: Rows
    writes: dict[str, FieldWrite]
    inserts: Rows
    updates: Rows
    reasons: dict[int, tuple[str, str]]
    changed: dict[str, BoolArray]
    stands_for: Rows | None
    leaving: Rows

    @property
    def writes_anything(self) -> bool:
        """Whether a row is stored or changed."""
        return len(self.inserts) > 0 or len(self.updates) > 0

    def rids_after(self, written: Rows) -> Rows:
        """Return the stored row of each row after the commit that wrote these rids, or -1."""
        if not len(self.inserts):
            return self.rids
        after = self.rids.copy()
        after[np.sort(np.concatenate([self.inserts, self.updates]))] = written
        if self.stands_for is not None:
            lent = (self.stands_for >= 0) & (self.rids < 0)
            after[lent] = after[self.stands_for[lent]]
        return after


@dataclass(eq=False)
class Work:
    """A batch on its way: what it is resolved against, and what is known of its rows so far.

    ``settled`` are key tables that need no check of their own: those that a batch was matched on.
    """

    base: Base
    batch: Batch
    call: Call
    found: Match
    rids: Rows
    status: npt.NDArray[np.uint8]
    # Rows that are still to be written.
    alive: BoolArray
    settled: list[KeyTable]
    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)

    def leave_out(self, rows: Iterable[int], outcome: Outcome, word: str, sentence: str) -> None:
        """Give rows their outcome, and write them no more."""
        for row in rows:
            self.alive[row] = False
            self.status[row] = outcome
            self.reasons[row] = (word, sentence)


def resolve(base: Base, batch: Batch, call: Call) -> Resolution:
    """Decide what a batch does to the newest state.

    Raises
    ------
    InvalidRowError
        A row does not mention its key, or lacks a field that it needs, or has a value that a
        merge rule cannot combine.
    DuplicateKeyError
        Rows of the batch mean the same row.
    ConflictError
        A row was rejected or is in conflict, and the policy is atomic.
    ValueError
        ``if_version`` names a key that is not in the batch.
    """
    count = batch.rows
    bad = batch.invalid or {}
    invalid: BoolArray | None = None
    if bad:
        invalid = np.zeros(count, dtype=np.bool_)
        invalid[list(bad)] = True
    found = match(base, batch, call.on, invalid)
    if call.sync is not None:
        base.leaving.update(call.sync.missing(base, found.rids).tolist())
    status = np.full(count, Outcome.SKIPPED, dtype=np.uint8)
    alive = np.ones(count, dtype=np.bool_)
    # The rows of one key that were matched on have different keys, or are folded. Of several
    # keys, a row may change all but the one that it was found by.
    settled = [found.arbiters[0].table] if len(found.arbiters) == 1 else []
    work = Work(base, batch, call, found, found.rids, status, alive, settled)
    for row, sentence in bad.items():
        work.leave_out([row], Outcome.REJECTED, "invalid", sentence)
    for row, sentence in found.ambiguous.items():
        work.leave_out([row], Outcome.REJECTED, "ambiguous", sentence)
    first = _leave_out_duplicates(work) if count > 1 else None
    if call.if_version is not None:
        _check_versions(work, call.if_version)
    resolution = _at_once(work) if first is None else _in_turns(work, first)
    left_out = work.status[list(work.reasons)] if work.reasons else work.status[:0]
    faults = np.count_nonzero(left_out >= Outcome.CONFLICT) - len(bad)
    if call.rules.atomic and faults:
        raise _conflict(work, resolution)
    return resolution


# --- What means the same row ----------------------------------------------------------------


def _leave_out_duplicates(work: Work) -> Rows | None:
    """Leave out, or refuse, all but one of the rows that mean the same row.

    Returns
    -------
    int64 array (n,) or None
        If they are to be folded: the first row of each row's group.
    """
    first = work.found.first_of_same()
    if work.reasons:  # rows that are out already
        own = np.arange(len(first))
        first = np.where(work.alive, _first_alive(first, work.alive), own)
    repeated = first != np.arange(len(first))
    if not repeated.any():
        return None
    duplicates = work.call.duplicates
    if duplicates == "fold":
        return first
    if duplicates == "error":
        raise _duplicates(work, first, repeated)
    chosen = first
    if duplicates == "last":
        last = np.zeros(len(first), dtype=np.int64)
        rows = np.arange(len(first))
        np.maximum.at(last, first, rows)
        chosen = last[first]
    lost = np.flatnonzero((chosen != np.arange(len(first))) & work.alive)
    for row, winner in zip(lost.tolist(), chosen[lost].tolist(), strict=True):
        sentence = f"row {winner} has the same key"
        if work.found.key_of(row) != work.found.key_of(winner):
            sentence = f"row {winner} means the same row"
        work.leave_out([row], Outcome.SKIPPED, "duplicate", sentence)
    return None


def _first_alive(first: Rows, alive: BoolArray) -> Rows:
    """Return the first row of each group that is not out, by row."""
    at = alive.nonzero()[0]
    _, where, back = np.unique(first[at], return_index=True, return_inverse=True)
    again = np.arange(len(first))
    again[at] = at[where[back]]
    return again


def _duplicates(work: Work, first: Rows, repeated: BoolArray) -> DuplicateKeyError:
    concerned = np.isin(first, first[repeated])
    at = np.unique(first[repeated]).tolist()
    keys = [work.found.key_of(row) for row in at]
    same = np.flatnonzero(first == at[0]).tolist()
    message = (
        f"{len(keys)} keys come more than once in the batch, such as {keys[0]!r} in rows "
        f"{same}; duplicates='first', 'last' or 'fold' would choose"
    )
    others = {repr(work.found.key_of(row)) for row in same}
    if len(others) > 1:
        message = (
            f"{len(keys)} rows are meant more than once in the batch, such as that with key "
            f"{keys[0]!r} in rows {same}; duplicates='first', 'last' or 'fold' would choose"
        )
    return DuplicateKeyError(message, keys=keys, rows=np.flatnonzero(concerned).tolist())


def _check_versions(work: Work, if_version: Mapping[Any, int]) -> None:
    """Make rows conflicts whose stored row has not the version that the caller expects."""
    keys = {row: work.found.key_of(row) for row in range(work.batch.rows)}
    strangers = if_version.keys() - set(keys.values())
    if strangers:
        named = sorted(strangers, key=repr)
        raise ValueError(f"if_version names keys that are not in the batch: {named!r}")
    for row, key in keys.items():
        wanted = if_version.get(key)
        if wanted is None or not work.alive[row]:
            continue
        rids = work.rids[row : row + 1]
        got = int(work.base.versions(rids)[0]) if rids[0] >= 0 else 0
        if got != wanted:
            sentence = f"key {key!r} has version {got}, wanted {wanted} (0: not stored)"
            work.leave_out([row], Outcome.CONFLICT, "version", sentence)


# --- One round ------------------------------------------------------------------------------


def _resolve_round(
    work: Work, stored: Matched | Folded, new: Rows, old: Rows
) -> tuple[dict[str, FieldWrite], Rows, Rows]:
    """Resolve rows of different groups; return what they write, and those that are not left out.

    ``new`` are rows whose stored row is to be made, ``old`` those that meet one.
    """
    call = work.call
    outcome = Outcome.CONFLICT if call.rules.strict else Outcome.SKIPPED
    if call.rules.mode == "insert_only":
        work.leave_out(old.tolist(), outcome, "exists", "a row with this key is stored")
        old = old[:0]
    elif call.rules.mode == "update_only":
        work.leave_out(new.tolist(), outcome, "missing", "no row with this key is stored")
        new = new[:0]
    if call.where is not None and len(old):
        fulfils = call.where.matches(Meeting(work.base.schema, work.batch, stored, old))
        sentence = f"not {call.where.expression}"
        work.leave_out(old[~fulfils].tolist(), Outcome.SKIPPED, "where", sentence)
        old = old[fulfils]
    if call.on != (work.base.schema.primary.name,):
        _check_primary(work, stored, new, old)
        old = old[work.alive[old]]
    if work.base.remembered and len(new):
        _leave_out_buried(work, new)
        new = new[work.alive[new]]
    writes, late = field_writes(
        work.base.schema,
        call.rules,
        work.batch,
        stored=stored,
        new=new,
        old=old,
        awaited=call.awaited,
    )
    changed = np.zeros(work.batch.rows, dtype=np.bool_)
    for write in writes.values():
        changed |= write.write
    work.status[new] = Outcome.INSERTED
    work.status[old] = np.where(
        changed[old], Outcome.UPDATED, np.where(late, Outcome.STALE, Outcome.UNCHANGED)
    )
    return writes, new, old


def _check_primary(work: Work, stored: Matched | Folded, new: Rows, old: Rows) -> None:
    """Check primary keys when the batch was matched on other keys."""
    name = work.base.schema.primary.name
    cells = work.batch.cells.get(name)
    lacking = new if cells is None else new[:0]
    if cells is not None and cells.present is not None:
        lacking = new[~cells.present[new]]
    if len(lacking):
        rows = lacking.tolist()
        message = f"row {rows[0]}, field {name!r}: got nothing; a new row needs its primary key"
        raise InvalidRowError(message, rows=rows, field=name, want="a primary key")
    if cells is None:
        return
    if cells.present is not None:
        old = old[cells.present[old]]
    held = stored.take(name, old)[0]
    moved = np.flatnonzero(~equal_values(held, cells.values[old]))
    for row, at in zip(old[moved].tolist(), moved.tolist(), strict=True):
        got, had = cells.values[row : row + 1].tolist()[0], held[at : at + 1].tolist()[0]
        by = " or ".join(work.call.on)
        sentence = (
            f"the primary key cannot change: {by} matches the row with {name} {had!r}, got {got!r}"
        )
        work.leave_out([row], Outcome.REJECTED, "primary", sentence)


def _leave_out_buried(work: Work, new: Rows) -> None:
    """Leave out new rows that are older than when their key was deleted."""
    schema, batch = work.base.schema, work.batch
    clock = schema.order_by or ""
    cells = batch.cells.get(clock)
    keys = batch.cells[schema.primary.name].values[new].tolist()
    for row, key in zip(new.tolist(), keys, strict=True):
        if key not in work.base.remembered:
            continue
        order = None
        if cells is not None and (cells.present is None or cells.present[row]):
            order = None if cells.null is not None and cells.null[row] else cells.values[row]
        buried = work.base.remembered[key]
        if is_before(order, buried):
            sentence = f"key {key!r} was deleted at {clock} {buried}, got {order}"
            work.leave_out([row], Outcome.STALE, "deleted", sentence)


# --- All rows at once, and group by group -----------------------------------------------------


def _at_once(work: Work) -> Resolution:
    """Resolve rows that mean different rows."""
    new = (work.alive & (work.rids < 0)).nonzero()[0]
    old = (work.alive & (work.rids >= 0)).nonzero()[0]
    writes, new, old = _resolve_round(work, Matched(work.base, work.rids), new, old)
    check_unique(work, writes)
    inserts, updates = new[work.alive[new]], old[work.alive[old]]
    updates = updates[work.status[updates] == Outcome.UPDATED]
    return _resolution(work, writes, inserts, updates, None, None)


def _in_turns(work: Work, first: Rows) -> Resolution:
    """Resolve rows of which several mean one row: one after the other, in the order of their clock.

    The groups are called by their first rows; what they become is written there, at the position
    of the first row that was applied.
    """
    count = work.batch.rows
    stored = Folded(Matched(work.base, work.rids), first, work.rids >= 0)
    existed = stored.exists.copy()
    changed: dict[str, BoolArray] = {}
    stands_for = np.full(count, -1, dtype=np.int64)
    turns = _turns(work, first)
    for turn in range(int(turns.max()) + 1):
        rows = ((turns == turn) & work.alive).nonzero()[0]
        known = stored.exists[first[rows]]
        writes, new, old = _resolve_round(work, stored, rows[~known], rows[known])
        applied = np.concatenate([new, old])
        stored.absorb(writes, applied)
        stored.exists[first[new]] = True
        groups = first[applied]
        stands_for[groups] = np.where(stands_for[groups] < 0, applied, stands_for[groups])
        for name, write in writes.items():
            changed.setdefault(name, np.zeros(count, dtype=np.bool_))[applied] |= write.write[
                applied
            ]
    stands_for = stands_for[first]
    in_force = (stands_for >= 0) & work.alive
    at = np.unique(first[in_force])
    writes = _net_writes(work, stored, at, stands_for[at], existed[at])
    written = np.zeros(count, dtype=np.bool_)
    for write in writes.values():
        written |= write.write
    whole = work.alive.copy()
    work.alive[:] = False
    work.alive[stands_for[at]] = True
    check_unique(work, writes)
    kept = work.alive.copy()
    work.alive[:] = whole
    _spread_rejections(work, stands_for, in_force)
    heads = stands_for[at]
    inserts = heads[kept[heads] & ~existed[at]]
    updates = heads[kept[heads] & existed[at] & written[heads]]
    # What came to nothing in the end was no update.
    nothing = in_force & existed[first] & ~written[np.maximum(stands_for, 0)]
    nothing &= work.status == Outcome.UPDATED
    work.status[nothing] = Outcome.UNCHANGED
    changed = {name: mask & ~nothing for name, mask in changed.items()}
    inserts.sort()
    updates.sort()
    return _resolution(work, writes, inserts, updates, changed, stands_for)


def _turns(work: Work, first: Rows) -> Rows:
    """Return the round of each row: its place in its group, by order value, then by position."""
    count = work.batch.rows
    clock = work.base.schema.order_by
    order = np.arange(count)
    cells = None if clock is None else work.batch.cells.get(clock)
    if cells is not None:
        told = np.ones(count, dtype=np.bool_) if cells.present is None else cells.present.copy()
        if cells.null is not None:
            told &= ~cells.null
        at = told.nonzero()[0]
        rank = np.full(count, -1, dtype=np.int64)
        _, rank[at] = np.unique(cells.values[at], return_inverse=True)
        order = np.argsort(rank, kind="stable")
    by_group = order[np.argsort(first[order], kind="stable")]
    groups = first[by_group]
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    lengths = np.diff(np.concatenate([starts, [count]]))
    turns = np.empty(count, dtype=np.int64)
    turns[by_group] = np.arange(count) - np.repeat(starts, lengths)
    return turns


def _net_writes(
    work: Work, stored: Folded, groups: Rows, heads: Rows, existed: BoolArray
) -> dict[str, FieldWrite]:
    """Return what groups come to, each at the position of its head."""
    count = work.batch.rows
    writes = {}
    rids = np.full(count, -1, dtype=np.int64)
    rids[heads] = work.rids[groups]
    before = Matched(work.base, rids)
    for name, (values, null, has) in stored.written().items():
        fresh = has[groups]
        write = np.zeros(count, dtype=np.bool_)
        write[heads[fresh & ~existed]] = True
        again = (fresh & existed).nonzero()[0]
        if len(again):
            held = before.take(name, heads[again])
            coming = values[groups[again]], null[groups[again]]
            same = same_cells(_flat(held), _flat(coming))
            write[heads[again[~same]]] = True
        if write.any():
            moved, moved_null = np.zeros_like(values), np.zeros(count, dtype=np.bool_)
            moved[heads], moved_null[heads] = values[groups], null[groups]
            writes[name] = FieldWrite(moved, moved_null, write)
    return writes


def _flat(cells: tuple[AnyArray, BoolArray | None]) -> tuple[AnyArray, BoolArray | None]:
    """Return vectors as one value each, so that they compare as others do."""
    values, null = cells
    if values.ndim == 1:
        return cells
    rows = np.ascontiguousarray(values)
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0], null


def _spread_rejections(work: Work, stands_for: Rows, in_force: BoolArray) -> None:
    """Reject all rows of a group with the one that stands for them."""
    for row in in_force.nonzero()[0].tolist():
        head = int(stands_for[row])
        if head != row and head in work.reasons:
            word, sentence = work.reasons[head]
            work.leave_out([row], Outcome(work.status[head]), word, sentence)
        elif head == row and row in work.reasons:
            work.alive[row] = False


def _resolution(
    work: Work,
    writes: dict[str, FieldWrite],
    inserts: Rows,
    updates: Rows,
    changed: dict[str, BoolArray] | None,
    stands_for: Rows | None,
) -> Resolution:
    if changed is None:
        changed = {name: write.write for name, write in writes.items()}
    if work.reasons:
        changed = {name: mask & work.alive for name, mask in changed.items()}
    leaving = np.array(sorted(work.base.leaving), dtype=np.int64)
    return Resolution(
        work.status, work.rids, writes, inserts, updates, work.reasons, changed, stands_for, leaving
    )


# --- What the caller is told ------------------------------------------------------------------


def _conflict(work: Work, resolution: Resolution) -> ConflictError:
    # Nothing was written, so nothing has changed.
    nothing = replace(resolution, changed={})
    result = result_of(work.base, work.batch, nothing, seq=work.base.state.seq)
    faulty = [
        row
        for row in np.flatnonzero(work.status >= Outcome.CONFLICT).tolist()
        if row in work.reasons and work.reasons[row][0] not in {"invalid", "deleted"}
    ]
    keys = [None] * len(faulty) if result.key is None else result.key[faulty].tolist()
    shown = [
        f"row {row} (key {key!r}): {work.reasons[row][1]}"
        for row, key in zip(faulty[:5], keys[:5], strict=True)
    ]
    more = [f"and {len(faulty) - 5} more"] if len(faulty) > 5 else []
    message = f"{len(faulty)} of {work.batch.rows} rows; nothing was written. "
    return ConflictError(message + "; ".join(shown + more), result=result)


def result_of(base: Base, batch: Batch, resolution: Resolution, *, seq: int) -> UpsertResult:
    """Return what the caller is told; ``seq`` is the commit, or that of the state if none."""
    rows = batch.rows
    matched = (resolution.rids >= 0).nonzero()[0]
    version = np.zeros(rows, dtype=np.int64)
    version[matched] = base.state.versions.take(Selection(resolution.rids[matched]))[0]
    if seq > base.state.seq:
        written = np.zeros(rows, dtype=np.bool_)
        written[resolution.inserts] = True
        written[resolution.updates] = True
        if resolution.stands_for is not None:
            heads = resolution.stands_for
            written |= (heads >= 0) & written[np.maximum(heads, 0)]
        version[written] = seq
    return UpsertResult(
        resolution.status,
        key=_primary_keys(base, batch, resolution, matched),
        version=version,
        changed=Changed.from_masks(rows, resolution.changed),
        reason=resolution.reasons,
        seq=seq,
    )


def _primary_keys(base: Base, batch: Batch, resolution: Resolution, matched: Rows) -> AnyArray:
    """Return the primary key of each row, as stored or to be stored; None where it has none."""
    primary = base.schema.primary
    cells = batch.cells.get(primary.name)
    if cells is not None and cells.present is None and not batch.invalid:
        return cells.values
    key: AnyArray = np.full(batch.rows, None, dtype=object)
    if cells is not None:
        present = np.ones(batch.rows, np.bool_) if cells.present is None else cells.present.copy()
        if batch.invalid:
            present[list(batch.invalid)] = False
        key[present] = cells.values[present]
    held = base.state.columns[primary.name].take(Selection(resolution.rids[matched]))[0]
    key[matched] = held
    heads = resolution.stands_for
    if heads is not None:
        lent = np.flatnonzero((heads >= 0) & (resolution.rids < 0))
        key[lent] = key[heads[lent]]
    return key.astype(primary.dtype) if all(value is not None for value in key.tolist()) else key


def resolve_delete(
    head: State, rids: Rows, where: Predicate | None
) -> tuple[npt.NDArray[np.uint8], dict[int, tuple[str, str]]]:
    """Decide which of some rows a delete removes.

    Parameters
    ----------
    rids : int64 array (n,)
        The stored row of each key that was asked for, or -1.

    Returns
    -------
    status : uint8 array (n,)
    reasons : dict of int to (word, sentence)
        Of the rows that are left out.
    """
    status = np.full(len(rids), Outcome.DELETED, dtype=np.uint8)
    reasons: dict[int, tuple[str, str]] = {}
    left_out: list[tuple[Rows, str, str]] = [
        (np.flatnonzero(rids < 0), "missing", "no row with this key is stored")
    ]
    first = np.unique(rids, return_index=True)[1]
    again = np.ones(len(rids), dtype=np.bool_)
    again[first] = False
    left_out.append((np.flatnonzero(again & (rids >= 0)), "duplicate", "the key came before"))
    if where is not None:
        at = np.flatnonzero(rids >= 0)
        fulfils = where.matches(StateSource(head, rids[at]))
        left_out.append((at[~fulfils], "where", f"not {where.expression}"))
    for rows, word, sentence in left_out:
        status[rows] = Outcome.SKIPPED
        reasons.update(dict.fromkeys(rows.tolist(), (word, sentence)))
    return status, reasons


def call_of(
    schema: Schema,
    on: str | AnyOf | None,
    policy: str | Policy,
    duplicates: str,
    where: Expression | str | None = None,
    if_version: Mapping[Any, int] | None = None,
    *,
    strict: bool = False,
    sync: Sync | None = None,
) -> Call:
    """Check the arguments of a call against a schema.

    Raises
    ------
    ValueError, SchemaError, ExpressionError
    """
    plain = where is None and if_version is None and sync is None
    named = isinstance(policy, str) and isinstance(duplicates, str)
    if plain and named and (on is None or isinstance(on, str)):
        return _plain_call(_Same(schema), on, policy, duplicates, strict)
    return _call_of(schema, on, policy, duplicates, where, if_version, strict=strict, sync=sync)


@dataclass(frozen=True, eq=False)
class _Same:
    """A schema that is equal to itself alone: a call is of the very schema of a state."""

    schema: Schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.schema is self.schema

    def __hash__(self) -> int:
        return id(self.schema)


@lru_cache(maxsize=64)
def _plain_call(
    same: _Same,
    on: str | None,
    policy: str,
    duplicates: str,
    strict: bool,
) -> Call:
    """Remember what most calls ask for: to find out takes 15 us, and an upsert of a row 350."""
    schema = same.schema
    return _call_of(schema, on, policy, duplicates, None, None, strict=strict, sync=None)


def _call_of(
    schema: Schema,
    on: str | AnyOf | None,
    policy: str | Policy,
    duplicates: str,
    where: Expression | str | None,
    if_version: Mapping[Any, int] | None,
    *,
    strict: bool,
    sync: Sync | None,
) -> Call:
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates={duplicates!r}; wanted one of {', '.join(DUPLICATES)}")
    types = dict(schema.types)
    for side in SIDES if where is not None else ():
        types |= {f"{side}.{name}": kind for name, kind in schema.types.items()}
    return Call(
        schema,
        keys_named(schema, on),
        rules_of(schema, policy, strict=strict),
        duplicates,
        None if where is None else bind(where, types),
        if_version,
        sync=sync,
    )


def is_skipped(on_invalid: object) -> bool:
    """Return whether bad rows are left out rather than raised.

    Raises
    ------
    ValueError
    """
    if on_invalid not in {"abort", "skip"}:
        raise ValueError(f"on_invalid={on_invalid!r}; wanted 'abort' or 'skip'")
    return on_invalid == "skip"
