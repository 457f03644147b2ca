"""Index through Python: answers on real embeddings, arguments, shapes, filters, files."""

import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import upvec
from upvec.index import SearchResult
from upvec.sample import Sample

Floats = npt.NDArray[np.float32]
METRICS = ["l2", "ip", "cosine"]
KEEPS = ["f32", "bf16", "none"]
DIM = 8


def recall(found: Any, exact: Any) -> float:
    """Share of the true neighbours that were found; a tie at the edge counts as found."""
    edge = exact.distances[:, -1:] * (1 + 1e-6) + 1e-6
    return float((found.distances <= edge).mean())


def normal(rows: int, dim: int = DIM, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def filled(
    rows: int = 300, key: str = "int64", metric: str = "l2", keep: str = "f32"
) -> upvec.Index:
    ix = upvec.Index(DIM, metric=metric, key=key, keep=keep)
    ix.upsert(keys_of(key, range(rows)), normal(rows))
    return ix


def happened(result: upvec.UpsertResult) -> dict[str, int]:
    """The outcomes that occurred."""
    return {outcome: n for outcome, n in result.counts.items() if n}


def keys_of(key: str, numbers: Any) -> Any:
    numbers = list(numbers)
    return np.array(numbers, np.int64) if key == "int64" else [f"key {n} ü" for n in numbers]


# Recall ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_recall_on_real_embeddings_is_high_and_survives_a_turnover(
    sample: Sample, metric: str, keep: str
) -> None:
    n = 1500
    keys = np.arange(n)
    queries = sample.v2[n:]
    ix = upvec.Index(384, metric=metric, keep=keep)
    ix.upsert(keys, sample.v1[:n])
    assert recall(ix.search(queries), ix.exact_search(queries)) >= 0.95
    assert ix.check().ok

    # Every key takes the vector of another record: a far move for all of them.
    moved = sample.v2[np.random.default_rng(1).permutation(n)]
    for start in range(0, n, 500):
        ix.upsert(keys[start : start + 500], moved[start : start + 500])
    fresh = upvec.Index(384, metric=metric, keep=keep)
    fresh.upsert(keys, moved)
    after = recall(ix.search(queries), ix.exact_search(queries))
    assert after >= recall(fresh.search(queries), fresh.exact_search(queries)) - 0.005
    assert after >= 0.95
    assert ix.check().ok


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_without_an_ef_nearly_all_are_found(sample: Sample, metric: str, k: int) -> None:
    ix = upvec.Index(384, metric=metric)
    ix.upsert(np.arange(1800), sample.v1[:1800])
    queries = sample.v1[1800:]
    assert recall(ix.search(queries, k), ix.exact_search(queries, k)) >= 0.98


@pytest.mark.parametrize(
    ("codes", "keep"), [("int8", "f32"), ("none", "f32"), ("int8", "bf16"), ("int8", "none")]
)
@pytest.mark.parametrize("how", ["insert", "move"])
@pytest.mark.parametrize("seed", range(5))
def test_a_burst_far_from_all_else_is_found(
    sample: Sample, codes: str, keep: str, how: str, seed: int
) -> None:
    # Rows that arrive together and are nearest to each other: some must link to the others.
    draw = np.random.default_rng(seed)
    rows, burst = len(sample.v1), 400
    spread = draw.normal(size=(burst + 100, 384))
    spread *= 0.08 / np.linalg.norm(spread, axis=1, keepdims=True)
    centre = draw.normal(size=384) if seed else -sample.v1.mean(axis=0)
    vectors = (centre / np.linalg.norm(centre) + spread).astype(np.float32)
    ix = upvec.Index(384, metric="cosine", codes=codes, keep=keep, M=8)
    ix.upsert(np.arange(rows), sample.v1)
    keys = rows + np.arange(burst) if how == "insert" else draw.permutation(rows)[:burst]
    ix.upsert(keys, vectors[:burst])
    queries = vectors[burst:]
    assert recall(ix.search(queries, ef=64), ix.exact_search(queries)) >= 0.9
    assert ix.check().ok


