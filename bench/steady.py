"""Rows/s of upserts by the size of a batch: python -m bench.steady --help.

Half of a set is loaded into an empty index in one batch. Then come inserts of the other rows and
far moves of the first, in batches of several sizes; at last all that is left, and a move of the
whole first half, in one batch each. Nothing takes turns, so believe no difference below a tenth.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.command import positive
from bench.data import DATA_ENV, SETS, Dataset, MissingDataError, load
from upvec import Index

Keys = npt.NDArray[np.int64]
_SEED = 9


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and return the exit code: 1 if the graph is broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.steady", description=main.__doc__)
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument("--set", default="sample", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 32, 1000])
    parser.add_argument("--calls", type=positive, default=100, help="of a size, at most 5,000 rows")
    parser.add_argument("--threads", type=positive, default=1, help="of every call, and pinned")
    options = parser.parse_args(arguments)
    try:
        data = load(options.set, options.data)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-options.threads :]))
    print(f"{options.set}: {len(data):,} rows, dim {data.dim}, threads {options.threads}\n")
    print("| rows/s | insert | move |\n|---|---:|---:|")
    index = _measure(data, options.batches, options.calls, options.threads)
    return 0 if index.check().ok else 1


def _measure(data: Dataset, batches: Sequence[int], calls: int, threads: int) -> Index:
    index = Index(data.dim, metric=data.metric)
    half = len(data) // 2
    draw = np.random.default_rng(_SEED)

    def rate(keys: Keys, rows: Keys, batch: int) -> str:
        began = time.perf_counter()
        for start in range(0, len(keys), batch):
            part = slice(start, start + batch)
            index.upsert(keys[part], data.base[rows[part]], threads=threads)
        return f"{len(keys) / (time.perf_counter() - began):,.0f}"

    first = np.arange(half)
    print(f"| {half:,} into an empty index | {rate(first, first, half)} | |", flush=True)
    done = half
    for batch in batches:
        n = min(batch * calls, max(batch, 5000), (len(data) - done) // 2)
        new = np.arange(done, done + n)
        inserts = rate(new, new, batch)
        moves = rate(draw.permutation(half)[:n], draw.permutation(half)[:n], batch)
        print(f"| batches of {batch:,} | {inserts} | {moves} |", flush=True)
        done += n
    rest = np.arange(done, len(data))
    inserts = rate(rest, rest, len(rest))
    moves = rate(first, half + draw.permutation(half), half)
    print(f"| one batch of {len(rest):,} new, of {half:,} moved | {inserts} | {moves} |")
    return index


if __name__ == "__main__":
    sys.exit(main())
