"""Anything that holds rows → one columnar batch, wholly validated.

Accepted: a list or an iterator of dicts (which need not have the same keys), dataclasses or
pydantic models, or one of these; a dict of columns, a structured numpy array, and a pandas
DataFrame.

Three things are kept apart for every field of every row: *absent* (the row does not mention
the field), *null*, and a value. In a DataFrame, NaN, NA, None and NaT are null, but NaN in a
column of floats stays NaN if the field is float64.

Types are not guessed at: a bool is no int64, a text is no number, and a float is no int64
(except in a DataFrame, where integers with a gap become floats). An int is a float64. Numpy's
scalars are what they stand for. A timestamp is a datetime (in UTC if it names no zone), a date
or a datetime64; what is finer than a microsecond is cut off.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import objects
from .errors import DimensionError, InvalidRowError, SchemaError
from .fields import DTYPES, OBJECT, Field, Vector
from .json_text import encode_json
from .models import as_mapping
from .schema import EXTRA, Schema

__all__ = [
    "Batch",
    "Cells",
    "checked_vectors",
    "field_column",
    "infer_fields",
    "ingest",
    "vector_column",
]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = "tuple[AnyArray, BoolArray | None]"

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  (naive on purpose: columns are in UTC)

# The core leaves a vector alone whose squared norm is this close to 1, and so do we: a stored
# vector that is read and written back keeps its bytes.
_UNIT_TOLERANCE = 1e-6
# The core refuses squared lengths above 1e36, whose distances float32 could not hold. We stop a
# little below, as it sums in another order: what it refuses must not be in the log.
_MAX_SQUARED_LENGTH = 0.999e36


@dataclass(frozen=True, eq=False)
class Cells:
    """One field of a batch.

    Attributes
    ----------
    values : array (n,), or float32 (n, dim) for a vector
        Unspecified where null or absent.
    null : bool array (n,) or None
        Where the row has a null; None: nowhere.
    present : bool array (n,) or None
        Where the row mentions the field; None: everywhere.
    """

    values: AnyArray
    null: BoolArray | None = None
    present: BoolArray | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as columns; ``cells`` has the fields that at least one row mentions.

    ``invalid`` says of bad rows, whose cells are unspecified, what is wrong with them.
    """

    rows: int
    cells: dict[str, Cells]
    invalid: Mapping[int, str] | None = None


@dataclass(frozen=True)
class _Table:
    """Columns as they came: lists, arrays or pandas Series, by name."""

    rows: int
    columns: dict[str, Any]

    def take(self, keep: BoolArray) -> _Table:
        """Return the rows where ``keep`` (rows,) is True."""
        at = np.flatnonzero(keep)
        columns = {name: _taken(raw, keep, at) for name, raw in self.columns.items()}
        said = {
            name: raw
            for name, raw in columns.items()
            if not isinstance(raw, _Sparse) or raw.present.any()
        }
        return _Table(len(at), said)


def _taken(raw: Any, keep: BoolArray, at: npt.NDArray[np.int64]) -> Any:
    if isinstance(raw, _Sparse):
        said = keep[raw.present]
        values = [value for value, stays in zip(raw.values, said, strict=True) if stays]
        return _Sparse(values, raw.present[keep])
    if isinstance(raw, np.ndarray):
        return raw[keep]
    return raw.iloc[at] if _is_pandas(raw) else [raw[position] for position in at.tolist()]


class _Wrong(Exception):  # noqa: N818  (never leaves this module)
    """Offending positions in a column, before they are known as rows of a batch."""

    def __init__(self, positions: Sequence[int], got: Any, wanted: str) -> None:
        super().__init__()
        self.positions = positions
        self.got = got
        self.wanted = wanted


def ingest(schema: Schema, rows: Any, *, skip: bool = False) -> Batch:
    """Read and validate a whole batch.

    Parameters
    ----------
    schema : Schema
    rows : list or iterator of dict, dataclass or model; dict, structured array or DataFrame
        Values are copied.
    skip : bool
        Name bad rows in the batch, instead of raising. What is no rows at all raises anyway.

    Raises
    ------
    InvalidRowError
        A value that does not fit, a null where none may be, a failed check, an unknown field,
        columns of different lengths; ``.rows`` are positions in the batch.
    DimensionError
        Vectors of another dimension.

    Examples
    --------
    >>> schema = Schema(Field("id", "int64", primary=True), Field("age", "int64", nullable=True))
    >>> batch = ingest(schema, [{"id": 1, "age": None}, {"id": 2}])
    >>> batch.cells["age"].null, batch.cells["age"].present
    (array([ True, False]), array([ True, False]))
    """
    table = _table(schema, rows)
    if not skip:
        return _validated(schema, table)
    try:
        return _validated(schema, table)
    except (InvalidRowError, DimensionError) as error:
        return _skipping(schema, table, error)


