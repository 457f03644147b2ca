"""What reading rows costs beside copying the same bytes: python -m bench.reading --help.

A collection of int64, float64, timestamp and string fields and a vector is scanned, by field and
whole. Beside it stand copies by numpy of arrays with the same content, cut into the same batches:
what memory, the allocator, and (for strings) counting references leave. Both take turns, several
times; medians of the processor's time are reported, so that work of others counts little.

The graph plays no part: it is built with few links, to have the rows soon.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import upvec
from bench.peers.report import table

DIM = 128
BATCH_ROWS = 65_536
Columns = dict[str, npt.NDArray[Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.smoke:
        options.rows, options.rounds = 5_000, 1
    columns = _columns(options.rows)
    col = _collection(columns)
    print(
        f"{options.rows:,} rows, dim {DIM}, load {os.getloadavg()[0]:.2f} on {os.cpu_count()}"
        " processors\n"
    )
    print(_scans(col, columns, options.rounds), end="\n\n")
    removed = np.random.default_rng(1).choice(options.rows, options.rows // 10, replace=False)
    col.delete(removed)
    kept = np.delete(np.arange(options.rows), removed)
    print("A tenth of the rows removed, here and there:\n")
    print(_scans(col, {n: c[kept] for n, c in columns.items()}, options.rounds), end="\n\n")
    print(_ordered(col, options.rounds))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="few rows, one round")
    return parser


def _columns(rows: int) -> Columns:
    rng = np.random.default_rng(0)
    numbers = np.arange(rows)
    return {
        "id": numbers,
        "price": rng.random(rows),
        "seen": numbers.astype("datetime64[us]"),
        "name": np.array([f"name {i}" for i in rng.permutation(rows).tolist()], dtype=object),
        "emb": rng.random((rows, DIM), dtype=np.float32),
    }


def _collection(columns: Columns) -> upvec.Collection:
    schema = upvec.Schema(
        upvec.Field("id", "int64", primary=True),
        upvec.Field("price", "float64"),
        upvec.Field("seen", "timestamp"),
        upvec.Field("name", "string"),
        upvec.Vector("emb", DIM, M=4, ef_construction=4),
    )
    col = upvec.open(":memory:", schema)
    rows = len(columns["id"])
    for start in range(0, rows, 100_000):
        col.upsert({name: column[start : start + 100_000] for name, column in columns.items()})
    return col


def _scans(col: upvec.Collection, columns: Columns, rounds: int) -> str:
    lines = []
    for label, names in [*((name, [name]) for name in columns), ("all", list(columns))]:
        scan_s, copy_s = _medians_s(
            [
                lambda names=names: sum(len(rows) for rows in col.scan(fields=names)),
                lambda names=names: _copy([columns[name] for name in names]),
            ],
            rounds,
        )
        held = sum(columns[name].nbytes for name in names)
        lines.append(
            [
                label,
                f"{1000 * scan_s:.1f}",
                f"{1000 * copy_s:.1f}",
                f"{held / scan_s / 1e9:.1f}",
                f"{copy_s / scan_s:.2f}",
            ]
        )
    return table([["fields", "scan, ms", "copy, ms", "scan, GB/s", "of the copy's rate"], *lines])


def _copy(columns: Sequence[npt.NDArray[Any]]) -> None:
    for start in range(0, len(columns[0]), BATCH_ROWS):
        # Held together until the next batch, as a scan's are.
        batch = [column[start : start + BATCH_ROWS].copy() for column in columns]
        del batch


def _ordered(col: upvec.Collection, rounds: int) -> str:
    lines = []
    for name in ("price", "seen", "name"):
        times_s = _medians_s(
            [
                lambda name=name, limit=limit: [
                    *col.scan(fields=["id"], order_by=name, descending=True, limit=limit)
                ]
                for limit in (10, 10_000, None)
            ],
            rounds,
        )
        lines.append([name, *(f"{1000 * seconds:.1f}" for seconds in times_s)])
    return table([["order_by", "limit 10, ms", "10,000", "none"], *lines])


def _medians_s(works: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, times, strict=True):
            start = time.process_time()
            work()
            taken.append(time.process_time() - start)
    return [float(np.median(taken)) for taken in times]


if __name__ == "__main__":
    raise SystemExit(main())
