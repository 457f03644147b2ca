"""Columns of the stored rows, numbered by row id; cut in chunks that are copied on write.

A :class:`Column` never changes once a reader may hold it. A commit makes a
:class:`ColumnWriter`, which copies only the chunks that it touches, and ends with a new
column that shares all others. Row ids that no earlier state knows are written in place:
nobody who holds an older column looks there.

Every chunk of a column has a stamp, a number that no other content has: a writer gives its own to
each chunk that it writes or makes longer, in place or not. So two columns hold the same rows of a
chunk if they have the same stamp for it, whatever became of the arrays; what is worked out from a
column keeps the stamps, and brings itself forward to another column by them.

One thread writes at a time; any number of threads read.
"""

from __future__ import annotations

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._core import gather

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scalar_index import FieldIndex

__all__ = ["CHUNK_ROWS", "Column", "ColumnWriter", "Selection", "empty_chunk", "objects"]

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
RowIds = npt.NDArray[np.int64]

# Copying a chunk is what a single-row commit pays per column, and the number of chunks is what
# a scattered batch pays. Five columns, two of them text, 200,000 rows (AVX2, 2 cores, noisy by
# 20 %): chunks of 1,024 / 2,048 / 4,096 / 8,192 rows take 218 / 246 / 305 / 377 us for a
# single-row update, and 11 / 9 / 9 / 8 ms for one of 1,000 scattered rows, which touch them all.
CHUNK_BITS = 11
CHUNK_ROWS = 1 << CHUNK_BITS
_OFFSET_MASK = CHUNK_ROWS - 1

# Taking the next is atomic; a draft's writer may run beside the collection's.
_stamps = count(1)


class Selection:
    """Row ids, looked at once for all the columns that will be read or written.

    ``ascending`` says that the ids are known to ascend.
    """

    __slots__ = ("_ascending", "_first", "_pieces", "rids", "rows")

    def __init__(self, rids: RowIds, *, ascending: bool = False) -> None:
        self.rids = rids
        self.rows = len(rids)
        self._ascending = ascending
        self._first: int | None = None
        self._pieces: list[tuple[int, Any, Any]] | None = None

    @property
    def first(self) -> int:
        """The first id if the others follow it without a gap, else -1."""
        if self._first is None:
            self._first = int(self.rids[0]) if self._is_run() else -1
        return self._first

    @property
    def pieces(self) -> list[tuple[int, Any, Any]]:
        """Where the rows are by chunk, grouped when it is first asked for.

        Each is (chunk, offsets in the chunk, positions in the request), where offsets is a slice
        when the ids follow each other without a gap, and positions is one when they are already in
        chunk order.
        """
        if self._pieces is None:
            self._pieces = self._grouped()
        return self._pieces

    def _is_run(self) -> bool:
        rids = self.rids
        if self.rows == 0 or int(rids[-1]) - int(rids[0]) != self.rows - 1:
            return False
        return self._ascending or self.rows == 1 or int(np.diff(rids).min()) == 1

    def _grouped(self) -> list[tuple[int, Any, Any]]:
        rids = self.rids
        if self.rows == 0:
            return []
        if self.rows == 1:
            rid = int(rids[0])
            return [(rid >> CHUNK_BITS, rids & _OFFSET_MASK, slice(0, 1))]
        if self.first >= 0:
            return self._run(self.first)
        least = 1 if self._ascending else int(np.diff(rids).min())
        chunks = rids >> CHUNK_BITS
        offsets = rids & _OFFSET_MASK
        order: AnyArray | None = None
        if least < 0:
            order = np.argsort(chunks, kind="stable")
            chunks, offsets = chunks[order], offsets[order]
        pieces: list[tuple[int, Any, Any]] = []
        bounds = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), self.rows]
        for start, stop in pairwise(bounds):
            piece: Any = offsets[start:stop]
            positions: Any = slice(start, stop) if order is None else order[start:stop]
            if least > 0 and int(piece[-1]) - int(piece[0]) == stop - start - 1:
                piece = slice(int(piece[0]), int(piece[-1]) + 1)
            pieces.append((int(chunks[start]), piece, positions))
        return pieces

    def _run(self, first: int) -> list[tuple[int, Any, Any]]:
        pieces: list[tuple[int, Any, Any]] = []
        position = 0
        while position < self.rows:
            chunk, offset = (first + position) >> CHUNK_BITS, (first + position) & _OFFSET_MASK
            size = min(CHUNK_ROWS - offset, self.rows - position)
            taken, positions = slice(offset, offset + size), slice(position, position + size)
            pieces.append((chunk, taken, positions))
            position += size
        return pieces


