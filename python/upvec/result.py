"""What calls give back: outcomes of a write, rows of a read, hits of a search.

All three are columnar: one numpy array per column, in the order of the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .schema import EXTRA

if TYPE_CHECKING:
    from .ranking import Ranking
    from .search_plan import SearchPlan

__all__ = [
    "Changed",
    "Hits",
    "Outcome",
    "Rows",
    "UpsertResult",
    "check_hit_fields",
    "hits_of",
]

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]
Distances: TypeAlias = "npt.NDArray[np.float32] | Mapping[str, npt.NDArray[np.float32]]"


class Outcome(IntEnum):
    """What became of one incoming row.

    ====================  =====================================================
    ``INSERTED``          a new row was stored
    ``UPDATED``           a stored row was changed
    ``UNCHANGED``         the stored row already had these values; nothing written
    ``SKIPPED``           the policy, or a duplicate in the batch, left the row out
    ``STALE``             the stored row is newer
    ``CONFLICT``          the caller's expectation of the stored row did not hold
    ``REJECTED``          a unique index or a fixed primary key forbids the row
    ``DELETED``           the stored row was removed
    ====================  =====================================================

    Members are also reachable in lower case, as the numbers in
    :attr:`UpsertResult.counts` are: ``Outcome.inserted is Outcome.INSERTED``.

    Examples
    --------
    >>> Outcome(1).name, Outcome.updated == 1
    ('UPDATED', True)
    """

    INSERTED = 0
    UPDATED = 1
    UNCHANGED = 2
    SKIPPED = 3
    STALE = 4
    CONFLICT = 5
    REJECTED = 6
    DELETED = 7

    inserted = 0
    updated = 1
    unchanged = 2
    skipped = 3
    stale = 4
    conflict = 5
    rejected = 6
    deleted = 7


_OUTCOME_NAMES = tuple(outcome.name.lower() for outcome in Outcome)


class Changed(Sequence["tuple[str, ...]"]):
    """Per row, the fields that a write changed.

    Held as one bit per field and row. Indexing a row gives the names; ``mask(name)``
    gives a field's column.

    Examples
    --------
    >>> changed = Changed(("name", "age"), np.array([[0b11], [0b10]], dtype=np.uint8))
    >>> changed[0], changed[1]
    (('name', 'age'), ('age',))
    >>> changed.mask("name")
    array([ True, False])
    """

    __slots__ = ("_bits", "fields")

    def __init__(self, fields: Sequence[str], bits: UInt8Array) -> None:
        self.fields = tuple(fields)
        self._bits = bits

    @classmethod
    def from_masks(cls, rows: int, masks: Mapping[str, BoolArray]) -> Changed:
        """Pack one bool column per field; ``rows`` is their common length."""
        if not masks:
            return cls((), np.zeros((rows, 0), dtype=np.uint8))
        table = np.array(list(masks.values()), dtype=np.bool_)
        return cls(tuple(masks), np.packbits(table, axis=0, bitorder="little").T)

    def mask(self, field: str) -> BoolArray:
        """Return True for the rows in which ``field`` changed; bool (n,)."""
        position = self.fields.index(field)
        column = self._bits[:, position >> 3] >> np.uint8(position & 7)
        return (column & np.uint8(1)).astype(np.bool_)

    def __len__(self) -> int:
        return len(self._bits)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return Changed(self.fields, self._bits[row])
        bits = np.unpackbits(self._bits[row], bitorder="little")[: len(self.fields)]
        return tuple(self.fields[i] for i in np.flatnonzero(bits))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, tuple, Changed)):
            return len(self) == len(other) and all(
                set(mine) == set(theirs) for mine, theirs in zip(self, other, strict=True)
            )
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:5]))
        return f"Changed([{shown}{', …' if len(self) > 5 else ''}])"


class UpsertResult:
    """What became of each row of a write, in input order.

    Attributes
    ----------
    status : ndarray, uint8 (n,)
        An :class:`Outcome` per row.
    key : ndarray (n,) or None
        The primary key of each row, as stored; None where the row has none
        (a row that would have been new, and was rejected before it had a key).
        Index-level results have none.
    version : ndarray, int64 (n,)
        The version of the stored row after the call, or, of a deleted one, before it; 0 where
        there is none.
    changed : Changed
        Per row, the names of the fields that changed.
    reason : ndarray of object (n,)
        A short word for every row that was not written although asked: ``"exists"``,
        ``"missing"``, ``"duplicate"``, ``"unique"``, ``"primary"``, ``"ambiguous"``, ``"where"``,
        ``"version"``, ``"deleted"``, ``"invalid"``; None for all others.
    detail : ndarray of object (n,)
        The same as a sentence that names both sides; None for all others.
    seq : int
        The number of the commit; of the newest earlier one if nothing was written.
    old, new : Rows or None
        The stored rows before and after, if ``returning`` asked for them.
    deleted : ndarray or None
        The primary keys of the rows that :meth:`Collection.sync` removed; ``counts`` has their
        number.

    Examples
    --------
    >>> UpsertResult.from_status(np.array([0, 0, 2], dtype=np.uint8))
    UpsertResult(inserted=2, unchanged=1)
    """

    __slots__ = ("_reasons", "changed", "deleted", "key", "new", "old", "seq", "status", "version")

    def __init__(
        self,
        status: UInt8Array,
        *,
        key: AnyArray | None = None,
        version: Int64Array | None = None,
        changed: Changed | None = None,
        reason: Mapping[int, tuple[str, str]] | None = None,
        seq: int = 0,
    ) -> None:
        self.status = status
        self.key = key
        self.version = np.zeros(len(status), dtype=np.int64) if version is None else version
        self.changed = Changed.from_masks(len(status), {}) if changed is None else changed
        self.seq = seq
        self.old: Rows | None = None
        self.new: Rows | None = None
        self.deleted: AnyArray | None = None
        self._reasons = reason or {}

    @classmethod
    def from_status(cls, status: UInt8Array) -> UpsertResult:
        """Return a result that knows nothing but the outcomes; ``status`` is uint8 (n,)."""
        return cls(np.asarray(status, dtype=np.uint8))

    @property
    def reasons(self) -> Mapping[int, tuple[str, str]]:
        """By row, the word and the sentence of those that were not written although asked."""
        return self._reasons

    @property
    def reason(self) -> npt.NDArray[np.object_]:
        """A word per row that was not written although asked, else None; object (n,)."""
        return self._spread(0)

    @property
    def detail(self) -> npt.NDArray[np.object_]:
        """The reason as a sentence that names both sides, else None; object (n,)."""
        return self._spread(1)

    def _spread(self, part: int) -> npt.NDArray[np.object_]:
        column = np.full(len(self.status), None, dtype=object)
        for row, reason in self._reasons.items():
            column[row] = reason[part]
        return column

    @property
    def counts(self) -> dict[str, int]:
        """How many rows had each outcome; every outcome is a key."""
        tally = np.bincount(self.status, minlength=len(_OUTCOME_NAMES)).tolist()
        if self.deleted is not None:
            tally[Outcome.DELETED] += len(self.deleted)
        return dict(zip(_OUTCOME_NAMES, tally, strict=True))

    def __len__(self) -> int:
        return len(self.status)

    def __repr__(self) -> str:
        parts = [f"{name}={count}" for name, count in self.counts.items() if count]
        if self.seq:
            parts.append(f"seq={self.seq}")
        return f"UpsertResult({', '.join(parts)})"


class Rows:
    """Stored rows as columns, in the order asked for.

    ``rows["age"]`` is the column: int64, float64, bool, datetime64[us], object (strings,
    bytes, json values, lists) or float32 (n, dim) for a vector. A null is NaN in a float64
    or vector column, NaT in a timestamp column, and None in all others (an int64 or bool
    column that holds a null comes as an object array). ``rows.null("age")`` tells nulls
    apart where that is ambiguous. ``rows[i]`` is row i as a dict, or None if not found.

    Attributes
    ----------
    found : ndarray, bool (n,)
        False where :meth:`Collection.get` met a key that is not stored; such a row is
        null in every column.
    version : ndarray, int64 (n,)
        The version of each row; 0 where not found.

    Examples
    --------
    >>> rows = Rows({"id": np.array(["a", None], dtype=object)},
    ...             {"id": np.array([False, True])}, found=np.array([True, False]))
    >>> rows["id"].tolist(), rows[0], rows[1]
    (['a', None], {'id': 'a'}, None)
    """

    __slots__ = ("_columns", "_nulls", "found", "version")

    def __init__(
        self,
        columns: Mapping[str, AnyArray],
        nulls: Mapping[str, BoolArray | None],
        *,
        found: BoolArray,
        version: Int64Array | None = None,
    ) -> None:
        self._columns = dict(columns)
        self._nulls = dict(nulls)
        self.found = found
        self.version = np.zeros(len(found), dtype=np.int64) if version is None else version

    @property
    def columns(self) -> dict[str, AnyArray]:
        """All columns by name, in the order of the schema."""
        return dict(self._columns)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._columns)

    def null(self, field: str) -> BoolArray:
        """Return True where ``field`` is null or its row was not found; bool (n,)."""
        mask = self._nulls.get(field)
        if field not in self._columns:
            raise KeyError(field)
        return np.zeros(len(self), dtype=np.bool_) if mask is None else mask

    def to_dicts(self) -> list[dict[str, Any] | None]:
        """Return the rows as dicts of Python values (vectors as float32 arrays).

        A key that was not found gives None, so that positions are kept. Fields that the schema does
        not know, and stores, stand beside the others.
        """
        listed: list[Sequence[Any]] = [self._listed(name) for name in self._columns]
        names = tuple(self._columns)
        rows: list[dict[str, Any] | None] = [
            dict(zip(names, values, strict=True)) for values in zip(*listed, strict=True)
        ]
        if not names:
            rows = [{} for _ in range(len(self))]
        if EXTRA in self._columns:
            for known in rows:
                unknown = known.pop(EXTRA) if known else None
                if known is not None and unknown:
                    known |= {n: value for n, value in unknown.items() if n not in known}
        for row in np.flatnonzero(~self.found).tolist():
            rows[row] = None
        return rows

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``; a vector becomes a column of arrays."""
        import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

        data: dict[str, Any] = {
            name: list(column) if column.ndim == 2 else column
            for name, column in self._columns.items()
        }
        return pd.DataFrame(data, index=range(len(self)))

    def _listed(self, name: str) -> Sequence[Any]:
        column, null = self._columns[name], self._nulls.get(name)
        values: list[Any] = list(column) if column.ndim == 2 else column.tolist()
        if null is not None and column.dtype != object:
            for row in np.flatnonzero(null).tolist():
                values[row] = None
        return values

    def _take(self, selection: slice) -> Rows:
        return Rows(
            {name: column[selection] for name, column in self._columns.items()},
            {n: None if m is None else m[selection] for n, m in self._nulls.items()},
            found=self.found[selection],
            version=self.version[selection],
        )

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_dicts())

    def __contains__(self, field: object) -> bool:
        return field in self._columns

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            return self._columns[item]
        if isinstance(item, slice):
            return self._take(item)
        row = range(len(self))[item]
        return self._take(slice(row, row + 1)).to_dicts()[0]

    def __repr__(self) -> str:
        missing = len(self) - int(np.count_nonzero(self.found))
        note = f", {missing} not found" if missing else ""
        return f"{type(self).__name__}({len(self)} rows{note}: {', '.join(self._columns)})"


