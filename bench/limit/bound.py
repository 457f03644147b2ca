"""The arithmetic: from what a query does and what the machine gives, the least time it can take.

Three bounds, each of which supposes that the other two cost nothing:

- lines: every cache line that the query reads has to come, at the best rate that the machine has
  for random records of that plane.
- chain: a hop reads a list, and then codes that nobody could know of before: two latencies, one
  after the other.
- compute: every distance at the kernel's speed when all that it measures is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LINES = "_lines"
_UNREAD = "_lines_unread"


@dataclass(frozen=True)
class Work:
    """What one query does, on average.

    Attributes
    ----------
    code_distances, exact_distances : float
        By code; and by exact vector, of the nearest of those.
    hops : float
        Lists that were read.
    neighbours : float
        Slots in those lists.
    pool_inserts : float
        Neighbours that were near enough to be candidates.
    lines, unread : dict of str to float
        Cache lines by plane: those that were read; and those that were sent for in vain.
    """

    code_distances: float
    exact_distances: float
    hops: float
    neighbours: float
    pool_inserts: float
    lines: dict[str, float]
    unread: dict[str, float]

    @classmethod
    def of(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> Work:
        """Between two `Index.stats()` of a build that counts."""
        queries = after["queries"] - before["queries"]

        def per_query(name: str) -> float:
            return float((after[name] - before[name]) / queries)

        counts = {
            name: (count - before["counters"][name]) / queries
            for name, count in after["counters"].items()
        }
        exact = counts["exact_distances"]
        return cls(
            code_distances=per_query("distances") - exact,
            exact_distances=exact,
            hops=per_query("hops"),
            neighbours=counts["neighbours"],
            pool_inserts=counts["pool_inserts"],
            lines=_planes(counts, _LINES),
            unread=_planes(counts, _UNREAD),
        )

    @property
    def distances(self) -> float:
        """As `Index.stats()` counts them."""
        return self.code_distances + self.exact_distances


def _planes(counts: Mapping[str, float], ending: str) -> dict[str, float]:
    return {
        name.removesuffix(ending): count for name, count in counts.items() if name.endswith(ending)
    }


@dataclass(frozen=True)
class Rate:
    """Random records of one plane, with prefetches into one level of the cache."""

    into: str
    threads: int
    ahead: int
    lines_per_s: float


@dataclass(frozen=True)
class Plane:
    """What the machine gives of a buffer as large as one plane of the index."""

    name: str
    record_bytes: int
    size_bytes: int
    rates: tuple[Rate, ...]
    latency_ns: float

    def rate(self, into: str, threads: int = 1) -> Rate:
        return next(rate for rate in self.rates if (rate.into, rate.threads) == (into, threads))

    def best(self, threads: int = 1) -> Rate:
        of_these = [rate for rate in self.rates if rate.threads == threads]
        return max(of_these, key=lambda rate: rate.lines_per_s)


@dataclass(frozen=True)
class Machine:
    """What the program `upvec_limit` measured for the shape of one index."""

    simd: str
    planes: dict[str, Plane]
    code_ns: float
    exact_ns: float

    @classmethod
    def of(cls, printed: Mapping[str, Any]) -> Machine:
        kernels = printed["kernels"]
        return cls(
            simd=kernels["simd"],
            planes={plane["name"]: _plane(plane) for plane in printed["planes"]},
            # As searches call them: codes by the list, exact vectors one by one.
            code_ns=kernels["codes"]["together_ns"],
            exact_ns=kernels["vectors"]["alone_ns"],
        )

    def fitting(self, cache_bytes: int) -> list[str]:
        """Planes that a cache holds, if it holds nothing else."""
        return [name for name, plane in self.planes.items() if plane.size_bytes <= cache_bytes]


def _plane(printed: Mapping[str, Any]) -> Plane:
    return Plane(
        name=printed["name"],
        record_bytes=printed["record_bytes"],
        size_bytes=printed["bytes"],
        rates=tuple(
            Rate(
                rate["into"],
                rate["threads"],
                rate["ahead"],
                rate["records_per_s"] * printed["lines_per_record"],
            )
            for rate in printed["rates"]
        ),
        latency_ns=printed["latency_ns"],
    )


@dataclass(frozen=True)
class Bound:
    """The least microseconds that a query can take, by what bounds it."""

    lines_us: float
    chain_us: float
    compute_us: float

    @classmethod
    def of(cls, work: Work, machine: Machine) -> Bound:
        planes = machine.planes
        hop_ns = planes["links"].latency_ns + planes["codes"].latency_ns
        compute_ns = work.code_distances * machine.code_ns + work.exact_distances * machine.exact_ns
        return cls(
            lines_us=1e6
            * sum(lines / planes[name].best().lines_per_s for name, lines in work.lines.items()),
            chain_us=work.hops * hop_ns / 1e3,
            compute_us=compute_ns / 1e3,
        )

    @property
    def least_us(self) -> float:
        return max(self.lines_us, self.chain_us, self.compute_us)
