"""Results as tables to read."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.report import table
from bench.runbook.replay import OPERATIONS, Replayed

# By runbook, then by peer.
Results = dict[str, dict[str, Replayed]]


def tables(results: Results, efs: Sequence[int]) -> str:
    """Recall, then rates and faults."""
    return recall_table(results, efs) + "\n\n" + rate_table(results)


def recall_table(results: Results, efs: Sequence[int]) -> str:
    """The mean over all search steps, and the worst of them."""
    head = ["recall@10, mean / worst (step)", "peer", *(f"ef {ef}" for ef in efs)]
    rows = [head]
    for book, peers in results.items():
        for name, result in peers.items():
            cells = []
            for ef in efs:
                worst, step = result.worst(ef)
                cells.append(f"{result.mean(ef):.4f} / {worst:.4f} ({step})")
            rows.append([book, name, *cells])
    return table(rows)


def rate_table(results: Results) -> str:
    """Rows per second of processor time, and what was wrong."""
    rows = [["rows/s of CPU time", "peer", *OPERATIONS, "faults", "check"]]
    for book, peers in results.items():
        for name, result in peers.items():
            rates = [result.rates[operation] for operation in OPERATIONS]
            cells = [f"{rate.per_second:,.0f}" if rate.rows else "-" for rate in rates]
            clean = "none" if result.check is None else "clean" if result.check["ok"] else "BROKEN"
            rows.append([book, name, *cells, f"{result.faults}", clean])
    return table(rows)
