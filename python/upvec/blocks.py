"""A column as a file of a checkpoint: blocks of rows, each with a checksum of its own.

Blocks are small, so that whoever writes or reads one lets other threads of the process run soon
after, and so that damage to a file is damage to some rows.

Layout, little-endian; blocks follow each other in the order of their rows, without gaps::

    0   u32  bytes of the column below
    4   u32  rows
    8   u64  the first row
    16  u32  CRC-32 of bytes 0 to 15 and of the column below
    20  u32  zero
    24  the column, as `codec.encode_column` writes it; then zero bytes up to a multiple of 8

Thread safety: functions only, no state.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .codec import ColumnEffect, decode_column, encode_column
from .columns import CHUNK_ROWS, Column, empty_chunk
from .errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .codec import Buffer

__all__ = [
    "BLOCK_ROWS",
    "Block",
    "array_of",
    "blocks_of_array",
    "blocks_of_column",
    "column_of",
    "damaged_blocks",
    "read_blocks",
    "sound_blocks",
]

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]

# A block of texts takes 2 to 3 ms to encode, and no other thread of Python runs meanwhile: less
# than the 5 ms after which the interpreter would make it stop.
BLOCK_ROWS = 8 * CHUNK_ROWS
_HEADER = struct.Struct("<IIQII")
_UNIT = 8


class Block:
    """Rows of a column: ``values`` and ``null`` (n,), from row ``first`` on."""

    __slots__ = ("first", "null", "values")

    def __init__(self, first: int, values: AnyArray, null: BoolArray) -> None:
        self.first = first
        self.values = values
        self.null = null


def blocks_of_array(number: int, kind: str, values: AnyArray) -> Iterator[bytes]:
    """Yield the bytes of the blocks of a column without nulls."""
    null = np.zeros(min(len(values), BLOCK_ROWS), dtype=np.bool_)
    for first in range(0, len(values), BLOCK_ROWS):
        part = values[first : first + BLOCK_ROWS]
        yield _encoded(number, kind, first, part, null[: len(part)])


def blocks_of_column(number: int, kind: str, column: Column, live: Column) -> Iterator[bytes]:
    """Yield the bytes of the blocks of a column; rows that do not live are null.

    So what is left of deleted rows does not outlive them on the disk.
    """
    step = BLOCK_ROWS // CHUNK_ROWS
    for chunk in range(0, len(column.chunks), step):
        first = chunk * CHUNK_ROWS
        count = min(BLOCK_ROWS, column.size - first)
        hidden = ~np.concatenate(live.chunks[chunk : chunk + step])[:count]
        for at, mask in enumerate(column.nulls[chunk : chunk + step]):
            if mask is not None:
                rows = slice(at * CHUNK_ROWS, min((at + 1) * CHUNK_ROWS, count))
                hidden[rows] |= mask[: rows.stop - rows.start]
        values = np.concatenate(column.chunks[chunk : chunk + step])[:count]
        yield _encoded(number, kind, first, values, hidden)


def _encoded(number: int, kind: str, first: int, values: AnyArray, null: BoolArray) -> bytes:
    column = b"".join(encode_column(number, ColumnEffect(None, kind, values, null)))
    size = len(column)
    unsealed = _HEADER.pack(size, len(values), first, 0, 0)[:16]
    checksum = zlib.crc32(column, zlib.crc32(unsealed))
    header = _HEADER.pack(size, len(values), first, checksum, 0)
    return b"".join((header, column, bytes(-size % _UNIT)))


def read_blocks(data: Buffer, number: int, kind: str) -> Iterator[Block]:
    """Read the blocks of a file, in place.

    Raises
    ------
    CorruptionError
        With ``offset``: bytes that are not what was written, or those of another column.
    """
    view = memoryview(data).cast("B")
    at = rows = 0
    while at < len(view):
        block, end = _read_block(view, at, number, kind)
        if block.first != rows:
            raise _corrupt(at, f"a block of row {block.first} after {rows} rows")
        yield block
        at, rows = end, rows + len(block.values)


def damaged_blocks(data: Buffer) -> Iterator[tuple[int, int, int | None]]:
    """Yield (offset, first row, end) of the blocks that are not what was written.

    Where not even the length of a block can be believed, all that follows is lost: end is None.
    """
    view = memoryview(data).cast("B")
    at = rows = 0
    while at < len(view):
        size, count, first, _, _ = (
            _HEADER.unpack_from(view, at) if len(view) - at >= _HEADER.size else (0,) * 5
        )
        end = at + _HEADER.size + size + -size % _UNIT
        if first != rows or not 0 < count <= BLOCK_ROWS or end > len(view):
            yield at, rows, None
            return
        if not _is_sound(view, at, size):
            yield at, rows, rows + count
        at, rows = end, rows + count


def sound_blocks(data: Buffer, number: int, kind: str) -> Iterator[Block]:
    """Yield the blocks that can be read of a file that is damaged."""
    view = memoryview(data).cast("B")
    damaged = {offset: end for offset, _, end in damaged_blocks(data)}
    at = 0
    while at < len(view) and damaged.get(at, 0) is not None:
        if at in damaged:
            size = _HEADER.unpack_from(view, at)[0]
            at += _HEADER.size + size + -size % _UNIT
        else:
            block, at = _read_block(view, at, number, kind)
            yield block


def _is_sound(view: memoryview, at: int, size: int) -> bool:
    start = at + _HEADER.size
    _, _, _, checksum, zero = _HEADER.unpack_from(view, at)
    end = start + size + -size % _UNIT
    found = zlib.crc32(view[start : start + size], zlib.crc32(view[at : at + 16]))
    return found == checksum and not zero and not any(view[start + size : end])


def _read_block(view: memoryview, at: int, number: int, kind: str) -> tuple[Block, int]:
    if len(view) - at < _HEADER.size:
        raise _corrupt(at, "not a whole block")
    size, rows, first, _, _ = _HEADER.unpack_from(view, at)
    start = at + _HEADER.size
    end = start + size + -size % _UNIT
    if end > len(view):
        raise _corrupt(at, f"a block of {size} bytes, of which the file has {len(view) - start}")
    if not _is_sound(view, at, size):
        raise _corrupt(
            at, f"the block of rows {first} to {first + rows} does not match its checksum"
        )
    stored, column = decode_column(view[start : start + size])
    if (stored, column.type) != (number, kind):
        raise _corrupt(at, f"got field {stored} as {column.type}, wanted {number} as {kind}")
    if len(column.values) != rows:
        raise _corrupt(at, f"a block of {len(column.values)} rows says that it has {rows}")
    return Block(first, column.values, column.null), end


def column_of(dtype: np.dtype[Any], blocks: Iterator[Block]) -> Column:
    """Return a column whose chunks are the memory of the blocks, but for the last one.

    Into that one new rows are written in place.
    """
    chunks: list[AnyArray] = []
    nulls: list[BoolArray | None] = []
    size = 0
    for block in blocks:
        if size % CHUNK_ROWS:
            raise _corrupt(0, f"a block after one of {size % CHUNK_ROWS} rows too many")
        size += len(block.values)
        for start in range(0, len(block.values), CHUNK_ROWS):
            chunks.append(block.values[start : start + CHUNK_ROWS])
            mask = block.null[start : start + CHUNK_ROWS]
            nulls.append(mask if mask.any() else None)
    if chunks:
        chunks[-1] = _whole(chunks[-1], dtype)
        last = nulls[-1]
        nulls[-1] = None if last is None else _whole(last, np.dtype(np.bool_))
    return Column(dtype, tuple(chunks), tuple(nulls), size)


def _whole(part: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    whole = empty_chunk(dtype)
    whole[: len(part)] = part
    return whole


def array_of(dtype: np.dtype[Any], blocks: Iterator[Block]) -> AnyArray:
    """Return the values of all blocks as one array (copied)."""
    return np.concatenate([np.empty(0, dtype=dtype), *(block.values for block in blocks)])


def _corrupt(offset: int, message: str) -> CorruptionError:
    return CorruptionError(message, offset=offset)