def true_recall(ix: upvec.Index, base: Floats, queries: Floats, **options: Any) -> float:
    """Share of the ten nearest of `base` that are among what a search finds."""
    distances = ((queries[:, None] - base[None]) ** 2).sum(axis=2)
    nearest = np.argpartition(distances, 10, axis=1)[:, :10]
    found = ix.search(queries, 10, **options).keys
    return float(np.mean([np.isin(*pair).mean() for pair in zip(nearest, found, strict=True)]))


SHIFTS = {
    "a hundredth": lambda x: 0.01 * x,
    "a hundredfold": lambda x: 100.0 * x,
    "an offset": lambda x: x + 0.1,
    "away along a line": lambda x: x + 3.0 * x[0],
    "turned around": lambda x: x[:, ::-1].copy(),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_of_the_data_costs_codes_no_recall(sample: Sample, shift: str) -> None:
    # Codes are made of each vector alone: it does not matter what came before. Queries are of the
    # second half; the true neighbours are those of the vectors as written.
    base = sample.v1[:1600].copy()
    base[800:] = SHIFTS[shift](base[800:])
    queries = SHIFTS[shift](sample.v1[1600:])

    def reached(**options: str) -> float:
        ix = upvec.Index(384, **options)
        ix.upsert(np.arange(800), base[:800])
        ix.upsert(np.arange(800, 1600), base[800:])
        assert ix.check().ok
        return true_recall(ix, base, queries, ef=128)

    assert reached() >= reached(codes="none") - 0.002
    # What is lost here is what rounding does to the order of neighbours.
    assert reached(keep="none") >= reached(codes="none") - 0.01


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("metric", METRICS)
def test_exact_search_agrees_with_numpy(metric: str, keep: str) -> None:
    ix, stored, queries = filled(metric=metric, keep=keep), normal(300), normal(5, seed=9)
    if metric == "cosine":
        stored = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    if keep != "f32":
        stored = ix.get(np.arange(300))[0]
    if metric == "cosine":  # half the squared distance is 1 - dot, for vectors of unit length
        unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        truth = ((unit[:, None] - stored[None]) ** 2).sum(axis=2) / 2
    elif metric == "ip":
        truth = 1 - queries @ stored.T
    else:
        truth = ((queries[:, None] - stored[None]) ** 2).sum(axis=2)
    result = ix.exact_search(queries, 7)
    np.testing.assert_array_equal(result.keys, np.argsort(truth, axis=1, kind="stable")[:, :7])
    np.testing.assert_allclose(result.distances, np.sort(truth, axis=1)[:, :7], atol=1e-4)


# Shapes and types -----------------------------------------------------------------------


@pytest.mark.parametrize("key", ["int64", "str"])
def test_results_have_the_promised_shapes_and_types(key: str) -> None:
    ix = filled(key=key)
    result = ix.search(normal(4, seed=1), 6)
    assert result.keys.shape == result.distances.shape == (4, 6)
    assert result.counts.shape == (4,)
    assert result.distances.dtype == np.float32
    assert result.counts.dtype == np.int64
    assert result.keys.dtype == (np.int64 if key == "int64" else np.dtype(object))
    vectors, found = ix.get(keys_of(key, [3, 999, 4]))
    assert vectors.shape == (3, DIM)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.flags.owndata or vectors.base is not None
    np.testing.assert_array_equal(found, [True, False, True])
    np.testing.assert_array_equal(vectors, [normal(300)[3], np.zeros(DIM), normal(300)[4]])
    outcome = ix.upsert(keys_of(key, [1, 1000]), normal(2, seed=2))
    assert outcome.status.dtype == np.uint8
    np.testing.assert_array_equal(outcome.status, [upvec.Outcome.updated, upvec.Outcome.inserted])
    assert happened(outcome) == {"updated": 1, "inserted": 1}
    removed = ix.remove(keys_of(key, [1, 5000]))
    assert removed.dtype == np.bool_
    np.testing.assert_array_equal(removed, [True, False])
    assert sorted(ix.keys()) == sorted(keys_of(key, [0, *range(2, 300), 1000]))
    assert isinstance(ix.keys()[0], np.int64 if key == "int64" else str)


def test_a_single_query_is_one_row() -> None:
    ix = filled()
    one = ix.search(normal(1, seed=1)[0], 3)
    assert one.keys.shape == (1, 3)
    np.testing.assert_array_equal(one.keys, ix.search(normal(1, seed=1), 3).keys)
    assert len(ix.range_search(normal(1, seed=1)[0], 1.0)) == 1


@pytest.mark.parametrize("key", ["int64", "str"])
def test_a_query_is_answered_alike_in_every_form(key: str) -> None:
    ix = filled(key=key)
    plain = normal(1, seed=1)[0]
    wide = np.zeros((DIM, 2), np.float32)
    wide[:, 0] = plain
    aside = np.frombuffer(b"\0" + plain.tobytes(), np.uint8)[1:].view(np.float32)
    forms = [
        plain[None],
        plain.astype(np.float64),
        plain.astype(">f4"),
        plain.tolist(),
        wide[:, 0],
        aside,
        np.ma.array(plain),
        plain.view(np.matrix),
    ]
    with ix.snapshot() as snap:
        for search in (ix.search, snap.search):
            want = search(plain, 3, ef=20, threads=1, where=ix.filter(keys_of(key, range(200))))
            for form in forms:
                got = search(form, np.int64(3), ef=np.int32(20), where=keys_of(key, range(200)))
                for one, other in zip(got, want, strict=True):
                    np.testing.assert_array_equal(one, other)


def test_a_result_unpacks_shows_itself_and_cannot_be_changed() -> None:
    result = filled().search(normal(1), 2)
    keys, distances, counts = result
    assert keys is result.keys
    assert distances is result.distances
    assert counts is result.counts
    assert repr(result).startswith("SearchResult(keys=array([[")
    assert isinstance(result, SearchResult)
    with pytest.raises(AttributeError):
        result.keys = keys  # type: ignore[misc]
    keys[0, 0] = 5  # the arrays are the caller's


@pytest.mark.parametrize("key", ["int64", "str"])
def test_unfilled_places_are_empty(key: str) -> None:
    ix = filled(3, key)
    result = ix.search(normal(2, seed=1), 5)
    np.testing.assert_array_equal(result.counts, [3, 3])
    assert np.isinf(result.distances[:, 3:]).all()
    assert (result.keys[:, 3:] == (0 if key == "int64" else "")).all()
    assert ix.search(normal(1), 1_000_000).counts[0] == 3


@pytest.mark.parametrize("key", ["int64", "str"])
def test_an_empty_index_answers_with_nothing(key: str) -> None:
    ix = upvec.Index(DIM, key=key)
    assert len(ix) == 0
    assert ix.search(normal(2), 3).counts.tolist() == [0, 0]
    assert ix.exact_search(normal(2), 3).counts.tolist() == [0, 0]
    assert ix.range_search(normal(2), 1e9).offsets.tolist() == [0, 0, 0]
    assert ix.keys().shape == (0,)
    assert ix.check().ok
    assert happened(ix.upsert([], np.empty((0, DIM), np.float32))) == {}
    assert ix.remove([]).shape == (0,)
    assert ix.get([])[0].shape == (0, DIM)
    assert ix.search(np.empty((0, DIM)), 3).keys.shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_other_number_types_and_layouts_are_converted(dtype: type) -> None:
    wide = (normal(100, 2 * DIM) * 10).astype(dtype)
    for vectors in (wide[:, ::2], np.asfortranarray(wide[:, :DIM]), wide[::-1, :DIM]):
        ix = upvec.Index(DIM)
        ix.upsert(np.arange(200)[::2], vectors)
        np.testing.assert_array_equal(ix.get(np.arange(0, 200, 2))[0], vectors.astype(np.float32))
        query = vectors[::-1][:3]
        np.testing.assert_array_equal(ix.search(query, 1).distances[:, 0], [0, 0, 0])


def test_arguments_are_not_changed_and_results_are_copies() -> None:
    vectors = normal(10)
    vectors.flags.writeable = False
    keys = np.arange(10)
    keys.flags.writeable = False
    ix = upvec.Index(DIM, metric="cosine")
    ix.upsert(keys, vectors)
    got = ix.get(keys)[0]
    got[:] = 7
    np.testing.assert_allclose(np.linalg.norm(ix.get(keys)[0], axis=1), 1, rtol=1e-6)


def test_keys_of_every_int64_and_every_string_are_kept() -> None:
    ix = upvec.Index(1)
    numbers = np.array([0, -1, 2**63 - 1, -(2**63), 1 << 40])
    ix.upsert(numbers, np.arange(5.0).reshape(5, 1))
    np.testing.assert_array_equal(ix.get(numbers)[0][:, 0], np.arange(5))
    assert set(ix.keys()) == set(numbers)
    sx = upvec.Index(1, key="str")
    texts = ["", "a", "a\0", "ü", "日本", "x" * 100_000]
    sx.upsert(texts, np.arange(6.0).reshape(6, 1))
    np.testing.assert_array_equal(sx.get(np.array(texts, object))[0][:, 0], np.arange(6))
    np.testing.assert_array_equal(sx.get(np.array(["a", "ü"]))[0][:, 0], [1, 3])
    assert set(sx.keys()) == set(texts)
    assert sx.search([1.0], 1).keys[0, 0] == "a"


def test_membership() -> None:
    ix, sx = filled(), filled(key="str")
    assert 3 in ix
    assert np.int64(3) in ix
    assert 300 not in ix
    assert "3" not in ix
    assert None not in ix
    assert 2**70 not in ix
    assert "key 3 ü" in sx
    assert "" not in sx
    assert 3 not in sx


# Outcomes -------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("metric", METRICS)
def test_unchanged_rows_do_nothing(metric: str, keep: str) -> None:
    ix = filled(metric=metric, keep=keep)
    digest, seq = ix.digest(), ix.stats()["seq"]
    assert happened(ix.upsert(np.arange(300), normal(300))) == {"unchanged": 300}
    assert happened(ix.upsert(np.arange(300), ix.get(np.arange(300))[0])) == {"unchanged": 300}
    assert (ix.digest(), ix.stats()["seq"]) == (digest, seq)


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_kept_is_as_near_as_promised(metric: str) -> None:
    written = normal(300)
    if metric == "cosine":
        written /= np.linalg.norm(written, axis=1, keepdims=True)
    halves, codes = (filled(metric=metric, keep=keep) for keep in ("bf16", "none"))
    off = np.abs(halves.get(np.arange(300))[0] - written)
    assert (off <= 2**-8 * np.abs(written)).all()
    decoded = codes.get(np.arange(300))[0]
    if metric == "cosine":  # scaled to unit length after it was rounded
        np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-6)
    step = np.abs(written).max(axis=1, keepdims=True) / 127
    assert (np.abs(decoded - written) <= step * (0.5001 if metric != "cosine" else 1)).all()


