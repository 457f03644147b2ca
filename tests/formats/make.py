"""Make the files that every later version has to open: python tests/formats/make.py FOLDER.

They are made once per version of the formats, and never again: what is committed in ``v1`` is what
an installed upvec of that time has written.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import upvec
from upvec import log

SCHEMA = upvec.Schema(
    upvec.Field("id", "string", primary=True),
    upvec.Field("n", "int64", default=0, merge=upvec.sum_()),
    upvec.Field("x", "float64", nullable=True),
    upvec.Field("yes", "bool", nullable=True),
    upvec.Field("seen", "timestamp", default=np.datetime64("2026-01-01", "us")),
    upvec.Field("doc", "json", nullable=True),
    upvec.Field("raw", "bytes", nullable=True),
    upvec.Field("tags", "list<string>", nullable=True),
    upvec.Field("counts", "list<int64>", nullable=True),
    upvec.Field("shares", "list<float64>", nullable=True),
    upvec.Vector("emb", 6, metric="cosine"),
    upvec.Vector("more", 3, metric="l2", nullable=True),
    unique=[upvec.Unique("n", "raw", name="pair")],
    order_by="seen",
    extra="store",
)


def row(number: int, turn: int) -> dict[str, Any]:
    """Return a row in which everything differs by its number, and some of it is null."""
    made: dict[str, Any] = {
        "id": f"kéy-{number}",
        "n": number + 1000 * turn,
        "x": None if number % 5 == 0 else number / 7,
        "yes": [True, False, None][number % 3],
        "seen": np.datetime64(f"2026-0{turn + 1}-{number % 27 + 1:02}T12:00:00", "us"),
        "doc": None if number % 4 == 0 else {"a": [number, None, "ü"]},
        "raw": None if number % 6 == 0 else bytes([number % 256, 0, 255]),
        "tags": [None, [], ["a", "bb", "ccc"]][number % 3],
        "counts": [[number, -number], None][number % 2],
        "shares": [None, [0.5, float(number)]][number % 2],
        "emb": [1.0, number % 7, number % 11, -(number % 3), 0.25, turn],
        "more": [None, [number, turn, 1]][number % 2],
    }
    if number % 8 == 0:
        made["beyond"] = {"kept": number}
    return made


def write_collection(folder: Path, *, closed: bool) -> None:
    """Write a collection of everything that a file may hold, and what it holds beside it."""
    log.SEGMENT_BYTES = 3000
    col = upvec.open(folder, SCHEMA)
    col.upsert([row(number, 0) for number in range(40)])
    col.delete([f"kéy-{number}" for number in (3, 4, 5, 30)])
    col.upsert([row(number, 1) for number in (7, 50, 51)], op_id=("maker", 7))
    col.checkpoint()
    col.alter(
        add=[upvec.Field("half", "float64", nullable=True)],
        backfill={"half": "x / 2"},
        rename={"yes": "sure"},
    )
    col.upsert([{"id": "kéy-50", "half": 1.5}, {"id": "kéy-1", "sure": None}])
    col.checkpoint()
    col.delete(["kéy-50"])
    with col.transaction() as tx:
        tx.upsert([{"id": "kéy-2", "more": None}, {"id": "kéy-9", "doc": {"b": 1}}])
        tx.delete(["kéy-8"])
    described = {"seq": col.seq, "digest": col.digest(), "rows": plain_rows(col)}
    if closed:
        col.close()
    folder.with_suffix(".json").write_text(json.dumps(described, indent=1, ensure_ascii=False))
    if not closed:
        sys.stdout.flush()
        os._exit(0)


def plain_rows(col: upvec.Collection) -> list[dict[str, Any]]:
    """Return all rows in JSON's terms, by key."""
    found = [one for part in col.scan() for one in part.to_dicts() if one is not None]
    return sorted(({k: plain(v) for k, v in one.items()} for one in found), key=lambda r: r["id"])


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, np.ndarray):
        return [float(one) for one in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value


def write_indexes(folder: Path) -> None:
    """Write index files of every way of keeping vectors, and both types of keys."""
    folder.mkdir()
    described = {}
    for key in ("int64", "str"):
        for keep in ("f32", "bf16", "none"):
            index = upvec.Index(5, metric="cosine", key=key, keep=keep, M=4, ef_construction=20)
            numbers = np.arange(60)
            keys = numbers if key == "int64" else [f"k{n}" for n in numbers.tolist()]
            vectors = np.stack(
                [numbers % 7 + 1, numbers % 5, numbers % 3, -numbers, numbers * 0], 1
            )
            index.upsert(keys, vectors.astype(np.float32))
            index.remove(keys[10:15])
            index.upsert(keys[12:13], np.ones((1, 5), dtype=np.float32))
            name = f"{key}-{keep}"
            index.save(folder / name)
            found = index.search(np.ones(5, dtype=np.float32), k=5)
            described[name] = {"digest": index.digest(), "nearest": found.keys[0].tolist()}
    (folder / "expected.json").write_text(json.dumps(described, indent=1))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir()
    write_indexes(target / "indexes")
    write_collection(target / "closed", closed=True)
    write_collection(target / "open", closed=False)