def _validated(schema: Schema, table: _Table) -> Batch:
    unknown = [name for name in table.columns if name not in schema.types]
    if unknown and schema.extra == "reject":
        raise _unknown_field(schema, table, unknown[0])
    if schema.extra == "store" and (unknown or EXTRA in table.columns):
        table = _with_extra(schema, table, unknown)
    cells: dict[str, Cells] = {}
    for name in schema.names:
        if name in table.columns:
            item = schema.vectors.get(name) or schema.fields[name]
            cell = _cells(item, table.columns[name])
            if cell is not None:
                cells[name] = cell
    return Batch(table.rows, cells)


def _with_extra(schema: Schema, table: _Table, unknown: Sequence[Any]) -> _Table:
    """Return a table in which one column of objects has all that the schema does not know."""
    named = next((name for name in unknown if not isinstance(name, str)), None)
    if named is not None:
        message = f"field {named!r}: got a {type(named).__name__} as the name of a field"
        raise InvalidRowError(message, rows=range(table.rows), field=str(named), got=named)
    columns = {name: raw for name, raw in table.columns.items() if name not in unknown}
    present = np.zeros(table.rows, dtype=np.bool_)
    cells: list[Any] = [{} for _ in range(table.rows)]
    for row, value in _said(columns.pop(EXTRA, [])):
        present[row] = True
        if value is not None and not isinstance(value, Mapping):
            raise _invalid(EXTRA, [row], value, "a dict")
        for name in value or {}:
            if name in schema.types:
                raise _invalid(EXTRA, [row], value, f"no {name!r}, which is a field of the schema")
        if value is None and not unknown:
            cells[row] = None
            continue
        cells[row] = dict(value or {})
    for name in unknown:
        for row, value in _said(table.columns[name]):
            present[row] = True
            cells[row][name] = value
    said = [cell for cell, is_said in zip(cells, present.tolist(), strict=True) if is_said]
    return _Table(table.rows, {**columns, EXTRA: _Sparse(said, present)})


def _said(raw: Any) -> Iterable[tuple[int, Any]]:
    """Yield the rows of a batch that mention a field, and their values as JSON has them."""
    rows: Iterable[int] = range(len(raw)) if not isinstance(raw, _Sparse) else ()
    if isinstance(raw, _Sparse):
        rows, raw = np.flatnonzero(raw.present).tolist(), raw.values
    elif _is_pandas(raw):
        raw = _series(raw, "")
    # Times stay what they are, to be refused: those in nanoseconds would become integers.
    values = raw.tolist() if isinstance(raw, np.ndarray) and raw.dtype.kind not in "mM" else raw
    for row, value in zip(rows, values, strict=True):
        is_plain = isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind not in "mM"
        yield row, value.tolist() if is_plain else value


def _skipping(schema: Schema, table: _Table, error: InvalidRowError | DimensionError) -> Batch:
    """Validate the rows that are good; each round finds the bad ones of one field."""
    bad: dict[int, str] = {}
    left = np.arange(table.rows)
    while True:
        if not len(error.rows):
            raise error
        wrong = list(error.rows)
        bad.update(dict.fromkeys(left[wrong].tolist(), str(error)))
        keep = np.ones(len(left), dtype=np.bool_)
        keep[wrong] = False
        left, table = left[keep], table.take(keep)
        try:
            good = _validated(schema, table)
        except (InvalidRowError, DimensionError) as another:
            error = another
        else:
            break
    rows = len(left) + len(bad)
    cells = {name: _spread(cell, left, rows) for name, cell in good.cells.items()}
    return Batch(rows, cells, {row: _of_one_row(row, bad[row]) for row in sorted(bad)})


def _of_one_row(row: int, message: str) -> str:
    """Return what is wrong with the first of some rows as what is wrong with this one."""
    _, _, rest = message.partition(", field ")
    return f"row {row}, field {rest}" if rest else f"row {row}: {message.partition(': ')[2]}"


