"""A writer is killed at random moments; what it had been promised is there, and nothing by halves.

``pytest tests/python/test_kill.py --kills 200`` (or ``UPVEC_KILLS=200``) does it more often.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import upvec

Floats = npt.NDArray[np.float32]

DIM = 8
KEYS = 500

# Batches of 1 to 20 rows. Every row says which batch wrote it and how many rows that batch wrote,
# so that one look at the rows tells whether a batch is there as a whole: a row of an older batch
# may have been overwritten since, but then by a newer batch.
WRITER = f"""
import sys
import numpy as np
import upvec

path, first, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(seed)
col = upvec.open(path)
print("open", flush=True)
batch = first
while True:
    size = int(rng.integers(1, 21))
    keys = rng.choice({KEYS}, size=size, replace=False)
    rows = {{
        "id": keys,
        "batch": np.full(size, batch),
        "size": np.full(size, size),
        "members": [sorted(keys.tolist())] * size,
        "mail": [f"{{batch}}-{{key}}" for key in keys.tolist()],
        "emb": rng.standard_normal((size, {DIM})).astype(np.float32),
    }}
    rows["emb"][:, 0] = batch
    col.upsert(rows)
    print(batch, flush=True)
    if batch % 7 == 0 and size > 1:
        col.delete(keys[:1])
        print(f"deleted {{keys[0]}} after {{batch}}", flush=True)
    if batch % 40 == 0:
        col.checkpoint()
    batch += 1
"""

SCHEMA = upvec.Schema(
    upvec.Field("id", "int64", primary=True),
    upvec.Field("batch", "int64"),
    upvec.Field("size", "int64"),
    upvec.Field("members", "list<int64>"),
    upvec.Field("mail", "string"),
    upvec.Vector("emb", DIM),
    unique=[upvec.Unique("mail")],
)


def write_until_killed(
    path: Path, first: int, seed: int, delay_s: float
) -> tuple[int, dict[int, int]]:
    """Run the writer, kill it; return its last acknowledged batch, and what it deleted when."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    time.sleep(delay_s)
    writer.send_signal(signal.SIGKILL)
    lines = writer.stdout.read().split("\n")[:-1]
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    acknowledged = [int(line) for line in lines if line.isdigit()]
    words = [line.split() for line in lines if line.startswith("deleted")]
    deleted = {int(key): int(batch) for _, key, _, batch in words}
    return max(acknowledged, default=first - 1), deleted


@dataclass
class Written:
    """What the writer's batches leave, followed batch by batch from its random numbers."""

    rows: dict[int, tuple[int, Floats]] = field(default_factory=dict)  # key: batch and vector
    unsure: int | None = None  # a key that the last batch may have deleted

    def follow(self, first: int, last: int, seed: int) -> None:
        """Apply the batches that one run of the writer, begun at `first`, made up to `last`."""
        rng = np.random.default_rng(seed)
        for batch in range(first, last + 1):
            size = int(rng.integers(1, 21))
            keys = rng.choice(KEYS, size=size, replace=False).tolist()
            vectors = rng.standard_normal((size, DIM)).astype(np.float32)
            vectors[:, 0] = batch
            self.rows.update({k: (batch, v) for k, v in zip(keys, vectors, strict=True)})
            self.unsure = keys[0] if batch % 7 == 0 and size > 1 else None
            if self.unsure is not None and batch < last:
                del self.rows[self.unsure]

    def settle(self, deleted: bool) -> None:
        """Say whether the delete after the last batch took place."""
        if self.unsure is not None and deleted:
            del self.rows[self.unsure]
        self.unsure = None


def check_rows(col: upvec.Collection, written: Written) -> None:
    """Check that the collection holds just what was written: not a row less, more or other."""
    stored = {row["id"]: row for rows in col.scan() for row in rows.to_dicts() if row is not None}
    assert stored.keys() == written.rows.keys()
    for key, (batch, vector) in written.rows.items():
        row = stored[key]
        assert (row["batch"], row["mail"]) == (batch, f"{batch}-{key}")
        assert (row["emb"] == vector).all()
    mails = [row["mail"] for row in stored.values()]
    assert col.get(mails, on="mail")["id"].tolist() == list(stored)
    some = list(written.rows)[:20]
    queries = np.array([written.rows[key][1] for key in some]).reshape(-1, DIM)
    hits = col.search(queries, k=1, exact=True)
    assert hits["id"].tolist() == some


def test_killed_writer_leaves_whole_acknowledged_batches(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "collection"
    upvec.open(path, SCHEMA).close()
    seed = int(os.environ.get("UPVEC_KILL_SEED", random.randrange(2**31)))
    print(f"UPVEC_KILL_SEED={seed}")
    rng = random.Random(seed)
    written = Written()
    newest = 0
    for kill in range(kills):
        # Short delays often, to be killed while opening has just ended or a log is short.
        delay_s = rng.expovariate(1 / 0.05)
        first = newest + 1
        acknowledged, deleted = write_until_killed(path, first, seed + kill, delay_s)
        with upvec.open(path) as col:
            reached = int(max((rows["batch"].max() for rows in col.scan()), default=0))
            # One batch may have been logged and not acknowledged; never more.
            assert acknowledged <= max(reached, newest) <= acknowledged + 1
            newest = max(reached, newest)
            written.follow(first, newest, seed + kill)
            if written.unsure is not None:
                gone = written.unsure not in col
                assert gone or deleted.get(written.unsure) != newest
                written.settle(gone)
            check_rows(col, written)
            digest = col.digest()
        with upvec.open(path) as again:
            assert again.digest() == digest


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    asked = request.config.getoption("--kills")
    return int(asked or os.environ.get("UPVEC_KILLS", "10"))
