"""The values of stored rows in the fields that a schema gains, and whether they fit it.

:func:`backfilled` computes them; :func:`check_widening` and :func:`check_new_keys` refuse changes
that stored rows do not allow. All read the newest state and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import first_occurrence
from .alter import filled_column, lost_by_widening, widened_column
from .codec import ColumnEffect, Effects, VectorEffect
from .columns import tuples_of
from .derive import derive
from .errors import DimensionError, InvalidRowError, SchemaError, ViolationError
from .expression import Expression
from .extra import Extra
from .fields import Field, Vector
from .ingest import field_column, vector_column
from .read import StateSource, public_column, read_rows
from .schema import EXTRA, Schema

if TYPE_CHECKING:
    from .result import Rows
    from .state import State

__all__ = ["Backfill", "backfilled", "check_new_keys", "check_widening"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
Backfill: TypeAlias = "Expression | str | Callable[[Rows], Any] | Any"

# A function of the caller gets so many rows at a time, and so need not hold all of them.
_BATCH_ROWS = 65_536
_NONE = np.empty(0, dtype=np.int64)


def backfilled(
    state: State,
    schema: Schema,
    rids: RowIds,
    added: Sequence[Field | Vector],
    given: Mapping[str, Backfill],
) -> Effects:
    """Return the values of the fields that are added, where they are given.

    What a schema did not know and stored becomes the value of a field that is called so now.

    Parameters
    ----------
    rids : int64 array (n,)
        The rows that stay.

    Raises
    ------
    SchemaError
        Values for what is not added, or none for a field that may be neither null nor left out.
    ExpressionError
        An expression that does not fit the schema as it is.
    InvalidRowError, DimensionError
        A value that does not fit its field.
    """
    if not isinstance(given, Mapping):
        raise SchemaError(f"backfill: got {given!r}; wanted a dict by the names of fields")
    names = [item.name for item in added]
    for name in given:
        if name not in names:
            raise SchemaError(f"backfill: {name!r} is none of the fields that are added: {names}")
    columns: dict[int, ColumnEffect] = {}
    vectors: dict[int, VectorEffect] = {}
    known = set(schema.declared) - set(state.schema.declared)
    extra = Extra(state, rids) if state.schema.extra == "store" and known else None
    if extra is not None and (names_taken := extra.take(known)):
        if strangers := names_taken - set(names):
            message = f"rename: rows store something else as {', '.join(sorted(strangers))}"
            raise SchemaError(message)
        columns[schema.numbers[EXTRA]] = extra.rest()
    for item in added:
        if item.name not in given and extra is not None and extra.has(item.name):
            raw = extra.column(item)
        elif item.name not in given:
            _check_may_lack(item, len(rids))
            continue
        else:
            raw = _raw(state, item, rids, given[item.name])
        values, null = _checked(state, item, rids, raw)
        nulls = np.zeros(len(rids), dtype=np.bool_) if null is None else null
        number = schema.numbers[item.name]
        if isinstance(item, Vector):
            vectors[number] = VectorEffect(None, values, nulls)
        else:
            columns[number] = ColumnEffect(None, item.type, values, nulls)
    if not (columns or vectors) or not len(rids):
        return Effects(_NONE, _NONE, _NONE)
    # What a row is has not changed, and so its version has not.
    return Effects(_NONE, rids, state.versions.gather(rids)[0], columns, vectors)


def _check_may_lack(item: Field | Vector, rows: int) -> None:
    required = not item.nullable if isinstance(item, Vector) else item.required
    if required and rows:
        raise SchemaError(
            f"add: {rows} rows have no {item.name!r}: make it nullable, give it a default "
            f"or backfill={{{item.name!r}: ...}}"
        )


def _raw(state: State, item: Field | Vector, rids: RowIds, how: Backfill) -> list[Any]:
    if callable(how) and not isinstance(how, Expression):
        return _called(state, item, rids, how)
    if isinstance(how, (str, Expression)):
        return _derived(state, item, rids, how)
    return [how] * len(rids)


def _checked(
    state: State, item: Field | Vector, rids: RowIds, raw: list[Any]
) -> tuple[AnyArray, BoolArray | None]:
    try:
        if isinstance(item, Vector):
            return vector_column(item, raw)
        return field_column(item, raw)
    except DimensionError:
        raise
    except InvalidRowError as error:
        raise _with_keys(state, rids, item.name, error) from None


def _derived(state: State, item: Field | Vector, rids: RowIds, how: Expression | str) -> list[Any]:
    if isinstance(item, Vector):
        message = f"backfill: {how!s}: the vectors of {item.name!r} come from a function of rows"
        raise SchemaError(message)
    derived = derive(how, state.schema.types)
    kind = item.type
    if derived.type != kind and (derived.type, kind) != ("int64", "float64"):
        message = f"backfill: {how!s} is {derived.type}; field {item.name!r} is {kind}"
        raise SchemaError(message)
    values, null = derived.evaluate(StateSource(state, rids))
    values = np.broadcast_to(values, rids.shape)
    if null is None:
        null = np.zeros(len(rids), dtype=np.bool_)
    cells = public_column(kind, values.copy(), None).tolist() if kind == "json" else values.tolist()
    if kind == "timestamp":
        cells = list(values)
    return [None if gap else cell for cell, gap in zip(cells, null.tolist(), strict=True)]


def _called(
    state: State, item: Field | Vector, rids: RowIds, function: Callable[[Rows], Any]
) -> list[Any]:
    cells: list[Any] = []
    for start in range(0, len(rids), _BATCH_ROWS):
        piece = rids[start : start + _BATCH_ROWS]
        made = function(read_rows(state, piece, state.schema.names))
        if not isinstance(made, Iterable) or isinstance(made, (str, bytes, Mapping)):
            raise SchemaError(f"backfill: got {made!r} of {item.name!r}, wanted a column of values")
        column = list(made)
        if len(column) != len(piece):
            message = f"backfill: got {len(column)} values of {item.name!r} for {len(piece)} rows"
            raise SchemaError(message)
        cells += column
    # As Rows show a null: what a function passes on stays one.
    return [None if item.nullable and _is_nan(cell) else cell for cell in cells]


def _is_nan(cell: Any) -> bool:
    if isinstance(cell, (float, np.floating)):
        return bool(np.isnan(cell))
    is_float_array = isinstance(cell, np.ndarray) and cell.dtype.kind == "f" and cell.size > 0
    return is_float_array and bool(np.isnan(cell).all())


def _with_keys(state: State, rids: RowIds, name: str, error: InvalidRowError) -> InvalidRowError:
    at = rids[list(error.rows[:1])]
    key = state.columns[state.schema.primary.name].gather(at)[0].tolist()
    message = (
        f"backfill: {len(error.rows)} rows, such as that with key {key[0]!r}, field {name!r}: "
        f"got {error.got!r}, wanted {error.want}"
    )
    return InvalidRowError(message, rows=error.rows, field=name, got=error.got, want=error.want)


# --- What stored rows do not allow ------------------------------------------------------------


def check_widening(
    state: State, rids: RowIds, widen: Mapping[str, str], remembered: Mapping[Any, Any]
) -> None:
    """Refuse to make values of another type that are not equal to what they were.

    Parameters
    ----------
    rids : int64 array (n,)
        The rows that stay.
    remembered : mapping
        When rows were deleted, by primary key: values of the field that the schema orders by.

    Raises
    ------
    ViolationError
    """
    schema = state.schema
    for name, wider in widen.items():
        if name not in schema.fields:
            continue
        kind = schema.fields[name].type
        keys = state.columns[schema.primary.name].gather(rids)[0].tolist()
        values, null = state.columns[name].gather(rids)
        told = list(
            zip(values.tolist(), keys, lost_by_widening(values, null, kind, wider), strict=True)
        )
        if name == schema.order_by and remembered:
            gone = np.array(list(remembered.values()))
            lost = lost_by_widening(gone, None, kind, wider)
            told += zip(gone.tolist(), remembered, lost, strict=True)
        violations = [(value, [key]) for value, key, is_lost in told if is_lost]
        if violations:
            value, holders = violations[0]
            message = (
                f"widen: {len(violations)} values of {name!r} have no equal {wider}, such as "
                f"{value!r} of the row with key {holders[0]!r}; nothing was written"
            )
            raise ViolationError(message, violations=violations)


def check_new_keys(
    state: State, schema: Schema, rids: RowIds, names: Iterable[str], effects: Effects
) -> None:
    """Refuse a unique key of which two rows would have the same values.

    Parameters
    ----------
    schema : Schema
        What the schema is to be.
    rids : int64 array (n,)
        The rows that stay.
    names : iterable of str
        The keys that are new in it.

    Raises
    ------
    ViolationError
        With all of them.
    """
    for name in names:
        unique = schema.unique[name]
        keyed = np.ones(len(rids), dtype=np.bool_)
        columns = []
        for field in unique.fields:
            values, null = _future(state, schema, field, effects, rids)
            columns.append(values)
            if null is not None:
                keyed &= ~null
        at = np.flatnonzero(keyed)
        columns = [column[at] for column in columns]
        types = [schema.fields[field].type for field in unique.fields]
        first = first_occurrence(types, columns)
        repeated = np.unique(first[first != np.arange(len(first))])
        if len(repeated):
            primary = state.columns[state.schema.primary.name].gather(rids[at])[0].tolist()
            keys = tuples_of([column[repeated] for column in columns])
            violations = [
                (key, [primary[row] for row in np.flatnonzero(first == one).tolist()])
                for key, one in zip(keys, repeated.tolist(), strict=True)
            ]
            shown = "; ".join(f"{key!r} in {holders}" for key, holders in violations[:5])
            more = f"; and {len(violations) - 5} more" if len(violations) > 5 else ""
            message = f"{unique!r}: {len(violations)} keys come more than once: {shown}{more}"
            raise ViolationError(f"{message}; nothing was written", violations=violations)


def _future(
    state: State, schema: Schema, name: str, effects: Effects, rids: RowIds
) -> tuple[AnyArray, BoolArray | None]:
    """Return a field of the stored rows as it will be."""
    field, number = schema.fields[name], schema.numbers[name]
    for source, known in state.schema.numbers.items():
        if known == number:
            kind = state.schema.fields[source].type
            return widened_column(state.columns[source], kind, field.type).gather(rids)
    written = effects.columns.get(number)
    if written is not None:
        return written.values, written.null
    return filled_column(field, len(rids)).to_array()
