"""Conditions over fields: ``col("age") >= 30``, or the same as a string.

An :class:`Expression` is a small tree that knows nothing of stored rows. :func:`bind`
checks it against the types of the fields and gives a :class:`Predicate`, which turns
columns into a mask. Nulls follow SQL: a comparison with null is neither true nor false,
its negation is not either, and only rows for which the whole is true are kept.

Strings are read by Python's own parser after SQL's spellings (``=``, ``<>``, ``AND``,
``OR``, ``NOT``, ``IS NULL``, ``IN``, ``BETWEEN``, ``TRUE``) have been replaced, and only
the few kinds of nodes that are named below are accepted. Nothing is ever executed.
"""

from __future__ import annotations

import ast
import copy
import datetime as dt
import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import ExpressionError

if TYPE_CHECKING:
    from .json_path import JsonRef

__all__ = ["Expression", "FieldRef", "Predicate", "bind", "col", "parse", "renamed"]

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
# Where an expression is true, and where it is null (None: nowhere).
Truth = tuple[BoolArray, "BoolArray | None"]


class Source(Protocol):
    """Where a predicate takes its columns from."""

    def column(self, name: str) -> tuple[AnyArray, BoolArray | None]:
        """Return the values and the null mask of a field."""


# What the two rows that meet in an upsert are called in its condition.
SIDES = ("old", "new")

Evaluate = Callable[[Source], Truth]
Types = Mapping[str, str]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NUMERIC = frozenset({"int64", "float64"})
_COMPARABLE = frozenset({"string", "int64", "float64", "bool", "timestamp", "bytes"})
ELEMENT_TYPES = {"list<string>": "string", "list<int64>": "int64", "list<float64>": "float64"}


class Expression:
    """A condition; combine with ``&``, ``|`` and ``~``.

    Examples
    --------
    >>> (col("age") >= 30) & ~col("city").isin(["Oslo", "Bergen"])
    (age >= 30 and not city in ['Oslo', 'Bergen'])
    >>> parse("age >= 30 AND city NOT IN ('Oslo', 'Bergen')").fields() == {"age", "city"}
    True
    """

    __slots__ = ()

    def __and__(self, other: Expression) -> Expression:
        return Both("and", self, _expression(other))

    def __or__(self, other: Expression) -> Expression:
        return Both("or", self, _expression(other))

    def __invert__(self) -> Expression:
        return Not(self)

    def __bool__(self) -> bool:
        message = "an expression has no truth value: combine with & | ~, not with and, or, not"
        raise ExpressionError(message, expression=str(self))

    def fields(self) -> frozenset[str]:
        """Return the names of all fields that the expression mentions."""
        raise NotImplementedError

    def compiled(self, types: Types) -> Evaluate:
        """Return the evaluation of this condition over fields of these types."""
        raise NotImplementedError


