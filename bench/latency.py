"""How long one search takes while another thread writes: python -m bench.latency --help.

One thread searches, one query a call. Another does nothing, or upserts moved vectors as fast as it
can, in batches of several sizes. Rounds of all kinds take turns. What is reported of the searches
are percentiles of single calls, not means: a reader that sometimes waits for a writer shows there.

On a machine that is not idle, waiting for a processor hides all else. So every call's *own* time is
noted too: without the time during which it could have run but other work had the processor. That is
what a spare core would show. (To leave out the calls that were preempted would not do: the longer a
call, the likelier it is among them.) Of the calls whose own time is long it is told whether they
ran so long (colder caches, or more to do), or would have been fast but for sleep: they waited for
the GIL or a lock. A virtual machine's own waits count as sleep, so compare with the idle line.

hnswlib and usearch are left out: neither allows a search beside an update of the same vector, so
there is nothing safe to compare with.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import DATA_ENV, SETS, Dataset, MissingDataError, load
from bench.measure import far_moves
from bench.peers.report import table
from upvec.index import Index

K = 10
EF = 64
PERCENTILES = (50.0, 99.0, 99.9, 100.0)
IDLE = 0  # rows a batch
# A batch that is the whole base holds the GIL at its beginning only: what it adds to the searches
# is the core's and the memory's doing.
BATCHES = (1, 32, 1000)
# The promise: beside a writer, the 99th percentile is at most so many times that of an idle index.
PROMISED_RATIO = 2.0


@dataclass
class Calls:
    """The searches of one kind of round.

    Attributes
    ----------
    wall_ns : list of int
        Of each call, and of reading the clocks around it.
    queued_ns, ran_ns : list of int
        Of these: ready to run, without a processor; and on one. The rest it slept.
    written : int
        Rows that the writer moved meanwhile.
    seconds : float
        Length of all rounds.
    """

    wall_ns: list[int] = field(default_factory=list)
    queued_ns: list[int] = field(default_factory=list)
    ran_ns: list[int] = field(default_factory=list)
    written: int = 0
    seconds: float = 0.0

    def percentiles_us(self) -> dict[str, float]:
        values = np.percentile(self.wall_ns, PERCENTILES) / 1000
        names = [f"p{p:g}" for p in PERCENTILES[:-1]] + ["max"]
        return dict(zip(names, values.tolist(), strict=True))

    def own_ns(self) -> npt.NDArray[np.int64]:
        return np.subtract(self.wall_ns, self.queued_ns)

    def own_p99_us(self) -> float:
        return float(np.percentile(self.own_ns(), 99) / 1000)

    def slower_than(self, limit_us: float) -> dict[str, int]:
        """Calls whose own time is above a limit, and what made it so."""
        slow = self.own_ns() > 1000 * limit_us
        ran = slow & (np.asarray(self.ran_ns) > 1000 * limit_us)
        return {"calls": int(slow.sum()), "slept": int((slow & ~ran).sum()), "ran": int(ran.sum())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        data = load("sample" if options.smoke else options.set, options.data)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    if options.smoke:
        options.rounds, options.seconds = 1, 0.2
    index = Index(data.dim, metric=data.metric)
    index.upsert(np.arange(len(data)), data.base)
    print(
        f"{data.name}: {len(data):,} rows, dim {data.dim}, k {K}, ef {EF}, {index.simd}, "
        f"threads {'pinned' if options.pinned else 'free'}, "
        f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors\n"
    )
    calls = measure(index, data, [*BATCHES, len(data)], options)
    print(_report(calls))
    if options.json:
        options.json.write_text(json.dumps(_to_dict(data, options, calls), indent=1) + "\n")
    report = index.check()
    if not report.ok:
        print(f"FAULT check: {report}", file=sys.stderr)
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.latency", description="Latency of searches beside a writer."
    )
    parser.add_argument("--data", metavar="DIR", help=f"folder of larger sets (or {DATA_ENV})")
    parser.add_argument("--set", default="sample", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--rounds", type=int, default=3, help="of every batch size")
    parser.add_argument("--seconds", type=float, default=2.0, help="of every round")
    parser.add_argument(
        "--pinned", action="store_true", help="reader on the last processor, writer on the first"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument(
        "--smoke", action="store_true", help="a second on the sample, for CI: figures mean nothing"
    )
    return parser


def measure(
    index: Index, data: Dataset, batches: Sequence[int], options: argparse.Namespace
) -> dict[int, Calls]:
    """Searches beside writers of every batch size, and beside none, by turns."""
    calls = {batch: Calls() for batch in (IDLE, *batches)}
    # Before the reader is pinned: threads that it starts inherit its processor.
    first, last = _processors() if options.pinned else (None, None)
    with _on_processor(last):
        _search(index, data, 0.2, Calls())  # warm
        for _ in range(options.rounds):
            for batch, sink in calls.items():
                with _writing(index, data, batch, sink, processor=first):
                    _search(index, data, options.seconds, sink)
    return calls


def _search(index: Index, data: Dataset, seconds: float, sink: Calls) -> None:
    clock, ran = time.perf_counter_ns, time.thread_time_ns
    gc.collect()
    gc.disable()
    began = clock()
    end = began + int(seconds * 1e9)
    try:
        with _queueing() as queued:
            for query in cycle(data.queries):
                # The wall clock is read outermost, though that adds some 10 us: Linux preempts a
                # thread mostly in its system calls, and to read the other two is one each.
                called = clock()
                queued_before, ran_before = queued(), ran()
                index.search(query, K, ef=EF, threads=1)
                ran_after, queued_after = ran(), queued()
                returned = clock()
                sink.wall_ns.append(returned - called)
                sink.ran_ns.append(ran_after - ran_before)
                sink.queued_ns.append(queued_after - queued_before)
                if returned > end:
                    break
    finally:
        gc.enable()
    sink.seconds += (clock() - began) / 1e9


@contextmanager
def _queueing() -> Iterator[Callable[[], int]]:
    """A clock of the time that this thread was ready to run and had no processor; else of zeros."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:  # Linux alone has it
        yield lambda: 0
        return
    try:
        yield lambda: int(os.pread(file, 99, 0).split()[1])
    finally:
        os.close(file)


