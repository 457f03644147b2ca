"""Keys and vectors in memory: :class:`Index`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._core import Snapshot as Pin
from .errors import ClosedError
from .result import UpsertResult
from .tune import Tuning, tune

__all__ = [
    "CheckReport",
    "Degrees",
    "Filter",
    "Index",
    "IndexSnapshot",
    "RangeResult",
    "SearchResult",
    "Tuning",
]

FloatArray = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]

Filter = _core.Filter

_METRICS = ("l2", "ip", "cosine")
_KEY_TYPES = ("int64", "str")
_CODES = ("int8", "none")
_KEEPS = ("f32", "bf16", "none")
# What progress bars advance by; large enough that a batch of its own costs nothing.
_PROGRESS_ROWS = 4096


class SearchResult(NamedTuple):
    """The nearest rows of each query. Unpacks as ``keys, distances, counts``.

    Attributes
    ----------
    keys : ndarray (q, k) of int64 or of str objects
        Nearest first; unfilled places hold 0 or ``""``.
    distances : ndarray (q, k) of float32
        Unfilled places hold infinity.
    counts : ndarray (q,) of int64
        Filled places of each row.
    """

    keys: AnyArray
    distances: FloatArray
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RangeResult:
    """Everything within a radius of each query.

    Attributes
    ----------
    offsets : ndarray (q + 1,) of int64
        The hits of query i are at ``offsets[i]:offsets[i + 1]``, nearest first.
    keys : ndarray (m,) of int64 or of str objects
    distances : ndarray (m,) of float32
    """

    offsets: npt.NDArray[np.int64]
    keys: AnyArray
    distances: FloatArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> tuple[AnyArray, FloatArray]:
        """Keys and distances of one query."""
        if not -len(self) <= query < len(self):
            raise IndexError(f"query {query} of {len(self)}")
        query %= len(self)
        span = slice(self.offsets[query], self.offsets[query + 1])
        return self.keys[span], self.distances[span]


@dataclass(frozen=True)
class Degrees:
    """How many links the rows of an index have.

    Attributes
    ----------
    minimum, mean, maximum : float
        Of all rows; 0 where there are none.
    zero : int
        Rows with none.
    histogram : list of int
        Rows by their number of links: how many have 0, 1, 2, …
    """

    minimum: int
    mean: float
    maximum: int
    zero: int
    histogram: list[int] = field(repr=False)

    @classmethod
    def of(cls, histogram: list[int]) -> Degrees:
        """Sum up a histogram: rows by their number of links."""
        met = [links for links, rows in enumerate(histogram) if rows]
        links = sum(number * rows for number, rows in enumerate(histogram))
        return cls(
            minimum=min(met, default=0),
            mean=links / max(1, sum(histogram)),
            maximum=max(met, default=0),
            zero=histogram[0] if histogram else 0,
            histogram=histogram,
        )


@dataclass(frozen=True)
class CheckReport:
    """What :meth:`Index.check` counted.

    Attributes
    ----------
    live, reachable : int
        Keys in the index, and how many of them a walk over level 0 from the entry meets.
    dangling, doubled, self_links : int
        Links to something that is not there, twice the same link, links to oneself.
    in_list_errors, anchor_errors, key_errors, pending : int
        Contradictions among links and in-links, in the spanning tree, in the key index,
        and rows that a commit left half-way.
    below_floor : int
        Rows with fewer links than a quarter of the cap: quality, not correctness.
    degrees, in_degrees : Degrees
        On level 0: of the links that start from a row, and of those that lead to it.
    ok : bool
        Every invariant holds.
    """

    live: int
    reachable: int
    dangling: int
    doubled: int
    self_links: int
    in_list_errors: int
    anchor_errors: int
    key_errors: int
    pending: int
    below_floor: int
    degrees: Degrees
    in_degrees: Degrees
    ok: bool


class IndexReader:
    """The reading half of an index; which version it reads is for the subclass to say."""

    _core: _core.Index

    def _version(self) -> Pin | None:
        """Return what pins the version to read; None: what is published when the call starts."""
        return None

    def get(self, keys: Any) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Vectors of keys.

        Returns
        -------
        vectors : ndarray (n, dim) of float32
            Copies of what is kept (see ``keep``), of unit length in a cosine index (rounded
            to bfloat16: to within 2**-8); zeros where the key is not there.
        found : ndarray (n,) of bool
        """
        return self._core.get(self._key_column(keys, "keys"), snapshot=self._version())

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        ef: int | None = None,
        where: Any = None,
        threads: int = 0,
    ) -> SearchResult:
        """The k nearest rows of each query, approximately.

        Parameters
        ----------
        queries : array_like (q, dim) or (dim,)
        k : int
            Rows per query.
        ef : int, optional
            Candidates held by a search, at least k; more is slower and finds more.
            Default ``max(64, k + 54)``; :meth:`tune` finds the least that a recall takes.
        where : array_like of keys or Filter, optional
            Only these keys are answers. A compiled :meth:`filter` saves looking the keys
            up again.
        threads : int
            0 means one per processor, for a batch of queries.

        Returns
        -------
        SearchResult
            ``keys`` and ``distances`` (q, k), ``counts`` (q,). q = 1 for a single query.
        """
        found = self._core.search_plain(queries, k, ef, where, threads, self._version())
        if found is None:
            found = self._core.search(
                self._queries(queries),
                _require_int("k", k, 1, 2**31 - 1),
                ef=0 if ef is None else _require_int("ef", ef, 1, 2**31 - 1),
                allowed=self._allowed(where),
                threads=_require_int("threads", threads, 0, 4096),
                snapshot=self._version(),
            )
        return tuple.__new__(SearchResult, found)  # half the time of SearchResult(*found)

    def exact_search(
        self, queries: Any, k: int = 10, *, where: Any = None, threads: int = 0
    ) -> SearchResult:
        """The k nearest rows of each query, by measuring what is kept of every row.

        Parameters and result are those of :meth:`search`.
        """
        found = self._core.exact_search(
            self._queries(queries),
            _require_int("k", k, 1, 2**31 - 1),
            allowed=self._allowed(where),
            threads=_require_int("threads", threads, 0, 4096),
            snapshot=self._version(),
        )
        return SearchResult(*found)

    def range_search(
        self,
        queries: Any,
        radius: float,
        *,
        ef: int | None = None,
        where: Any = None,
        threads: int = 0,
    ) -> RangeResult:
        """Every row within `radius` of each query, approximately.

        Queries that find more than a twelfth of the index are answered by measuring every row.

        Parameters
        ----------
        queries : array_like (q, dim) or (dim,)
        radius : float
            In the distance of the metric (squared for ``"l2"``), inclusive.
        ef : int, optional
            Candidates of the beam that finds the way there (default 96); from there on, all
            that is within the radius is followed. More finds more where it is scattered.

        Returns
        -------
        RangeResult
        """
        return RangeResult(
            *self._core.range_search(
                self._queries(queries),
                float(radius),
                ef=0 if ef is None else _require_int("ef", ef, 1, 2**31 - 1),
                allowed=self._allowed(where),
                threads=_require_int("threads", threads, 0, 4096),
                snapshot=self._version(),
            )
        )

    def tune(self, queries: Any, k: int = 10, target_recall: float = 0.95) -> Tuning:
        """Find the smallest `ef` with which a search finds so much of the k nearest.

        The true neighbours are found by :meth:`exact_search`. Every other query is held out: `ef`
        is chosen by the rest, and its recall measured with these.

        Parameters
        ----------
        queries : array_like (q, dim)
            As the ones to come; at least 2, better some hundreds.
        k : int
            Rows per query.
        target_recall : float
            Share of the true k nearest, above 0 and at most 1.

        Returns
        -------
        Tuning
            ``ef``, and ``recall`` of the held-out queries. Equal calls on equal indexes give
            equal results.

        Raises
        ------
        ValueError
            Fewer than two queries; an empty index; a target that is not in (0, 1], or that no
            `ef` reaches: then with the best that was met.

        Examples
        --------
        >>> import numpy as np, upvec
        >>> rows = np.random.default_rng(0).standard_normal((2100, 32), dtype=np.float32)
        >>> ix = upvec.Index(32)
        >>> _ = ix.upsert(np.arange(2000), rows[:2000])
        >>> found = ix.tune(rows[2000:], k=10, target_recall=0.9)
        >>> found.recall > 0.85
        True
        >>> _ = ix.search(rows[2000:], k=10, ef=found.ef)
        """
        array = self._queries(queries)
        k = _require_int("k", k, 1, 2**31 - 1)
        if isinstance(target_recall, (bool, str)) or not 0 < float(target_recall) <= 1:
            raise ValueError(f"target_recall = {target_recall!r}; want above 0 and at most 1")
        pin = self._version() or self._core.snapshot()  # one version for truth and searches
        return tune(
            array,
            k,
            float(target_recall),
            rows=len(self._core.keys(snapshot=pin)),
            search=lambda some, ef: SearchResult(*self._core.search(some, k, ef=ef, snapshot=pin)),
            exact=lambda some: SearchResult(*self._core.exact_search(some, k, snapshot=pin)),
        )

    def filter(self, keys: Any) -> Filter:
        """Compile a set of allowed keys for the ``where`` of many searches.

        Keys that are not in the index now are ignored.
        """
        return self._core.filter(self._key_column(keys, "keys"), snapshot=self._version())

    def keys(self) -> AnyArray:
        """All keys, as an array (n,) of int64 or of str objects, in no promised order."""
        return self._core.keys(snapshot=self._version())

    def __contains__(self, key: object) -> bool:
        try:
            return bool(
                self._core.get(self._key_column([key], "keys"), snapshot=self._version())[1][0]
            )
        except (TypeError, ValueError, OverflowError):
            return False

    def _key_column(self, keys: Any, what: str) -> Any:
        """Keys as the core takes them: an int64 array, or an array or list of str."""
        if isinstance(keys, (str, bytes)) or np.isscalar(keys):
            raise TypeError(f"{what} must be an array (n,); got a single {type(keys).__name__}")
        _refuse_masked(keys, what)
        if isinstance(keys, np.ndarray):
            column = keys
        elif hasattr(keys, "__array__"):
            column = np.asarray(keys)
        else:
            return keys if isinstance(keys, (list, tuple)) else list(keys)
        if column.ndim != 1:
            raise ValueError(f"{what} have shape {column.shape}; want (n,)")
        return column

    def _queries(self, queries: Any) -> FloatArray:
        array = _float_array(queries, "queries")
        return array if array.ndim >= 2 else np.atleast_2d(array)

    def _allowed(self, where: Any) -> Any:
        if where is None or isinstance(where, Filter):
            return where
        return self._key_column(where, "where")


