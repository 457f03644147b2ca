"""What can be read of one version of a collection: by the collection itself, and by a snapshot.

A call takes the state that it reads once, and no lock.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .condition import Selected, select_bits
from .errors import (
    DimensionError,
    InvalidRowError,
    KeyMissingError,
    NotSupportedError,
    SchemaError,
)
from .expression import Expression, Predicate, bind
from .fields import Field, Vector
from .ingest import field_column, vector_column
from .read import chosen_fields, read_columns, read_rows
from .result import Hits, Rows
from .schema import Schema
from .search_plan import Allowed, allowed_rows, plan_of
from .ttl import is_expired, now_us

if TYPE_CHECKING:
    from .state import KeyTable, State

__all__ = ["Reader", "Where"]

AnyArray: TypeAlias = npt.NDArray[Any]
RowIds: TypeAlias = npt.NDArray[np.int64]
Where: TypeAlias = "Expression | str | None"


class Reader(ABC):
    """The reading half of a collection; which state it reads is for the subclass to say."""

    @abstractmethod
    def _reading(self) -> State:
        """Return the state to read, if the handle may be used."""

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The schema of the rows."""

    def get(self, keys: Any, *, on: str | None = None, fields: Iterable[str] | None = None) -> Rows:
        """Read rows by key, in the order asked for.

        Parameters
        ----------
        keys : sequence, array or single key
            Tuples for a composite key.
        on : str
            The primary key (default), or the name of a Unique.
        fields : sequence of str
            Which fields to read; all by default, vectors too.

        Returns
        -------
        Rows
            ``.found`` tells the keys that are not stored.

        Raises
        ------
        InvalidRowError
            A key of the wrong type.
        SchemaError
            ``on`` names no key.
        ValueError
            An unknown field.
        """
        state = self._reading()
        chosen = chosen_fields(state.schema, fields, vectors=True)
        rids = self._find(state, self._table(state, on), keys)
        return read_rows(state, rids, chosen)

    def search(
        self,
        queries: Any,
        k: int | None = 10,
        *,
        field: str | None = None,
        where: Where = None,
        ef: int | None = None,
        fields: Iterable[str] | None = None,
        radius: float | None = None,
        exact: bool = False,
        explain: bool = False,
    ) -> Hits:
        """Find the rows whose vectors are nearest.

        Parameters
        ----------
        queries : array (dim,) or (q, dim)
        k : int or None
            At most so many hits per query. None: all within ``radius``.
        field : str
            The vector field; may be left out if there is only one.
        where : Expression or str
            Only rows that fulfil it are hits.
        ef : int
            How many candidates to keep while searching: more is slower, and misses less.
        fields : sequence of str
            Which fields the hits have; by default all but the vectors.
        radius : float
            Only rows no farther than this, in the metric's own distance (squared for "l2").
        exact : bool
            Compare with every vector instead of searching the graph.
        explain : bool
            Say in ``plan`` of the hits how the rows that fulfil ``where`` were found, how many
            they are, and what the search did with them: a :class:`SearchPlan`.

        Returns
        -------
        Hits
            Nearest first, with ``distance``.

        Raises
        ------
        DimensionError, ValueError
            Queries that do not fit, or are not finite; a k that is no count.
        SchemaError
            No such vector field, or several to choose from.
        ExpressionError
            A condition that does not fit the schema.
        """
        state = self._reading()
        vector = self._vector(state, field)
        chosen = chosen_fields(state.schema, fields, vectors=False)
        predicate = self._predicate(state, where)
        matrix, single = _query_matrix(vector, queries)
        _check_search(k, radius, ef)
        selected = None
        if predicate is not None or state.schema.ttl is not None:
            selected = self._select(state, predicate)
            if selected.count == state.count:
                selected = selected if explain else None
        allowed = allowed_rows(state, vector.name, selected)
        offsets, rids, distances = self._nearest(
            state, vector, matrix, k, radius=radius, ef=ef or 0, exact=exact, allowed=allowed
        )
        columns, nulls = read_columns(state, rids, chosen)
        version = state.versions.gather(rids)[0]
        plan = None
        if explain:
            plan = plan_of(state, vector.name, selected, allowed, k=k, ef=ef or 0, exact=exact)
        return Hits(
            columns,
            nulls,
            distances=distances,
            offsets=offsets,
            single=single,
            version=version,
            plan=plan,
        )

    def scan(
        self,
        *,
        where: Where = None,
        fields: Iterable[str] | None = None,
        batch_rows: int = 65_536,
    ) -> Iterator[Rows]:
        """Iterate over all rows, or those that fulfil a condition, in batches.

        All batches are of the one state that was current when ``scan`` was called. The order is
        that of storing, but removed rows leave places that later rows take.

        Raises
        ------
        ExpressionError, ValueError
            At once, not when the first batch is taken.
        """
        state = self._reading()
        chosen = chosen_fields(state.schema, fields, vectors=True)
        predicate = self._predicate(state, where)
        if batch_rows < 1:
            raise ValueError(f"batch_rows={batch_rows!r}; wanted at least 1")
        rids = self._select(state, predicate).rids()
        return self._batches(state, rids, chosen, batch_rows)

    def count(self, where: Where = None) -> int:
        """Return how many rows there are, or how many fulfil a condition.

        Raises
        ------
        ExpressionError
            A condition that does not fit the schema.
        """
        state = self._reading()
        if where is None and state.schema.ttl is None:
            return state.count
        return self._select(state, self._predicate(state, where)).count

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, key: object) -> bool:
        state = self._reading()
        return bool(self._find(state, self._table(state, None), [key])[0] >= 0)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        row = self.get([key])[0]
        if row is None:
            raise KeyMissingError(f"no row has the key {key!r}", keys=[key])
        found: dict[str, Any] = row
        return found

    def _batches(
        self, state: State, rids: RowIds, fields: tuple[str, ...], batch_rows: int
    ) -> Iterator[Rows]:
        for start in range(0, len(rids), batch_rows):
            piece = rids[start : start + batch_rows]
            yield read_rows(state, piece, fields)

    def _select(self, state: State, where: Predicate | None) -> Selected:
        """Return the rows that fulfil a condition."""
        return select_bits(state, where)

    def _find(self, state: State, table: KeyTable, keys: Any) -> RowIds:
        columns, keyed = self._key_columns(state, table, keys)
        if not len(keyed):
            return np.empty(0, dtype=np.int64)
        if np.count_nonzero(keyed) == len(keyed):
            rids = table.find_at(state, columns)
        else:
            rids = np.full(len(keyed), -1, dtype=np.int64)
            if keyed.any():
                rids[keyed] = table.find_at(state, [column[keyed] for column in columns])
        if state.schema.ttl is not None:
            at = (rids >= 0).nonzero()[0]
            gone = is_expired(state, rids[at], now_us())
            rids[at[gone]] = -1
        return rids

    def _key_columns(
        self, state: State, table: KeyTable, keys: Any
    ) -> tuple[list[AnyArray], npt.NDArray[np.bool_]]:
        """Return keys as one column per field, and which of them have no null."""
        raw = _key_parts(keys, len(table.fields), table.name)
        columns = []
        keyed = np.ones(len(raw[0]), dtype=np.bool_)
        for name, part in zip(table.fields, raw, strict=True):
            # A key to look for need not pass the checks that a key to store has to.
            plain = Field(name, state.schema.fields[name].type, nullable=True)
            values, null = field_column(plain, part)
            columns.append(values)
            if null is not None:
                keyed &= ~null
        if table.name == state.schema.primary.name and not keyed.all():
            rows = np.flatnonzero(~keyed).tolist()
            message = f"key {rows[0]}: got null, wanted {table.types[0]}"
            raise InvalidRowError(message, rows=rows, field=table.name)
        return columns, keyed

    def _nearest(
        self,
        state: State,
        vector: Vector,
        queries: npt.NDArray[np.float32],
        k: int | None,
        *,
        radius: float | None,
        ef: int,
        exact: bool,
        allowed: Allowed,
    ) -> tuple[RowIds, RowIds, npt.NDArray[np.float32]]:
        """Return where each query's hits begin (q + 1,), their row ids and distances."""
        index, snapshot = state.indexes[vector.name], state.snapshots[vector.name]
        if k is None and radius is not None and not exact:
            offsets, rids, distances = index.range_search(
                queries, radius, ef=ef, allowed=allowed, snapshot=snapshot
            )
            return offsets, rids, distances
        most = state.count if allowed is None else len(allowed)
        # At least one: an index may refuse to look for none.
        wanted = max(1, most if k is None else min(int(k), most))
        if exact:
            found = index.exact_search(queries, wanted, allowed=allowed, snapshot=snapshot)
        else:
            found = index.search(queries, wanted, ef=ef, allowed=allowed, snapshot=snapshot)
        keys, distances, counts = found
        if radius is None and counts.sum() == keys.size:  # as good as always
            offsets = np.arange(len(counts) + 1, dtype=np.int64) * keys.shape[1]
            return offsets, keys.ravel(), distances.ravel()
        hit = np.arange(keys.shape[1]) < counts[:, None]
        if radius is not None:
            hit &= distances <= radius
        offsets = np.concatenate([[0], np.cumsum(hit.sum(axis=1))]).astype(np.int64)
        return offsets, keys[hit], distances[hit]

    def _table(self, state: State, on: str | None) -> KeyTable:
        if on is None:
            return state.tables[state.schema.primary.name]
        if not isinstance(on, str):
            raise NotSupportedError(f"on={on!r} is not supported yet; name one key", argument="on")
        state.schema.key_fields(on)
        return state.tables[on]

    def _vector(self, state: State, field: str | None) -> Vector:
        vectors = state.schema.vectors
        if field is None and len(vectors) == 1:
            return next(iter(vectors.values()))
        if field not in vectors:
            got = "no field=" if field is None else f"field={field!r}"
            known = ", ".join(vectors) or "none"
            raise SchemaError(f"search: got {got}; the vector fields are: {known}")
        return vectors[field]

    def _predicate(self, state: State, where: Where) -> Predicate | None:
        return None if where is None else bind(where, state.schema.types)


