"""The order of rows by a scalar field: :func:`ordered`.

Numbers, strings, bytes and moments by their values (strings by code points), false before true;
NaN behind all numbers and null behind everything, in both directions; equal values in the order in
which the rows are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import Selection

if TYPE_CHECKING:
    from .schema import Schema
    from .state import State

__all__ = ["check_order", "ordered"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]

ORDERED_TYPES: Final = ("string", "int64", "float64", "bool", "timestamp", "bytes")

# Of how many values the bound is guessed behind which the first few of many strings cannot lie.
_SAMPLE = 1024


def check_order(schema: Schema, order_by: Any, limit: Any, *, descending: bool) -> None:
    """Refuse what is no order of rows.

    Raises
    ------
    ValueError
    """
    if limit is not None:
        is_count = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
        if not is_count or limit < 0:
            raise ValueError(f"scan: got limit={limit!r}, wanted a number of rows, or None")
    if order_by is None:
        if descending:
            raise ValueError("scan: got descending=True without order_by=, wanted a field there")
        return
    kind = schema.types.get(order_by) if isinstance(order_by, str) else None
    if kind not in ORDERED_TYPES:
        known = ", ".join(n for n, f in schema.fields.items() if f.type in ORDERED_TYPES)
        got = "which is no field" if kind is None else f"a {kind}, which has no order"
        raise ValueError(f"scan: got order_by={order_by!r}, {got}; wanted one of: {known}")


def ordered(
    state: State, rids: RowIds, name: str, *, descending: bool, limit: int | None
) -> RowIds:
    """Return rows in the order of a field, the first ``limit`` of them; int64 (m,).

    ``rids`` ascend. With a limit, the rows behind it are told apart from those before it, but not
    sorted.
    """
    most = len(rids) if limit is None else min(int(limit), len(rids))
    if most == 0:
        return rids[:0]
    values, null = state.columns[name].take(Selection(rids))
    last = np.zeros(0, dtype=np.int64)
    if null is not None:
        last, rids, values = rids[null], rids[~null], values[~null]
    if values.dtype == np.float64 and np.isnan(values).any():
        unordered = np.isnan(values)
        last = np.concatenate([rids[unordered], last])
        rids, values = rids[~unordered], values[~unordered]
    place = _objects if values.dtype == object else _numbers
    front = rids[place(values, descending, min(most, len(rids)))] if len(rids) else rids
    return np.concatenate([front, last])[:most]


def _numbers(values: AnyArray, descending: bool, most: int) -> RowIds:
    """Return the positions of the first ``most`` values, in order."""
    if values.dtype.kind == "M":
        values = values.view(np.int64)
    if descending:
        values = -values if values.dtype.kind == "f" else ~values  # -x overflows for the least
    if 0 < most < len(values):
        bound = values[np.argpartition(values, most - 1)[most - 1]]
        # Of those that equal the bound, the first: a partition takes any.
        inside = values < bound
        equal = np.flatnonzero(values == bound)[: most - int(np.count_nonzero(inside))]
        inside[equal] = True
        kept = np.flatnonzero(inside)
        return kept[np.argsort(values[kept], kind="stable")]
    return np.argsort(values, kind="stable")[:most]


def _objects(values: AnyArray, descending: bool, most: int) -> RowIds:
    """Return the positions of the first ``most`` strings or bytes, in order.

    1,000,000 strings: sorted(), 1.0 s; numpy.argsort, 2.3 s; numpy.partition, 2.7 s.
    """
    kept = np.arange(len(values))
    if most < len(values) // 4:
        sample = sorted(values[:: -(-len(values) // _SAMPLE)].tolist(), reverse=descending)
        bound = sample[min(len(sample) - 1, 2 * most * len(sample) // len(values) + 8)]
        inside: BoolArray = np.asarray(values >= bound if descending else values <= bound, np.bool_)
        if np.count_nonzero(inside) >= most:
            kept = np.flatnonzero(inside)
    listed = values[kept].tolist()
    # reverse=True keeps equal values in their order, too.
    order = sorted(range(len(listed)), key=listed.__getitem__, reverse=descending)
    return kept[np.array(order[:most], dtype=np.int64)]
