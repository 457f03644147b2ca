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
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from .base import STORES
from .report import faults_of, report
from .worker import Task

# A step looks at the clock between its calls: so much longer one call may take.
_GRACE_S = 60.0
_SYNC_CALLS = ("fsync", "fdatasync", "msync", "sync_file_range", "syncfs")
_SYNC_ROWS = 20


def _command(task: Task, mode: str) -> list[str]:
    note = Path(task.folder) / f"{mode}.json"
    note.write_text(json.dumps({"mode": mode, **asdict(task)}))
    return [sys.executable, "-m", "bench.peers.collection.worker", str(note)]


def _run(task: Task, mode: str) -> dict[str, Any]:
    """Let a worker do it; one that is silent for too long is ended, and what it told is kept."""
    told: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(_command(task, mode), stdout=out, stderr=err, text=True)
        told = _listen(process, out, task.limit + _GRACE_S)
        if process.returncode not in {0, -signal.SIGKILL} and "error" not in told:
            err.seek(0)
            told["error"] = (err.read().strip().splitlines() or ["no output"])[-1][:200]
    return told


def _listen(process: subprocess.Popen[str], out: IO[str], patience_s: float) -> dict[str, Any]:
    told: dict[str, Any] = {}
    size, since = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        if (now := os.fstat(out.fileno()).st_size) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            process.kill()
            process.wait()
            told["error"] = f"timeout: a call was not done in {patience_s:.0f} s"
    out.seek(0)
    for line in out.read().splitlines():
        if line.startswith("{"):
            told = {**json.loads(line), **told} if "error" in told else {**told, **json.loads(line)}
    return told


def _syncs(task: Task) -> float | None:
    """Return how often a single upsert has the disk written, by strace; None if there is none."""
    if shutil.which("strace") is None:
        return None
    counts = []
    for singles in (0, _SYNC_ROWS):
        folder = Path(task.folder) / f"syncs-{singles}"
        folder.mkdir()
        here = replace(task, folder=str(folder), singles=singles)
        trace = folder / "trace.txt"
        strace = ["strace", "-f", "-o", str(trace), "-e", f"trace={','.join(_SYNC_CALLS)}"]
        command = [*strace, *_command(here, "trickle")]
        try:
            subprocess.run(command, capture_output=True, timeout=task.limit, check=True)
        except (subprocess.SubprocessError, OSError):
            return None
        lines = trace.read_text().splitlines()
        counts.append(sum(any(f"{call}(" in line for call in _SYNC_CALLS) for line in lines))
    return max(0.0, (counts[1] - counts[0]) / _SYNC_ROWS)


def measure(task: Task, root: Path) -> dict[str, Any]:
    """Return all figures of one store."""
    folder = root / task.store
    here = replace(task, folder=str(folder))

    def emptied() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    emptied()
    figures = _run(here, "build")
    kept = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    figures["disk MiB"] = kept / 2**20
    whole = "close s" in figures and not any(
        "timeout" in v or "error" in v for v in figures.values() if isinstance(v, dict)
    )
    nothing = {"error": "not all of it was written"}
    figures["reopened"] = _run(here, "reopen") if whole else nothing
    emptied()
    figures["behaves"] = _run(here, "behave")
    emptied()
    told = _run(here, "die")
    after = _run(here, "rise")
    figures["after kill"] = _survived(told, after)
    emptied()
    figures["syncs"] = _syncs(here)
    shutil.rmtree(folder)
    return figures


def _survived(told: dict[str, Any], after: dict[str, Any]) -> str:
    if "acknowledged" not in told or "after kill" not in after:
        return str(after.get("error") or told.get("error"))
    wrong = f"; {after['wrong'][0]}" if after.get("wrong") else ""
    return f"{after['after kill']:,} of {told['acknowledged']:,}{wrong}"


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
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a step")
    parser.add_argument("--quick", action="store_true", help="the sample, in seconds")
    parser.add_argument("--json")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.set, chosen.rows, chosen.queries, chosen.singles = "sample", 1500, 20, 10
    stores = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for name in chosen.peers:
            if importlib.util.find_spec(STORES[name][3]) is None:
                print(f"{name} is left out: pip install {STORES[name][2]}")
                continue
            task = Task(
                name,
                folder,
                chosen.data,
                chosen.set,
                chosen.rows,
                chosen.queries,
                chosen.singles,
                chosen.limit,
            )
            start = time.monotonic()
            stores[name] = measure(task, Path(folder))
            print(f"{name} is done after {time.monotonic() - start:.0f} s", flush=True)
    print(report(stores))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(stores, indent=1))
    if faults := faults_of(stores.get("upvec", {})):
        sys.exit("upvec: " + "; ".join(faults))


if __name__ == "__main__":
    main()
