"""Runbooks: what is read, made and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data import Dataset, load
from bench.measure import Answers
from bench.peers.base import Keys, Settings
from bench.runbook import format as runbooks
from bench.runbook.__main__ import KINDS, main, make
from bench.runbook.clusters import by_cluster
from bench.runbook.format import Delete, Insert, Replace, RunbookError, Search, Span, Tags
from bench.runbook.replay import replay, rows_for

GOOD = """
random-xs:
  max_pts: 100
  1: {operation: "insert", start: 0, end: 60}
  2: {operation: "search"}
  3: {operation: "replace", tags_start: "0", tags_end: "20", ids_start: "60", ids_end: "80"}
  4: {operation: "delete", start: 30, end: 40}
  5: {operation: "search"}
  gt_url: "https://example.org"
other:
  max_pts: 5
  1: {operation: insert, start: 0, end: 5}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "book.yaml"
    file.write_text(text)
    return file


def test_a_file_is_read_with_quoted_numbers_and_several_data_sets(tmp_path: Path) -> None:
    books = runbooks.load(written(tmp_path, GOOD))
    assert list(books) == ["random-xs", "other"]
    assert books["random-xs"].steps == [
        Insert(Span(0, 60)),
        Search(),
        Replace(Span(0, 20), Span(60, 80)),
        Delete(Span(30, 40)),
        Search(),
    ]


def test_tags_follow_a_plain_dict(tmp_path: Path) -> None:
    book = runbooks.load(written(tmp_path, GOOD))["random-xs"]
    tags = Tags(book)
    for number, step in enumerate(book.steps, start=1):
        tags.apply(number, step)
    model = {tag: tag for tag in range(60)}
    model |= {tag: tag + 60 for tag in range(20)}
    for tag in range(30, 40):
        del model[tag]
    assert {int(tag): int(tags.rows[tag]) for tag in np.flatnonzero(tags.live)} == model


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("1: {operation: insert, start: 0, end: 101}", "step 1 has tags 0 to 101"),
        ("1: {operation: insert, start: 5, end: 5}", "step 1 has tags 5 to 5"),
        ("1: {operation: insert, start: -1, end: 5}", "start = -1"),
        ("1: {operation: insert, start: 0}", "step 1 has end = None"),
        ("1: {operation: upsert, start: 0, end: 5}", "step 1 is a 'upsert'"),
        ("1: {operation: search}", "step 1 searches, but nothing is there"),
        ("1: 7", "step 1 is 7"),
        ("2: {operation: insert, start: 0, end: 5}", "no step 1"),
        ("first: {operation: search}", "'first'"),
        (
            "1: {operation: insert, start: 0, end: 5}\n  2: {operation: insert, start: 4, end: 9}",
            "step 2 inserts tag 4, which is live",
        ),
        ("1: {operation: delete, start: 3, end: 5}", "step 1 deletes tag 3, which is not there"),
        (
            """1: {operation: insert, start: 0, end: 5}
  2: {operation: replace, tags_start: 0, tags_end: 5, ids_start: 10, ids_end: 14}""",
            "step 2 has 5 tags and 4 ids",
        ),
    ],
)
def test_a_bad_step_is_refused_by_its_number(tmp_path: Path, steps: str, said: str) -> None:
    with pytest.raises(RunbookError, match=said):
        runbooks.load(written(tmp_path, f"book:\n  max_pts: 100\n  {steps}\n"))


