"""LangChain's filters on metadata → the tree of ``integrations/filters.py``.

What its stores agree on is the dialect of MongoDB: ``{"year": {"$gte": 2000}, "author": "Ada"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from upvec.errors import ExpressionError
from upvec.integrations.filters import All, Any_, Filter, Not, Test

__all__ = ["filter_of"]

_ORDER: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_WORDS: Final = {
    "$contains": "contains",
    "$startswith": "startswith",
    "$like": "like",
    "$ilike": "like, ignoring case",
}
_OPERATORS: Final = (
    "$eq $ne $gt $gte $lt $lte $in $nin $between $exists $contains $startswith $like $ilike $not"
)


def filter_of(wanted: Mapping[Any, Any]) -> Filter:
    """Read a filter.

    Parameters
    ----------
    wanted : mapping
        Names of metadata, with a value that they must equal, or with operators: ``$eq $ne $gt $gte
        $lt $lte $in $nin $between $exists $contains $startswith $like $ilike $not``; and ``$and``,
        ``$or``, ``$nor`` with a list of filters, ``$not`` with one. All must hold. A dot in a name
        leads into nested metadata; a tuple of names does too, and has dots as they are. A metadatum
        that a document does not have equals None, and fulfils ``$ne``, ``$nin`` and ``$not``.

    Raises
    ------
    ExpressionError
        An unknown operator, or a value that it cannot have.

    Examples
    --------
    >>> filter_of({"author": "Ada"})
    Test(path=('author',), word='==', value='Ada', test=None, declared=None)
    """
    _check_mapping("a filter", wanted)
    return _all([_entry(name, value) for name, value in wanted.items()])


def _all(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _entry(name: Any, value: Any) -> Filter:
    if isinstance(name, str) and name.startswith("$"):
        return _logical(name, value)
    path = tuple(name.split(".")) if isinstance(name, str) else name
    if not isinstance(path, tuple) or not path or not all(isinstance(part, str) for part in path):
        raise ExpressionError(f"filter: got {name!r}, wanted the name of a metadatum")
    return _compared(path, value)


def _logical(name: str, value: Any) -> Filter:
    if name == "$not":
        return Not(filter_of(value))
    if name not in {"$and", "$or", "$nor"}:
        raise ExpressionError(
            f"filter: unknown {name!r}; wanted $and, $or, $nor or $not, or a name"
        )
    if not isinstance(value, (list, tuple)) or not value:
        raise ExpressionError(f"filter: {name} wants a list of filters, got {value!r}")
    parts = tuple(filter_of(part) for part in value)
    if name == "$and":
        return All(parts)
    return Any_(parts) if name == "$or" else Not(Any_(parts))


def _compared(path: tuple[str, ...], value: Any) -> Filter:
    if not isinstance(value, Mapping):
        return _equals(path, value)
    names = list(value)
    if not names or not all(isinstance(name, str) and name.startswith("$") for name in names):
        # Not a comparison with the whole: whoever writes it means a part.
        message = f"filter: {'.'.join(path)!r} is compared with {value!r}; wanted operators"
        raise ExpressionError(f"{message} ({_OPERATORS}), or '{'.'.join(path)}.name' for a part")
    return _all([_operator(path, name, operand) for name, operand in value.items()])


def _operator(path: tuple[str, ...], name: str, value: Any) -> Filter:  # noqa: PLR0911
    match name:
        case "$eq":
            return _equals(path, value)
        case "$ne":
            return Not(_equals(path, value))
        case "$in":
            return _is_in(path, _listed(path, name, value))
        case "$nin":
            return Not(_is_in(path, _listed(path, name, value)))
        case "$between":
            low, high = _listed(path, name, value, length=2)
            return All((_ordered(path, "$gte", low), _ordered(path, "$lte", high)))
        case "$exists":
            if not isinstance(value, bool):
                raise _wrong(path, name, value, "True or False")
            exists = Test(path, "exists")
            return exists if value else Not(exists)
        case "$not":
            return Not(_compared(path, value))
        case "$startswith" | "$like" | "$ilike" if not isinstance(value, str):
            raise _wrong(path, name, value, "a string")
    if name in _WORDS:
        return Test(path, _WORDS[name], value)
    if name in _ORDER:
        return _ordered(path, name, value)
    message = f"filter: {'.'.join(path)!r}: unknown operator {name!r}; wanted one of {_OPERATORS}"
    raise ExpressionError(message)


def _equals(path: tuple[str, ...], value: Any) -> Filter:
    return Test(path, "is null") if value is None else Test(path, "==", value)


def _is_in(path: tuple[str, ...], values: list[Any]) -> Filter:
    known = Test(path, "in", [value for value in values if value is not None])
    return known if None not in values else Any_((known, Test(path, "is null")))


def _ordered(path: tuple[str, ...], name: str, value: Any) -> Filter:
    if value is None or isinstance(value, (list, tuple, Mapping)):
        raise _wrong(path, name, value, "a number or a string")
    return Test(path, _ORDER[name], value)


def _listed(
    path: tuple[str, ...], name: str, value: Any, *, length: int | None = None
) -> list[Any]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise _wrong(path, name, value, "a list")
    if length is not None and len(value) != length:
        raise _wrong(path, name, value, f"a list of {length}")
    return list(value)


def _check_mapping(what: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ExpressionError(f"{what}: got {type(value).__name__} {value!r}, wanted a dict")


def _wrong(path: tuple[str, ...], name: str, value: Any, wanted: str) -> ExpressionError:
    return ExpressionError(f"filter: {'.'.join(path)!r}: {name} wants {wanted}, got {value!r}")
