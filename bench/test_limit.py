"""The arithmetic of bench.limit, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data import load
from bench.limit.bound import Bound, Machine, Work
from bench.limit.build import Built
from bench.limit.report import as_json, tables
from bench.limit.run import BY_ONE_CALL, CountFault, Plan, Point, SetLimit, limit_of

BEFORE: dict[str, Any] = {
    "queries": 100,
    "distances": 5000,
    "hops": 50,
    "counters": {
        "exact_distances": 1000,
        "neighbours": 0,
        "pool_inserts": 0,
        "codes_lines": 7,
        "codes_lines_unread": 0,
        "links_lines": 0,
        "links_lines_unread": 0,
    },
}
AFTER: dict[str, Any] = {
    "queries": 110,
    "distances": 14200,
    "hops": 450,
    "counters": {
        "exact_distances": 1200,
        "neighbours": 12800,
        "pool_inserts": 3000,
        "codes_lines": 27007,
        "codes_lines_unread": 300,
        "links_lines": 800,
        "links_lines_unread": 60,
    },
}


def printed(codes_ns: float = 2.0) -> dict[str, Any]:
    def plane(name: str, record_bytes: int, lines: float, second: float) -> dict[str, Any]:
        rates = [
            {"into": into, "threads": threads, "ahead": 8, "records_per_s": rate * threads}
            for into, rate in (("none", second / 4), ("L2", second), ("L1", second / 2))
            for threads in (1, 2)
        ]
        return {
            "name": name,
            "record_bytes": record_bytes,
            "bytes": record_bytes * 1000,
            "lines_per_record": lines,
            "rates": rates,
            "latency_ns": 50.0 if name == "codes" else 30.0,
        }

    kernel = {"together_ns": codes_ns, "alone_ns": 10.0}
    return {
        "kernels": {"simd": "any", "codes": kernel, "vectors": kernel},
        "planes": [plane("codes", 136, 3.0, 100e6), plane("links", 128, 2.0, 200e6)],
    }


def test_reranks_are_told_from_distances_by_code() -> None:
    work = Work.of(BEFORE, AFTER)
    assert (work.code_distances, work.exact_distances, work.distances) == (900, 20, 920)
    assert (work.hops, work.neighbours, work.pool_inserts) == (40, 1280, 300)


def test_lines_are_counted_by_plane_and_by_whether_they_were_read() -> None:
    work = Work.of(BEFORE, AFTER)
    assert work.lines == {"codes": 2700, "links": 80}
    assert work.unread == {"codes": 30, "links": 6}


def test_bounds_of_a_query() -> None:
    bound = Bound.of(Work.of(BEFORE, AFTER), Machine.of(printed()))
    # 2,700 lines at 300 million/s and 80 at 400.
    assert bound.lines_us == pytest.approx(9.0 + 0.2)
    assert bound.chain_us == pytest.approx(40 * 0.080)
    assert bound.compute_us == pytest.approx(900 * 0.002 + 20 * 0.010)
    assert bound.least_us == bound.lines_us


def test_slow_kernels_bound_a_query_too() -> None:
    bound = Bound.of(Work.of(BEFORE, AFTER), Machine.of(printed(codes_ns=100.0)))
    assert bound.least_us == bound.compute_us == pytest.approx(900 * 0.1 + 20 * 0.010)


def test_rate_of_a_plane_is_the_best_way_to_fetch() -> None:
    plane = Machine.of(printed()).planes["codes"]
    assert (plane.best().into, plane.best().lines_per_s) == ("L2", 300e6)
    assert plane.best(threads=2).lines_per_s == 600e6
    assert plane.rate("L1").lines_per_s == 150e6


def test_planes_that_a_cache_holds_are_named() -> None:
    machine = Machine.of(printed())
    assert machine.fitting(136_000) == ["codes", "links"]
    assert machine.fitting(130_000) == ["links"]
    assert machine.fitting(1000) == []


def test_tables_show_shares_of_the_measured_time() -> None:
    machine = Machine.of(printed())
    work = Work.of(BEFORE, AFTER)
    point = Point(0.951, 16, BY_ONE_CALL, work, Bound.of(work, machine), 18.4, 0.1)
    shown = tables(SetLimit(machine, [point]), 32 << 20)
    assert point.fraction == pytest.approx(0.5)
    assert "50%" in shown
    assert "could hold, each alone: codes, links" in shown


class FakeBuild(Built):
    """In place of a build that counts: one distance a query, whatever was asked."""

    def counted(self, arguments: Sequence[str]) -> Any:
        queries = len(np.load(arguments[1]))
        zero = dict.fromkeys(BEFORE["counters"], 0)
        before = {"queries": 0, "distances": 0, "hops": 0, "counters": zero}
        done = before | {"queries": queries, "distances": queries}
        return [{BY_ONE_CALL: [before, done]} for _ in arguments[3:]]

    def measured(self, arguments: Sequence[str]) -> Any:
        return printed()


def test_work_that_differs_from_what_was_timed_is_a_fault() -> None:
    plan = Plan(recalls=(0.9,), rounds=1)
    with pytest.raises(CountFault, match="were counted"):
        limit_of(load("sample"), plan, FakeBuild(Path(), Path()), lambda doing: None)


def test_figures_can_be_written_as_json() -> None:
    machine = Machine.of(printed())
    work = Work.of(BEFORE, AFTER)
    point = Point(0.951, 16, BY_ONE_CALL, work, Bound.of(work, machine), 18.4, 0.1)
    written = as_json(SetLimit(machine, [point]))
    assert written["points"][0]["bound"]["lines_us"] == pytest.approx(9.2)
    assert written["machine"]["planes"]["codes"]["record_bytes"] == 136