@pytest.mark.parametrize("text", ["", "- 1", "book: 5", "book: {max_pts: 4}", "a: [", "a: {1: 2}"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunbookError):
        runbooks.load(written(tmp_path, text))


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_book_is_valid_and_the_seed_decides(tmp_path: Path, kind: str) -> None:
    data = load("sample")
    book = make(kind, data, 900, 12, seed=3)
    book.validate()
    assert book == make(kind, data, 900, 12, seed=3)
    if kind != "sliding-window":
        assert book != make(kind, data, 900, 12, seed=4)
    assert sum(isinstance(step, Search) for step in book.steps) > 6
    file = tmp_path / "made.yaml"
    runbooks.save(file, book)
    assert runbooks.load(file) == {"sample": book}


def test_a_sliding_window_keeps_its_width() -> None:
    book = make("sliding-window", load("sample"), 1000, 10, seed=0)
    tags = Tags(book)
    widths = []
    for number, step in enumerate(book.steps, start=1):
        tags.apply(number, step)
        if isinstance(step, Search):
            widths.append(int(tags.live.sum()))
    assert widths == [500] * 6


def test_clustered_replacements_come_from_the_same_cluster() -> None:
    data = load("sample")
    book = make("clustered-replace", data, 1000, 8, seed=0)
    order, bounds = by_cluster(data.base[:1000], 8)
    assert sorted(order.tolist()) == list(range(1000))
    assert np.array_equal(rows_for(book, data), data.base[:1000][order])
    replacements = [step for step in book.steps if isinstance(step, Replace)]
    assert replacements
    for step in replacements:
        cluster = np.searchsorted(bounds, [step.tags.start, step.ids.start], side="right")
        assert cluster[0] == cluster[1]


class DictIndex:
    """A peer that is a dict and measures everything; it can be told to forget replacements."""

    name = "dict"
    forgets = False

    def __init__(self, dim: int, metric: str, settings: Settings) -> None:
        assert metric == "cosine"
        self.rows: dict[int, Any] = {}

    def insert(self, keys: Keys, vectors: Any) -> None:
        assert not self.rows.keys() & set(keys.tolist())
        self.rows.update(zip(keys.tolist(), vectors, strict=True))

    def update(self, keys: Keys, vectors: Any) -> None:
        assert self.rows.keys() >= set(keys.tolist())
        if not self.forgets:
            self.rows.update(zip(keys.tolist(), vectors, strict=True))

    def remove(self, keys: Keys) -> None:
        for key in keys.tolist():
            del self.rows[key]

    def search(self, queries: Any, k: int, ef: int) -> Answers:
        keys = np.array(list(self.rows))
        far = 1 - queries @ np.array(list(self.rows.values())).T
        near = np.argsort(far, axis=1)[:, :k]
        counts = np.full(len(queries), near.shape[1])
        return Answers(keys[near], np.take_along_axis(far, near, axis=1), counts)

    def check(self) -> None:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_peer_has_full_recall_and_no_faults(kind: str) -> None:
    data = small()
    book = make(kind, data, 300, 6, seed=1)
    result = replay(book, data, [DictIndex], Settings(), [64], print)["dict"]  # type: ignore[list-item]
    assert result.mean(64) == 1.0
    assert result.faults == 0
    moved = {type(step).__name__.lower() for step in book.steps} - {"search"}
    assert {name for name, rate in result.rates.items() if rate.rows} == moved


def test_a_peer_that_forgets_replacements_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DictIndex, "forgets", True)
    data = small()
    book = make("random-replace", data, 300, 6, seed=1)
    result = replay(book, data, [DictIndex], Settings(), [64], print)["dict"]  # type: ignore[list-item]
    assert result.faults > 0
    assert result.worst(64)[0] < 0.6


def small() -> Dataset:
    whole = load("sample")
    return Dataset("small", whole.metric, whole.base[:300], whole.queries[:40])


def test_the_command_makes_and_replays_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, figures = tmp_path / "window.yaml", tmp_path / "out.json"
    made = ["--generate", "sliding-window", "--max-pts", "400", "--steps", "4", "--out", str(file)]
    assert main(made) == 0
    assert main([str(file), "--json", str(figures)]) == 0
    assert "sliding" not in capsys.readouterr().err
    assert figures.stat().st_size > 100
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert main([str(file), "--book", "absent"]) == 2
