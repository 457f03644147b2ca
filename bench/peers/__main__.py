"""Command line of the comparison: python -m bench.peers --help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.command import (
    PEERS,
    UPDATE_PEERS,
    about_run,
    describe_peers,
    positive,
    print_about,
    say,
)
from bench.data import DATA_ENV, SETS, Dataset, MissingDataError, load
from bench.peers.base import Settings
from bench.peers.plot import MissingPlotError, Panel, need_matplotlib, plot
from bench.peers.report import OURS, tables
from bench.peers.run import Builds, K, PeerResult, Plan, measure, measure_grid
from bench.peers.worker import Kind

# Less would be a broken graph, on any of the sets.
FLOOR_EF = 128
RECALL_FLOOR = 0.9
# Enough of everything to run every line, in a few seconds.
SMOKE = Plan(rounds=2, efs=(16, 64, FLOOR_EF), update_batch=500)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    plan = replace(SMOKE, ks=tuple(options.k)) if options.smoke else _plan(options)
    try:
        if options.plot:
            need_matplotlib()
        return _run(options, plan)
    except (MissingDataError, MissingPlotError) as error:
        print(f"{error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, plan: Plan) -> int:
    kinds = describe_peers(options.peers or (UPDATE_PEERS if options.smoke else tuple(PEERS)))
    about = about_run(kinds, _settings(options, options.threads[0]))
    about |= {"threads": options.threads, "grid": options.grid}
    print_about(about)
    report: dict[str, Any] = {"about": about, "sets": {}}
    panels: list[Panel] = []
    faults: list[str] = []
    for name in ["sample"] if options.smoke else options.sets:
        data = load(name, options.data)
        rows, queries = len(data), len(data.queries)
        kept = {"rows": rows, "queries": queries, "dim": data.dim, "metric": data.metric}
        report["sets"][name] = kept | {"threads": {}}
        for threads in options.threads:
            # Updates once: they take the most time, and threads say little about them.
            once = replace(plan, updates=plan.updates and threads == options.threads[0])
            builds = _measure(data, kinds, options, once, threads)
            title = f"{name}: {rows:,} rows, {queries:,} queries, dim {data.dim}, {data.metric}"
            print(f"\n{title}, threads {threads}\n")
            print(tables(builds, once, grid=options.grid, curves=options.curves), flush=True)
            faults += [f"{name}: {fault}" for fault in _faults(builds.get(OURS, []))]
            report["sets"][name]["threads"][str(threads)] = {
                peer: [result.to_dict() for result in results] for peer, results in builds.items()
            }
            panels += [
                Panel(f"{name}, {rows:,} rows, threads {threads}", k, builds) for k in plan.ks
            ]
            # After every set: a long run that is stopped leaves what it has.
            if options.json:
                options.json.write_text(json.dumps(report, indent=1) + "\n")
            if options.plot:
                plot(panels, len(plan.ks) * len(options.threads), options.plot)
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


def _measure(
    data: Dataset, kinds: Sequence[Kind], options: argparse.Namespace, plan: Plan, threads: int
) -> Builds:
    if options.grid:
        return measure_grid(data, kinds, threads, plan, say)
    return measure(data, kinds, _settings(options, threads), plan, say)


def _settings(options: argparse.Namespace, threads: int) -> Settings:
    return Settings(M=options.M, ef_construction=options.ef_construction, threads=threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description="upvec.Index beside other libraries."
    )
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["sample"],
        metavar="SET",
        help=f"{', '.join(SETS)}, sift- and a number of rows (sift-10k), or the name of an "
        "ann-benchmarks file in DIR",
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="default: all")
    parser.add_argument(
        "--k",
        nargs="+",
        type=positive,
        default=[K],
        help="answers to a query (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=positive,
        default=[1],
        help="of every call, and pinned; of several, each is a run of its own",
    )
    parser.add_argument("--rounds", type=positive, default=5, help="of every search")
    parser.add_argument("--build-rounds", type=positive, default=1)
    parser.add_argument("--M", type=positive, default=16, help="half the degree on level 0")
    parser.add_argument("--ef-construction", type=positive, default=200)
    parser.add_argument(
        "--grid",
        action="store_true",
        help="each peer by the best of several builds, instead of all by --M and --ef-construction;"
        " without updates",
    )
    parser.add_argument("--no-updates", action="store_true", help="searches alone")
    parser.add_argument("--update-rows", type=positive, help="keys to move (default: all)")
    parser.add_argument("--update-batch", type=positive, default=1000)
    parser.add_argument(
        "--reembed", action="store_true", help="update to the second embedding, not to far places"
    )
    parser.add_argument("--curves", action="store_true", help="print every point of the curves")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw queries/s against recall")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help=f"a few seconds on the sample, for CI: figures mean nothing, faults do; "
        f"unless told, with {', '.join(UPDATE_PEERS)}",
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds,
        build_rounds=options.build_rounds,
        ks=tuple(dict.fromkeys(options.k)),
        updates=not options.no_updates,
        update_rows=options.update_rows,
        update_batch=options.update_batch,
        reembed=options.reembed,
    )


def _faults(results: Sequence[PeerResult]) -> list[str]:
    """Whatever is wrong with upvec, not with its speed."""
    return [fault for result in results for fault in _faults_of(result)]


def _faults_of(result: PeerResult) -> list[str]:
    found = [result.failed] if result.failed else []
    # Fewer links than the shared setting's are only tried out.
    if result.settings.M >= Settings.M:
        # A curve may end before the floor's ef, where it had enough.
        last = [point for point in result.search.get(K, []) if point.ef <= FLOOR_EF][-1:]
        found += [
            f"recall {point.recall:.4f} at ef {point.ef}; want {RECALL_FLOOR}"
            for point in last
            if point.recall < RECALL_FLOOR
        ]
    churn = result.churn
    if churn is None:
        return found
    if churn.broken:
        found.append(f"check: {churn.broken}")
    found += [
        f"{when}: {answers.stale} stale, {answers.doubled} doubled, {answers.gone} gone answers"
        for when, answers in (("updated", churn.after), ("removed", churn.removed))
        if answers.faults
    ]
    return found


if __name__ == "__main__":
    sys.exit(main())