class Column:
    """An immutable column of ``size`` rows with an optional null mask.

    Values at null positions are unspecified (None in an object column).

    Attributes
    ----------
    stamps : int64 array, one per chunk
        See above.
    version : int
        Columns that have the same are the same.
    index : FieldIndex or None
        The scalar index of exactly these rows, once it was made; see ``scalar_index.py``.
    """

    __slots__ = ("chunks", "dtype", "index", "nulls", "size", "stamps", "version")

    def __init__(
        self,
        dtype: np.dtype[Any],
        chunks: tuple[AnyArray, ...] = (),
        nulls: tuple[BoolArray | None, ...] = (),
        size: int = 0,
        stamps: RowIds | None = None,
    ) -> None:
        self.dtype = dtype
        self.chunks = chunks
        self.nulls = nulls
        self.size = size
        self.version = next(_stamps)
        if stamps is None:
            stamps = np.full(len(chunks), self.version, dtype=np.int64)
        self.stamps = stamps
        self.index: FieldIndex | None = None

    @classmethod
    def from_array(cls, values: AnyArray, null: BoolArray | None = None) -> Column:
        """Cut ``values`` (n,) and its null mask into chunks (copied)."""
        writer = ColumnWriter(cls(values.dtype), len(values))
        writer.write(Selection(np.arange(len(values), dtype=np.int64)), values, null)
        return writer.finish()

    def take(self, selection: Selection) -> tuple[AnyArray, BoolArray | None]:
        """Values (n,) and null mask (n,), or None for no nulls, of the selected rows."""
        if selection.rows <= 1 or selection.first < 0:
            return gather(self.dtype, self.chunks, self.nulls, CHUNK_BITS, selection.rids)
        pieces = selection.pieces
        values = [self.chunks[chunk][offsets] for chunk, offsets, _ in pieces]
        null = _joined_masks([self.nulls[chunk] for chunk, _, _ in pieces], pieces)
        return (values[0].copy() if len(values) == 1 else np.concatenate(values)), null

    def gather(self, rids: RowIds) -> tuple[AnyArray, BoolArray | None]:
        """As :meth:`take`, for a single column."""
        return self.take(Selection(rids))

    def to_array(self) -> tuple[AnyArray, BoolArray | None]:
        """All rows, as one array (copied) and a null mask or None."""
        if not self.chunks:
            return np.empty(0, dtype=self.dtype), None
        values = np.concatenate(self.chunks)[: self.size]
        if all(mask is None for mask in self.nulls):
            return values, None
        masks = [np.zeros(CHUNK_ROWS, np.bool_) if m is None else m for m in self.nulls]
        return values, np.concatenate(masks)[: self.size]

    def nbytes(self) -> int:
        """Bytes held in chunks; what object columns point at is not counted."""
        held = sum(chunk.nbytes for chunk in self.chunks)
        return held + sum(mask.nbytes for mask in self.nulls if mask is not None)


