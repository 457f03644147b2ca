"""Which rows of a batch would break a unique key, in the state that the whole batch would give.

So rows may hand values to each other. A row is rejected if the key that it claims is held by a
row that keeps it, or is claimed by an earlier row of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import first_occurrence
from .columns import tuples_of
from .result import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .policy import FieldWrite
    from .resolve import Work
    from .state import KeyTable

__all__ = ["check_unique"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]


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


def check_unique(work: Work, writes: Mapping[str, FieldWrite]) -> None:
    """Reject rows until what remains breaks no unique key."""
    claims = [
        claim
        for table in work.base.tables.values()
        if table not in work.settled
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


def _claims(work: Work, table: KeyTable, writes: Mapping[str, FieldWrite]) -> Iterable[_Claim]:
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
        owners[at] = work.base.find(table, keys)
        twin[at] = at[first_occurrence(table.types, keys)]
    yield _Claim(table, rows, rids, columns, keyed, owners, twin)


def _final(
    work: Work, write: FieldWrite | None, name: str, rows: Rows, rids: Rows
) -> tuple[AnyArray, BoolArray]:
    """Return what a field of some rows will be: as written, or as stored."""
    stored_rows = rids >= 0
    if write is not None:
        values, null = write.values[rows], write.null[rows]
        kept = np.flatnonzero(stored_rows & ~write.write[rows])
    else:
        values = np.empty(len(rows), dtype=work.base.state.columns[name].dtype)
        null = np.zeros(len(rows), dtype=np.bool_)
        kept = np.flatnonzero(stored_rows)
    if len(kept):
        held, held_null = work.base.state.columns[name].gather(rids[kept])
        values[kept] = held
        null[kept] = False if held_null is None else held_null
    return values, null


def _reject_held(work: Work, claim: _Claim) -> bool:
    """Reject claims to a key whose holder keeps it; return whether there were any."""
    contested = work.alive[claim.rows] & (claim.owners >= 0) & (claim.owners != claim.rids)
    if not contested.any():
        return False
    leaving = claim.rids[work.alive[claim.rows] & (claim.rids >= 0)]
    held = np.flatnonzero(contested & ~np.isin(claim.owners, leaving))
    primary = work.base.state.columns[work.base.schema.primary.name].gather(claim.owners[held])[0]
    for at, owner in zip(held.tolist(), primary.tolist(), strict=True):
        name, key = _named(claim, at)
        sentence = f"{name} {key!r} is held by the row with key {owner!r}"
        work.leave_out([int(claim.rows[at])], Outcome.REJECTED, "unique", sentence)
    return len(held) > 0


def _reject_twins(work: Work, claim: _Claim) -> bool:
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