def _spread(cell: Cells, rows: npt.NDArray[np.int64], count: int) -> Cells:
    """Put the cells of some rows in the places of these; the other places hold nothing of use."""
    values = np.zeros((count, *cell.values.shape[1:]), dtype=cell.values.dtype)
    values[rows] = cell.values
    null = present = None
    if cell.null is not None:
        null = np.zeros(count, dtype=np.bool_)
        null[rows] = cell.null
    if cell.present is not None:
        present = np.zeros(count, dtype=np.bool_)
        present[rows] = cell.present
    return Cells(values, null, present)


def _cells(item: Field | Vector, raw: Any) -> Cells | None:
    """Validate one column of a batch; None if no row mentions the field."""
    present: BoolArray | None = None
    if isinstance(raw, _Sparse):
        present = raw.present
        if not present.any():
            return None
        raw = raw.values
    try:
        convert: Callable[..., Column] = vector_column if isinstance(item, Vector) else field_column
        values, null = convert(item, raw)
    except (InvalidRowError, DimensionError) as error:
        if present is None:
            raise
        rows = np.flatnonzero(present)[list(error.rows)].tolist()
        if isinstance(error, DimensionError):
            raise _dimension(item.name, rows, error.got, error.want) from None
        raise _invalid(item.name, rows, error.got, error.want) from None
    if present is None:
        return Cells(values, null)
    spread = np.full((len(present), *values.shape[1:]), None if values.dtype == OBJECT else 0)
    spread = spread.astype(values.dtype)
    spread[present] = values
    if null is not None:
        wide = np.zeros(len(present), dtype=np.bool_)
        wide[present] = null
        null = wide
    return Cells(spread, null, present)


@dataclass(frozen=True)
class _Sparse:
    """The values of the rows that mention a field."""

    values: list[Any]
    present: BoolArray


# --- What holds rows ------------------------------------------------------------------------


def _table(schema: Schema | None, rows: Any) -> _Table:
    if isinstance(rows, Mapping):
        return _table_of_mapping(schema, rows)
    if isinstance(rows, np.ndarray) and rows.dtype.names is not None:
        flat = rows.reshape(-1)
        return _Table(len(flat), {name: flat[name] for name in rows.dtype.names})
    if isinstance(rows, (list, tuple, Iterator)):
        return _table_of_dicts(list(rows))
    if _is_pandas(rows) and hasattr(rows, "columns"):
        names = list(rows.columns)
        if len(set(names)) != len(names):
            raise InvalidRowError(f"a DataFrame names a column twice: {names}")
        return _Table(len(rows), {name: rows[name] for name in names})
    single = as_mapping(rows)
    if single is not None:
        return _table_of_dicts([single])
    wanted = "a list of dicts, a dict of columns, a structured array or a DataFrame"
    raise InvalidRowError(f"rows: got {type(rows).__name__}, wanted {wanted}", got=rows)


def _table_of_dicts(rows: Sequence[Any]) -> _Table:
    if set(map(type, rows)) != {dict}:
        rows = [_mapping(row, position) for position, row in enumerate(rows)]
    columns: dict[str, Any] = {}
    # A dict, not a set: the order of names decides which of several errors is reported.
    for name in dict.fromkeys(chain.from_iterable(rows)):
        try:
            columns[name] = [row[name] for row in rows]
        except KeyError:  # noqa: PERF203  (a try per column, not per row)
            present = np.fromiter((name in row for row in rows), np.bool_, len(rows))
            columns[name] = _Sparse([row[name] for row in rows if name in row], present)
    return _Table(len(rows), columns)


def _mapping(row: Any, position: int) -> Mapping[str, Any]:
    mapping = as_mapping(row)
    if mapping is None:
        message = f"row {position}: got {type(row).__name__}, wanted a dict"
        raise InvalidRowError(message, rows=[position], got=row, want="dict")
    return mapping


# Of these a single value may look like a column.
_NESTED = frozenset({"json", "list<string>", "list<int64>", "list<float64>", "vector"})


