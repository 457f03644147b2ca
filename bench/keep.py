"""What `keep` costs and saves, and what a shift of the data does: python -m bench.keep --help.

First, by `keep`: bytes a row, and recall by the vectors as they were written. Then the second half
of the set is changed as a whole before it is inserted behind the first: made smaller or larger,
moved, turned, or broken into clusters. Queries are changed in the same way, so most of their
neighbours are in the second half. Codes are made of each vector alone, so recall should lose
nothing to an index that is walked by exact vectors; "fresh" is an index of the second half alone.
Rates are for one thread, and take no turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.command import positive
from bench.data import (
    DATA_ENV,
    SETS,
    Dataset,
    Floats,
    MissingDataError,
    load,
    pair_distances,
    true_distances,
)
from bench.measure import cpu_seconds
from upvec import Index

K = 10
KEEPS = ("f32", "bf16", "none")
_BATCH = 1000
_SEED = 3

Shift = Callable[[Floats], Floats]


def shifts(base: Floats) -> Mapping[str, Shift]:
    """Ways to change vectors, fitted to how `base` is spread."""
    draw = np.random.default_rng(_SEED)
    dim, spread = base.shape[1], base.std()
    turn = np.linalg.qr(draw.normal(size=(dim, dim)))[0].astype(np.float32)
    places = (2 * spread * draw.normal(size=(20, dim))).astype(np.float32)
    borders = np.quantile(base[:, 0], np.linspace(0, 1, 21)[1:-1])
    return {
        "none": lambda rows: rows,
        "x 0.01": lambda rows: np.float32(0.01) * rows,
        "x 100": lambda rows: np.float32(100) * rows,
        "offset of 2 deviations": lambda rows: rows + 2 * spread,
        "turned": lambda rows: rows @ turn,
        "20 clusters moved apart": lambda rows: rows + places[np.digitize(rows[:, 0], borders)],
    }


def recall(index: Index, base: Floats, queries: Floats, ef: int) -> float:
    """Share of the true neighbours under l2, by `base` as it is, that a search finds."""
    found = index.search(queries, K, ef=ef, threads=1).keys
    farthest = true_distances("l2", base, queries, K)[:, -1:]
    return float((pair_distances("l2", queries, base[found]) <= farthest * (1 + 1e-6)).mean())


def filled(base: Floats, **options: str) -> Index:
    """An index of `base`; the metric is l2, as sizes and offsets mean nothing under cosine."""
    index = Index(base.shape[1], **options)
    for start in range(0, len(base), _BATCH):
        keys = np.arange(start, min(start + _BATCH, len(base)))
        index.upsert(keys, base[keys], threads=1)
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.keep", description=main.__doc__)
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument("--set", default="sample", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--rows", type=positive, default=12_000, help="of the set, at most")
    parser.add_argument("--queries", type=positive, default=500)
    parser.add_argument("--ef", type=positive, nargs="+", default=[32, 64, 128])
    options = parser.parse_args(arguments)
    try:
        data = load(options.set, options.data)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    chosen = np.random.default_rng(_SEED).permutation(len(data))[: options.rows]
    base, queries = data.base[chosen], data.queries[: options.queries]
    print(f"{options.set}: {len(base):,} rows, dim {data.dim}, l2, recall@{K}\n")
    _print_costs(data, base, queries, options.ef)
    _print_shifts(base, queries, max(options.ef))
    return 0


def _print_costs(data: Dataset, base: Floats, queries: Floats, efs: Sequence[int]) -> None:
    hnswlib = 4 * data.dim + 33 * 4 + 8 + 12
    print(f"(hnswlib: {hnswlib:,} bytes a row, by its layout at M 16)\n")
    columns = [f"recall at ef {ef} | queries/s" for ef in efs]
    print(f"| keep | bytes | rows/s | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * (2 + 2 * len(efs))}")
    for keep in KEEPS:
        built: list[Index] = []
        seconds = cpu_seconds(lambda keep=keep, built=built: built.append(filled(base, keep=keep)))
        index = built[0]
        size = sum(n for name, n in index.stats().items() if name.endswith("_bytes")) / len(base)
        cells = [f"{size:,.0f}", f"{len(base) / seconds:,.0f}"]
        for ef in efs:
            cells.append(f"{recall(index, base, queries, ef):.4f}")
            search = cpu_seconds(lambda ef=ef, ix=index: ix.search(queries, K, ef=ef, threads=1))
            cells.append(f"{len(queries) / search:,.0f}")
        print(f"| {keep} | {' | '.join(cells)} |", flush=True)


def _print_shifts(base: Floats, queries: Floats, ef: int) -> None:
    ways = {
        "codes none": {"codes": "none"},
        "codes int8": {},
        "codes alone": {"keep": "none"},
    }
    print(f"\n| second half, at ef {ef} | {' | '.join(f'{way} | fresh' for way in ways)} |")
    print(f"|---|{'---:|' * (2 * len(ways))}")
    half = len(base) // 2
    for name, shift in shifts(base).items():
        rows = np.concatenate([base[:half], shift(base[half:])]).astype(np.float32)
        asked = shift(queries).astype(np.float32)
        cells = []
        for options in ways.values():
            both = [
                recall(filled(part, **options), part, asked, ef) for part in (rows, rows[half:])
            ]
            cells += [f"{share:.4f}" for share in both]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
