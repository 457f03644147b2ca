"""Bytes that say anything at all, for everything in Python that reads a file.

``python tests/fuzz/fuzz_decoders.py [libFuzzer's options] CORPUS`` runs it under atheris, which pip
installs. `check_decoder` is what both that and the tests call.

The first byte of an input chooses the reader. Whatever comes after it, the reader gives a value or
raises `CorruptionError`, and takes memory in proportion to the input. Where a checksum would keep
random bytes out, it is put right first.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from upvec.blocks import blocks_of_array, damaged_blocks, read_blocks, sound_blocks
from upvec.checkpoint import parse_anyway, read_manifest
from upvec.codec import (
    ColumnEffect,
    Effects,
    Operation,
    VectorEffect,
    decode,
    decode_column,
    encode,
    encode_column,
)
from upvec.columns import objects
from upvec.errors import CorruptionError
from upvec.files import Files
from upvec.log import Log
from upvec.segment import Header, Segment, pack_header, pack_segment_header

_ID = bytes(range(16))
_FOLDER = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_FILES = Files()


class _Unsynced(Files):
    """Nothing that is written here has to outlive this process."""

    def sync_data(self, fd: int) -> None:
        pass

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: str) -> None:
        pass


def check_decoder(data: bytes) -> None:
    """Read bytes by the reader that the first of them chooses."""
    if not data:
        return
    reader = _READERS[data[0] % len(_READERS)]
    with suppress(CorruptionError):
        reader(data[1:])


def _commit(data: bytes) -> None:
    effects = decode(data)
    # What can be read is written again, and read as the same.
    again = decode(b"".join(encode(effects)))
    assert again.rids.tolist() == effects.rids.tolist()
    assert again.columns.keys() == effects.columns.keys()


def _column(data: bytes) -> None:
    decode_column(data)


def _blocks(data: bytes) -> None:
    damaged = list(damaged_blocks(data))
    assert (damaged == []) or all(offset <= len(data) for offset, _, _ in damaged)
    for kind in ("int64", "string"):
        try:
            found = list(read_blocks(data, 1, kind))
        except CorruptionError:
            continue
        assert damaged == []
        assert sum(len(block.values) for block in found) >= 0
        list(sound_blocks(data, 1, kind))


def _sealed_blocks(data: bytes) -> None:
    """One block whose checksum is right, whatever is in it."""
    size = len(data)
    unsealed = struct.pack("<IIQ", size, min(size, 16), 0)
    checksum = zlib.crc32(data, zlib.crc32(unsealed))
    _blocks(unsealed + struct.pack("<II", checksum, 0) + data + bytes(-size % 8))


def _manifest(data: bytes) -> None:
    text = data if data.endswith(b"\n") else data + b"\n"
    path = os.path.join(_FOLDER, "MANIFEST")
    Path(path).write_bytes(text + f"crc32 {zlib.crc32(text):08x}\n".encode())
    parse_anyway(_FOLDER, _FILES)
    read_manifest(_FOLDER, _FILES)


def _segment(data: bytes, salt: int = 7) -> None:
    """A log of one segment with any bytes in it: opened to read, and to write."""
    folder = os.path.join(_FOLDER, "log")
    if not os.path.isdir(folder):
        os.mkdir(folder)
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    segment = Segment(os.path.join(folder, f"{1:020}.log"), 1, salt, 0)
    Path(segment.path).write_bytes(pack_segment_header(_ID, segment) + data)
    for read_only in (True, False):
        with Log.open(folder, _Unsynced(), _ID, read_only=read_only) as log:
            seqs = [seq for seq, _ in log.replay()]
            assert seqs == list(range(1, len(seqs) + 1))


def _sealed_segment(data: bytes) -> None:
    """Records whose headers match their checksums, whatever they say: 36 bytes are one of them."""
    records = b""
    while len(data) >= 36:
        seq, size, checksum, previous, durable, flags = struct.unpack_from("<QQIIQI", data)
        rest = data[36:]
        if flags % 2 == 0:  # a record that continues the one before
            size %= 64
            payload, rest = rest[:size], rest[size:]
            seq, size = seq % 4 + 1, len(payload)
            checksum = zlib.crc32(payload, previous)
        else:
            payload = b""
        header = Header(seq, size, checksum, previous, durable, flags % 16)
        records += pack_header(header, 7) + payload
        data = rest
    _segment(records + data)


_READERS: tuple[Callable[[bytes], None], ...] = (
    _commit,
    _column,
    _blocks,
    _sealed_blocks,
    _manifest,
    _segment,
    _sealed_segment,
)


def seeds() -> list[bytes]:
    """Return valid inputs of every reader."""
    none = np.zeros(3, dtype=np.bool_)
    some = np.array([False, True, False])
    columns = {
        1: ColumnEffect(None, "int64", np.array([1, -2, 2**60]), none),
        2: ColumnEffect(np.array([0, 2]), "float64", np.array([0.5, np.nan]), none[:2]),
        3: ColumnEffect(None, "bool", np.array([True, False, True]), some),
        4: ColumnEffect(None, "string", objects(["ä", None, "longer text"]), some),
        5: ColumnEffect(None, "list<int64>", objects([[1], None, [2, 3]]), some),
        6: ColumnEffect(None, "list<string>", objects([["a", ""], None, []]), some),
        7: ColumnEffect(None, "bytes", objects([b"\0", None, b"xyz"]), some),
    }
    vectors = {8: VectorEffect(None, np.arange(6, dtype=np.float32).reshape(3, 2), some)}
    rids = np.array([4, 5, 300])
    effects = Effects(
        np.array([9]), rids, rids + 1, columns, vectors, Operation("me", 3, b"r"), {"schema": b"{}"}
    )
    payload = b"".join(encode(effects))
    column = b"".join(encode_column(1, columns[4]))
    block = b"".join(blocks_of_array(1, "int64", np.arange(40)))
    manifest = {
        "format": 1,
        "collection": "00" * 16,
        "extra": {"schema": {}},
        "checkpoints": [
            {
                "directory": f"checkpoint-{5:020}",
                "seq": 5,
                "extra": {},
                "files": {"live": [8, "00000000"]},
            }
        ],
    }
    record = struct.pack("<QQIIQI", 0, 5, 0, 0, 0, 0) + b"hello"
    whole = pack_header(Header(1, 5, zlib.crc32(b"hello"), 0, 0, 1), 7) + b"hello"
    text = json.dumps(manifest).encode()
    bodies = (payload, column, block, column, text, whole, record * 2)
    return [bytes([at]) + body for at, body in enumerate(bodies)]


def main() -> None:
    """Fuzz under atheris."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, check_decoder)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
