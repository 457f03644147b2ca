"""LlamaIndex's filters on metadata → the tree of ``integrations/filters.py``.

They mean what ``llama_index.core.vector_stores.utils`` says, with one difference: a stored value of
another kind than that of the filter does not fulfil it, where LlamaIndex raises for some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from upvec.errors import ExpressionError
from upvec.expression import FieldRef
from upvec.integrations.filters import All, Any_, Filter, Not, Test, expression_of

if TYPE_CHECKING:
    from upvec.expression import Expression
    from upvec.integrations.documents import Layout
    from upvec.integrations.filters import Ref

__all__ = ["REF_DOC_ID", "where_of"]

REF_DOC_ID: Final = "ref_doc_id"

# What LlamaIndex calls the document of a node among its metadata.
_DOCUMENT_KEYS: Final = frozenset({"doc_id", "document_id", REF_DOC_ID})
_NOWHERE: Final = Any_(())
_COMPARED: Final = {
    FilterOperator.EQ: "==",
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}
_TEXTS: Final = {
    FilterOperator.TEXT_MATCH: "has text",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "has text, ignoring case",
}


def where_of(
    filters: MetadataFilters | None, layout: Layout, types: Mapping[str, str]
) -> Expression | None:
    """Return the condition that filters are, or None for that of all nodes.

    Parameters
    ----------
    filters : MetadataFilters or None
        Nested ones too.
    layout, types
        Where metadata are, and of which types the fields are.

    Raises
    ------
    ExpressionError, SchemaError
        A value that an operator cannot have, or that does not fit a field of the schema.
    """
    if filters is None or not filters.filters:
        return None

    def ref_of(path: tuple[str, ...]) -> Ref:
        if path[0] in _DOCUMENT_KEYS and REF_DOC_ID in types:
            return FieldRef(REF_DOC_ID)
        return layout.ref(path)

    declared = {name: types[name] for name in layout.declared}
    return expression_of(_all_of(filters, declared), ref_of, layout.key)


def _all_of(filters: MetadataFilters, types: Mapping[str, str]) -> Filter:
    parts = tuple(
        _all_of(part, types) if isinstance(part, MetadataFilters) else _one(part, types)
        for part in filters.filters
    )
    match filters.condition or FilterCondition.AND:
        case FilterCondition.AND:
            return All(parts)
        case FilterCondition.OR:
            return Any_(parts)
        case FilterCondition.NOT:
            return Not(Any_(parts)) if parts else All(())
    raise ExpressionError(f"filters: unknown condition {filters.condition!r}")


def _one(wanted: MetadataFilter, types: Mapping[str, str]) -> Filter:  # noqa: PLR0911  (one each)
    path, value, symbol = (wanted.key,), wanted.value, wanted.operator
    match symbol:
        case FilterOperator.NE:
            return Not(_compared(path, FilterOperator.EQ, value))
        case FilterOperator.IN:
            return Test(path, "in", _listed(wanted))
        case FilterOperator.NIN:
            return Not(Test(path, "in", _listed(wanted)))
        case FilterOperator.CONTAINS:
            return _NOWHERE if value is None else Test(path, "contains", value)
        case FilterOperator.ANY:
            return Any_(tuple(Test(path, "contains", one) for one in _listed(wanted)))
        case FilterOperator.ALL:
            parts = tuple(Test(path, "contains", one) for one in _listed(wanted))
            return All((Not(Test(path, "is null")), *parts))
        case FilterOperator.IS_EMPTY:
            return _is_empty(path, types)
    if symbol in _TEXTS:
        if not isinstance(value, str):
            raise _wrong(wanted, "a string")
        return Test(path, _TEXTS[symbol], value)
    if symbol in _COMPARED:
        return _compared(path, symbol, value)
    raise ExpressionError(f"filter on {wanted.key!r}: unknown operator {symbol!r}")


def _compared(path: tuple[str, ...], symbol: FilterOperator, value: Any) -> Filter:
    # A metadatum that is null fulfils none but NE and NIN, also where the value is null.
    return _NOWHERE if value is None else Test(path, _COMPARED[symbol], value)


def _is_empty(path: tuple[str, ...], types: Mapping[str, str]) -> Filter:
    null = Test(path, "is null")
    kind = types.get(path[0])
    if kind is None or kind == "json":
        return Any_((null, Test(path, "==", ""), Test(path, "==", [])))
    if kind == "string":
        return Any_((null, Test(path, "==", "")))
    if kind.startswith("list<"):
        message = f"filter on {path[0]!r}: is_empty is not told of a {kind} field of the schema"
        raise ExpressionError(message, field=path[0])
    return null


def _listed(wanted: MetadataFilter) -> list[Any]:
    if not isinstance(wanted.value, list):
        raise _wrong(wanted, "a list")
    return list(wanted.value)


def _wrong(wanted: MetadataFilter, kind: str) -> ExpressionError:
    message = f"filter on {wanted.key!r}: {wanted.operator.value!r} wants {kind}"
    return ExpressionError(f"{message}, got {wanted.value!r}", field=wanted.key)
