"""No loss of power loses what was acknowledged, leaves half a batch, or leaves a hole.

``UPVEC_CRASH_STATES=50000 pytest tests/python/test_crash_states.py -k many -s`` looks at that many
distinct states, and prints what it did.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from crash_states import (
    Broken,
    Change,
    Explorer,
    FileAt,
    Recorder,
    Workload,
    contents_with,
    frozen,
    image_of,
    images_of,
    scratch,
    sectors,
    steps_of,
    unsettled,
)
from upvec import log, storage
from upvec.checkpoint import write_checkpoint
from upvec.collection import Collection
from upvec.files import Files
from upvec.log import Durability, Log
from upvec.segment import HEADER_BYTES, MARKER, Header, Position, parse_header, read_record

STATES = int(os.environ.get("UPVEC_CRASH_STATES", "0"))
HISTORIES: list[tuple[int, Durability, bool]] = [
    (0, "commit", False),
    (1, "commit", True),
    (2, "os", True),
]


def recorded(
    seed: int,
    durability: Durability,
    *,
    faults: bool,
    rounds: int = 1,
    recorder: type[Recorder] = Recorder,
) -> Workload:
    with scratch() as base:
        work = Workload(base, seed, durability, recorder(base))
        work.run(steps_of(seed, faults=faults, rounds=rounds))
    return work


@pytest.mark.parametrize(("seed", "durability", "faults"), HISTORIES)
def test_every_state_after_a_loss_of_power_is_a_commit_not_before_the_last_acknowledged(
    seed: int, durability: Durability, faults: bool
) -> None:
    work = recorded(seed, durability, faults=faults)
    explorer = Explorer(seed)
    damages = 60 if durability == "commit" else 0
    # As many moments as ten seconds take; test_many_states looks at all.
    share = 0.5 if durability == "commit" else 0.2
    explorer.explore(work, draws=1, inside=0.012, damages=damages, share=share)
    report = explorer.report
    assert not report.failures, "\n".join([str(report), *report.examples])
    assert report.operations > 100
    assert report.distinct > 150
    assert report.in_recovery > 10
    assert report.copies > 5
    assert report.whole_copies > 0


def test_a_workload_meets_each_outcome_and_goes_through_segments_and_checkpoints() -> None:
    outcomes = {"acknowledged", "failed", "unknown"}
    work = recorded(1, "commit", faults=True)
    assert set(work.outcomes) == outcomes
    names = {operation.path.rpartition("/c/")[2] for operation in work.files.log}
    assert sum(name.startswith("log/") and name.endswith(".log") for name in names) > 3
    assert sum(name.startswith("checkpoint-") and name.endswith("/live") for name in names) > 1
    assert any(
        moment.copied.acknowledged >= 0 and moment.copied.attempts for moment in work.moments
    )


# --- The model of the disk -------------------------------------------------------------------


def test_unsynced_sectors_come_to_the_disk_in_any_combination() -> None:
    file = FileAt(b"o" * 700, ((700, b"a" * 400), (1100, b"b" * 100)))
    pieces = sectors(file)
    assert [(at, len(data or b"")) for at, data in pieces] == [(700, 324), (1024, 76), (1100, 100)]
    only_last = contents_with(file, pieces, [False, False, True], grown=False)
    assert only_last == b"o" * 700 + bytes(400) + b"b" * 100
    zeros = contents_with(file, pieces, [False] * 3, grown=True)
    assert zeros == b"o" * 700 + bytes(500)
    assert contents_with(file, pieces, [False] * 3, grown=False) == file.synced
    assert contents_with(file, pieces, [True] * 3, grown=False) == (
        b"o" * 700 + b"a" * 400 + b"b" * 100
    )


def test_names_come_to_the_disk_one_by_one_and_a_rename_as_a_whole() -> None:
    with scratch() as base:
        files = Recorder(base)
        for name in ("a", "b"):
            fd = files.create(f"{base}/{name}")
            files.write(fd, [name.encode()], 0)
            files.sync(fd)
            files.close(fd)
        files.sync_directory(base)
        files.replace(f"{base}/a", f"{base}/c")
        files.unlink(f"{base}/b")
        disk = frozen(files.disk)
        assert unsettled(disk) == ([], 2)

        def found(keeps: Callable[[Change], bool]) -> dict[str, bytes | None]:
            return image_of(disk, keeps, lambda file: file.synced)

        assert found(lambda _: False) == {"a": b"a", "b": b"b"}
        assert found(lambda change: change.added == "c") == {"c": b"a", "b": b"b"}
        assert found(lambda change: change.removed == "b") == {"a": b"a"}
        files.sync_directory(base)
        assert [*images_of(frozen(files.disk), mock.Mock(), 3)] == [{"c": b"a"}]


# --- Planted bugs ----------------------------------------------------------------------------


class NoDirectorySync(Recorder):
    def sync_directory(self, path: str) -> None:
        self._step("sync_directory", path)


class RetriedSync(Recorder):
    def sync_data(self, fd: int) -> None:
        try:
            super().sync_data(fd)
        except OSError:
            super().sync_data(fd)


class LockThatExcludesNobody(Recorder):
    def lock(self, path: str, *, shared: bool = False) -> int:
        self._step("lock", path)
        if self.is_directory(path):
            return super().lock(path, shared=shared)
        return self.open(path, write=True) if self.exists(path) else self.create(path)


def acknowledge_before_sync() -> Any:
    return mock.patch.object(Log, "sync", return_value=None)


def cut_off_at_the_first_bad_record() -> Any:
    return mock.patch.object(Log, "_judge", return_value=None)


def skip_the_checksum_of_payloads() -> Any:
    original = read_record

    def trusting(files: Files, fd: int, at: Position, size: int) -> tuple[Header, bytes] | str:
        header = parse_header(files.read(fd, HEADER_BYTES, at.offset), at.segment.salt)
        start = at.offset + HEADER_BYTES
        if header is None or header.flags & MARKER or start + header.size > size:
            return original(files, fd, at, size)
        at.offset, at.seq, at.chain = start + header.size, header.seq, header.checksum
        at.sealed = at.closed = False
        return header, files.read(fd, header.size, start)

    return mock.patch.object(log, "read_record", trusting)


def apply_before_logging() -> Any:
    """Show rows before it is known whether the log takes them."""
    original = Collection._commit

    def commit(self: Collection, head: Any, effects: Any, schema: Any = None) -> Any:
        if self._storage is None:
            return original(self, head, effects, schema)
        state = self._engine.apply(head, effects, head.seq + 1, schema=schema)
        self._head = self._published = state
        self._storage.write(effects)
        return state

    return mock.patch.object(Collection, "_commit", commit)


def trim_the_log_before_the_manifest() -> Any:
    original = write_checkpoint

    def write(root: str, files: Any, seq: int, *rest: Any, log: Log, **options: Any) -> Any:
        log.drop_before(seq)
        return original(root, files, seq, *rest, log=log, **options)

    return mock.patch.object(storage, "write_checkpoint", write)


def copy_less_of_the_log() -> Any:
    original = Log.spans

    def spans(self: Log, after_seq: int, until: int) -> list[tuple[str, int]]:
        *whole, (path, end) = original(self, after_seq, until)
        return [*whole, (path, end - 1)]

    return mock.patch.object(Log, "spans", spans)


class UnsyncedBackup(Recorder):
    def sync(self, fd: int) -> None:
        if f"{self.base}/b/" in self._paths[fd]:
            self._step("sync", self._paths[fd])
        else:
            super().sync(fd)


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("bug", "recorder"),
    [
        (acknowledge_before_sync, Recorder),
        (nothing, NoDirectorySync),
        (cut_off_at_the_first_bad_record, Recorder),
        (skip_the_checksum_of_payloads, Recorder),
        (apply_before_logging, Recorder),
        (trim_the_log_before_the_manifest, Recorder),
        (nothing, RetriedSync),
        (nothing, LockThatExcludesNobody),
        (copy_less_of_the_log, Recorder),
        (nothing, UnsyncedBackup),
    ],
    ids=[
        "acknowledges before the sync",
        "does not sync directories",
        "cuts off at the first bad record",
        "skips checksums",
        "applies before it logs",
        "trims the log before the manifest",
        "repeats a failed sync",
        "lets two writers in",
        "leaves out the end of a backup",
        "does not sync backups",
    ],
)
def test_a_planted_bug_is_caught(bug: Callable[[], Any], recorder: type[Recorder]) -> None:
    with bug(), pytest.raises(Broken) as caught:
        look_for_failures(recorder)
    print(caught.value)  # shown by -rP


def look_for_failures(recorder: type[Recorder] = Recorder) -> None:
    """Explore a workload until something is wrong."""
    work = recorded(1, "commit", faults=True, recorder=recorder)
    Explorer(1, keep_going=False).explore(work, draws=1, inside=0, damages=150, share=0.4)


def test_without_a_bug_nothing_is_caught() -> None:
    look_for_failures()


# --- Many ------------------------------------------------------------------------------------


@pytest.mark.skipif(not STATES, reason="UPVEC_CRASH_STATES says how many states")
def test_many_states() -> None:
    explorer = Explorer(7)
    seed = 100
    while explorer.report.distinct < STATES:
        durability: Durability = "commit" if seed % 3 else "os"
        work = recorded(seed, durability, faults=seed % 2 == 0, rounds=3)
        damages = 200 if durability == "commit" else 0
        explorer.explore(work, draws=6, inside=0.02, damages=damages)
        print(f"seed {seed}: {explorer.report}", flush=True)
        seed += 1
    assert not explorer.report.failures, "\n".join(explorer.report.examples)
