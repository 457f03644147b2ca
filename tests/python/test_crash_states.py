"""Whatever a loss of power leaves of a collection is recovered, and planted bugs are caught.

``UPVEC_CRASH_STATES=50000`` looks at as many states, in minutes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import upvec
from crash_states import SCHEMA, STEPS, Counts, Enumeration, digests_of_all_states, rows
from faulty_files import FaultyFiles, NoDirectorySync, RetriedSync, UnsyncedFiles
from upvec import checkpoint, log, segment
from upvec.collection import Collection, open_directory
from upvec.errors import LockedError, PoisonedError, UpvecError
from upvec.log import Log

STATES = int(os.environ.get("UPVEC_CRASH_STATES", "3000"))


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SEGMENT_BYTES", 900)


@pytest.fixture(scope="module")
def digests() -> dict[int, str]:
    return digests_of_all_states()


def enumerated(digests: dict[int, str], files: FaultyFiles | None = None, **options: Any) -> Counts:
    options = {"drawn": 2, "inside": 0, "every": 3} | options
    return Enumeration(files or FaultyFiles(), digests=digests, **options).run()


def test_a_loss_of_power_anywhere_loses_nothing_that_was_acknowledged(
    digests: dict[int, str],
) -> None:
    drawn = max(4, STATES // 250 - 6)
    counts = enumerated(digests, drawn=drawn, inside=STATES // 400, every=1)
    print(counts)
    assert counts.wrong == []
    assert counts.sound
    assert counts.operations > 200
    assert counts.states > 2000
    assert counts.distinct > 500


@pytest.mark.parametrize("at", range(1, 40, 5))
def test_a_failed_sync_leaves_its_commit_whole_or_none_of_it(
    digests: dict[int, str], at: int
) -> None:
    files = FaultyFiles()
    files.fail(at, "EIO", only={"sync_data"})
    counts = enumerated(digests, files, drawn=1, every=7)
    assert counts.wrong == []
    assert counts.sound


# Planted bugs


def test_planted_acknowledgement_before_the_sync_is_caught(
    digests: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Log, "sync", lambda self, seq=None: None)
    assert enumerated(digests).lost


def test_planted_lack_of_a_directory_sync_is_caught(digests: dict[int, str]) -> None:
    counts = enumerated(digests, NoDirectorySync())
    assert counts.lost + counts.refused


def test_planted_retry_of_a_failed_sync_is_caught(digests: dict[int, str]) -> None:
    files = RetriedSync()
    files.fail(4, "EIO", only={"sync_data"})
    counts = enumerated(digests, files)
    assert counts.lost + counts.refused + counts.partial


def test_planted_removal_of_the_log_before_the_manifest_is_caught(
    digests: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest = checkpoint.write_manifest

    def too_early(root: str, files: FaultyFiles, manifest: checkpoint.Manifest) -> None:
        folder = os.path.join(root, "log")
        for name in files.list(folder)[:-1]:
            files.unlink(os.path.join(folder, name))
        files.sync_directory(folder)
        write_manifest(root, files, manifest)

    monkeypatch.setattr(checkpoint, "write_manifest", too_early)
    counts = enumerated(digests, every=1)
    assert counts.refused + counts.lost


def test_planted_indifference_to_checksums_is_caught(
    digests: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Indifferent:
        @staticmethod
        def crc32(*_: object) -> int:
            return 0

    monkeypatch.setattr(segment, "zlib", Indifferent)
    monkeypatch.setattr(log, "zlib", Indifferent)
    counts = enumerated(digests, drawn=10, every=1)
    assert counts.partial + counts.refused + counts.lost


@pytest.mark.parametrize("planted", [False, True])
def test_planted_truncation_in_the_middle_of_the_log_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    if planted:
        monkeypatch.setattr(Log, "_judge", lambda *_, **__: None)
    with upvec.open(tmp_path / "c", SCHEMA) as col:
        for step in STEPS[:4]:
            step(col)
    first = min((tmp_path / "c" / "log").iterdir())
    data = bytearray(first.read_bytes())
    data[len(data) // 3] ^= 4
    first.write_bytes(data)
    silent = False
    with suppress(UpvecError):
        upvec.open(tmp_path / "c").close()
        silent = True
    assert silent == planted


@pytest.mark.parametrize("planted", [False, True])
def test_planted_application_before_the_log_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    def applied_first(self: Collection, head: Any, effects: Any, schema: Any = None) -> Any:
        state = self._engine.apply(head, effects, head.seq + 1, schema=schema)
        self._head = state
        self._storage.write(effects)
        return state

    if planted:
        monkeypatch.setattr(Collection, "_commit", applied_first)
    files = FaultyFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(rows(0, 5, 1))
    before = col.digest()
    files.fail(1, "ENOSPC", only={"write"})
    with pytest.raises(OSError, match="No space"):
        col.upsert(rows(3, 5, 2))
    assert (col.digest() != before) == planted
    with suppress(PoisonedError, UpvecError):
        col.close()


@pytest.mark.parametrize("planted", [False, True])
def test_a_planted_second_writer_is_caught(tmp_path: Path, planted: bool) -> None:
    class Unlocked(UnsyncedFiles):
        def lock(self, path: str, *, shared: bool = False) -> int:
            return self.open(path) if os.path.exists(path) else self.create(path)

    files = Unlocked() if planted else UnsyncedFiles()
    root = str(tmp_path / "c")
    first = open_directory(root, SCHEMA, files)
    if not planted:
        with pytest.raises(LockedError):
            open_directory(root, SCHEMA, files)
        first.close()
        return
    second = open_directory(root, SCHEMA, files)
    first.upsert(rows(0, 5, 1))
    second.upsert(rows(100, 5, 1))
    for col in (first, second):
        with suppress(UpvecError):
            col.close()
    found = set()
    with suppress(UpvecError), upvec.open(root) as again:
        found = {row["id"] for part in again.scan() for row in part.to_dicts() if row}
    assert not found >= {*range(5), *range(100, 105)}
