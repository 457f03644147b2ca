"""What one batch's writing does on one thread, and what on all: python -m bench.scaling --help.

Batches of several sizes are inserted, and moved to far places, by one thread and by more. The core
notes on the clock how long each phase took (`Index.stats()["phases"]`); what the call took beyond
that is Python's: conversions, and the wrapper. Phases that are not shared out bound the speed-up by
Amdahl's law, however many processors there are: this bound is reported for 64, from the times with
one thread, beside the speed-up measured here. The bound is an upper one: it leaves out that threads
wait for the last of each section and for memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import DATA_ENV, SETS, Dataset, Floats, MissingDataError, load
from bench.measure import far_moves
from bench.peers.report import table
from upvec.index import Index

SHARED = ("plan_ns", "lists_ns")
MANY = 64


@dataclass(frozen=True)
class Times:
    """Where the seconds of some calls went.

    Attributes
    ----------
    seconds : float
        All of the calls.
    phases : dict of str to float
        Seconds of each phase of the core.
    sections : int
        How often work was shared out; each ends by waiting for the slowest thread.
    """

    seconds: float
    phases: dict[str, float]
    sections: int

    @property
    def shared(self) -> float:
        return sum(self.phases[name] for name in SHARED)

    @property
    def python(self) -> float:
        return self.seconds - sum(self.phases.values())

    def serial_share(self, *, with_python: bool = True) -> float:
        return 1 - self.shared / (self.seconds if with_python else self.seconds - self.python)

    def bound(self, threads: int = MANY) -> float:
        """Amdahl's: how much faster so many threads could be than one."""
        serial = self.serial_share()
        return 1 / (serial + (1 - serial) / threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        data = load("sample" if options.smoke else options.set, options.data)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    if options.smoke:
        options.batches = [100, 1000]
    batches = [min(batch, len(data)) for batch in options.batches]
    print(
        f"{data.name}: {len(data):,} rows, dim {data.dim}, {Index(1).simd}, "
        f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors\n"
    )
    report: list[dict[str, Any]] = []
    for batch in dict.fromkeys(batches):
        results = {threads: measure(data, batch, threads, options) for threads in options.threads}
        digests = {digest for _, digest in results.values()}
        if len(digests) > 1:
            print(f"FAULT batches of {batch}: graphs differ by the number of threads")
            return 1
        times = {threads: measured for threads, (measured, _) in results.items()}
        print(_report(batch, times), end="\n\n", flush=True)
        report += [
            {"batch": batch, "threads": threads, "what": what, "serial": each.serial_share()}
            | {"seconds": each.seconds, "phases": each.phases, "sections": each.sections}
            for threads, measured in times.items()
            for what, each in measured.items()
        ]
    if options.json:
        options.json.write_text(json.dumps({"set": data.name, "times": report}, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling", description="How writing shares out its work."
    )
    parser.add_argument("--data", metavar="DIR", help=f"folder of larger sets (or {DATA_ENV})")
    parser.add_argument("--set", default="sample", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 1000, 100_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--rows", type=int, default=4000, help="to write in batches that are smaller than this"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument("--smoke", action="store_true", help="seconds, on the sample, for CI")
    return parser


def measure(
    data: Dataset, batch: int, threads: int, options: argparse.Namespace
) -> tuple[dict[str, Times], str]:
    """Times of inserting rows into an index of the others and of moving them; and the digest."""
    rows = max(batch, min(options.rows, len(data) // 2))
    index = Index(data.dim, metric=data.metric)
    first = np.arange(rows, len(data))
    index.upsert(first, data.base[first])
    keys = np.arange(rows)
    moved = far_moves(data.base)[1]
    times = {
        "insert": _timed(index, keys, data.base, batch, threads),
        "move": _timed(index, keys, moved, batch, threads),
    }
    return times, index.digest()


def _timed(
    index: Index, keys: npt.NDArray[np.int64], vectors: Floats, batch: int, threads: int
) -> Times:
    before = index.stats()["phases"]
    parts = [keys[start : start + batch] for start in range(0, len(keys), batch)]
    calls = [(part, vectors[part]) for part in parts]
    gc.collect()
    began = time.perf_counter()
    for part, rows in calls:
        index.upsert(part, rows, threads=threads)
    seconds = time.perf_counter() - began
    spent = {name: value - before[name] for name, value in index.stats()["phases"].items()}
    sections = spent.pop("sections")
    return Times(seconds, {name: ns / 1e9 for name, ns in spent.items()}, sections)


def _report(batch: int, times: dict[int, dict[str, Times]]) -> str:
    one = min(times)
    names = [name.removesuffix("_ns") for name in next(iter(times[one].values())).phases]
    head = [f"batches of {batch:,}, % of the time", *names, "python", "not shared"]
    rows = [[*head, "speed-up", f"bound at {MANY}"]]
    for threads, measured in times.items():
        for what, each in measured.items():
            shares = [*each.phases.values(), each.python]
            rows.append(
                [
                    f"{what}, {threads} thread{'s' if threads > 1 else ''}",
                    *(f"{100 * share / each.seconds:.2f}" for share in shares),
                    f"{100 * each.serial_share():.2f}",
                    f"{times[one][what].seconds / each.seconds:.2f}",
                    f"{each.bound():.1f}" if threads == one else "",
                ]
            )
    return table(rows)


if __name__ == "__main__":
    sys.exit(main())
