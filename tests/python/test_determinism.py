"""The same batches give the same graph: at any number of threads, after a crash, after a load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import upvec
from upvec import Field, Schema, Vector

DIM = 12
KEYS = 900
THREADS = (1, 2, 4, 8, 64)

Floats = npt.NDArray[np.float32]

# Rows of a batch, and whether they are removed or how far they move. One row, a sub-batch less one,
# one, one more, and several; removals between, and rows that come again.
STEPS: tuple[tuple[int, str], ...] = (
    (1, "far"),
    (700, "far"),
    (257, "near"),
    (255, "remove"),
    (256, "far"),
    (40, "same"),
    (1, "near"),
    (300, "remove"),
    (600, "near"),
    (12, "far"),
)


def batch_of(number: int) -> tuple[npt.NDArray[np.int64], Floats, str]:
    """Keys and vectors of a batch: they follow from its number alone."""
    rows, what = STEPS[number % len(STEPS)]
    rng = np.random.default_rng(number)
    keys = rng.choice(KEYS, rows, replace=False)
    places = np.random.default_rng(1).standard_normal((KEYS, DIM))[keys]
    spread = {"far": 1.0, "near": 0.05, "same": 0.0, "remove": 0.0}[what]
    vectors = places + spread * rng.standard_normal((rows, DIM))
    return keys, np.asarray(vectors, np.float32), what


def apply_to_index(ix: upvec.Index, number: int, threads: int) -> None:
    keys, vectors, what = batch_of(number)
    column: Any = [f"key {key}" for key in keys] if ix.key == "str" else keys
    if what == "remove":
        ix.remove(column, threads=threads)
    else:
        ix.upsert(column, vectors, threads=threads)


@pytest.mark.parametrize(
    ("metric", "codes", "keep", "key"),
    [
        ("l2", "int8", "f32", "int64"),
        ("cosine", "int8", "f32", "str"),
        ("l2", "none", "f32", "str"),
        ("cosine", "int8", "bf16", "int64"),
        ("cosine", "int8", "none", "int64"),
        ("l2", "int8", "none", "str"),
    ],
)
def test_any_number_of_threads_gives_the_same_graph_after_every_batch(
    metric: str, codes: str, keep: str, key: str, tmp_path: Path
) -> None:
    indexes = [
        upvec.Index(DIM, metric=metric, codes=codes, keep=keep, key=key, M=8) for _ in THREADS
    ]
    for number in range(2 * len(STEPS)):
        for i, threads in enumerate(THREADS):
            apply_to_index(indexes[i], number, threads)
            if number % len(THREADS) == i:  # one after the other goes on with what was loaded
                indexes[i].save(tmp_path / "ix")
                indexes[i] = upvec.Index.load(tmp_path / "ix")
        assert len({ix.digest() for ix in indexes}) == 1
    assert indexes[0].check().ok


# Collections ------------------------------------------------------------------------------

SCHEMA = Schema(
    Field("id", "int64", primary=True),
    Field("number", "int64"),
    Vector("emb", DIM),
    Vector("face", DIM, metric="l2", nullable=True),
)


def apply_to_collection(col: upvec.Collection, number: int) -> None:
    keys, vectors, what = batch_of(number)
    if what == "remove":
        col.delete(keys)
        return
    rows: dict[str, Any] = {"id": keys, "number": [number] * len(keys), "emb": vectors}
    if number % 2:
        rows["face"] = vectors[:, ::-1]
    col.upsert(rows)


def digests_without_a_crash() -> Iterator[str]:
    """The digest after every batch, of a collection that lives through all of them."""
    with upvec.open(":memory:", SCHEMA) as col:
        for number in range(10_000):
            apply_to_collection(col, number)
            yield col.digest()


# On one processor, so that its commits are planned by one thread and replayed by several.
WRITER = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import upvec
from test_determinism import apply_to_collection
with upvec.open(sys.argv[1]) as col:
    for number in range(int(sys.argv[2]), 10_000):
        apply_to_collection(col, number)
        print(number, col.digest(), flush=True)
        if number % 8 == 5:
            col.checkpoint()
"""


def write_until_killed(path: Path, first: int, batches: int) -> list[str]:
    """Digests that the writer told after each of its batches, of which the last was `batches`."""
    folders = [str(Path(__file__).parent), *sys.path]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
    )
    assert writer.stdout is not None
    told = [writer.stdout.readline().split() for _ in range(batches)]
    writer.send_signal(signal.SIGKILL)
    told += [line.split() for line in writer.stdout.read().split("\n")[:-1]]
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    assert [int(number) for number, _ in told] == list(range(first, first + len(told)))
    return [digest for _, digest in told]


def test_a_killed_writer_s_log_replays_to_the_digest_of_one_that_lived(tmp_path: Path) -> None:
    path = tmp_path / "c"
    upvec.open(path, SCHEMA).close()
    lived = digests_without_a_crash()
    done = 0
    for batches in (3, 6, 4):  # killed before, right after and beyond a checkpoint
        for digest in write_until_killed(path, done, batches):
            assert digest == next(lived)
            done += 1
        with upvec.open(path) as col:
            if col.seq == done + 1:  # logged, but not yet told when the writer was killed
                next(lived)
                done += 1
            apply_to_collection(col, done)
            assert col.digest() == next(lived)
            done += 1


@pytest.mark.parametrize("checkpoint_after", [None, 0, 4])
def test_a_collection_left_open_is_replayed_to_the_same_digest(
    tmp_path: Path, checkpoint_after: int | None
) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for number in range(8):
            apply_to_collection(col, number)
            if number == checkpoint_after:
                col.checkpoint()
        # What a crash leaves: the files as they are now.
        shutil.copytree(tmp_path / "c", tmp_path / "crashed")
        with upvec.open(tmp_path / "crashed") as replayed:
            assert replayed.digest() == col.digest()
            for number in range(8, 12):
                apply_to_collection(col, number)
                apply_to_collection(replayed, number)
                assert replayed.digest() == col.digest()
