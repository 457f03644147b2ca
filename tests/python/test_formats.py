"""Files of every version that was ever written open, and those of later versions are refused.

What lies in tests/formats is never made again: see make.py there.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import codec
from upvec.blocks import blocks_of_array, read_blocks
from upvec.codec import ColumnEffect, decode, decode_column, encode, encode_column
from upvec.errors import CorruptionError

FORMATS = Path(__file__).parents[1] / "formats"
PACKAGE = Path(upvec.__file__).parent
sys.path.insert(0, str(FORMATS))

import make  # noqa: E402

VERSIONS = sorted(path.name for path in FORMATS.iterdir() if path.name.startswith("v"))
LARGE = 2**40


@pytest.fixture(params=VERSIONS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the files of one version."""
    return Path(shutil.copytree(FORMATS / request.param, tmp_path / "golden"))


@pytest.mark.parametrize("name", ["closed", "open"])
@pytest.mark.parametrize("read_only", [True, False])
def test_collections_of_every_version_open_and_go_on(
    golden: Path, name: str, read_only: bool
) -> None:
    expected = json.loads((golden / f"{name}.json").read_text(encoding="utf-8"))
    (golden / name / "LOCK").touch()
    with upvec.open(golden / name, read_only=read_only) as col:
        assert col.seq == expected["seq"]
        assert make.plain_rows(col) == expected["rows"]
        assert col.digest() == expected["digest"]
        assert col.verify().ok
        again = expected["rows"][5]
        found = col.search(np.array(again["emb"], dtype=np.float32), k=1, field="emb")
        assert found["id"].tolist() == [again["id"]]
        if read_only:
            return
        assert col.upsert([make.row(7, 1)], op_id=("maker", 7)).seq == 3  # remembered
        older = make.row(3, 0) | {"seen": np.datetime64("2025-06-01", "us")}
        assert col.upsert([older]).counts["stale"] == 1  # when it was deleted is remembered, too
        col.upsert([{"id": "new", "emb": [1, 0, 0, 0, 0, 0]}])
        digest = col.digest()
    with upvec.open(golden / name) as col:
        assert (col.digest(), "new" in col) == (digest, True)


def test_checkpoints_and_logs_of_every_version_agree(golden: Path) -> None:
    """The log alone from the older checkpoint gives what the newer one and its log give."""
    expected = json.loads((golden / "closed.json").read_text(encoding="utf-8"))
    newest = max((golden / "closed").glob("checkpoint-*"))
    shutil.rmtree(newest)
    with pytest.warns(RuntimeWarning, match="older checkpoint"):
        col = upvec.open(golden / "closed")
    with col:
        assert col.digest() == expected["digest"]


def test_indexes_of_every_version_load(golden: Path) -> None:
    expected = json.loads((golden / "indexes" / "expected.json").read_text(encoding="utf-8"))
    assert len(expected) == 6
    for name, wanted in expected.items():
        index = upvec.Index.load(golden / "indexes" / name)
        assert index.digest() == wanted["digest"], name
        assert index.check().ok, name
        found = index.search(np.ones(5, dtype=np.float32), k=5)
        assert found.keys[0].tolist() == wanted["nearest"], name


# Later versions


def sealed_manifest(path: Path, format_: int) -> None:
    body = json.loads(path.read_bytes().rsplit(b"crc32", 1)[0])
    text = json.dumps(body | {"format": format_}).encode() + b"\n"
    path.write_bytes(text + f"crc32 {zlib.crc32(text):08x}\n".encode())


def newer_segment(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:12] = struct.pack("<I", 2)
    data[44:48] = struct.pack("<I", zlib.crc32(data[:44]))
    path.write_bytes(data)


def test_a_manifest_of_a_later_version_is_refused_by_name(golden: Path) -> None:
    sealed_manifest(golden / "closed" / "MANIFEST", 2)
    with pytest.raises(CorruptionError, match="MANIFEST: format version 2; this build reads 1"):
        upvec.open(golden / "closed")


def test_a_segment_of_a_later_version_is_refused_by_name(golden: Path) -> None:
    newest = max((golden / "closed" / "log").iterdir())
    newer_segment(newest)
    with pytest.raises(
        CorruptionError, match=rf"{newest.name}.*format version 2; this build reads 1"
    ):
        upvec.open(golden / "closed")


def test_a_commit_of_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    schema = upvec.Schema(upvec.Field("id", "int64", primary=True))
    with upvec.open(tmp_path / "c", schema) as col:
        col.upsert([{"id": 1}])
        later = [bytes([codec.FORMAT + 1]), *encode(col._engine.delete_effects(np.array([0])))]
        later[1] = bytes(later[1])[1:]
        col._storage._open_log().append(later)  # type: ignore[union-attr]
    with pytest.raises(CorruptionError, match=r"log, commit 2: .*2; this build reads 1"):
        upvec.open(tmp_path / "c")


def test_a_column_of_a_later_version_is_refused() -> None:
    column = ColumnEffect(None, "int64", np.arange(3), np.zeros(3, dtype=np.bool_))
    data = bytearray(b"".join(encode_column(1, column)))
    data[0] = codec.FORMAT + 1
    with pytest.raises(CorruptionError, match="format 2; this build reads 1"):
        decode_column(bytes(data))


def test_an_index_of_a_later_version_is_refused_by_name(golden: Path) -> None:
    path = golden / "indexes" / "int64-f32"
    data = bytearray(path.read_bytes())
    data[8] = 4
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match=r"int64-f32: format version 4.*versions 1 to 3"):
        upvec.Index.load(path)


# Hostile files


def peak_bytes(work: Any) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


@pytest.mark.parametrize("length", [LARGE, 2**63])
def test_lengths_that_cannot_be_take_no_memory(length: int) -> None:
    payload = bytes([codec.FORMAT, 0]) + varint(length) + b"\x08" + bytes(100)
    assert peak_bytes(lambda: decode(payload)) < 1_000_000
    column = bytes([codec.FORMAT]) + varint(length) + bytes(100)
    assert peak_bytes(lambda: decode_column(column)) < 1_000_000
    block = bytearray(next(iter(blocks_of_array(1, "int64", np.arange(9)))))
    block[0:8] = struct.pack("<II", 2**32 - 1, 2**32 - 1)
    assert peak_bytes(lambda: list(read_blocks(bytes(block), 1, "int64"))) < 1_000_000


def test_nothing_is_ever_unpickled() -> None:
    for source in PACKAGE.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"import pickle|pickle\.load|allow_pickle\s*=\s*True", text), source
