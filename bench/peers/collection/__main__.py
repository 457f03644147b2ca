"""Stores of records side by side: python -m bench.peers.collection --help.

Each store runs in processes of its own, one after the other, on disk and in its durable setting,
over the same steps: load, update a fifth with new vectors and metadata, metadata of another fifth,
single rows (each looked for by the next search), searches under conditions, delete a tenth; then
another process opens it, and checks counts and contents.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.peers.report import table

from .base import STORES
from .worker import SHARES, Task

_IMPORTED = {
    "qdrant-edge": "qdrant_edge",
    "chroma": "chromadb",
    "milvus-lite": "pymilvus",
    "sqlite-vec": "sqlite_vec",
}


def _run(task: Task, mode: str, seconds: float) -> dict[str, Any]:
    note = Path(task.folder) / f"{mode}.json"
    note.write_text(json.dumps({"mode": mode, **asdict(task)}))
    command = [sys.executable, "-m", "bench.peers.collection.worker", str(note)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {seconds:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def measure(task: Task, root: Path, seconds: float) -> dict[str, Any]:
    """Return all figures of one store."""
    folder = root / task.store
    folder.mkdir()
    here = Task(**{**asdict(task), "folder": str(folder)})
    figures = _run(here, "build", seconds)
    if "error" not in figures:
        kept = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        figures["disk MiB"] = kept / 2**20
        figures["reopened"] = _run(here, "reopen", seconds)
    shutil.rmtree(folder)
    folder.mkdir()
    figures["behaves"] = _run(here, "behave", seconds)
    shutil.rmtree(folder)
    folder.mkdir()
    told = _run(here, "die", seconds)
    after = _run(here, "rise", seconds)
    if "after kill" in after and "acknowledged" in told:
        figures["after kill"] = f"{after['after kill']:,} of {told['acknowledged']:,}"
    else:
        figures["after kill"] = after.get("error") or told.get("error")
    shutil.rmtree(folder)
    return figures


def _cell(figures: dict[str, Any], name: str, part: str | None = None, form: str = ",.0f") -> str:
    value = figures.get(name)
    if isinstance(value, dict):
        if "error" in value or part is None:
            return "-"
        value = value.get(part)
    return "-" if value is None else format(value, form)


def report(stores: dict[str, dict[str, Any]]) -> str:
    """Return the tables."""
    speed = [["store", "load", "update", "metadata", "p50 ms", "p99 ms", "found at once", "delete"]]
    searched = [
        ["store"] + ["unfiltered" if s is None else f"{100 * s:g} %" for s in SHARES],
    ]
    kept = [["store", "version", "reopen s", "right", "disk MiB", "RSS MiB", "after kill -9"]]
    odd = [["store", "a key twice in a batch", "a wrong dimension", "NaN in a vector"]]
    for name, figures in stores.items():
        if "error" in figures:
            speed.append([name, figures["error"], *[""] * 6])
            continue
        speed.append(
            [name]
            + [_cell(figures, f"{step} rows/s") for step in ("load", "update", "metadata")]
            + [_cell(figures, "single", part, ".2f") for part in ("p50 ms", "p99 ms")]
            + [_cell(figures, "single", "found at once", ".3f"), _cell(figures, "delete rows/s")]
        )
        cells = []
        for share in SHARES:
            step = f"search {share}"
            rate, recall = _cell(figures, step, "q/s"), _cell(figures, step, "recall", ".3f")
            cells.append(f"{rate} at {recall}")
        searched.append([name, *cells])
        again = figures["reopened"]
        right = again.get("error") or "; ".join(again.get("wrong", [])) or "yes"
        kept.append(
            [
                name,
                str(figures["version"]),
                _cell(again, "reopen s", None, ".2f"),
                right,
                _cell(figures, "disk MiB"),
                _cell(figures, "rss MiB"),
                str(figures["after kill"]),
            ]
        )
        behaves = figures["behaves"]
        odd.append([name] + [str(behaves.get(what, behaves.get("error"))) for what in odd[0][1:]])
    return "\n\n".join(table(rows) for rows in (speed, searched, kept, odd))


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", default=list(STORES), choices=list(STORES))
    parser.add_argument("--set", default="sift-50k")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument("--folder", help="on which disk")
    parser.add_argument("--seconds", type=float, default=600.0, help="for one store")
    parser.add_argument("--quick", action="store_true", help="the sample, in seconds")
    parser.add_argument("--json")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.set, chosen.rows, chosen.queries, chosen.singles = "sample", 1500, 20, 10
    stores = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for name in chosen.peers:
            if importlib.util.find_spec(_IMPORTED.get(name, name)) is None:
                print(f"{name} is left out: pip install {STORES[name][2]}")
                continue
            task = Task(
                name, folder, chosen.data, chosen.set, chosen.rows, chosen.queries, chosen.singles
            )
            stores[name] = measure(task, Path(folder), chosen.seconds)
            errors = [
                f"{k}: {v['error']}"
                for k, v in stores[name].items()
                if isinstance(v, dict) and "error" in v
            ]
            print(f"{name} is done", *errors, sep="\n  ", flush=True)
    print(report(stores))
    for name, figures in stores.items():
        print(f"{name}: {figures.get('settings', '')}")
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(stores, indent=1))
    if stores.get("upvec", {}).get("reopened", {}).get("wrong"):
        sys.exit("upvec lost something")


if __name__ == "__main__":
    main()
