"""The comparison of stores: that it runs, and that it notices a store that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from .peers.collection.base import Records
from .peers.collection.upvec_store import UpvecStore
from .peers.collection.worker import SHARES, Task, Workload, behave, build, reopen, workload_of


@pytest.fixture(scope="module")
def work() -> Workload:
    return workload_of(Task("upvec", "", None, "sample", 600, 10, 5))


def test_every_step_has_its_figure(work: Workload, tmp_path: Path) -> None:
    dim = work.queries.shape[1]
    figures = build(UpvecStore(tmp_path, dim), work)
    for step in ("load", "update", "metadata", "delete"):
        assert figures[f"{step} rows/s"] > 0
    assert figures["single"]["found at once"] == 1.0
    for share in SHARES:
        assert figures[f"search {share}"]["recall"] >= 0.95
    assert reopen(UpvecStore(tmp_path, dim), work)["wrong"] == []


def test_bad_rows_are_told(work: Workload, tmp_path: Path) -> None:
    told = behave(UpvecStore(tmp_path, work.queries.shape[1]), work.queries.shape[1])
    assert len(told) == 3
    assert all(answer.endswith("nothing stored") for answer in told.values())


class Forgetful(UpvecStore):
    """Loses the last row of every batch."""

    def upsert(self, rows: Records) -> None:
        super().upsert(rows.part(0, len(rows) - 1) if len(rows) > 1 else rows)


class Stale(UpvecStore):
    """Says that it has changed the metadata."""

    def update_metadata(self, rows: Records) -> None:
        pass


class Careless(UpvecStore):
    """Searches without looking at the condition."""

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        return super().search(query, k, None)


class Clinging(UpvecStore):
    """Deletes nothing."""

    def delete(self, ids: list[str]) -> None:
        pass


@pytest.mark.parametrize("kind", [Forgetful, Stale, Clinging])
def test_what_is_lost_or_stale_is_noticed(work: Workload, tmp_path: Path, kind: Any) -> None:
    dim = work.queries.shape[1]
    build(kind(tmp_path, dim), work)
    assert reopen(UpvecStore(tmp_path, dim), work)["wrong"]


def test_a_hit_that_does_not_fulfil_the_condition_is_noticed(
    work: Workload, tmp_path: Path
) -> None:
    figures = build(Careless(tmp_path, work.queries.shape[1]), work)
    assert "condition" in figures["search 0.02"]["error"]
