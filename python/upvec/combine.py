"""What merge rules do with columns: stored and incoming values → values to store.

Every function takes a :class:`Merging`, the rows of a batch that match a stored row and mention
the field, and returns new columns of as many rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .columns import objects
from .errors import InvalidRowError, SchemaError
from .json_text import encode_json

if TYPE_CHECKING:
    from .fields import Field, Vector
    from .merge import MergeRule

__all__ = ["Merging"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = "tuple[AnyArray, BoolArray]"


@dataclass(frozen=True, eq=False)
class Merging:
    """The two sides of one field, row by row.

    Attributes
    ----------
    item : Field or Vector
    rule : MergeRule
    old, new : (values (m,) or (m, dim), null (m,))
        What is stored, and what comes in. Values are unspecified where null.
    rows : int64 array (m,)
        Where the rows stand in the batch: for errors.
    weights : (float64 (m,), float64 (m,)) or None
        How much each side counts, if the rule has a weight.
    """

    item: Field | Vector
    rule: MergeRule
    old: Column
    new: Column
    rows: npt.NDArray[np.int64]
    weights: tuple[AnyArray, AnyArray] | None = None


def newest(merging: Merging) -> Column:
    """What comes in."""
    return merging.new


def oldest(merging: Merging) -> Column:
    """What is stored."""
    return merging.old


def newest_known(merging: Merging) -> Column:
    """What comes in, unless it is null."""
    return _either_known(merging.new, merging.old)


def oldest_known(merging: Merging) -> Column:
    """What is stored, unless it is null."""
    return _either_known(merging.old, merging.new)


def smallest(merging: Merging) -> Column:
    """The smaller one of both; NaN only if both are."""
    return _of_both(merging, np.fmin if _is_float(merging) else _lesser)


def largest(merging: Merging) -> Column:
    """The larger one of both; NaN only if both are."""
    return _of_both(merging, np.fmax if _is_float(merging) else _greater)


def either(merging: Merging) -> Column:
    """Whether one of both is true."""
    return _of_both(merging, np.logical_or)


def both(merging: Merging) -> Column:
    """Whether both are true."""
    return _of_both(merging, np.logical_and)


def total(merging: Merging) -> Column:
    """The sum of both."""
    if _is_float(merging):
        with np.errstate(over="ignore", invalid="ignore"):
            return _of_both(merging, np.add)
    values, null = _of_both(merging, np.add)
    old, new = merging.old[0], merging.new[0]
    # A sum overflows if its sign is neither of the two that were added.
    wrong = ((old ^ values) & (new ^ values)) < 0
    wrong &= ~merging.old[1] & ~merging.new[1]
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        got = f"{int(old[at])} + {int(new[at])}"
        raise _refused(merging, wrong, got, "a sum within int64")
    return values, null


def union(merging: Merging) -> Column:
    """The stored list, and behind it what it does not have yet."""
    limit: int | None = merging.rule.arguments["limit"]

    def join(old: list[Any], new: list[Any]) -> list[Any]:
        had = set(old)
        fresh = [element for element in dict.fromkeys(new) if element not in had]
        room = None if limit is None else max(0, limit - len(old))
        return [*old, *islice(fresh, room)]

    return _of_lists(merging, join, if_none=lambda new: join([], new))


def without(merging: Merging) -> Column:
    """The stored list without the elements that come in."""

    def part(old: list[Any], new: list[Any]) -> list[Any]:
        gone = set(new)
        return [element for element in old if element not in gone]

    values, null = _of_lists(merging, part, if_none=lambda new: new)
    stored_null = merging.old[1]
    values[stored_null] = None
    return values, null | stored_null


def append(merging: Merging) -> Column:
    """The stored list, and behind it the one that comes in."""
    limit: int | None = merging.rule.arguments["limit"]
    last = slice(None) if limit is None else slice(-limit, None)
    return _of_lists(
        merging, lambda old, new: [*old, *new][last], if_none=lambda new: list(new)[last]
    )


def concat(merging: Merging) -> Column:
    """The stored text, and behind it the one that comes in."""
    sep: str = merging.rule.arguments["sep"]
    return _of_both(merging, lambda old, new: old + (sep + new))


def merge_maps(merging: Merging) -> Column:
    """The keys of both objects, those of the incoming one over the others."""

    def join(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (old | new).items() if value is not None}

    return _of_maps(merging, join)


def merge_timed_maps(merging: Merging) -> Column:
    """The keys of both objects, of each the value whose time is later."""
    member: str = merging.rule.arguments["ts"]

    def rank(value: Any) -> tuple[Any, ...]:
        # Numbers before texts, so that any two can be compared.
        time = value[member]
        return isinstance(time, str), time, encode_json(value)

    def join(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        joined = dict(old)
        for key, value in new.items():
            if key not in joined or rank(value) > rank(joined[key]):
                joined[key] = value
        return joined

    return _of_maps(merging, join)


def mean(merging: Merging) -> Column:
    """The mean of both, by their weights if they have some."""
    if merging.weights is None:
        return _averaged(merging, np.full(len(merging.rows), 0.5))
    old, new = merging.weights
    needed = ~merging.new[1]
    wrong = needed & ~(new >= 0)
    if wrong.any():
        got = new[np.flatnonzero(wrong)[0]]
        raise _refused(merging, wrong, got, f"a weight {merging.rule.weight!r} of 0 or more")
    with np.errstate(invalid="ignore"):
        share = new / (old + new)
    return _averaged(merging, np.where(np.isfinite(share), share, 1.0))


def moving_average(merging: Merging) -> Column:
    """What comes in by a share of alpha, what is stored by the rest."""
    return _averaged(merging, np.full(len(merging.rows), merging.rule.arguments["alpha"]))


def by_function(merging: Merging) -> Column:
    """What the user's function makes of both."""
    from .fields import Vector  # noqa: PLC0415
    from .ingest import field_column, vector_column  # noqa: PLC0415  (it imports schemas)
    from .read import public_column, with_nulls  # noqa: PLC0415

    item = merging.item
    sides = []
    for values, null in (merging.old, merging.new):
        any_null = null if null.any() else None
        if isinstance(item, Vector):
            shown = values.copy() if any_null is None else with_nulls(values.copy(), null)
        else:
            shown = public_column(item.type, values.copy(), any_null)
        sides.append(shown)
    made = merging.rule.arguments["fn"](*sides)
    try:
        if len(made) != len(merging.rows):
            raise _refused(merging, None, f"{len(made)} values", f"{len(merging.rows)} of {item!r}")
        if isinstance(item, Vector):
            columns: tuple[AnyArray, BoolArray | None] = vector_column(item, made)
        else:
            columns = field_column(item, made)
    except InvalidRowError as error:
        rows = merging.rows[list(error.rows)].tolist() if len(error.rows) else []
        message = f"{merging.rule!r} of field {item.name!r}: {error}"
        raise InvalidRowError(
            message, rows=rows, field=item.name, got=error.got, want=error.want
        ) from None
    values, missing = columns
    return values, np.zeros(len(values), dtype=np.bool_) if missing is None else missing