def test_what_is_kept_says_how_much_memory_it_takes() -> None:
    def sizes(keep: str) -> tuple[int, int]:
        ix = upvec.Index(256, keep=keep)
        ix.reserve(20_000)
        stats = ix.stats()
        return stats["vector_bytes"] // 20_000, stats["code_bytes"] // 20_000

    assert sizes("f32") == (1024, 264)
    assert sizes("bf16") == (512, 264)
    assert sizes("none") == (0, 264)


def test_codes_alone_move_by_whole_steps() -> None:
    ix = filled(keep="none")
    vectors = normal(300)
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    first = vectors[:, :1].copy()
    assert happened(ix.upsert(np.arange(300), vectors)) == {"unchanged": 300}
    vectors[:, :1] = np.where(np.abs(first) > 0.5, first - np.sign(first) * 2 * step, first)
    outcome = ix.upsert(np.arange(300), vectors)
    assert outcome.counts["updated"] == np.count_nonzero(np.abs(first) > 0.5)


def test_modes_and_duplicates() -> None:
    ix = filled(10)
    new = normal(3, seed=5)
    outcome = ix.upsert([8, 9, 10], new, mode="insert_only")
    assert happened(outcome) == {"skipped": 2, "inserted": 1}
    outcome = ix.upsert([9, 10, 11], new, mode="update_only")
    assert happened(outcome) == {"updated": 2, "skipped": 1}
    assert 11 not in ix
    ix.upsert([20, 20, 20], new, duplicates="first")
    np.testing.assert_array_equal(ix.get([20])[0][0], new[0])
    outcome = ix.upsert([20, 20, 20], new, duplicates="last")
    np.testing.assert_array_equal(ix.get([20])[0][0], new[2])
    assert outcome.status.tolist()[:2] == [upvec.Outcome.skipped] * 2


