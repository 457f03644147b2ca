"""The comparison of stores: that it runs, and that it notices a store that is wrong."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from .peers.collection import __main__ as command
from .peers.collection.base import Records, Unable
from .peers.collection.report import faults_of, report
from .peers.collection.upvec_store import UpvecStore
from .peers.collection.worker import (
    SHARES,
    Task,
    Workload,
    behave,
    build,
    recall_of,
    reopen,
    rise,
    workload_of,
)


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


class Slow(UpvecStore):
    """Takes its time for every batch."""

    def upsert(self, rows: Records) -> None:
        time.sleep(0.1)
        super().upsert(rows)


class Plain(UpvecStore):
    """Has no metadata."""

    def update_metadata(self, rows: Records) -> None:
        raise Unable("no metadata")


class Doubling(UpvecStore):
    """Names its nearest row twice."""

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> list[str]:
        found = super().search(query, k, below)
        return [*found[:1], *found[:-1]]


class Hurried(UpvecStore):
    """Says that half of a batch is all of it, unless it is one that is refused."""

    def upsert(self, rows: Records) -> None:
        half = len(rows) // 2
        super().upsert(rows.part(0, half) if half else rows)
        if half:
            super().upsert(rows.part(half, len(rows)))


def test_a_step_that_takes_too_long_is_told_and_those_after_it_go_on(
    work: Workload, tmp_path: Path
) -> None:
    figures = build(Slow(tmp_path, work.queries.shape[1]), work, limit=0.25)
    assert "timeout" in figures["single"]
    assert figures["search None"]["q/s"] > 0
    assert "recall" not in figures["search None"]  # of what was not all written it says nothing
    assert figures["delete rows/s"] > 0


def test_what_a_store_cannot_do_is_no_fault(work: Workload, tmp_path: Path) -> None:
    figures = build(Plain(tmp_path, work.queries.shape[1]), work)
    assert figures["metadata rows/s"] == {"unable": "no metadata"}
    assert faults_of({**figures, "after kill": "9 of 9"}) == []
    assert "no metadata" in report({"plain": figures})


def test_an_answer_twice_is_noticed(work: Workload, tmp_path: Path) -> None:
    figures = build(Doubling(tmp_path, work.queries.shape[1]), work)
    assert "different" in figures["search None"]["error"]


def test_recall_counts_what_was_not_found(work: Workload) -> None:
    rows, queries = work.before_delete, work.queries[:1]
    distances = np.square(rows.vectors - queries[0]).sum(axis=1)
    order = np.argsort(distances).tolist()
    exact = [rows.ids[at] for at in order[:10]]
    assert recall_of(rows, queries, [exact], None) == 1.0
    assert recall_of(rows, queries, [exact[:7]], None) == pytest.approx(0.7)
    far = [*exact[:9], rows.ids[order[-1]]]
    assert recall_of(rows, queries, [far], None) == pytest.approx(0.9)


def test_a_part_of_a_refused_batch_is_told(work: Workload, tmp_path: Path) -> None:
    told = behave(Hurried(tmp_path, work.queries.shape[1]), work.queries.shape[1])
    assert told["a wrong dimension"].endswith("10 of 21 stored")


def test_acknowledged_rows_that_changed_are_noticed_after_a_kill(
    work: Workload, tmp_path: Path
) -> None:
    store = UpvecStore(tmp_path, work.queries.shape[1])
    store.create()
    changed = work.first.part(0, 1)
    store.upsert(work.first.part(1, len(work.first)))
    store.upsert(replace(changed, texts=["another"]))
    store.close()
    after = rise(UpvecStore(tmp_path, work.queries.shape[1]), work)
    assert after["after kill"] == len(work.first)
    assert "another" in after["wrong"][0]


def test_the_command_writes_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "out.json"
    given = ["collection", "--quick", "--peers", "upvec", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*given, "--json", str(kept)])
    command.main()
    figures = json.loads(kept.read_text())["upvec"]
    assert faults_of(figures) == []
    assert figures["after kill"] == "1,000 of 1,000"
    assert figures["reopened"]["checked"] == "contents"
    printed = capsys.readouterr().out
    for head in ("| rows/s", "| queries/s at recall@10", "after kill -9", "NaN in a vector"):
        assert head in printed
