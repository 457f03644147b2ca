"""Dataclasses and pydantic models as rows, and pydantic models as schemas.

pydantic is not imported: what comes in as a model has imported it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import SchemaError
from .fields import ABSENT, Field, Vector

__all__ = ["as_mapping", "model_fields"]


def as_mapping(row: Any) -> Mapping[str, Any] | None:
    """Return a row as a mapping; None if it is none.

    Of a pydantic model, the fields that were never set are absent, unless a function of the model
    makes their default, which may be another one each time.
    """
    if isinstance(row, Mapping):
        return row
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {item.name: getattr(row, item.name) for item in dataclasses.fields(row)}
    if hasattr(row, "model_fields_set") and hasattr(row, "model_dump"):
        made = {
            name
            for name, info in type(row).model_fields.items()
            if info.default_factory is not None
        }
        unsaid = set(type(row).model_fields) - row.model_fields_set - made
        dumped: dict[str, Any] = row.model_dump(exclude=unsaid)
        nested = {name for name, value in dumped.items() if not _is_plain(value)}
        if nested:
            # Sets, UUIDs, models with dates in them: pydantic knows their JSON.
            dumped |= row.model_dump(mode="json", include=nested)
        return dumped
    return None


_PLAIN_TYPES = (str, bool, int, float, bytes, dt.date, np.ndarray, np.generic, type(None))


def _is_plain(value: Any) -> bool:
    """Return whether a field can take a value as it is."""
    if isinstance(value, (list, tuple)):
        return all(type(item) in {str, int, float} for item in value)
    return isinstance(value, _PLAIN_TYPES)


def model_fields(model: Any, primary: str, metric: str) -> Iterable[Field | Vector]:
    """Yield the fields of a pydantic model; see :meth:`Schema.from_pydantic`."""
    infos = getattr(model, "model_fields", None) if isinstance(model, type) else None
    if not isinstance(infos, Mapping):
        raise SchemaError(f"from_pydantic: got {model!r}; wanted a pydantic (version 2) model")
    if primary not in infos:
        raise SchemaError(f"from_pydantic: {model.__name__} has no field {primary!r} as its key")
    for name, info in infos.items():
        yield _field(name, info, primary, metric)


def _field(name: str, info: Any, primary: str, metric: str) -> Field | Vector:
    kind, nullable = _without_none(info.annotation)
    for mark in info.metadata:
        if isinstance(mark, (Field, Vector)):
            if mark.name != name:
                raise SchemaError(f"from_pydantic: field {name!r} is marked as {mark!r}")
            return mark
    dim = _dim(kind, info)
    if dim is not None:
        return Vector(name, dim, metric=metric, nullable=nullable)
    default: Any = ABSENT
    if info.default_factory is None and not info.is_required() and name != primary:
        default = _plain(info.default)
        nullable = nullable or default is None
    return Field(
        name,
        _type_of(name, kind),
        primary=name == primary,
        nullable=nullable,
        default=ABSENT if default is None else default,
        check=_check(name, info),
    )


def _plain(default: Any) -> Any:
    if isinstance(default, enum.Enum):
        return default.value
    if _is_plain(default):
        return default
    from pydantic_core import to_jsonable_python  # noqa: PLC0415  (the model has imported it)

    return to_jsonable_python(default)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Return ``X`` and True for ``X | None``."""
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        rest = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(rest) == 1:
            return rest[0], len(typing.get_args(annotation)) == 2
        return Any, type(None) in typing.get_args(annotation)
    return annotation, False


def _dim(kind: Any, info: Any) -> int | None:
    """Return the length of a list of floats that has but one."""
    if typing.get_origin(kind) is not list or typing.get_args(kind) != (float,):
        return None
    bounds = {
        name: getattr(mark, name)
        for mark in info.metadata
        for name in ("min_length", "max_length")
        if getattr(mark, name, None) is not None
    }
    low = bounds.get("min_length")
    return int(low) if low and low == bounds.get("max_length") else None


_PLAIN: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (int, "int64"),
    (float, "float64"),
    (str, "string"),
    (bytes, "bytes"),
    (dt.date, "timestamp"),
)
_LISTS = {str: "list<string>", int: "list<int64>", float: "list<float64>"}


def _type_of(name: str, kind: Any) -> str:
    if typing.get_origin(kind) in {list, set, frozenset, tuple}:
        of = [part for part in typing.get_args(kind) if part is not Ellipsis]
        return _LISTS.get(of[0], "json") if len(of) == 1 else "json"
    if typing.get_origin(kind) is typing.Literal:
        made = {type(value) for value in typing.get_args(kind)}
        kind = made.pop() if len(made) == 1 else Any
    if isinstance(kind, type):
        for python, found in _PLAIN:
            if issubclass(kind, python):
                return found
        if issubclass(kind, enum.Enum):
            message = f"field {name!r} is {kind.__name__}, whose values have no one type"
            raise SchemaError(f"from_pydantic: {message}; derive it from str or int too")
    return "json"


_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _check(name: str, info: Any) -> str | None:
    """Return what the model asks of a field as a condition, as far as one can say it."""
    terms, pattern = [], None
    for mark in info.metadata:
        for word, symbol in _BOUNDS.items():
            bound = getattr(mark, word, None)
            if isinstance(bound, (int, float)) and math.isfinite(bound):
                terms.append(f"{name} {symbol} {bound!r}")
        pattern = getattr(mark, "pattern", None) or pattern
    if terms:
        return " and ".join(terms)
    # pydantic looks for the pattern anywhere in the text; a check must match all of it.
    return None if pattern is None else f"(?s:.*?)(?:{pattern})(?s:.*)"