def test_progress_gives_the_same_result() -> None:
    pytest.importorskip("tqdm")
    ix, bar = upvec.Index(2), upvec.Index(2)
    keys, vectors = np.arange(5000), normal(5000, 2)
    outcome = bar.upsert(keys, vectors, progress=True)
    assert happened(outcome) == {"inserted": 5000}
    assert ix.upsert(keys, vectors).counts == outcome.counts
    assert len(bar) == len(ix)


def test_progress_finds_duplicates_however_far_apart_they_are() -> None:
    pytest.importorskip("tqdm")
    keys, vectors = np.arange(9000), normal(9000, 2)
    keys[8500] = keys[3]
    ix = upvec.Index(2)
    with pytest.raises(upvec.DuplicateKeyError):
        ix.upsert(keys, vectors, progress=True)
    assert len(ix) == 0
    outcome = ix.upsert(keys, vectors, progress=True, duplicates="first")
    assert happened(outcome) == {"inserted": 8999, "skipped": 1}
    np.testing.assert_array_equal(ix.get([3])[0][0], vectors[3])


def test_progress_checks_every_row_before_the_first_is_written() -> None:
    pytest.importorskip("tqdm")
    vectors = normal(9000, 2)
    vectors[8500] = np.nan
    bar = upvec.Index(2)
    with pytest.raises(upvec.InvalidRowError, match="row 8500"):
        bar.upsert(np.arange(9000), vectors, progress=True)
    assert len(bar) == 0
    assert bar.check().ok


