"""Old row + incoming row → final row: which fields an upsert writes, and which of them change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from . import merge as rules_
from .clocks import Timing
from .columns import objects, same_cells
from .combine import Merging, check_map
from .errors import InvalidRowError, SchemaError
from .fields import ABSENT, Field, Vector
from .ingest import Batch, Cells
from .json_text import encode_json
from .merge import MergeRule, rule_of
from .schema import Schema

__all__ = ["POLICIES", "FieldWrite", "Policy", "Rules", "Stored", "field_writes", "rules_of"]

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
    merge : mapping of str to MergeRule or str
        Rules of this call, in the place of those of the schema.
    atomic : bool
        True: a row that is rejected or in conflict raises :class:`ConflictError`, and nothing
        is written. False: just such rows are left out, and reported in the result.

    Raises
    ------
    ValueError
        An unknown mode, or absent is neither "keep" nor "default".
    SchemaError
        ``merge`` names no rule.

    Examples
    --------
    >>> Policy(mode="update_only", only=["bio"], atomic=False)
    Policy(mode='update_only', only=('bio',), atomic=False)
    """

    __slots__ = ("absent", "atomic", "merge", "mode", "only")

    def __init__(
        self,
        mode: str = "upsert",
        *,
        absent: str = "keep",
        only: Sequence[str] | None = None,
        merge: Mapping[str, MergeRule | str] | None = None,
        atomic: bool = True,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode={mode!r}; wanted one of {', '.join(_MODES)}")
        if absent not in {"keep", "default"}:
            raise ValueError(f"absent={absent!r}; wanted 'keep' or 'default'")
        if isinstance(only, str):
            raise ValueError(f"only={only!r}; wanted a list of fields")  # noqa: TRY004
        self.mode = mode
        self.absent = absent
        self.only = None if only is None else tuple(only)
        self.merge = {name: rule_of(name, rule) for name, rule in (merge or {}).items()}
        self.atomic = bool(atomic)

    def __repr__(self) -> str:
        usual: dict[str, Any] = {
            "mode": "upsert",
            "absent": "keep",
            "only": None,
            "merge": {},
            "atomic": True,
        }
        given = {name: getattr(self, name) for name in usual}
        parts = [f"{name}={value!r}" for name, value in given.items() if value != usual[name]]
        return f"Policy({', '.join(parts)})"


@dataclass(frozen=True)
class Rules:
    """A policy, checked against a schema.

    ``strict`` makes a row that the mode leaves out a conflict; ``merge`` has the rule of every
    field.
    """

    mode: str
    absent: str
    only: frozenset[str] | None
    atomic: bool
    merge: Mapping[str, MergeRule]
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
    SchemaError
        A rule that cannot combine the values of its field.
    """
    if isinstance(policy, Policy):
        for argument, names in (("only", policy.only or ()), ("merge", policy.merge)):
            for name in names:
                if name not in schema.types:
                    raise ValueError(f"{argument}={names!r}: unknown field {name!r}")
        only = None if policy.only is None else frozenset(policy.only)
        merge = {name: schema.rule(name) for name in schema.names}
        for name, rule in policy.merge.items():
            rule.check_type(name, schema.types[name])
            if name == schema.primary.name and rule.name != "replace":
                raise SchemaError(f"merge={{{name!r}: {rule!r}}}: a primary key never changes")
            if name in schema.vectors:
                schema.vectors[name].check_rule(rule)
        merge |= policy.merge
        schema.check_weights(merge)
        return Rules(policy.mode, policy.absent, only, policy.atomic, merge, strict=strict)
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}; wanted a Policy or one of {', '.join(POLICIES)}")
    mode = "insert_only" if policy == "keep" else "upsert"
    absent = "default" if policy == "replace" else "keep"
    one = {"replace": rules_.replace(), "fill": rules_.fill()}.get(policy)
    merge = {name: one or schema.rule(name) for name in schema.names}
    return Rules(mode, absent, None, atomic=True, merge=merge, strict=strict)


class Stored(Protocol):
    """The stored rows that rows of the batch match."""

    def take(self, name: str, rows: Rows) -> tuple[AnyArray, BoolArray | None]:
        """Return a field of the stored rows that these rows of the batch match, and its nulls."""


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
    stored: Stored,
    new: Rows,
    old: Rows,
    awaited: frozenset[str] = frozenset(),
) -> tuple[dict[str, FieldWrite], BoolArray]:
    """Resolve every field of the rows that will be stored.

    Parameters
    ----------
    stored : Stored
        Where stored values come from.
    new, old : int64 array
        Positions in the batch of the rows to insert, and of those that match a stored row.
    awaited : set of str
        Fields that a new row may lack, as they will be given later.

    Returns
    -------
    writes : dict of str to FieldWrite
        Only fields that are written in some row.
    late : bool array (len(old),)
        Where the stored row, or a group of its fields, is newer.

    Raises
    ------
    InvalidRowError
        A field that has no default and is not nullable is absent where it must not be, or a
        value that a rule cannot combine.
    """
    writes: dict[str, FieldWrite] = {}
    timing = Timing(schema, batch, stored, old)
    for name in schema.names:
        item: Field | Vector = schema.vectors.get(name) or schema.fields[name]
        cells = batch.cells.get(name)
        resets = rules.absent == "default"
        touched = old
        if not rules.may_write(name) or (cells is None and not resets) or item is schema.primary:
            touched = old[:0]
        if not len(new) and not len(touched):
            continue
        rule = rules.merge[name]
        values, null, absent = _filled(item, cells, batch.rows)
        write = np.zeros(batch.rows, dtype=np.bool_)
        write[new] = True
        if len(new) and rule.name in _FIRST and cells is not None:
            values, null = _first_values(item, rule, cells, values, null, new)
        if len(touched):
            one = _OneField(item, rule, batch, stored, old, timing)
            values, null, changes = one.resolve(values, null, absent, resets=resets)
            write[old] = changes
        if absent is not None and _is_required(item) and name not in awaited:
            _refuse_absent(item, np.flatnonzero(absent & write), name)
        if np.count_nonzero(write):
            writes[name] = FieldWrite(values, null, write)
    return writes, timing.late()


@dataclass(eq=False)
class _OneField:
    """One field of the rows that match a stored one."""

    item: Field | Vector
    rule: MergeRule
    batch: Batch
    stored: Stored
    old: Rows
    timing: Timing

    def resolve(
        self, values: AnyArray, null: BoolArray, absent: BoolArray | None, *, resets: bool
    ) -> tuple[AnyArray, BoolArray, BoolArray]:
        """Return the final values and nulls, and where stored ones change; bool (len(old),)."""
        name = self.item.name
        held = self.stored.take(name, self.old)
        metric = getattr(self.item, "metric", None)
        order_free = self.rule.is_order_free_for(metric)
        barred = self.timing.barred(name, order_free=order_free)
        if self.rule.name != "replace":
            values, null = self._merged(values, null, absent, held, barred)
        coming = values[self.old], null[self.old]
        same = _same_vectors(held, coming) if coming[0].ndim == 2 else same_cells(held, coming)
        changes = ~same
        if absent is not None:
            unsaid = absent[self.old]
            if not resets:
                changes &= ~unsaid
            elif order_free and (late := self.timing.barred(name, order_free=False)) is not None:
                changes &= ~(unsaid & late)
        if barred is not None:
            changes &= ~barred
        return values, null, changes

    def _merged(
        self,
        values: AnyArray,
        null: BoolArray,
        absent: BoolArray | None,
        held: tuple[AnyArray, BoolArray | None],
        barred: BoolArray | None,
    ) -> tuple[AnyArray, BoolArray]:
        """Put what the rule says where a row mentions the field, and is not late for it."""
        meant = np.ones(len(self.old), dtype=np.bool_) if absent is None else ~absent[self.old]
        if barred is not None:
            meant &= ~barred
        at = meant.nonzero()[0]
        if not len(at):
            return values, null
        rows = self.old[at]
        held_null = np.zeros(len(self.old), dtype=np.bool_) if held[1] is None else held[1]
        merging = Merging(
            self.item,
            self.rule,
            (held[0][at], held_null[at]),
            (values[rows], null[rows]),
            rows,
            self._weights(rows),
        )
        merged, merged_null = self.rule.combine(merging)
        values, null = values.copy(), null.copy()
        values[rows], null[rows] = merged, merged_null
        return values, null

    def _weights(self, rows: Rows) -> tuple[AnyArray, AnyArray] | None:
        name = self.rule.weight
        if name is None:
            return None
        had, had_null = self.stored.take(name, rows)
        had = had.astype(np.float64)
        if had_null is not None:
            had[had_null] = 0.0
        cells = self.batch.cells.get(name)
        if cells is None:
            return had, np.full(len(rows), np.nan)
        come = cells.values[rows].astype(np.float64)
        if cells.null is not None:
            come[cells.null[rows]] = np.nan
        if cells.present is not None:
            come[~cells.present[rows]] = np.nan
        return had, come


# Rules that do not store the first value as it comes.
_FIRST = frozenset({"remove_", "merge_map"})


def _first_values(
    item: Field | Vector,
    rule: MergeRule,
    cells: Cells,
    values: AnyArray,
    null: BoolArray,
    new: Rows,
) -> tuple[AnyArray, BoolArray]:
    """Return values and nulls with those of new rows as the rule begins."""
    said = new if cells.present is None else new[cells.present[new]]
    values, null = values.copy(), null.copy()
    if rule.name == "remove_":
        start, is_null = _filled(item, None, 1)[:2]
        if is_null[0] and not item.nullable:
            start, is_null = objects([[]]), np.zeros(1, dtype=np.bool_)
        values[said] = objects([None if is_null[0] else start[0]])
        null[said] = is_null[0]
        return values, null
    import json  # noqa: PLC0415  (of the few that come here)

    for row in said[~null[said]].tolist():
        value = json.loads(values[row])
        check_map(item.name, rule, value, row)
        if rule.arguments["ts"] is None:
            values[row] = encode_json({k: v for k, v in value.items() if v is not None})
    return values, null


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


def _same_vectors(
    left: tuple[AnyArray, BoolArray | None], right: tuple[AnyArray, BoolArray | None]
) -> BoolArray:
    """Return True where both are null, or both have the same bytes; bool (n,)."""
    left_bits = np.ascontiguousarray(left[0]).view(np.uint32)
    right_bits = np.ascontiguousarray(right[0]).view(np.uint32)
    same: BoolArray = (left_bits == right_bits).all(axis=1)
    left_null = np.zeros(len(same), dtype=np.bool_) if left[1] is None else left[1]
    right_null = np.zeros(len(same), dtype=np.bool_) if right[1] is None else right[1]
    return (same & ~left_null & ~right_null) | (left_null & right_null)


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
