"""What can be read of one version of a collection: by the collection itself, and by a snapshot.

A call takes the state that it reads once, and no lock.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import Selection
from .condition import Selected, condition_in, select_bits
from .errors import InvalidRowError, KeyMissingError, NotSupportedError
from .expression import Expression
from .fields import Field, Vector
from .ingest import field_column
from .ordering import check_order, ordered
from .query import RANK_CONSTANT, query_of
from .read import chosen_fields, read_columns, read_rows
from .result import Hits, Rows, check_hit_fields, hits_of
from .schema import Schema
from .search_plan import SearchPlan, allowed_rows, plan_of
from .ttl import is_expired, now_us

if TYPE_CHECKING:
    from .condition_tree import Condition
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
        weights: Mapping[str, float] | None = None,
        rank_constant: float = RANK_CONSTANT,
        candidates: int | None = None,
        mmr: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
    ) -> Hits:
        """Find the rows whose vectors are nearest.

        Parameters
        ----------
        queries : array (dim,) or (q, dim), or dict of str to such arrays
            A dict has queries by vector field, for every field as many. Each field is searched,
            and the answers become one by weighted reciprocal rank fusion: a row that is at
            place r of a field's answer (the nearest at 1) gets ``weight / (rank_constant + r)``
            from it.
        k : int or None
            At most so many hits per query, or with ``group_by`` so many groups. None: all within
            ``radius``.
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
            they are, and what the search did with them: a :class:`SearchPlan`, or a dict of these
            by field.
        weights : dict of str to float
            By vector field, positive; 1 for a field that is left out.
        rank_constant : float
            The larger, the less the first places count before those behind them.
        candidates : int
            With queries by field, how many rows each field finds; with ``mmr``, of how many rows
            to choose. At least k; by default ``max(4 * k, 64)``.
        mmr : float
            Choose hits that are also unlike each other, by maximal marginal relevance: the next
            is the candidate with the largest ``mmr * s(query, row) - (1 - mmr) * s(row, chosen)``
            for the chosen row that is most like it. The similarity s is the dot product for "ip"
            and "cosine", minus the squared distance for "l2". 1 is the order by distance.
        group_by : str
            A field (string, int64, bool, timestamp or bytes): find k groups of rows that have the
            same value there. A row that has null there is a group of its own.
        group_size : int
            The best so many rows of each group are hits.

        Returns
        -------
        Hits
            Nearest first, with ``distance``. With ``mmr``, in the order of choice; with
            ``group_by``, group after group, in the order of their best. With queries by field,
            the best first, with ``score``, and equal ones in the order of storing;
            ``hits.distances[field]`` is NaN where the field did not find the row.

        Raises
        ------
        DimensionError, ValueError
            Queries that do not fit, or are not finite; a k that is no count; options that do not
            go together: queries by field with ``field``, ``radius`` or ``mmr``, ``mmr`` with
            ``group_by`` or with ``k=None``, ``candidates`` without ``mmr`` or queries by field.
        SchemaError
            No such vector field, or several to choose from.
        ExpressionError
            A condition that does not fit the schema.

        Notes
        -----
        With ``group_by``, candidates are doubled until k groups are full or all rows were seen:
        groups that are smaller than ``group_size``, or fewer than k of them, cost a look at every
        row. Queries by field begin with ``candidates`` then.

        Examples
        --------
        >>> import upvec
        >>> schema = upvec.Schema(
        ...     upvec.Field("id", "int64", primary=True), upvec.Field("doc", "string"),
        ...     upvec.Vector("text", 2), upvec.Vector("title", 2, nullable=True),
        ... )
        >>> col = upvec.open(":memory:", schema)
        >>> _ = col.upsert([
        ...     {"id": 1, "doc": "a", "text": [0, 0], "title": [9, 9]},
        ...     {"id": 2, "doc": "a", "text": [0, 1], "title": [0, 0]},
        ...     {"id": 3, "doc": "b", "text": [3, 0]},
        ... ])
        >>> hits = col.search({"text": [0, 0], "title": [0, 0]}, weights={"title": 2})
        >>> hits["id"].tolist(), hits["score"].round(4).tolist()
        ([2, 1, 3], [0.0489, 0.0487, 0.0159])
        >>> hits.distances["title"].tolist()
        [0.0, 162.0, nan]
        >>> col.search([0, 0], 2, field="text", group_by="doc")["id"].tolist()
        [1, 3]
        >>> col.search([0, 0], 2, field="text", mmr=0.3)["id"].tolist()
        [1, 3]
        """
        state = self._reading()
        chosen = chosen_fields(state.schema, fields, vectors=False)
        condition = self._condition(state, where)
        query = query_of(
            state.schema,
            queries,
            k,
            field=field,
            ef=ef,
            radius=radius,
            exact=exact,
            weights=weights,
            rank_constant=rank_constant,
            candidates=candidates,
            mmr=mmr,
            group_by=group_by,
            group_size=group_size,
        )
        check_hit_fields(chosen, scored=query.weights is not None)
        selected = None
        if condition is not None or state.schema.ttl is not None:
            selected = self._select(state, condition)
        plans: dict[str, SearchPlan] | None = {} if explain else None
        nearest = partial(
            self._nearest, state, radius=radius, ef=ef or 0, selected=selected, plans=plans
        )
        ranking = query.answer(state, nearest, state.count if selected is None else selected.count)
        selection = Selection(ranking.rids)
        columns, nulls = read_columns(state, ranking.rids, chosen, selection)
        version = state.versions.take(selection)[0]
        plan = plans if plans is None or query.weights is not None else next(iter(plans.values()))
        return hits_of(ranking, columns, nulls, version, single=query.single, plan=plan)

    def scan(
        self,
        *,
        where: Where = None,
        fields: Iterable[str] | None = None,
        batch_rows: int = 65_536,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[Rows]:
        """Iterate over all rows, or those that fulfil a condition, in batches.

        All batches are of the one state that was current when ``scan`` was called. The order is
        that of storing, but removed rows leave places that later rows take.

        Parameters
        ----------
        where : Expression or str
            Only rows that fulfil it.
        fields : sequence of str
            Which fields to read; all by default, vectors too.
        batch_rows : int
            Rows a batch.
        order_by : str
            A field to order by (string, int64, float64, bool, timestamp or bytes): strings by code
            points, false before true, NaN behind all numbers and null behind everything. Equal
            values stay in the order of storing.
        descending : bool
            The largest first; NaN and null last all the same.
        limit : int
            Only the first so many rows. With ``order_by``, the others are not sorted.

        Raises
        ------
        ExpressionError, ValueError
            At once, not when the first batch is taken.

        Examples
        --------
        >>> import upvec
        >>> schema = upvec.Schema(
        ...     upvec.Field("id", "int64", primary=True),
        ...     upvec.Field("age", "int64", nullable=True),
        ... )
        >>> col = upvec.open(":memory:", schema)
        >>> _ = col.upsert([{"id": 1, "age": 30}, {"id": 2}, {"id": 3, "age": 40}])
        >>> next(col.scan(order_by="age", descending=True))["id"].tolist()
        [3, 1, 2]
        >>> next(col.scan(order_by="age", limit=1)).to_dicts()
        [{'id': 1, 'age': 30}]
        """
        state = self._reading()
        chosen = chosen_fields(state.schema, fields, vectors=True)
        condition = self._condition(state, where)
        if batch_rows < 1:
            raise ValueError(f"batch_rows={batch_rows!r}; wanted at least 1")
        check_order(state.schema, order_by, limit, descending=descending)
        rids = self._select(state, condition).rids()
        if order_by is not None:
            rids = ordered(state, rids, order_by, descending=descending, limit=limit)
        rids = rids[:limit]
        return self._batches(state, rids, chosen, batch_rows, ascending=order_by is None)

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
        return self._select(state, self._condition(state, where)).count

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
        self,
        state: State,
        rids: RowIds,
        fields: tuple[str, ...],
        batch_rows: int,
        *,
        ascending: bool,
    ) -> Iterator[Rows]:
        for start in range(0, len(rids), batch_rows):
            piece = rids[start : start + batch_rows]
            yield read_rows(state, piece, fields, ascending=ascending)

    def _select(self, state: State, where: Condition | None) -> Selected:
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
        exact: bool,
        radius: float | None,
        ef: int,
        selected: Selected | None,
        plans: dict[str, SearchPlan] | None,
    ) -> tuple[RowIds, RowIds, npt.NDArray[np.float32]]:
        """Return where each query's hits begin (q + 1,), their row ids and distances."""
        index, snapshot = state.indexes[vector.name], state.snapshots[vector.name]
        unlimited = selected is None or selected.count == state.count
        allowed = None if unlimited else allowed_rows(state, vector.name, selected)
        if plans is not None:
            plans[vector.name] = plan_of(
                state, vector.name, selected, allowed, k=k, ef=ef, exact=exact
            )
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
        # As good as always:
        if radius is None and len(counts) and int(counts.min()) == keys.shape[1]:
            offsets = np.arange(0, keys.size + 1, keys.shape[1], dtype=np.int64)
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

    def _condition(self, state: State, where: Where) -> Condition | None:
        return None if where is None else condition_in(state, where)


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