@pytest.mark.parametrize("part", ["keys", "vectors"])
def test_masked_elements_are_refused(part: str) -> None:
    batch = {"keys": np.ma.array([1, 2]), "vectors": np.ma.array(normal(2, 2))}
    ix = upvec.Index(2)
    ix.upsert(**batch)
    batch[part][1] = np.ma.masked
    with pytest.raises(ValueError, match=f"{part} have . masked elements"):
        ix.upsert(**batch)


# Errors ---------------------------------------------------------------------------------

BAD_CALLS: list[tuple[str, type[Exception], str, Callable[[upvec.Index], Any]]] = [
    ("nan", upvec.InvalidRowError, "row 1", lambda ix: ix.upsert([1, 2], bad_row(np.nan))),
    ("inf", upvec.InvalidRowError, "row 1", lambda ix: ix.upsert([1, 2], bad_row(np.inf))),
    (
        "beyond float32",
        upvec.InvalidRowError,
        "row 1",
        lambda ix: ix.upsert([1, 2], bad_row(1e300)),
    ),
    ("zero", upvec.InvalidRowError, "zero", lambda ix: ix.upsert([1], np.zeros((1, DIM)))),
    ("dim", upvec.DimensionError, "dim 7", lambda ix: ix.upsert([1], np.ones((1, 7)))),
    ("1-D", ValueError, "shape", lambda ix: ix.upsert([1], np.ones(DIM))),
    ("3-D", ValueError, "shape", lambda ix: ix.upsert([1], np.ones((1, 1, DIM)))),
    ("rows", ValueError, "2 keys", lambda ix: ix.upsert([1, 2], np.ones((1, DIM)))),
    ("text", TypeError, "dtype", lambda ix: ix.upsert([1], [["a"] * DIM])),
    ("complex", TypeError, "dtype", lambda ix: ix.upsert([1], np.ones((1, DIM)) * 1j)),
    ("twice", upvec.DuplicateKeyError, "key 5", lambda ix: ix.upsert([5, 5], normal(2))),
    ("mode", ValueError, "mode", lambda ix: ix.upsert([1], normal(1), mode="replace")),
    ("duplicates", ValueError, "dup", lambda ix: ix.upsert([1], normal(1), duplicates="all")),
    ("threads", ValueError, "threads", lambda ix: ix.upsert([1], normal(1), threads=-1)),
    ("threads type", TypeError, "threads", lambda ix: ix.upsert([1], normal(1), threads=1.5)),
    ("one key", TypeError, "keys", lambda ix: ix.upsert(1, normal(1))),
    ("key shape", ValueError, "shape", lambda ix: ix.upsert(np.array([[1]]), normal(1))),
    ("str keys", TypeError, "", lambda ix: ix.upsert(["a"], normal(1))),
    ("float keys", TypeError, "", lambda ix: ix.upsert(np.array([1.0]), normal(1))),
    ("bool keys", TypeError, "", lambda ix: ix.upsert(np.array([True]), normal(1))),
    ("key None", TypeError, "", lambda ix: ix.upsert([None], normal(1))),
    ("large key", (OverflowError, ValueError), "", lambda ix: ix.upsert([2**63], normal(1))),
    ("remove str", TypeError, "", lambda ix: ix.remove(["a"])),
    ("get one", TypeError, "keys", lambda ix: ix.get(3)),
    ("k 0", ValueError, "k = 0", lambda ix: ix.search(normal(1), 0)),
    ("k huge", upvec.LimitError, "k = 1073741824", lambda ix: ix.search(normal(1), 2**30)),
    (
        "count of duplicates",
        upvec.DuplicateKeyError,
        "2 such rows",
        lambda ix: ix.upsert([7, 7, 7], normal(3)),
    ),
    ("k type", TypeError, "k must", lambda ix: ix.search(normal(1), 2.0)),
    ("ef 0", ValueError, "ef = 0", lambda ix: ix.search(normal(1), 2, ef=0)),
    ("query dim", upvec.DimensionError, "dim 3", lambda ix: ix.search([1, 2, 3])),
    ("query nan", upvec.InvalidRowError, "row 0", lambda ix: ix.search([np.nan] * DIM)),
    ("query 3-D", ValueError, "", lambda ix: ix.search(np.ones((1, 1, DIM)))),
    ("exact k 0", ValueError, "k = 0", lambda ix: ix.exact_search(normal(1), 0)),
    ("radius", ValueError, "radius", lambda ix: ix.range_search(normal(1), np.nan)),
    ("where", TypeError, "", lambda ix: ix.search(normal(1), where=["a"])),
    (
        "foreign filter",
        ValueError,
        "another",
        lambda ix: ix.search(normal(1), where=filled(3).filter([1])),
    ),
    ("reserve", ValueError, "n = -1", lambda ix: ix.reserve(-1)),
    ("load", OSError, "nowhere", lambda ix: upvec.Index.load("/nowhere/at/all")),
    ("load folder", OSError, "", lambda ix: upvec.Index.load("/")),
    ("save", OSError, "nowhere", lambda ix: ix.save("/nowhere/at/all")),
]


