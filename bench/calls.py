"""What reads of other kinds than batches cost: python -m bench.calls --help.

One query a call beside the same queries in one call; exact search beside what a plain pass over the
same vectors reads; range search at radii that leave so many hits a query on average, with recall.
Everything takes turns, several times; medians are reported. Times are the processor's, so that work
of others on the machine counts little; with two threads they are of the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import SETS, MissingDataError, load
from bench.peers.report import table
from upvec.index import Index

K = 10
EFS = (16, 24, 32)
HITS = (0.02, 1, 10, 100, 1000)
Floats = npt.NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        data = load("sample" if options.smoke else options.set, options.data)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    if options.smoke:
        options.rounds = 1
    index = Index(data.dim, metric=data.metric)
    index.upsert(np.arange(len(data)), data.base)
    print(f"{data.name}: {len(data):,} rows, dim {data.dim}, {index.simd}\n")
    print(_calls(index, data.queries, options.rounds), end="\n\n")
    print(_exact(index, data.base, data.queries, options), end="\n\n")
    print(_ranges(index, data.queries[:400], options.rounds))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.calls", description=__doc__)
    parser.add_argument("--set", default="wordnet-20k", help=f"one of {', '.join(SETS)}")
    parser.add_argument("--data", help="folders with the files of the set")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2, help="of the exact search, at most")
    parser.add_argument("--smoke", action="store_true", help="the sample, one round")
    return parser


def _median_s(works: Sequence[Callable[[], Any]], rounds: int, *, wall: bool) -> list[float]:
    clock = time.perf_counter if wall else time.process_time
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, spent in zip(works, times, strict=True):
            began = clock()
            work()
            spent.append(clock() - began)
    return [float(np.median(spent)) for spent in times]


def _calls(index: Index, queries: Floats, rounds: int) -> str:
    rows = [np.ascontiguousarray(query) for query in queries]
    lines = []
    for ef in EFS:
        edge = index.exact_search(queries, K).distances[:, -1:]
        recall = (index.search(queries, K, ef=ef).distances <= edge).mean()

        def singly(ef: int = ef) -> None:
            for query in rows:
                index.search(query, k=K, ef=ef)

        def together(ef: int = ef) -> None:
            index.search(queries, k=K, ef=ef, threads=1)

        one, batch = _median_s([singly, together], rounds, wall=False)
        us = 1e6 / len(rows)
        lines.append(
            [str(ef), f"{recall:.4f}", f"{one * us:.1f}", f"{batch * us:.1f}", f"{batch / one:.2f}"]
        )
    return table([["ef", "recall@10", "us, one a call", "us, in a batch", "rate kept"], *lines])


def _exact(index: Index, base: Floats, queries: Floats, options: argparse.Namespace) -> str:
    lines = []
    for threads in range(1, options.threads + 1):
        parts = np.array_split(base.reshape(-1), threads)
        with ThreadPoolExecutor(threads) as pool:

            def read(pool: ThreadPoolExecutor = pool, parts: list[Floats] = parts) -> None:
                list(pool.map(np.max, parts))

            def one(threads: int = threads) -> None:
                index.exact_search(queries[0], K, threads=threads)

            def batch(threads: int = threads) -> None:
                index.exact_search(queries[:64], K, threads=threads)

            works = [read, one, batch]
            reading, single, several = _median_s(works, options.rounds, wall=threads > 1)
        lines.append(
            [
                str(threads),
                f"{base.nbytes / reading / 1e9:.1f}",
                f"{base.nbytes / single / 1e9:.1f}",
                f"{64 * base.nbytes / several / 1e9:.1f}",
            ]
        )
    head = ["threads", "GB/s, plain pass", "GB/s, one query", "GB/s, 64 queries, each counted"]
    return table([head, *lines])


def _ranges(index: Index, queries: Floats, rounds: int) -> str:
    exact = index.exact_search(queries, len(index) // 2).distances
    every = np.sort(exact.ravel())
    lines = []
    for hits in HITS:
        if hits > exact.shape[1] / 4:
            continue
        radius = float(every[int(hits * len(queries))])
        found = index.range_search(queries, radius, threads=1)
        recall = len(found.keys) / max(1, np.count_nonzero(exact <= radius))

        def search(radius: float = radius) -> None:
            index.range_search(queries, radius, threads=1)

        (seconds,) = _median_s([search], rounds, wall=False)
        lines.append([f"{hits:g}", f"{seconds / len(queries) * 1e6:.0f}", f"{recall:.4f}"])
    return table([["hits a query within the radius", "us a query", "recall"], *lines])


if __name__ == "__main__":
    sys.exit(main())