class FieldRef(Expression):
    """A field by name: what :func:`col` gives. By itself, a condition if it is a bool."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return Compare("==", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return Compare("!=", self, other)

    def __lt__(self, other: object) -> Expression:
        return Compare("<", self, other)

    def __le__(self, other: object) -> Expression:
        return Compare("<=", self, other)

    def __gt__(self, other: object) -> Expression:
        return Compare(">", self, other)

    def __ge__(self, other: object) -> Expression:
        return Compare(">=", self, other)

    def __hash__(self) -> int:
        return hash(self.name)

    def isin(self, values: Iterable[Any]) -> Expression:
        """Return the condition that the field is one of ``values``."""
        if isinstance(values, (str, bytes)):
            message = f"isin() wants a list of values, got {values!r}"
            raise ExpressionError(message, field=self.name)
        return IsIn(self, tuple(values))

    def is_null(self) -> Expression:
        """Return the condition that the field is null."""
        return IsNull(self)

    def contains(self, value: Any) -> Expression:
        """Return the condition that a string has ``value`` in it, or a list has it as element."""
        return Contains(self, value)

    def startswith(self, prefix: str) -> Expression:
        """Return the condition that a string begins with ``prefix``."""
        return StartsWith(self, prefix)

    def between(self, low: Any, high: Any) -> Expression:
        """Return the condition that the field is at least ``low`` and at most ``high``."""
        return Both("and", Compare(">=", self, low), Compare("<=", self, high))

    def __getitem__(self, key: str) -> JsonRef:
        """Return what lies under a key of a json field, to be compared as a field is."""
        from .json_path import JsonRef  # noqa: PLC0415  (it imports this module)

        return JsonRef(self, (key,))

    def fields(self) -> frozenset[str]:
        """Return the name of the field."""
        return frozenset({self.name})

    def type_in(self, types: Types) -> str:
        """Return the type of the field."""
        try:
            return types[self.name]
        except KeyError:
            known = ", ".join(types) or "none"
            message = f"unknown field {self.name!r}; the fields are: {known}"
            raise ExpressionError(message, field=self.name) from None

    def compiled(self, types: Types) -> Evaluate:
        """Return the evaluation of a bool field."""
        if self.type_in(types) != "bool":
            message = f"field {self.name!r} is {types[self.name]}; a condition must be bool"
            raise ExpressionError(message, field=self.name)

        def evaluate(source: Source) -> Truth:
            values, null = source.column(self.name)
            return (values.astype(np.bool_) if null is None else values & ~null), null

        return evaluate

    def __repr__(self) -> str:
        return self.name


class Compare(Expression):
    __slots__ = ("left", "operator", "right")

    def __init__(self, symbol: str, left: FieldRef, right: Any) -> None:
        self.operator = symbol
        self.left = left
        self.right = right

    def fields(self) -> frozenset[str]:
        other = self.right.fields() if isinstance(self.right, FieldRef) else frozenset()
        return self.left.fields() | other

    def compiled(self, types: Types) -> Evaluate:
        kind = self.left.type_in(types)
        if kind not in _COMPARABLE or (kind == "bool" and self.operator not in {"==", "!="}):
            message = f"field {self.left.name!r} is {kind}, which has no {self.operator}"
            raise ExpressionError(message, expression=str(self), field=self.left.name)
        compare = _OPERATORS[self.operator]
        if isinstance(self.right, FieldRef):
            return self._bind_fields(types, kind, compare)
        if isinstance(self.right, Expression):
            raise ExpressionError("a field is compared with a value or a field, not a condition")
        literal = literal_of(self.right, kind, self.left.name)
        if kind in {"string", "bytes"}:
            # By itself numpy would make an array of fixed width of it, and lose zeros at the end.
            literal = np.array(literal, dtype=object)
        name = self.left.name

        def evaluate(source: Source) -> Truth:
            values, null = source.column(name)
            return _where_known(null, lambda v: compare(v, literal), values)

        return evaluate

    def _bind_fields(self, types: Types, kind: str, compare: Callable[[Any, Any], Any]) -> Evaluate:
        left, right = self.left, self.right
        other = right.type_in(types)
        if other != kind and not {kind, other} <= _NUMERIC:
            message = f"cannot compare {left.name!r} ({kind}) with {right.name!r} ({other})"
            raise ExpressionError(message, expression=str(self), field=right.name)

        def evaluate(source: Source) -> Truth:
            values, null = source.column(left.name)
            others, other_null = source.column(right.name)
            either = _either(null, other_null)
            return _where_known(either, compare, values, others)

        return evaluate

    def __repr__(self) -> str:
        return f"{self.left} {self.operator} {_shown(self.right)}"


class IsIn(Expression):
    __slots__ = ("field", "values")

    def __init__(self, field: FieldRef, values: tuple[Any, ...]) -> None:
        self.field = field
        self.values = values

    def fields(self) -> frozenset[str]:
        return self.field.fields()

    def compiled(self, types: Types) -> Evaluate:
        kind, name = self.field.type_in(types), self.field.name
        if kind not in _COMPARABLE:
            raise ExpressionError(f"field {name!r} is {kind}, which has no isin()", field=name)
        literals = [literal_of(value, kind, name) for value in self.values]
        if kind in {"string", "bytes"}:
            wanted = frozenset(literals)

            def evaluate_objects(source: Source) -> Truth:
                values, null = source.column(name)
                hit = np.fromiter((v in wanted for v in values.tolist()), np.bool_, len(values))
                return (hit if null is None else hit & ~null), null

            return evaluate_objects
        arrays = _by_dtype(kind, literals)

        def evaluate(source: Source) -> Truth:
            values, null = source.column(name)
            hit = np.zeros(len(values), dtype=np.bool_)
            for array in arrays:
                hit |= np.isin(values.astype(array.dtype, copy=False), array)
            return (hit if null is None else hit & ~null), null

        return evaluate

    def __repr__(self) -> str:
        return f"{self.field} in [{', '.join(map(_shown, self.values))}]"


class IsNull(Expression):
    __slots__ = ("field",)

    def __init__(self, field: FieldRef) -> None:
        self.field = field

    def fields(self) -> frozenset[str]:
        return self.field.fields()

    def compiled(self, types: Types) -> Evaluate:
        self.field.type_in(types)
        name = self.field.name

        def evaluate(source: Source) -> Truth:
            values, null = source.column(name)
            return (np.zeros(len(values), dtype=np.bool_) if null is None else null), None

        return evaluate

    def __repr__(self) -> str:
        return f"{self.field} is None"


class Contains(Expression):
    __slots__ = ("field", "value")

    def __init__(self, field: FieldRef, value: Any) -> None:
        self.field = field
        self.value = value

    def fields(self) -> frozenset[str]:
        return self.field.fields()

    def compiled(self, types: Types) -> Evaluate:
        kind, name = self.field.type_in(types), self.field.name
        element = ELEMENT_TYPES.get(kind, kind if kind in {"string", "bytes"} else None)
        if element is None:
            raise ExpressionError(f"field {name!r} is {kind}, which has no contains()", field=name)
        literal = literal_of(self.value, element, name)
        return _per_object(name, lambda cell: literal in cell)

    def __repr__(self) -> str:
        return f"{_shown(self.value)} in {self.field}"


class StartsWith(Expression):
    __slots__ = ("field", "prefix")

    def __init__(self, field: FieldRef, prefix: str) -> None:
        self.field = field
        self.prefix = prefix

    def fields(self) -> frozenset[str]:
        return self.field.fields()

    def compiled(self, types: Types) -> Evaluate:
        kind, name = self.field.type_in(types), self.field.name
        if kind not in {"string", "bytes"}:
            message = f"field {name!r} is {kind}, which has no startswith()"
            raise ExpressionError(message, field=name)
        prefix = literal_of(self.prefix, kind, name)
        return _per_object(name, lambda cell: cell.startswith(prefix))

    def __repr__(self) -> str:
        return f"{self.field}.startswith({_shown(self.prefix)})"


class Both(Expression):
    """Two conditions joined by ``and`` or ``or``, in SQL's three-valued logic."""

    __slots__ = ("left", "right", "word")

    def __init__(self, word: str, left: Expression, right: Expression) -> None:
        self.word = word
        self.left = left
        self.right = right

    def fields(self) -> frozenset[str]:
        return self.left.fields() | self.right.fields()

    def compiled(self, types: Types) -> Evaluate:
        left, right = self.left.compiled(types), self.right.compiled(types)
        conjunction = self.word == "and"

        def evaluate(source: Source) -> Truth:
            (a, a_null), (b, b_null) = left(source), right(source)
            true = a & b if conjunction else a | b
            null = _either(a_null, b_null)
            if null is None:
                return true, None
            if conjunction:  # false and null is false
                a_false = ~a if a_null is None else ~a & ~a_null
                b_false = ~b if b_null is None else ~b & ~b_null
                return true, null & ~a_false & ~b_false
            return true, null & ~true  # true or null is true

        return evaluate

    def __repr__(self) -> str:
        return f"({self.left} {self.word} {self.right})"