def bad_row(value: float) -> npt.NDArray[np.float64]:
    vectors = np.ones((2, DIM))
    vectors[1, 3] = value
    return vectors


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [case[1:] for case in BAD_CALLS],
    ids=[case[0] for case in BAD_CALLS],
)
def test_a_bad_argument_is_a_clear_error_and_changes_nothing(
    error: type[Exception], words: str, call: Callable[[upvec.Index], Any]
) -> None:
    ix = filled(50, metric="cosine")
    digest, seq = ix.digest(), ix.stats()["seq"]
    with pytest.raises(error) as info:
        call(ix)
    assert words in str(info.value)
    assert str(info.value)
    assert (ix.digest(), ix.stats()["seq"]) == (digest, seq)
    assert ix.check().ok


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"dim": 65537},
        {"dim": 4, "metric": "hamming"},
        {"dim": 4, "key": "bytes"},
        {"dim": 4, "codes": "pq"},
        {"dim": 4, "keep": "f64"},
        {"dim": 4, "codes": "none", "keep": "none"},
        {"dim": 4, "M": 3},
        {"dim": 4, "ef_construction": 0},
        {"dim": 4, "seed": -1},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=list(options)[-1]):
        upvec.Index(**options)


def test_errors_carry_the_rows_and_dimensions() -> None:
    ix = filled(5)
    vectors = normal(4)
    vectors[[1, 3], 0] = np.nan
    with pytest.raises(upvec.InvalidRowError) as invalid:
        ix.upsert([1, 2, 3, 4], vectors)
    assert list(invalid.value.rows) == [1, 3]
    with pytest.raises(upvec.DimensionError) as dimension:
        ix.upsert([1], np.ones((1, 3)))
    assert (dimension.value.got, dimension.value.want) == (3, DIM)


