"""Data sets with exact answers.

A set is a base, whose rows have the keys 0, 1, …, and queries that are never in the base. The
answers are found by measuring every row (one matrix product, then again in double precision for
the rows that are near enough) and kept in the temporary directory under a hash of the data.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from upvec.sample import load_sample

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

DATA_ENV = "UPVEC_BENCH_DATA"

# Queries are drawn from the whole set, because WordNet's files are sorted by part of speech: its
# last rows are all adverbs, whose neighbours would have been held out with them.
_QUERY_SEED = 1
_HELD_OUT = 2000
# The product in single precision may swap rows near the k-th place: so many more are re-measured.
_MARGIN = 22
_BLOCK_BYTES = 256 << 20


@dataclass(frozen=True)
class Dataset:
    """Vectors to store and vectors to look for.

    Attributes
    ----------
    name : str
        What the user calls the set.
    metric : str
        "cosine" (then all rows have unit length) or "l2".
    base : ndarray of shape (n, dim), float32
        Row i has key i.
    queries : ndarray of shape (q, dim), float32
        Held out: none of them is a row of the base.
    reembedded : ndarray of shape (n, dim), float32, or None
        The vectors of the same records after their text has changed.
    """

    name: str
    metric: str
    base: Floats
    queries: Floats
    reembedded: Floats | None = None

    @property
    def dim(self) -> int:
        return int(self.base.shape[1])

    def __len__(self) -> int:
        return int(self.base.shape[0])


class MissingDataError(Exception):
    """The files of a data set are not where they were looked for."""


def _read(folder: Path | None, file: str) -> Floats:
    if folder is None:
        raise MissingDataError(f"{file} is needed: give its folder by --data or {DATA_ENV}")
    if not (folder / file).is_file():
        raise MissingDataError(f"no {file} in {folder}; bench/README.md says how to make it")
    return _unit(np.load(folder / file, allow_pickle=False))


def _unit(vectors: npt.NDArray[np.floating]) -> Floats:
    # Stored as float16, lengths are off by up to 1e-4, which would show as wrong distances.
    wide = vectors.astype(np.float32)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _hold_out(name: str, rows: Floats, again: Floats | None, queries: int) -> Dataset:
    drawn = np.zeros(len(rows), dtype=bool)
    drawn[np.random.default_rng(_QUERY_SEED).permutation(len(rows))[:queries]] = True
    return Dataset(
        name=name,
        metric="cosine",
        base=np.ascontiguousarray(rows[~drawn]),
        queries=np.ascontiguousarray(rows[drawn]),
        reembedded=None if again is None else np.ascontiguousarray(again[~drawn]),
    )


def _sample(folder: Path | None) -> Dataset:
    sample = load_sample()
    return _hold_out("sample", _unit(sample.v1), _unit(sample.v2), queries=200)


def _wordnet_20k(folder: Path | None) -> Dataset:
    first = _read(folder, "wordnet-20k-v1.f16.npy")
    second = _read(folder, "wordnet-20k-v2.f16.npy")
    return _hold_out("wordnet-20k", first, second, queries=_HELD_OUT)


def _wordnet_100k(folder: Path | None) -> Dataset:
    parts = [_read(folder, f"wordnet-{part}-v1.f16.npy") for part in ("20k", "80k")]
    return _hold_out("wordnet-100k", np.concatenate(parts), None, queries=_HELD_OUT)


SETS: dict[str, Callable[[Path | None], Dataset]] = {
    "sample": _sample,
    "wordnet-20k": _wordnet_20k,
    "wordnet-100k": _wordnet_100k,
}


def _hdf5(name: str, folder: Path | None) -> Dataset:
    """Read a file of ann-benchmarks; its answers are not used but found anew."""
    if folder is None or not (folder / f"{name}.hdf5").is_file():
        known = ", ".join(SETS)
        raise MissingDataError(f"{name!r} is none of {known}, and no .hdf5 file of {folder}")
    try:
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingDataError(f"{name}.hdf5 needs the package h5py") from error
    with h5py.File(folder / f"{name}.hdf5", "r") as file:
        angular = str(file.attrs["distance"]) == "angular"
        base, queries = np.asarray(file["train"]), np.asarray(file["test"])
    shape = _unit if angular else lambda rows: np.ascontiguousarray(rows, dtype=np.float32)
    return Dataset(name, "cosine" if angular else "l2", shape(base), shape(queries))


def load(name: str, folder: str | Path | None = None) -> Dataset:
    """Load a set by its name; `folder` defaults to the environment's UPVEC_BENCH_DATA."""
    place = folder or os.environ.get(DATA_ENV)
    path = Path(place) if place else None
    return SETS[name](path) if name in SETS else _hdf5(name, path)


def pair_distances(metric: str, queries: Floats, vectors: Floats) -> Doubles:
    """Distances from query i to each of its vectors: (q, dim), (q, m, dim) -> (q, m)."""
    wide = queries.astype(np.float64)
    if metric == "l2":
        gaps = vectors - wide[:, None, :]
        return np.asarray(np.einsum("qmd,qmd->qm", gaps, gaps))
    return np.asarray(1.0 - np.einsum("qmd,qd->qm", vectors.astype(np.float64), wide))


def _nearest_block(metric: str, base: Floats, queries: Floats, k: int) -> Doubles:
    scores = queries @ base.T
    if metric == "l2":
        scores -= 0.5 * np.einsum("nd,nd->n", base, base)
    wanted = min(k + _MARGIN, len(base))
    near = np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted]
    exact = pair_distances(metric, queries, base[near])
    exact.sort(axis=1)
    return exact[:, :k]


def _content_hash(metric: str, base: Floats, queries: Floats, k: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{metric} {k} {_MARGIN} {base.shape} {queries.shape}".encode())
    digest.update(np.ascontiguousarray(base).data)
    digest.update(np.ascontiguousarray(queries).data)
    return digest.hexdigest()


def true_distances(metric: str, base: Floats, queries: Floats, k: int) -> Doubles:
    """Exact distances of the k nearest rows of every query, nearest first: (q, k).

    Distances and not keys, because of several rows at the same distance any one is a right answer.
    """
    folder = Path(tempfile.gettempdir()) / "upvec-bench"
    cached = folder / f"{_content_hash(metric, base, queries, k)}.npy"
    if cached.is_file():
        return np.asarray(np.load(cached, allow_pickle=False))
    block = max(1, _BLOCK_BYTES // (4 * len(base)))
    found = np.concatenate(
        [
            _nearest_block(metric, base, queries[start : start + block], k)
            for start in range(0, len(queries), block)
        ]
    )
    folder.mkdir(exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.tmp.npy")
    np.save(partial, found)
    partial.replace(cached)
    return found
