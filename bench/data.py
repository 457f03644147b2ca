"""Data sets with exact answers.

A set is a base, whose rows have the keys 0, 1, …, and queries that are never in the base. The
answers are found by measuring every row (one matrix product, then again in double precision for
the rows that are near enough) and kept in the temporary directory under a hash of the data.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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


def _find(folders: Sequence[Path], file: str) -> Path | None:
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _named(folders: Sequence[Path]) -> str:
    return " or ".join(map(str, folders))


def _read(folders: Sequence[Path], file: str) -> npt.NDArray[Any]:
    if not folders:
        raise MissingDataError(f"{file} is needed: give its folder by --data or {DATA_ENV}")
    path = _find(folders, file)
    if path is None:
        raise MissingDataError(
            f"no {file} in {_named(folders)}; bench/README.md says how to make it"
        )
    return np.asarray(np.load(path, allow_pickle=False))


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


def _sample(folders: Sequence[Path]) -> Dataset:
    # Here, so that who measures another library need not load this one.
    from upvec.sample import load_sample

    sample = load_sample()
    return _hold_out("sample", _unit(sample.v1), _unit(sample.v2), queries=200)


def _wordnet_20k(folders: Sequence[Path]) -> Dataset:
    first = _unit(_read(folders, "wordnet-20k-v1.f16.npy"))
    second = _unit(_read(folders, "wordnet-20k-v2.f16.npy"))
    return _hold_out("wordnet-20k", first, second, queries=_HELD_OUT)


def _wordnet_20k_768(folders: Sequence[Path]) -> Dataset:
    # Both embeddings of a record side by side: real vectors as long as larger models make them.
    files = ("wordnet-20k-v1.f16.npy", "wordnet-20k-v2.f16.npy")
    rows = _unit(np.hstack([_unit(_read(folders, file)) for file in files]))
    return _hold_out("wordnet-20k-768", rows, None, queries=_HELD_OUT)


def _wordnet_100k(folders: Sequence[Path]) -> Dataset:
    parts = [_unit(_read(folders, f"wordnet-{part}-v1.f16.npy")) for part in ("20k", "80k")]
    return _hold_out("wordnet-100k", np.concatenate(parts), None, queries=_HELD_OUT)


_SIFT_NAME = re.compile(r"sift-([1-9][0-9]*)(k?)")


def _sift(name: str, rows: int) -> Callable[[Sequence[Path]], Dataset]:
    # The file is in random order, and its queries come from pictures that gave none of its rows.
    def read(folders: Sequence[Path]) -> Dataset:
        base = _read(folders, "sift-u8.npy")
        if len(base) < rows:
            raise MissingDataError(f"sift-u8.npy has {len(base):,} rows; {name} wants {rows:,}")
        queries = _read(folders, "sift-queries-u8.npy")[:_HELD_OUT]
        return Dataset(name, "l2", base[:rows].astype(np.float32), queries.astype(np.float32))

    return read


SETS: dict[str, Callable[[Sequence[Path]], Dataset]] = {
    "sample": _sample,
    "wordnet-20k": _wordnet_20k,
    "wordnet-20k-768": _wordnet_20k_768,
    "wordnet-100k": _wordnet_100k,
    "sift-50k": _sift("sift-50k", 50_000),
    "sift-200k": _sift("sift-200k", 200_000),
}


def _reader(name: str) -> Callable[[Sequence[Path]], Dataset]:
    """Find what reads the set: by its name, by a number of descriptors, or from a file."""
    if name in SETS:
        return SETS[name]
    if sized := _SIFT_NAME.fullmatch(name):
        return _sift(name, int(sized[1]) * (1000 if sized[2] else 1))
    return partial(_hdf5, name)


def _hdf5(name: str, folders: Sequence[Path]) -> Dataset:
    """Read a file of ann-benchmarks; its answers are not used but found anew."""
    path = _find(folders, f"{name}.hdf5")
    if path is None:
        known = ", ".join([*SETS, "sift-ROWS"])
        where = _named(folders) or "any folder: none was given"
        raise MissingDataError(f"{name!r} is none of {known}, and no .hdf5 file of {where}")
    try:
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingDataError(f"{name}.hdf5 needs the package h5py") from error
    with h5py.File(path, "r") as file:
        angular = str(file.attrs["distance"]) == "angular"
        base, queries = np.asarray(file["train"]), np.asarray(file["test"])
    shape = _unit if angular else lambda rows: np.ascontiguousarray(rows, dtype=np.float32)
    return Dataset(name, "cosine" if angular else "l2", shape(base), shape(queries))


def load(name: str, folders: str | Path | None = None) -> Dataset:
    """Load a set by its name.

    Parameters
    ----------
    name : str
        A key of SETS, "sift-" and a number of rows (as sift-10k or sift-1234), or the name of an
        ann-benchmarks file without its suffix.
    folders : str or Path, optional
        Where to look for files, in this order; several are separated as in PATH. Defaults to
        the environment's UPVEC_BENCH_DATA.
    """
    places = str(folders or os.environ.get(DATA_ENV) or "")
    paths = [Path(place) for place in places.split(os.pathsep) if place]
    return _reader(name)(paths)


def pair_distances(metric: str, queries: Floats, vectors: Floats) -> Doubles:
    """Distances from query i to each of its vectors: (q, dim), (q, m, dim) -> (q, m)."""
    wide = queries.astype(np.float64)
    if metric == "l2":
        gaps = vectors - wide[:, None, :]
        return np.asarray(np.einsum("qmd,qmd->qm", gaps, gaps))
    return np.asarray(1.0 - np.einsum("qmd,qd->qm", vectors.astype(np.float64), wide))


def _candidates(metric: str, base: Floats, queries: Floats, wanted: int) -> npt.NDArray[np.intp]:
    scores = queries @ base.T
    if metric == "l2":
        scores -= 0.5 * np.einsum("nd,nd->n", base, base)
    near = np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted]
    return np.asarray(near)


def _nearest_block(
    metric: str, base: Floats, queries: Floats, k: int
) -> tuple[npt.NDArray[np.int32], Doubles]:
    near = _candidates(metric, base, queries, min(k + _MARGIN, len(base)))
    exact = pair_distances(metric, queries, base[near])
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    rows = np.take_along_axis(near, order, axis=1).astype(np.int32)
    return rows, np.take_along_axis(exact, order, axis=1)


def _nearest(
    metric: str, base: Floats, queries: Floats, k: int
) -> tuple[npt.NDArray[np.int32], Doubles]:
    if metric == "l2":
        # Far from the origin, the product in single precision could not tell neighbours apart.
        centre = queries.mean(axis=0)
        base, queries = base - centre, queries - centre
    block = max(1, _BLOCK_BYTES // (4 * len(base)))
    parts = [
        _nearest_block(metric, base, queries[start : start + block], k)
        for start in range(0, len(queries), block)
    ]
    rows, distances = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(distances)


def _content_hash(metric: str, base: Floats, queries: Floats, k: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{metric} {k} {_MARGIN} {base.shape} {queries.shape}".encode())
    digest.update(np.ascontiguousarray(base).data)
    digest.update(np.ascontiguousarray(queries).data)
    return digest.hexdigest()


def _cached(name: str, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    folder = Path(tempfile.gettempdir()) / "upvec-bench"
    kept = folder / f"{name}.npy"
    if kept.is_file():
        return np.asarray(np.load(kept, allow_pickle=False))
    found = compute()
    folder.mkdir(exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}.tmp.npy")
    np.save(partial, found)
    partial.replace(kept)
    return found


def true_distances(metric: str, base: Floats, queries: Floats, k: int) -> Doubles:
    """Exact distances of the k nearest rows of every query, nearest first: (q, k).

    Distances and not keys, because of several rows at the same distance any one is a right answer.
    """
    name = _content_hash(metric, base, queries, k)
    return _cached(name, lambda: _nearest(metric, base, queries, k)[1])


def true_neighbours(metric: str, base: Floats, k: int) -> npt.NDArray[np.int32]:
    """The k nearest other rows of every row, nearest first: (n, k)."""

    def others() -> npt.NDArray[np.int32]:
        rows, _ = _nearest(metric, base, base, k + 1)
        # Each row's nearest is itself, unless it has twins: then any one of them is left out.
        found = rows == np.arange(len(rows))[:, None]
        found[~found.any(axis=1), 0] = True
        return rows[~found].reshape(len(rows), k)

    return _cached(f"{_content_hash(metric, base, base, k)}-neighbours", others)
