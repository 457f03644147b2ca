"""Command line of the churn benchmark: python -m bench.churn --help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.churn.moves import KINDS
from bench.churn.plot import plot
from bench.churn.report import Results, tables
from bench.churn.run import EFS, PeerChurn, Plan, churn
from bench.command import PEERS, UPDATE_PEERS, about_run, find_peers, positive, print_about, say
from bench.data import DATA_ENV, SETS, Dataset, MissingDataError, load
from bench.peers.base import Settings

# More behind a fresh build than any noise of the sample.
MOST_POINTS_BEHIND = 2.0
# Every way through the code, in a few seconds: so without the peers, which take minutes.
SMOKE_PEERS = ("upvec",)
SMOKE = Plan(
    kinds=("unrelated", "cluster", "drift-10", "identical", "reinsert", "shift", "burst"),
    turnovers=2,
    batch=200,
    rounds=1,
)
SMOKE_ROWS = 600
_ROWS_SEED = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    settings = Settings(
        M=options.M, ef_construction=options.ef_construction, threads=options.threads
    )
    plan = SMOKE if options.smoke else _plan(options)
    peers = find_peers(options.peers or (SMOKE_PEERS if options.smoke else UPDATE_PEERS))
    about = about_run(peers, settings)
    print_about(about)
    report: dict[str, Any] = {"about": about, "sets": {}}
    faults: list[str] = []
    for name in ["sample"] if options.smoke else options.sets:
        try:
            rows = SMOKE_ROWS if options.smoke else options.rows
            data = _first_rows(load(name, options.data), rows)
        except MissingDataError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        print(f"\n{name}: {len(data):,} rows, {len(data.queries):,} queries, {data.metric}", end="")
        print(f", batches of {plan.batch:,}\n", flush=True)
        results: Results = {}
        for kind in plan.kinds:
            try:
                results[kind] = churn(data, kind, peers, settings, plan, say)
            except MissingDataError as error:
                print(f"{kind} is left out: {error}", file=sys.stderr)
                continue
            faults += [f"{name}, {kind}: {fault}" for fault in _faults(results[kind].get("upvec"))]
            report["sets"][name] = _to_dict(data, results)
            if options.json:  # after every kind: a long run that is stopped leaves what it has
                options.json.write_text(json.dumps(report, indent=1) + "\n")
        print(tables(results, plan), flush=True)
        if options.plot:
            title = f"{name}, {len(data):,} rows"
            plot(results, plan, title, _picture(options.plot, name, len(options.sets)))
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.churn",
        description="Turnovers of all keys: what is left of recall, and at which rate.",
    )
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument(
        "--sets", nargs="+", default=["sample"], metavar="SET", help=f"{', '.join(SETS)}, …"
    )
    parser.add_argument("--rows", type=positive, help="of each set, drawn at random (default: all)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        help=f"that can update (default: {', '.join(UPDATE_PEERS)})",
    )
    parser.add_argument("--turnovers", type=positive, default=10)
    parser.add_argument("--batch", type=positive, default=1000, help="keys of one call")
    parser.add_argument("--efs", type=positive, nargs="+", default=list(EFS))
    parser.add_argument(
        "--fresh",
        nargs="+",
        default=["1"],
        metavar="N",
        help="turnovers after which a fresh index is built, or 'all'; the last always is",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of searches; 0: no queries/s")
    parser.add_argument("--threads", type=positive, default=1, help="of every call, and pinned")
    parser.add_argument("--M", type=positive, default=16, help="half the degree on level 0")
    parser.add_argument("--ef-construction", type=positive, default=200)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw recall over the turnovers")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a few seconds on the sample, for CI: figures mean nothing, faults do",
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    every = options.fresh == ["all"]
    return Plan(
        kinds=options.kinds,
        turnovers=options.turnovers,
        batch=options.batch,
        efs=tuple(options.efs),
        fresh=None if every else frozenset(int(turnover) for turnover in options.fresh),
        rounds=options.rounds,
    )


def _first_rows(data: Dataset, rows: int | None) -> Dataset:
    if rows is None or rows >= len(data):
        return data
    # At random, because some sets are sorted.
    drawn = np.sort(np.random.default_rng(_ROWS_SEED).permutation(len(data))[:rows])
    again = data.reembedded
    return replace(data, base=data.base[drawn], reembedded=None if again is None else again[drawn])


def _picture(path: Path, name: str, sets: int) -> Path:
    return path if sets == 1 else path.with_name(f"{path.stem}-{name}{path.suffix}")


def _to_dict(data: Dataset, results: Results) -> dict[str, Any]:
    return {
        "rows": len(data),
        "queries": len(data.queries),
        "dim": data.dim,
        "metric": data.metric,
        "kinds": {
            kind: {peer: result.to_dict() for peer, result in peers.items()}
            for kind, peers in results.items()
        },
    }


def _faults(result: PeerChurn | None) -> list[str]:
    """Whatever is wrong with upvec, not with its speed."""
    if result is None:
        return []
    found = []
    for step in result.steps:
        when = f"turnover {step.turnover}, {step.what}"
        if step.check is not None and not step.check["ok"]:
            found.append(f"{when}: check: {step.check}")
        if step.points_behind is not None and step.points_behind > MOST_POINTS_BEHIND:
            found.append(f"{when}: recall {step.points_behind:.2f} points behind a fresh build")
    counts = {fault: result.faults(fault) for fault in ("stale", "doubled", "gone")}
    found += [f"{count} {fault} answers" for fault, count in counts.items() if count]
    return found


if __name__ == "__main__":
    sys.exit(main())
