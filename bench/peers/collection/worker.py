"""One store in a process of its own: ``python -m bench.peers.collection.worker TASK.json``.

Prints a line of JSON as soon as a step has its figures. A step that fails or takes longer than the
limit is told with its reason, and those after it go on.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import load

from .base import Records, Store, Unable, make_store, version_of

__all__ = ["Task", "Workload", "behave", "build", "reopen", "rise", "workload_of"]

_K = 10
SHARES = (None, 0.5, 0.1, 0.02, 0.001)
_RANKS = 10_000
_BATCH = 10_000
_ODD_ROWS = 21
_DEATH_CALLS, _DEATH_ROWS = 20, 50


@dataclass(frozen=True)
class Task:
    """What a worker is to do."""

    store: str
    folder: str
    data: str | None
    set: str
    rows: int
    queries: int
    singles: int
    limit: float = 120.0  # seconds of a step


class Overtime(Exception):
    """A step has had its time."""


@dataclass(frozen=True)
class Workload:
    """The rows as they are loaded, what is written afterwards, and the rows at the end."""

    first: Records
    moved: Records
    retold: Records
    singles: Records
    deleted: list[str]
    queries: npt.NDArray[np.float32]
    before_delete: Records
    left: Records


def workload_of(task: Task) -> Workload:
    """Return the same workload for every store."""
    data = load(task.set, task.data)
    draw = np.random.default_rng(3)
    base = np.ascontiguousarray(data.base[: task.rows])
    n = len(base)
    ids = [f"row-{i:08d}" for i in range(n)]
    tenants = [f"tenant-{t}" for t in np.minimum(draw.zipf(1.3, n), 1000).tolist()]
    texts = [f"text of row {i}" for i in range(n)]
    first = Records(ids, tenants, texts, draw.integers(0, _RANKS, n), base)
    order = draw.permutation(n)
    share = n // 5
    now = replace(first, tenants=list(tenants), texts=list(texts), ranks=first.ranks.copy())
    now = replace(now, vectors=base.copy())

    def changed(rows: npt.NDArray[np.int64], note: str, *, moves: bool) -> Records:
        for at in rows.tolist():
            now.texts[at] = f"{note} {at}"
        now.ranks[rows] = draw.integers(0, _RANKS, len(rows))
        if moves:
            now.vectors[rows] = base[draw.integers(0, n, len(rows))] * np.float32(1.01)
        return _taken(now, rows)

    moved = changed(order[:share], "moved", moves=True)
    retold = changed(order[share : 2 * share], "retold", moves=False)
    singles = changed(order[2 * share : 2 * share + task.singles], "single", moves=True)
    before_delete = _taken(now, np.arange(n))
    gone = order[-(n // 10) :]
    left = _taken(now, np.setdiff1d(np.arange(n), gone))
    queries = np.ascontiguousarray(data.queries[: task.queries])
    deleted = [ids[at] for at in gone.tolist()]
    return Workload(first, moved, retold, singles, deleted, queries, before_delete, left)


def _taken(rows: Records, at: npt.NDArray[np.int64]) -> Records:
    listed = at.tolist()
    return Records(
        [rows.ids[i] for i in listed],
        [rows.tenants[i] for i in listed],
        [rows.texts[i] for i in listed],
        rows.ranks[at].copy(),
        rows.vectors[at].copy(),
    )


Tell = Callable[[str, Any], None]


def _silent(_name: str, _figure: Any) -> None:
    pass


class _Clock:
    """Seconds since it was made; what a step is to stop by."""

    def __init__(self, limit: float) -> None:
        self._start = time.perf_counter()
        self._limit = limit

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def over(self) -> bool:
        return self.seconds() > self._limit

    def check(self, done: int, of: int) -> None:
        if self.over() and done < of:
            raise Overtime(f"{done:,} of {of:,} rows in {self.seconds():.0f} s")


def build(
    store: Store, work: Workload, limit: float = 120.0, tell: Tell = _silent
) -> dict[str, Any]:
    """Fill a store, change it, search it; return the figures by step."""
    figures: dict[str, Any] = {}

    def step(name: str, run: Callable[[], Any]) -> None:
        try:
            figures[name] = run()
        except Unable as reason:
            figures[name] = {"unable": str(reason)}
        except Overtime as reason:
            figures[name] = {"timeout": str(reason)}
        except Exception as error:  # noqa: BLE001  (whatever a store raises)
            figures[name] = {"error": f"{type(error).__name__}: {error}"[:200]}
        tell(name, figures[name])

    def written(share: float | None) -> bool:
        # What is left out by a store that cannot write metadata alone changes no distance.
        steps = ("load rows/s", "update rows/s", "metadata rows/s", "single")
        missing = {"timeout", "error"} if share is None else {"timeout", "error", "unable"}
        return not any(missing & _parts(figures.get(name)).keys() for name in steps)

    step("rss before MiB", _peak_mib)
    store.create()
    step("load rows/s", lambda: _rate(store, work.first, store.upsert, limit))
    step("update rows/s", lambda: _rate(store, work.moved, store.upsert, limit))
    step("metadata rows/s", lambda: _rate(store, work.retold, store.update_metadata, limit))
    step("single", lambda: _singles(store, work.singles, limit))
    step("settle s", lambda: _settled(store))
    for share in SHARES:
        step(
            f"search {share}",
            lambda share=share: _searches(store, work, share, limit, whole=written(share)),
        )
    step("delete rows/s", lambda: _deleted(store, work.deleted))
    step("rss MiB", _peak_mib)
    step("close s", lambda: _closed(store))
    return figures


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _parts(figure: Any) -> dict[str, Any]:
    return figure if isinstance(figure, dict) else {}


def _rate(store: Store, rows: Records, write: Callable[[Records], None], limit: float) -> float:
    clock = _Clock(limit)
    for at in range(0, len(rows), _BATCH):
        clock.check(at, len(rows))
        write(rows.part(at, at + _BATCH))
    store.index()
    return len(rows) / clock.seconds()


def _settled(store: Store) -> float:
    """Let a store tidy up after many single rows, as it would be told to from time to time."""
    start = time.perf_counter()
    store.index()
    return time.perf_counter() - start


def _closed(store: Store) -> float:
    start = time.perf_counter()
    store.close()
    return time.perf_counter() - start


def _deleted(store: Store, ids: list[str]) -> float:
    start = time.perf_counter()
    store.delete(ids)
    store.index()
    return len(ids) / (time.perf_counter() - start)


def _singles(store: Store, rows: Records, limit: float) -> dict[str, float]:
    """Upsert row by row, and look whether the next search finds each."""
    took, fresh, clock = [], 0, _Clock(limit)
    for at in range(len(rows)):
        clock.check(at, len(rows))
        one = rows.part(at, at + 1)
        start = time.perf_counter()
        store.upsert(one)
        took.append(1e3 * (time.perf_counter() - start))
        fresh += one.ids[0] in store.search(one.vectors[0], _K, None)
    p50, p99 = np.percentile(took, [50, 99])
    return {"p50 ms": float(p50), "p99 ms": float(p99), "found at once": fresh / len(rows)}


def _searches(
    store: Store, work: Workload, share: float | None, limit: float, *, whole: bool
) -> dict[str, Any]:
    """Search one by one until the time is over; recall is of the searches that were done."""
    below = None if share is None else round(share * _RANKS)
    clock = _Clock(limit)
    found = []
    for query in work.queries:
        if clock.over():
            break
        found.append(store.search(query, _K, below))
    figures: dict[str, Any] = {"q/s": len(found) / clock.seconds(), "queries": len(found)}
    if whole:
        figures["recall"] = recall_of(work.before_delete, work.queries, found, below)
    return figures


def recall_of(
    rows: Records, queries: npt.NDArray[np.float32], found: list[list[str]], below: int | None
) -> float:
    """Return the share of the exact answers that was found; all answers must fulfil the condition.

    Of rows at the distance of the last answer any one is right.
    """
    allowed = np.arange(len(rows)) if below is None else np.flatnonzero(rows.ranks < below)
    near = rows.vectors[allowed]
    place = {name: at for at, name in enumerate(rows.ids)}
    hits, wanted = 0, 0
    for query, names in zip(queries, found, strict=False):  # fewer, where the time was over
        if len(set(names)) != len(names) or len(names) > _K:
            raise AssertionError(f"{len(names)} answers, {len(set(names))} different ones")
        listed = [place[name] for name in names]
        if below is not None and (rows.ranks[listed] >= below).any():
            raise AssertionError("an answer does not fulfil the condition")
        distances = np.square(near - query).sum(axis=1)
        k = min(_K, len(allowed))
        bound = np.partition(distances, k - 1)[k - 1] * (1 + 1e-5) if k else 0.0
        reached = int((np.square(rows.vectors[listed] - query).sum(axis=1) <= bound).sum())
        hits, wanted = hits + min(k, reached), wanted + k
    return hits / wanted if wanted else 1.0


def reopen(store: Store, work: Workload) -> dict[str, Any]:
    """Open a store that another process has left, and check what is there."""
    start = time.perf_counter()
    store.open()
    store.search(work.queries[0], _K, None)
    seconds = time.perf_counter() - start
    wrong = []
    if (there := store.count()) != len(work.left):
        wrong.append(f"{there:,} rows, wanted {len(work.left):,}")
    draw = np.random.default_rng(5)
    at = draw.choice(len(work.left), min(500, len(work.left)), replace=False).tolist()
    try:
        wrong += _wrong_contents(store, work.left, at)
        checked = "contents"
    except Unable:
        checked = "keys"
        if (there := store.has([work.left.ids[i] for i in at])) != len(at):
            wrong.append(f"{there} of {len(at)} rows are there")
    if kept := store.has(work.deleted[:100]):
        wrong.append(f"{kept} of {len(work.deleted[:100])} deleted rows are there")
    store.close()
    return {"reopen s": seconds, "wrong": wrong, "checked": checked}


def _wrong_contents(store: Store, rows: Records, at: list[int]) -> list[str]:
    got = store.get([rows.ids[i] for i in at])
    wants = {rows.ids[i]: (rows.texts[i], int(rows.ranks[i])) for i in at}
    odd = [f"{key}: {got.get(key)}, wanted {want}" for key, want in wants.items()]
    odd = [
        said for said, (key, want) in zip(odd, wants.items(), strict=True) if got.get(key) != want
    ]
    return [f"{len(odd)} of {len(at)} rows, as {odd[0]}"] if odd else []


def die(store: Store, work: Workload, tell: Tell) -> None:
    """Upsert, and tell after each call that it has returned; then be killed."""
    store.create()
    for at in range(_DEATH_CALLS):
        store.upsert(work.first.part(at * _DEATH_ROWS, (at + 1) * _DEATH_ROWS))
        tell("acknowledged", min(len(work.first), (at + 1) * _DEATH_ROWS))
    os.kill(os.getpid(), signal.SIGKILL)


def rise(store: Store, work: Workload) -> dict[str, Any]:
    """Say how many of the acknowledged rows there are after that, as they were written."""
    store.open()
    rows = work.first.part(0, _DEATH_CALLS * _DEATH_ROWS)
    try:
        wrong = _wrong_contents(store, rows, list(range(len(rows))))
    except Unable:
        wrong = []
    return {"after kill": store.has(rows.ids), "wrong": wrong}


def trickle(store: Store, work: Workload, singles: int) -> None:
    """Write single rows, and nothing more, for who counts the calls that sync."""
    store.create()
    store.upsert(work.first.part(0, 300))
    for at in range(singles):
        store.upsert(work.first.part(300 + at, 301 + at))


def behave(store: Store, dim: int) -> dict[str, str]:
    """Say what a store does with what it should not be given."""
    draw = np.random.default_rng(0)
    told: dict[str, str] = {}

    def rows(ids: list[str], vectors: Any) -> Records:
        n = len(ids)
        return Records(ids, ["t"] * n, [f"text {i}" for i in range(n)], np.arange(n), vectors)

    def attempt(name: str, ids: list[str], vectors: Any) -> None:
        before = store.count()
        try:
            store.upsert(rows(ids, vectors))
            answer = "accepted"
        except Exception as error:  # noqa: BLE001  (whatever a store raises)
            answer = type(error).__name__
        counted, found = store.count() - before, store.has(list(dict.fromkeys(ids)))
        stored = "nothing stored" if counted == 0 else f"{counted} of {len(ids)} stored"
        told[name] = f"{answer}, {stored}" + (f", {found} found" if found != counted else "")

    def vectors(n: int) -> npt.NDArray[np.float32]:
        return draw.random((n, dim), dtype=np.float32)

    store.create()
    store.upsert(rows([f"a{i}" for i in range(300)], vectors(300)))
    attempt("a key twice in a batch", ["b0", "b1", "b0"], vectors(3))
    try:
        text = store.get(["b0"]).get("b0", ("", 0))[0]
        told["a key twice in a batch"] += {"text 0": ", the first", "text 2": ", the last"}.get(
            text, ""
        )
    except Unable:
        pass
    middle = _ODD_ROWS // 2
    odd = np.empty(_ODD_ROWS, dtype=object)
    odd[:] = [vector[: dim - (at == middle)] for at, vector in enumerate(vectors(_ODD_ROWS))]
    attempt("a wrong dimension", [f"c{at}" for at in range(_ODD_ROWS)], odd)
    nan = vectors(_ODD_ROWS)
    nan[middle, 0] = np.nan
    attempt("NaN in a vector", [f"d{at}" for at in range(_ODD_ROWS)], nan)
    return told


def _tell(name: str, figure: Any) -> None:
    print(json.dumps({name: figure}), flush=True)


def main() -> None:
    """Do a task."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    mode = asked.pop("mode")
    task = Task(**asked)
    work = workload_of(task)
    dim = work.queries.shape[1]
    store = make_store(task.store, Path(task.folder), dim)
    if mode == "build":
        _tell("version", version_of(task.store))
        _tell("settings", store.settings)
        build(store, work, task.limit, _tell)
    elif mode == "die":  # after upserts that it was told are safe
        die(store, work, _tell)
    elif mode == "trickle":
        trickle(store, work, task.singles)
    else:
        told = {
            "reopen": lambda: reopen(store, work),
            "behave": lambda: behave(store, dim),
            "rise": lambda: rise(store, work),
        }[mode]()
        for name, figure in told.items():
            _tell(name, figure)
    sys.stdout.flush()
    os._exit(0)  # some stores wait for threads that never end


if __name__ == "__main__":
    main()
