"""The best rows of each group: :func:`best_of_groups`.

Rows belong together that have the same value in a field; a row that has none is a group of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import first_occurrence
from .columns import Selection
from .fields import KEY_TYPES
from .ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Callable

    from .schema import Schema
    from .state import State

__all__ = ["all_groups", "best_of_groups", "check_group_field"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Int64Array: TypeAlias = npt.NDArray[np.int64]

# A search begins with so many candidates a wanted hit: rows of one group are often neighbours.
_WIDTH = 4
_LEAST_WIDTH = 64


class _Cut(NamedTuple):
    """What of one query's ranking its first groups are.

    Attributes
    ----------
    positions : ndarray, int64 (m,)
        Group after group in the order of their best, the best of each first.
    full : bool
        Whether nothing that may follow in the ranking would change that.
    """

    positions: Int64Array
    full: bool


def check_group_field(schema: Schema, name: Any) -> None:
    """Refuse a field whose values tell no groups apart.

    Raises
    ------
    ValueError
    """
    kind = schema.types.get(name) if isinstance(name, str) else None
    if kind not in KEY_TYPES:
        known = ", ".join(n for n, field in schema.fields.items() if field.type in KEY_TYPES)
        got = "which is no field" if kind is None else f"a {kind}, which tells no groups apart"
        raise ValueError(f"search: got group_by={name!r}, {got}; wanted one of: {known}")


def best_of_groups(
    state: State,
    name: str,
    rank: Callable[[Int64Array, int], Ranking],
    queries: int,
    *,
    groups: int,
    size: int,
    most: int,
    bounded: bool,
) -> Ranking:
    """Return the first groups of every query, and the best ``size`` rows of each.

    Candidates are doubled until so many groups are full, or all rows were seen.

    Parameters
    ----------
    rank : callable
        Of some queries (their numbers), the ranking of so many candidates.
    most : int
        How many rows there are to be seen.
    bounded : bool
        Whether a query that has fewer rows than so many has no more.
    """
    parts: dict[int, Ranking] = {}
    asked = np.arange(queries)
    width = min(max(_WIDTH * groups * size, _LEAST_WIDTH), max(most, 1))
    while len(asked):
        ranking = rank(asked, width)
        cuts = [
            _cut(state, name, ranking.rids[start:stop], groups, size)
            for start, stop in zip(ranking.offsets[:-1], ranking.offsets[1:], strict=True)
        ]
        done = np.array([cut.full or width >= most for cut in cuts], dtype=np.bool_)
        if bounded:
            done |= np.diff(ranking.offsets) < width
        cut_down = ranking.by_query([cut.positions for cut in cuts])
        for at in np.flatnonzero(done).tolist():
            start, stop = cut_down.offsets[at : at + 2].tolist()
            parts[int(asked[at])] = cut_down.chosen(
                np.arange(start, stop), np.array([0, stop - start])
            )
        asked = asked[~done]
        width = min(2 * width, most)
    if not parts:  # no queries
        return rank(asked, width)
    return Ranking.joined([parts[query] for query in range(queries)])


def all_groups(state: State, name: str, ranking: Ranking, *, size: int) -> Ranking:
    """Return all groups of a ranking, and the best ``size`` rows of each."""
    bounds = zip(ranking.offsets[:-1], ranking.offsets[1:], strict=True)
    cuts = [_cut(state, name, ranking.rids[i:j], int(j - i), size) for i, j in bounds]
    return ranking.by_query([cut.positions for cut in cuts])


def _cut(state: State, name: str, rids: Int64Array, groups: int, size: int) -> _Cut:
    if len(rids) == 0:
        return _Cut(np.zeros(0, dtype=np.int64), full=False)
    values, null = state.columns[name].take(Selection(rids))
    kinds = [state.schema.types[name]]
    # A group is called by where its best is, which is also its place among the groups.
    best = np.arange(len(rids))
    if null is None:
        best = first_occurrence(kinds, [values]).astype(np.int64)
    else:
        keyed = np.flatnonzero(~null)
        best[keyed] = keyed[first_occurrence(kinds, [values[keyed]])]
    order = np.argsort(best, kind="stable")
    starts = np.flatnonzero(np.diff(best[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    group = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    enough = counts[:groups] >= size
    if null is not None:
        enough |= null[order[starts[:groups]]]
    kept = order[(group < groups) & (place < size)]
    return _Cut(kept, full=len(starts) >= groups and bool(enough.all()))
