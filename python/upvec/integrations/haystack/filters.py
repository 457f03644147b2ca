"""Haystack's filters → the tree of ``integrations/filters.py``.

They mean what ``haystack.utils.filters`` says, with two differences: strings are ordered only as
dates in ISO 8601, and a stored value of another kind than that of the filter is in no order to it,
where Haystack raises for it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import dateutil.parser  # a dependency of haystack
from haystack.errors import FilterError

from upvec.errors import ExpressionError, SchemaError
from upvec.expression import Expression, FieldRef, bind
from upvec.integrations.documents import Layout
from upvec.integrations.filters import All, Any_, Filter, Not, Ref, Test, expression_of

__all__ = ["where_of"]

# Of what a document has besides its metadata, these can be asked for.
_ATTRIBUTES: Final = ("id", "content", "embedding")
_UNASKED: Final = ("blob", "score", "sparse_embedding")
_ORDER: Final = (">", ">=", "<", "<=")
_EVERYWHERE: Final = All(())
_NOWHERE: Final = Any_(())
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ].*)?", re.DOTALL)


def where_of(
    filters: Mapping[str, Any] | None, layout: Layout, types: Mapping[str, str]
) -> Expression | None:
    """Return the condition that a filter is, or None for that of all documents.

    Parameters
    ----------
    filters : mapping or None
        As :meth:`UpvecDocumentStore.filter_documents` takes them.
    layout, types
        Where metadata are, and of which types the fields are.

    Raises
    ------
    FilterError
        It is malformed, or does not fit a field of the schema.
    """
    if not filters:
        return None

    def ref_of(path: tuple[str, ...]) -> Ref:
        if path[0] == "meta":
            return layout.ref(path[1:])
        return FieldRef({"id": layout.key, "content": layout.text}.get(path[0], layout.vector))

    try:
        return bind(expression_of(_filter(filters), ref_of, layout.key), types).expression
    except (ExpressionError, SchemaError) as error:
        raise FilterError(str(error)) from error


def _filter(condition: Any) -> Filter:
    if not isinstance(condition, Mapping):
        raise FilterError(f"a condition is a dict, got {condition!r}")
    if "field" in condition:
        return _comparison(condition)
    _require(condition, "operator", "conditions")
    parts = tuple(_filter(part) for part in condition["conditions"])
    match condition["operator"]:
        case "AND":
            return All(parts)
        case "OR":
            return Any_(parts)
        case "NOT":
            return Not(All(parts))
    raise FilterError(f"operator: got {condition['operator']!r}, wanted 'AND', 'OR' or 'NOT'")


def _comparison(condition: Mapping[str, Any]) -> Filter:
    _require(condition, "operator", "value")
    field, symbol, value = (condition[name] for name in ("field", "operator", "value"))
    if not isinstance(field, str) or not field:
        raise FilterError(f"field: got {field!r}, wanted the name of one")
    path = _path(field)
    if symbol in {"!=", "not in"}:
        return Not(_compared(path, "==" if symbol == "!=" else "in", value))
    return _compared(path, symbol, value)


def _path(field: str) -> tuple[str, ...] | None:
    """Return where a field is; None: nowhere, as no document has it."""
    root, *rest = field.split(".")
    if root == "meta" and rest:
        return ("meta", *rest)
    if not rest and root in _ATTRIBUTES:
        return (root,)
    if root in _UNASKED or root == "meta":
        message = f"field {field!r}: wanted 'meta.' and a name, or one of {', '.join(_ATTRIBUTES)}"
        raise FilterError(message)
    return None if rest else ("meta", field)


def _compared(path: tuple[str, ...] | None, symbol: str, value: Any) -> Filter:
    match symbol:
        case "==":
            return _equals(path, value)
        case "in":
            if not isinstance(value, list):
                raise FilterError(f"'in' and 'not in' want a list, got {value!r}")
            return _is_in(path, value)
    if symbol not in _ORDER:
        known = "== != > >= < <= in not in"
        raise FilterError(f"operator: got {symbol!r}, wanted one of {known}")
    return _ordered(path, symbol, value)


def _equals(path: tuple[str, ...] | None, value: Any) -> Filter:
    if path is None:
        return _EVERYWHERE if value is None else _NOWHERE
    if value is None:
        return Test(path, "is null")
    value = _text_of(value)
    if _date(value) is not None:
        return Test(path, "equals, also as dates do,", value, _same_date, declared="==")
    return Test(path, "==", value)


def _is_in(path: tuple[str, ...] | None, values: list[Any]) -> Filter:
    values = [_text_of(value) for value in values]
    plain = [value for value in values if value is not None and _date(value) is None]
    if path is None or len(plain) < len(values):
        return Any_(tuple(_equals(path, value) for value in values))
    return Test(path, "in", plain)


def _ordered(path: tuple[str, ...] | None, symbol: str, value: Any) -> Filter:
    value = _text_of(value)
    if isinstance(value, (list, Mapping)):
        raise FilterError(f"{symbol!r} wants a number or a date, got {value!r}")
    if path is None or value is None:
        return _NOWHERE
    if isinstance(value, str):
        if _date(value) is None:
            raise FilterError(f"{symbol!r} compares strings as dates in ISO 8601, got {value!r}")
        return Test(path, f"{symbol} (as dates)", value, _DATE_TESTS[symbol], declared=symbol)
    return Test(path, symbol, value)


def _require(condition: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name not in condition:
            raise FilterError(f"{name!r} is missing in {dict(condition)!r}")


def _text_of(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (dt.datetime, dt.date)) else value


# --- Dates ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _parsed(text: str) -> dt.datetime | None:
    """Return a time in ISO 8601, of which the date is whole."""
    if _DATE.fullmatch(text) is None:
        return None
    try:
        return dt.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        pass
    try:
        return dateutil.parser.isoparse(text)
    except (ValueError, OverflowError):
        return None


def _date(value: Any) -> dt.datetime | None:
    return _parsed(value) if isinstance(value, str) else None


def _dates(value: Any, literal: Any) -> tuple[dt.datetime, dt.datetime] | None:
    """Return two dates; of which one names no zone, it is in that of the other."""
    left, right = _date(value), _date(literal)
    if left is None or right is None:
        return None
    if left.tzinfo is None:
        left = left.replace(tzinfo=right.tzinfo)
    if right.tzinfo is None:
        right = right.replace(tzinfo=left.tzinfo)
    return left, right


def _same_date(value: Any, literal: Any) -> bool:
    both = _dates(value, literal)
    return bool(value == literal) or (both is not None and both[0] == both[1])


def _later(value: Any, literal: Any) -> bool:
    both = _dates(value, literal)
    return both is not None and both[0] > both[1]


def _not_earlier(value: Any, literal: Any) -> bool:
    both = _dates(value, literal)
    return both is not None and both[0] >= both[1]


def _earlier(value: Any, literal: Any) -> bool:
    both = _dates(value, literal)
    return both is not None and both[0] < both[1]


def _not_later(value: Any, literal: Any) -> bool:
    both = _dates(value, literal)
    return both is not None and both[0] <= both[1]


_DATE_TESTS: Final = {">": _later, ">=": _not_earlier, "<": _earlier, "<=": _not_later}
