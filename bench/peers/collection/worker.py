"""One store in a process of its own: ``python -m bench.peers.collection.worker TASK.json``.

Prints a line of JSON with what was measured. A step that fails is told with its error, and those
after it go on.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import load

from .base import Records, Store, make_store, version_of

__all__ = ["Task", "Workload", "build", "reopen", "workload_of"]

_K = 10
SHARES = (None, 0.5, 0.1, 0.02, 0.001)
_RANKS = 10_000
_BATCH = 10_000


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


def build(store: Store, work: Workload) -> dict[str, Any]:
    """Fill a store, change it, search it; return the figures by step."""
    figures: dict[str, Any] = {}

    def step(name: str, run: Callable[[], Any]) -> None:
        try:
            figures[name] = run()
        except Exception as error:  # noqa: BLE001  (whatever a store raises)
            figures[name] = {"error": f"{type(error).__name__}: {error}"[:200]}

    store.create()
    step("load rows/s", lambda: _rate(store, work.first, store.upsert))
    step("update rows/s", lambda: _rate(store, work.moved, store.upsert))
    step("metadata rows/s", lambda: _rate(store, work.retold, store.update_metadata))
    step("single", lambda: _singles(store, work.singles))
    for share in SHARES:
        step(f"search {share}", lambda share=share: _searches(store, work, share))
    step("delete rows/s", lambda: _deleted(store, work.deleted))
    figures["rss MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    store.close()
    return figures


def _rate(store: Store, rows: Records, write: Callable[[Records], None]) -> float:
    start = time.perf_counter()
    for at in range(0, len(rows), _BATCH):
        write(rows.part(at, at + _BATCH))
    store.index()
    return len(rows) / (time.perf_counter() - start)


def _deleted(store: Store, ids: list[str]) -> float:
    start = time.perf_counter()
    store.delete(ids)
    store.index()
    return len(ids) / (time.perf_counter() - start)


def _singles(store: Store, rows: Records) -> dict[str, float]:
    """Upsert row by row, and look whether the next search finds each."""
    took, fresh = [], 0
    for at in range(len(rows)):
        one = rows.part(at, at + 1)
        start = time.perf_counter()
        store.upsert(one)
        took.append(1e3 * (time.perf_counter() - start))
        fresh += one.ids[0] in store.search(one.vectors[0], _K, None)
    p50, p99 = np.percentile(took, [50, 99])
    return {"p50 ms": float(p50), "p99 ms": float(p99), "found at once": fresh / len(rows)}


def _searches(store: Store, work: Workload, share: float | None) -> dict[str, float]:
    below = None if share is None else round(share * _RANKS)
    rows = work.before_delete
    allowed = np.arange(len(rows)) if below is None else np.flatnonzero(rows.ranks < below)
    start = time.perf_counter()
    found = [store.search(query, _K, below) for query in work.queries]
    seconds = time.perf_counter() - start
    place = {name: at for at, name in enumerate(rows.ids)}
    hits, wanted = 0, 0
    for query, names in zip(work.queries, found, strict=True):
        distances = np.square(rows.vectors[allowed] - query).sum(axis=1)
        k = min(_K, len(allowed))
        bound = np.partition(distances, k - 1)[k - 1] * (1 + 1e-5) if k else 0.0
        listed = [place[name] for name in dict.fromkeys(names) if name in place]
        if below is not None and (rows.ranks[listed] >= below).any():
            raise AssertionError("a row that does not fulfil the condition")
        hits += int((np.square(rows.vectors[listed] - query).sum(axis=1) <= bound).sum())
        wanted += k
    return {"q/s": len(found) / seconds, "recall": min(1.0, hits / wanted) if wanted else 1.0}


def reopen(store: Store, work: Workload) -> dict[str, Any]:
    """Open a store that another process has left, and check what is there."""
    start = time.perf_counter()
    store.open()
    store.search(work.queries[0], _K, None)
    seconds = time.perf_counter() - start
    wrong = []
    if store.count() != len(work.left):
        wrong.append(f"{store.count()} rows, wanted {len(work.left)}")
    at = np.random.default_rng(5).choice(len(work.left), min(500, len(work.left)), replace=False)
    asked = [work.left.ids[i] for i in at.tolist()]
    got = store.get(asked)
    for i in at.tolist():
        want = (work.left.texts[i], int(work.left.ranks[i]))
        if got.get(work.left.ids[i]) != want:
            wrong.append(f"{work.left.ids[i]}: {got.get(work.left.ids[i])}, wanted {want}")
            break
    gone = store.get(work.deleted[:100])
    if gone:
        wrong.append(f"{len(gone)} of 100 deleted rows are there")
    store.close()
    return {"reopen s": seconds, "wrong": wrong}


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
        except Exception as error:  # noqa: BLE001  (whatever a store raises)
            stored = store.count() - before
            told[name] = f"{type(error).__name__}, {stored or 'nothing'} stored"
        else:
            told[name] = f"accepted, {store.count() - before} stored"

    def vectors(n: int) -> npt.NDArray[np.float32]:
        return draw.random((n, dim), dtype=np.float32)

    store.create()
    store.upsert(rows([f"a{i}" for i in range(300)], vectors(300)))
    attempt("a key twice in a batch", ["b0", "b1", "b0"], vectors(3))
    odd = np.empty(3, dtype=object)
    odd[:] = [vectors(1)[0], vectors(1)[0][: dim - 1], vectors(1)[0]]
    attempt("a wrong dimension", ["c0", "c1", "c2"], odd)
    nan = vectors(3)
    nan[1, 0] = np.nan
    attempt("NaN in a vector", ["d0", "d1", "d2"], nan)
    return told


def main() -> None:
    """Do a task."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    mode = asked.pop("mode")
    task = Task(**asked)
    folder = Path(task.folder)
    work = workload_of(task)
    store = make_store(task.store, folder, work.queries.shape[1])
    if mode == "build":
        figures = build(store, work)
        figures["version"], figures["settings"] = version_of(task.store), store.settings
        print(json.dumps(figures))
    elif mode == "reopen":
        print(json.dumps(reopen(store, work)))
    elif mode == "behave":
        print(json.dumps(behave(store, work.queries.shape[1])))
    elif mode == "die":  # after upserts that it was told are safe
        store.create()
        for at in range(20):
            store.upsert(work.first.part(at * 50, (at + 1) * 50))
        print(json.dumps({"acknowledged": 1000}), flush=True)
        os.kill(os.getpid(), 9)
    else:
        store.open()
        print(json.dumps({"after kill": store.count()}))
    sys.stdout.flush()
    os._exit(0)  # some stores wait for threads that never end


if __name__ == "__main__":
    main()
