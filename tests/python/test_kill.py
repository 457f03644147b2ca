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
from pathlib import Path

import pytest

import upvec

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


def check_whole_batches(col: upvec.Collection, acknowledged: int) -> int:
    """Check that every row belongs to a whole batch; return the newest batch."""
    rows = next(col.scan(), None)
    if rows is None:
        assert acknowledged < 1
        return 0
    stored = dict(zip(rows["id"].tolist(), rows["batch"].tolist(), strict=True))
    newest = max(stored.values())
    # One batch may have been logged and not acknowledged; never more.
    assert acknowledged <= newest <= acknowledged + 1
    for key, batch, members in zip(
        rows["id"].tolist(), rows["batch"].tolist(), rows["members"].tolist(), strict=True
    ):
        for member in members:
            # Absent: deleted since, by a batch at least as new.
            assert stored.get(member, newest) >= batch, (key, batch, member)
    assert (rows["size"] == [len(members) for members in rows["members"]]).all()
    # Vector and fields of a row come from the same batch, also through the index.
    assert (rows["emb"][:, 0] == rows["batch"]).all()
    assert rows["mail"].tolist() == [f"{b}-{i}" for i, b in stored.items()]
    assert col.get(rows["mail"], on="mail")["id"].tolist() == rows["id"].tolist()
    hits = col.search(rows["emb"][:20], k=1, exact=True)
    assert (hits["id"] == rows["id"][:20]).all()
    return newest


def test_killed_writer_leaves_whole_acknowledged_batches(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "collection"
    upvec.open(path, SCHEMA).close()
    seed = int(os.environ.get("UPVEC_KILL_SEED", random.randrange(2**31)))
    print(f"UPVEC_KILL_SEED={seed}")
    rng = random.Random(seed)
    newest = 0
    for kill in range(kills):
        # Short delays often, to be killed while opening has just ended or a log is short.
        delay_s = rng.expovariate(1 / 0.05)
        acknowledged, deleted = write_until_killed(path, newest + 1, seed + kill, delay_s)
        with upvec.open(path) as col:
            reached = check_whole_batches(col, acknowledged)
            assert reached >= newest
            newest = max(reached, acknowledged)
            for key, batch in deleted.items():
                row = col.get(key)[0]
                assert row is None or row["batch"] > batch
            digest = col.digest()
        with upvec.open(path) as again:
            assert again.digest() == digest


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    asked = request.config.getoption("--kills")
    return int(asked or os.environ.get("UPVEC_KILLS", "10"))
