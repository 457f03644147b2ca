"""Results as tables to read."""

from __future__ import annotations

from collections.abc import Iterator

from bench.churn.run import Curve, PeerChurn, Plan
from bench.peers.report import table
from bench.peers.run import RECALLS

# By kind, then by peer.
Results = dict[str, dict[str, PeerChurn]]


def tables(results: Results, plan: Plan) -> str:
    """All tables of one set."""
    parts = [recall_table(results, ef) for ef in plan.efs]
    return "\n\n".join([*parts, rate_table(results), search_table(results), fault_table(results)])


def recall_table(results: Results, ef: int) -> str:
    """Recall at one ef: before, over the steps, and beside the fresh build of the last."""
    head = [f"recall@10 at ef {ef}", "peer", "before", "mean", "worst", "last"]
    rows = [[*head, "fresh", "last - fresh, points"]]
    for kind, name, result in _each(results):
        recalls = result.recalls(ef)
        fresh = result.steps[-1].fresh
        shown = [result.steps[0].quality[ef].recall, sum(recalls) / len(recalls)]
        shown += [min(recalls), recalls[-1]]
        beside = ["-", "-"]
        if fresh is not None:
            beside = [f"{fresh[ef].recall:.4f}", f"{100 * (recalls[-1] - fresh[ef].recall):+.2f}"]
        rows.append([kind, name, *(f"{recall:.4f}" for recall in shown), *beside])
    return table(rows)


def rate_table(results: Results) -> str:
    """Rows per second of processor time."""
    head = ["rows/s of CPU time", "peer", "first turnover", "median", "last turnover"]
    rows = [[*head, "own insert", "update / insert"]]
    for kind, name, result in _each(results):
        rates = [result.updates[0].per_second, result.update_rate, result.updates[-1].per_second]
        rates.append(result.insert_rate)
        ratio = result.update_rate / result.insert_rate
        rows.append([kind, name, *(f"{rate:,.0f}" for rate in rates), f"{ratio:.2f}"])
    return table(rows)


def search_table(results: Results) -> str:
    """Queries per second at equal recall, after all turnovers and of the fresh build."""
    head = ["queries/s of CPU time", "peer"]
    for recall in RECALLS:
        head += [f"churned at {recall}", "fresh", "ratio"]
    rows = [head]
    for kind, name, result in _each(results):
        if result.curves:
            cells = [cell for recall in RECALLS for cell in _beside(result.curves, recall)]
            rows.append([kind, name, *cells])
    return table(rows)


def fault_table(results: Results) -> str:
    """What was wrong, in all steps and at all efs; and memory."""
    head = ["faults", "peer", "stale", "doubled", "gone", "check", "below degree floor"]
    rows = [[*head, "bytes/vector before", "after"]]
    for kind, name, result in _each(results):
        checks = [step.check for step in result.steps if step.check is not None]
        clean = "clean" if all(check["ok"] for check in checks) else "BROKEN"
        floor = str(checks[-1]["below_floor"]) if checks else "-"
        rows.append(
            [
                kind,
                name,
                *(f"{result.faults(fault)}" for fault in ("stale", "doubled", "gone")),
                clean if checks else "none",
                floor,
                _bytes(result.steps[0].bytes_per_vector),
                _bytes(result.steps[-1].bytes_per_vector),
            ]
        )
    return table(rows)


def _each(results: Results) -> Iterator[tuple[str, str, PeerChurn]]:
    for kind, peers in results.items():
        for name, result in peers.items():
            yield kind, name, result


def _beside(curves: dict[str, Curve], recall: float) -> list[str]:
    churned, fresh = curves["churned"].at(recall), curves["fresh"].at(recall)
    cells = []
    for point in (churned, fresh):
        bound = "> " if point.at_least else ""
        cells.append("not reached" if point.rate is None else f"{bound}{point.rate:,.0f}")
    if churned.rate is None or fresh.rate is None or churned.at_least or fresh.at_least:
        return [*cells, "-"]
    return [*cells, f"{churned.rate / fresh.rate:.3f}"]


def _bytes(count: float | None) -> str:
    return "-" if count is None else f"{count:,.0f}"
