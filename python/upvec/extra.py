"""What a schema does not know and stores: how a field that it gains takes its values from there."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .codec import ColumnEffect
from .columns import objects
from .fields import ABSENT, Field, Vector
from .json_text import encode_json
from .schema import EXTRA

if TYPE_CHECKING:
    from .state import State

__all__ = ["Extra"]

RowIds: TypeAlias = npt.NDArray[np.int64]


class Extra:
    """The unknown fields of some rows, and those that are taken out of them."""

    def __init__(self, state: State, rids: RowIds) -> None:
        texts, null = state.columns[EXTRA].gather(rids)
        nulls = np.zeros(len(rids), dtype=np.bool_) if null is None else null
        self._cells: list[dict[str, Any] | None] = [
            None if gap else json.loads(text)
            for text, gap in zip(texts.tolist(), nulls.tolist(), strict=True)
        ]
        self._taken: dict[str, dict[int, Any]] = {}

    def take(self, names: Iterable[str]) -> set[str]:
        """Take fields out; return those that a row had."""
        for name in names:
            found = {
                row: cell.pop(name) for row, cell in enumerate(self._cells) if cell and name in cell
            }
            if found:
                self._taken[name] = found
        return set(self._taken)

    def has(self, name: str) -> bool:
        """Return whether a field was taken out of a row."""
        return name in self._taken

    def column(self, item: Field | Vector) -> list[Any]:
        """Return the values of a field for all rows: its default, or null, where there is none."""
        found = self._taken[item.name]
        default = None
        if isinstance(item, Field):
            default = None if item.default is ABSENT else item.default
            if item.type == "timestamp":
                found = {row: _moment(value) for row, value in found.items()}
        return [found.get(row, default) for row in range(len(self._cells))]

    def rest(self) -> ColumnEffect:
        """Return what is left."""
        null = np.array([not cell for cell in self._cells], dtype=np.bool_)
        texts = objects([encode_json(cell) if cell else None for cell in self._cells])
        return ColumnEffect(None, "json", texts, null)


def _moment(value: Any) -> Any:
    """Return the time that a text says; what is none is refused where it is validated."""
    try:
        return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value
