"""The yardsticks themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bench.data import true_distances
from bench.measure import Answers, Quality, far_moves, quality, rate_at_recall

# Keys 1 and 2 are twins, so either is a right answer.
BASE = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
QUERY = np.array([[1, 0]], dtype=np.float32)
TRUTH = true_distances("cosine", BASE, QUERY, 2)


def judged(
    keys: list[int], distances: list[float], live: npt.NDArray[np.bool_] | None = None
) -> Quality:
    answers = Answers(
        np.array([keys]), np.array([distances], dtype=np.float32), np.array([len(keys)])
    )
    return quality(answers, metric="cosine", queries=QUERY, current=BASE, truth=TRUTH, live=live)


@pytest.mark.parametrize("twin", [1, 2])
def test_either_of_two_rows_at_one_distance_is_right(twin: int) -> None:
    answers = judged([0, twin], [0.0, 0.4])
    assert (answers.recall, answers.faults) == (1.0, 0)


def test_a_doubled_answer_counts_once_and_is_a_fault() -> None:
    answers = judged([0, 0], [0.0, 0.0])
    assert (answers.recall, answers.doubled, answers.faults) == (0.5, 1, 1)


def test_an_answer_with_the_distance_of_an_old_vector_is_stale() -> None:
    assert judged([0, 4], [0.0, 0.4]).stale == 1


def test_an_answer_that_names_a_removed_key_is_wrong() -> None:
    live = np.array([True, False, True, True, True])
    answers = judged([0, 1], [0.0, 0.4], live=live)
    assert (answers.recall, answers.gone, answers.stale) == (0.5, 1, 0)


def test_places_that_are_not_filled_are_no_answers() -> None:
    answers = Answers(
        np.zeros((1, 2), dtype=np.int64), np.array([[0, np.inf]], dtype=np.float32), np.array([1])
    )
    judgement = quality(answers, metric="cosine", queries=QUERY, current=BASE, truth=TRUTH)
    assert (judgement.recall, judgement.faults) == (0.5, 0)


def test_squared_distances_are_found_exactly() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32)
    want = np.sort(((rows[:3, None] - rows[None]) ** 2).sum(-1), axis=1)[:, :5]
    np.testing.assert_allclose(true_distances("l2", rows, rows[:3], 5), want, atol=1e-5)


def test_rate_is_interpolated_between_points_of_the_envelope() -> None:
    # The slower point of lower recall is under the envelope and must not bend the curve.
    point = rate_at_recall([0.9, 0.93, 0.99], [1000.0, 10.0, 100.0], 0.95)
    assert point.rate is not None
    assert 100 < point.rate < 1000
    assert not point.at_least


def test_curve_that_ends_below_a_recall_has_no_rate_there() -> None:
    assert rate_at_recall([0.8, 0.9], [200.0, 100.0], 0.95).rate is None


def test_curve_that_begins_above_a_recall_gives_a_bound() -> None:
    point = rate_at_recall([0.97, 1.0], [200.0, 100.0], 0.95)
    assert (point.rate, point.at_least) == (200.0, True)


def test_far_moves_keep_the_set_and_leave_no_vector_in_place() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    keys, moved = far_moves(rows, 20)
    assert len(keys) == 20
    assert (moved[keys] != rows[keys]).any(axis=1).all()
    assert sorted(map(tuple, moved)) == sorted(map(tuple, rows))
