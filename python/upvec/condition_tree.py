"""Conditions that were found to fit a schema, as they are evaluated: :class:`Condition`.

An expression becomes a tree of comparisons, of which each has a key: equal for comparisons that
are true for the same rows of any state, whatever they are written like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from .expression import (
    ELEMENT_TYPES,
    Both,
    Compare,
    Contains,
    Expression,
    FieldRef,
    IsIn,
    IsNull,
    Not,
    Predicate,
    StartsWith,
    bind,
    literal_of,
)
from .json_path import JsonTest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .expression import Evaluate
    from .schema import Schema

__all__ = ["Condition", "Join", "Leaf", "Negation", "Node", "condition_of", "leaf_of", "leaves_of"]


@dataclass(frozen=True)
class Leaf:
    """A single comparison.

    Attributes
    ----------
    fields : tuple of str
    literal : object
        What is compared with, in the form of the field's type.
    """

    expression: Expression
    fields: tuple[str, ...]
    literal: Any
    key: Any
    evaluate: Evaluate


@dataclass(frozen=True)
class Join:
    """Parts that are all joined by ``and``, or all by ``or``."""

    expression: Both
    parts: tuple[Node, ...]
    key: Any


@dataclass(frozen=True)
class Negation:
    """What is true where its inner part is false."""

    expression: Not
    inner: Node
    key: Any


Node: TypeAlias = "Leaf | Join | Negation"


class Condition(Predicate):
    """A predicate of the rows of a schema.

    Attributes
    ----------
    node : Leaf, Join or Negation
    names : tuple of str
        The fields it depends on, in alphabetical order.
    has_vectors : bool
        Whether one of them is a vector field: whether it is null.
    """

    __slots__ = ("has_vectors", "names", "node")

    def __init__(self, predicate: Predicate, schema: Schema) -> None:
        super().__init__(predicate.expression, predicate.evaluate)
        self.node = _node_of(predicate.expression, schema)
        self.names = tuple(sorted({name for leaf in leaves_of(self.node) for name in leaf.fields}))
        self.has_vectors = not schema.fields.keys() >= set(self.names)


def condition_of(schema: Schema, where: Expression | str) -> Condition:
    """Check a condition, or its string form, against a schema.

    Raises
    ------
    ExpressionError
        The string does not parse, a field is unknown, or a type does not fit.
    """
    return Condition(bind(where, schema.types), schema)


def leaves_of(node: Node) -> Iterable[Leaf]:
    """Yield the comparisons of a condition, from left to right."""
    match node:
        case Leaf():
            yield node
        case Negation(inner=inner):
            yield from leaves_of(inner)
        case Join(parts=parts):
            for part in parts:
                yield from leaves_of(part)


def leaf_of(expression: Expression, schema: Schema) -> Leaf:
    """Return a single comparison."""
    evaluate = expression.compiled(schema.types)
    symbol, fields, literal = _anatomy(expression, schema)
    signed = tuple((schema.numbers[name], schema.types[name]) for name in fields)
    told: Any = (type(literal), literal)
    if isinstance(literal, tuple):
        # 1, 1.0 and True are the same to Python.
        told = tuple((type(one), one) for one in literal)
    return Leaf(expression, fields, literal, (symbol, signed, told), evaluate)


def _node_of(expression: Expression, schema: Schema) -> Node:
    if isinstance(expression, Not):
        inner = _node_of(expression.inner, schema)
        return Negation(expression, inner, ("not", inner.key))
    if isinstance(expression, Both):
        parts = tuple(_node_of(part, schema) for part in _parts(expression))
        return Join(expression, parts, (expression.word, *(part.key for part in parts)))
    return leaf_of(expression, schema)


def _parts(expression: Both) -> list[Expression]:
    """Return what is joined by one word, in order."""
    parts: list[Expression] = []
    waiting: list[Expression] = [expression]
    while waiting:  # not by recursion: it may be as many as a program likes
        one = waiting.pop()
        if isinstance(one, Both) and one.word == expression.word:
            waiting += [one.right, one.left]
        else:
            parts.append(one)
    return parts


def _anatomy(  # noqa: PLR0911  (one per kind)
    expression: Expression, schema: Schema
) -> tuple[str, tuple[str, ...], Any]:
    """Return what tells a comparison from others: its kind, its fields and its literal."""
    types = schema.types
    match expression:
        case FieldRef():
            return "is true", (expression.name,), None
        case Compare(left=left, right=FieldRef() as right):
            return expression.operator, (left.name, right.name), None
        case Compare(left=left):
            literal = literal_of(expression.right, types[left.name], left.name)
            return expression.operator, (left.name,), literal
        case IsIn(field=ref):
            kind = types[ref.name]
            literals = (literal_of(value, kind, ref.name) for value in expression.values)
            return "in", (ref.name,), tuple(literals)
        case IsNull(field=ref):
            return "is null", (ref.name,), None
        case Contains(field=ref):
            element = ELEMENT_TYPES.get(types[ref.name], types[ref.name])
            return "contains", (ref.name,), literal_of(expression.value, element, ref.name)
        case StartsWith(field=ref):
            prefix = literal_of(expression.prefix, types[ref.name], ref.name)
            return "startswith", (ref.name,), prefix
        case JsonTest(field=ref):
            told = (expression.path, expression.word, expression.literal_text)
            return "json", (ref.name,), told
    raise TypeError(f"a condition of an unknown kind: {type(expression).__name__}")