class ColumnWriter:
    """Builds the next version of a column; only touched chunks are copied."""

    __slots__ = ("_base", "_chunks", "_fresh", "_nulls", "_size", "_stamp", "_stamps")

    def __init__(self, base: Column, size: int) -> None:
        self._base = base
        self._size = max(size, base.size)
        self._chunks: list[AnyArray] = list(base.chunks)
        self._nulls: list[BoolArray | None] = list(base.nulls)
        self._fresh: set[int] = set()
        self._stamp = next(_stamps)
        self._stamps = self._stamps_kept()
        while len(self._chunks) * CHUNK_ROWS < self._size:
            self._fresh.add(len(self._chunks))
            self._chunks.append(empty_chunk(base.dtype))
            self._nulls.append(None)

    def _stamps_kept(self) -> RowIds:
        """Return the base's stamps, and this writer's for chunks that are made longer, or new."""
        base, chunks = self._base, -(-self._size // CHUNK_ROWS)
        # That of a chunk that is made longer too: rows came to it, also if nothing is written.
        same = base.size >> CHUNK_BITS if self._size > base.size else len(base.chunks)
        if chunks == len(base.stamps):  # as good as always, and np.full() takes its time
            stamps = base.stamps.copy()
            stamps[same:] = self._stamp
            return stamps
        stamps = np.full(chunks, self._stamp, dtype=np.int64)
        stamps[:same] = base.stamps[:same]
        return stamps

    def write(self, selection: Selection, values: AnyArray, null: BoolArray | None = None) -> None:
        """Write ``values`` (n,), null where ``null`` (n,) is True, at the selected rows."""
        for chunk, offsets, positions in selection.pieces:
            sliced = isinstance(offsets, slice)
            self._own(chunk, offsets.start if sliced else int(offsets.min()))
            self._stamps[chunk] = self._stamp
            piece = values[positions]
            self._chunks[chunk][offsets] = piece
            mask = self._nulls[chunk]
            if null is None:
                if mask is not None:
                    mask[offsets] = False
            else:
                if mask is None:
                    mask = self._nulls[chunk] = np.zeros(CHUNK_ROWS, dtype=np.bool_)
                mask[offsets] = null[positions]

    def finish(self) -> Column:
        """Return the new column; the writer is of no further use."""
        chunks, nulls = tuple(self._chunks), tuple(self._nulls)
        return Column(self._base.dtype, chunks, nulls, self._size, self._stamps)

    def _own(self, chunk: int, lowest_offset: int) -> None:
        """Make sure that writing to ``chunk`` changes nothing that a reader may hold."""
        if chunk in self._fresh:
            return
        if chunk * CHUNK_ROWS + lowest_offset >= self._base.size:
            return
        self._chunks[chunk] = self._chunks[chunk].copy()
        mask = self._nulls[chunk]
        if mask is not None:
            self._nulls[chunk] = mask.copy()
        self._fresh.add(chunk)


def _joined_masks(
    masks: list[BoolArray | None], pieces: list[tuple[int, Any, Any]]
) -> BoolArray | None:
    """Return which rows of a run are null; None if none is."""
    if all(mask is None for mask in masks):
        return None
    null = np.zeros(pieces[-1][2].stop, dtype=np.bool_)
    for mask, (_, offsets, positions) in zip(masks, pieces, strict=True):
        if mask is not None:
            null[positions] = mask[offsets]
    return null if np.count_nonzero(null) else None


def empty_chunk(dtype: np.dtype[Any]) -> AnyArray:
    """Return a chunk of zeros, or of None."""
    return np.full(CHUNK_ROWS, None) if dtype.hasobject else np.zeros(CHUNK_ROWS, dtype=dtype)


def equal_values(left: AnyArray, right: AnyArray) -> BoolArray:
    """Elementwise equality, where NaN equals NaN; bool (n,)."""
    same: BoolArray = np.asarray(left == right, dtype=np.bool_)
    if left.dtype.kind == "f":
        same |= np.isnan(left) & np.isnan(right)
    return same


def same_cells(
    left: tuple[AnyArray, BoolArray | None], right: tuple[AnyArray, BoolArray | None]
) -> BoolArray:
    """Return True where both cells are null, or both hold equal values; bool (n,)."""
    same = equal_values(left[0], right[0])
    if left[1] is None and right[1] is None:
        return same
    left_null = np.zeros(len(same), np.bool_) if left[1] is None else left[1]
    right_null = np.zeros(len(same), np.bool_) if right[1] is None else right[1]
    return (same & ~left_null & ~right_null) | (left_null & right_null)


def objects(values: Sequence[Any]) -> AnyArray:
    """Return a column of objects (n,), of which none is taken apart."""
    # Not by assignment: numpy would take lists of equal length for rows of a table.
    return np.fromiter(values, dtype=object, count=len(values))


def tuples_of(columns: Sequence[AnyArray]) -> list[Any]:
    """Python values of one column, or tuples of several: what names a key."""
    if len(columns) == 1:
        return list(columns[0].tolist())
    return list(zip(*(column.tolist() for column in columns), strict=True))