class Hits(Rows):
    """The rows that a search found, nearest first; the queries one after the other.

    Has the columns asked for, ``distance`` (float32), and, when several queries were
    asked, ``query`` (int64, the row of the query). ``hits[i]`` is, with several queries,
    the :class:`Hits` of query i, and with a single query, hit i as a dict.

    A search of several vector fields gives ``score`` (float64) instead of ``distance``, and the
    best come first.

    Attributes
    ----------
    counts : ndarray, int64 (q,)
        How many hits each query has.
    plan : SearchPlan, dict of str to SearchPlan, or None
        What the search did, where ``explain=True`` asked for that; by field, if it was of several.

    Examples
    --------
    >>> hits = Hits({"id": np.array([7, 9])}, {}, distances=np.array([0.5, 1.5], np.float32),
    ...             offsets=np.array([0, 2]), single=True)
    >>> hits[0]
    {'id': 7, 'distance': 0.5}
    """

    __slots__ = ("_distances", "_offsets", "_plain", "_scores", "_single", "plan")

    def __init__(
        self,
        columns: Mapping[str, AnyArray],
        nulls: Mapping[str, BoolArray | None],
        *,
        distances: Distances,
        offsets: Int64Array,
        single: bool,
        version: Int64Array | None = None,
        scores: npt.NDArray[np.float64] | None = None,
        plan: SearchPlan | dict[str, SearchPlan] | None = None,
    ) -> None:
        self._plain = tuple(columns)
        columns = dict(columns)
        if scores is not None:
            columns["score"] = scores
        elif not isinstance(distances, Mapping):
            columns["distance"] = distances
        if not single:
            columns["query"] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        found = np.empty(int(offsets[-1]), dtype=np.bool_)
        found.fill(True)  # a third of the time of np.ones()
        super().__init__(columns, nulls, found=found, version=version)
        self._distances = distances
        self._scores = scores
        self._offsets = offsets
        self._single = single
        self.plan = plan

    @property
    def distances(self) -> Any:
        """The distance of each hit; float32 (m,).

        Of a search of several vector fields, a dict of these by field; NaN where the field's
        search did not find the row.
        """
        return self._distances

    @property
    def counts(self) -> Int64Array:
        """How many hits each query has; int64 (q,)."""
        return np.diff(self._offsets)

    def __getitem__(self, item: Any) -> Any:
        if self._single or not isinstance(item, (int, np.integer)):
            return super().__getitem__(item)
        query = range(len(self._offsets) - 1)[item]
        start, stop = int(self._offsets[query]), int(self._offsets[query + 1])
        near = self._distances
        return Hits(
            {name: self._columns[name][start:stop] for name in self._plain},
            {n: None if m is None else m[start:stop] for n, m in self._nulls.items()},
            distances=(
                {name: column[start:stop] for name, column in near.items()}
                if isinstance(near, Mapping)
                else near[start:stop]
            ),
            offsets=np.array([0, stop - start], dtype=np.int64),
            single=True,
            version=self.version[start:stop],
            plan=self.plan,
            scores=None if self._scores is None else self._scores[start:stop],
        )

    def _take(self, selection: slice) -> Rows:
        # A slice of hits no longer has whole queries: it is rows with their distances.
        return super()._take(selection)

    def __repr__(self) -> str:
        queries = len(self._offsets) - 1
        note = "" if self._single else f" of {queries} queries"
        return f"Hits({len(self)} hits{note}: {', '.join(self._columns)})"


def hits_of(
    ranking: Ranking,
    columns: Mapping[str, AnyArray],
    nulls: Mapping[str, BoolArray | None],
    version: Int64Array,
    *,
    single: bool,
    plan: SearchPlan | dict[str, SearchPlan] | None = None,
) -> Hits:
    """Return what a search found, with the columns of its rows."""
    scored = ranking.scores is not None
    return Hits(
        columns,
        nulls,
        distances=ranking.distances if scored else next(iter(ranking.distances.values())),
        offsets=ranking.offsets,
        single=single,
        version=version,
        scores=ranking.scores,
        plan=plan,
    )


def check_hit_fields(fields: Sequence[str], *, scored: bool) -> None:
    """Refuse a stored field that would be taken for the score of the hits.

    Raises
    ------
    ValueError
    """
    if scored and "score" in fields:
        message = f"search: got fields={list(fields)!r} with queries by field, whose hits have a"
        raise ValueError(f"{message} score of their own; wanted fields= without 'score'")