class Not(Expression):
    __slots__ = ("inner",)

    def __init__(self, inner: Expression) -> None:
        self.inner = inner

    def fields(self) -> frozenset[str]:
        return self.inner.fields()

    def compiled(self, types: Types) -> Evaluate:
        inner = self.inner.compiled(types)

        def evaluate(source: Source) -> Truth:
            true, null = inner(source)
            return (~true if null is None else ~true & ~null), null

        return evaluate

    def __repr__(self) -> str:
        return f"not {self.inner}"


class Predicate:
    """An expression that was found to fit the fields; evaluates columns to a mask."""

    __slots__ = ("evaluate", "expression")

    def __init__(self, expression: Expression, evaluate: Evaluate) -> None:
        self.expression = expression
        self.evaluate = evaluate

    def matches(self, source: Source) -> BoolArray:
        """Return True where the expression is true: neither false nor null; bool (n,)."""
        return self.evaluate(source)[0]

    def violated(self, source: Source) -> BoolArray:
        """Return True where the expression is false: a check lets null pass; bool (n,)."""
        true, null = self.evaluate(source)
        return ~true if null is None else ~true & ~null


def col(name: str) -> FieldRef:
    """Name a field in an expression.

    Parameters
    ----------
    name : str
        The field. Whether it exists is found out when the expression is used.

    Returns
    -------
    FieldRef
        Compare it (``== != < <= > >=``) with a value or another field, or call
        ``isin``, ``is_null``, ``contains``, ``startswith`` or ``between``. Of a json field,
        ``col("meta")["author"]["name"]`` is what lies at a path, and is compared likewise.

    Examples
    --------
    >>> col("age").between(18, 30) | col("vip")
    ((age >= 18 and age <= 30) or vip)
    """
    if not name:
        raise ExpressionError("col() wants the name of a field, got an empty string")
    return FieldRef(name)