def test_pickling_is_not_offered() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(filled(3))


# Filters and ranges ---------------------------------------------------------------------


@pytest.mark.parametrize("key", ["int64", "str"])
@pytest.mark.parametrize("allowed", [0, 1, 20, 250])
def test_filters_by_keys_and_compiled_agree_with_exact_search(key: str, allowed: int) -> None:
    ix = filled(300, key)
    numbers = np.random.default_rng(3).permutation(300)[:allowed]
    keys = keys_of(key, numbers)
    compiled = ix.filter(keys)
    assert len(compiled) == allowed
    queries = normal(10, seed=4)
    by_keys = ix.search(queries, 8, where=keys, ef=300)
    by_filter = ix.search(queries, 8, where=compiled, ef=300)
    exact = ix.exact_search(queries, 8, where=compiled)
    np.testing.assert_array_equal(by_keys.keys, by_filter.keys)
    np.testing.assert_array_equal(by_keys.keys, exact.keys)
    assert exact.counts.tolist() == [min(8, allowed)] * 10
    assert set(exact.keys[:, : min(8, allowed)].ravel()) <= set(keys)
    ranged = ix.range_search(queries, 1e9, where=compiled)
    assert np.diff(ranged.offsets).tolist() == [allowed] * 10


def test_a_filter_ignores_unknown_keys_and_follows_removals() -> None:
    ix = filled(50)
    compiled = ix.filter([3, 4, 999, 3])
    assert len(compiled) == 2
    ix.remove([3])
    ix.upsert([999], normal(1, seed=8))
    assert ix.search(normal(1), 5, where=compiled).keys[0, :2].tolist() == [4, 0]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("metric", METRICS)
def test_range_search_agrees_with_exact_search(metric: str, keep: str) -> None:
    ix = filled(400, metric=metric, keep=keep)
    queries = normal(6, seed=4)
    everything = ix.exact_search(queries, 400)
    for radius in (-10.0, 0.5, 5.0, 1e9):
        result = ix.range_search(queries, radius)
        assert len(result) == 6
        assert result.offsets.dtype == np.int64
        for query in range(6):
            keys, distances = result[query]
            within = everything.distances[query] <= radius
            np.testing.assert_array_equal(keys, everything.keys[query][within])
            np.testing.assert_array_equal(distances, everything.distances[query][within])


# Files, copies, threads -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["int64", "str"])
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("keep", KEEPS)
def test_save_and_load_bring_back_the_same_index(
    tmp_path: Path, key: str, mmap: bool, keep: str
) -> None:
    ix = filled(200, key, "cosine", keep)
    ix.remove(keys_of(key, range(50)))
    ix.save(tmp_path / "ix")
    back = upvec.Index.load(tmp_path / "ix", mmap=mmap)
    assert back.digest() == ix.digest()
    assert (back.dim, back.metric, back.key, back.M) == (DIM, "cosine", key, 16)
    assert (back.codes, back.keep) == ("int8", keep)
    assert back.check().ok
    np.testing.assert_array_equal(back.search(normal(9)).keys, ix.search(normal(9)).keys)
    (tmp_path / "ix").write_bytes(b"garbage")  # nothing of the file is needed any more
    assert back.search(normal(1), 3).counts[0] == 3
    with pytest.raises(upvec.CorruptionError):
        upvec.Index.load(tmp_path / "ix")


def test_a_copy_is_independent() -> None:
    ix = filled()
    twin = ix.copy()
    assert twin.digest() == ix.digest()
    twin.remove(np.arange(100))
    assert len(ix) == 300
    assert twin.digest() != ix.digest()


