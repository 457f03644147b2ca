"""What one search asks for, checked, and how it is answered: :class:`Query`.

The graph, or a look at every vector, ranks rows by one field. What can be made of such rankings
has modules of its own: ``fusion.py``, ``diversity.py``, ``grouping.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .diversity import diverse
from .errors import DimensionError, SchemaError
from .fusion import fused
from .grouping import all_groups, best_of_groups, check_group_field
from .ingest import is_plain_vector, vector_column
from .ranking import Ranking

if TYPE_CHECKING:
    from .fields import Vector
    from .schema import Schema
    from .state import State

__all__ = ["RANK_CONSTANT", "Nearest", "Query", "query_of"]

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
Int64Array: TypeAlias = npt.NDArray[np.int64]

# What Cormack et al. found best on the collections of TREC, and flat around there.
RANK_CONSTANT = 60.0


class Nearest(Protocol):
    """Ranks the rows by one field: the k nearest, or with k None all within the radius."""

    def __call__(
        self, vector: Vector, queries: FloatMatrix, k: int | None, *, exact: bool
    ) -> tuple[Int64Array, Int64Array, npt.NDArray[np.float32]]:
        """Return where each query's rows begin (q + 1,), their ids and distances."""


@dataclass(eq=False)  # not frozen: that would take 2 us a call
class Query:
    """One call of ``search``; its parameters are described there.

    Attributes
    ----------
    matrices : dict of str to ndarray, float32 (q, dim)
        By vector field.
    single : bool
        Whether the one query came as a vector.
    weights : dict of str to float or None
        None: by one field, not fused.
    """

    matrices: dict[str, FloatMatrix]
    single: bool
    k: int | None
    radius: float | None
    exact: bool
    weights: dict[str, float] | None
    rank_constant: float
    candidates: int
    mmr: float | None
    group_by: str | None
    group_size: int

    def answer(self, state: State, nearest: Nearest, most: int) -> Ranking:
        """Return the hits; ``most`` is how many rows there are to choose from."""
        if self.group_by is not None:
            return self._by_group(state, self.group_by, nearest, most)
        if self.mmr is not None:
            return self._diverse(state, self.mmr, nearest)
        if self.weights is None:
            return self._ranked(state, nearest, None, self.k)
        ranking = self._ranked(state, nearest, None, self.candidates)
        return ranking if self.k is None else ranking.first(self.k)

    def _any_matrix(self) -> FloatMatrix:
        return next(iter(self.matrices.values()))

    def _ranked(
        self,
        state: State,
        nearest: Nearest,
        queries: Int64Array | None,
        width: int | None,
        *,
        exact: bool = False,
    ) -> Ranking:
        """Return so many candidates of some queries (None: all); of every field, to fuse them."""
        rankings = {}
        for name, matrix in self.matrices.items():
            asked = matrix if queries is None else matrix[queries]
            offsets, rids, distances = nearest(
                state.schema.vectors[name], asked, width, exact=exact or self.exact
            )
            rankings[name] = Ranking(offsets, rids, {name: distances})
        if self.weights is None:
            return next(iter(rankings.values()))
        return fused(rankings, self.weights, self.rank_constant)

    def _diverse(self, state: State, balance: float, nearest: Nearest) -> Ranking:
        (name,) = self.matrices
        ranking = self._ranked(state, nearest, None, self.candidates)
        index, snapshot = state.indexes[name], state.snapshots[name]
        metric = state.schema.vectors[name].metric
        chosen = []
        for start, stop in zip(ranking.offsets[:-1], ranking.offsets[1:], strict=True):
            vectors = index.get(ranking.rids[start:stop], snapshot=snapshot)[0]
            distances = ranking.distances[name][start:stop]
            most = stop - start if self.k is None else self.k
            chosen.append(diverse(distances, vectors, most, metric=metric, balance=balance))
        return ranking.by_query(chosen)

    def _by_group(self, state: State, name: str, nearest: Nearest, most: int) -> Ranking:
        queries = len(self._any_matrix())
        if self.k is None:
            ranking = self._ranked(state, nearest, None, None)
            return all_groups(state, name, ranking, size=self.group_size)

        def rank(asked: Int64Array, width: int) -> Ranking:
            width = max(width, self.candidates)
            # To walk the graph to most of the rows costs more than to look at all.
            return self._ranked(state, nearest, asked, width, exact=8 * width >= most)

        return best_of_groups(
            state,
            name,
            rank,
            queries,
            groups=self.k,
            size=self.group_size,
            most=most,
            bounded=self.radius is not None,
        )


