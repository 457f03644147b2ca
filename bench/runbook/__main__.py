"""Command line: python -m bench.runbook --help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.command import PEERS, about_run, find_peers, positive, print_about, say
from bench.data import DATA_ENV, Dataset, MissingDataError, load
from bench.peers.base import Settings
from bench.runbook import format as runbooks
from bench.runbook import generate
from bench.runbook.clusters import by_cluster
from bench.runbook.format import Runbook, RunbookError
from bench.runbook.replay import Replayed, replay
from bench.runbook.report import Results, tables

KINDS = ("sliding-window", "expiration", "random-replace", "clustered-replace")
# The sample's recall at ef 128 is above 0.99 at every step.
LEAST_RECALL = 0.97
_SMOKE_ROWS = 1000
_SMOKE_STEPS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate a runbook, or replay those of a file, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.generate:
            return _generate(options)
        return _replay(options)
    except (MissingDataError, RunbookError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.runbook",
        description="Replay runbooks of the streaming track of NeurIPS'23, or make such.",
    )
    parser.add_argument("file", type=Path, nargs="?", help="the runbooks to replay")
    parser.add_argument("--dataset", default="sample", help="the rows that ids mean")
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument("--book", help="of the file, if it has several; default: all")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["upvec"])
    parser.add_argument("--ef", type=positive, nargs="+", default=[64, 128])
    parser.add_argument("--threads", type=positive, default=1, help="of every call, and pinned")
    parser.add_argument("--M", type=positive, default=16, help="half the degree on level 0")
    parser.add_argument("--ef-construction", type=positive, default=200)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument("--generate", choices=KINDS, help="make a runbook instead")
    parser.add_argument("--max-pts", type=positive, help="rows of the runbook to make")
    parser.add_argument("--steps", type=positive, help="of the runbook to make")
    parser.add_argument("--seed", type=int, default=0, help="of the runbook to make")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a small book of every kind on the sample, for CI: figures mean nothing, faults do",
    )
    return parser


def make(kind: str, data: Dataset, max_pts: int, steps: int | None, seed: int) -> Runbook:
    """Make a runbook of a kind for the first rows of a data set."""
    if max_pts > len(data):
        raise RunbookError(f"got {max_pts:,} points, but {data.name} has {len(data):,} rows")
    given: dict[str, int] = {} if steps is None else {"steps": steps}
    if kind == "sliding-window":
        return generate.sliding_window(data.name, max_pts, **given)
    if kind == "expiration":
        return generate.expiration(data.name, max_pts, seed=seed, **given)
    if kind == "random-replace":
        return generate.random_replace(data.name, max_pts, seed=seed, **given)
    clusters = given.get("steps", generate.CLUSTERS)
    bounds = by_cluster(data.base[:max_pts], clusters)[1].tolist()
    return generate.clustered_replace(data.name, max_pts, bounds, seed=seed)


def _generate(options: argparse.Namespace) -> int:
    data = load(options.dataset, options.data)
    if options.out is None:
        raise RunbookError("--generate needs --out FILE")
    book = make(options.generate, data, options.max_pts or len(data), options.steps, options.seed)
    book.validate()
    runbooks.save(options.out, book)
    print(f"{options.out}: {len(book.steps)} steps for {book.max_pts:,} rows of {data.name}")
    return 0


def _books(options: argparse.Namespace, data: Dataset) -> dict[str, Runbook]:
    if options.smoke:
        return {kind: make(kind, data, _SMOKE_ROWS, _SMOKE_STEPS, options.seed) for kind in KINDS}
    if options.file is None:
        raise RunbookError("give a file of runbooks to replay, --generate or --smoke")
    books = runbooks.load(options.file)
    if options.book is None:
        return books
    if options.book not in books:
        raise RunbookError(f"{options.file} has no {options.book!r}; it has {', '.join(books)}")
    return {options.book: books[options.book]}


def _replay(options: argparse.Namespace) -> int:
    data = load("sample" if options.smoke else options.dataset, options.data)
    books = _books(options, data)
    settings = Settings(
        M=options.M, ef_construction=options.ef_construction, threads=options.threads
    )
    peers = find_peers(options.peers)
    about = about_run(peers, settings)
    print_about(about)
    report: dict[str, Any] = {"about": about, "set": data.name, "books": {}}
    results: Results = {}
    for name, book in books.items():
        results[name] = replay(book, data, peers, settings, options.ef, say)
        report["books"][name] = {peer: one.to_dict() for peer, one in results[name].items()}
        if options.json:  # after every book: a long run that is stopped leaves what it has
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{data.name}, {len(data.queries):,} queries, {data.metric}\n")
    print(tables(results, options.ef), flush=True)
    faults = [f"{name}: {fault}" for name in results for fault in _faults(results[name], options)]
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


def _faults(peers: dict[str, Replayed], options: argparse.Namespace) -> list[str]:
    """Whatever is wrong with upvec, not with its speed."""
    result = peers.get("upvec")
    if result is None:
        return []
    found = [f"{result.faults} stale, doubled or deleted answers"] if result.faults else []
    if result.check is not None and not result.check["ok"]:
        found.append(f"check: {result.check}")
    worst, step = result.worst(max(options.ef))
    if options.smoke and worst < LEAST_RECALL:
        found.append(f"recall {worst:.4f} at step {step}; want {LEAST_RECALL} and more")
    return found


if __name__ == "__main__":
    sys.exit(main())