def _table_of_mapping(schema: Schema | None, rows: Mapping[Any, Any]) -> _Table:
    plain = {
        name: value for name, value in rows.items() if schema is None or _is_plain(schema, name)
    }
    scalars = [name for name, value in plain.items() if not _is_column(value)]
    if scalars and len(scalars) == len(plain):
        return _table_of_dicts([rows])
    columns = dict(rows)
    lengths = {}
    for name, value in columns.items():
        if not _is_column(value):
            message = f"field {name!r}: got {value!r} beside columns, wanted a column"
            raise InvalidRowError(message, field=str(name), got=value, want="a column")
        lengths[name] = len(value)
    if len(set(lengths.values())) > 1:
        raise InvalidRowError(f"columns have different lengths: {lengths}", got=lengths)
    return _Table(next(iter(lengths.values()), 0), columns)


def _is_plain(schema: Schema, name: str) -> bool:
    """Return whether a list is no value of the field."""
    if schema.extra == "store" and name not in schema.types:
        return False
    return schema.types.get(name) not in _NESTED


def _is_column(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) or _is_pandas(value)) or (
        isinstance(value, np.ndarray) and value.ndim > 0
    )


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "iloc")


# --- Plain fields ---------------------------------------------------------------------------


def field_column(field: Field, raw: Any) -> tuple[AnyArray, BoolArray | None]:
    """Convert one column to the field's type, and check it.

    Parameters
    ----------
    field : Field
    raw : list, array or Series (n,)

    Returns
    -------
    values : array (n,)
        Of the field's dtype: texts, bytes, JSON texts and lists in an object array.
    null : bool array (n,) or None

    Raises
    ------
    InvalidRowError
        With the offending positions.
    """
    try:
        if _is_pandas(raw):
            raw = _series(raw, field.type)
        values, null = _convert(field.type, raw)
    except _Wrong as wrong:
        wanted = wrong.wanted + (" or null" if field.nullable else "")
        raise _invalid(field.name, wrong.positions, wrong.got, wanted) from None
    if null is not None and not field.nullable:
        raise _invalid(field.name, np.flatnonzero(null).tolist(), None, f"a {field.type}, not null")
    if field.check is not None:
        bad = np.flatnonzero(field.violations(values, null)).tolist()
        if bad:
            got = values[bad[0] : bad[0] + 1].tolist()[0]
            raise _invalid(field.name, bad, got, f"check {field.check}")
    return values, null


def _convert(kind: str, raw: Any) -> Column:
    """Return the values and nulls of a column; no null mask if there is no null."""
    masked = np.ma.getmaskarray(raw) if isinstance(raw, np.ma.MaskedArray) else None
    if masked is not None:
        raw = raw.data
        if masked.any():
            raw = [None if hidden else v for v, hidden in zip(raw, masked, strict=True)]
    if isinstance(raw, np.ndarray):
        if raw.ndim != 1 and not kind.startswith("list<"):
            raise _Wrong(range(len(raw)), f"an array of shape {raw.shape}", kind)
        if raw.dtype.kind in _ARRAYS.get(kind, ""):
            return _from_array(kind, raw)
        raw = raw.tolist() if raw.dtype.kind in "OUT" else list(raw)
    elif not isinstance(raw, list):
        raw = list(raw)
    types = set(map(type, raw))
    null: BoolArray | None = None
    if type(None) in types:
        null = np.fromiter((value is None for value in raw), np.bool_, len(raw))
        types.discard(type(None))
        fill = _FILL[kind]
        raw = [fill if value is None else value for value in raw]
    values: AnyArray = (
        _from_lists(kind, raw, types) if kind.startswith("list<") else _FROM_LIST[kind](raw, types)
    )
    if null is not None and values.dtype == OBJECT:
        values[null] = None
    if kind == "timestamp":
        missing = np.isnat(values)
        if missing.any():
            null = missing if null is None else null | missing
    return values, null


# The kinds of numpy dtype that a column may have, beside objects.
_ARRAYS = {"int64": "iu", "float64": "fiu", "bool": "b", "timestamp": "M"}
_FILL: dict[str, Any] = {
    "string": "",
    "int64": 0,
    "float64": 0.0,
    "bool": False,
    "timestamp": _EPOCH,
    "json": None,
    "bytes": b"",
    "list<string>": (),
    "list<int64>": (),
    "list<float64>": (),
}


def _as_microseconds(raw: AnyArray) -> AnyArray:
    try:
        return raw.astype("datetime64[us]")
    except OverflowError:  # numpy 2.5; earlier ones wrap around without a word
        at = next(i for i in range(len(raw)) if not _fits_microseconds(raw[i : i + 1]))
        raise _Wrong([at], raw[at], "timestamp (64 bits of microseconds)") from None