class IndexSnapshot(IndexReader):
    """One version of an :class:`Index`. :meth:`Index.snapshot` gives one.

    It answers as the index did when it was taken, whatever is written meanwhile: ``get``,
    ``search``, ``exact_search``, ``range_search``, ``filter``, ``keys``, ``len`` and ``in`` are
    those of the index. It may be used from any thread. A context manager: leaving it closes it;
    one that is dropped lets go too. After that it raises :class:`upvec.ClosedError`.

    Notes
    -----
    It keeps the rows of its version that were replaced or removed since: at most as many as the
    index had when it was taken, however many commits pass. ``search`` goes through the present
    graph and measures each changed key besides. Of 18,000 vectors of 64 dimensions,
    changed since: none, 28 us; 1 %, 46 us; 10 %, 277 us; all, 345 us. From a sixteenth on, all
    vectors are measured, as by ``exact_search``. ``len`` lists the keys.

    Examples
    --------
    >>> import upvec
    >>> ix = upvec.Index(2)
    >>> _ = ix.upsert([1], [[0, 0]])
    >>> with ix.snapshot() as snap:
    ...     _ = ix.upsert([1, 2], [[5, 5], [0, 1]])
    ...     snap.search([0, 0], k=1).distances.tolist(), len(snap), len(ix)
    ([[0.0]], 1, 2)
    """

    def __init__(self, core: _core.Index, pin: Pin) -> None:
        self._core = core
        self._pin: Pin | None = pin
        self._seq = int(pin.seq)

    @property
    def seq(self) -> int:
        """The commit that made this version."""
        return self._seq

    def close(self) -> None:
        """Let go of the version. Calls under way in other threads end as they began."""
        self._pin = None

    def __enter__(self) -> IndexSnapshot:  # noqa: PYI034  (Self came with Python 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        state = "closed" if self._pin is None else f"{len(self):,} keys"
        return f"<upvec.IndexSnapshot {state}, seq {self._seq}>"

    def _version(self) -> Pin:
        pin = self._pin
        if pin is None:
            raise ClosedError(f"{self!r}: take another")
        return pin


