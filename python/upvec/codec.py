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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ColumnEffect",
    "Effects",
    "Operation",
    "VectorEffect",
    "decode",
    "decode_column",
    "encode",
    "encode_column",
]

Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


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
