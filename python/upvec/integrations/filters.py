"""Conditions on metadata, as the dialects of other projects have them → expressions.

A dialect is read into a small tree of :class:`All`, :class:`Any_`, :class:`Not` and :class:`Test`.
In it there are two truths only, as in the dialects: a comparison with metadata that a document
does not have is false, and its negation is true. :func:`expression_of` makes an expression of it,
over fields of the schema and over paths in json fields alike; so a filter is worked out before a
search, by indexes and from memory, like every condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from upvec.errors import ExpressionError
from upvec.expression import Compare, Expression, FieldRef
from upvec.json_path import JsonRef, JsonTest

__all__ = ["All", "Any_", "Filter", "Not", "Ref", "Test", "expression_of"]

Ref: TypeAlias = "FieldRef | JsonRef"


@dataclass(frozen=True)
class Test:
    """One comparison of a metadatum.

    Attributes
    ----------
    path : tuple of str
        Its name; of a nested one, the names from the outermost on.
    word : str
        ``== < <= > >= in contains startswith "is null" exists``, ``like`` and ``"like, ignoring
        case"`` (patterns with ``%`` and ``_``), or ``"has text"`` and ``"has text, ignoring case"``
        (of strings only); or, with ``test``, any other name.
    value : object
        What it is compared with.
    test : callable, optional
        What compares it in json metadata, with the value and this as arguments: a function of
        these alone. In a field of the schema the comparison is that which ``declared`` says.
    declared : str, optional
        The word for a field of the schema.
    """

    path: tuple[str, ...]
    word: str
    value: Any = None
    test: Callable[[Any, Any], bool] | None = None
    declared: str | None = None


@dataclass(frozen=True)
class Not:
    """What holds where a filter does not."""

    part: Filter


@dataclass(frozen=True)
class All:
    """What holds where all of some filters do; of none, everywhere."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Any_:  # noqa: N801  (Any is typing's)
    """What holds where one of some filters does; of none, nowhere."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = "Test | Not | All | Any_"


def expression_of(wanted: Filter, ref_of: Callable[[tuple[str, ...]], Ref], key: str) -> Expression:
    """Return the expression that is true where a filter holds.

    Parameters
    ----------
    wanted : Filter
        The filter.
    ref_of : callable
        Says where the metadatum of a path is.
    key : str
        A field that is never null.

    Raises
    ------
    ExpressionError
        A value that does not fit the field, or a comparison that a field does not have.
    """
    return _Translation(ref_of, key).of(wanted, holds=True)


@dataclass(frozen=True)
class _Translation:
    ref_of: Callable[[tuple[str, ...]], Ref]
    key: str

    def of(self, wanted: Filter, *, holds: bool) -> Expression:
        """Return where a filter holds, or where it does not."""
        match wanted:
            case Not(part):
                return self.of(part, holds=not holds)
            case All(parts) | Any_(parts):
                every = isinstance(wanted, All) == holds
                return self._joined([self.of(part, holds=holds) for part in parts], every=every)
        ref = self.ref_of(wanted.path)
        if isinstance(ref, JsonRef):
            expression = _of_json(ref, wanted)
            return expression if holds else ~expression
        expression = _of_field(ref, wanted)
        if holds or wanted.word in {"is null", "exists"}:
            return expression if holds else ~expression
        return ~expression | ref.is_null()  # a comparison with null is neither true nor false

    def _joined(self, parts: Sequence[Expression], *, every: bool) -> Expression:
        if not parts:
            nowhere = FieldRef(self.key).is_null()
            return ~nowhere if every else nowhere
        if len(parts) == 1:
            return parts[0]
        half = len(parts) // 2  # by halves, so that a thousand of them are ten deep
        left = self._joined(parts[:half], every=every)
        right = self._joined(parts[half:], every=every)
        return left & right if every else left | right


def _of_json(ref: JsonRef, wanted: Test) -> Expression:
    if wanted.test is not None:
        return JsonTest(ref, wanted.word, wanted.test, wanted.value)
    if wanted.word in _TESTS:
        return JsonTest(ref, wanted.word, _TESTS[wanted.word], wanted.value)
    if wanted.word in _COMPARISONS:
        return ref.compared(wanted.word, wanted.value)
    return ref.exists() if wanted.word == "exists" else _common(ref, wanted.word, wanted.value)


def _of_field(ref: FieldRef, wanted: Test) -> Expression:
    word = wanted.declared or wanted.word
    if word in _COMPARISONS:
        return Compare(word, ref, wanted.value)
    match word:
        case "exists":  # what is absent is null in a field
            return ~ref.is_null()
        case "has text":
            return ref.contains(wanted.value)
        case "like":
            return _like_of_field(ref, wanted.value)
    return _common(ref, word, wanted.value)


def _common(ref: Ref, word: str, value: Any) -> Expression:
    match word:
        case "in":
            return ref.isin(value)
        case "contains":
            return ref.contains(value)
        case "startswith":
            return ref.startswith(value)
        case "is null":
            return ref.is_null()
    name = ref.name if isinstance(ref, FieldRef) else ref.field.name
    message = f"{ref!r}: {word!r} is told of json metadata only, not of a field of the schema"
    raise ExpressionError(message, field=name)


def _like_of_field(ref: FieldRef, pattern: str) -> Expression:
    """Return ``text``, ``text%`` or ``%text%``, which are what fields are asked for."""
    text = pattern.strip("%")
    if "%" not in text and "_" not in text:
        if pattern == text:
            return Compare("==", ref, text)
        if pattern == f"{text}%":
            return ref.startswith(text)
        if pattern == f"%{text}%":
            return ref.contains(text)
    message = f"{ref.name!r}: got the pattern {pattern!r}, wanted 'text', 'text%' or '%text%'"
    raise ExpressionError(f"{message} for a field of the schema", field=ref.name)


@lru_cache(maxsize=256)
def _pattern(text: str, flags: int) -> re.Pattern[str]:
    """Return SQL's pattern, in which ``%`` is any text and ``_`` any character."""
    parts = (".*" if one == "%" else "." if one == "_" else re.escape(one) for one in text)
    return re.compile("".join(parts), flags | re.DOTALL)


def _like(value: Any, pattern: Any) -> bool:
    return isinstance(value, str) and _pattern(pattern, 0).fullmatch(value) is not None


def _like_ignoring_case(value: Any, pattern: Any) -> bool:
    return isinstance(value, str) and _pattern(pattern, re.IGNORECASE).fullmatch(value) is not None


def _has_text(value: Any, text: Any) -> bool:
    return isinstance(value, str) and text in value


def _has_text_ignoring_case(value: Any, text: Any) -> bool:
    return isinstance(value, str) and text.lower() in value.lower()


_COMPARISONS: Final = frozenset({"==", "<", "<=", ">", ">="})
_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "like": _like,
    "like, ignoring case": _like_ignoring_case,
    "has text": _has_text,
    "has text, ignoring case": _has_text_ignoring_case,
}
