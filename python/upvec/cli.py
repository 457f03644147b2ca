"""The command line: ``upvec``, or ``python -m upvec``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import upvec

from .errors import UpvecError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.cmakedir:
        return _cmakedir(parser)
    if options.command is None:
        parser.print_help()
        return 2
    try:
        return _demo(options)
    except (UpvecError, OSError) as error:
        print(f"upvec: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="upvec", description="Embedded vector store whose first-class operation is upsert."
    )
    parser.add_argument("--version", action="version", version=f"upvec {upvec.__version__}")
    parser.add_argument(
        "--cmakedir",
        action="store_true",
        help="print the folder to pass to CMake as upvec_DIR, and exit",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="user profiles from two sources, upserted, searched, and killed half-way",
        description="Upsert user profiles from two sources, search them, kill the writer.",
    )
    demo.add_argument("--kills", type=int, default=3, help="how often to kill the writer (3)")
    demo.add_argument("--folder", type=Path, help="keep the collection below this folder")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo import run  # noqa: PLC0415  (only who asks for the demo waits for it)

    if options.kills < 0:
        print(f"upvec: --kills {options.kills}; want 0 or more", file=sys.stderr)
        return 2
    run(options.kills, options.folder)
    return 0


def _cmakedir(parser: argparse.ArgumentParser) -> int:
    folder = Path(__file__).parent / "lib" / "cmake" / "upvec"
    if not folder.is_dir():
        parser.error(f"{folder} does not exist: this upvec runs from a checkout, not installed")
    print(folder)
    return 0
