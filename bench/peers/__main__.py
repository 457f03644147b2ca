"""Command line of the comparison: python -m bench.peers --help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.command import PEERS, about_run, find_peers, positive, print_about, say
from bench.data import DATA_ENV, SETS, MissingDataError, load
from bench.peers.base import Settings
from bench.peers.report import tables
from bench.peers.run import PeerResult, Plan, measure

# Less would be a broken graph, on any of the sets.
FLOOR_EF = 128
RECALL_FLOOR = 0.9
# Enough of everything to run every line, in a few seconds.
SMOKE = Plan(rounds=2, efs=(16, 64, FLOOR_EF), update_batch=500)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    settings = Settings(
        M=options.M, ef_construction=options.ef_construction, threads=options.threads
    )
    plan = SMOKE if options.smoke else _plan(options)
    peers = find_peers(options.peers)
    about = about_run(peers, settings)
    print_about(about)
    report: dict[str, Any] = {"about": about, "sets": {}}
    faults: list[str] = []
    for name in ["sample"] if options.smoke else options.sets:
        try:
            data = load(name, options.data)
            results = measure(data, peers, settings, plan, say)
        except MissingDataError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        rows, queries = len(data), len(data.queries)
        print(f"\n{name}: {rows:,} rows, {queries:,} queries, dim {data.dim}, {data.metric}\n")
        print(tables(results, plan), flush=True)
        faults += [f"{name}: {fault}" for fault in _faults(results)]
        report["sets"][name] = {
            "rows": rows,
            "queries": queries,
            "dim": data.dim,
            "metric": data.metric,
            "peers": {peer: result.to_dict() for peer, result in results.items()},
        }
        if options.json:  # after every set: a long run that is stopped leaves what it has
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


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
        help=f"{', '.join(SETS)}, or the name of an ann-benchmarks file in DIR",
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=positive, default=5, help="of every search")
    parser.add_argument("--build-rounds", type=positive, default=1)
    parser.add_argument("--threads", type=positive, default=1, help="of every call, and pinned")
    parser.add_argument("--M", type=positive, default=16, help="half the degree on level 0")
    parser.add_argument("--ef-construction", type=positive, default=200)
    parser.add_argument("--update-rows", type=positive, help="keys to move (default: all)")
    parser.add_argument("--update-batch", type=positive, default=1000)
    parser.add_argument(
        "--reembed", action="store_true", help="update to the second embedding, not to far places"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a few seconds on the sample, for CI: figures mean nothing, faults do",
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds,
        build_rounds=options.build_rounds,
        update_rows=options.update_rows,
        update_batch=options.update_batch,
        reembed=options.reembed,
    )


def _faults(results: dict[str, PeerResult]) -> list[str]:
    """Whatever is wrong with upvec, not with its speed."""
    result = results.get("upvec")
    if result is None or result.churn is None:
        return []
    churn = result.churn
    found = [
        f"recall {point.recall:.4f} at ef {point.ef}; want {RECALL_FLOOR}"
        for point in result.search
        if point.ef == FLOOR_EF and point.recall < RECALL_FLOOR
    ]
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
