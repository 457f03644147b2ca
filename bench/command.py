"""What the commands of this folder have in common."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.base import Peer, Settings
from bench.peers.worker import Kind, PeerError, describe, find


@dataclass(frozen=True)
class Known:
    """A peer that may be asked for by name.

    Attributes
    ----------
    where : str
        "module:class".
    module : str
        What that imports of the library.
    package : str
        What pip installs it by.
    """

    where: str
    module: str
    package: str


def _known(file: str, kind: str, module: str, package: str) -> Known:
    return Known(f"bench.peers.{file}_index:{kind}", module, package)


PEERS = {
    "upvec": _known("upvec", "UpvecIndex", "upvec", "upvec"),
    "hnswlib": _known("hnswlib", "HnswlibIndex", "hnswlib", "hnswlib"),
    "usearch": _known("usearch", "UsearchIndex", "usearch", "usearch"),
    "usearch-bf16": _known("usearch", "UsearchBf16Index", "usearch", "usearch"),
    "usearch-i8": _known("usearch", "UsearchI8Index", "usearch", "usearch"),
    "svs": _known("svs", "SvsIndex", "svs", "scalable-vs"),
    "voyager": _known("voyager", "VoyagerIndex", "voyager", "voyager"),
    "faiss": _known("faiss", "FaissFlatIndex", "faiss", "faiss-cpu"),
    "faiss-sq8": _known("faiss", "FaissSq8Index", "faiss", "faiss-cpu"),
    "glass": _known("glass", "GlassIndex", "glass", "pyglass-portable"),
    "glass-sq8u": _known("glass", "GlassSq8Index", "glass", "pyglass-portable"),
    "glass-sq4u": _known("glass", "GlassSq4Index", "glass", "pyglass-portable"),
    "vsag": _known("vsag", "VsagIndex", "pyvsag", "pyvsag"),
    "vsag-sq8": _known("vsag", "VsagSq8Index", "pyvsag", "pyvsag"),
    "vsag-rabitq": _known("vsag", "VsagRabitqIndex", "pyvsag", "pyvsag"),
    "ngt": _known("ngt", "NgtIndex", "ngtpy", "ngt"),
}
# Of those that can update, one of each kind: what the benchmarks of updates take unless told.
UPDATE_PEERS = ("upvec", "hnswlib", "usearch", "svs")


def positive(text: str) -> int:
    """Read an option that is a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}; want 1 or more")
    return value


def find_peers(names: Sequence[str]) -> list[type[Peer]]:
    """The peers of these names that can update, loaded here; for others a word why not."""
    found: list[type[Peer]] = []
    for name in installed(names):
        peer = find(PEERS[name].where)
        if peer.updates:
            found.append(peer)
        else:
            print(f"{name} is left out: it is static", file=sys.stderr)
    return found


def describe_peers(names: Sequence[str]) -> list[Kind]:
    """The peers of these names, each loaded by a process of its own; for others a word why not."""
    found = [_describe(name) for name in installed(names)]
    return [kind for kind in found if kind is not None]


def _describe(name: str) -> Kind | None:
    try:
        return describe(PEERS[name].where)
    except PeerError as error:
        # A peer that fails is worth a word; without upvec there is nothing to measure.
        if name == "upvec":
            raise
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def installed(names: Sequence[str]) -> list[str]:
    """Those of these names whose package is there; for others a word which is missing."""
    found = []
    for name in names:
        known = PEERS[name]
        if importlib.util.find_spec(known.module) is not None:
            found.append(name)
        elif name == "upvec":
            raise ModuleNotFoundError("upvec is not installed")
        else:
            print(f"{name} is left out: pip install {known.package}", file=sys.stderr)
    return found


def about_run(peers: Sequence[type[Peer] | Kind], settings: Settings) -> dict[str, Any]:
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
