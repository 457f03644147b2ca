"""What durability costs: python -m bench.durability --help.

Every figure stands beside what it is to be compared with, measured in turns with it: a durable
upsert beside a bare append and fdatasync of the same bytes; many threads beside one; readers and
writers during a checkpoint beside the same without one; opening beside nothing, and replaying
beside having made the commits. The folder should be on the disk that is meant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import upvec
from bench.command import positive
from bench.data import DATA_ENV, SETS, MissingDataError, load
from upvec.collection import open_directory
from upvec.files import Files

Floats = npt.NDArray[np.float32]
Rows = dict[str, Any]

_SEED = 11
_BATCH = 10_000
_SHIFT = np.float32(0.01)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.durability", description=main.__doc__)
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument("--set", default="sample", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--rows", type=positive, help="as many, by shifting copies (default: all)")
    parser.add_argument("--calls", type=positive, default=400, help="single upserts to time")
    parser.add_argument("--replay", type=positive, default=100_000, help="rows to log and replay")
    parser.add_argument(
        "--sync-ms",
        type=float,
        default=0.0,
        help="what every sync takes besides: to see what another disk would give (of 4 ms, say)",
    )
    parser.add_argument("--folder", type=Path, help="where to write (default: the temporary one)")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.open is not None:
        return _open_once(options.open)
    try:
        base = load(options.set, options.data).base
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="upvec-durability-", dir=options.folder))
    try:
        files = _SlowFiles(options.sync_ms / 1e3)
        _single(folder / "single", base, options.calls, files)
        _threads(folder / "threads", base, options.calls, files)
        _batches(folder / "batches", base, files)
        _replay(folder / "replay", base, options.replay)
        _large(folder / "large", base, options.rows or len(base))
    finally:
        shutil.rmtree(folder)
    return 0


class _SlowFiles(Files):
    """The files of a disk on which every sync of the log takes so much longer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        if self._seconds:
            time.sleep(self._seconds)


def _open(
    path: Path, dim: int, files: Files, durability: Literal["commit", "os"] = "commit"
) -> upvec.Collection:
    return open_directory(
        str(path), _schema(dim), files, durability=durability, auto_checkpoint=False
    )


def _schema(dim: int) -> upvec.Schema:
    return upvec.Schema(
        upvec.Field("id", "int64", primary=True),
        upvec.Field("text", "string"),
        upvec.Vector("emb", dim),
    )


