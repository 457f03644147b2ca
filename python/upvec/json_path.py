"""Conditions over what lies at a path inside a json field: ``col("meta")["author"] == "Ada"``.

A json value has no schema, so nothing about it is unknown: a comparison with what is missing, null
or of another kind is false, and its negation is true. Numbers and bools compare as Python's do
(``1 == 1.0 == True``).

The stored text of a value is canonical (``json_text.py``), so that most texts need not be read: one
in which ``"author":"Ada"`` does not occur has no author of that name. 10^6 texts of some 70
characters take .44 s where 1 % have what is looked for, and 2.9 s where all have to be read
(``bench.conditions``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .errors import ExpressionError
from .expression import Expression, FieldRef
from .json_text import encode_json

if TYPE_CHECKING:
    from .expression import Evaluate, Source, Truth

__all__ = ["JsonRef", "JsonTest"]

# Tells whether the value at the path fulfils the condition; the second is what it is compared with.
Test = Callable[[Any, Any], bool]

_MISSING: Final = object()
_MAX_EXACT: Final = 10**15  # an integral float below is written with all its digits
_MAX_NEEDLES: Final = 16  # to look for them takes as long as to read the text


class JsonRef:
    """What lies at a path inside a json field: ``col("meta")["author"]["name"]`` gives one.

    Compare it (``== != < <= > >=``) with a value, or call ``isin``, ``is_null``, ``contains``,
    ``startswith`` or ``between``.

    Parameters
    ----------
    field : FieldRef
        A json field.
    path : tuple of str
        The keys, from the outermost on.

    Examples
    --------
    >>> from upvec import col
    >>> (col("meta")["author"]["name"] == "Ada") & ~col("meta")["year"].is_null()
    (meta['author']['name'] == 'Ada' and not meta['year'] is None)
    """

    __slots__ = ("field", "path")

    def __init__(self, field: FieldRef, path: tuple[str, ...]) -> None:
        keys: tuple[object, ...] = path
        for key in keys:
            if not isinstance(key, str):
                message = f"field {field.name!r}: got [{key!r}], wanted a key, which is a string"
                raise ExpressionError(message, field=field.name)
        self.field = field
        self.path = path

    def __getitem__(self, key: str) -> JsonRef:
        return JsonRef(self.field, (*self.path, key))

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return self.compared("==", other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return self.compared("!=", other)

    def __lt__(self, other: object) -> Expression:
        return self.compared("<", other)

    def __le__(self, other: object) -> Expression:
        return self.compared("<=", other)

    def __gt__(self, other: object) -> Expression:
        return self.compared(">", other)

    def __ge__(self, other: object) -> Expression:
        return self.compared(">=", other)

    def __hash__(self) -> int:
        return hash((self.field.name, self.path))

    def compared(self, symbol: str, value: object) -> Expression:
        """Return the condition that the value compares so; ``symbol`` is Python's operator."""
        if value is None:
            raise self._of_null(f"{symbol} None")
        if symbol == "!=":
            return ~self.compared("==", value)
        return JsonTest(self, symbol, _COMPARISONS[symbol], value)

    def isin(self, values: Iterable[Any]) -> Expression:
        """Return the condition that the value is one of ``values``."""
        if isinstance(values, (str, bytes, Mapping)):
            message = f"isin() wants a list of values, got {values!r}"
            raise ExpressionError(message, field=self.field.name)
        values = list(values)
        if any(value is None for value in values):
            raise self._of_null(f"in {values!r}")
        return JsonTest(self, "in", _is_in, values)

    def is_null(self) -> Expression:
        """Return the condition that there is no value, or null."""
        return JsonTest(self, "is None", _is_null, None)

    def exists(self) -> Expression:
        """Return the condition that there is a value, be it null."""
        return JsonTest(self, "exists", _exists, None)

    def contains(self, value: Any) -> Expression:
        """Return the condition that a string has ``value`` in it, or a list has it as element."""
        return JsonTest(self, "contains", _contains, value)

    def startswith(self, prefix: str) -> Expression:
        """Return the condition that a string begins with ``prefix``."""
        return JsonTest(self, "startswith", _starts_with, prefix)

    def between(self, low: Any, high: Any) -> Expression:
        """Return the condition that the value is at least ``low`` and at most ``high``."""
        return self.compared(">=", low) & self.compared("<=", high)

    def _of_null(self, comparison: str) -> ExpressionError:
        message = f"{self!r} {comparison}: nothing compares with null; use is_null()"
        return ExpressionError(message, field=self.field.name)

    def __repr__(self) -> str:
        return self.field.name + "".join(f"[{key!r}]" for key in self.path)


