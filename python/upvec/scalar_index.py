"""Indexes over the values of fields: what ``Field(index=True)`` gives.

A :class:`FieldIndex` finds the rows of one version of a column by their values. It is made when
the first condition asks for it, so that opening takes no longer; from then on every commit brings
it forward to the column that it makes, by way of the chunks and rows that it changed. It hangs on
the column that it is of, so that a reader of an older state has the one of that state.

Strings are known by codes, which a :class:`Dictionary` gives them once and for all. It only grows,
and so serves all versions; when most of it is in use no more, the index is made anew.

Thread safety: a :class:`FieldIndex` never changes, but for its dictionary, which has a lock.
"""

from __future__ import annotations

import math
import threading
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import ScalarIndex, changed_objects, encode_lists, encode_objects, ordered_key
from .bitmap import packed
from .columns import CHUNK_ROWS, Column
from .expression import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .bitmap import Words
    from .fields import Field
    from .schema import Schema

__all__ = ["Dictionary", "FieldIndex", "FieldIndexes", "changed_chunks", "is_indexed"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
Update: TypeAlias = "tuple[int, Any, Any, Any, Any]"

_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
# From here on float64 does not tell all integers apart.
_INEXACT: Final = 2.0**53
_CODED: Final = frozenset({"string", "bytes", "list<string>"})
# A dictionary is made anew when it has more than twice the values in use, and so many besides:
# far from where a small collection would do it again and again.
_SPARE_VALUES: Final = 65_536

_serials = count(1)


def is_indexed(field: Field) -> bool:
    """Return whether a field has an index. Nothing but null can be asked of a json."""
    return field.index and field.type != "json"


def changed_chunks(before: RowIds, after: RowIds) -> RowIds:
    """Return the chunks of a column that another version of it, with these stamps, lacks."""
    both = min(len(before), len(after))
    changed = np.flatnonzero(before[:both] != after[:both])
    if both == len(after):
        return changed
    return np.concatenate([changed, np.arange(both, len(after), dtype=np.int64)])


class Dictionary:
    """Codes of strings: 0, 1, 2… in the order in which they come; never taken back.

    Attributes
    ----------
    codes : dict
    names : list
        Its value by code. It is at least as long as a reader that has a code expects.
    lock : Lock
        Held while values are added.
    serial : int
        Tells it from all others.
    """

    __slots__ = ("codes", "lock", "look_at", "names", "serial")

    def __init__(self) -> None:
        self.codes: dict[Any, int] = {}
        self.names: list[Any] = []
        self.lock = threading.Lock()
        self.serial = next(_serials)
        self.look_at = _SPARE_VALUES  # how many values it may have before they are counted

    def is_worn_out(self, index: ScalarIndex) -> bool:
        """Return whether it would be much smaller with only the values of an index."""
        values = len(self.names)
        if values <= self.look_at:
            return False
        self.look_at = 2 * index.count_keys(values) + _SPARE_VALUES
        return values > self.look_at


class FieldIndex:
    """The rows of one version of a column by value.

    Attributes
    ----------
    kind : str
        The type of the field.
    stamps : int64 array
        Those of the column.
    dictionary : Dictionary or None
        Of strings and bytes.
    """

    __slots__ = ("dictionary", "kind", "scalar", "stamps")

    def __init__(
        self, kind: str, scalar: ScalarIndex, stamps: RowIds, dictionary: Dictionary | None
    ) -> None:
        self.kind = kind
        self.scalar = scalar
        self.stamps = stamps
        self.dictionary = dictionary

    @classmethod
    def of(cls, column: Column, kind: str) -> FieldIndex:
        """Return the index of a column."""
        dictionary = Dictionary() if kind in _CODED else None
        stamps = np.empty(0, dtype=np.int64)
        empty = cls(kind, ScalarIndex(lists=kind in ELEMENT_TYPES), stamps, dictionary)
        return empty.advanced(column)

    def advanced(self, column: Column, before: Column | None = None) -> FieldIndex:
        """Return the index of another version of the column.

        ``before``, if it is at hand, is the version that this is the index of.
        """
        updates = [
            self._update(column, before, chunk)
            for chunk in changed_chunks(self.stamps, column.stamps).tolist()
        ]
        scalar = self.scalar.advanced(column.size, updates)
        if self.dictionary is not None and self.dictionary.is_worn_out(scalar):
            return FieldIndex.of(column, self.kind)
        return FieldIndex(self.kind, scalar, column.stamps, self.dictionary)

    def _update(self, column: Column, before: Column | None, chunk: int) -> Update:
        rows = min(CHUNK_ROWS, column.size - chunk * CHUNK_ROWS)
        values, null = column.chunks[chunk], column.nulls[chunk]
        if not column.dtype.hasobject:
            # Which rows differ, the core finds out by itself.
            return chunk, None, values[:rows], None if null is None else null[:rows], None
        changed = None
        if before is not None and chunk < len(before.chunks):
            old_rows = min(CHUNK_ROWS, before.size - chunk * CHUNK_ROWS)
            changed = changed_objects(
                before.chunks[chunk], before.nulls[chunk], values, null, old_rows, rows
            )
        if self.kind in ELEMENT_TYPES:
            element = ELEMENT_TYPES[self.kind]
            keys, ends, is_null = self._coded(encode_lists, values, null, changed, rows, element)
            return chunk, changed, keys, is_null, ends
        keys, is_null = self._coded(encode_objects, values, null, changed, rows)
        return chunk, changed, keys, is_null, None

    def _coded(self, encode: Any, *arguments: Any) -> Any:
        dictionary = self.dictionary
        if dictionary is None:
            return encode(*arguments, {}, [])
        with dictionary.lock:
            return encode(*arguments, dictionary.codes, dictionary.names)

    # --- Questions ----------------------------------------------------------------------------

    def null(self) -> Words | None:
        """Return the rows that are null; None: there are none."""
        words: Words | None = self.scalar.match_null()
        return words

    def compared(self, symbol: str, literal: Any) -> Words:
        """Return the rows that are ``==``, ``<``, ``<=``, ``>`` or ``>=`` a value.

        Of strings, only ``==``: codes are in no order.
        """
        if self.dictionary is not None:
            code = self.dictionary.codes.get(literal, -1)
            return self.scalar.match(code, code)
        first, last = _keys_equal_to(self.kind, literal)
        # A NaT, if there were one, would be the least, and is not less than anything.
        least = _LEAST + (self.kind == "timestamp")
        low, high = {
            "==": (first, last),
            "<": (least, first - 1),
            "<=": (least, last),
            ">": (last + 1, _MOST),
            ">=": (first, _MOST),
        }[symbol]
        if low > high or low > _MOST or high < _LEAST or _is_nan(literal):
            low, high = 1, 0
        return self.scalar.match(max(low, _LEAST), min(high, _MOST))

    def any_of(self, literals: Iterable[Any]) -> Words:
        """Return the rows that are equal to one of some values."""
        if self.dictionary is not None:
            known = self.dictionary.codes
            keys = [known[literal] for literal in literals if literal in known]
            return self._match_any(keys)
        keys, rounded = [], []
        for literal in literals:
            first, last = _keys_equal_to(self.kind, literal)
            if first == last and not _is_nan(literal):
                keys.append(first)
            elif first < last:  # a float to which several integers are rounded
                rounded.append(literal)
        words = self._match_any(keys)
        for literal in rounded:
            words = words | self.compared("==", literal)
        return words

    def _match_any(self, keys: list[int]) -> Words:
        able = [key for key in keys if _LEAST <= key <= _MOST]
        words: Words = self.scalar.match_any(np.array(able, dtype=np.int64))
        return words

    def containing(self, literal: Any) -> Words | None:
        """Return the rows whose list has a value; None: the index cannot tell."""
        if self.dictionary is not None:
            code = self.dictionary.codes.get(literal, -1)
            return self.scalar.match(code, code)
        if _is_nan(literal):  # is in a list if it is the very same object
            return None
        # As Python compares, not numpy: an integer and a float are equal if they are the same.
        if self.kind == "list<float64>":
            key = ordered_key(float(literal)) if float(literal) == literal else None
        else:
            key = int(literal) if math.isfinite(literal) and int(literal) == literal else None
        if key is None or not _LEAST <= key <= _MOST:
            return self.scalar.match(1, 0)
        return self.scalar.match(key, key)

    def named(self, wanted: BoolArray) -> Words:
        """Return the rows with a string for whose code ``wanted`` is True."""
        marks = np.zeros(-(-len(wanted) // 64), dtype=np.uint64)
        bits = packed(wanted)
        marks.view(np.uint8)[: len(bits)] = bits
        return self.scalar.match_marked(marks)


class FieldIndexes:
    """The indexes of a collection, by number and type of the field: names may change."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, str], FieldIndex] = {}
        self._making = threading.Lock()

    def at(self, schema: Schema, name: str, column: Column) -> FieldIndex:
        """Return the index of a column; the first time, it is made."""
        if column.index is None:
            with self._making:  # by one reader, while the others wait for it
                return self._made(schema, name, column)
        return column.index

    def carry(
        self, schema: Schema, before: Mapping[str, Column], after: Mapping[str, Column]
    ) -> None:
        """Make the indexes of the columns that a commit made, where there were some before."""
        for name, field in schema.fields.items():
            column = after[name]
            if not is_indexed(field) or column.index is not None:
                continue
            old = before[name]
            if old.index is not None:
                self._hold(schema, name, column, old.index.advanced(column, old))
            elif (schema.numbers[name], field.type) in self._newest:
                self._made(schema, name, column)

    def _made(self, schema: Schema, name: str, column: Column) -> FieldIndex:
        if column.index is not None:
            return column.index
        kind = schema.fields[name].type
        known = self._newest.get((schema.numbers[name], kind))
        index = FieldIndex.of(column, kind) if known is None else known.advanced(column)
        return self._hold(schema, name, column, index)

    def _hold(self, schema: Schema, name: str, column: Column, index: FieldIndex) -> FieldIndex:
        column.index = index
        self._newest[schema.numbers[name], index.kind] = index
        return index

    def forget(self, schema: Schema) -> None:
        """Let go of fields that are not in a schema, and of types that they had."""
        wanted = {(schema.numbers[name], field.type) for name, field in schema.fields.items()}
        for key in [key for key in self._newest if key not in wanted]:
            self._newest.pop(key, None)

    def nbytes(self) -> int:
        """Return the bytes that the newest indexes hold, without the strings themselves."""
        return sum(index.scalar.nbytes() for index in list(self._newest.values()))


def _is_nan(literal: Any) -> bool:
    return isinstance(literal, float) and math.isnan(literal)


def _keys_equal_to(kind: str, literal: Any) -> tuple[int, int]:
    """Return the first and the last of the keys that are equal to a value as numpy compares it.

    If none is, the first is the least that is above it, and the last the greatest below.
    """
    if kind == "float64":
        value = float(literal)
        key = 0 if math.isnan(value) else ordered_key(value)
        return key, key
    if kind == "timestamp":
        key = int(literal.astype(np.int64))
        return key, key
    if isinstance(literal, int):  # bool too
        return int(literal), int(literal)
    if math.isnan(literal):
        return 1, 0
    if abs(literal) < _INEXACT:
        return math.ceil(literal), math.floor(literal)
    # numpy rounds the integers of the column to floats: several may become this one.
    return _first_rounding_to(literal), -_first_rounding_to(-literal, _LEAST + 1, _MOST + 2)


def _first_rounding_to(value: float, low: int = _LEAST, high: int = _MOST + 1) -> int:
    """Return the first integer of [low, high) whose float is at least a value, or ``high``."""
    while low < high:
        middle = (low + high) // 2
        if float(middle) >= value:
            high = middle
        else:
            low = middle + 1
    return low
