"""Reads of a collection beside a writer: python -m bench.readers.

One thread reads: rows by key, a filtered search, a count under a condition. First alone; then
beside a thread that upserts batches as fast as it can, the same that also alters the schema, and a
process that does so while this one follows it, read-only. Every read is checked: all rows of a
batch carry one generation, so a read that saw half of one would show two.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import upvec

from .data import load

Floats = npt.NDArray[np.float32]

_BATCH = 1_000
_COUNT_EVERY = 8


def schema(dim: int, metric: str) -> upvec.Schema:
    """Return the fields of the rows that are read."""
    return upvec.Schema(
        upvec.Field("id", "int64", primary=True),
        upvec.Field("batch", "int64", index=True),
        upvec.Field("generation", "int64", index=True),
        upvec.Field("text", "string"),
        upvec.Vector("emb", dim, metric=metric),
    )


def rows_of(batch: int, generation: int, base: Floats) -> dict[str, Any]:
    """Return one batch, moved a little with every generation."""
    ids = np.arange(batch * _BATCH, (batch + 1) * _BATCH)
    return {
        "id": ids,
        "batch": np.full(_BATCH, batch),
        "generation": np.full(_BATCH, generation),
        "text": [f"{generation} {i}" for i in ids.tolist()],
        "emb": base[(ids + generation) % len(base)],
    }


def write(col: upvec.Collection, base: Floats, alters: bool, over: Callable[[], bool]) -> int:
    """Upsert batch after batch until it is over; return how many."""
    batches, done, altered = len(base) // _BATCH, 0, time.perf_counter()
    while not over():
        col.upsert(rows_of(done % batches, 1 + done // batches, base))
        done += 1
        if alters and time.perf_counter() - altered > 0.5:
            has = "note" in col.schema.fields
            if has:
                col.alter(drop=["note"])
            else:
                col.alter(add=[upvec.Field("note", "string", nullable=True)])
            altered = time.perf_counter()
    return done


def _write_until(path: str, base: Floats, alters: bool, stop: Any) -> None:
    with upvec.open(path) as col:
        write(col, base, alters, stop.is_set)


def read(
    col: upvec.Collection, queries: Floats, seconds: float, rows: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Read and check for some seconds; return how long each call took, in milliseconds."""
    took: dict[str, list[float]] = {"get 100 keys": [], "filtered search": [], "count where": []}
    draw = np.random.default_rng(0)
    end = time.perf_counter() + seconds
    step = 0
    while time.perf_counter() < end:
        batch = int(draw.integers(rows // _BATCH))
        keys = batch * _BATCH + draw.choice(_BATCH, 100, replace=False)
        start = time.perf_counter()
        got = col.get(keys, fields=["generation"])
        took["get 100 keys"].append(time.perf_counter() - start)
        if len(np.unique(got["generation"])) != 1:
            raise AssertionError(f"get: half a batch, {np.unique(got['generation'])}")
        query = queries[step % len(queries)]
        start = time.perf_counter()
        hits = col.search(query, 10, where=f"batch = {batch}", fields=["generation"])
        took["filtered search"].append(time.perf_counter() - start)
        if len(hits) != 10 or len(np.unique(hits["generation"])) != 1:
            raise AssertionError(f"search: half a batch, {hits['generation']}")
        if step % _COUNT_EVERY == 0:
            start = time.perf_counter()
            count = col.count(f"batch = {batch} and generation = {hits['generation'][0]}")
            took["count where"].append(time.perf_counter() - start)
            if count not in {0, _BATCH}:
                raise AssertionError(f"count: half a batch, {count}")
        step += 1
    return {name: 1e3 * np.array(times) for name, times in took.items()}


def beside_a_thread(
    col: upvec.Collection, base: Floats, queries: Floats, seconds: float, *, alters: bool
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Return what reads take beside a writing thread, and its rows/s."""
    stop = threading.Event()
    done: list[int] = []
    writer = threading.Thread(target=lambda: done.append(write(col, base, alters, stop.is_set)))
    writer.start()
    took = read(col, queries, seconds, len(base) // _BATCH * _BATCH)
    stop.set()
    writer.join()
    return took, done[0] * _BATCH / seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-50k")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", help="on which disk")
    chosen = parser.parse_args()
    data = load(chosen.set, chosen.data)
    base = np.ascontiguousarray(data.base[: chosen.rows // _BATCH * _BATCH])
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        path = str(Path(folder) / "c")
        figures: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
        with upvec.open(path, schema(base.shape[1], data.metric)) as col:
            for batch in range(len(base) // _BATCH):
                col.upsert(rows_of(batch, 0, base))
            figures["alone"] = read(col, data.queries, chosen.seconds, len(base))
            for name, alters in (("thread", False), ("thread, alter", True)):
                figures[name], rate = beside_a_thread(
                    col, base, data.queries, chosen.seconds, alters=alters
                )
                print(f"{name}: the writer made {rate:,.0f} rows/s")
        stop = mp.get_context("spawn").Event()
        writer = mp.get_context("spawn").Process(target=_write_until, args=(path, base, True, stop))
        writer.start()
        time.sleep(2.0)
        with upvec.open(path, read_only=True, refresh_s=0.05) as col:
            figures["process, alter"] = read(col, data.queries, chosen.seconds, len(base))
        stop.set()
        writer.join()
    print(f"{data.name}, {len(base):,} x {base.shape[1]}; p50, p99 and longest in ms")
    print(f"{'':16}" + "".join(f"{name:>30}" for name in figures))
    for what in figures["alone"]:
        cells = []
        for took in figures.values():
            p50, p99 = np.percentile(took[what], [50, 99])
            cells.append(f"{p50:9.3f} {p99:9.3f} {took[what].max():10.3f}")
        print(f"{what:16}" + "".join(cells))


if __name__ == "__main__":
    main()
