"""The same values for all rows that fulfil a condition: :class:`Assignment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .condition_tree import Condition, condition_of
from .ingest import Batch, Cells, ingest
from .sync import ALL

if TYPE_CHECKING:
    import numpy.typing as npt

    from .condition import Selected
    from .expression import Expression
    from .schema import Schema
    from .state import State

__all__ = ["Assignment"]


@dataclass(frozen=True)
class Assignment:
    """What a call of ``update_where`` asks for, checked against a schema.

    Attributes
    ----------
    condition : Condition or None
        Which rows; None: all.
    values : Batch
        One row without a key.
    """

    condition: Condition | None
    values: Batch
    primary: str

    @classmethod
    def checked(cls, schema: Schema, where: Expression | str | object, values: Any) -> Assignment:
        """Check a condition and values.

        Raises
        ------
        ExpressionError, InvalidRowError, DimensionError, ValueError
        """
        primary = schema.primary.name
        if not isinstance(values, Mapping) or not values:
            raise ValueError(f"update_where: got values={values!r}, wanted a dict by field")
        if primary in values:
            raise ValueError(f"update_where: got values for {primary!r}, which is the primary key")
        condition = None if where is ALL else condition_of(schema, where)  # type: ignore[arg-type]
        return cls(condition, ingest(schema, [values]), primary)

    def batch(self, state: State, selected: Selected) -> Batch:
        """Return a batch that gives the values to each of the selected rows."""
        rids = selected.rids()
        keys, _ = state.columns[self.primary].gather(rids)
        cells = {name: _repeated(cell, len(rids)) for name, cell in self.values.cells.items()}
        return Batch(len(rids), {self.primary: Cells(keys), **cells})


def _repeated(cell: Cells, rows: int) -> Cells:
    def each(array: npt.NDArray[Any] | None) -> Any:
        return None if array is None else np.repeat(array, rows, axis=0)

    return Cells(each(cell.values), each(cell.null), each(cell.present))