def bind(expression: Expression | str, types: Types) -> Predicate:
    """Check an expression, or its string form, against the types of the fields.

    Parameters
    ----------
    expression : Expression or str
        The condition.
    types : mapping of str to str
        Field name to type name, as in :class:`Field`.

    Raises
    ------
    ExpressionError
        The string does not parse, a field is unknown, or a type does not fit.
    """
    tree = parse(expression) if isinstance(expression, str) else _expression(expression)
    try:
        return Predicate(tree, tree.compiled(types))
    except ExpressionError as error:
        error.expression = str(expression)
        raise
    except RecursionError:
        raise ExpressionError("the expression is nested too deeply") from None


def renamed(expression: Expression, names: Mapping[str, str]) -> Expression:
    """Return an expression that calls fields by new names; ``names`` maps old ones to new ones."""
    if isinstance(expression, FieldRef):
        return FieldRef(names.get(expression.name, expression.name))
    same = copy.copy(expression)
    slots: Iterable[str] = type(expression).__slots__
    for slot in slots:
        part = getattr(expression, slot)
        if isinstance(part, Expression):
            object.__setattr__(same, slot, renamed(part, names))
    return same


@functools.lru_cache(maxsize=512)  # to read one takes 17 to 40 us, and a small search 25
def parse(text: str) -> Expression:
    """Read an expression in Python's or SQL's spelling.

    Raises
    ------
    ExpressionError
        The text is not an expression, or uses anything but comparisons of fields.
    """
    try:
        tree = ast.parse(_python_spelling(text), mode="eval")
        return _Reader(text).condition(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ExpressionError):
            raise
        message = f"cannot read expression {text!r}: {error}"
        raise ExpressionError(message, expression=text) from None


