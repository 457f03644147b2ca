"""Old row + incoming row → final row: which fields an upsert writes, and which of them change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import Selection, same_cells
from .errors import InvalidRowError, NotSupportedError
from .ingest import Batch, Cells
from .schema import ABSENT, Field, Schema, Vector

if TYPE_CHECKING:
    from ._core import Index
    from .state import State

__all__ = ["POLICIES", "FieldWrite", "Policy", "Rules", "field_writes", "rules_of"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.int64]

POLICIES = ("merge", "replace", "keep", "fill")
_MODES = ("upsert", "insert_only", "update_only")


class Policy:
    """What an upsert does with rows and fields, in detail.

    Parameters
    ----------
    mode : str
        ``"upsert"``; ``"insert_only"``: stored rows are left alone, and ``"update_only"``: rows
        that are not stored are left out, both with the outcome ``skipped``.
    absent : str
        What becomes of a field of a stored row that the incoming row does not mention:
        ``"keep"`` it, or set it to its ``"default"`` (null without one).
    only : sequence of str
        The fields of stored rows that may be written; a new row is stored whole.
    atomic : bool
        True: a row that is rejected or in conflict raises :class:`ConflictError`, and nothing
        is written. False: just such rows are left out, and reported in the result.

    Raises
    ------
    ValueError
        An unknown mode, or absent is neither "keep" nor "default".
    NotSupportedError
        ``merge=`` was given.

    Examples
    --------
    >>> Policy(mode="update_only", only=["bio"], atomic=False)
    Policy(mode='update_only', only=('bio',), atomic=False)
    """

    __slots__ = ("absent", "atomic", "mode", "only")

    def __init__(
        self,
        mode: str = "upsert",
        *,
        absent: str = "keep",
        only: Sequence[str] | None = None,
        merge: Mapping[str, Any] | None = None,
        atomic: bool = True,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode={mode!r}; wanted one of {', '.join(_MODES)}")
        if absent not in {"keep", "default"}:
            raise ValueError(f"absent={absent!r}; wanted 'keep' or 'default'")
        if isinstance(only, str):
            raise ValueError(f"only={only!r}; wanted a list of fields")  # noqa: TRY004
        if merge is not None:
            raise NotSupportedError("Policy(merge=...) is not supported yet", argument="merge")
        self.mode = mode
        self.absent = absent
        self.only = None if only is None else tuple(only)
        self.atomic = bool(atomic)

    def __repr__(self) -> str:
        usual = {"mode": "upsert", "absent": "keep", "only": None, "atomic": True}
        given = {name: getattr(self, name) for name in usual}
        parts = [f"{name}={value!r}" for name, value in given.items() if value != usual[name]]
        return f"Policy({', '.join(parts)})"


@dataclass(frozen=True)
class Rules:
    """A policy, checked against a schema.

    ``strict`` makes a row that the mode leaves out a conflict; ``fill`` writes a field of a
    stored row only where it is null.
    """

    mode: str
    absent: str
    only: frozenset[str] | None
    atomic: bool
    fill: bool = False
    strict: bool = False

    def may_write(self, name: str) -> bool:
        """Return whether the field of a stored row may be written at all."""
        return self.only is None or name in self.only


def rules_of(schema: Schema, policy: str | Policy, *, strict: bool = False) -> Rules:
    """Return the rules that a policy, or the name of one, stands for.

    Raises
    ------
    ValueError
        No such policy, or it names an unknown field.
    """
    if isinstance(policy, Policy):
        only = None if policy.only is None else frozenset(policy.only)
        for name in policy.only or ():
            if name not in schema.types:
                raise ValueError(f"only={policy.only!r}: unknown field {name!r}")
        return Rules(policy.mode, policy.absent, only, policy.atomic, strict=strict)
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}; wanted a Policy or one of {', '.join(POLICIES)}")
    mode = "insert_only" if policy == "keep" else "upsert"
    absent = "default" if policy == "replace" else "keep"
    return Rules(mode, absent, None, atomic=True, fill=policy == "fill", strict=strict)


@dataclass(eq=False)
class FieldWrite:
    """The final values of one field for the rows of a batch.

    Attributes
    ----------
    values : array (n,), or float32 (n, dim)
        Of the rows of the batch; specified only where ``write``.
    null : bool array (n,)
    write : bool array (n,)
        Where the field is written: everywhere in a new row, and where a stored value changes.
    """

    values: AnyArray
    null: BoolArray
    write: BoolArray


def field_writes(
    schema: Schema,
    rules: Rules,
    batch: Batch,
    *,
    state: State,
    indexes: Mapping[str, Index],
    new: Rows,
    old: Rows,
    rids: Rows,
) -> dict[str, FieldWrite]:
    """Resolve every field of the rows that will be stored.

    Parameters
    ----------
    state : State
        The newest state: where stored values come from.
    new, old : int64 array
        Positions in the batch of the rows to insert, and of those that match a stored row.
    rids : int64 array (n,)
        The stored row of each row in ``old``.

    Returns
    -------
    dict of str to FieldWrite
        Only fields that are written in some row.

    Raises
    ------
    InvalidRowError
        A field that has no default and is not nullable is absent where it must not be.
    """
    writes: dict[str, FieldWrite] = {}
    old_rids = rids[old]
    selection = Selection(old_rids)
    for name in schema.names:
        item: Field | Vector = schema.vectors.get(name) or schema.fields[name]
        cells = batch.cells.get(name)
        resets = rules.absent == "default"
        touched = old
        if not rules.may_write(name) or (cells is None and not resets) or item is schema.primary:
            touched = old[:0]
        if not len(new) and not len(touched):
            continue
        values, null, absent = _filled(item, cells, batch.rows)
        write = np.zeros(batch.rows, dtype=np.bool_)
        write[new] = True
        if len(touched):
            if isinstance(item, Vector):
                stored, found = indexes[name].get(old_rids, snapshot=state.snapshots[name])
                was_null: BoolArray | None = ~found
                same = _same_vectors((stored, ~found), (values[old], null[old]))
            else:
                cells_now = state.columns[name].take(selection)
                same = same_cells(cells_now, (values[old], null[old]))
                was_null = cells_now[1]
            changes = ~same
            if absent is not None and not resets:
                changes &= ~absent[old]
            if rules.fill:
                changes &= False if was_null is None else was_null
            write[old] = changes
        if absent is not None and _is_required(item):
            _refuse_absent(item, np.flatnonzero(absent & write), name)
        if np.count_nonzero(write):
            writes[name] = FieldWrite(values, null, write)
    return writes


def _filled(
    item: Field | Vector, cells: Cells | None, rows: int
) -> tuple[AnyArray, BoolArray, BoolArray | None]:
    """Return values and nulls with defaults where absent, and where that was (None: nowhere)."""
    if cells is not None and cells.present is None:
        null = np.zeros(rows, dtype=np.bool_) if cells.null is None else cells.null
        return cells.values, null, None
    absent = np.ones(rows, dtype=np.bool_)
    null = np.ones(rows, dtype=np.bool_)
    if isinstance(item, Vector):
        values: AnyArray = np.zeros((rows, item.dim), dtype=np.float32)
    elif item.default is ABSENT or item.default is None:
        values = np.full(rows, None) if item.dtype.hasobject else np.zeros(rows, dtype=item.dtype)
    else:
        default = item.default_cell[0]
        values = np.repeat(default, rows)
        null[:] = False
    if cells is not None and cells.present is not None:
        absent = ~cells.present
        values[cells.present] = cells.values[cells.present]
        null[cells.present] = False if cells.null is None else cells.null[cells.present]
    return values, null, absent


def _same_vectors(left: tuple[AnyArray, BoolArray], right: tuple[AnyArray, BoolArray]) -> BoolArray:
    """Return True where both are null, or both have the same bytes; bool (n,)."""
    left_bits = left[0].view(np.uint32)
    right_bits = np.ascontiguousarray(right[0]).view(np.uint32)
    same: BoolArray = (left_bits == right_bits).all(axis=1)
    return (same & ~left[1] & ~right[1]) | (left[1] & right[1])


def _is_required(item: Field | Vector) -> bool:
    return not item.nullable if isinstance(item, Vector) else item.required


def _refuse_absent(item: Field | Vector, rows: Rows, name: str) -> None:
    if len(rows):
        listed = rows.tolist()
        kind = "a vector" if isinstance(item, Vector) else f"a value ({item.type})"
        message = (
            f"row {listed[0]}, field {name!r}: got nothing, wanted {kind}: no default, no null"
        )
        raise InvalidRowError(message, rows=listed, field=name, got=ABSENT, want=kind)
