"""What values there are among metadata: kinds, extremes and different ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from upvec.json_text import encode_json

__all__ = ["described_types", "distinct", "extremes", "named"]


def named(field: str) -> str:
    """Return the name of a metadatum without ``meta.`` before it."""
    return field.removeprefix("meta.")


def described_types(metadatas: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the type of each metadatum, by name; the last value tells."""
    types: dict[str, str] = {}
    for metadata in metadatas:
        for name, value in metadata.items():
            if value is not None:
                types[name] = _type(value)
    return {name: {"type": kind} for name, kind in types.items()}


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else "keyword"


def extremes(metadatas: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the least and the greatest number or string; None where they are in no order."""
    values = [
        metadata[name]
        for metadata in metadatas
        if isinstance(metadata.get(name), (int, float, str))
    ]
    try:
        return {"min": min(values, default=None), "max": max(values, default=None)}
    except TypeError:
        return {"min": None, "max": None}


def distinct(metadatas: Iterable[Mapping[str, Any]], name: str, *, by_type: bool) -> list[Any]:
    """Return different values; ``by_type`` tells 1, 1.0 and True apart."""
    found: dict[Any, Any] = {}
    for metadata in metadatas:
        value = metadata.get(name)
        if value is not None:
            found.setdefault(_key(value, by_type=by_type), value)
    return list(found.values())


def _key(value: Any, *, by_type: bool) -> Any:
    kind = type(value).__name__ if by_type else ""
    if isinstance(value, (list, dict)):
        return type(value).__name__, encode_json(value)
    return kind, value
