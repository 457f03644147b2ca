"""A process of its own for every index, so that libraries share no threads, heap or symbols.

It loads one library, is kept on as many processors as it has threads before it does so, and takes
commands over a pipe. Times are taken inside, around the one call, so what goes through the pipe is
in none of them. The base comes as a file that all these processes map, and the queries come once.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Floats
from bench.measure import Answers, pinned, timed
from bench.peers.base import Keys, Peer, Settings

# Read by the run-time libraries when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SHORT_WORD = 200


class PeerError(Exception):
    """A peer raised, or its process died."""


@dataclass(frozen=True)
class Kind:
    """A peer as its class describes it, for who has not loaded the library.

    Attributes
    ----------
    name, updates, exact_distances, grid
        As of bench.peers.base.Peer.
    where : str
        "module:class".
    library : str
        The version, with the instruction set where the library tells.
    """

    name: str
    updates: bool
    exact_distances: bool
    grid: tuple[tuple[int, int], ...]
    where: str
    library: str

    def version(self) -> str:
        return self.library


@dataclass(frozen=True)
class Cost:
    """What an index took to make.

    Attributes
    ----------
    rows : int
        In the index.
    seconds, tune_seconds : float
        Of build(), and of tune() after it.
    own_bytes : float or None
        A vector, by the index's own account.
    resident_bytes, peak_bytes : float or None
        A vector, by which the process has grown, and had grown at most; without the base, which is
        mapped. None where the system does not tell.
    """

    rows: int
    seconds: float
    tune_seconds: float
    own_bytes: float | None
    resident_bytes: float | None
    peak_bytes: float | None


def find(where: str) -> type[Peer]:
    """Import a peer's class."""
    module, name = where.split(":")
    found: type[Peer] = getattr(importlib.import_module(module), name)
    return found


class Worker:
    """The parent's side. Every call waits for the answer; PeerError ends the worker."""

    def __init__(self, where: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with tempfile.NamedTemporaryFile(prefix="upvec-peer-", delete=False) as log:
            self._log = Path(log.name)
        self._process = context.Process(
            target=_serve, args=(theirs, where, threads, str(self._log)), daemon=True
        )
        with _environment(threads):
            self._process.start()
        theirs.close()

    def call(self, what: str, *given: Any) -> Any:
        """Have a method of Served called, and return what it returns."""
        try:
            self._pipe.send((what, given))
            fine, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            message = f"its process ended with {_exit(self._process.exitcode)}{self._last_word()}"
            self.close()
            raise PeerError(f"{what}: {message}") from None
        if not fine:
            self.close()
            raise PeerError(f"{what}: {answer}")
        return answer

    def close(self) -> None:
        """End the process; nothing happens if it has ended."""
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._log.unlink(missing_ok=True)

    def _last_word(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1][:_SHORT_WORD]}" if lines else ""


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        import signal

        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"code {code}"


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, where: str, threads: int, log: str) -> None:
    # Libraries print; a table on the standard output is no place for that.
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    with pinned(threads):
        served = Served(where)
        while True:
            try:
                what, given = pipe.recv()
            except EOFError:
                return
            try:
                answer = (True, getattr(served, what)(*given))
            except Exception as error:  # noqa: BLE001  # whatever a library may raise
                answer = (False, f"{type(error).__name__}: {error}"[:_SHORT_WORD])
            pipe.send(answer)


class Served:
    """The worker's side: one index, its queries, and the clock."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._index: Peer | None = None
        self._queries: Floats = np.empty((0, 0), dtype=np.float32)

    def describe(self) -> Kind:
        kind = find(self._where)
        return Kind(
            name=kind.name,
            updates=kind.updates,
            exact_distances=kind.exact_distances,
            grid=tuple(kind.grid),
            where=self._where,
            library=kind.version(),
        )

    def build(self, base: str, queries: Floats, metric: str, settings: Settings) -> Cost:
        """Make the index of a file of vectors."""
        self._queries = queries
        # Copy on write, as some libraries refuse what cannot be written.
        vectors: Floats = np.asarray(np.load(base, mmap_mode="c"))
        vectors.sum()  # have it in memory before anything is measured
        kind = find(self._where)
        resident = _resident()
        peak_starts = _reset_peak()
        index = self._index = kind(vectors.shape[1], metric, settings)
        seconds = timed(partial(index.build, vectors))
        tune_seconds = timed(index.tune)
        peak = _status("VmHWM")
        grown = _grown(resident, _resident(), len(vectors))
        return Cost(
            rows=len(vectors),
            seconds=seconds,
            tune_seconds=tune_seconds,
            own_bytes=index.bytes_per_vector(),
            resident_bytes=grown,
            peak_bytes=_grown(peak_starts, peak, len(vectors)),
        )

    def search(self, k: int, ef: int) -> Answers:
        return self._built.search(self._queries, k, ef)

    def time_search(self, k: int, ef: int) -> float:
        return timed(partial(self._built.search, self._queries, k, ef))

    def time_each(self, k: int, ef: int) -> float:
        return timed(partial(self._built.search_each, self._queries, k, ef))

    def update(self, keys: Keys, vectors: Floats) -> float:
        return timed(partial(self._built.update, keys, vectors))

    def remove(self, keys: Keys) -> float:
        return timed(partial(self._built.remove, keys))

    def broken(self) -> str | None:
        return self._built.broken()

    @property
    def _built(self) -> Peer:
        if self._index is None:
            raise RuntimeError("build() comes first")
        return self._index


def _resident() -> int | None:
    """What the process has of its own, when the allocator has given back what is free."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    parts = [_status("RssAnon"), _status("RssShmem")]
    return None if None in parts else sum(part or 0 for part in parts)


def _reset_peak() -> int | None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None


def _grown(before: int | None, after: int | None, rows: int) -> float | None:
    return None if before is None or after is None else (after - before) / max(1, rows)


def describe(where: str) -> Kind:
    """Ask a process of its own what the peer is. PeerError if it cannot be loaded."""
    worker = Worker(where, threads=1)
    try:
        kind: Kind = worker.call("describe")
        return kind
    finally:
        worker.close()