def _fits_microseconds(value: AnyArray) -> bool:
    try:
        value.astype("datetime64[us]")
    except OverflowError:
        return False
    return True


def _from_array(kind: str, raw: AnyArray) -> Column:
    if kind == "timestamp":
        values = _as_microseconds(raw)
        missing = np.isnat(values)
        lost = missing != np.isnat(raw)
        if np.promote_types(raw.dtype, values.dtype) == values.dtype:  # of a coarser unit
            lost |= ~missing & (values.astype(raw.dtype) != raw)  # overflow wraps around
        if lost.any():
            at = np.flatnonzero(lost)
            raise _Wrong(at.tolist(), raw[at[0]], "timestamp (64 bits of microseconds)")
        return values, (missing if missing.any() else None)
    if kind == "int64" and raw.dtype.kind == "u" and raw.dtype.itemsize == 8:
        at = np.flatnonzero(raw > np.uint64(_INT64_MAX))
        if len(at):
            raise _Wrong(at.tolist(), int(raw[at[0]]), "int64 (below 2**63)")
    return raw.astype(DTYPES[kind]), None


def _require(raw: list[Any], types: set[type], allowed: Callable[[type], bool], kind: str) -> None:
    """Refuse a column that has a value of another type."""
    wrong = {t for t in types if not allowed(t)}
    if wrong:
        at = [position for position, value in enumerate(raw) if type(value) in wrong]
        raise _Wrong(at, raw[at[0]], kind)


def _integers(raw: list[Any], types: set[type]) -> AnyArray:
    if types != {int}:
        _require(raw, types, _is_integer, "int64")
        raw = [int(value) for value in raw]
    try:
        return np.array(raw, dtype=np.int64)
    except OverflowError:
        at = [p for p, value in enumerate(raw) if not _INT64_MIN <= value <= _INT64_MAX]
        raise _Wrong(at, raw[at[0]], "int64 (-2**63 to 2**63 - 1)") from None


def _is_integer(kind: type) -> bool:
    return issubclass(kind, (int, np.integer)) and not issubclass(kind, (bool, np.timedelta64))


def _floats(raw: list[Any], types: set[type]) -> AnyArray:
    if types != {float}:
        _require(
            raw, types, lambda t: _is_integer(t) or issubclass(t, (float, np.floating)), "float64"
        )
    try:
        return np.array(raw, dtype=np.float64)
    except OverflowError:
        # Rounding makes infinity of some numbers below 2**1024 already.
        limit = int(np.finfo(np.float64).max)
        at = [p for p, v in enumerate(raw) if isinstance(v, int) and abs(v) > limit]
        raise _Wrong(at, raw[at[0]], "float64") from None


def _bools(raw: list[Any], types: set[type]) -> AnyArray:
    _require(raw, types, lambda t: issubclass(t, (bool, np.bool_)), "bool")
    return np.array(raw, dtype=np.bool_)


def _texts(raw: list[Any], types: set[type]) -> AnyArray:
    if types != {str}:
        _require(raw, types, lambda t: issubclass(t, str), "string")
        raw = [str.__str__(value) for value in raw]
    try:
        "".join(raw).encode()
    except UnicodeEncodeError:
        at = [position for position, value in enumerate(raw) if not _is_utf8(value)]
        raise _Wrong(at, raw[at[0]], "string (UTF-8 has no lone surrogates)") from None
    return objects(raw)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _byte_strings(raw: list[Any], types: set[type]) -> AnyArray:
    if types != {bytes}:
        _require(raw, types, lambda t: issubclass(t, (bytes, bytearray, memoryview)), "bytes")
        raw = [bytes(value) for value in raw]
    return objects(raw)


def _timestamps(raw: list[Any], types: set[type]) -> AnyArray:
    _require(raw, types, lambda t: issubclass(t, (dt.date, np.datetime64)), "timestamp")
    if any(issubclass(t, dt.datetime) for t in types):
        raw = [_without_zone(value, at) for at, value in enumerate(raw)]
    if any(issubclass(t, np.datetime64) for t in types):
        raw = [_within_range(value, at) for at, value in enumerate(raw)]
    if len(types) > 1:
        # numpy takes the type of a mixed list from its values, and refuses some mixtures.
        raw = [np.datetime64(value, "us") for value in raw]
    return np.array(raw, dtype="datetime64[us]")


