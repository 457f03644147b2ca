"""Any flipped or missing byte is found, and what it affects is said."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import upvec
from test_backup import SCHEMA, made, rows
from upvec import log


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed collection with two checkpoints and several segments."""
    monkeypatch.setattr(log, "SEGMENT_BYTES", 4000)
    made(tmp_path / "c").close()
    return tmp_path / "c"


def files_of(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "LOCK")


def test_a_sound_collection_is_ok(root: Path) -> None:
    report = upvec.verify(root)
    assert report.ok
    assert report.notes == []
    assert report.last_seq == 7
    assert report.bytes == sum(path.stat().st_size for path in files_of(root))
    assert report.files == len(list(files_of(root)))
    with upvec.open(root) as col:
        col.upsert(rows(0, 5, 9))
        live = col.verify()
        assert (live.ok, live.last_seq) == (True, 8)
    assert upvec.open(":memory:", SCHEMA).verify().ok


def test_a_log_that_holds_nothing_after_the_checkpoint_is_ok(root: Path) -> None:
    with upvec.open(root) as col:
        col.checkpoint()
        col.checkpoint()
    report = upvec.verify(root)
    assert (report.problems, report.commits, report.last_seq) == ([], 0, 7)


def test_every_flipped_bit_is_found_and_its_file_named(root: Path) -> None:
    chance = random.Random(4)
    tried = 0
    for path in files_of(root):
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 60)):
            damaged = bytearray(data)
            damaged[at] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            problems = upvec.verify(root).problems
            assert problems, f"{path}, byte {at}"
            assert str(path) in {problem.path for problem in problems}, f"{path}, byte {at}"
            assert all(problem.affects for problem in problems)
            tried += 1
        path.write_bytes(data)
    assert upvec.verify(root).ok
    assert tried > 700


def test_every_cut_and_missing_file_is_found(root: Path) -> None:
    for path in files_of(root):
        data = path.read_bytes()
        for size in range(0, len(data), max(1, len(data) // 10)):
            path.write_bytes(data[:size])
            # Between two commits of the last segment, it looks like an earlier end.
            assert upvec.verify(root).problems, f"{path}, cut at {size}"
        path.unlink()
        assert upvec.verify(root).problems, f"{path} is missing"
        path.write_bytes(data)
    assert upvec.verify(root).ok


def test_what_is_affected_is_said(root: Path) -> None:
    newest = max(root.glob("checkpoint-*"))
    segments = sorted((root / "log").iterdir())
    expected = {
        root / "MANIFEST": "the whole collection",
        newest / "field-1": r"field text, rows 0 to 99, in the checkpoint of commit 4",
        newest / "vector-2": r"vector emb, in the checkpoint of commit 4",
        newest / "live": r"live, rows 0 to 99, in the checkpoint of commit 4",
        segments[0]: r"commits \d+",
        segments[-1]: r"commits 6 to 7",
    }
    for path, affects in expected.items():
        data = path.read_bytes()
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        path.write_bytes(damaged)
        (problem,) = upvec.verify(root).problems[:1]
        assert problem.path == str(path)
        assert re.match(affects, problem.affects), problem
        path.write_bytes(data)


def test_swapped_and_doubled_segments_are_found(root: Path) -> None:
    first, second = sorted((root / "log").iterdir())[:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert upvec.verify(root).problems
    first.write_bytes(a)
    second.write_bytes(a)
    assert upvec.verify(root).problems


def test_what_does_not_belong_is_a_note(root: Path) -> None:
    (root / "notes.txt").write_text("mine")
    (root / "log" / "x.broken").write_text("")
    report = upvec.verify(root)
    assert report.ok
    assert len(report.notes) == 2


def test_an_end_that_may_be_damage_or_a_crash_is_said_to_be_either(
    root: Path, tmp_path: Path
) -> None:
    with upvec.open(root) as col:
        col.upsert(rows(0, 5, 9))
        shutil.copytree(root, tmp_path / "copy")
    last = max((tmp_path / "copy" / "log").iterdir())
    last.write_bytes(last.read_bytes()[:-9])
    report = upvec.verify(tmp_path / "copy")
    (problem,) = report.problems
    assert "interrupted write, or damage" in problem.what
    assert problem.affects == "commits 8, if it was ever acknowledged"
    assert report.last_seq == 7


def test_a_directory_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        upvec.verify(tmp_path / "absent")
    (problem, *_) = upvec.verify(tmp_path).problems
    assert problem.affects == "the whole collection"
