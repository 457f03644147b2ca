"""Columns of a state → what readers get: rows by id, and the columns of conditions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import Selection, objects
from .result import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .schema import Schema
    from .state import State

__all__ = [
    "StateSource",
    "chosen_fields",
    "public_column",
    "read_columns",
    "read_rows",
    "with_nulls",
]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
PublicColumns: TypeAlias = "tuple[dict[str, AnyArray], dict[str, BoolArray | None]]"


class StateSource:
    """The columns of some rows of a state, for a predicate."""

    def __init__(self, state: State, rids: RowIds) -> None:
        self._state = state
        self._rids = rids
        self._selection = Selection(rids)

    def column(self, name: str) -> tuple[AnyArray, BoolArray | None]:
        """Return the values and nulls of a field; of a vector, only the nulls mean anything."""
        if name in self._state.indexes:
            present = self._state.indexes[name].keys(snapshot=self._state.snapshots[name])
            return self._rids, ~np.isin(self._rids, present)
        return self._state.columns[name].take(self._selection)


def chosen_fields(
    schema: Schema, fields: Iterable[str] | None, *, vectors: bool
) -> tuple[str, ...]:
    """Return the fields to read; without a choice, all, with the vectors or without.

    Raises
    ------
    ValueError
        An unknown field.
    """
    if fields is None:
        return schema.names if vectors else tuple(schema.fields)
    if isinstance(fields, str):
        fields = [fields]
    chosen = tuple(fields)
    for name in chosen:
        if name not in schema.types:
            known = ", ".join(schema.names)
            raise ValueError(f"fields={list(chosen)!r}: unknown field {name!r}; known: {known}")
    return chosen


def read_rows(
    state: State, rids: RowIds, fields: Iterable[str], *, ascending: bool = False
) -> Rows:
    """Return rows by id; where the id is -1, a row that was not found.

    ``ascending`` says that the ids are known to ascend, and to be rows.
    """
    found = np.ones(len(rids), dtype=np.bool_) if ascending else rids >= 0
    if ascending or np.count_nonzero(found) == len(found):
        selection = Selection(rids, ascending=ascending)
        columns, nulls = read_columns(state, rids, fields, selection)
        version = state.versions.take(selection)[0]
        return Rows(columns, nulls, found=found, version=version)
    columns, nulls = read_columns(state, rids[found], fields)
    version = np.zeros(len(rids), dtype=np.int64)
    version[found] = state.versions.gather(rids[found])[0]
    for name, values in columns.items():
        null = np.ones(len(rids), dtype=np.bool_)
        inner = nulls[name]
        null[found] = False if inner is None else inner
        spread = np.zeros((len(rids), *values.shape[1:]), dtype=values.dtype)
        spread[found] = values
        columns[name], nulls[name] = with_nulls(spread, null), null
    return Rows(columns, nulls, found=found, version=version)


def read_columns(
    state: State, rids: RowIds, fields: Iterable[str], selection: Selection | None = None
) -> PublicColumns:
    """Return the columns of existing rows as users see them, and their nulls."""
    selection = Selection(rids) if selection is None else selection
    columns: dict[str, AnyArray] = {}
    nulls: dict[str, BoolArray | None] = {}
    for name in fields:
        if name in state.indexes:
            values, present = state.indexes[name].get(rids, snapshot=state.snapshots[name])
            null = None if np.count_nonzero(present) == len(present) else ~present
            columns[name] = values if null is None else with_nulls(values, null)
        else:
            values, null = state.columns[name].take(selection)
            columns[name] = public_column(state.schema.fields[name].type, values, null)
        nulls[name] = null
    return columns, nulls


def public_column(kind: str, values: AnyArray, null: BoolArray | None) -> AnyArray:
    """Return a column as users see it; what they get, they may change."""
    if kind == "json":
        listed = [None if text is None else json.loads(text) for text in values.tolist()]
        return objects(listed)
    if kind.startswith("list<"):
        listed = [None if cell is None else list(cell) for cell in values.tolist()]
        return objects(listed)
    return values if null is None else with_nulls(values, null)


def with_nulls(values: AnyArray, null: BoolArray) -> AnyArray:
    """Return the values (changed) with what stands for null in a column of their dtype."""
    kind = values.dtype.kind
    if kind in "ib":
        values = values.astype(object)
    values[null] = np.nan if kind == "f" else np.datetime64("NaT", "us") if kind == "M" else None
    return values