def _without_zone(value: Any, at: int) -> Any:
    if isinstance(value, dt.datetime) and value != value:  # noqa: PLR0124  (pandas' NaT)
        return np.datetime64("NaT", "us")
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        return value
    try:
        return value.astimezone(dt.timezone.utc).replace(tzinfo=None)
    except OverflowError:
        raise _Wrong([at], value, "timestamp (in the years 1 to 9999 of UTC)") from None


def _within_range(value: Any, at: int) -> Any:
    if isinstance(value, np.datetime64):
        try:
            return _from_array("timestamp", value.reshape(1))[0][0]
        except _Wrong as wrong:
            raise _Wrong([at], value, wrong.wanted) from None
    return value


def _json_texts(raw: list[Any], types: set[type]) -> AnyArray:  # noqa: ARG001
    texts: list[str] = []
    try:
        texts.extend(map(encode_json, raw))
    except (TypeError, ValueError, RecursionError) as error:
        at = len(texts)
        raise _Wrong([at], raw[at], f"json ({error})") from None
    return _texts(texts, {str})


_FROM_LIST: dict[str, Callable[[list[Any], set[type]], AnyArray]] = {
    "string": _texts,
    "int64": _integers,
    "float64": _floats,
    "bool": _bools,
    "timestamp": _timestamps,
    "json": _json_texts,
    "bytes": _byte_strings,
}


def _from_lists(kind: str, raw: list[Any], types: set[type]) -> AnyArray:
    """Convert the elements of all lists as one column, then cut it up again."""
    element = kind[len("list<") : -1]
    _require(raw, types, lambda t: issubclass(t, (list, tuple, np.ndarray)), kind)
    for position, value in enumerate(raw):
        if isinstance(value, np.ndarray) and value.ndim != 1:
            raise _Wrong([position], f"an array of shape {value.shape}", kind)
    flat = list(chain.from_iterable(raw))
    ends = np.cumsum([0, *map(len, raw)]).tolist()
    try:
        values = _FROM_LIST[element](flat, set(map(type, flat))).tolist()
    except _Wrong as wrong:
        at = np.searchsorted(ends, list(wrong.positions), side="right") - 1
        raise _Wrong(sorted(set(at.tolist())), wrong.got, kind) from None
    return objects([values[a:b] for a, b in pairwise(ends)])


def _series(series: Any, kind: str) -> Any:
    """Return the values of a pandas Series as an array, or as a list with None for its gaps."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iubM":
        return series.to_numpy()
    if getattr(dtype, "tz", None) is not None:
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    missing = series.isna().to_numpy()
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        values = series.to_numpy()
        if kind == "float64":
            return values
        if kind == "int64":
            # What is no integer is left as it is, to be refused by name.
            listed = [int(v) if v.is_integer() else v for v in values[~missing].tolist()]
            whole = iter(listed)
            return [None if gap else next(whole) for gap in missing.tolist()]
    return [None if gap else value for value, gap in zip(series.tolist(), missing, strict=True)]


# --- Vectors --------------------------------------------------------------------------------


def vector_column(vector: Vector, raw: Any) -> tuple[npt.NDArray[np.float32], BoolArray | None]:
    """Convert vectors to float32, finite and, under cosine, of unit length.

    Parameters
    ----------
    vector : Vector
    raw : array (n, dim), or list or Series of n vectors or None

    Returns
    -------
    values : float32 array (n, dim)
        C-contiguous, and a copy; zeros where null.
    null : bool array (n,) or None

    Raises
    ------
    DimensionError, InvalidRowError
        With the offending positions.
    """
    null: BoolArray | None = None
    if isinstance(raw, np.ma.MaskedArray):
        raw = _unmasked(vector, raw)
    if _is_pandas(raw):
        missing = raw.isna().to_numpy()
        raw = [None if gap else value for value, gap in zip(raw.tolist(), missing, strict=True)]
    if not isinstance(raw, np.ndarray) or raw.dtype == OBJECT:
        raw = list(raw)
        null = np.fromiter((value is None for value in raw), np.bool_, len(raw))
        if null.any():
            if not vector.nullable:
                want = "a vector, not null"
                raise _invalid(vector.name, np.flatnonzero(null).tolist(), None, want)
            raw = [value for value in raw if value is not None]
        else:
            null = None
    rows = np.arange(len(raw)) if null is None else np.flatnonzero(~null)
    values = checked_vectors(vector, _matrix(vector, raw, rows), rows)
    if null is None:
        return values, None
    spread = np.zeros((len(null), vector.dim), dtype=np.float32)
    spread[~null] = values
    return spread, null


def is_plain_vector(vector: Vector, raw: Any) -> bool:
    """Return whether this is a single vector (dim,) that is stored, or looked for, as it is.

    No look at what it is instead: a search asks this, to which each microsecond counts.
    """
    return (
        type(raw) is np.ndarray
        and raw.dtype == np.float32
        and raw.shape == (vector.dim,)
        and vector.metric != "cosine"
        and bool(np.vdot(raw, raw) < _MAX_SQUARED_LENGTH / 2)
    )


def checked_vectors(
    vector: Vector, values: AnyArray, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return vectors (n, dim) as they are stored; ``rows`` says where they stand in the batch.

    Raises
    ------
    InvalidRowError
        One is not finite, or zero under cosine.
    """
    checked = _finite(vector, values, rows)
    return _unit_length(vector, checked, rows) if vector.metric == "cosine" else checked


