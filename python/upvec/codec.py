"""The bytes of one commit: what it resolved to, ready to be applied again.

A commit is logged as *effects*, not as the call that caused them: the rows that went, the rows
that were written, and the final values of the fields that were written. Replay therefore
decides nothing, and gives the same state whatever the policies, clocks or code of the day.

Format, version 1
-----------------
Little-endian. ``varint`` is unsigned LEB128 of at most 10 bytes. ``packed`` is a list of
unsigned integers whose number ``n`` is known or stored before it::

    packed     u8 width (1, 2, 4 or 8; absent when n = 0) | n integers of that width
    raw        data of a known size; from 256 bytes on it starts at a multiple of 8 bytes from
               the start of the payload (zero bytes before it), so that it is read in place

    payload    u8 format = 1
               u8 flags: 1 = an operation id follows at the end, 2 = notes follow at the end
               varint n | packed            deleted rids
               varint n | packed            upserted rids
               packed                       one version per upserted rid
               varint n | n x column
               varint n | n x vector
               [operation]  varint bytes | writer, UTF-8
                            varint number
                            varint bytes | result
               [notes]      varint n | n x (varint bytes | name, UTF-8 | varint bytes | value)

    column     u16 field | u8 type | u8 flags: 1 = rows follow, 2 = nulls follow
               [rows]       varint m | packed    positions in rids, increasing; else m = all
               [nulls]      m bits, lowest first, padded with zero bits
               data         by type:
                 1 int64, 2 float64, 3 timestamp    raw, 8 bytes each (microseconds since 1970)
                 4 bool                             m bits
                 5 string, 6 json, 7 bytes          packed byte lengths (width <= 4) | raw
                 8 list<int64>, 9 list<float64>     packed lengths (width <= 4) | data of type 1, 2
                 10 list<string>                    packed lengths (width <= 4) | data of type 5

    vector     u16 field | u8 flags: 1 = rows follow, 2 = nulls follow, 4 = null rows left out
               varint dim (1 to 1048576)
               [rows] [nulls]  as in a column
               raw             float32, m x dim, or without the null rows

Nulls hold zero (an empty text) in the data, so equal effects have equal bytes. Null vectors are
left out only when none or at least 1/64 of the rows remain: so the bytes bound what a reader
allocates.

Thread safety: functions only, no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptionError

__all__ = [
    "Buffer",
    "ColumnEffect",
    "Effects",
    "Operation",
    "VectorEffect",
    "decode",
    "decode_column",
    "encode",
    "encode_column",
]

Buffer: TypeAlias = "bytes | bytearray | memoryview"
Int64Array: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

FORMAT = 1
MAX_RID = 2**32 - 2
MAX_DIM = 1 << 20
MAX_FIELD = 0xFFFF

_TYPES = (
    "int64",
    "float64",
    "timestamp",
    "bool",
    "string",
    "json",
    "bytes",
    "list<int64>",
    "list<float64>",
    "list<string>",
)
_TAGS = {name: tag for tag, name in enumerate(_TYPES, start=1)}
_EMPTY: Mapping[str, Any] = {"string": "", "json": "", "bytes": b""}
_NUMBERS: Mapping[str, np.dtype[Any]] = {
    "int64": np.dtype("<i8"),
    "float64": np.dtype("<f8"),
    "timestamp": np.dtype("<M8[us]"),
}
_UNSIGNED = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}
_FLOAT32 = np.dtype("<f4")

_HAS_OPERATION, _HAS_NOTES = 1, 2
_HAS_ROWS, _HAS_NULLS, _NULLS_LEFT_OUT = 1, 2, 4

# Below this, up to 7 bytes of padding cost more than the copy that they save.
_ALIGN_FROM_BYTES = 256
# Up to here a Python loop is faster than the calls that numpy takes: 1 to 4 us each.
_FEW = 16
# How much larger than its bytes a reader may have to make an array of vectors.
_MAX_GROWTH = 64


@dataclass(frozen=True, eq=False)
class ColumnEffect:
    """New values of one field.

    Attributes
    ----------
    rows : int64 array (m,) or None
        Positions in ``Effects.rids`` (strictly increasing) whose field was written; None: all.
    type : str
        One of the field types of the schema, such as ``"int64"`` or ``"list<string>"``.
    values : array (m,)
        int64, float64, bool, ``datetime64[us]`` for ``timestamp``, and object arrays otherwise:
        ``str`` for ``string`` and for ``json`` (the JSON text), ``bytes``, and Python lists
        without nulls in them for the list types. What stands at a null position is ignored;
        decoding puts None there (zero in the number types).
    null : bool array (m,)
    """

    rows: Int64Array | None
    type: str
    values: NDArray[Any]
    null: BoolArray


@dataclass(frozen=True, eq=False)
class VectorEffect:
    """New values of one vector field.

    Attributes
    ----------
    rows : int64 array (m,) or None
        As in `ColumnEffect`.
    values : float32 array (m, dim)
        Rows at null positions are ignored; decoding puts zeros there. When every row is null
        the decoded array is read-only and shares one row of zeros.
    null : bool array (m,)
    """

    rows: Int64Array | None
    values: NDArray[np.float32]
    null: BoolArray


@dataclass(frozen=True)
class Operation:
    """The caller's name for a commit, so that a retry finds it: ``op_id=(writer, number)``.

    ``result`` is what a repeated call returns, in whatever bytes the collection likes.
    """

    writer: str
    number: int
    result: bytes = b""


@dataclass(frozen=True, eq=False)
class Effects:
    """What one commit did. Applied in this order: deletions, then the upserted rows.

    Attributes
    ----------
    deleted : int64 array (d,)
        Rids removed. One may be used again by a row of the same commit.
    rids : int64 array (n,)
        Rids written, each once.
    versions : int64 array (n,)
        The version of each row of ``rids`` after the commit.
    columns, vectors : dict
        By field number (0 to 65535): only fields that were written.
    op : Operation or None
    notes : dict of str to bytes
        Anything else that has to be replayed, by name (for instance what deletes remember).
    """

    deleted: Int64Array
    rids: Int64Array
    versions: Int64Array
    columns: Mapping[int, ColumnEffect] = field(default_factory=dict)
    vectors: Mapping[int, VectorEffect] = field(default_factory=dict)
    op: Operation | None = None
    notes: Mapping[str, bytes] = field(default_factory=dict)


def encode(effects: Effects) -> list[Buffer]:
    """Encode a commit as buffers to be written one after the other.

    Large arrays are not copied: write the buffers before changing them.

    Raises
    ------
    ValueError
        If the effects contradict themselves, or a text is not valid Unicode.

    Examples
    --------
    >>> import numpy as np
    >>> none = np.zeros(1, bool)
    >>> logins = ColumnEffect(None, "int64", np.array([7]), none)
    >>> effects = Effects(
    ...     deleted=np.array([], np.int64),
    ...     rids=np.array([3]),
    ...     versions=np.array([1]),
    ...     columns={0: logins},
    ... )
    >>> payload = b"".join(encode(effects))
    >>> len(payload)
    22
    >>> decode(memoryview(payload)).columns[0].values
    array([7])
    """
    out = _Writer()
    flags = _HAS_OPERATION if effects.op is not None else 0
    flags |= _HAS_NOTES if effects.notes else 0
    out.bytes(bytes((FORMAT, flags)))
    rows = len(effects.rids)
    if len(effects.versions) != rows:
        raise ValueError(f"{rows} rids but {len(effects.versions)} versions")
    for name, rids in (("deleted", effects.deleted), ("rids", effects.rids)):
        if len(rids) and int(rids.max()) > MAX_RID:
            raise ValueError(f"{name}: rid {int(rids.max())} is beyond {MAX_RID}")
        out.varint(len(rids))
        out.packed(rids)
    out.packed(effects.versions)
    out.varint(len(effects.columns))
    for number, column in effects.columns.items():
        _write_column(out, number, column, rows)
    out.varint(len(effects.vectors))
    for number, vector in effects.vectors.items():
        _write_vector(out, number, vector, rows)
    if effects.op is not None:
        out.sized(effects.op.writer.encode())
        out.varint(effects.op.number)
        out.sized(effects.op.result)
    if effects.notes:
        out.varint(len(effects.notes))
        for name, value in effects.notes.items():
            out.sized(name.encode())
            out.sized(value)
    return out.finish()


def decode(payload: memoryview | bytes) -> Effects:
    """Read what `encode` wrote.

    Every size is checked against the bytes that remain before anything of that size is made.
    Arrays may be read-only and share the memory of ``payload``.

    Raises
    ------
    CorruptionError
        With ``offset``, the first byte of ``payload`` that cannot be so.
    """
    source = _Reader(payload)
    if (version := source.byte("format")) != FORMAT:
        source.fail(f"payload format {version}; this build reads {FORMAT}", 1)
    flags = source.byte("flags")
    if flags & ~(_HAS_OPERATION | _HAS_NOTES):
        source.fail(f"unknown payload flags {flags:#x}", 1)
    deleted = source.rids("deleted rids")
    rids = source.rids("rids")
    rows = len(rids)
    versions = source.packed(rows, "versions")
    columns: dict[int, ColumnEffect] = {}
    for _ in range(source.count("columns")):
        number, column = _read_column(source, rows)
        if number in columns:
            source.fail(f"column {number} comes twice")
        columns[number] = column
    vectors: dict[int, VectorEffect] = {}
    for _ in range(source.count("vectors")):
        number, vector = _read_vector(source, rows)
        if number in vectors:
            source.fail(f"vector {number} comes twice")
        vectors[number] = vector
    op = None
    if flags & _HAS_OPERATION:
        writer = source.text("writer")
        op_number = source.varint("operation number")
        op = Operation(writer, op_number, bytes(source.sized("operation result")))
    notes: dict[str, bytes] = {}
    if flags & _HAS_NOTES:
        for _ in range(source.count("notes")):
            name = source.text("name of a note")
            notes[name] = bytes(source.sized("note"))
    source.end()
    return Effects(deleted, rids, versions, columns, vectors, op, notes)


def encode_column(number: int, column: ColumnEffect) -> list[Buffer]:
    """Encode one column by itself, as a checkpoint stores it.

    Layout: ``u8 format | varint rows | column`` (see the module). ``column.rows`` must be None.
    """
    if column.rows is not None:
        raise ValueError("a column stored by itself has all its rows")
    out = _Writer()
    out.bytes(bytes((FORMAT,)))
    out.varint(len(column.values))
    _write_column(out, number, column, len(column.values))
    return out.finish()


def decode_column(data: memoryview | bytes) -> tuple[int, ColumnEffect]:
    """Read what `encode_column` wrote: (field number, column).

    Raises
    ------
    CorruptionError
        With ``offset``, as `decode` does.
    """
    source = _Reader(data)
    if (version := source.byte("format")) != FORMAT:
        source.fail(f"column format {version}; this build reads {FORMAT}", 1)
    rows = source.varint("rows")
    if rows > 8 * len(source):  # the smallest type has one bit a row
        source.fail(f"{rows} rows in {len(source)} bytes")
    number, column = _read_column(source, rows)
    source.end()
    if column.rows is not None:
        source.fail("a column stored by itself has all its rows")
    return number, column


def _width_of(largest: int) -> int:
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4 if largest < 1 << 32 else 8


class _Writer:
    """Collects buffers: small pieces are joined, large arrays are passed on as they are."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._small = bytearray()
        self._large_bytes = 0

    def bytes(self, data: Buffer) -> None:
        self._small += data

    def varint(self, value: int) -> None:
        if not 0 <= value < 2**64:
            raise ValueError(f"{value} is not an unsigned 64-bit number")
        while value >= 0x80:
            self._small.append(value & 0x7F | 0x80)
            value >>= 7
        self._small.append(value)

    def sized(self, data: Buffer) -> None:
        self.varint(len(data))
        self.raw(memoryview(data), align=False)

    def raw(self, data: memoryview, *, align: bool = True) -> None:
        if data.nbytes < _ALIGN_FROM_BYTES:
            self._small += data
            return
        if align:
            self._small += bytes(-(self._large_bytes + len(self._small)) % 8)
        if self._small:
            self._buffers.append(self._small)
            self._large_bytes += len(self._small)
            self._small = bytearray()
        self._buffers.append(data)
        self._large_bytes += data.nbytes

    def array(self, values: NDArray[Any]) -> None:
        if values.nbytes < _ALIGN_FROM_BYTES:
            self._small += values.tobytes()
        else:
            self.raw(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data)

    def packed(self, values: NDArray[Any]) -> None:
        if len(values) <= _FEW:
            self.packed_list(values.tolist())
            return
        if values.dtype.kind == "i" and int(values.min()) < 0:
            raise ValueError(f"{int(values.min())} where no negative number may be")
        width = _width_of(int(values.max()))
        self._small.append(width)
        self.raw(values.astype(_UNSIGNED[width]).view(np.uint8).data, align=False)

    def packed_list(self, values: list[int], *, max_width: int = 8) -> None:
        if not values:
            return
        if min(values) < 0:
            raise ValueError(f"{min(values)} where no negative number may be")
        width = _width_of(max(values))
        if width > max_width:
            raise ValueError(f"a value of {max(values)} bytes or elements is too large")
        self._small.append(width)
        if width == 1:
            self._small += bytes(values)
        elif len(values) <= _FEW:
            self._small += b"".join([value.to_bytes(width, "little") for value in values])
        else:
            self.raw(np.array(values, _UNSIGNED[width]).view(np.uint8).data, align=False)

    def bits(self, values: BoolArray) -> None:
        self.raw(np.packbits(values, bitorder="little").data, align=False)

    def finish(self) -> list[Buffer]:
        if self._small or not self._buffers:
            self._buffers.append(self._small)
            self._small = bytearray()
        return self._buffers


