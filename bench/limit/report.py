"""The tables of bench.limit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.limit.bound import Machine
from bench.limit.run import BY_ONE_CALL, Point, SetLimit
from bench.peers.report import table

_LEVELS = ("L2", "L1", "none")


def tables(limit: SetLimit, cache_bytes: int | None) -> str:
    """All of one set."""
    parts = [
        machine_table(limit.machine),
        cache_remark(limit.machine, cache_bytes),
        work_table(limit.points),
        bound_table(limit.points),
    ]
    return "\n\n".join(parts)


def machine_table(machine: Machine) -> str:
    """What the machine gives of buffers as large as the planes."""
    many = max(rate.threads for plane in machine.planes.values() for rate in plane.rates)
    head = ["million lines/s by 1 thread", "record bytes", "MB"]
    head += [*(f"into {level}" if level != "none" else "no prefetch" for level in _LEVELS), "ahead"]
    rows = [[*head, *([f"by {many}"] if many > 1 else []), "latency ns"]]
    for plane in machine.planes.values():
        best = plane.best()
        rows.append(
            [
                plane.name,
                str(plane.record_bytes),
                f"{plane.size_bytes / 1e6:.1f}",
                *(f"{plane.rate(level).lines_per_s / 1e6:.0f}" for level in _LEVELS),
                str(best.ahead),
                *([f"{plane.best(many).lines_per_s / 1e6:.0f}"] if many > 1 else []),
                f"{plane.latency_ns:.0f}",
            ]
        )
    kernels = f"Kernels ({machine.simd}): {machine.code_ns:.2f} ns a distance by code"
    return f"{table(rows)}\n\n{kernels}, {machine.exact_ns:.2f} ns by exact vector."


def cache_remark(machine: Machine, cache_bytes: int | None) -> str:
    """Which planes never have to come from memory, if the cache is what it says that it is."""
    if cache_bytes is None:
        return "The size of the last-level cache is not known."
    fitting = machine.fitting(cache_bytes)
    size = sum(plane.size_bytes for plane in machine.planes.values())
    held = ", ".join(fitting) or "none"
    return (
        f"Of the planes, a last-level cache of {cache_bytes / 1e6:.0f} MB could hold, each alone: "
        f"{held}. Together they take {size / 1e6:.0f} MB."
    )


def work_table(points: list[Point]) -> str:
    """What one query does."""
    planes = list(points[0].work.lines)
    head = ["a query", "ef", "distances", "reranks", "hops", "neighbours", "kept"]
    rows = [[*head, *(f"{name} lines" for name in planes), "unread: links", "codes"]]
    for label, point in _by_work(points).items():
        work = point.work
        counts = [work.code_distances, work.exact_distances, work.hops, work.neighbours]
        lines = [work.lines[name] for name in planes]
        unread = [work.unread["links"], work.unread["codes"]]
        rows.append(
            [label, str(point.ef)]
            + [f"{count:,.0f}" for count in [*counts, work.pool_inserts, *lines, *unread]]
        )
    return table(rows)


def _by_work(points: list[Point]) -> dict[str, Point]:
    """One of those that do the same work, whichever way they are called."""
    labelled = {}
    for point in points:
        works = [other.work for other in points if other.ef == point.ef]
        same = all(work == point.work for work in works)
        labelled[_recall(point) if same else _label(point)] = point
    return labelled


def bound_table(points: list[Point]) -> str:
    """What it takes, beside the least that it could."""
    head = ["us a query", "lines", "chain", "compute", "least", "measured", "call"]
    rows = [[*head, "lines / measured", "chain /", "compute /", "least /"]]
    for point in points:
        bound = point.bound
        least = [bound.lines_us, bound.chain_us, bound.compute_us, bound.least_us]
        rows.append(
            [_label(point)]
            + [f"{us:.1f}" for us in [*least, point.measured_us, point.call_us]]
            + [f"{us / point.measured_us:.0%}" for us in least]
        )
    return table(rows)


def _label(point: Point) -> str:
    how = "all by one call" if point.how == BY_ONE_CALL else "one a call"
    return f"{_recall(point)}, {how}"


def _recall(point: Point) -> str:
    return f"recall {point.recall:.3f}"


def as_json(limit: SetLimit) -> dict[str, Any]:
    """All figures."""
    return asdict(limit)


def last_level_cache_bytes() -> int | None:
    """Of the first processor, as Linux tells it."""
    places = Path("/sys/devices/system/cpu/cpu0/cache")
    units = {"K": 1 << 10, "M": 1 << 20}
    sizes = [place.read_text().strip() for place in sorted(places.glob("index*/size"))]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=None)