def _unmasked(vector: Vector, raw: Any) -> Any:
    """Return vectors without a mask: one that is masked as a whole is null."""
    masked = np.ma.getmaskarray(raw).reshape(len(raw), -1)
    if not masked.any():
        return raw.data
    partly = np.flatnonzero(masked.any(axis=1) & ~masked.all(axis=1))
    if len(partly):
        want = f"{vector.dim} numbers, or all of them masked"
        raise _invalid(vector.name, partly.tolist(), raw[partly[0]], want)
    return [None if hidden else v for v, hidden in zip(raw.data, masked[:, 0], strict=True)]


def _matrix(vector: Vector, raw: Any, rows: npt.NDArray[np.int64]) -> AnyArray:
    if len(raw) == 0:
        return np.empty((0, vector.dim), dtype=np.float32)
    try:
        values = np.asarray(raw)
    except ValueError:  # a ragged list
        values = np.empty(0, dtype=object)
    if values.ndim != 2 or values.shape[1] != vector.dim:
        wrong = [(at, np.shape(v)) for at, v in enumerate(raw) if np.shape(v) != (vector.dim,)]
        if wrong and len(wrong[0][1]) == 1:
            at = rows[[position for position, _ in wrong]].tolist()
            raise _dimension(vector.name, at, wrong[0][1][0], vector.dim)
        positions = [position for position, _ in wrong] or list(range(len(raw)))
        got = raw[positions[0]]
        raise _invalid(vector.name, rows[positions].tolist(), got, f"{vector.dim} numbers")
    if values.dtype.kind not in "fiu":
        raise _invalid(vector.name, rows.tolist(), raw[0], f"{vector.dim} numbers")
    return values


