"""Make the rows of a scope those of a source: which stored rows the source no longer has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .condition import select_bits

if TYPE_CHECKING:
    from .base import Base
    from .condition_tree import Condition

__all__ = ["ALL", "Sync", "checked_share"]

RowIds: TypeAlias = npt.NDArray[np.int64]


class _All:
    """The type of :data:`ALL`."""

    def __repr__(self) -> str:
        return "ALL"


ALL: Final = _All()
"""The scope of a sync that concerns all rows of a collection."""


@dataclass(frozen=True)
class Sync:
    """The scope of a sync, and how much of it may go.

    Attributes
    ----------
    scope : Condition or None
        The rows that the source speaks of; None: all.
    max_delete : float
        The largest share of them that may be deleted.
    """

    scope: Condition | None
    max_delete: float

    def missing(self, base: Base, matched: RowIds) -> RowIds:
        """Return the stored rows of the scope that nothing in the source matches.

        Raises
        ------
        ValueError
            They are more than may go.
        """
        inside = select_bits(base.state, self.scope).rids()
        missing: RowIds = inside[np.isin(inside, matched, invert=True)]
        if len(missing) > self.max_delete * len(inside):
            share = len(missing) / len(inside)
            message = (
                f"sync: the source lacks {len(missing)} of the {len(inside)} rows in its scope "
                f"({share:.0%}); max_delete={self.max_delete} lets at most "
                f"{int(self.max_delete * len(inside))} go; nothing was written"
            )
            raise ValueError(message)
        return missing


def checked_share(max_delete: object) -> float:
    """Return a share of rows if it is one.

    Raises
    ------
    ValueError
    """
    if isinstance(max_delete, bool) or not isinstance(max_delete, (int, float)):
        raise ValueError(f"max_delete={max_delete!r}; wanted a share from 0 to 1")  # noqa: TRY004
    if not 0 <= max_delete <= 1:
        raise ValueError(f"max_delete={max_delete!r}; wanted a share from 0 to 1")
    return float(max_delete)
