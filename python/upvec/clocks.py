"""Which incoming rows come late: older, by the clock of a field, than the row that they match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .ingest import Batch
    from .policy import Stored
    from .schema import Schema

__all__ = ["Timing", "is_before"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]


class Timing:
    """The rows of a batch that match a stored one (``old``), by the clocks of a schema.

    By ``order_by``, a row without a value is late if the stored row has one. By the clock of a
    group, a row without a value has nothing to say of the group: it is left out altogether.
    """

    def __init__(self, schema: Schema, batch: Batch, stored: Stored, old: Rows) -> None:
        self._schema = schema
        self._batch = batch
        self._stored = stored
        self._old = old
        # By clock: where rows are late, and where they are left out.
        self._read: dict[str, tuple[BoolArray, BoolArray | None]] = {}

    def barred(self, name: str, *, order_free: bool) -> BoolArray | None:
        """Return True where a field must not be written; bool (len(old),), or None: nowhere."""
        clock = self._schema.clocks.get(name)
        if clock is None or not len(self._old):
            return None
        late, left_out = self._of(clock)
        if order_free:
            return left_out
        return late if left_out is None else late | left_out

    def late(self) -> BoolArray:
        """Return True where a row was late by any clock; bool (len(old),)."""
        late = np.zeros(len(self._old), dtype=np.bool_)
        if len(self._old):
            for clock in set(self._schema.clocks.values()):
                late |= self._of(clock)[0]
        return late

    def _of(self, clock: str) -> tuple[BoolArray, BoolArray | None]:
        if clock not in self._read:
            self._read[clock] = self._compared(clock)
        return self._read[clock]

    def _compared(self, clock: str) -> tuple[BoolArray, BoolArray | None]:
        old = self._old
        held, held_null = self._stored.take(clock, old)
        had = np.ones(len(old), dtype=np.bool_) if held_null is None else ~held_null
        cells = self._batch.cells.get(clock)
        told = np.full(len(old), cells is not None)
        late = np.zeros(len(old), dtype=np.bool_)
        if cells is not None:
            if cells.present is not None:
                told &= cells.present[old]
            if cells.null is not None:
                told &= ~cells.null[old]
            both = (told & had).nonzero()[0]
            late[both] = cells.values[old[both]] < held[both]
        if clock == self._schema.order_by:
            return late | (~told & had), None
        return late, None if told.all() else ~told


def is_before(value: Any, other: Any) -> bool:
    """Return whether an order value is older than another one; None is the oldest."""
    return other is not None and (value is None or bool(value < other))
