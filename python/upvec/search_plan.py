"""How a search keeps to a condition: the rows that it may find, and what it does with them.

The rows that fulfil a condition are handed to the core as bits, from which it makes a filter: by
slot of the graph, for one version of the index. That is remembered with the condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import Filter, Index

if TYPE_CHECKING:
    from .condition import Selected
    from .state import State

__all__ = ["Allowed", "SearchPlan", "allowed_rows", "plan_of"]

Allowed: TypeAlias = "Filter | npt.NDArray[np.int64] | None"

_MEANING: Final = {
    "graph": "walk the graph",
    "exact": "measure every row that may be found, by its vector",
    "range": "walk the graph to the radius, or measure every row that may be found",
    "scan": "measure every row that may be found, by its code; then the nearest by their vectors",
    "walk_allowed": "walk the graph from one row that may be found to the next",
    "walk_all": "walk the graph, and keep the rows that may be found",
}


@dataclass(frozen=True)
class SearchPlan:
    """What a search did, and why; ``search(..., explain=True).plan``.

    Attributes
    ----------
    field : str
        The vector field.
    way : str
        ``"graph"``: no condition. ``"exact"``, ``"range"``: as the call asked for. Else the
        cheapest of ``"scan"``, ``"walk_allowed"`` and ``"walk_all"``.
    rows, allowed : int
        How many rows there are, and how many the condition lets through.
    costs : dict of str to float
        What each way would take for a query, as if so many rows were measured one after the
        other, infinity if it would miss some of them; empty where nothing was to choose.
    conditions : tuple of str
        Each part of the condition: how it was evaluated, and how many rows it lets through.
    """

    field: str
    way: str
    rows: int
    allowed: int
    costs: dict[str, float]
    conditions: tuple[str, ...]

    @property
    def selectivity(self) -> float:
        """The share of the rows that the condition lets through, from 0 to 1."""
        return self.allowed / self.rows if self.rows else 1.0

    def __str__(self) -> str:
        lines = [f"{self.field}: {self.way} ({_MEANING[self.way]})"]
        lines.append(
            f"  may be found: {self.allowed:,} of {self.rows:,} rows, {100 * self.selectivity:.3g}%"
        )
        lines += [f"  where {condition}" for condition in self.conditions]
        if self.costs:
            told = (f"{way} {cost:,.0f}" for way, cost in sorted(self.costs.items()))
            lines.append(f"  cost a query, in rows measured: {', '.join(told)}")
        return "\n".join(lines)


def allowed_rows(state: State, name: str, selected: Selected | None) -> Allowed:
    """Return what to hand to the index of a vector field; None: all rows may be found."""
    if selected is None:
        return None
    index: Any = state.indexes[name]
    if not isinstance(index, Index):  # that of a transaction
        return selected.rids()
    snapshot = state.snapshots[name]
    if selected.key is None:
        return index.filter_of_bits(selected.bits.words, snapshot=snapshot)
    key = ("filter", state.schema.numbers[name], selected.key)
    known = state.selector.recall(key)
    if known is not None:
        of_index, at, made = known
        if of_index is index and at == (selected.versions, snapshot.seq):
            found: Filter = made
            return found
    made = index.filter_of_bits(selected.bits.words, snapshot=snapshot)
    # A bit a slot, and, from its first use on, the slots.
    size_bytes = selected.bits.words.nbytes + 4 * len(made)
    state.selector.remember(key, (index, (selected.versions, snapshot.seq), made), size_bytes)
    return made


def plan_of(
    state: State,
    name: str,
    selected: Selected | None,
    allowed: Allowed,
    *,
    k: int | None,
    ef: int,
    exact: bool,
) -> SearchPlan:
    """Return what a search does with these rows."""
    most = state.count if selected is None else selected.count
    costs: dict[str, float] = {}
    way = "exact" if exact else "range" if k is None else "graph"
    if way == "graph" and isinstance(allowed, Filter):
        told = dict(state.indexes[name].filter_costs(allowed, max(1, min(k or 1, most)), ef))
        way = told.pop("best")
        costs = told
    conditions = () if selected is None else tuple(selected.explanation)
    return SearchPlan(name, way, state.count, most, costs, conditions)
