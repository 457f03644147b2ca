"""Moves are what they say they are, and a fault does not pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.churn import __main__ as command
from bench.churn.moves import KINDS, neighbour_distance
from bench.churn.run import Plan
from bench.data import Dataset, load
from bench.peers.upvec_index import UpvecIndex


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load("sample")
    return Dataset("part", whole.metric, whole.base[:400], whole.queries, whole.reembedded)


@pytest.mark.parametrize("kind", ["unrelated", "cluster"])
def test_moves_among_keys_keep_the_set_of_vectors(data: Dataset, kind: str) -> None:
    wanted = sorted(map(bytes, data.base))
    before = data.base
    for change in KINDS[kind](data, 3):
        assert sorted(map(bytes, change.current)) == wanted
        assert (change.current != before).any(axis=1).mean() > 0.95
        before = change.current


@pytest.mark.parametrize("percent", [1, 3, 10, 30])
def test_drift_has_the_length_that_it_says(data: Dataset, percent: int) -> None:
    wanted = percent / 100 * neighbour_distance(data)
    before = data.base
    for change in KINDS[f"drift-{percent}"](data, 2):
        moved = np.linalg.norm(change.current.astype(np.float64) - before, axis=1)
        # Unit length again, a vector has lost what went along itself.
        assert np.median(moved) == pytest.approx(wanted, rel=0.05)
        before = change.current


def test_a_burst_is_near_itself_and_far_from_all_else(data: Dataset) -> None:
    (change,) = KINDS["burst"](data, 1)
    new = change.current[change.keys]
    inside = np.linalg.norm(new - new[0], axis=1).max()
    outside = np.linalg.norm(data.base - new[0], axis=1).min()
    assert inside < 0.3 * neighbour_distance(data)
    assert outside > 3 * inside


def test_half_is_removed_and_comes_back(data: Dataset) -> None:
    changes = list(KINDS["reinsert"](data, 2))
    assert [change.what for change in changes] == ["remove", "insert"] * 2
    for gone, back in zip(changes[::2], changes[1::2], strict=True):
        assert (~gone.live).sum() == len(gone.keys) == len(data) // 2
        assert not gone.live[gone.keys].any()
        assert back.live.all()
        assert np.array_equal(gone.keys, back.keys)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SMOKE", Plan(("unrelated",), turnovers=1, rounds=0))


@pytest.mark.usefixtures("quick")
def test_the_smoke_run_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--smoke"]) == 0
    assert "FAULT" not in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_an_update_that_does_not_arrive_fails_the_smoke_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arrives = UpvecIndex.update

    def half(self: UpvecIndex, keys: Any, vectors: Any) -> None:
        arrives(self, keys[::2], vectors[::2])

    monkeypatch.setattr(UpvecIndex, "update", half)
    assert command.main(["--smoke"]) == 1
    said = capsys.readouterr().err
    assert "stale answers" in said
    assert "behind a fresh build" in said


@pytest.mark.usefixtures("quick")
def test_a_broken_graph_fails_the_smoke_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(UpvecIndex, "check", lambda self: {"ok": 0, "below_floor": 0})
    assert command.main(["--smoke"]) == 1
    assert "check" in capsys.readouterr().err
