"""Checkpoints beside writers and readers, and readers that follow a writer."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upvec
from faulty_files import FaultyFiles, UnsyncedFiles
from upvec import storage
from upvec.apply import Engine
from upvec.collection import open_directory
from upvec.errors import ClosedError, CorruptionError, LockedError
from upvec.files import Files

SCHEMA = upvec.Schema(
    upvec.Field("id", "int64", primary=True),
    upvec.Field("text", "string", nullable=True),
    upvec.Field("seen", "int64", default=0),
    upvec.Vector("emb", 4),
    unique=[upvec.Unique("text")],
    order_by="seen",
)
DEADLINE_S = 20


def rows(first: int, count: int, seen: int = 0) -> dict[str, Any]:
    ids = np.arange(first, first + count)
    vectors = np.stack([np.sin(ids * 0.7), np.cos(ids * 1.3), ids % 7, ids % 11], axis=1)
    return {
        "id": ids,
        "text": [f"{i}, seen {seen}" for i in ids.tolist()],
        "seen": np.full(count, seen),
        "emb": (vectors + seen).astype(np.float32),
    }


def wait_until(fulfilled: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not fulfilled():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.005)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a checkpoint be due after 20 KB of log."""
    monkeypatch.setattr(storage, "LEAST_LOG_BYTES", 20_000)


class SlowFiles(Files):
    """Files whose writing into checkpoints waits until it is told to go on."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.go_on = threading.Event()
        self._slow: set[int] = set()

    def create(self, path: str) -> int:
        fd = super().create(path)
        if "checkpoint-" in path:
            self._slow.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self._slow.discard(fd)
        super().close(fd)

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        if fd in self._slow:
            self.waiting.set()
            assert self.go_on.wait(DEADLINE_S)
        return super().write_some(fd, data, offset)


# Checkpoints


def test_writers_and_readers_go_on_during_a_checkpoint(tmp_path: Path) -> None:
    files = SlowFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(rows(0, 3000))
    col.delete([5, 6, 7])
    held = col.seq
    thread = threading.Thread(target=col.checkpoint)
    thread.start()
    assert files.waiting.wait(DEADLINE_S)
    # All of it while the checkpoint has written nothing yet.
    col.upsert(rows(100, 500, seen=1))
    col.delete(list(range(1000, 1500)))
    col.upsert(rows(5000, 40, seen=2))
    col.alter(add=[upvec.Field("extra", "int64", default=3)])
    assert col.search(rows(100, 1, seen=1)["emb"][0], k=1)["id"].tolist() == [100]
    files.go_on.set()
    thread.join()
    assert col.stats()["checkpoint_seq"] == held
    digest, count = col.digest(), len(col)
    col.close()
    with upvec.open(tmp_path / "c") as again:
        assert (again.digest(), len(again)) == (digest, count)
        assert again[5001]["extra"] == 3


def test_a_checkpoint_alone_gives_the_state_that_it_is_of(tmp_path: Path) -> None:
    """What is written meanwhile must not get into it: also where nothing is replayed after it."""
    files = SlowFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(rows(0, 3000))
    col.delete(list(range(50, 80)))
    digest = col.digest()
    thread = threading.Thread(target=col.checkpoint)
    thread.start()
    assert files.waiting.wait(DEADLINE_S)
    col.upsert(rows(0, 2000, seen=1))
    col.upsert(rows(60, 10, seen=1))
    col.delete(list(range(100, 200)))
    files.go_on.set()
    thread.join()
    held = col.stats()["checkpoint_seq"]
    col.close()
    reader = storage.Storage.for_reading(str(tmp_path / "c"), Files())
    engine, state = reader.recover(None, "commit", until=held)
    alone = upvec.Collection(engine, state, None)
    assert (state.seq, alone.digest()) == (held, digest)


def test_an_image_that_is_dropped_unfinished_stops_no_thread_but_its_own() -> None:
    """It waits for the writer of its index: in a process of its own, should that be for ever."""
    program = """
import threading, time
import numpy as np
from upvec._core import Index