def query_of(
    schema: Schema,
    queries: Any,
    k: int | None,
    *,
    field: str | None,
    ef: int | None,
    radius: float | None,
    exact: bool,
    weights: Mapping[str, float] | None,
    rank_constant: float,
    candidates: int | None,
    mmr: float | None,
    group_by: str | None,
    group_size: int,
) -> Query:
    """Check what a search asks for.

    Raises
    ------
    DimensionError, SchemaError, ValueError
    """
    _check_counts(k=k, ef=ef, candidates=candidates, group_size=group_size)
    if k is None and radius is None:
        raise ValueError("search: k=None wants a radius=")
    if radius is not None and np.isnan(radius):
        raise ValueError("search: radius is NaN")
    several = isinstance(queries, Mapping)
    if several:
        _check_fused(queries, field, k, radius, mmr)
        matrices, single = _matrices(schema, queries)
    else:
        vector = _vector(schema, field)
        matrix, single = _query_matrix(vector, queries)
        matrices = {vector.name: matrix}
        if weights is not None:
            raise ValueError(f"search: got weights={weights!r} with one query, {_WANTS_FIELDS}")
        if rank_constant != RANK_CONSTANT:
            message = f"search: got rank_constant={rank_constant!r} with one query"
            raise ValueError(f"{message}, {_WANTS_FIELDS}")
    if mmr is not None:
        _check_mmr(mmr, k, group_by)
    if group_by is not None:
        check_group_field(schema, group_by)
    elif group_size != 1:
        raise ValueError(f"search: got group_size={group_size} without group_by=, wanted a field")
    wide = several or mmr is not None
    return Query(
        matrices,
        single,
        k,
        radius,
        bool(exact),
        _weights(matrices, weights) if several else None,
        _positive("rank_constant", rank_constant, zero=True) if several else RANK_CONSTANT,
        _candidates(candidates, k, wide=wide),
        None if mmr is None else float(mmr),
        group_by,
        int(group_size),
    )


_WANTS_FIELDS = "wanted queries by vector field, {field: queries}"


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if type(value) is int and value > 0:  # as good as always
            continue
        is_count = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        optional = value is None and name != "group_size"
        if not optional and (not is_count or value < 1):
            raise ValueError(f"search: got {name}={value!r}, wanted a positive integer")


def _check_fused(
    queries: Mapping[str, Any], field: str | None, k: Any, radius: Any, mmr: Any
) -> None:
    if not queries:
        raise ValueError(f"search: got queries={{}}, {_WANTS_FIELDS}")
    if field is not None:
        raise ValueError(f"search: got field={field!r} and queries by field, wanted one of the two")
    if radius is not None or k is None:
        got = "k=None" if radius is None else f"radius={radius!r}"
        message = f"search: got {got} with queries by field, whose distances are not comparable"
        raise ValueError(f"{message}; wanted a k and no radius")
    if mmr is not None:
        message = f"search: got mmr={mmr!r} with queries by field, wanted queries of one field"
        raise ValueError(f"{message}, whose vectors tell what is alike")


def _check_mmr(mmr: Any, k: Any, group_by: str | None) -> None:
    number = isinstance(mmr, (int, float, np.integer, np.floating)) and not isinstance(mmr, bool)
    if not number or not 0 <= mmr <= 1:
        raise ValueError(f"search: got mmr={mmr!r}, wanted a number from 0 to 1")
    if k is None:
        raise ValueError(f"search: got mmr={mmr!r} with k=None, wanted a k")
    if group_by is not None:
        message = f"search: got mmr={mmr!r} and group_by={group_by!r}"
        raise ValueError(f"{message}, wanted one of the two")


def _candidates(candidates: int | None, k: int | None, *, wide: bool) -> int:
    if candidates is None:
        return max(4 * int(k), 64) if wide and k is not None else 1
    if not wide:
        message = f"search: got candidates={candidates}, wanted them with mmr= or queries by field"
        raise ValueError(f"{message} only; see ef= for a wider search")
    if k is not None and candidates < k:
        raise ValueError(f"search: got candidates={candidates}, wanted at least k={k}")
    return int(candidates)


def _weights(fields: Iterable[str], weights: Any) -> dict[str, float]:
    fields = tuple(fields)
    if weights is None:
        return dict.fromkeys(fields, 1.0)
    if not isinstance(weights, Mapping) or not set(weights) <= set(fields):
        known = ", ".join(fields)
        raise ValueError(f"search: got weights={weights!r}, wanted {{field: weight}} of: {known}")
    return {name: _positive(f"weights[{name!r}]", weights.get(name, 1.0)) for name in fields}


def _positive(name: str, value: Any, *, zero: bool = False) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or isinstance(value, bool) or not np.isfinite(value) or value < 0:
        number = False
    if not number or (value == 0 and not zero):
        wanted = "a number from 0 on" if zero else "a positive number"
        raise ValueError(f"search: got {name}={value!r}, wanted {wanted}")
    return float(value)


def _matrices(schema: Schema, queries: Mapping[str, Any]) -> tuple[dict[str, FloatMatrix], bool]:
    found = {name: _query_matrix(_vector(schema, name), some) for name, some in queries.items()}
    shapes = {name: np.shape(some)[:-1] for name, some in queries.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{name!r}: {np.shape(some)}" for name, some in queries.items())
        raise ValueError(f"search: got queries of shapes {got}; wanted as many for every field")
    return {name: matrix for name, (matrix, _) in found.items()}, found[next(iter(found))][1]


def _vector(schema: Schema, field: str | None) -> Vector:
    vectors = schema.vectors
    if field is None and len(vectors) == 1:
        return next(iter(vectors.values()))
    if field not in vectors:
        got = "no field=" if field is None else f"field={field!r}"
        known = ", ".join(vectors) or "none"
        raise SchemaError(f"search: got {got}; the vector fields are: {known}")
    return vectors[field]


def _query_matrix(vector: Vector, queries: Any) -> tuple[FloatMatrix, bool]:
    if is_plain_vector(vector, queries):
        return queries[None, :], True
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