_TOKEN = re.compile(
    r"""(?P<string>[bB]?'(?:[^'\\]|\\.|'')*'|[bB]?"(?:[^"\\]|\\.|"")*")
      | (?P<word>[^\W\d]\w*)
      | (?P<operator><>|==|!=|<=|>=|=)
      | (?P<other>\s+|.)""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {word: word for word in ("and", "or", "not", "in", "is")} | {
    "true": "True",
    "false": "False",
    "null": "None",
    "none": "None",
}
_SQL_OPERATORS = {"=": "==", "<>": "!="}


def _python_spelling(text: str) -> str:
    """Replace SQL's words and operators by Python's, outside of string literals."""
    tokens = []
    betweens = 0
    for match in _TOKEN.finditer(text):
        spelled, lower = match.group(), match.group().lower()
        if match.lastgroup == "string":
            # SQL writes a quote inside a string twice; to Python those would be two strings.
            quote = spelled[-1]
            start = spelled.index(quote) + 1
            spelled = spelled[:start] + spelled[start:-1].replace(quote * 2, "\\" + quote) + quote
        elif lower == "between" and not text.startswith("(", match.end()):
            # x BETWEEN a AND b would need a grammar: it becomes x @ a @ b, an operator
            # that binds tighter than "and" and that no other accepted expression uses.
            spelled, betweens = "@", betweens + 1
        elif lower == "and" and betweens:
            spelled, betweens = "@", betweens - 1
        elif match.lastgroup == "word":
            spelled = _WORDS.get(lower, spelled)
        elif match.lastgroup == "operator":
            spelled = _SQL_OPERATORS.get(spelled, spelled)
        elif spelled.isspace():
            spelled = " "
        elif spelled == "@":
            message = f"cannot read expression {text!r}: '@' has no meaning"
            raise ExpressionError(message, expression=text)
        tokens.append(spelled)
    return "".join(tokens).strip()


# Far below where Python's own stack ends, whoever calls.
_MAX_DEPTH = 100


class _Reader:
    """Turns the accepted nodes of a Python expression into an :class:`Expression`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._depth = 0

    def condition(self, node: ast.expr) -> Expression:
        """Read a node that must be a condition."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            message = f"the expression is nested deeper than {_MAX_DEPTH}"
            raise ExpressionError(message, expression=self.text)
        condition = self._condition(node)
        self._depth -= 1
        return condition

    def _condition(self, node: ast.expr) -> Expression:  # noqa: PLR0911  (one per node)
        match node:
            case ast.BoolOp(op, values):
                return self._join("and" if isinstance(op, ast.And) else "or", values)
            case ast.BinOp(left, ast.BitAnd(), right):
                return self._join("and", [left, right])
            case ast.BinOp(left, ast.BitOr(), right):
                return self._join("or", [left, right])
            case ast.BinOp(ast.BinOp(subject, ast.MatMult(), low), ast.MatMult(), high):
                return self._subject(subject).between(self._value(low), self._value(high))
            case ast.UnaryOp(ast.Not() | ast.Invert(), operand):
                return ~self.condition(operand)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
            case ast.Name() | ast.Attribute() if (field := _named(node)) is not None:
                return field
        raise self._error(node, "a condition")

    def _join(self, word: str, nodes: list[ast.expr]) -> Expression:
        # By halves, so that a thousand terms are ten deep.
        if len(nodes) == 1:
            return self.condition(nodes[0])
        half = len(nodes) // 2
        return Both(word, self._join(word, nodes[:half]), self._join(word, nodes[half:]))

    def _comparison(self, node: ast.Compare) -> Expression:
        operands = [node.left, *node.comparators]
        joined: Expression | None = None
        for left, symbol, right in zip(operands[:-1], node.ops, operands[1:], strict=True):
            single = self._pair(left, symbol, right)
            joined = single if joined is None else joined & single
        if joined is None:
            raise self._error(node, "a comparison")
        return joined

    def _pair(self, left: ast.expr, symbol: ast.cmpop, right: ast.expr) -> Expression:
        match symbol:
            case ast.Is() | ast.IsNot():
                if not (isinstance(right, ast.Constant) and right.value is None):
                    raise self._error(right, "null after 'is'")
                null = self._subject(left).is_null()
                return null if isinstance(symbol, ast.Is) else ~null
            case ast.In() | ast.NotIn():
                inside = self._membership(left, right)
                return inside if isinstance(symbol, ast.In) else ~inside
        word = _AST_OPERATORS[type(symbol)]
        if isinstance(left, ast.Subscript):
            return self._json(left).compared(word, self._json_value(right))
        if isinstance(right, ast.Subscript):
            return self._json(right).compared(_MIRRORED[word], self._json_value(left))
        field, other = _named(left), _named(right)
        if field is not None:
            return Compare(word, field, self._value(right) if other is None else other)
        return Compare(_MIRRORED[word], self._field(right), self._value(left))

    def _membership(self, left: ast.expr, right: ast.expr) -> Expression:
        if isinstance(right, ast.Subscript):
            return self._json(right).contains(self._json_value(left))
        if (field := _named(right)) is not None:
            return field.contains(self._value(left))
        value = self._json_value if isinstance(left, ast.Subscript) else self._value
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            return self._subject(left).isin([value(item) for item in right.elts])
        # SQL's IN ('Oslo') reaches us as the bare string: a list of one.
        return self._subject(left).isin([value(right)])

    def _call(self, node: ast.Call) -> Expression:
        function = node.func
        if not isinstance(function, ast.Attribute) or function.attr not in _METHODS:
            raise self._error(node, f"one of the methods {', '.join(_METHODS)}")
        if node.keywords or len(node.args) != _METHODS[function.attr]:
            raise self._error(node, f"{_METHODS[function.attr]} arguments for {function.attr}()")
        if isinstance(function.value, ast.Subscript):
            arguments = [self._json_value(argument) for argument in node.args]
        else:
            arguments = [
                [self._value(item) for item in argument.elts]
                if isinstance(argument, (ast.List, ast.Tuple, ast.Set))
                else self._value(argument)
                for argument in node.args
            ]
        subject = self._subject(function.value)
        if not hasattr(subject, function.attr):
            raise self._error(node, "exists() of a path in a json field, as in meta['a'].exists()")
        condition: Expression = getattr(subject, function.attr)(*arguments)
        return condition

    def _field(self, node: ast.expr) -> FieldRef:
        field = _named(node)
        if field is None:
            raise self._error(node, "a field")
        return field

    def _subject(self, node: ast.expr) -> FieldRef | JsonRef:
        return self._json(node) if isinstance(node, ast.Subscript) else self._field(node)

    def _json(self, node: ast.Subscript) -> JsonRef:
        key = self._key(node.slice)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            message = f"the expression is nested deeper than {_MAX_DEPTH}"
            raise ExpressionError(message, expression=self.text)
        ref = self._subject(node.value)[key]
        self._depth -= 1
        return ref

    def _key(self, node: ast.expr) -> str:
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            raise self._error(node, "a string as key")
        return node.value

    def _json_value(self, node: ast.expr) -> Any:
        match node:
            case ast.List(items) | ast.Tuple(items):
                return [self._json_part(item) for item in items]
            case ast.Dict(keys, values) if None not in keys:
                named = [self._key(key) for key in keys if key is not None]
                return dict(zip(named, map(self._json_part, values), strict=True))
        return self._value(node)

    def _json_part(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            message = f"the expression is nested deeper than {_MAX_DEPTH}"
            raise ExpressionError(message, expression=self.text)
        part = self._json_value(node)
        self._depth -= 1
        return part

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value) if isinstance(value, (str, bytes, bool, int, float)):
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(value)) if _is_number(value):
                return -value  # type: ignore[operator]
            case ast.Constant(None):
                message = f"in {self.text!r}: nothing compares with null; use 'is null'"
                raise ExpressionError(message, expression=self.text)
        raise self._error(node, "a value")

    def _error(self, node: ast.AST, wanted: str) -> ExpressionError:
        message = f"in {self.text!r}: got {ast.unparse(node)!r}, wanted {wanted}"
        return ExpressionError(message, expression=self.text)


def _named(node: ast.expr) -> FieldRef | None:
    """Return the field that a node names: of a row, or of one of both sides of an upsert."""
    match node:
        case ast.Name(name):
            return FieldRef(name)
        case ast.Attribute(ast.Name(side), name) if side in SIDES:
            return FieldRef(f"{side}.{name}")
    return None


_METHODS = {"isin": 1, "is_null": 0, "exists": 0, "contains": 1, "startswith": 1, "between": 2}
_AST_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def _expression(value: object) -> Expression:
    if not isinstance(value, Expression):
        raise ExpressionError(f"wanted an expression, got {type(value).__name__}: {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


_LARGEST = int(np.finfo(np.float64).max)


def literal_of(value: Any, kind: str, field: str) -> Any:
    """Return a value in the form in which a column of ``kind`` holds it."""
    if kind in _NUMERIC and _is_number(value):
        number = value if isinstance(value, (int, float)) else value.item()
        if kind == "float64" and isinstance(number, int) and abs(number) > _LARGEST:
            raise ExpressionError(f"field {field!r} is {kind}; got a larger integer", field=field)
        return number
    if kind == "string" and isinstance(value, str):
        return str(value)
    if kind == "bytes" and isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if kind == "bool" and isinstance(value, (bool, np.bool_)):
        return bool(value)
    if kind == "timestamp":
        moment = _timestamp(value)
        if moment is not None:
            return moment
    got = f"{value!r} ({type(value).__name__})"
    raise ExpressionError(f"field {field!r} is {kind}; got {got}", field=field)


def _timestamp(value: Any) -> np.datetime64 | None:
    """Return a point in time as datetime64[us], read as UTC if it names no zone."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value))
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
        return np.datetime64(value, "us")
    if isinstance(value, dt.date):
        return np.datetime64(value, "us")
    if isinstance(value, np.datetime64) and not np.isnat(value):
        moment: np.datetime64 = value.astype("datetime64[us]")
        return moment
    return None


def _by_dtype(kind: str, literals: list[Any]) -> list[AnyArray]:
    """Return values by the dtype in which ``==`` compares a column of ``kind`` with them.

    Of integers and floats numpy would make one array, in which large integers are rounded; of
    those beyond int64, which no row has, one of floats or of objects.
    """
    if kind != "int64":
        dtype = np.float64 if kind == "float64" else None
        return [np.array(literals, dtype=dtype)] if literals else []
    bounds = np.iinfo(np.int64)
    integers = [n for n in literals if isinstance(n, int) and bounds.min <= n <= bounds.max]
    floats = [number for number in literals if isinstance(number, float)]
    parts: list[tuple[type, list[Any]]] = [(np.int64, integers), (np.float64, floats)]
    return [np.array(numbers, dtype=dtype) for dtype, numbers in parts if numbers]


def _shown(value: Any) -> str:
    """Return a value as the string form of an expression writes it."""
    if isinstance(value, (dt.date, np.datetime64)):
        return repr(str(_timestamp(value)))
    return repr(value.item() if isinstance(value, np.generic) else value)


def _either(left: BoolArray | None, right: BoolArray | None) -> BoolArray | None:
    if left is None or right is None:
        return right if left is None else left
    return left | right


def _where_known(null: BoolArray | None, compare: Callable[..., Any], *columns: AnyArray) -> Truth:
    """Compare where nothing is null: a null's place in a column may hold anything.

    To compare a number for nothing costs less than to leave it out; None would raise.
    """
    if null is None:
        return np.asarray(compare(*columns), dtype=np.bool_), None
    known = ~null
    if not any(column.dtype.hasobject for column in columns):
        return np.asarray(compare(*columns), dtype=np.bool_) & known, null
    true = np.zeros(len(null), dtype=np.bool_)
    true[known] = compare(*(column[known] for column in columns))
    return true, null


def _per_object(name: str, test: Callable[[Any], bool]) -> Evaluate:
    def evaluate(source: Source) -> Truth:
        values, null = source.column(name)
        if null is None:
            return np.fromiter(map(test, values.tolist()), np.bool_, len(values)), None
        known = ~null
        true = np.zeros(len(values), dtype=np.bool_)
        true[known] = [test(cell) for cell in values[known].tolist()]
        return true, null

    return evaluate