class JsonTest(Expression):
    """One comparison of what lies at a path inside a json field.

    Parameters
    ----------
    ref : JsonRef
        What is compared.
    word : str
        What the comparison is called: the same word and literal mean the same condition.
    test : callable
        Gets the value, which is neither missing nor null, and the literal. It must be a function
        of these alone, as its answers are remembered.
    literal : object
        What JSON can say.

    Raises
    ------
    ExpressionError
        The literal is nothing that JSON can say.
    """

    __slots__ = ("field", "literal", "literal_text", "path", "test", "word")

    def __init__(self, ref: JsonRef, word: str, test: Test, literal: Any) -> None:
        self.field = ref.field
        self.path = ref.path
        self.word = word
        self.test = test
        # What numpy gives is meant as Python's.
        literal = literal.item() if isinstance(literal, np.generic) else literal
        try:
            self.literal_text = encode_json(literal)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"{ref!r} is compared with what is no json: {literal!r} ({error})"
            raise ExpressionError(message, field=ref.field.name) from None
        self.literal = json.loads(self.literal_text)  # a tuple is a list, and keys are strings

    def fields(self) -> frozenset[str]:
        """Return the name of the json field."""
        return self.field.fields()

    def compiled(self, types: Mapping[str, str]) -> Evaluate:
        """Return the evaluation over the texts of the field."""
        name = self.field.name
        kind = self.field.type_in(types)
        if kind != "json":
            message = f"field {name!r} is {kind}; only a json field has {self._shown_path()}"
            raise ExpressionError(message, field=name)
        needles, path, test, literal = self._needles(), self.path, self.test, self.literal
        absent, with_null = test is _is_null, test is _exists
        read = json.loads

        def holds(text: str | None) -> bool:
            if text is None or not any(needle in text for needle in needles):
                return absent
            value = _look(read(text), path)
            if value is _MISSING or (value is None and not with_null):
                return absent
            return test(value, literal)

        def evaluate(source: Source) -> Truth:
            texts, null = source.column(name)
            true = np.fromiter(map(holds, texts.tolist()), np.bool_, len(texts))
            return (true if null is None else np.where(null, absent, true)), None

        return evaluate

    def _needles(self) -> tuple[str, ...]:
        """Return texts, of which one is in every text that has to be read."""
        named = encode_json(self.path[-1]) + ":"
        wanted = [self.literal] if self.test is _equals else []
        if self.test is _is_in and len(self.literal) <= _MAX_NEEDLES:
            wanted = self.literal
        written = [_written(value) for value in wanted]
        if not written or None in written:
            return (named,)
        return tuple(f"{named}{text}" for text in written)

    def _shown_path(self) -> str:
        return "".join(f"[{key!r}]" for key in self.path)

    def __repr__(self) -> str:
        ref = f"{self.field.name}{self._shown_path()}"
        if self.word in {"contains", "startswith"}:
            return f"{ref}.{self.word}({self.literal!r})"
        if self.word == "exists":
            return f"{ref}.exists()"
        if self.word == "is None":
            return f"{ref} is None"
        return f"{ref} {self.word} {self.literal!r}"


def _written(value: Any) -> str | None:
    """Return how the text of every equal value begins, if they all begin alike."""
    if isinstance(value, str):
        return encode_json(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_EXACT:
        value = int(value)
    if isinstance(value, int) and 1 < abs(value) < _MAX_EXACT:
        return str(value)  # of 2 as of 2.0; 0 may be -0.0 or false, 1 may be true
    return None


def _look(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _equals(value: Any, literal: Any) -> bool:
    return bool(value == literal)


def _is_in(value: Any, literals: Any) -> bool:
    return value in literals


def _is_null(value: Any, literal: Any) -> bool:  # noqa: ARG001  (as all tests)
    return False  # it is asked for values that are not


def _exists(value: Any, literal: Any) -> bool:  # noqa: ARG001  (as all tests)
    return True


def _contains(value: Any, literal: Any) -> bool:
    if isinstance(value, str):
        return isinstance(literal, str) and literal in value
    return isinstance(value, list) and literal in value


def _starts_with(value: Any, literal: Any) -> bool:
    return isinstance(value, str) and isinstance(literal, str) and value.startswith(literal)


def _ordered(compare: Callable[[Any, Any], bool]) -> Test:
    def test(value: Any, literal: Any) -> bool:
        numbers = isinstance(value, (int, float)) and isinstance(literal, (int, float))
        texts = isinstance(value, str) and isinstance(literal, str)
        return (numbers or texts) and compare(value, literal)

    return test


_COMPARISONS: Final[dict[str, Test]] = {
    "==": _equals,
    "<": _ordered(lambda value, literal: value < literal),
    "<=": _ordered(lambda value, literal: value <= literal),
    ">": _ordered(lambda value, literal: value > literal),
    ">=": _ordered(lambda value, literal: value >= literal),
}