class Index(IndexReader):
    """Approximate nearest-neighbour index with in-place upsert.

    Parameters
    ----------
    dim : int
        Dimension of the vectors, 1 to 65536.
    metric : {"l2", "ip", "cosine"}
        ``"l2"`` is the squared Euclidean distance; ``"ip"`` and ``"cosine"`` are
        ``1 - dot``. A cosine index stores vectors of unit length.
    key : {"int64", "str"}
        Type of the keys.
    codes : {"int8", "none"}
        By what the graph is built and walked. ``"int8"``: by one byte a dimension, made
        from each vector alone (nothing is trained, nothing ages), which is faster; the
        nearest are then measured by what is kept of their vectors. ``"none"``: by what is
        kept of the vectors, which must be something.
    keep : {"f32", "bf16", "none"}
        What is kept of the vectors; ``get`` returns it, distances are measured to it from
        the unrounded query, and what ``get`` returned counts as unchanged when put back.
        ``"f32"``: all of them. ``"bf16"``: every component in half the memory, rounded to
        bfloat16, off by at most 2**-8 of itself (cosine: so is the length, and distances are
        half the squared ones, which for unit vectors is the same). ``"none"``: the codes
        alone, a quarter of the memory; a component is off by at most half a step, of largest
        magnitude of the vector / 127 (cosine: and then the vector is scaled to unit length).
        See Notes.
    M : int
        Links per row above level 0, 4 to 256; level 0 has twice as many.
    ef_construction : int
        Candidates held while links are chosen; more is slower and better.
    seed : int
        Of key hashes and levels. Equal histories under equal seeds give equal indexes.

    Notes
    -----
    Every call releases the GIL and may be made from any thread. Writers take turns;
    readers never wait, and see all of a batch or nothing of it. A call that raises has
    changed nothing. The graph is HNSW (Malkov and Yashunin, TPAMI 2020), pruned as
    DiskANN does (Subramanya et al., NeurIPS 2019, algorithm 2), updated in place.

    What `keep` costs and saves. Bytes a vector, of which some 250 are links, keys and the like;
    recall@10 at ef 32 / 64 / 128 by the vectors as they were written; inserts/s, and searches/s
    at these ef, as a ratio to ``"f32"``:

    ========  =====  =====================  =======  ======================
    18,000 texts, 384 dimensions, cosine
    -----------------------------------------------------------------------
    keep      bytes  recall@10              inserts  searches
    ========  =====  =====================  =======  ======================
    f32       2,190  .9867 / .9964 / .9988  1        1
    bf16      1,420  .9848 / .9944 / .9964  1.0      1.0
    none        650  .9831 / .9926 / .9949  .99      1.1 / 1.1 / 1.0
    ========  =====  =====================  =======  ======================

    ========  =====  =====================  =======  ======================
    50,000 image descriptors (SIFT), 128 dimensions, l2
    -----------------------------------------------------------------------
    keep      bytes  recall@10              inserts  searches
    ========  =====  =====================  =======  ======================
    f32         900  .9787 / .9956 / .9988  1        1
    bf16        645  .9787 / .9956 / .9988  1.0      1.0
    none        390  .9691 / .9845 / .9869  .92      1.0 / 1.0 / .9
    ========  =====  =====================  =======  ======================

    Codes are made of each vector alone: how the data were distributed before makes no difference.
    With ``keep="none"`` the same history gives the same index on every instruction set, and
    vectors whose largest magnitude is under 1.5e-36 are stored as zeros (l2, ip).

    Examples
    --------
    >>> import numpy as np, upvec
    >>> ix = upvec.Index(2, metric="l2")
    >>> ix.upsert([1, 2], [[0, 0], [3, 4]])
    UpsertResult(inserted=2)
    >>> ix.upsert([2, 3], [[0, 1], [9, 9]])
    UpsertResult(inserted=1, updated=1)
    >>> ix.search([0, 0], k=2).keys
    array([[1, 2]])
    """

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        key: str = "int64",
        codes: str = "int8",
        keep: str = "f32",
        M: int = 16,
        ef_construction: int = 200,
        seed: int = 0,
    ) -> None:
        _require_choice("metric", metric, _METRICS)
        _require_choice("key", key, _KEY_TYPES)
        _require_choice("codes", codes, _CODES)
        _require_choice("keep", keep, _KEEPS)
        if codes == keep == "none":
            raise ValueError(
                "codes = 'none' with keep = 'none' leaves nothing of the vectors; "
                "want codes = 'int8', or keep = 'f32' or 'bf16'"
            )
        self._core = _core.Index(
            _require_int("dim", dim, 1, 65536),
            metric=metric,
            key=key,
            codes=codes,
            keep=keep,
            M=_require_int("M", M, 4, 256),
            ef_construction=_require_int("ef_construction", ef_construction, 1, 100_000),
            seed=_require_int("seed", seed, 0, 2**64 - 1),
        )

    # Properties ------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._core.dim

    @property
    def metric(self) -> str:
        """``"l2"``, ``"ip"`` or ``"cosine"``."""
        return self._core.metric

    @property
    def key(self) -> str:
        """Type of the keys: ``"int64"`` or ``"str"``."""
        return self._core.key_type

    @property
    def codes(self) -> str:
        """By what the graph is built and walked: ``"int8"`` or ``"none"``."""
        return self._core.codes

    @property
    def keep(self) -> str:
        """What is kept of the vectors: ``"f32"``, ``"bf16"`` or ``"none"``."""
        return self._core.keep

    @property
    def M(self) -> int:
        """Links per row above level 0."""
        return self._core.M

    @property
    def ef_construction(self) -> int:
        """Candidates held while links are chosen."""
        return self._core.ef_construction

    @property
    def simd(self) -> str:
        """The distance kernels in use; ``UPVEC_SIMD`` overrides the choice."""
        return self._core.simd

    # Writing ---------------------------------------------------------------------------

    def upsert(
        self,
        keys: Any,
        vectors: Any,
        *,
        mode: str = "upsert",
        duplicates: str = "error",
        threads: int = 0,
        progress: bool = False,
    ) -> UpsertResult:
        """Insert new keys and move known ones, in one atomic commit.

        Parameters
        ----------
        keys : array_like (n,)
            int64, or str.
        vectors : array_like (n, dim)
            float32, float16 or float64; converted to float32, copied.
        mode : {"upsert", "insert_only", "update_only"}
            ``insert_only`` skips known keys, ``update_only`` skips unknown ones.
        duplicates : {"error", "first", "last"}
            What to do with a key that occurs twice in the batch; the rows left out are
            ``skipped``.
        threads : int
            0 means one per processor. The resulting graph does not depend on it.
        progress : bool
            Show a bar (needs ``tqdm``). The batch is then committed in parts of 4,096
            rows, each atomic; but as a whole, without a bar, if a key occurs twice or a
            row may be refused.

        Returns
        -------
        UpsertResult
            ``status`` (n,) of :class:`upvec.Outcome` codes, and ``counts``.

        Raises
        ------
        DimensionError
            Vectors of another dimension.
        InvalidRowError
            NaN, infinity, or a zero vector under cosine; ``.rows`` says where.
        DuplicateKeyError
            A key twice in the batch under ``duplicates="error"``.
        """
        key_column = self._key_column(keys, "keys")
        matrix = _float_matrix(vectors, "vectors", len(key_column))
        _require_choice("mode", mode, ("upsert", "insert_only", "update_only"))
        _require_choice("duplicates", duplicates, ("error", "first", "last"))
        threads = _require_int("threads", threads, 0, 4096)
        if not progress or not _may_be_cut(key_column, matrix, cosine=self.metric == "cosine"):
            status = self._core.upsert(
                key_column, matrix, mode=mode, duplicates=duplicates, threads=threads
            )
            return UpsertResult.from_status(status)
        parts = [
            self._core.upsert(
                key_column[span], matrix[span], mode=mode, duplicates=duplicates, threads=threads
            )
            for span in _progress_spans(len(key_column))
        ]
        return UpsertResult.from_status(np.concatenate(parts) if parts else np.empty(0, np.uint8))

    def remove(self, keys: Any, *, threads: int = 0) -> npt.NDArray[np.bool_]:
        """Remove keys, in one atomic commit; the graph is repaired at once.

        Parameters
        ----------
        keys : array_like (n,)
            Keys that are not there are no error.

        Returns
        -------
        ndarray (n,) of bool
            True where something was removed; of a key that is named twice, at the first place.
        """
        return self._core.remove(
            self._key_column(keys, "keys"), threads=_require_int("threads", threads, 0, 4096)
        )

    def reserve(self, n: int) -> None:
        """Make room for `n` keys in all. Optional: an index grows by itself, without stalls."""
        self._core.reserve(_require_int("n", n, 0, 2**31 - 2))

    # Reading: see IndexReader ----------------------------------------------------------------

    def snapshot(self) -> IndexSnapshot:
        """Hold the present version, so that several reads see the same one."""
        return IndexSnapshot(self._core, self._core.snapshot())

    def __len__(self) -> int:
        return len(self._core)

    def __repr__(self) -> str:
        return (
            f"<upvec.Index {len(self):,} keys ({self.key}), dim {self.dim}, {self.metric}, "
            f"M {self.M}, ef_construction {self.ef_construction}, {self.simd}>"
        )

    # Files and health --------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file: whole or not at all, synced."""
        self._core.save(os.fspath(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = True) -> Index:
        """Read an index that :meth:`save` wrote.

        Parameters
        ----------
        path : path_like
        mmap : bool
            Read through a private mapping rather than a buffer, which needs half the
            memory while loading. The index is in memory afterwards either way.

        Raises
        ------
        OSError
            The file cannot be read.
        CorruptionError
            It is not an index, is of a newer format, or contradicts its checksums or
            itself; the message says which.
        """
        return cls._of(_core.Index.load(os.fspath(path), mmap=mmap))

    def copy(self) -> Index:
        """An independent index with the same contents, links and digest."""
        return self._of(self._core.copy())

    def check(self) -> CheckReport:
        """Prove the invariants of the graph by looking at all of it."""
        counts = self._core.check()
        for name in ("degrees", "in_degrees"):
            counts[name] = Degrees.of(counts[name])
        return CheckReport(**counts)

    def digest(self) -> str:
        """32 hexadecimal digits of keys, vectors and links.

        The same batches give the same digest, at any number of threads.
        """
        return self._core.digest()

    def stats(self) -> dict[str, Any]:
        """Sizes in bytes by kind, counters since the start, and the degree histogram.

        ``phases`` has the nanoseconds that writing has taken, by what was done: ``plan_ns`` and
        ``lists_ns`` are shared out to the threads of a call, all else is done by one. Only a build
        with ``UPVEC_COUNTERS`` has ``counters``: what searches asked of memory.
        """
        stats = dict(self._core.stats())
        queries = max(1, stats["queries"])
        stats["distances_per_query"] = stats["distances"] / queries
        stats["hops_per_query"] = stats["hops"] / queries
        return stats

    @classmethod
    def _of(cls, core: _core.Index) -> Index:
        index = cls.__new__(cls)
        index._core = core
        return index


def _require_choice(name: str, got: object, choices: Iterable[str]) -> None:
    if got not in tuple(choices):
        wanted = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} = {got!r}; want one of {wanted}")