def by_lost_function(merging: Merging) -> Column:
    """Refuse: a file knows the name of a function, and not what it does."""
    message = f"field {merging.item.name!r} is merged by {merging.rule!r}: open the collection "
    raise SchemaError(message + "with the schema that has the function")


# --- The shapes that rules have -------------------------------------------------------------


def _either_known(first: Column, second: Column) -> Column:
    values = np.array(first[0])
    values[first[1]] = second[0][first[1]]
    return values, first[1] & second[1]


def _of_both(merging: Merging, operation: Callable[[AnyArray, AnyArray], AnyArray]) -> Column:
    """Combine where both are known; elsewhere, the one that is."""
    values, null = _either_known(merging.new, merging.old)
    known = ~merging.old[1] & ~merging.new[1]
    if known.all():
        return operation(merging.old[0], merging.new[0]), null
    values[known] = operation(merging.old[0][known], merging.new[0][known])
    return values, null


def _of_lists(
    merging: Merging,
    join: Callable[[list[Any], list[Any]], list[Any]],
    *,
    if_none: Callable[[list[Any]], list[Any]],
) -> Column:
    joined = []
    for old, old_null, new, new_null in _pairs(merging):
        if new_null:
            joined.append(None if old_null else old)
        else:
            joined.append(if_none(new) if old_null else join(old, new))
    return objects(joined), merging.old[1] & merging.new[1]


