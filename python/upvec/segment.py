"""The bytes of the log: segments and records, and how they are read one after the other.

Files
-----
``<first seq, 20 digits>.log``
    A segment. Little-endian::

        0   8s   b"UPVECLOG"
        8   u32  format version = 1
        12  16s  id of the collection
        28  u32  salt: random, the start value of the header checksums in this segment
        32  u32  chain: the payload checksum of the last record before this segment
        36  u64  first seq: that of the first commit in this segment
        44  u32  CRC-32 of bytes 0 to 43

    then records, with nothing between them::

        0   u32  0x52565055 (b"UPVR")
        4   u32  CRC-32 of bytes 8 to 43, started with the salt
        8   u64  seq: that of the commit; in a marker, that of the commit before it
        16  u64  payload length
        24  u32  payload checksum: CRC-32 of the payload, started with the field below
        28  u32  payload checksum of the previous record (so each covers all before it)
        32  u64  durable seq: the newest commit known to be on the disk when this was written
        40  u32  flags: 1 = everything before this record in this segment was on the disk when
                 this was written, 2 = closed, 4 = sealed
        44  payload

    Records flagged *closed* or *sealed* are markers, with an empty payload. *Closed*: a clean
    end; more records may follow after it. *Sealed*: the last record of its segment; there is a
    next one.

Nothing here writes, and nothing here decides: what an invalid record means is up to `log`.

Thread safety: functions and plain values; a `Position` belongs to whoever walks with it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .errors import CorruptionError
from .files import Files

__all__ = [
    "CLOSED",
    "HEADER_BYTES",
    "MARKER",
    "SEALED",
    "SEGMENT_HEADER_BYTES",
    "SYNCED_BEFORE",
    "Header",
    "Position",
    "Segment",
    "corrupt",
    "headers",
    "is_segment_name",
    "later_headers",
    "pack_header",
    "pack_segment_header",
    "read_record",
    "read_segment_header",
    "segment_name",
]

VERSION = 1
SYNCED_BEFORE, CLOSED, SEALED = 1, 2, 4
MARKER = CLOSED | SEALED

_SEGMENT = struct.Struct("<8sI16sIIQI")
_SEGMENT_MAGIC = b"UPVECLOG"
_RECORD = struct.Struct("<IIQQIIQI")
_RECORD_MAGIC = 0x52565055
_RECORD_MAGIC_BYTES = _RECORD_MAGIC.to_bytes(4, "little")
_SCAN_BYTES = 1 << 20
_NAME = re.compile(r"[0-9]{20}\.log")

SEGMENT_HEADER_BYTES = _SEGMENT.size
HEADER_BYTES = _RECORD.size


class Header(NamedTuple):
    """What the header of a record says after its magic and checksum."""

    seq: int
    size: int
    checksum: int
    previous: int
    durable_seq: int
    flags: int


@dataclass
class Segment:
    """A segment as its header describes it."""

    path: str
    first_seq: int
    salt: int
    chain: int

    def start(self) -> Position:
        """Return the position of its first record."""
        return Position(self, SEGMENT_HEADER_BYTES, self.first_seq - 1, self.chain)


@dataclass
class Position:
    """Where the next record begins, and what it has to connect to."""

    segment: Segment
    offset: int
    seq: int
    chain: int
    sealed: bool = False
    closed: bool = False


def is_segment_name(name: str) -> bool:
    """Tell whether a file of this name is a segment."""
    return _NAME.fullmatch(name) is not None


def segment_name(first_seq: int) -> str:
    """Return the name of the segment that begins with a commit."""
    return f"{first_seq:020}.log"


def corrupt(path: str, offset: int, message: str) -> CorruptionError:
    """Return the error that names a place in a file."""
    return CorruptionError(f"{path}, byte {offset}: {message}", path=path, offset=offset)


def pack_segment_header(collection_id: bytes, segment: Segment) -> bytes:
    """Return the first bytes of a segment."""
    raw = _SEGMENT.pack(
        _SEGMENT_MAGIC, VERSION, collection_id, segment.salt, segment.chain, segment.first_seq, 0
    )[:-4]
    return raw + zlib.crc32(raw).to_bytes(4, "little")


def read_segment_header(files: Files, path: str, first_seq: int, collection_id: bytes) -> Segment:
    """Read and verify the header of the segment that should begin with ``first_seq``."""
    fd = files.open(path)
    try:
        raw = files.read(fd, _SEGMENT.size, 0)
    finally:
        files.close(fd)
    if len(raw) < _SEGMENT.size or not raw.startswith(_SEGMENT_MAGIC):
        raise corrupt(path, 0, "not a log segment")
    _, version, collection, salt, chain, stored_seq, checksum = _SEGMENT.unpack(raw)
    if zlib.crc32(raw[:-4]) != checksum:
        raise corrupt(path, 0, "the segment header does not match its checksum")
    if version != VERSION:
        raise corrupt(path, 8, f"format version {version}; this build reads {VERSION}")
    if collection != collection_id:
        raise corrupt(
            path, 12, f"belongs to collection {collection.hex()}, not {collection_id.hex()}"
        )
    if stored_seq != first_seq:
        raise corrupt(path, 36, f"begins with commit {stored_seq}, not as its name says")
    return Segment(path, first_seq, salt, chain)


def pack_header(header: Header, salt: int) -> bytes:
    """Return the bytes of a record before its payload."""
    raw = _RECORD.pack(_RECORD_MAGIC, 0, *header)
    return raw[:4] + zlib.crc32(raw[8:], salt).to_bytes(4, "little") + raw[8:]


def parse_header(raw: bytes, salt: int) -> Header | None:
    """Return the header if these bytes are one, whole and of this segment."""
    if len(raw) < _RECORD.size or not raw.startswith(_RECORD_MAGIC_BYTES):
        return None
    if zlib.crc32(raw[8 : _RECORD.size], salt) != int.from_bytes(raw[4:8], "little"):
        return None
    return Header(*_RECORD.unpack_from(raw)[2:])


def read_record(files: Files, fd: int, at: Position, size: int) -> tuple[Header, bytes] | str:
    """Read the record at the position and move on, or say what is wrong with it.

    ``size`` is that of the file: nothing larger is ever asked of memory.
    """
    header = parse_header(files.read(fd, _RECORD.size, at.offset), at.segment.salt)
    if header is None:
        return "not a record header"
    start = at.offset + _RECORD.size
    if (problem := _mismatch(header, at, size - start)) is not None:
        return problem
    payload = files.read(fd, header.size, start)
    if len(payload) != header.size or zlib.crc32(payload, at.chain) != header.checksum:
        return f"the payload of commit {header.seq} does not match its checksum"
    at.offset = start + header.size
    at.seq, at.chain = header.seq, header.checksum
    at.sealed, at.closed = bool(header.flags & SEALED), bool(header.flags & CLOSED)
    return header, payload


def _mismatch(header: Header, at: Position, left: int) -> str | None:
    """Say why a valid header cannot stand at this position."""
    marker = bool(header.flags & MARKER)
    if at.sealed:
        return "bytes after the seal of the segment"
    if header.flags & ~(SYNCED_BEFORE | MARKER):
        return f"unknown flags {header.flags:#x}"
    if header.seq != at.seq + (0 if marker else 1):
        return f"commit {header.seq} after {at.seq}"
    if header.previous != at.chain:
        return f"commit {header.seq} does not continue the one before it"
    if header.size > left or (marker and header.size):
        return f"commit {header.seq} has {header.size} bytes, of which the file has {left}"
    return None


def headers(files: Files, fd: int, start: Position, end: int) -> Iterator[tuple[int, Header]]:
    """Yield (offset, header) of records that have been read before, without their payloads."""
    offset = start.offset
    while offset < end:
        header = parse_header(files.read(fd, _RECORD.size, offset), start.segment.salt)
        if header is None:
            raise corrupt(start.segment.path, offset, "changed while it was read")
        yield offset, header
        offset += _RECORD.size + header.size


def later_headers(files: Files, fd: int, at: Position) -> Iterator[Header]:
    """Find everything after the position that is the header of a later record of this segment.

    Earlier records are passed over: a value may hold a copy of a part of this very log.
    """
    offset = at.offset + 1
    # The overlap lets a header be found that begins in this block and ends in the next.
    while len(block := files.read(fd, _SCAN_BYTES + _RECORD.size, offset)) >= _RECORD.size:
        found = block.find(_RECORD_MAGIC_BYTES)
        while 0 <= found < _SCAN_BYTES:
            header = parse_header(block[found : found + _RECORD.size], at.segment.salt)
            if header is not None and header.seq > at.seq:
                yield header
            found = block.find(_RECORD_MAGIC_BYTES, found + 1)
        offset += _SCAN_BYTES
