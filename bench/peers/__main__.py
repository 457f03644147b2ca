"""Command line of the comparison: python -m bench.peers --help."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import DATA_ENV, SETS, MissingDataError, load
from bench.peers.base import Peer, Settings
from bench.peers.report import tables
from bench.peers.run import PeerResult, Plan, measure

PEERS = {
    "upvec": "bench.peers.upvec_index:UpvecIndex",
    "hnswlib": "bench.peers.hnswlib_index:HnswlibIndex",
    "usearch": "bench.peers.usearch_index:UsearchIndex",
}
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
    peers = _peers(options.peers)
    about = _about(peers, settings)
    _print_about(about)
    report: dict[str, Any] = {"about": about, "sets": {}}
    faults: list[str] = []
    for name in ["sample"] if options.smoke else options.sets:
        try:
            data = load(name, options.data)
            results = measure(data, peers, settings, plan, _say)
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
        prog="python -m bench.peers", description="upvec.Index beside hnswlib and usearch."
    )
    parser.add_argument("--data", metavar="DIR", help=f"folder of larger sets (or {DATA_ENV})")
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["sample"],
        metavar="SET",
        help=f"{', '.join(SETS)}, or the name of an ann-benchmarks file in DIR",
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=_positive, default=5, help="of every search")
    parser.add_argument("--build-rounds", type=_positive, default=1)
    parser.add_argument("--threads", type=_positive, default=1, help="of every call, and pinned")
    parser.add_argument("--M", type=_positive, default=16, help="half the degree on level 0")
    parser.add_argument("--ef-construction", type=_positive, default=200)
    parser.add_argument("--update-rows", type=_positive, help="keys to move (default: all)")
    parser.add_argument("--update-batch", type=_positive, default=1000)
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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}; want 1 or more")
    return value


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds,
        build_rounds=options.build_rounds,
        update_rows=options.update_rows,
        update_batch=options.update_batch,
        reembed=options.reembed,
    )


def _peers(names: Sequence[str]) -> list[type[Peer]]:
    found: list[type[Peer]] = []
    for name in names:
        module, kind = PEERS[name].split(":")
        try:
            found.append(getattr(importlib.import_module(module), kind))
        except ModuleNotFoundError as error:
            # A missing peer is worth a word; a missing upvec leaves nothing to measure.
            if name == "upvec":
                raise
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


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


def _about(peers: Sequence[type[Peer]], settings: Settings) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": _commit(),
        "versions": {peer.name: peer.version() for peer in peers},
        "M": settings.M,
        "ef_construction": settings.ef_construction,
        "threads": settings.threads,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _print_about(about: dict[str, Any]) -> None:
    print(
        f"{about['processor']}, {about['processors']} processors, Python {about['python']}, "
        f"commit {about['commit']}, {about['date']}"
    )
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print(
        f"M {about['M']} (degree {2 * about['M']} on level 0), "
        f"ef_construction {about['ef_construction']}, threads {about['threads']}"
    )
    if about["load"] > 0.5:
        print(f"The machine is busy (load {about['load']}): figures will be off.", file=sys.stderr)


def _say(doing: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{doing}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