def _rows(base: Floats, first: int, count: int) -> Rows:
    """Rows of a set that is repeated as often as it takes, each time shifted a little."""
    ids = np.arange(first, first + count)
    shift = (ids // len(base)).astype(np.float32)[:, None] * (_SHIFT * abs(base[0]).max())
    return {
        "id": ids,
        "text": [f"row number {i}" for i in ids.tolist()],
        "emb": base[ids % len(base)] + shift,
    }


def _ms(seconds: Sequence[float], share: float) -> str:
    return f"{1e3 * float(np.quantile(seconds, share)):.2f}"


# One durable upsert


def _single(path: Path, base: Floats, calls: int, files: Files) -> None:
    """Time single upserts, each beside a bare append and sync of as many bytes."""
    with _open(path, base.shape[1], files) as col:
        col.upsert(_rows(base, 0, min(1000, len(base))))
        before = col.stats()["log_bytes"]
        col.upsert(_rows(base, 1_000_000, 1))
        size = col.stats()["log_bytes"] - before
        bare = os.open(path.parent / "bare", os.O_RDWR | os.O_CREAT)
        upserts, appends = [], []
        for call in range(calls):
            began = time.perf_counter()
            col.upsert(_rows(base, 2_000_000 + call, 1))
            upserts.append(time.perf_counter() - began)
            began = time.perf_counter()
            os.pwrite(bare, bytes(size), call * size)
            files.sync_data(bare)
            appends.append(time.perf_counter() - began)
        os.close(bare)
    row = 8 + 4 * base.shape[1] + len("row number 2000000")
    ratio = np.median(upserts) / np.median(appends)
    print(f"One row, durable; its record has {size} bytes, the row itself {row}\n")
    print("| ms | p50 | p90 | p99 |\n|---|---:|---:|---:|")
    for name, times in (("upsert of one row", upserts), ("append and fdatasync", appends)):
        print(f"| {name} | {_ms(times, 0.5)} | {_ms(times, 0.9)} | {_ms(times, 0.99)} |")
    print(f"\nRatio of the medians: {ratio:.2f}\n", flush=True)


def _threads(path: Path, base: Floats, calls: int, files: Files) -> None:
    """Count the durable single upserts of 1 to 16 threads."""
    print("| threads | durable upserts/s | x one thread | syncs per upsert |")
    print("|---:|---:|---:|---:|")
    one = 0.0
    for threads in (1, 4, 16):
        with _open(path.with_name(f"threads-{threads}"), base.shape[1], files) as col:
            col.upsert(_rows(base, 0, min(1000, len(base))))
            syncs = col.stats()["syncs"]

            def write(first: int, col: upvec.Collection = col) -> None:
                for call in range(calls):
                    col.upsert(_rows(base, first + call, 1))

            workers = [
                threading.Thread(target=write, args=(10_000_000 * (n + 1),)) for n in range(threads)
            ]
            began = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            rate = threads * calls / (time.perf_counter() - began)
            one = one or rate
            share = (col.stats()["syncs"] - syncs) / (threads * calls)
        print(f"| {threads} | {rate:,.0f} | {rate / one:.1f} | {share:.2f} |", flush=True)
    print()


def _batches(path: Path, base: Floats, files: Files) -> None:
    """Time batches that are synced, beside the same ones that are not."""
    print("| rows a batch | durable, ms | not synced, ms | ratio |\n|---:|---:|---:|---:|")
    for batch in (100, 1000):
        with (
            _open(path.with_name(f"synced-{batch}"), base.shape[1], files) as synced,
            _open(path.with_name(f"unsynced-{batch}"), base.shape[1], files, "os") as unsynced,
        ):
            both = ((synced, []), (unsynced, []))
            for turn in range(30):
                rows = _rows(base, turn * batch, batch)
                for col, seconds in both:
                    began = time.perf_counter()
                    col.upsert(rows)
                    seconds.append(time.perf_counter() - began)
            durable, plain = both[0][1], both[1][1]
            ratio = np.median(durable) / np.median(plain)
            print(
                f"| {batch:,} | {_ms(durable, 0.5)} | {_ms(plain, 0.5)} | {ratio:.2f} |", flush=True
            )
    print()


# Replay


def _replay(path: Path, base: Floats, rows: int) -> None:
    """Make commits of several sizes without syncs, and replay them."""
    print("| rows a commit | made, rows/s | replayed, rows/s | time, x made | log bytes a row |")
    print("|---:|---:|---:|---:|---:|")
    for batch in (1, 100, 1000):
        count = rows if batch > 1 else max(1, rows // 20)
        target = path.with_name(f"replay-{batch}")
        parts = [_rows(base, first, batch) for first in range(0, count, batch)]
        with upvec.open(
            target, _schema(base.shape[1]), durability="os", auto_checkpoint=False
        ) as col:
            made = _timed(lambda parts=parts, col=col: [col.upsert(part) for part in parts])
            digest, size = col.digest(), col.stats()["log_bytes"]
        began = time.perf_counter()
        with upvec.open(target, auto_checkpoint=False) as col:
            again = time.perf_counter() - began
            if col.digest() != digest:
                raise AssertionError("replaying gave another collection")
        print(
            f"| {batch:,} | {count / made:,.0f} | {count / again:,.0f} | {again / made:.2f} "
            f"| {size / count:.0f} |",
            flush=True,
        )
        shutil.rmtree(target)
    print()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# A large collection


def _large(path: Path, base: Floats, rows: int) -> None:
    """Fill a collection, and checkpoint it beside readers and writers; then open it."""
    with upvec.open(
        path, _schema(base.shape[1]), durability="interval", auto_checkpoint=False
    ) as col:
        for first in range(0, rows, _BATCH):
            col.upsert(_rows(base, first, min(_BATCH, rows - first)))
        col.checkpoint()
        _checkpoints(col, base, rows)
        stats = col.stats()
        files = sum(p.stat().st_size for p in path.glob("checkpoint-*/*")) / 2
        print(
            f"{rows:,} rows: a checkpoint has {files / 1e6:,.0f} MB. As one is due when the log\n"
            f"since the last has grown to its size, all of them write at most what the log does"
            f"\n(which has {stats['log_bytes'] / 1e6:,.0f} MB now).\n"
        )
        col.checkpoint()
    print("| opening | s to the first answer | peak memory, MB | memory then, MB | ratio |")
    print("|---|---:|---:|---:|---:|")
    for turn in range(3):
        command = [sys.executable, "-m", "bench.durability", "--open", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"| {turn + 1} | {done.stdout.strip()} |", flush=True)


def _checkpoints(col: upvec.Collection, base: Floats, rows: int) -> None:
    """Time single reads and single upserts, idle and beside a checkpoint."""
    print("| ms | p50 | p99 | max | calls |\n|---|---:|---:|---:|---:|")
    draw = np.random.default_rng(_SEED)
    queries = base[draw.integers(0, len(base), 4096)]

    def read(call: int) -> None:
        col.search(queries[call % len(queries)], k=10)

    def write(call: int) -> None:
        col.upsert(_rows(base, int(draw.integers(0, rows)), 1) | {"text": [f"again {call}"]})

    for name, call in (("search", read), ("upsert of one row", write)):
        idle = _times(call, lambda: time.sleep(3))
        for what, times in (("idle", idle), ("checkpoint", _times(call, col.checkpoint))):
            worst = f"{1e3 * max(times):.2f}"
            print(
                f"| {name}, {what} | {_ms(times, 0.5)} | {_ms(times, 0.99)} | {worst} "
                f"| {len(times):,} |",
                flush=True,
            )
    print()


def _times(call: Callable[[int], object], beside: Callable[[], object]) -> list[float]:
    """Return the seconds of each call, made one after the other while something else runs."""
    times: list[float] = []
    other = threading.Thread(target=beside)
    other.start()
    while other.is_alive():
        began = time.perf_counter()
        call(len(times))
        times.append(time.perf_counter() - began)
    other.join()
    return times


def _open_once(path: Path) -> int:
    """Open a collection, search it, and print what that took: in a process of its own."""
    began = time.perf_counter()
    col = upvec.open(path, read_only=True)
    col.search(np.zeros(next(iter(col.schema.vectors.values())).dim, dtype=np.float32), k=10)
    took = time.perf_counter() - began
    peak, now = _memory()
    print(f"{took:.2f} | {peak:,.0f} | {now:,.0f} | {peak / now:.2f}")
    return 0


def _memory() -> tuple[float, float]:
    """Return the peak of the resident memory, and what it is now, in MB; 1 where unknown."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return 1.0, 1.0
    peak, now = (int(lines[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    return peak, now


if __name__ == "__main__":
    sys.exit(main())