class _Reader:
    """Walks over bytes that may say anything."""

    def __init__(self, data: memoryview | bytes) -> None:
        self._data = memoryview(data).cast("B")
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def fail(self, message: str, back_bytes: int = 0) -> NoReturn:
        offset = self._at - back_bytes
        raise CorruptionError(f"commit payload, byte {offset}: {message}", offset=offset)

    def take(self, size: int, what: str) -> memoryview:
        if size > len(self):
            self.fail(f"{what}: {size} bytes wanted, {len(self)} left")
        start = self._at
        self._at += size
        return self._data[start : self._at]

    def end(self) -> None:
        if len(self):
            self.fail(f"{len(self)} bytes after the end")

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        return int.from_bytes(self.take(2, what), "little")

    def varint(self, what: str) -> int:
        value = shift = 0
        while True:
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                self.fail(f"{what}: a number of more than 10 bytes")
        if value >= 2**64:
            self.fail(f"{what}: a number of more than 64 bits")
        return value

    def count(self, what: str) -> int:
        number = self.varint(what)
        if number > len(self):  # each takes at least a byte
            self.fail(f"{number} {what}, {len(self)} bytes left")
        return number

    def sized(self, what: str) -> memoryview:
        return self.take(self.varint(what), what)

    def text(self, what: str) -> str:
        data = self.sized(what)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what}: {error}", len(data) - error.start)

    def raw(self, size: int, what: str) -> memoryview:
        if size >= _ALIGN_FROM_BYTES and any(self.take(-self._at % 8, what)):
            self.fail(f"{what}: padding that is not zero", 1)
        return self.take(size, what)

    def array(self, kind: np.dtype[Any], count: int, what: str) -> NDArray[Any]:
        array = np.frombuffer(self.raw(count * kind.itemsize, what), kind)
        return array if array.flags.aligned else array.copy()

    def packed(self, count: int, what: str, *, max_width: int = 8) -> Int64Array:
        if count == 0:
            return np.zeros(0, np.int64)
        width = self.byte(what)
        if width not in {1, 2, 4, 8} or width > max_width:
            self.fail(f"{what}: width {width}", 1)
        data = self.take(count * width, what)
        if width == 1 and count <= _FEW:
            return np.array(data.tolist(), np.int64)
        values = np.frombuffer(data, _UNSIGNED[width]).astype(np.int64)
        if width == 8 and int(values.min()) < 0:
            self.fail(f"{what}: a number beyond 63 bits", len(data))
        return values

    def rids(self, what: str) -> Int64Array:
        rids = self.packed(self.count(what), what)
        if len(rids) and int(rids.max()) > MAX_RID:
            self.fail(f"{what}: rid {int(rids.max())} is beyond {MAX_RID}")
        return rids

    def bits(self, count: int, what: str) -> BoolArray:
        data = np.frombuffer(self.take((count + 7) // 8, what), np.uint8)
        if count % 8 and int(data[-1]) >> (count % 8):
            self.fail(f"{what}: bits after the last", 1)
        return np.unpackbits(data, count=count, bitorder="little").view(np.bool_)


def _write_rows_and_nulls(
    out: _Writer, flags: int, rows: Int64Array | None, null: BoolArray, count: int, total: int
) -> None:
    """Write the optional parts of a column or vector; ``count`` values, ``total`` rids."""
    if rows is None and count != total:
        raise ValueError(f"{count} values for {total} rows")
    if len(null) != count or (rows is not None and len(rows) != count):
        raise ValueError(f"{count} values, but rows or nulls of another length")
    if rows is not None:
        if count and (int(rows[-1]) >= total or bool((rows[1:] <= rows[:-1]).any())):
            raise ValueError(f"rows must increase and stay below {total}")
        out.varint(count)
        out.packed(rows)
    if flags & _HAS_NULLS:
        out.bits(null)


def _read_rows_and_nulls(
    source: _Reader, flags: int, total: int
) -> tuple[Int64Array | None, BoolArray]:
    rows: Int64Array | None = None
    count = total
    if flags & _HAS_ROWS:
        count = source.count("rows")
        rows = source.packed(count, "rows")
        if count and (int(rows[-1]) >= total or bool((rows[1:] <= rows[:-1]).any())):
            source.fail(f"rows that do not increase, or reach {total}")
    if flags & _HAS_NULLS:
        return rows, source.bits(count, "nulls")
    return rows, np.zeros(count, np.bool_)


def _flags(rows: Int64Array | None, null: BoolArray) -> int:
    return (_HAS_ROWS if rows is not None else 0) | (_HAS_NULLS if null.any() else 0)


def _check_field(number: int) -> None:
    if not 0 <= number <= MAX_FIELD:
        raise ValueError(f"field number {number} is not in 0 to {MAX_FIELD}")


def _write_column(out: _Writer, number: int, column: ColumnEffect, total: int) -> None:
    _check_field(number)
    tag = _TAGS.get(column.type)
    if tag is None:
        raise ValueError(f"unknown field type {column.type!r}")
    null = column.null
    flags = _flags(column.rows, null)
    out.bytes(number.to_bytes(2, "little") + bytes((tag, flags)))
    _write_rows_and_nulls(out, flags, column.rows, null, len(column.values), total)
    if column.type in _NUMBERS:
        values = column.values.astype(_NUMBERS[column.type], copy=False)
        if flags & _HAS_NULLS:
            values = np.where(null, np.zeros((), values.dtype), values)
        out.array(values)
    elif column.type == "bool":
        out.bits(column.values.astype(np.bool_) & ~null)
    else:
        items = column.values.tolist()
        if flags & _HAS_NULLS:
            empty: Any = _EMPTY.get(column.type, ())
            for at in np.flatnonzero(null).tolist():
                items[at] = empty
        _write_items(out, column.type, items)


def _write_items(out: _Writer, type_name: str, items: Sequence[Any]) -> None:
    """Write values of differing lengths: the lengths, then everything in one piece."""
    if type_name.startswith("list<"):
        _write_lengths(out, items)
        flat = list(chain.from_iterable(items))
        element = type_name[5:-1]
        if element == "string":
            _write_items(out, element, flat)
        else:
            out.array(np.fromiter(flat, _NUMBERS[element], len(flat)))
        return
    if type_name == "bytes":
        _write_lengths(out, items)
        out.raw(memoryview(b"".join(items)))
        return
    joined = "".join(items)
    if joined.isascii():  # one character is one byte, so that nothing is encoded one by one
        _write_lengths(out, items)
        out.raw(memoryview(joined.encode("ascii")))
    else:
        _write_items(out, "bytes", list(map(str.encode, items)))


def _write_lengths(out: _Writer, items: Sequence[Any]) -> None:
    out.packed_list(list(map(len, items)), max_width=4)


def _read_column(source: _Reader, total: int) -> tuple[int, ColumnEffect]:
    number = source.u16("field")
    tag = source.byte("type")
    if not 1 <= tag <= len(_TYPES):
        source.fail(f"unknown type {tag}", 1)
    type_name = _TYPES[tag - 1]
    flags = source.byte("flags")
    if flags & ~(_HAS_ROWS | _HAS_NULLS):
        source.fail(f"unknown column flags {flags:#x}", 1)
    rows, null = _read_rows_and_nulls(source, flags, total)
    values: NDArray[Any]
    if type_name in _NUMBERS:
        values = source.array(_NUMBERS[type_name], len(null), type_name)
    elif type_name == "bool":
        values = source.bits(len(null), type_name)
    else:
        items = _read_items(source, type_name, len(null))
        values = np.fromiter(items, np.object_, len(null))
        if flags & _HAS_NULLS:
            values[null] = None
    return number, ColumnEffect(rows, type_name, values, null)


def _read_items(source: _Reader, type_name: str, count: int) -> Iterable[Any]:
    lengths = source.packed(count, type_name, max_width=4)
    # Lengths have 32 bits and numbers of values at most 40, so the sums cannot overflow.
    ends = np.cumsum(lengths).tolist()
    total = ends[-1] if count else 0
    spans = [0, *ends][:count], ends
    if type_name.startswith("list<"):
        element = type_name[5:-1]
        flat: list[Any]
        if element == "string":
            flat = list(_read_items(source, element, total))
        else:
            flat = source.array(_NUMBERS[element], total, type_name).tolist()
        return (flat[start:end] for start, end in zip(*spans, strict=True))
    blob = bytes(source.raw(total, type_name))
    if type_name == "bytes":
        return (blob[start:end] for start, end in zip(*spans, strict=True))
    if blob.isascii():
        text = blob.decode("ascii")
        return (text[start:end] for start, end in zip(*spans, strict=True))
    return _decode_texts(source, blob, *spans)


def _decode_texts(source: _Reader, blob: bytes, starts: list[int], ends: list[int]) -> list[str]:
    texts = []
    for start, end in zip(starts, ends, strict=True):
        try:
            texts.append(blob[start:end].decode())
        except UnicodeDecodeError as error:  # noqa: PERF203 - the position is worth it
            source.fail(f"text that is not UTF-8: {error}", len(blob) - start - error.start)
    return texts


def _write_vector(out: _Writer, number: int, vector: VectorEffect, total: int) -> None:
    _check_field(number)
    if vector.values.ndim != 2 or not 1 <= vector.values.shape[1] <= MAX_DIM:
        raise ValueError(f"vectors of shape {vector.values.shape}; want (m, 1 to {MAX_DIM})")
    count, dim = vector.values.shape
    values = vector.values.astype(_FLOAT32, copy=False)
    flags = _flags(vector.rows, vector.null)
    if flags & _HAS_NULLS:
        present = count - int(vector.null.sum())
        if _may_leave_out(present, count):
            flags |= _NULLS_LEFT_OUT
            values = values[~vector.null]
        else:
            values = np.where(vector.null[:, None], np.float32(0), values)
    out.bytes(number.to_bytes(2, "little") + bytes((flags,)))
    out.varint(dim)
    _write_rows_and_nulls(out, flags, vector.rows, vector.null, count, total)
    out.array(values)


def _may_leave_out(present: int, count: int) -> bool:
    return present == 0 or present * _MAX_GROWTH >= count


def _read_vector(source: _Reader, total: int) -> tuple[int, VectorEffect]:
    number = source.u16("field")
    flags = source.byte("flags")
    if flags & ~(_HAS_ROWS | _HAS_NULLS | _NULLS_LEFT_OUT):
        source.fail(f"unknown vector flags {flags:#x}", 1)
    dim = source.varint("dim")
    if not 1 <= dim <= MAX_DIM:
        source.fail(f"dim {dim} is not in 1 to {MAX_DIM}")
    rows, null = _read_rows_and_nulls(source, flags, total)
    count = len(null)
    if not flags & _NULLS_LEFT_OUT:
        values = source.array(_FLOAT32, count * dim, "vectors").reshape(count, dim)
        return number, VectorEffect(rows, values, null)
    present = count - int(null.sum())
    if not _may_leave_out(present, count):
        source.fail(f"{count - present} of {count} vectors are left out")
    stored = source.array(_FLOAT32, present * dim, "vectors").reshape(present, dim)
    if present == 0:
        values = np.broadcast_to(np.zeros(dim, np.float32), (count, dim))
    else:
        values = np.zeros((count, dim), np.float32)
        values[~null] = stored
    return number, VectorEffect(rows, values, null)