def _require_int(name: str, got: Any, low: int, high: int) -> int:
    if isinstance(got, (bool, np.bool_)) or not isinstance(got, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; got {type(got).__name__}")
    if not low <= got <= high:
        raise ValueError(f"{name} = {got}; want {low} to {high}")
    return int(got)


def _may_be_cut(keys: Any, vectors: FloatArray, *, cosine: bool) -> bool:
    """Whether no part of a batch can be refused, or meet a key of another part."""
    listed = keys.tolist() if isinstance(keys, np.ndarray) else keys
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    # Well within what the core accepts: 1e-30 (cosine) to 1e36.
    low = 1e-29 if cosine else -1.0
    sound = bool(((squares > low) & (squares < 1e35)).all())
    plain = set(map(type, listed)) in ({int}, {str})
    return sound and plain and len(set(listed)) == len(listed)


def _float_array(values: Any, what: str) -> FloatArray:
    _refuse_masked(values, what)
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        # A list that mixes numbers with something else arrives here as objects or strings.
        raise TypeError(f"{what} have dtype {array.dtype}; want float32, float16 or float64")
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity: refused below
        return np.ascontiguousarray(array, dtype=np.float32)


def _refuse_masked(values: Any, what: str) -> None:
    if isinstance(values, np.ma.MaskedArray):
        masked = np.count_nonzero(np.ma.getmaskarray(values))
        if masked:
            raise ValueError(f"{what} have {masked} masked elements; want none")


def _float_matrix(values: Any, what: str, rows: int) -> FloatArray:
    matrix = _float_array(values, what)
    if matrix.ndim != 2:
        raise ValueError(f"{what} have shape {matrix.shape}; want (n, dim)")
    if len(matrix) != rows:
        raise ValueError(f"got {rows} keys and {len(matrix)} {what}")
    return matrix


def _progress_spans(rows: int) -> Iterator[slice]:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    with tqdm(total=rows, unit="row") as bar:
        for start in range(0, rows, _PROGRESS_ROWS):
            end = min(start + _PROGRESS_ROWS, rows)
            yield slice(start, end)
            bar.update(end - start)
