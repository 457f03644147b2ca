"""How a schema changes: :meth:`Collection.alter`.

:func:`altered` makes the next schema of a collection from what is asked for. Fields keep their
numbers, which files call them by, whatever becomes of their names. :func:`widened_column` turns
the values of a field into those of its wider type, and :func:`filled_column` makes those of a new
field. Both decide nothing, so that replay gives what the call gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import Column, objects
from .errors import SchemaError
from .expression import Expression, parse, renamed
from .fields import ABSENT, Field, Unique, Vector
from .json_text import encode_json
from .merge import MergeRule, mean
from .schema import EXTRA, Schema

__all__ = [
    "Changes",
    "altered",
    "changes_of",
    "filled_column",
    "lost_by_widening",
    "widened_column",
]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

NULLABLE: Final = "nullable"
"""What ``widen=`` calls a field that may be null from now on."""

# From a type to those that hold all its values, but for integers that no float64 is equal to.
_WIDER: Final[Mapping[str, frozenset[str]]] = {
    "bool": frozenset({"int64", "float64"}),
    "int64": frozenset({"float64"}),
    "string": frozenset({"json"}),
    "list<int64>": frozenset({"list<float64>"}),
}


@dataclass(frozen=True)
class Changes:
    """What is asked for; see :meth:`Collection.alter`."""

    add: tuple[Field | Vector, ...] = ()
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = dataclass_field(default_factory=dict)
    widen: Mapping[str, str] = dataclass_field(default_factory=dict)
    add_unique: tuple[Unique, ...] = ()
    drop_unique: tuple[str, ...] = ()


def changes_of(
    *,
    add: Any = (),
    drop: Any = (),
    rename: Any = None,
    widen: Any = None,
    add_unique: Any = (),
    drop_unique: Any = (),
) -> Changes:
    """Return what is asked for, of which each may be one or several.

    Raises
    ------
    SchemaError
        It has not the form that is wanted.
    """
    for argument, given in (("rename", rename), ("widen", widen)):
        if given is not None and not isinstance(given, Mapping):
            raise SchemaError(f"{argument}: got {given!r}; wanted a dict by the names of fields")
    return Changes(
        _several("add", add, (Field, Vector)),
        _several("drop", drop, (str,)),
        dict(rename or {}),
        dict(widen or {}),
        _several("add_unique", add_unique, (Unique,)),
        _several("drop_unique", drop_unique, (str,)),
    )


def _several(argument: str, given: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    listed = (given,) if isinstance(given, kinds) else given
    if not isinstance(listed, Iterable) or isinstance(listed, (str, Mapping)):
        listed = (listed,)
    listed = tuple(listed)
    for item in listed:
        if not isinstance(item, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise SchemaError(f"{argument}: got {item!r}; wanted {wanted}")
    return listed


def altered(schema: Schema, changes: Changes) -> Schema:
    """Return the schema that the changes make of another one.

    Raises
    ------
    SchemaError
        They contradict each other or the schema.
    """
    _check_names(schema, changes)
    names = {name: changes.rename.get(name, name) for name in schema.names}
    kept = [name for name in schema.declared if name not in changes.drop]
    _check_free(schema, changes)
    fields = [_changed(schema, name, names, changes.widen.get(name)) for name in kept]
    unique = [
        _renamed_unique(one, names)
        for name, one in schema.unique.items()
        if name not in changes.drop_unique
    ]
    groups = {
        names[clock]: [names[member] for member in members if member not in changes.drop]
        for clock, members in schema.groups.items()
        if clock not in changes.drop
    }
    after = Schema(
        *fields,
        *changes.add,
        unique=[*unique, *changes.add_unique],
        order_by=None if schema.order_by is None else names[schema.order_by],
        groups=groups,
        ttl=None if schema.ttl is None else (names[schema.ttl[0]], schema.ttl[1]),
        extra=schema.extra,
    )
    numbers = {names[name]: schema.numbers[name] for name in kept}
    if schema.extra == "store":
        numbers[EXTRA] = schema.numbers[EXTRA]
    added = enumerate((item.name for item in changes.add), start=schema.next_number)
    numbers |= {name: number for number, name in added}
    return after.numbered(numbers, schema.next_number + len(changes.add))


def _check_names(schema: Schema, changes: Changes) -> None:
    _check_known("drop", changes.drop, schema.declared)
    _check_known("drop_unique", changes.drop_unique, tuple(schema.unique))
    for argument, mapping in (("rename", changes.rename), ("widen", changes.widen)):
        _check_known(argument, tuple(mapping), schema.declared)
        for name, given in mapping.items():
            if name in changes.drop:
                raise SchemaError(f"{argument}: {name!r} is dropped")
            what: object = given
            if not isinstance(what, str):
                wanted = "a name" if argument == "rename" else f"a type or {NULLABLE!r}"
                raise SchemaError(f"{argument}: got {given!r} for {name!r}; wanted {wanted}")


def _check_known(argument: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            there_are = ", ".join(known) or "none"
            raise SchemaError(f"{argument}: unknown {name!r}; there are: {there_are}")
        if names.count(name) > 1:
            raise SchemaError(f"{argument}: {name!r} comes twice")


def _check_free(schema: Schema, changes: Changes) -> None:
    """Refuse to drop a field that something needs which stays."""
    needed = _needed_by_schema(schema, changes)
    for name in schema.declared:
        if name in changes.drop:
            continue
        if name in schema.vectors:
            needed |= dict.fromkeys(schema.vectors[name].source, f"is a source of {name!r}")
        weight = schema.rule(name).weight
        if weight is not None:
            needed[weight] = f"is the weight of {name!r}"
    for name in changes.drop:
        if name in needed:
            raise SchemaError(f"drop: {name!r} {needed[name]}")


def _needed_by_schema(schema: Schema, changes: Changes) -> dict[str, str]:
    """Return the fields that hold for all rows, and what for."""
    needed = {schema.primary.name: "is the primary key"}
    if schema.order_by is not None:
        needed[schema.order_by] = "is order_by"
    if schema.ttl is not None:
        needed[schema.ttl[0]] = "is the field of ttl"
    for clock, members in schema.groups.items():
        left = [name for name in members if name not in changes.drop]
        if left:
            needed.setdefault(clock, f"is the clock of {', '.join(left)}")
    for key, unique in schema.unique.items():
        if key not in changes.drop_unique:
            needed |= dict.fromkeys(unique.fields, f"is in {unique!r}; drop_unique={key!r} too")
    return needed


# --- Fields ---------------------------------------------------------------------------------


def _changed(
    schema: Schema, name: str, names: Mapping[str, str], wider: str | None
) -> Field | Vector:
    rule = _renamed_rule(schema.rule(name), names)
    if name in schema.vectors:
        vector = schema.vectors[name]
        if wider not in {None, NULLABLE}:
            raise SchemaError(f"widen: {name!r} is a vector, which can be made {NULLABLE!r} only")
        return Vector(
            names[name],
            vector.dim,
            metric=vector.metric,
            nullable=vector.nullable or wider == NULLABLE,
            source=[names[source] for source in vector.source],
            merge=rule,
            M=vector.M,
            ef_construction=vector.ef_construction,
        )
    field = schema.fields[name]
    kind = field.type
    if wider is not None and wider != NULLABLE:
        _check_wider(name, kind, wider)
        kind = wider
    return Field(
        names[name],
        kind,
        primary=field.primary,
        nullable=field.nullable or wider == NULLABLE,
        default=_widened_default(field, kind),
        check=_renamed_check(field, names),
        merge=rule,
        index=field.index,
    )


def _check_wider(name: str, kind: str, wider: str) -> None:
    wanted = _WIDER.get(kind, frozenset())
    if wider not in wanted:
        known = ", ".join([*sorted(wanted), repr(NULLABLE)])
        raise SchemaError(f"widen: {name!r} is {kind}; got {wider!r}, wanted {known}")


def _widened_default(field: Field, kind: str) -> Any:
    default: Any = field.default
    if default is ABSENT or kind == field.type:
        return default
    if kind == "float64" and float(default) != default:
        raise SchemaError(f"widen: no float64 is equal to the default of {field.name!r}")
    return {"int64": int, "float64": float}.get(kind, lambda value: value)(default)


def _renamed_check(
    field: Field, names: Mapping[str, str]
) -> str | Expression | re.Pattern[str] | None:
    new = names[field.name]
    if field.check is None or new == field.name:
        return field.check
    if field.is_pattern:
        # Under its new name the field might be what the text of the pattern says.
        return re.compile(field.check) if field.check == new else field.check
    if isinstance(field.check, str):
        return str(renamed(parse(field.check), names))
    return renamed(field.check, names) if isinstance(field.check, Expression) else field.check


def _renamed_rule(rule: MergeRule, names: Mapping[str, str]) -> MergeRule:
    weight = rule.weight
    if weight is None or names.get(weight, weight) == weight:
        return rule
    return mean(weight=names[weight])


def _renamed_unique(unique: Unique, names: Mapping[str, str]) -> Unique:
    fields = [names[name] for name in unique.fields]
    has_own_name = unique.name != "_".join(unique.fields)
    return Unique(*fields, name=unique.name if has_own_name else None)


# --- Columns --------------------------------------------------------------------------------


def filled_column(field: Field, size: int) -> Column:
    """Return a column of rows that do not have the field yet: its default, or null."""
    if field.default is ABSENT or field.default is None:
        null = np.ones(size, dtype=np.bool_)
        empty: AnyArray = (
            np.full(size, None) if field.dtype.hasobject else np.zeros(size, field.dtype)
        )
        return Column.from_array(empty, null)
    cell = field.default_cell[0]
    return Column.from_array(
        objects(list(cell) * size) if field.dtype.hasobject else np.repeat(cell, size)
    )


def widened_column(column: Column, kind: str, wider: str) -> Column:
    """Return the values of a column as those of a wider type."""
    if kind == wider:
        return column
    values, null = column.to_array()
    return Column.from_array(_widened(values, kind, wider), null)


def _widened(values: AnyArray, kind: str, wider: str) -> AnyArray:
    if kind == "string":
        return objects([None if v is None else encode_json(v) for v in values.tolist()])
    if kind == "list<int64>":
        return objects([None if v is None else [float(x) for x in v] for v in values.tolist()])
    return values.astype(np.int64 if wider == "int64" else np.float64)


def lost_by_widening(values: AnyArray, null: BoolArray | None, kind: str, wider: str) -> BoolArray:
    """Return True where the wider type has no value equal to the narrower one's; bool (n,)."""
    lost = np.zeros(len(values), dtype=np.bool_)
    if wider == "float64" and kind == "int64":
        # Not by the way back to int64: what rounds up to 2**63 does not fit.
        lost = np.array([float(v) != v for v in values.tolist()], dtype=np.bool_)
    elif wider == "list<float64>":
        lost = np.array(
            [v is not None and any(float(x) != x for x in v) for v in values.tolist()],
            dtype=np.bool_,
        )
    return lost if null is None else lost & ~null
