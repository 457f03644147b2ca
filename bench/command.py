"""What the commands of this folder have in common."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.base import Peer, Settings

PEERS = {
    "upvec": "bench.peers.upvec_index:UpvecIndex",
    "hnswlib": "bench.peers.hnswlib_index:HnswlibIndex",
    "usearch": "bench.peers.usearch_index:UsearchIndex",
    "svs": "bench.peers.svs_index:SvsIndex",
}


def positive(text: str) -> int:
    """Read an option that is a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}; want 1 or more")
    return value


def find_peers(names: Sequence[str]) -> list[type[Peer]]:
    """The peers of these names, without those that are not installed."""
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


def about_run(peers: Sequence[type[Peer]], settings: Settings) -> dict[str, Any]:
    """Where and with what a run is made."""
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


def print_about(about: dict[str, Any]) -> None:
    """Say it, and warn if the machine has other work."""
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


def say(doing: str) -> None:
    """Show what is being done, to who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{doing}", end="", file=sys.stderr, flush=True)