def _finite(
    vector: Vector, values: AnyArray, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Copy to float32; refuse NaN, infinity, what float32 cannot hold, and enormous lengths."""
    with np.errstate(over="ignore", invalid="ignore"):
        floats = np.array(values, dtype=np.float32, order="C")
        # One pass over the bytes, which only large numbers fail that may yet be right.
        if np.vdot(floats, floats) < _MAX_SQUARED_LENGTH / 2:
            return floats
    bad = np.flatnonzero(~np.isfinite(floats).all(axis=1))
    if len(bad):
        row = values[bad[0]]
        got = row[~np.isfinite(floats[bad[0]])][0]
        raise _invalid(vector.name, rows[bad].tolist(), got, "finite float32 numbers")
    if vector.metric != "cosine":  # else only the direction is kept
        wide = floats.astype(np.float64)
        long = np.flatnonzero(np.einsum("ij,ij->i", wide, wide) > _MAX_SQUARED_LENGTH)
        if len(long):
            got = values[long[0]].tolist()
            raise _invalid(vector.name, rows[long].tolist(), got, "a length of at most 9.99e17")
    return floats


def _unit_length(
    vector: Vector, values: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Divide by the norm, in double precision so that what is stored has norm 1 to 1e-7."""
    wide = values.astype(np.float64)
    squares = np.einsum("ij,ij->i", wide, wide)
    zero = np.flatnonzero(squares == 0)
    if len(zero):
        want = "a vector other than zero (the metric is cosine)"
        raise _invalid(vector.name, rows[zero].tolist(), values[zero[0]].tolist(), want)
    scale = np.where(np.abs(squares - 1.0) <= _UNIT_TOLERANCE, 1.0, np.sqrt(squares))
    wide /= scale[:, None]
    return wide.astype(np.float32)


# --- Errors ---------------------------------------------------------------------------------


def _invalid(field: str, rows: Sequence[int], got: Any, want: Any) -> InvalidRowError:
    try:
        shown = repr(got)
    except ValueError:  # Python writes no integers of more than 4,300 digits
        shown = "a number too long to show"
    except RecursionError:
        shown = "a value nested too deeply to show"
    if len(shown) > 80:
        shown = shown[:77] + "..."
    if got is not None:
        shown += f" ({type(got).__name__})"
    message = f"{_row_names(rows)}, field {field!r}: got {shown}, wanted {want}"
    return InvalidRowError(message, rows=rows, field=field, got=got, want=want)


def _dimension(field: str, rows: Sequence[int], got: Any, want: Any) -> DimensionError:
    message = f"{_row_names(rows)}, field {field!r}: got dimension {got}, wanted {want}"
    return DimensionError(message, got=got, want=want, field=field, rows=rows)


def _row_names(rows: Sequence[int]) -> str:
    named = ", ".join(str(row) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {named}{more}"


def _unknown_field(schema: Schema, table: _Table, name: Any) -> InvalidRowError:
    raw = table.columns[name]
    at = np.flatnonzero(raw.present).tolist() if isinstance(raw, _Sparse) else range(table.rows)
    known = ", ".join(schema.names)
    message = f"{_row_names(at)}: unknown field {name!r}; the fields are: {known}"
    return InvalidRowError(message, rows=at, field=str(name), got=name, want=known)


# --- Values as JSON, and types from values ---------------------------------------------------


def json_cell(kind: str, value: Any) -> Any:
    """Return a value of a field in a form that JSON has."""
    if value is None:
        return None
    if kind == "bytes":
        return bytes(value).hex()
    if kind == "timestamp":
        return str(_convert(kind, [value])[0][0])
    cells = _convert(kind, [value])[0].tolist()
    return json.loads(cells[0]) if kind == "json" else cells[0]


def cell_from_json(kind: str, value: Any) -> Any:
    """Return the value that :func:`json_cell` described."""
    if value is None:
        return None
    if kind == "bytes":
        return bytes.fromhex(value)
    if kind == "timestamp" and isinstance(value, str):
        return np.datetime64(value, "us")
    return value


def infer_fields(table: Any, *, primary: str, metric: str) -> Iterable[Field | Vector]:
    """Yield the fields that a table of rows suggests; see :meth:`Schema.infer`."""
    columns = _table(None, table).columns
    for name, raw in columns.items():
        sparse = isinstance(raw, _Sparse)
        yield _inferred(name, raw.values if sparse else raw, sparse, primary, metric)


def _inferred(name: str, raw: Any, gaps: bool, primary: str, metric: str) -> Field | Vector:
    if isinstance(raw, np.ndarray) and raw.ndim == 2:
        return Vector(name, raw.shape[1], metric=metric, nullable=gaps)
    if _is_pandas(raw):
        raw = _series(raw, "float64" if getattr(raw.dtype, "kind", "") == "f" else "")
    cells = raw.tolist() if isinstance(raw, np.ndarray) and raw.dtype.kind == "O" else list(raw)
    known = [cell for cell in cells if cell is not None]
    nullable = gaps or len(known) < len(cells)
    sizes = {np.shape(cell) for cell in known if isinstance(cell, (list, tuple, np.ndarray))}
    if len(sizes) == 1 and known and len(size := next(iter(sizes))) == 1 and size[0] > 0:
        kinds = {np.asarray(cell).dtype.kind for cell in known}
        if kinds <= set("fiu"):
            return Vector(name, size[0], metric=metric, nullable=nullable)
    for kind in _GUESSES:
        try:
            _convert(kind, known)
        except _Wrong:
            continue
        if known:
            return Field(name, kind, primary=name == primary, nullable=nullable)
    raise SchemaError(f"column {name!r} has no type that a field can have")


_GUESSES = ("bool", "int64", "float64", "string", "timestamp", "bytes", *(
    "list<int64>", "list<float64>", "list<string>", "json",
))  # fmt: skip
