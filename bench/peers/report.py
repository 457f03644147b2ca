"""Results as tables to read.

A rate is the median of its rounds; its spread is what lies between the quartiles, as a share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.measure import AtRecall, Quality, envelope
from bench.peers.run import EF_OF_UPDATES, RECALLS, Builds, PeerResult, Plan, Rates, at_recall

REFERENCE = "hnswlib"
OURS = "upvec"


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


def recall_table(builds: Builds, k: int) -> str:
    """Queries per second at equal recall, read off the curves; and what the index costs."""
    several = any(len(results) > 1 for results in builds.values())
    head = [f"queries/s at recall@{k}"]
    for recall in RECALLS:
        head += [f"{recall}", f"x {REFERENCE}", "x best other"]
        head += ["M, ef_c"] if several else []
    rows = [[*head, "one a call", "build s", "B/vector", "RSS", "peak RSS"]]
    for name, results in builds.items():
        if not any(result.search.get(k) for result in results):
            continue
        row = [name]
        for recall in RECALLS:
            mine = at_recall(results, k, recall)
            row += [
                _at_recall(mine),
                _ratio_at_recall(mine, at_recall(builds.get(REFERENCE, []), k, recall)),
                _ratio_at_recall(mine, _best_other(builds, k, recall)),
            ]
            row += [_settings(_best_build(results, k, recall))] if several else []
        rows.append([*row, _one_by_one(results, k), *_costs(_best_build(results, k, RECALLS[0]))])
    return table(rows)


def curve_table(builds: Builds, k: int) -> str:
    """Every point of every curve that no other build of the peer beats."""
    rows = [[f"recall@{k}", "M, ef_c", "ef", "recall", "queries/s", "spread"]]
    for name, results in builds.items():
        points = [(result, point) for result in results for point in result.search.get(k, [])]
        upper = envelope((point.recall, point.rates.median) for _, point in points)
        for result, point in sorted(points, key=lambda pair: pair[1].recall):
            if (point.recall, point.rates.median) in upper:
                rows.append(
                    [
                        name,
                        _settings(result),
                        str(point.ef),
                        f"{point.recall:.4f}",
                        _rate(point.rates.median),
                        _spread(point.rates),
                    ]
                )
    return table(rows)


def build_table(builds: Builds) -> str:
    """Insertion of the whole base by one call."""
    base = _reference(builds)
    rows = [["insert", "rows/s", "spread", f"x {REFERENCE}", "tuning s"]]
    for result in _only(builds):
        if result.costs:
            rate = result.build.median
            tuned = result.costs[0].tune_seconds
            rows.append(
                [
                    result.kind.name,
                    _rate(rate),
                    _spread(result.build),
                    _ratio(rate, base, "build"),
                    f"{tuned:.1f}" if tuned >= 0.05 else "-",
                ]
            )
    return table(rows)


def update_table(builds: Builds, plan: Plan) -> str:
    """Rates of change, against the reference and against the peer's own insertion."""
    base = _reference(builds)
    kind = "re-embedded" if plan.reembed else "far move"
    head = [f"update ({kind}, batches of {plan.update_batch:,})", "rows/s", "spread"]
    rows = [[*head, f"x {REFERENCE}", "x own insert", "remove rows/s"]]
    for result in _only(builds):
        churn = result.churn
        if churn is not None:
            rate = churn.rates.median
            rows.append(
                [
                    result.kind.name,
                    _rate(rate),
                    _spread(churn.rates),
                    _ratio(rate, base, "update"),
                    f"{rate / result.build.median:.2f}",
                    _rate(churn.removal_rate),
                ]
            )
        elif not result.kind.updates and not result.failed:
            rows.append([result.kind.name, "static", *["-"] * (len(rows[0]) - 2)])
    return table(rows)


def quality_table(builds: Builds) -> str:
    """Recall around the updates, and what was wrong with the answers after them."""
    head = [f"recall@10 at ef {EF_OF_UPDATES}", "before", "after updates", "fresh build"]
    rows = [[*head, "after removals", "stale", "doubled", "gone", "check"]]
    for result in _only(builds):
        churn = result.churn
        if churn is None:
            continue
        changed = [churn.after, churn.removed]
        rows.append(
            [
                result.kind.name,
                *(
                    f"{answers.recall:.4f}"
                    for answers in (churn.before, churn.after, churn.fresh, churn.removed)
                ),
                _total(changed, "stale") if result.kind.exact_distances else "-",
                *(_total(changed, fault) for fault in ("doubled", "gone")),
                {None: "none", "": "clean"}.get(churn.broken, "BROKEN"),
            ]
        )
    return table(rows)


def tables(builds: Builds, plan: Plan, *, grid: bool, curves: bool) -> str:
    """All tables of one set and number of threads."""
    found = [] if grid else [build_table(builds)]
    for k in plan.ks:
        found += [recall_table(builds, k)]
        found += [curve_table(builds, k)] if curves else []
    if plan.updates and not grid:
        found += [update_table(builds, plan), quality_table(builds)]
    return "\n\n".join([*found, *failures(builds)])


def failures(builds: Builds) -> list[str]:
    """A line for every build that did not come to its end."""
    return [
        f"{name} ({_settings(result)}) is left out: {result.failed}"
        for name, results in builds.items()
        for result in results
        if result.failed
    ]


def _only(builds: Builds) -> list[PeerResult]:
    return [results[0] for results in builds.values() if results]


def _best_build(results: Sequence[PeerResult], k: int, recall: float) -> PeerResult:
    """The build whose own curve is the fastest at this recall; of those that reach it."""

    def rate(result: PeerResult) -> float:
        return result.at_recall(k, recall).rate or 0.0

    return max(results, key=rate)


def _best_other(builds: Builds, k: int, recall: float) -> AtRecall:
    """The fastest of the others than upvec."""
    found = [at_recall(results, k, recall) for name, results in builds.items() if name != OURS]
    known: Callable[[AtRecall], float] = lambda point: point.rate or 0.0  # noqa: E731
    return max(found, key=known, default=AtRecall(None))


def _one_by_one(results: Sequence[PeerResult], k: int) -> str:
    result = _best_build(results, k, RECALLS[0])
    for point in result.search.get(k, []):
        if point.one_by_one.each:
            return f"{point.one_by_one.median / point.rates.median:.0%}"
    return "-"


def _costs(result: PeerResult) -> list[str]:
    if not result.costs:
        return ["-"] * 4
    cost = result.costs[0]
    tuned = f" + {cost.tune_seconds:.1f}" if cost.tune_seconds >= 0.05 else ""
    return [
        f"{cost.seconds:.1f}{tuned}",
        *(
            "-" if size is None else f"{size:,.0f}"
            for size in (cost.own_bytes, cost.resident_bytes, cost.peak_bytes)
        ),
    ]


def _settings(result: PeerResult) -> str:
    return f"{result.settings.M}, {result.settings.ef_construction}"


def _total(answers: Sequence[Quality], fault: str) -> str:
    return str(sum(getattr(one, fault) for one in answers))


def _reference(builds: Builds) -> dict[str, float]:
    result = next(iter(builds.get(REFERENCE, [])), None)
    if result is None or not result.costs:
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
