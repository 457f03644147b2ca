"""Values computed from the fields of a row: ``"price * 1.25"``, ``"first + ' ' + last"``.

What a new field is filled with when a schema changes. Read by Python's parser; only the nodes named
below are accepted, and nothing is executed. Types are checked against the schema before any row is
looked at. Where an operand is null, the value is. Integers are exact; whether a value fits its
field is for the field to say.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ExpressionError
from .expression import Expression, FieldRef, Source, Types, bind

__all__ = ["Derived", "derive"]

AnyArray: TypeAlias = npt.NDArray[Any]
Cells: TypeAlias = "tuple[AnyArray, npt.NDArray[np.bool_] | None]"
Evaluate: TypeAlias = "Callable[[Source], Cells]"

_NUMBERS: Final = frozenset({"int64", "float64"})
_OPERATORS: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_MAX_DEPTH: Final = 200

_METHODS: Final[dict[str, Callable[[str], str]]] = {
    "lower": str.lower,
    "upper": str.upper,
    "strip": str.strip,
}


@dataclass(frozen=True)
class Derived:
    """A value of every row, and its type."""

    type: str
    evaluate: Evaluate


def derive(expression: Expression | str, types: Types) -> Derived:
    """Check a value against the types of the fields.

    Parameters
    ----------
    expression : str or Expression
        A field, a number, a text or ``true``/``false``; ``+ - * / // %`` of numbers, ``+`` of
        texts, ``.lower() .upper() .strip()`` of a text; or a condition, whose value is a bool.

    Raises
    ------
    ExpressionError
        It does not parse, a field is unknown, or a type does not fit.

    Examples
    --------
    >>> derive("price * 2", {"price": "int64"}).type, derive("price / 2", {"price": "int64"}).type
    ('int64', 'float64')
    """
    if isinstance(expression, FieldRef):
        return _field(expression, types)
    if isinstance(expression, str):
        try:
            tree: ast.expr | None = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            tree = None  # perhaps a condition in SQL's spelling
        if tree is not None and not isinstance(tree, (ast.Compare, ast.BoolOp)):
            _check_depth(tree, expression)
            try:
                return _derived(tree, types, expression)
            except _NoValueError:
                pass
    predicate = bind(expression, types)

    def evaluate(source: Source) -> Cells:
        true = predicate.matches(source)
        null = ~true & ~predicate.violated(source)
        return true, null if null.any() else None

    return Derived("bool", evaluate)


def _check_depth(tree: ast.expr, text: str) -> None:
    """Refuse what is nested deeper than Python's own stack is sure to allow."""
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            message = f"the expression is nested deeper than {_MAX_DEPTH}"
            raise ExpressionError(message, expression=text)
        level = [child for node in level for child in ast.iter_child_nodes(node)]


class _NoValueError(Exception):
    """The node is none of a value: perhaps one of a condition."""


def _derived(node: ast.expr, types: Types, text: str) -> Derived:
    match node:
        case ast.Name(name) if name in types or name.lower() not in {"true", "false"}:
            return _field(FieldRef(name), types)
        case ast.Name(name):
            return _constant("bool", name.lower() == "true")
        case ast.Constant(value) if type(value) in _CONSTANTS:
            return _constant(_CONSTANTS[type(value)], value)
        case ast.UnaryOp(ast.USub(), operand):
            return _arithmetic(
                ast.Sub(), _constant("int64", 0), _derived(operand, types, text), text
            )
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            return _arithmetic(op, _derived(left, types, text), _derived(right, types, text), text)
        case ast.Call(ast.Attribute(subject, method), [], []) if method in _METHODS:
            return _called(_derived(subject, types, text), method, text)
    raise _NoValueError


_CONSTANTS: Final[dict[type, str]] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
}


def _field(field: FieldRef, types: Types) -> Derived:
    return Derived(field.type_in(types), lambda source: source.column(field.name))


def _constant(kind: str, value: Any) -> Derived:
    # One value stands for all rows: numpy spreads it.
    cell = np.array([value], dtype=object)
    return Derived(kind, lambda _: (cell, None))


def _arithmetic(op: ast.operator, left: Derived, right: Derived, text: str) -> Derived:
    kinds = {left.type, right.type}
    if kinds <= _NUMBERS:
        kind = "float64" if "float64" in kinds or isinstance(op, ast.Div) else "int64"
    elif kinds == {"string"} and isinstance(op, ast.Add):
        kind = "string"
    else:
        what = type(op).__name__.lower()
        raise ExpressionError(
            f"in {text!r}: no {what} of {left.type} and {right.type}", expression=text
        )
    compute = _OPERATORS[type(op)]

    def evaluate(source: Source) -> Cells:
        (a, a_null), (b, b_null) = left.evaluate(source), right.evaluate(source)
        null = a_null if b_null is None else b_null if a_null is None else a_null | b_null
        # Objects, not numpy's integers, which wrap around silently.
        a, b = np.broadcast_arrays(a.astype(object), b.astype(object))
        values = np.full(a.shape, None)
        known = slice(None) if null is None else ~null
        try:
            values[known] = compute(a[known], b[known])
        except (ZeroDivisionError, OverflowError) as error:
            why = "a divisor is zero" if isinstance(error, ZeroDivisionError) else str(error)
            raise ExpressionError(f"in {text!r}: {why}", expression=text) from None
        return values, null

    return Derived(kind, evaluate)


def _called(subject: Derived, method: str, text: str) -> Derived:
    if subject.type != "string":
        message = f"in {text!r}: {method}() is for a string, not for {subject.type}"
        raise ExpressionError(message, expression=text)
    call = _METHODS[method]

    def evaluate(source: Source) -> Cells:
        values, null = subject.evaluate(source)
        cells = np.full(values.shape, None)
        known = slice(None) if null is None else ~null
        cells[known] = [call(value) for value in values[known].tolist()]
        return cells, null

    return Derived("string", evaluate)
