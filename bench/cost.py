"""What rows cost above keys and vectors: python -m bench.cost --help.

A collection with four metadata fields and two unique keys beside an index of the same vectors, in
one process and by turns: batches of new rows, batches that move vectors, batches that change
metadata alone, and single rows. Then: how many string keys a second a batch is resolved at.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

import upvec
from bench.command import positive
from bench.data import DATA_ENV, SETS, Dataset, Floats, MissingDataError, load
from upvec.ingest import ingest
from upvec.resolve import call_of, resolve

_SEED = 11
_BATCH = 1_000


def schema_of(dim: int, metric: str) -> upvec.Schema:
    """Four fields beside the key and the vector, of which two make unique keys."""
    return upvec.Schema(
        upvec.Field("id", "int64", primary=True),
        upvec.Field("email", "string"),
        upvec.Field("tenant", "string"),
        upvec.Field("number", "int64"),
        upvec.Field("score", "float64"),
        upvec.Vector("emb", dim, metric=metric),
        unique=[upvec.Unique("email"), upvec.Unique("tenant", "number", name="handle")],
    )


def metadata(keys: Any, score: float) -> dict[str, Any]:
    """Columns of the rows of some keys, without vectors."""
    listed = keys.tolist()
    return {
        "id": keys,
        "email": [f"user{key}@example.org" for key in listed],
        "tenant": [f"tenant{key % 97}" for key in listed],
        "number": keys.copy(),
        "score": np.full(len(keys), score),
    }


def as_dicts(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """The same rows as a list of dicts."""
    names = list(columns)
    listed = [c if isinstance(c, list) or c.ndim == 2 else c.tolist() for c in columns.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*listed, strict=True)]


def seconds(work: Callable[[], object]) -> float:
    """Run it once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Both:
    """An index and a collection that hold the same vectors."""

    def __init__(self, data: Dataset, rows: int) -> None:
        self.base = data.base
        self.index = upvec.Index(data.dim, metric=data.metric)
        self.col = upvec.open(":memory:", schema_of(data.dim, data.metric))
        for start in range(0, rows, 5 * _BATCH):
            keys = np.arange(start, min(start + 5 * _BATCH, rows))
            self.index.upsert(keys, self.base[keys])
            self.col.upsert({**metadata(keys, 0.0), "emb": self.base[keys]})

    def batch(self, keys: Any, vectors: Floats, *, dicts: bool) -> tuple[float, float]:
        """Seconds that the index and the collection take for the same rows."""
        columns = {**metadata(keys, float(keys[0])), "emb": vectors}
        rows: Any = as_dicts(columns) if dicts else columns
        return (
            seconds(lambda: self.index.upsert(keys, vectors)),
            seconds(lambda: self.col.upsert(rows)),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=main.__doc__)
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument("--set", default="sample", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--batches", type=positive, default=8, help="of 1,000 rows, of each kind")
    parser.add_argument("--keys", type=positive, default=1_000_000, help="to resolve against")
    options = parser.parse_args(arguments)
    try:
        data = load(options.set, options.data)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-1:]))
    batch = min(_BATCH, len(data) // 4)
    batches = min(options.batches, max(1, len(data) // (4 * batch)))
    first = len(data) - 2 * batches * batch
    print(f"{options.set}: {first:,} rows, then batches of {batch:,}; dim {data.dim}; one core\n")
    both = Both(data, first)
    _print_batches(both, first, batch, batches)
    _print_single(both, first)
    _print_resolving(options.keys)
    return 0


def _print_batches(both: Both, first: int, batch: int, batches: int) -> None:
    draw = np.random.default_rng(_SEED)
    print("| batches of | index, ms | collection, ms | ratio |\n|---|---:|---:|---:|")
    moved = 0.0
    for number, dicts in enumerate((False, True)):
        kind = "dicts" if dicts else "columns"
        new, far = [], []
        for turn in range(batches):
            start = first + (number * batches + turn) * batch
            keys = np.arange(start, start + batch)
            new.append(both.batch(keys, both.base[keys], dicts=dicts))
            keys, rows = draw.permutation(first)[:batch], draw.permutation(first)[:batch]
            far.append(both.batch(keys, both.base[rows], dicts=dicts))
        _print_row(f"new rows, as {kind}", new)
        _print_row(f"moved vectors and a field, as {kind}", far)
        moved = moved or median(took for _, took in far)
    plain = []
    for turn in range(4 * batches):
        keys = draw.permutation(first)[:batch]
        columns = {"id": keys, "score": np.full(batch, 1e6 + turn)}
        plain.append(seconds(lambda columns=columns: both.col.upsert(columns)))
    few = median(plain)
    print(f"| metadata alone | | {1e3 * few:.2f} | {moved / few:.0f} times faster |")


def _print_row(name: str, pairs: list[tuple[float, float]]) -> None:
    index, col = (1e3 * median(side) for side in zip(*pairs, strict=True))
    ratio = median(b / a for a, b in pairs)
    print(f"| {name} | {index:.1f} | {col:.1f} | {ratio:.3f} |", flush=True)


def _print_single(both: Both, first: int) -> None:
    """A row that changes one field and comes with the vector that it has, and one that moves."""
    draw = np.random.default_rng(_SEED)
    pairs: dict[str, list[tuple[float, float]]] = {"moved": [], "the same vector": []}
    for turn in range(600):
        key = int(draw.integers(first))
        for name, vector in (("moved", both.base[draw.integers(first)]), ("the same vector", None)):
            kept = both.col.get([key])["emb"][0] if vector is None else vector
            row = {**as_dicts(metadata(np.array([key]), float(turn)))[0], "emb": kept}
            keys, matrix = np.array([key]), kept[None, :]
            pairs[name].append(
                (
                    seconds(lambda keys=keys, m=matrix: both.index.upsert(keys, m)),
                    seconds(lambda row=row: both.col.upsert([row])),
                )
            )
    print("\n| single rows, µs | index | collection | more |\n|---|---:|---:|---:|")
    for name, taken in pairs.items():
        index, col = (1e6 * median(side) for side in zip(*taken, strict=True))
        more = 1e6 * median(b - a for a, b in taken)
        print(f"| {name} | {index:.0f} | {col:.0f} | {more:.0f} |", flush=True)


def _print_resolving(count: int) -> None:
    schema = upvec.Schema(
        upvec.Field("id", "string", primary=True), upvec.Field("n", "int64", default=0)
    )
    col = upvec.open(":memory:", schema)
    for start in range(0, count, 100_000):
        keys = range(start, min(start + 100_000, count))
        col.upsert({"id": [f"https://example.org/{key:09}" for key in keys]})
    draw = np.random.default_rng(_SEED)
    print(f"\n| 100,000 rows against {count:,} string keys | keys/s |\n|---|---:|")
    looked, resolved, whole = [], [], []
    for turn in range(7):
        chosen = draw.permutation(2 * count)[: min(100_000, count)]  # half of them are new
        rows = {
            "id": [f"https://example.org/{key:09}" for key in chosen.tolist()],
            "n": np.full(len(chosen), turn),
        }
        batch, call = ingest(schema, rows), call_of(schema, None, "merge", "error")
        table = col._engine.tables["id"]
        looked.append(seconds(lambda b=batch, t=table: t.find([b.cells["id"].values])))
        resolved.append(seconds(lambda b=batch, c=call: resolve(col._base(), b, c)))
        whole.append(seconds(lambda rows=rows: col.upsert(rows, dry_run=True)))
    for name, taken in (("looked up", looked), ("resolved", resolved), ("dry run", whole)):
        print(f"| {name} | {min(100_000, count) / median(taken):,.0f} |")


if __name__ == "__main__":
    sys.exit(main())