@contextmanager
def _writing(
    index: Index, data: Dataset, batch: int, sink: Calls, *, processor: int | None
) -> Iterator[None]:
    """A thread that moves `batch` rows a call to far places; none if there is nothing to move."""
    if batch == IDLE:
        yield
        return
    stop = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with _on_processor(processor):
                for keys, vectors in _moves(data, batch):
                    if stop.is_set():
                        return
                    index.upsert(keys, vectors, threads=1)
                    sink.written += len(keys)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    if errors:
        raise errors[0]


def _moves(data: Dataset, batch: int) -> Iterator[tuple[npt.NDArray[np.int64], Any]]:
    """Batches without end, drawn one turnover at a time: the writer is to upsert, not to draw."""
    seed = time.perf_counter_ns()
    while True:
        seed += 1
        keys, moved = far_moves(data.base, seed=seed)
        for start in range(0, len(keys), batch):
            part = keys[start : start + batch]
            yield part, moved[part] if len(part) < len(keys) else moved


def _processors() -> tuple[int | None, int | None]:
    """The first and the last processor that this process may use, where that is known."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def _on_processor(which: int | None) -> Iterator[None]:
    """Keep the calling thread on one processor."""
    if which is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {which})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _report(calls: dict[int, Calls]) -> str:
    idle, idle_own = calls[IDLE].percentiles_us(), calls[IDLE].own_p99_us()
    rows = [["writer", *idle, "p99 / idle", "own p99", "/ idle", "searches/s", "rows/s"]]
    limit = PROMISED_RATIO * idle_own
    slow = [[f"own time above {limit:,.0f} us", "of", "calls", "slept", "ran"]]
    for batch, each in calls.items():
        wall, own = each.percentiles_us(), each.own_p99_us()
        rates = (len(each.wall_ns) / each.seconds, each.written / each.seconds)
        rows.append(
            [
                _name(batch),
                *(f"{value:,.0f}" for value in wall.values()),
                f"{wall['p99'] / idle['p99']:.2f}",
                f"{own:,.0f}",
                f"{own / idle_own:.2f}",
                *(f"{rate:,.0f}" for rate in rates),
            ]
        )
        counts = (len(each.wall_ns), *each.slower_than(limit).values())
        slow.append([_name(batch), *(f"{n:,}" for n in counts)])
    return "\n".join(["microseconds a search:", table(rows), "", table(slow)])


def _name(batch: int) -> str:
    return "idle" if batch == IDLE else f"batches of {batch:,}"


def _to_dict(data: Dataset, options: argparse.Namespace, calls: dict[int, Calls]) -> dict[str, Any]:
    limit = PROMISED_RATIO * calls[IDLE].own_p99_us()
    return {
        "set": data.name,
        "rows": len(data),
        "pinned": options.pinned,
        "writers": {
            _name(batch): each.percentiles_us()
            | {"searches": len(each.wall_ns), "written": each.written, "seconds": each.seconds}
            | {"own_p99": each.own_p99_us()}
            | {"slow": each.slower_than(limit)}
            for batch, each in calls.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
