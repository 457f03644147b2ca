"""Results as tables to read.

A rate is the median of its rounds; its spread is what lies between the quartiles, as a share of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure import AtRecall, Quality
from bench.peers.run import EF_OF_UPDATES, RECALLS, PeerResult, Plan, Rates

REFERENCE = "hnswlib"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    head, *body = rows
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, body)])


def build_table(results: dict[str, PeerResult]) -> str:
    """Insertion of the whole base by one call."""
    base = _reference(results)
    rows = [["insert", "rows/s", "spread", f"x {REFERENCE}"]]
    for name, result in results.items():
        rate = result.build.median
        rows.append([name, _rate(rate), _spread(result.build), _ratio(rate, base, "build")])
    return table(rows)


def search_table(results: dict[str, PeerResult]) -> str:
    """Recall and rate at every ef."""
    head = ["ef"]
    for name in results:
        head += [f"{name}: recall", "queries/s", "spread"]
    rows = [head]
    for points in zip(*(result.search for result in results.values()), strict=True):
        row = [str(points[0].ef)]
        for point in points:
            row += [
                f"{point.recall:.4f}",
                _rate(point.rates.median),
                _spread(point.rates),
            ]
        rows.append(row)
    return table(rows)


def recall_table(results: dict[str, PeerResult]) -> str:
    """Queries per second at equal recall, read off the curves."""
    head = ["queries/s at recall"]
    for recall in RECALLS:
        head += [f"{recall}", f"x {REFERENCE}"]
    rows = [head]
    reference = results.get(REFERENCE)
    for name, result in results.items():
        row = [name]
        for recall in RECALLS:
            mine = result.at_recall(recall)
            theirs = reference.at_recall(recall) if reference else AtRecall(None)
            row += [_at_recall(mine), _ratio_at_recall(mine, theirs)]
        rows.append(row)
    return table(rows)


def update_table(results: dict[str, PeerResult], plan: Plan) -> str:
    """Rates of change, against the reference and against the peer's own insertion."""
    base = _reference(results)
    kind = "re-embedded" if plan.reembed else "far move"
    head = [f"update ({kind}, batches of {plan.update_batch:,})", "rows/s", "spread"]
    rows = [[*head, f"x {REFERENCE}", "x own insert", "remove rows/s"]]
    for name, result in results.items():
        churn = result.churn
        if churn is None:
            continue
        rate = churn.rates.median
        rows.append(
            [
                name,
                _rate(rate),
                _spread(churn.rates),
                _ratio(rate, base, "update"),
                f"{rate / result.build.median:.2f}",
                _rate(churn.removal_rate),
            ]
        )
    return table(rows)


def quality_table(results: dict[str, PeerResult]) -> str:
    """Recall around the updates, and what was wrong with the answers after them."""
    head = [f"recall@10 at ef {EF_OF_UPDATES}", "before", "after updates", "fresh build"]
    rows = [[*head, "after removals", "stale", "doubled", "gone", "check"]]
    for name, result in results.items():
        churn = result.churn
        if churn is None:
            continue
        changed = [churn.after, churn.removed]
        rows.append(
            [
                name,
                *(
                    f"{answers.recall:.4f}"
                    for answers in (churn.before, churn.after, churn.fresh, churn.removed)
                ),
                *(_total(changed, fault) for fault in ("stale", "doubled", "gone")),
                {None: "none", "": "clean"}.get(churn.broken, "BROKEN"),
            ]
        )
    return table(rows)


def tables(results: dict[str, PeerResult], plan: Plan) -> str:
    """All tables of one set."""
    return "\n\n".join(
        [
            build_table(results),
            search_table(results),
            recall_table(results),
            update_table(results, plan),
            quality_table(results),
        ]
    )


def _total(answers: Sequence[Quality], fault: str) -> str:
    return str(sum(getattr(one, fault) for one in answers))


def _reference(results: dict[str, PeerResult]) -> dict[str, float]:
    result = results.get(REFERENCE)
    if result is None:
        return {}
    rates = {"build": result.build.median}
    if result.churn is not None:
        rates["update"] = result.churn.rates.median
    return rates


def _rate(rate: float) -> str:
    return f"{rate:,.0f}"


def _spread(rates: Rates) -> str:
    low, high = rates.quartiles
    return f"{(high - low) / rates.median:.1%}"


def _ratio(rate: float, reference: dict[str, float], what: str) -> str:
    return f"{rate / reference[what]:.2f}" if what in reference else "-"


def _at_recall(point: AtRecall) -> str:
    if point.rate is None:
        return "not reached"
    return f"{'> ' if point.at_least else ''}{_rate(point.rate)}"


def _ratio_at_recall(mine: AtRecall, theirs: AtRecall) -> str:
    # A rate that is only a bound gives no ratio.
    if mine.rate is None or theirs.rate is None or mine.at_least or theirs.at_least:
        return "-"
    return f"{mine.rate / theirs.rate:.2f}"