index = Index(dim=64)
index.upsert(np.arange(2000), np.random.default_rng(1).random((2000, 64), dtype=np.float32))
for count in (20_000, 80_000, 320_000):  # until the writer takes long enough for this machine
    image = index.image()
    next(image)
    more = np.random.default_rng(2).random((count, 64), dtype=np.float32)
    keys = np.arange(count) + 10_000
    writer = threading.Thread(target=lambda: index.upsert(keys, more, threads=1))
    dropping, dropped = threading.Event(), threading.Event()

    def drop():
        global image
        dropping.set()
        del image
        dropped.set()

    writer.start()
    time.sleep(0.05)  # it has the lock of the index by now
    dropper = threading.Thread(target=drop)
    ticks, begin = 0, time.monotonic()
    dropper.start()
    dropping.wait()
    while not dropped.is_set():
        time.sleep(0.001)
        ticks += 1
    took = time.monotonic() - begin
    writer.join()
    dropper.join()
    if took > 0.3:
        break
assert took > 0.3, "the image waited for nobody"
assert ticks > 20, f"{ticks} steps in {took} s"
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("often")
def test_a_growing_log_begins_checkpoints_by_itself(tmp_path: Path) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA, durability="os")
    for turn in range(60):
        col.upsert(rows(turn * 50, 50))
    wait_until(lambda: col.stats()["checkpoint_seq"] > 0)
    digest, stats = col.digest(), col.stats()
    assert stats["checkpoint_failure"] is None
    col.close()
    with upvec.open(tmp_path / "c") as again:
        assert again.digest() == digest


@pytest.mark.usefixtures("often")
def test_no_checkpoint_begins_where_that_was_declined(tmp_path: Path) -> None:
    with upvec.open(tmp_path / "c", SCHEMA, auto_checkpoint=False) as col:
        for turn in range(10):
            col.upsert(rows(turn * 500, 500))
        assert not any(t.name == "upvec-checkpoint" for t in threading.enumerate())
        assert col.stats()["checkpoint_seq"] == 0