def test_stats_say_how_long_each_phase_of_writing_took() -> None:
    ix = upvec.Index(DIM)
    began = time.perf_counter_ns()
    ix.upsert(np.arange(2000), normal(2000), threads=2)
    phases = ix.stats()["phases"]
    elapsed_ns = time.perf_counter_ns() - began
    sections = phases.pop("sections")
    assert sections >= 2 * 2000 / 256  # plans and lists of every sub-batch
    assert all(ns > 0 for ns in phases.values())
    assert elapsed_ns / 2 < sum(phases.values()) < elapsed_ns
    ix.search(normal(100))
    assert ix.upsert(np.arange(2000), normal(2000)).counts["unchanged"] == 2000
    after = ix.stats()["phases"]
    assert after.pop("sections") == sections
    assert after.pop("check_ns") > phases.pop("check_ns")
    assert after == phases


def test_the_number_of_threads_of_a_search_does_not_matter() -> None:
    ix = filled(1500)
    queries = normal(100, seed=2)
    answers = [ix.search(queries, threads=threads).keys for threads in (1, 4)]
    np.testing.assert_array_equal(*answers)


def test_readers_go_on_beside_a_writer() -> None:
    """Every upsert writes one number into all its vectors: a get must see one number only."""
    ix = upvec.Index(DIM)
    keys = np.arange(200)
    ix.upsert(keys, np.zeros((200, DIM)))
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            vectors, found = ix.get(keys)
            if not found.all() or len(np.unique(vectors)) != 1:
                wrong.append("half a batch")
            answer = ix.search(np.zeros(DIM), 200)
            if answer.counts[0] != 200 or len(np.unique(answer.keys)) != 200:
                wrong.append("a key twice or missing")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for generation in range(1, 60):
        ix.upsert(keys, np.full((200, DIM), generation))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert ix.check().ok


def test_check_reports_how_many_links_rows_have() -> None:
    index = upvec.Index(8, M=8)
    assert index.check().degrees.maximum == 0
    index.upsert(np.arange(400), np.random.default_rng(0).standard_normal((400, 8)))
    report = index.check()
    for degrees in (report.degrees, report.in_degrees):
        assert sum(degrees.histogram) == 400
        assert degrees.zero == degrees.histogram[0]
        assert degrees.histogram[degrees.minimum] > 0
        assert len(degrees.histogram) > degrees.maximum
    # Every link starts somewhere and leads somewhere.
    assert report.degrees.mean == report.in_degrees.mean > 4
    assert report.degrees.maximum <= 16
    assert report.in_degrees.zero == 0


@pytest.mark.parametrize("codes", ["int8", "none"])
def test_searches_beside_a_writer_find_as_many_as_there_are(codes: str) -> None:
    # A walk may start at a slot that is just being removed, or come down to one that is just
    # being inserted: neither has a list that leads on.
    n, k = 2000, 10
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, 8)).astype(np.float32)
    ix = upvec.Index(8, codes=codes, M=4, ef_construction=40)
    ix.upsert(np.arange(n), vectors)
    done = threading.Event()
    short: list[int] = []

    def read() -> None:
        while not done.is_set():
            found = int(ix.search(vectors[5], k, ef=32).counts[0])
            if found < k:
                short.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            keys = rng.choice(n, 300, replace=False)
            ix.remove(keys, threads=1)
            ix.upsert(keys, vectors[keys], threads=1)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not short


def test_queries_from_another_process_take_the_short_way() -> None:
    ix = upvec.Index(4)
    ix.upsert(np.arange(9), np.eye(9, 4, dtype=np.float32))
    query = np.ones(4, dtype=np.float32)
    sent = pickle.loads(pickle.dumps(query))
    assert sent.dtype is not query.dtype
    core: Any = ix._core
    for plain in (query, sent):
        assert core.search_plain(plain, 3, None, None, 1, None) is not None
    for other in (query.astype(">f4"), query.astype(np.float64), [1.0] * 4):
        assert core.search_plain(other, 3, None, None, 1, None) is None
        assert ix.search(other, 3).keys.tolist() == ix.search(query, 3).keys.tolist()
