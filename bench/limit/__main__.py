"""Command line: python -m bench.limit --help."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.command import about_run, find_peers, positive, print_about, say
from bench.data import DATA_ENV, SETS, MissingDataError, load
from bench.limit.build import BuildError, build
from bench.limit.report import as_json, last_level_cache_bytes, tables
from bench.limit.run import CountFault, Plan, limit_of
from bench.peers.base import Settings
from upvec.index import Index

SMOKE = Plan(recalls=(0.95,), rounds=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    if "counters" in Index(1).stats():
        print("the installed upvec counts, which takes time; install one that does not")
        return 2
    about = about_run(find_peers(("upvec",)), Settings(threads=1))
    print_about(about)
    plan = SMOKE if options.smoke else Plan(tuple(options.recalls), options.rounds)
    report: dict[str, Any] = {"about": about, "sets": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            say("building with UPVEC_COUNTERS")
            built = build(options.build or Path(folder), options.jobs)
            for name in ["sample"] if options.smoke else options.sets:
                data = load(name, options.data)
                limit = limit_of(data, plan, built, say)
                say("")
                print(f"\n{name}: {len(data):,} rows, dim {data.dim}, {data.metric}\n")
                print(tables(limit, last_level_cache_bytes()), flush=True)
                report["sets"][name] = as_json(limit)
        except (BuildError, MissingDataError) as error:
            print(error, file=sys.stderr)
            return 2
        except CountFault as fault:
            print(f"FAULT {fault}")
            return 1
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.limit", description="How near search is to what memory allows."
    )
    parser.add_argument("--data", metavar="DIR", help=f"folders of larger sets (or {DATA_ENV})")
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["wordnet-100k", "sift-200k", "wordnet-20k-768"],
        metavar="SET",
        help=", ".join(SETS),
    )
    parser.add_argument("--recalls", type=float, nargs="+", default=[0.95, 0.99])
    parser.add_argument("--rounds", type=positive, default=7, help="of which the best counts")
    parser.add_argument(
        "--build", type=Path, metavar="DIR", help="keep the counting build there, and use it again"
    )
    parser.add_argument("--jobs", type=positive, default=os.cpu_count(), help="of the build")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument(
        "--smoke", action="store_true", help="the sample alone, to see that it runs"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
