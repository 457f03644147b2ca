"""Backups are collections, whole or none; made again, they go on."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from crash_states import Recorder
from faulty_files import Crash, FaultyFiles, Killed, Operation, UnsyncedFiles, killed_at
from upvec import log
from upvec.collection import open_directory
from upvec.errors import CorruptionError, HistoryError, LockedError, UpvecError
from upvec.files import Files

SCHEMA = upvec.Schema(
    upvec.Field("id", "int64", primary=True),
    upvec.Field("text", "string", nullable=True),
    upvec.Vector("emb", 3),
    unique=[upvec.Unique("text")],
)


def rows(first: int, count: int, turn: int = 0) -> dict[str, Any]:
    ids = np.arange(first, first + count)
    return {
        "id": ids,
        "text": [f"{i} {turn}" for i in ids.tolist()],
        "emb": np.stack([ids, ids * 0 + turn, ids % 5], axis=1).astype(np.float32),
    }


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SEGMENT_BYTES", 4000)


def made(path: Path, files: Files | None = None) -> upvec.Collection:
    col = open_directory(str(path), SCHEMA, files or UnsyncedFiles())
    for turn in range(6):
        col.upsert(rows(turn * 20, 40, turn))
        if turn in {1, 3}:
            col.checkpoint()
    col.delete([3, 4, 5])
    return col


def digest_of(path: Path) -> str:
    with upvec.open(path, read_only=True) as col:
        return col.digest()


def test_a_backup_is_the_collection_as_it_was(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    done = col.backup(tmp_path / "b")
    assert (done.seq, done.kept_bytes) == (col.seq, 0)
    assert done.path == str(tmp_path / "b")
    assert digest_of(tmp_path / "b") == col.digest()
    col.upsert(rows(500, 5))
    with upvec.open(tmp_path / "b") as copy:
        assert 500 not in copy
        assert copy.verify().ok
        copy.upsert(rows(900, 5))
    with upvec.open(tmp_path / "b") as copy:
        assert (900 in copy, 500 in copy) == (True, False)
    col.close()


@pytest.mark.parametrize("turns", [0, 1])
def test_a_collection_without_checkpoint_or_rows_is_backed_up(tmp_path: Path, turns: int) -> None:
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for turn in range(turns):
            col.upsert(rows(0, 10, turn))
        col.backup(tmp_path / "b")
        assert digest_of(tmp_path / "b") == col.digest()


def test_a_complete_backup_is_brought_up_to_date_by_what_is_new(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    col.backup(tmp_path / "b")
    again = col.backup(tmp_path / "b")
    assert again.copied_bytes == 0
    for turn in range(6, 12):
        col.upsert(rows(0, 40, turn))
        done = col.backup(tmp_path / "b")
        assert 0 < done.copied_bytes < 4000
        assert digest_of(tmp_path / "b") == col.digest()
    col.checkpoint()
    col.checkpoint()
    col.backup(tmp_path / "b")
    assert digest_of(tmp_path / "b") == col.digest()
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == {"LOCK", "MANIFEST", "log", f"checkpoint-{col.seq:020}-2"}
    assert len(list((tmp_path / "b" / "log").iterdir())) == 1
    assert upvec.verify(tmp_path / "b").notes == []
    col.close()


def test_writers_go_on_during_a_backup(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    done = threading.Event()

    def write() -> None:
        for turn in range(200):
            col.upsert(rows(turn * 7 % 100, 20, turn + 100))
            if turn % 20 == 0:
                col.checkpoint()
            if done.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    seqs = []
    for number in range(8):
        seqs.append(col.backup(tmp_path / "b").seq)
        with upvec.open(tmp_path / "b", read_only=True) as copy:
            assert copy.seq == seqs[-1]
            texts = {text.split()[1] for text in copy.get(list(range(3)))["text"].tolist() if text}
            assert texts
            assert copy.verify().problems == [], number
    done.set()
    writer.join()
    assert seqs == sorted(seqs)
    col.backup(tmp_path / "b")
    assert digest_of(tmp_path / "b") == col.digest()
    col.close()


def test_a_reader_can_back_up_beside_the_writer(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    with upvec.open(tmp_path / "c", read_only=True) as reader:
        seq = reader.seq
        col.upsert(rows(700, 3))
        assert reader.backup(tmp_path / "b").seq == seq
    with upvec.open(tmp_path / "b") as copy:
        assert (copy.seq, 700 in copy) == (seq, False)
    col.close()


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("tail", ["lost", "kept", "zeros"])
def test_an_interrupted_backup_is_none_and_goes_on(tmp_path: Path, tail: Any, update: bool) -> None:
    """At every operation; and what the interruption leaves of it is not believed."""
    points = 0
    for at in range(1, 400, 3):
        folder = tmp_path / str(at)
        folder.mkdir()
        files = FaultyFiles()
        col = made(folder / "c", files)
        earlier = None
        if update:
            col.backup(folder / "b")
            earlier = col.digest()
            col.upsert(rows(0, 100, 50))
            col.checkpoint()
            col.upsert(rows(30, 70, 51))
        digest, seq = col.digest(), col.seq
        files.fail(at, "crash")
        try:
            col.backup(folder / "b")
        except Crash:
            points += 1
        else:
            files.heal()
            col.close()
            break
        files.crash_image(str(folder), str(folder / "after"), tail=tail, names="kept")
        after = folder / "after"
        found = None
        with suppress(UpvecError, FileNotFoundError):
            found = digest_of(after / "b")
        assert found in {None, earlier, digest}
        with suppress(Crash):
            col.close()
        with upvec.open(after / "c") as again:
            assert again.digest() == digest
            done = again.backup(after / "b")
            assert done.seq == seq
        assert digest_of(after / "b") == digest
        assert upvec.verify(after / "b").notes == []
        shutil.rmtree(folder)
    assert points > 5


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("fault", ["EIO", "kill"])
def test_a_backup_that_goes_on_believes_nothing_that_may_not_be_on_the_disk(
    tmp_path: Path, fault: str, update: bool
) -> None:
    """At every operation; the first may have written what it, or nobody, has synced."""
    files = FaultyFiles()
    col = made(tmp_path / "c", files)
    if update:
        for at in range(1, 60):
            col.backup(tmp_path / str(at))
        col.upsert(rows(0, 100, 50))
        col.checkpoint()
        col.upsert(rows(30, 70, 51))
    for at in range(1, 60):
        whole = True
        if fault == "EIO":
            files.fail(at, "EIO")
        try:
            with killed_at(at if fault == "kill" else 1000, files):
                col.backup(tmp_path / str(at))
        except (OSError, Killed):
            whole = False
        files.heal()
        col.backup(tmp_path / str(at))
        after = tmp_path / f"{at}-after"
        files.crash_image(str(tmp_path / str(at)), str(after))
        assert digest_of(after) == col.digest()
        if whole and at > 40:
            break
    assert at < 59
    col.close()


def test_the_names_in_a_backup_are_on_the_disk_before_its_manifest(tmp_path: Path) -> None:
    files = Recorder(str(tmp_path))
    col = made(tmp_path / "c", files)
    unsynced = []

    def before(operation: Operation) -> None:
        if operation.name == "replace" and operation.path.endswith("MANIFEST.tmp"):
            backup = files.disk.now["b"]
            unsynced.extend(change.added for change in backup.changes)

    files.before = before
    col.backup(tmp_path / "b")
    assert unsynced == ["MANIFEST.tmp"]
    col.close()


def test_an_unfinished_backup_says_what_it_is(tmp_path: Path) -> None:
    files = FaultyFiles()
    col = made(tmp_path / "c", files)
    files.fail(12, "crash")
    with pytest.raises(Crash):
        col.backup(tmp_path / "b")
    with suppress(Crash):
        col.close()
    for options in ({"read_only": True}, {"schema": SCHEMA}):
        with pytest.raises(CorruptionError, match="a backup that was not completed"):
            upvec.open(tmp_path / "b", **options)


def test_other_directories_are_refused_and_not_touched(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    col.backup(tmp_path / "gone-on")
    with upvec.open(tmp_path / "gone-on") as other:
        other.upsert(rows(0, 3, 99))
    upvec.open(tmp_path / "strange", SCHEMA).close()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    col.upsert(rows(0, 5, 77))
    for name in ("gone-on", "strange", "mine"):
        before = {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        with pytest.raises(CorruptionError, match="not an earlier backup of this collection"):
            col.backup(tmp_path / name)
        after = {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        assert after == {**before, **{p: b"" for p in after if p.name == "LOCK"}}
    for inside in (tmp_path / "c", tmp_path / "c" / "backup"):
        with pytest.raises(ValueError, match="outside of"):
            col.backup(inside)
    col.backup(tmp_path / "c2")  # a name that begins alike is not inside
    with upvec.open(tmp_path / "c2"), pytest.raises(LockedError, match="in use"):
        col.backup(tmp_path / "c2")
    with pytest.raises(ValueError, match="in memory"):
        upvec.open(":memory:", SCHEMA).backup(tmp_path / "m")
    col.close()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_backup_that_was_written_to_is_refused_whatever_the_source_did_since(
    tmp_path: Path, checkpoint: bool
) -> None:
    col = made(tmp_path / "c")
    col.backup(tmp_path / "b")
    with upvec.open(tmp_path / "b") as mine:
        mine.upsert(rows(800, 1))
        if checkpoint:
            mine.checkpoint()
    col.upsert(rows(0, 5, 70))
    for _ in range(2):
        col.checkpoint()
        col.upsert(rows(0, 5, 71))
    with pytest.raises(CorruptionError, match="not an earlier backup"):
        col.backup(tmp_path / "b")
    with upvec.open(tmp_path / "b") as mine:
        assert 800 in mine
    col.close()


def test_causes_of_a_refused_backup_are_named(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        col.backup(tmp_path / "absent" / "b")
    reader = upvec.open(tmp_path / "c", read_only=True)
    for turn in range(3):
        col.upsert(rows(0, 5, 80 + turn))
        col.checkpoint()
    with pytest.raises(HistoryError, match="refresh"):
        reader.backup(tmp_path / "b")
    reader.refresh()
    reader.backup(tmp_path / "b")
    assert digest_of(tmp_path / "b") == col.digest()
    reader.close()
    col.close()


def test_damage_is_not_copied(tmp_path: Path) -> None:
    col = made(tmp_path / "c")
    for checkpoint in (tmp_path / "c").glob("checkpoint-*"):
        file = checkpoint / "vector-2"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 8
        file.write_bytes(data)
    with pytest.raises(CorruptionError, match="vector-2: does not match"):
        col.backup(tmp_path / "b")
    col.checkpoint()
    col.backup(tmp_path / "b")
    assert digest_of(tmp_path / "b") == col.digest()
    col.close()
