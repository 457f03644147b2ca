"""What is sound of a damaged collection is saved, and what is not is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from upvec import log
from upvec.errors import CorruptionError

SCHEMA = upvec.Schema(
    upvec.Field("id", "int64", primary=True),
    upvec.Field("text", "string"),
    upvec.Field("note", "string", nullable=True),
    upvec.Vector("emb", 3),
    upvec.Vector("more", 2, nullable=True),
    unique=[upvec.Unique("text")],
)


def rows(first: int, count: int, turn: int = 0) -> dict[str, Any]:
    ids = np.arange(first, first + count)
    return {
        "id": ids,
        "text": [f"{i} {turn}" for i in ids.tolist()],
        "note": [None if i % 3 else f"n{i}" for i in ids.tolist()],
        "emb": np.stack([ids, ids * 0 + turn, ids % 5], axis=1).astype(np.float32),
    }


def picture(path: Path) -> dict[int, dict[str, Any]]:
    with upvec.open(path, read_only=True) as col:
        found = [row for part in col.scan() for row in part.to_dicts() if row is not None]
    return {
        row["id"]: {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
        for row in found
    }


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[int, Any]]:
    """A closed collection at "c" of 20 commits, checkpoints at 8 and 14; what it was after each."""
    monkeypatch.setattr(log, "SEGMENT_BYTES", 2500)
    pictures = {}
    with upvec.open(tmp_path / "c", SCHEMA, durability="os") as col:
        for turn in range(10):
            col.upsert(rows(turn * 10, 20, turn))
            pictures[col.seq] = picture(tmp_path / "c")
            col.delete([turn * 10 + 3, turn * 10 + 4])
            pictures[col.seq] = picture(tmp_path / "c")
            if col.seq in {8, 14}:
                col.checkpoint()
    return pictures


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def newest(tmp_path: Path) -> Path:
    return max((tmp_path / "c").glob("checkpoint-*"))


def test_a_sound_collection_is_saved_whole(tmp_path: Path, states: dict[int, Any]) -> None:
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert (report.seq, report.rows, report.lost, report.problems) == (20, len(states[20]), [], [])
    assert picture(tmp_path / "s") == states[20]
    with upvec.open(tmp_path / "s") as col:
        assert col.schema == SCHEMA
        assert col.verify().ok
        assert col.get(["95 9"], on="text")["id"].tolist() == [95]


def test_the_log_is_saved_up_to_the_damage(tmp_path: Path, states: dict[int, Any]) -> None:
    for segment in sorted((tmp_path / "c" / "log").iterdir()):
        first = int(segment.name[:20])
        copy = tmp_path / f"copy-{first}"
        shutil.copytree(tmp_path / "c", copy)
        flip(copy / "log" / segment.name)
        before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
        if first > 14:
            with pytest.raises(CorruptionError):
                upvec.open(copy)
        report = upvec.salvage(copy, tmp_path / f"s-{first}")
        assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
        assert picture(tmp_path / f"s-{first}") == states[report.seq]
        assert report.rows == len(states[report.seq])
        assert report.problems
        if first > 14:
            assert first - 1 <= report.seq < 20
            assert any(f"commits {report.seq + 1} to" in lost for lost in report.lost)
        else:
            assert report.seq == 20


def test_an_older_checkpoint_and_the_log_give_everything(
    tmp_path: Path, states: dict[int, Any]
) -> None:
    flip(newest(tmp_path) / "vector-3")
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert report.seq == 20
    assert picture(tmp_path / "s") == states[20]


def damage_all(tmp_path: Path, name: str, at: int | None = None) -> None:
    for checkpoint in (tmp_path / "c").glob("checkpoint-*"):
        flip(checkpoint / name, at)


def test_a_lost_vector_file_leaves_the_rows_to_be_embedded_again(
    tmp_path: Path, states: dict[int, Any]
) -> None:
    damage_all(tmp_path, "vector-3")
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert "vectors of emb" in report.lost[0]
    saved, wanted = picture(tmp_path / "s"), states[20]
    assert saved.keys() == wanted.keys()
    for key, row in saved.items():
        assert row["text"] == wanted[key]["text"]
        # Those that the log wrote again after the checkpoint are known.
        assert row["emb"] == (wanted[key]["emb"] if key >= 70 else None)
    with upvec.open(tmp_path / "s") as col:
        assert col.schema.vectors["emb"].nullable
        col.upsert({"id": np.array([10]), "emb": np.ones((1, 3), dtype=np.float32)})


def test_a_lost_vector_file_is_followed_through_later_names(
    tmp_path: Path, states: dict[int, Any]
) -> None:
    with upvec.open(tmp_path / "c") as col:
        col.alter(rename={"emb": "face", "more": "emb"})
    damage_all(tmp_path, "vector-3")
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert (report.seq, report.rows) == (21, len(states[20]))
    saved = picture(tmp_path / "s")
    assert {key for key, row in saved.items() if row["face"] is None} == {
        key for key in states[20] if key < 70
    }
    with upvec.open(tmp_path / "s") as col:
        assert col.schema.vectors["face"].nullable


def test_a_lost_vector_field_that_was_dropped_relaxes_no_other_of_its_name(
    tmp_path: Path, states: dict[int, Any]
) -> None:
    with upvec.open(tmp_path / "c") as col:
        keys = sorted(states[20])
        col.alter(drop=["emb"])
        col.alter(
            add=[upvec.Vector("emb", 2)],
            backfill={"emb": lambda rows: np.ones((len(rows), 2), dtype=np.float32)},
        )
        schema = col.schema
    damage_all(tmp_path, "vector-3")
    upvec.salvage(tmp_path / "c", tmp_path / "s")
    saved = picture(tmp_path / "s")
    assert sorted(saved) == keys
    assert all(row["emb"] == [1, 1] for row in saved.values())
    with upvec.open(tmp_path / "s") as col:
        assert col.schema == schema


@pytest.mark.parametrize(
    "change",
    [
        {"drop": ["text"], "drop_unique": ["text"]},
        {"rename": {"text": "words"}, "widen": {"text": "nullable"}},
    ],
    ids=["dropped", "nullable"],
)
def test_rows_without_what_is_not_wanted_any_more_stay(
    tmp_path: Path, states: dict[int, Any], change: dict[str, Any]
) -> None:
    with upvec.open(tmp_path / "c") as col:
        col.alter(**change)
    damage_all(tmp_path, "field-1", 30)
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    saved = picture(tmp_path / "s")
    assert report.seq == 21
    assert saved.keys() == states[20].keys()
    for key, row in saved.items():
        assert row.get("words") in {None, states[20][key]["text"]}
        assert row["emb"] == states[20][key]["emb"]


def test_lost_values_of_a_field_that_may_be_null_become_null(
    tmp_path: Path, states: dict[int, Any]
) -> None:
    damage_all(tmp_path, "field-2")
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert any("field note of rows 0 to" in lost for lost in report.lost)
    saved = picture(tmp_path / "s")
    assert saved.keys() == states[20].keys()
    assert all(row["text"] == states[20][key]["text"] for key, row in saved.items())


def test_rows_without_what_may_not_be_null_are_dropped(
    tmp_path: Path, states: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_all(tmp_path, "field-1", 30)
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    saved = picture(tmp_path / "s")
    assert 0 < len(saved) < len(states[20])
    assert all(row == states[20][key] for key, row in saved.items())
    assert any("rows that are not whole" in lost for lost in report.lost)
    assert any("field text of rows" in lost for lost in report.lost)


def test_a_lost_manifest_wants_the_schema(tmp_path: Path, states: dict[int, Any]) -> None:
    (tmp_path / "c" / "MANIFEST").unlink()
    with pytest.raises(CorruptionError, match="pass schema="):
        upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert not (tmp_path / "s").exists()
    report = upvec.salvage(tmp_path / "c", tmp_path / "s", schema=SCHEMA)
    assert picture(tmp_path / "s") == states[20]
    assert "MANIFEST" in report.lost[0]


def test_a_damaged_manifest_that_can_be_read_is_believed(
    tmp_path: Path, states: dict[int, Any]
) -> None:
    flip(tmp_path / "c" / "MANIFEST", -3)
    report = upvec.salvage(tmp_path / "c", tmp_path / "s")
    assert picture(tmp_path / "s") == states[20]
    assert "MANIFEST" in report.problems[0].path


def test_nothing_is_overwritten(tmp_path: Path, states: dict[int, Any]) -> None:
    assert states
    (tmp_path / "s").mkdir()
    with pytest.raises(FileExistsError):
        upvec.salvage(tmp_path / "c", tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        upvec.salvage(tmp_path / "absent", tmp_path / "t")
