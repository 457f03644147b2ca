"""Filtered search: python -m bench.filtered.

Recall and queries/s of every way to keep to a filter, by the share of the rows that it allows and
by how it is related to the query:

- ``unrelated``: rows drawn by chance;
- ``near``: the rows nearest to where the queries are, as when a field says what a row is about;
- ``far``: the rows farthest from there.

Queries go in one batch a filter, on one thread. Exact answers are those of ``exact_search`` under
the same filter. Times are medians of rounds in which all ways take turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upvec import Index

from .data import load

Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]

WAYS = ("auto", "scan", "walk_allowed", "walk_all")
RELATIONS = ("unrelated", "near", "far")
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
_K = 10
_ANCHORS = 10
_QUERIES = 20  # an anchor


@dataclass(frozen=True)
class Case:
    """Queries that share a filter."""

    allowed: Keys
    queries: Floats


def bits_of(allowed: Keys, rows: int) -> npt.NDArray[np.uint64]:
    """Return a bitmap of rows."""
    mask = np.zeros((rows + 63) // 64 * 64, dtype=np.bool_)
    mask[allowed] = True
    return np.packbits(mask, bitorder="little").view(np.uint64)


def cases(
    base: Floats, queries: Floats, relation: str, share: float, draw: np.random.Generator
) -> Iterator[Case]:
    """Yield filters that allow this share of the rows, each with its queries."""
    most = max(_K, round(len(base) * share))
    for anchor in draw.choice(len(queries), _ANCHORS, replace=False):
        near = np.argsort(np.square(queries - queries[anchor]).sum(axis=1), kind="stable")
        if relation == "unrelated":
            chosen = draw.choice(len(queries), _QUERIES, replace=False)
            allowed = draw.choice(len(base), most, replace=False)
        else:
            chosen = near[:_QUERIES]
            distances = np.square(base - queries[anchor]).sum(axis=1)
            order = np.argpartition(distances, most - 1 if relation == "near" else -most)
            allowed = order[:most] if relation == "near" else order[-most:]
        yield Case(np.sort(allowed).astype(np.int64), np.ascontiguousarray(queries[chosen]))


def recall(found: Floats, exact: Floats) -> float:
    """Return the share of hits no farther than the last exact one."""
    last = exact[:, -1:] + 1e-5 * np.abs(exact[:, -1:])
    return float((found <= last).sum() / exact.size)


def measure(
    core: Any, some: list[Case], rows: int, ef: int, ways: tuple[str, ...], rounds: int
) -> dict[str, Any]:
    """Return recall and queries/s by way."""
    filters = [core.filter_of_bits(bits_of(case.allowed, rows)) for case in some]
    exact = [
        core.exact_search(case.queries, _K, allowed=kept)[1]
        for case, kept in zip(some, filters, strict=True)
    ]
    seconds: dict[str, list[float]] = {way: [] for way in (*ways, "unfiltered")}
    recalls = {}
    for _ in range(rounds):
        total = 0.0
        for case in some:
            start = time.perf_counter()
            core.search(case.queries, _K, ef=ef, threads=1)
            total += time.perf_counter() - start
        seconds["unfiltered"].append(total)
        for way in ways:
            total, hits = 0.0, []
            for case, kept in zip(some, filters, strict=True):
                start = time.perf_counter()
                found = core.search(case.queries, _K, ef=ef, allowed=kept, threads=1, way=way)
                total += time.perf_counter() - start
                hits.append(found[1])
            seconds[way].append(total)
            recalls[way] = float(np.mean([recall(h, e) for h, e in zip(hits, exact, strict=True)]))
    count = sum(len(case.queries) for case in some)
    best = core.filter_costs(filters[0], _K, ef)
    plain = count / float(np.median(seconds["unfiltered"]))
    return {
        "unfiltered": plain,
        "best": best["best"],
        "costs": {way: best[way] for way in ("scan", "walk_allowed", "walk_all")},
        **{way: (recalls[way], count / float(np.median(seconds[way]))) for way in ways},
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-200k")
    parser.add_argument("--data", help="folders of the data; by default those of the environment")
    parser.add_argument("--rows", type=int, help="so many of the set")
    parser.add_argument("--ef", type=int, default=0, help="0: the default")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--relations", nargs="+", default=RELATIONS, choices=RELATIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", help="keep the index in this file")
    parser.add_argument("--json", help="write the figures there")
    chosen = parser.parse_args()
    data = load(chosen.set, chosen.data)
    base = data.base[: chosen.rows]
    if chosen.cache and Path(chosen.cache).exists():
        index = Index.load(chosen.cache)
    else:
        index = Index(base.shape[1], metric=data.metric)
        index.upsert(np.arange(len(base)), base)
        if chosen.cache:
            index.save(chosen.cache)
    core = index._core
    print(f"{data.name}, {len(base):,} x {base.shape[1]}: recall, and queries/s to unfiltered ones")
    print(
        f"{'share':>8} {'relation':10}{'unfiltered/s':>14}"
        + "".join(f"{way:>22}" for way in chosen.ways)
    )
    rows = []
    for share in chosen.shares:
        for relation in chosen.relations:
            draw = np.random.default_rng(0)
            some = list(cases(base, data.queries, relation, share, draw))
            found = measure(core, some, len(base), chosen.ef, tuple(chosen.ways), chosen.rounds)
            plain = found["unfiltered"]
            cells = "".join(
                f"{found[way][0]:12.4f} {found[way][1] / plain:6.2f}x"
                f"{'*' if way == found['best'] else ' '} "
                for way in chosen.ways
            )
            print(f"{share:8.2%} {relation:10}{plain:14,.0f}{cells}", flush=True)
            rows.append({"share": share, "relation": relation, **found})
    if chosen.json:
        report = {"set": data.name, "rows": len(base), "cases": rows}
        Path(chosen.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
