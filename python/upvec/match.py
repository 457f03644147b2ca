"""Incoming rows → the stored rows that they match, and which of them mean the same row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import first_occurrence
from .columns import tuples_of
from .errors import InvalidRowError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .base import Base
    from .ingest import Batch
    from .schema import Schema
    from .state import KeyTable

__all__ = ["AnyOf", "Match", "any_of", "arbiter_of", "keys_named", "match"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]


class AnyOf:
    """Several keys to match on, in order; :func:`any_of` gives one."""

    __slots__ = ("keys",)

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys

    def __repr__(self) -> str:
        return f"any_of({', '.join(map(repr, self.keys))})"


def any_of(*keys: str) -> AnyOf:
    """Match rows by the first of several keys that is stored.

    Parameters
    ----------
    *keys : str
        The primary key or names of Uniques, in order. A row need not mention them all; what it
        does not mention matches nothing. A row whose keys match different stored rows is
        ``rejected`` as ``"ambiguous"``.

    Examples
    --------
    >>> any_of("email", "handle")
    any_of('email', 'handle')
    """
    if not keys or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise SchemaError(f"any_of wants the names of different keys, got {keys!r}")
    return AnyOf(keys)


def keys_named(schema: Schema, on: str | AnyOf | None) -> tuple[str, ...]:
    """Return the names of the keys that ``on`` asks for.

    Raises
    ------
    SchemaError
        One of them is no key.
    """
    if on is None:
        return (schema.primary.name,)
    if not isinstance(on, (str, AnyOf)):
        raise SchemaError(f"on={on!r}; wanted the name of a key, or any_of(...)")
    keys = (on,) if isinstance(on, str) else on.keys
    for key in keys:
        schema.key_fields(key)
    return keys


@dataclass(frozen=True, eq=False)
class Arbiter:
    """One key of a batch.

    ``rows`` are the positions whose key is whole (mentioned, and without a null), None: all;
    ``columns`` their keys.
    """

    table: KeyTable
    rows: Rows | None
    columns: list[AnyArray]


@dataclass(frozen=True, eq=False)
class Match:
    """What the rows of a batch match.

    Attributes
    ----------
    arbiters : list of Arbiter
        The keys, in the order in which they were tried.
    rids : int64 array (n,)
        The stored row of each row, or -1.
    ambiguous : dict of int to str
        Rows whose keys match different stored rows, and a sentence that names both.
    """

    arbiters: list[Arbiter]
    rids: Rows
    ambiguous: dict[int, str]

    def first_of_same(self) -> Rows:
        """Return the first row of the batch that means the same row as each; int64 (n,)."""
        if len(self.arbiters) == 1:
            return _first_of_same_key(self.arbiters[0], len(self.rids))
        return _first_of_any_key(self)

    def key_of(self, row: int) -> Any:
        """Return the key by which a row was looked up: the first that is whole."""
        for arbiter in self.arbiters:
            at = row
            if arbiter.rows is not None:
                at = int(np.searchsorted(arbiter.rows, row))
                if at == len(arbiter.rows) or arbiter.rows[at] != row:
                    continue
            return tuples_of([column[at : at + 1] for column in arbiter.columns])[0]
        return None


def match(base: Base, batch: Batch, on: Sequence[str], invalid: BoolArray | None) -> Match:
    """Look the rows of a batch up.

    Parameters
    ----------
    on : sequence of str
        Names of keys.
    invalid : bool array (n,) or None
        Rows that are not to be looked up.

    Raises
    ------
    InvalidRowError
        A row mentions none of the keys.
    """
    tables = [base.tables[name] for name in on]
    arbiters = []
    unsaid = np.ones(batch.rows, dtype=np.bool_)
    for table in tables:
        arbiter, lacking = arbiter_of(batch, table, invalid)
        unsaid &= lacking
        arbiters.append(arbiter)
    if invalid is not None:
        unsaid &= ~invalid
    if unsaid.any():
        raise _unsaid(batch, tables, unsaid.nonzero()[0])
    rids = np.full(batch.rows, -1, dtype=np.int64)
    ambiguous: dict[int, str] = {}
    for number, arbiter in enumerate(arbiters):
        if not batch.rows or (arbiter.rows is not None and not len(arbiter.rows)):
            continue
        found = base.find(arbiter.table, arbiter.columns)
        if arbiter.rows is None and number == 0:
            rids = found
            continue
        at = np.arange(batch.rows) if arbiter.rows is None else arbiter.rows
        before = rids[at]
        for row in at[(found >= 0) & (before >= 0) & (found != before)].tolist():
            if row not in ambiguous:
                ambiguous[row] = _two_rows(base, arbiters, row)
        if number == 0:
            rids[at] = found
        else:
            rids = rids.copy()
            rids[at] = np.where(before >= 0, before, found)
    return Match(arbiters, rids, ambiguous)


def _unsaid(batch: Batch, tables: Sequence[KeyTable], rows: Rows) -> InvalidRowError:
    lacking = []
    for name in tables[0].fields:
        cells = batch.cells.get(name)
        if cells is None or (cells.present is not None and not cells.present[rows].all()):
            lacking.append(name)
    what = f"field {lacking[0]!r}"
    if len(tables) > 1:
        what = f"keys {', '.join(table.name for table in tables)}"
    message = f"row {rows[0]}, {what}: got nothing, wanted a value to match"
    return InvalidRowError(message, rows=rows.tolist(), field=lacking[0], want="a value")


def arbiter_of(
    batch: Batch, table: KeyTable, invalid: BoolArray | None
) -> tuple[Arbiter, BoolArray]:
    """Return a key of the batch, and where a row does not mention it; bool (n,)."""
    lacking = np.zeros(batch.rows, dtype=np.bool_)
    null: BoolArray | None = invalid
    columns: list[AnyArray] = []
    for name in table.fields:
        cells = batch.cells.get(name)
        if cells is None:
            return Arbiter(table, np.empty(0, dtype=np.int64), []), np.ones(batch.rows, np.bool_)
        if cells.present is not None:
            lacking |= ~cells.present
        if cells.null is not None:
            null = cells.null if null is None else null | cells.null
        columns.append(cells.values)
    if null is None and not lacking.any():
        return Arbiter(table, None, columns), lacking
    whole = ~lacking if null is None else ~(lacking | null)
    rows = whole.nonzero()[0]
    return Arbiter(table, rows, [column[rows] for column in columns]), lacking


def _two_rows(base: Base, arbiters: list[Arbiter], row: int) -> str:
    """Name the stored rows that the keys of a row match."""
    state, primary = base.state, base.schema.primary.name
    named = []
    for arbiter in arbiters:
        at = row if arbiter.rows is None else int(np.searchsorted(arbiter.rows, row))
        if arbiter.rows is not None and (at == len(arbiter.rows) or arbiter.rows[at] != row):
            continue
        key = [column[at : at + 1] for column in arbiter.columns]
        rids = base.find(arbiter.table, key)
        if rids[0] >= 0:
            held = state.columns[primary].gather(rids)[0].tolist()[0]
            shown = tuples_of(key)[0]
            named.append(f"{arbiter.table.name} {shown!r} matches the row with key {held!r}")
    return ", ".join(named)


def _first_of_same_key(arbiter: Arbiter, rows: int) -> Rows:
    first = np.arange(rows)
    if arbiter.rows is None:
        same: Rows = first_occurrence(arbiter.table.types, arbiter.columns) if rows else first
        return same
    if len(arbiter.rows):
        among = first_occurrence(arbiter.table.types, arbiter.columns)
        first[arbiter.rows] = arbiter.rows[among]
    return first


def _first_of_any_key(found: Match) -> Rows:
    """Join rows that match one stored row, and new rows that share a key, also by way of others."""
    rids = found.rids
    first = np.arange(len(rids))
    matched = (rids >= 0).nonzero()[0]
    _, where, back = np.unique(rids[matched], return_index=True, return_inverse=True)
    first[matched] = matched[where[back]]
    parents = first.tolist()

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for arbiter in found.arbiters:
        rows = np.arange(len(rids)) if arbiter.rows is None else arbiter.rows
        is_new = (rids[rows] < 0).nonzero()[0]
        if not len(is_new):
            continue
        columns = [column[is_new] for column in arbiter.columns]
        among = first_occurrence(arbiter.table.types, columns)
        for row, other in zip(rows[is_new].tolist(), rows[is_new[among]].tolist(), strict=True):
            one, two = root(row), root(other)
            parents[max(one, two)] = min(one, two)
    return np.array([root(row) for row in range(len(rids))], dtype=np.int64)