@pytest.mark.usefixtures("often")
def test_a_checkpoint_that_fails_in_the_background_is_told_and_tried_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    files.fail(1, "ENOSPC", only={"make_directory"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        col.upsert(rows(0, 1000))
        wait_until(lambda: bool(caught))
    assert re.search("no checkpoint of .*No space left", str(caught[0].message))
    assert "No space" in col.stats()["checkpoint_failure"]
    assert not list((tmp_path / "c").glob("checkpoint-*"))
    col.upsert(rows(1000, 2000))
    wait_until(lambda: col.stats()["checkpoint_seq"] == 2)
    wait_until(lambda: col.stats()["checkpoint_failure"] is None)
    col.close()


def test_closing_writes_a_checkpoint_where_replaying_would_take_longer(tmp_path: Path) -> None:
    def stored() -> tuple[int, int]:
        with upvec.open(tmp_path / "c", read_only=True) as col:
            return col.stats()["checkpoint_seq"], col.seq

    with upvec.open(tmp_path / "c", SCHEMA) as col:
        col.upsert(rows(0, 100))
    assert stored() == (0, 1)  # replayed sooner than written
    with upvec.open(tmp_path / "c") as col:
        col.upsert(rows(100, 40_000))
        digest = col.digest()
    assert stored() == (2, 2)
    with upvec.open(tmp_path / "c") as col:
        assert col.digest() == digest
        col.upsert(rows(0, 10, seen=1))
    assert stored() == (2, 3)
    with upvec.open(tmp_path / "c", auto_checkpoint=False) as col:
        col.upsert(rows(0, 40_000, seen=2))
    assert stored() == (2, 4)


def test_closing_after_an_interrupt_does_not_wait_for_a_checkpoint(tmp_path: Path) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA)

    def interrupted() -> None:
        with col:
            col.upsert(rows(0, 40_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert col.closed
    with upvec.open(tmp_path / "c") as again:
        assert (len(again), again.stats()["checkpoint_seq"]) == (40_000, 0)


def test_closing_waits_for_a_checkpoint_that_saves_the_next_opening_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LEAST_CLOSING_BYTES", 1)
    files = SlowFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(rows(0, 1000))
    thread = threading.Thread(target=col.checkpoint)
    thread.start()
    assert files.waiting.wait(DEADLINE_S)
    closing = threading.Thread(target=col.close)
    closing.start()
    files.go_on.set()
    closing.join()
    thread.join()
    with upvec.open(tmp_path / "c") as again:
        assert (len(again), again.stats()["checkpoint_seq"]) == (1000, 1)


def test_closing_ends_a_checkpoint_that_is_under_way(tmp_path: Path) -> None:
    files = SlowFiles()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(rows(0, 1000))
    errors: list[BaseException] = []

    def checkpoint() -> None:
        try:
            col.checkpoint()
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=checkpoint)
    thread.start()
    assert files.waiting.wait(DEADLINE_S)
    closing = threading.Thread(target=col.close)
    closing.start()
    wait_until(lambda: col.closed)
    files.go_on.set()
    closing.join()
    thread.join()
    assert len(errors) == 1
    with upvec.open(tmp_path / "c") as again:
        assert len(again) == 1000
    assert not list((tmp_path / "c").glob("*.tmp"))


@pytest.mark.usefixtures("often")
def test_a_forgotten_handle_that_writes_a_checkpoint_lets_go_of_its_lock(tmp_path: Path) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA, durability="os")
    col.upsert(rows(0, 5000))
    del col
    gc.collect()

    def can_be_opened() -> bool:
        try:
            with upvec.open(tmp_path / "c") as again:
                return len(again) == 5000
        except LockedError:  # the thread has yet to let go of the handle
            return False

    wait_until(can_be_opened)


def test_the_lock_is_held_until_no_thread_writes_a_checkpoint(tmp_path: Path) -> None:
    """Else the next writer's checkpoints could be taken for leftovers."""
    at_manifest, go_on = threading.Event(), threading.Event()

    class Waiting(Files):
        armed = False

        def create(self, path: str) -> int:
            if self.armed and path.endswith("MANIFEST.tmp"):
                at_manifest.set()
                assert go_on.wait(DEADLINE_S)
            return super().create(path)

    files = Waiting()
    col = open_directory(str(tmp_path / "c"), SCHEMA, files)
    col.upsert(rows(0, 10))
    files.armed = True
    writing = threading.Thread(target=col.checkpoint)
    writing.start()
    assert at_manifest.wait(DEADLINE_S)
    closing = threading.Thread(target=col.close)
    closing.start()
    wait_until(lambda: col.closed)
    with pytest.raises(LockedError):
        upvec.open(tmp_path / "c")
    go_on.set()
    for thread in (writing, closing):
        thread.join()
    with upvec.open(tmp_path / "c") as again:
        assert len(again) == 10


@pytest.mark.usefixtures("often")
def test_a_thread_that_cannot_begin_hides_nothing_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    col = upvec.open(tmp_path / "c", SCHEMA)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.warns(RuntimeWarning, match="can't start new thread"):
            assert col.upsert(rows(0, 2000)).seq == 1
    col.close()
    with upvec.open(tmp_path / "c") as again:
        assert len(again) == 2000


def test_a_failure_that_is_kept_keeps_nothing_else(tmp_path: Path) -> None:
    upvec.open(tmp_path / "c", SCHEMA).close()
    reader = upvec.open(tmp_path / "c", read_only=True, refresh_s=0.01)
    (tmp_path / "c" / "MANIFEST").rename(tmp_path / "MANIFEST")
    for path in (tmp_path / "c" / "log").iterdir():
        path.rename(tmp_path / path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        follower = reader._follower
        wait_until(lambda: follower.failure is not None)
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    wait_until(lambda: gone() is None)


def test_a_reader_goes_on_after_one_failure(
    pair: tuple[upvec.Collection, upvec.Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = pair
    for turn in range(1, 5):
        writer.upsert(rows(turn * 100, 100))
        writer.checkpoint()
    reader.stats()  # also where segments that it knows are gone

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(storage.Log, "open", refuse)
        with pytest.raises(OSError, match="Too many"):
            reader.refresh()
    assert reader.refresh() == writer.seq
    assert reader.digest() == writer.digest()


def test_many_writers_beside_checkpoints_lose_nothing(tmp_path: Path) -> None:
    col = upvec.open(tmp_path / "c", SCHEMA, durability="os")
    done = threading.Event()

    def write(offset: int) -> None:
        for turn in range(25):
            col.upsert(rows(offset, 30, seen=turn))

    def read() -> None:
        while not done.is_set():
            seen = {row["seen"] for row in col.get(list(range(30))).to_dicts() if row}
            assert len(seen) <= 1

    writers = [threading.Thread(target=write, args=(1000 * n,)) for n in range(4)]
    reader = threading.Thread(target=read)
    for thread in [*writers, reader]:
        thread.start()
    for _ in range(5):
        col.checkpoint()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    digest = col.digest()
    assert (len(col), col[3029]["seen"]) == (120, 24)
    col.close()
    with upvec.open(tmp_path / "c") as again:
        assert again.digest() == digest


class SlowCount:
    """An attribute whose reading lets other threads run, so that a change may overlap another."""

    def __get__(self, of: Any, kind: type) -> int:
        value: int = of.__dict__["_log_bytes"]
        time.sleep(0.002)
        return value

    def __set__(self, of: Any, value: int) -> None:
        of.__dict__["_log_bytes"] = value


def test_the_log_is_counted_exactly_beside_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.Storage, "_log_bytes", SlowCount(), raising=False)
    col = open_directory(str(tmp_path / "c"), SCHEMA, UnsyncedFiles(), auto_checkpoint=False)
    done = threading.Event()

    def write() -> None:
        turn = 0
        while not done.is_set():
            col.upsert(rows(0, 3, seen=turn))
            turn += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(30):
            col.checkpoint()
    finally:
        done.set()
        writer.join()
    col.upsert(rows(0, 1, seen=1 << 40))
    counted = col._storage._log_bytes
    col.close()
    with upvec.open(tmp_path / "c", auto_checkpoint=False) as again:
        assert again._storage._log_bytes == counted > 0


# Readers that follow


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[upvec.Collection, upvec.Collection]]:
    writer = upvec.open(tmp_path / "c", SCHEMA, durability="os")
    writer.upsert(rows(0, 100))
    reader = upvec.open(tmp_path / "c", read_only=True)
    yield writer, reader
    reader.close()
    writer.close()


def test_refresh_goes_on_to_what_was_committed_since(
    pair: tuple[upvec.Collection, upvec.Collection],
) -> None:
    writer, reader = pair
    with reader.snapshot() as before:
        writer.upsert(rows(100, 50))
        writer.delete([1, 2])
        assert (len(reader), reader.seq) == (100, 1)
        assert reader.refresh() == writer.seq == 3
        assert (len(reader), len(before)) == (148, 100)
        assert reader.digest() == writer.digest()
    assert reader.search(rows(120, 1)["emb"][0], k=1)["id"].tolist() == [120]
    assert reader.refresh() == 3


def test_refresh_of_a_writer_says_where_it_is(
    pair: tuple[upvec.Collection, upvec.Collection],
) -> None:
    writer, _ = pair
    assert writer.refresh() == writer.seq


def test_a_reader_follows_through_changes_of_the_schema(
    pair: tuple[upvec.Collection, upvec.Collection],
) -> None:
    writer, reader = pair
    writer.alter(add=[upvec.Field("note", "string", default="-")], rename={"text": "words"})
    writer.upsert([{"id": 7, "note": "new", "seen": 9}])
    reader.refresh()
    assert reader.schema == writer.schema
    assert (reader[7]["note"], reader[8]["note"]) == ("new", "-")
    assert reader.digest() == writer.digest()


def test_a_reader_that_is_too_far_behind_begins_with_the_checkpoint(
    pair: tuple[upvec.Collection, upvec.Collection],
) -> None:
    writer, reader = pair
    with reader.snapshot() as before:
        for turn in range(1, 5):
            writer.upsert(rows(turn * 100, 100))
            writer.checkpoint()
        writer.upsert(rows(900, 5))
        assert reader.refresh() == writer.seq
        assert reader.digest() == writer.digest()
        assert before.get([3])["id"].tolist() == [3]
        assert len(before) == 100
    writer.upsert(rows(905, 5))
    assert reader.refresh() == writer.seq


@pytest.mark.parametrize("what", ["apply", "_change_keys", "_change_vectors"])
def test_a_refresh_that_ends_half_way_is_begun_anew(
    pair: tuple[upvec.Collection, upvec.Collection], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    writer, reader = pair
    before = reader.digest()
    writer.upsert(rows(50, 100, seen=1))

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Engine, what, exhausted)
        with pytest.raises(MemoryError):
            reader.refresh()
    assert len(reader) == 100
    assert reader.refresh() == writer.seq
    assert reader.digest() == writer.digest() != before


def test_a_reader_follows_a_writer_that_took_over(tmp_path: Path) -> None:
    """The first is killed; what it had not synced is written anew by the second."""
    program = """
import os, sys, upvec
sys.path.insert(0, sys.argv[2])
from test_background import SCHEMA, rows
col = upvec.open(sys.argv[1], SCHEMA, durability="os")
for turn in range(5):
    col.upsert(rows(turn * 10, 10))
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "c"
    subprocess.run(
        [sys.executable, "-c", program, str(path), str(Path(__file__).parent)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    reader = upvec.open(path, read_only=True)
    assert len(reader) == 50
    with upvec.open(path) as second:
        second.upsert(rows(50, 10))
        reader.refresh()
        assert reader.digest() == second.digest()
        second.checkpoint()
        second.upsert(rows(60, 10))
        reader.refresh()
        assert reader.digest() == second.digest()
    reader.close()


def test_a_reader_follows_in_the_background_and_sees_whole_batches(tmp_path: Path) -> None:
    writer = upvec.open(tmp_path / "c", SCHEMA, durability="os")
    writer.upsert(rows(0, 200))
    reader = upvec.open(tmp_path / "c", read_only=True, refresh_s=0.001)
    seen = set()
    for turn in range(1, 40):
        writer.upsert(rows(0, 200, seen=turn))
        if turn % 10 == 0:
            writer.checkpoint()
        with reader.snapshot() as snap:
            values = {row["seen"] for row in snap.get(list(range(200))).to_dicts() if row}
        assert len(values) == 1
        seen |= values
    wait_until(lambda: reader.seq == writer.seq)
    assert len(seen) > 3
    assert reader.digest() == writer.digest()
    assert reader.stats()["refresh_failure"] is None
    reader.close()
    writer.close()
    with pytest.raises(ClosedError):
        reader.refresh()


def test_a_reader_that_can_follow_no_further_says_so_and_shows_what_it_has(
    tmp_path: Path,
) -> None:
    writer = upvec.open(tmp_path / "c", SCHEMA)
    writer.upsert(rows(0, 10))
    reader = upvec.open(tmp_path / "c", read_only=True, refresh_s=0.2)
    writer.upsert(rows(10, 10))
    writer.close()
    segment = next((tmp_path / "c" / "log").iterdir())
    data = bytearray(segment.read_bytes())
    data[-200] ^= 1
    segment.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="not followed any further"):
        wait_until(lambda: reader.stats()["refresh_failure"] is not None)
    assert len(reader) == 10
    with pytest.raises(CorruptionError):
        reader.refresh()
    reader.close()


def test_a_forgotten_reader_ends_its_thread(tmp_path: Path) -> None:
    upvec.open(tmp_path / "c", SCHEMA).close()
    reader = upvec.open(tmp_path / "c", read_only=True, refresh_s=0.001)
    assert any(t.name == "upvec-follower" for t in threading.enumerate())
    del reader
    gc.collect()
    wait_until(lambda: not any(t.name == "upvec-follower" for t in threading.enumerate()))


def test_refresh_s_wants_a_reader_and_a_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refresh_s=1"):
        upvec.open(tmp_path / "c", SCHEMA, refresh_s=1)
    upvec.open(tmp_path / "c", SCHEMA).close()
    with pytest.raises(ValueError, match="refresh_s=0"):
        upvec.open(tmp_path / "c", read_only=True, refresh_s=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upvec.open(tmp_path / "c", read_only=True, refresh_s=0.1).close()


def test_a_forked_child_ends_although_the_threads_are_not_with_it(tmp_path: Path) -> None:
    """Their locks may be held for ever in the child: it must not ask for them, not even at exit."""
    program = """
import os, sys, threading, upvec
sys.path.insert(0, sys.argv[2])
from test_background import SCHEMA, rows
writer = upvec.open(sys.argv[1], SCHEMA, durability="os")
reader = upvec.open(sys.argv[1], read_only=True, refresh_s=0.0005)
for turn in range(20):
    writer.upsert(rows(0, 50, seen=turn))
    child = os.fork()
    if child == 0:
        try:
            writer.upsert(rows(0, 1))
        except upvec.ForkedError:
            sys.exit(7)  # as any program ends, with all its finalizers
        sys.exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
reader.refresh()
assert reader.digest() == writer.digest()
writer.close()
"""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            program,
            str(tmp_path / "c"),
            str(Path(__file__).parent),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    upvec.open(tmp_path / "c").close()
