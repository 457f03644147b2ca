"""Sets of row ids as bits: what conditions are worked out with."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import bits_of_rids, count_bits, rids_of_bits

__all__ = ["WORD_ROWS", "Bitmap", "Words", "no_words", "packed"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]

WORD_ROWS = 64


class Bitmap:
    """A set of row ids below ``size``, which never changes.

    ``words`` are uint64: row r is bit r % 64 of word r // 64. Bits from ``size`` on are zero.

    Examples
    --------
    >>> odd, low = Bitmap.from_rids([1, 3, 5], 8), Bitmap.from_rids([0, 1, 2, 3], 8)
    >>> (odd & low).rids().tolist(), (odd | low).count, odd.without(low).rids().tolist()
    ([1, 3], 5, [5])
    >>> (~odd).rids().tolist()
    [0, 2, 4, 6, 7]
    """

    __slots__ = ("_count", "size", "words")

    def __init__(self, words: Words, size: int) -> None:
        self.words = words
        self.size = size
        self._count: int | None = None

    @classmethod
    def from_rids(cls, rids: Any, size: int) -> Bitmap:
        """Return the set of some row ids, in any order."""
        return cls(bits_of_rids(np.asarray(rids, dtype=np.int64), size), size)

    @classmethod
    def from_mask(cls, mask: BoolArray) -> Bitmap:
        """Return the set of the rows for which ``mask`` (size,) is True."""
        words = no_words(len(mask))
        bits = packed(mask)
        words.view(np.uint8)[: len(bits)] = bits
        return cls(words, len(mask))

    @property
    def count(self) -> int:
        """How many rows are in the set."""
        if self._count is None:
            self._count = count_bits(self.words)
        return self._count

    def rids(self) -> RowIds:
        """Return the row ids, in order; int64 (count,)."""
        rids: RowIds = rids_of_bits(self.words)
        return rids

    def without(self, other: Bitmap) -> Bitmap:
        """Return what is in this set and not in the other."""
        return Bitmap(self.words & ~other.words, self.size)

    def __and__(self, other: Bitmap) -> Bitmap:
        return Bitmap(self.words & other.words, self.size)

    def __or__(self, other: Bitmap) -> Bitmap:
        return Bitmap(self.words | other.words, self.size)

    def __invert__(self) -> Bitmap:
        words = ~self.words
        if self.size % WORD_ROWS:
            words[-1] &= np.uint64((1 << self.size % WORD_ROWS) - 1)
        return Bitmap(words, self.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitmap):
            return NotImplemented
        return self.size == other.size and np.array_equal(self.words, other.words)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Bitmap({self.count} of {self.size} rows)"


def no_words(size: int) -> Words:
    """Return the words of a set without rows."""
    return np.zeros(-(-size // WORD_ROWS), dtype=np.uint64)


def packed(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Return a mask as bits in the order of a bitmap on a little-endian machine."""
    return np.packbits(mask, bitorder="little")