def _key_parts(keys: Any, width: int, name: str) -> list[Any]:
    """Return keys as one list or array per field of the key."""
    if width == 1:
        single = isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable)
        if single:
            return [[keys]]
        return [keys if isinstance(keys, np.ndarray) else builtins.list(keys)]
    if isinstance(keys, tuple) and len(keys) == width and not isinstance(keys[0], (tuple, list)):
        keys = [keys]
    listed = [tuple(key) if isinstance(key, (tuple, list)) else (key,) for key in keys]
    wrong = [row for row, key in enumerate(listed) if len(key) != width]
    if wrong:
        message = f"key {wrong[0]}: got {listed[wrong[0]]!r}, wanted a tuple of {width} for {name}"
        raise InvalidRowError(message, rows=wrong, field=name, got=listed[wrong[0]])
    return [[key[position] for key in listed] for position in range(width)]


def _query_matrix(vector: Vector, queries: Any) -> tuple[npt.NDArray[np.float32], bool]:
    matrix = np.asarray(queries)
    single = matrix.ndim == 1
    if single:
        matrix = matrix[None, :]
    if matrix.ndim != 2 or matrix.shape[1] != vector.dim:
        got = matrix.shape[-1] if matrix.ndim else 0
        message = f"queries have shape {np.shape(queries)}; field {vector.name!r} wants "
        raise DimensionError(
            message + f"({vector.dim},) or (q, {vector.dim})",
            got=got,
            want=vector.dim,
            field=vector.name,
        )
    return vector_column(vector, matrix)[0], single


def _check_search(k: Any, radius: float | None, ef: Any) -> None:
    if k is None and radius is None:
        raise ValueError("search: k=None wants a radius=")
    for name, value in (("k", k), ("ef", ef)):
        is_count = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and (not is_count or value < 1):
            raise ValueError(f"search: got {name}={value!r}, wanted a positive integer")
    if radius is not None and np.isnan(radius):
        raise ValueError("search: radius is NaN")