def _of_maps(
    merging: Merging, join: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
) -> Column:
    texts: list[str | None] = []
    for at, (old, old_null, new, new_null) in enumerate(_pairs(merging)):
        if new_null:
            texts.append(None if old_null else old)
            continue
        incoming = json.loads(new)
        check_map(merging.item.name, merging.rule, incoming, int(merging.rows[at]))
        stored = {} if old_null else json.loads(old)
        if not isinstance(stored, dict):
            stored = {}
        texts.append(encode_json(join(stored, incoming)))
    return objects(texts), merging.old[1] & merging.new[1]


def check_map(name: str, rule: MergeRule, value: Any, row: int) -> None:
    """Refuse what is no object, or lacks the times that the rule goes by.

    Raises
    ------
    InvalidRowError
    """
    wanted = "a JSON object"
    fine = isinstance(value, dict)
    member = rule.arguments["ts"]
    if fine and member is not None:
        wanted = f"a JSON object of objects with a number or a text {member!r}"
        fine = all(
            isinstance(entry, dict)
            and isinstance(entry.get(member), (int, float, str))
            and not isinstance(entry[member], bool)
            for entry in value.values()
        )
    if not fine:
        message = f"row {row}, field {name!r}: got {value!r}, wanted {wanted} for {rule!r}"
        raise InvalidRowError(message, rows=[row], field=name, got=value, want=wanted)


def _pairs(merging: Merging) -> Any:
    return zip(
        merging.old[0].tolist(),
        merging.old[1].tolist(),
        merging.new[0].tolist(),
        merging.new[1].tolist(),
        strict=True,
    )


def _averaged(merging: Merging, share: AnyArray) -> Column:
    """Return old + share * (new - old), for vectors of unit length again under cosine."""
    values, null = _either_known(merging.new, merging.old)
    known = ~merging.old[1] & ~merging.new[1]
    if not known.any():
        return values, null
    old = merging.old[0][known].astype(np.float64)
    new = merging.new[0][known].astype(np.float64)
    part = share[known] if old.ndim == 1 else share[known][:, None]
    averaged: AnyArray = (1.0 - part) * old + part * new
    if old.ndim == 2:
        from .fields import Vector  # noqa: PLC0415
        from .ingest import checked_vectors  # noqa: PLC0415  (it imports schemas)

        if isinstance(merging.item, Vector):
            averaged = checked_vectors(merging.item, averaged, merging.rows[known])
    values[known] = averaged
    return values, null


def _is_float(merging: Merging) -> bool:
    return bool(merging.new[0].dtype.kind == "f")


def _lesser(old: AnyArray, new: AnyArray) -> AnyArray:
    return np.where(new < old, new, old)


def _greater(old: AnyArray, new: AnyArray) -> AnyArray:
    return np.where(new > old, new, old)


def _refused(merging: Merging, wrong: BoolArray | None, got: Any, want: str) -> InvalidRowError:
    rows = (merging.rows if wrong is None else merging.rows[wrong]).tolist()
    name = merging.item.name
    where = f"row {rows[0]}, " if rows else ""
    message = f"{where}field {name!r}, {merging.rule!r}: got {got}, wanted {want}"
    return InvalidRowError(message, rows=rows, field=name, got=got, want=want)
