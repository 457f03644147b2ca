"""The log: what it promises when, and what it makes of damaged files."""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import threading
import time
import zlib
from pathlib import Path

import pytest

from faulty_files import Crash, FaultyFiles, NoDirectorySync, RetriedSync, UnsyncedFiles
from upvec.errors import (
    ClosedError,
    CorruptionError,
    ForkedError,
    PoisonedError,
    ReadOnlyError,
)
from upvec.files import Files
from upvec.log import Durability, Log, LogTrimmedError
from upvec.segment import HEADER_BYTES, SEGMENT_HEADER_BYTES

ID = bytes(range(16))


def payload(seq: int) -> bytes:
    return random.Random(seq).randbytes(20 + seq * 7 % 60)


def fill(log: Log, count: int, *, sync: bool = True) -> None:
    for _ in range(count):
        seq = log.append([payload(log.last_seq + 1)])
        if sync:
            log.sync(seq)


def make(path: Path, count: int = 5, *, close: bool = True, **options: object) -> Log:
    log = Log.create(str(path), UnsyncedFiles(), ID, **options)
    fill(log, count)
    if close:
        log.close()
    return log


def contents(path: Path, files: Files | None = None, **options: object) -> dict[int, bytes]:
    with Log.open(str(path), files or UnsyncedFiles(), ID, **options) as log:
        return {seq: bytes(data) for seq, data in log.replay()}


def expected(count: int) -> dict[int, bytes]:
    return {seq: payload(seq) for seq in range(1, count + 1)}


def tree(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir()}


def plant(path: Path, image: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    for name, data in image.items():
        (path / name).write_bytes(data)
    return path


def only_segment(path: Path) -> Path:
    (segment,) = path.glob("*.log")
    return segment


def record_offsets(data: bytes) -> list[int]:
    """Offsets of the records of an undamaged segment, and of its end."""
    offsets = [SEGMENT_HEADER_BYTES]
    while offsets[-1] < len(data):
        (size,) = struct.unpack_from("<Q", data, offsets[-1] + 16)
        offsets.append(offsets[-1] + HEADER_BYTES + size)
    return offsets


# Round trips


def test_replay_yields_every_commit_in_order(tmp_path: Path) -> None:
    make(tmp_path / "log", 20)
    assert contents(tmp_path / "log") == expected(20)


def test_replay_begins_after_the_given_commit(tmp_path: Path) -> None:
    make(tmp_path / "log", 9)
    with Log.open(str(tmp_path / "log"), Files(), ID) as log:
        assert [seq for seq, _ in log.replay(6)] == [7, 8, 9]
        assert list(log.replay(9)) == []


def test_payloads_may_come_in_parts_and_be_empty_or_large(tmp_path: Path) -> None:
    large = random.Random(0).randbytes(300_000)
    with Log.create(str(tmp_path / "log"), Files(), ID) as log:
        log.append([])
        log.append([b"ab", memoryview(b"cd"), bytearray(b"ef")])
        log.append([large, b"x", large])
    assert contents(tmp_path / "log") == {1: b"", 2: b"abcdef", 3: large + b"x" + large}


def test_a_record_costs_44_bytes(tmp_path: Path) -> None:
    make(tmp_path / "log", 1, close=False)
    size = only_segment(tmp_path / "log").stat().st_size
    assert size == SEGMENT_HEADER_BYTES + 44 + len(payload(1))


def test_reopened_log_continues_the_numbers(tmp_path: Path) -> None:
    make(tmp_path / "log", 3)
    for round_ in range(1, 4):
        with Log.open(str(tmp_path / "log"), Files(), ID) as log:
            assert log.last_seq == log.durable_seq == 3 * round_
            fill(log, 3)
    assert contents(tmp_path / "log") == expected(12)


def test_opening_and_closing_writes_nothing_new(tmp_path: Path) -> None:
    make(tmp_path / "log", 3)
    before = tree(tmp_path / "log")
    contents(tmp_path / "log")
    assert tree(tmp_path / "log") == before


def test_modes_of_the_files_keep_others_out(tmp_path: Path) -> None:
    make(tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert only_segment(tmp_path / "log").stat().st_mode & 0o777 == 0o600


# Segments


def test_segments_change_at_the_size_and_are_read_as_one_log(tmp_path: Path) -> None:
    make(tmp_path / "log", 40, segment_bytes=400)
    assert len(list((tmp_path / "log").iterdir())) > 5
    assert contents(tmp_path / "log") == expected(40)


def test_drop_before_keeps_what_follows_the_checkpoint(tmp_path: Path) -> None:
    make(tmp_path / "log", 40, segment_bytes=400)
    with Log.open(str(tmp_path / "log"), Files(), ID, segment_bytes=400) as log:
        assert log.drop_before(25) > 0
        assert [seq for seq, _ in log.replay(25)] == list(range(26, 41))
        with pytest.raises(LogTrimmedError):
            list(log.replay(0))
    with Log.open(str(tmp_path / "log"), Files(), ID, after_seq=25, durable_seq=25) as log:
        assert [seq for seq, _ in log.replay(25)] == list(range(26, 41))
    with pytest.raises(CorruptionError, match="commit 1 is missing"):
        Log.open(str(tmp_path / "log"), Files(), ID)


def test_drop_before_never_removes_the_segment_in_use(tmp_path: Path) -> None:
    with make(tmp_path / "log", 5, close=False) as log:
        assert log.drop_before(5) == 0
        log.rotate()
        assert log.drop_before(5) == 1
        log.rotate()  # an empty segment is not followed by another
        fill(log, 1)
    with Log.open(str(tmp_path / "log"), Files(), ID, after_seq=5) as log:
        assert {seq: bytes(data) for seq, data in log.replay(5)} == {6: payload(6)}


@pytest.mark.parametrize("victim", [0, 1, 2, -1])
def test_missing_segment_is_corruption(tmp_path: Path, victim: int) -> None:
    make(tmp_path / "log", 30, segment_bytes=400)
    segments = sorted((tmp_path / "log").glob("*.log"))
    segments[victim].unlink()
    before = tree(tmp_path / "log")
    with pytest.raises(CorruptionError, match="missing"):
        Log.open(str(tmp_path / "log"), Files(), ID)
    assert tree(tmp_path / "log") == before


def test_missing_segment_before_the_checkpoint_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path / "log", 30, segment_bytes=400)
    segments = sorted((tmp_path / "log").glob("*.log"))
    segments[1].unlink()
    Log.open(str(tmp_path / "log"), Files(), ID, after_seq=28, durable_seq=28).close()


def test_swapped_doubled_and_foreign_segments_are_corruption(tmp_path: Path) -> None:
    make(tmp_path / "log", 30, segment_bytes=400)
    make(tmp_path / "other", 30, segment_bytes=400)
    good = tree(tmp_path / "log")
    names = sorted(good)
    foreign = tree(tmp_path / "other")
    swapped = {**good, names[1]: good[names[2]], names[2]: good[names[1]]}
    doubled = {**good, names[-1][:-5] + "9.log": good[names[-1]]}
    copied = {**good, "copy of " + names[1]: good[names[1]]}
    mixed = {**good, names[2]: foreign[names[2]]}
    for image in (swapped, doubled, copied):
        plant(tmp_path / "log", image)
        with pytest.raises(CorruptionError):
            Log.open(str(tmp_path / "log"), Files(), ID)
        assert tree(tmp_path / "log") == image
    # The same commits with the same bytes, so the chain agrees: only the salt differs.
    plant(tmp_path / "log", mixed)
    assert contents(tmp_path / "log") == expected(30)
    plant(tmp_path / "log", good)
    with pytest.raises(CorruptionError, match="belongs to collection"):
        Log.open(str(tmp_path / "log"), Files(), bytes(16))


def test_segment_of_another_history_does_not_continue_this_one(tmp_path: Path) -> None:
    make(tmp_path / "log", 30, segment_bytes=400)
    good = tree(tmp_path / "log")
    names = sorted(good)
    with Log.create(str(tmp_path / "b"), Files(), ID, segment_bytes=400) as log:
        log.append([payload(1)[::-1]])
        fill(log, 29)
    other = tree(tmp_path / "b")
    assert sorted(other) == names
    plant(tmp_path / "log", {**good, names[2]: other[names[2]]})
    with pytest.raises(CorruptionError, match="does not continue"):
        Log.open(str(tmp_path / "log"), Files(), ID)


def test_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path / "log")
    segment = only_segment(tmp_path / "log")
    data = bytearray(segment.read_bytes())
    data[8] = 2
    data[44:48] = zlib.crc32(data[:44]).to_bytes(4, "little")
    segment.write_bytes(data)
    with pytest.raises(CorruptionError, match="format version 2; this build reads 1"):
        Log.open(str(tmp_path / "log"), Files(), ID)


# Torn tails and corruption


def test_log_cut_at_every_byte_keeps_a_prefix_or_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    good = tree(tmp_path / "log")
    ((name, data),) = good.items()
    offsets = record_offsets(data)
    for size in range(len(data)):
        plant(tmp_path / "log", {name: data[:size]})
        if size < SEGMENT_HEADER_BYTES:
            with pytest.raises(CorruptionError):
                contents(tmp_path / "log")
            continue
        whole = sum(end <= size for end in offsets[1:])
        assert contents(tmp_path / "log") == expected(min(whole, 5)), size


def test_log_cut_below_the_checkpoint_is_corruption_and_stays_as_it_is(tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    ((name, data),) = tree(tmp_path / "log").items()
    offsets = record_offsets(data)
    for size in range(SEGMENT_HEADER_BYTES, offsets[3]):
        plant(tmp_path / "log", {name: data[:size]})
        with pytest.raises(CorruptionError):
            Log.open(str(tmp_path / "log"), Files(), ID, after_seq=1, durable_seq=3)
        assert tree(tmp_path / "log") == {name: data[:size]}


def test_bit_flipped_in_any_byte_is_corruption_after_a_clean_close(tmp_path: Path) -> None:
    make(tmp_path / "log", 4)
    ((name, data),) = tree(tmp_path / "log").items()
    marker = record_offsets(data)[-2]
    chance = random.Random(1)
    for at in range(len(data)):
        image = bytearray(data)
        image[at] ^= 1 << chance.randrange(8)
        plant(tmp_path / "log", {name: bytes(image)})
        if at < marker:
            with pytest.raises(CorruptionError):
                contents(tmp_path / "log")
            assert tree(tmp_path / "log") == {name: bytes(image)}
        else:  # the marker itself: nothing is lost with it
            assert contents(tmp_path / "log") == expected(4)


def test_bit_flipped_before_the_last_record_is_corruption_without_a_close(tmp_path: Path) -> None:
    make(tmp_path / "log", 4, close=False)
    ((name, data),) = tree(tmp_path / "log").items()
    last = record_offsets(data)[-2]
    for at in range(0, len(data), 3):
        image = bytearray(data)
        image[at] ^= 0x10
        plant(tmp_path / "log", {name: bytes(image)})
        if at < last:
            with pytest.raises(CorruptionError):
                contents(tmp_path / "log")
        else:
            # Not told apart from a torn tail: see the module. A wrong answer it is not.
            assert contents(tmp_path / "log") == expected(3)


def test_damaged_marker_does_not_hide_later_commits(tmp_path: Path) -> None:
    make(tmp_path / "log", 2)
    ((name, data),) = tree(tmp_path / "log").items()
    marker = record_offsets(data)[-2]
    with Log.open(str(tmp_path / "log"), Files(), ID) as log:
        fill(log, 1)
    image = bytearray((tmp_path / "log" / name).read_bytes())
    image[marker + 30] ^= 1
    (tmp_path / "log" / name).write_bytes(image)
    with pytest.raises(CorruptionError, match="on the disk before commit 3"):
        contents(tmp_path / "log")


def test_unsynced_commits_lost_out_of_order_are_a_torn_tail(tmp_path: Path) -> None:
    log = Log.create(str(tmp_path / "log"), Files(), ID)
    fill(log, 2)
    fill(log, 4, sync=False)
    ((name, data),) = tree(tmp_path / "log").items()
    offsets = record_offsets(data)
    image = bytearray(data)
    image[offsets[3] : offsets[4]] = bytes(offsets[4] - offsets[3])  # commit 4 never got there
    plant(tmp_path / "log", {name: bytes(image)})
    assert contents(tmp_path / "log") == expected(3)
    broken = tmp_path / "log" / f"{name}.{offsets[3]}.broken"
    assert broken.read_bytes() == image[offsets[3] :]


@pytest.mark.parametrize("zeros", [1, 43, 44, 480, 5000])
def test_zeros_to_the_end_are_the_end(tmp_path: Path, zeros: int) -> None:
    make(tmp_path / "log", 3, close=False)
    segment = only_segment(tmp_path / "log")
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(bytes(zeros))
    assert contents(tmp_path / "log") == expected(3)
    assert segment.stat().st_size == size + HEADER_BYTES  # and the marker
    assert [p.name for p in (tmp_path / "log").iterdir()] == [segment.name]


def test_zeros_in_the_middle_are_corruption(tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    segment = only_segment(tmp_path / "log")
    data = bytearray(segment.read_bytes())
    offsets = record_offsets(data)
    data[offsets[1] : offsets[2]] = bytes(offsets[2] - offsets[1])
    segment.write_bytes(data)
    with pytest.raises(CorruptionError):
        contents(tmp_path / "log")


def test_damaged_segment_that_is_not_the_last_is_corruption(tmp_path: Path) -> None:
    make(tmp_path / "log", 30, segment_bytes=400)
    segment = sorted((tmp_path / "log").glob("*.log"))[1]
    segment.write_bytes(segment.read_bytes()[:-3])
    with pytest.raises(CorruptionError, match="not the last"):
        contents(tmp_path / "log")


def test_corrupt_length_never_allocates(tmp_path: Path) -> None:
    make(tmp_path / "log", 2, close=False)
    segment = only_segment(tmp_path / "log")
    data = bytearray(segment.read_bytes())
    last = record_offsets(data)[-2]
    salt = int.from_bytes(data[28:32], "little")
    data[last + 16 : last + 24] = (1 << 62).to_bytes(8, "little")
    data[last + 4 : last + 8] = zlib.crc32(data[last + 8 : last + 44], salt).to_bytes(4, "little")
    segment.write_bytes(data)
    assert contents(tmp_path / "log") == expected(1)


def test_torn_tail_is_kept_once_however_often_recovery_is_interrupted(tmp_path: Path) -> None:
    make(tmp_path / "log", 3, close=False)
    segment = only_segment(tmp_path / "log")
    segment.write_bytes(segment.read_bytes()[:-5])
    image = tree(tmp_path / "log")
    for at in range(1, 100):
        plant(tmp_path / "log", image)
        files = FaultyFiles()
        files.fail(at, "crash")
        try:
            log = Log.open(str(tmp_path / "log"), files, ID)
        except Crash:
            assert contents(tmp_path / "log") == expected(2)
            assert len(list((tmp_path / "log").glob("*.broken"))) <= 1
        else:
            log.close()
            break
    else:
        pytest.fail("recovery never ended")


# Failing disks


def test_refused_append_changes_nothing(tmp_path: Path) -> None:
    for fault, number in (("ENOSPC", errno.ENOSPC), ("half", errno.ENOSPC), ("EIO", errno.EIO)):
        files = FaultyFiles()
        directory = tmp_path / fault
        with Log.create(str(directory), files, ID) as log:
            fill(log, 2)
            before = tree(directory)
            files.fail(1, fault, only={"write"})
            with pytest.raises(OSError, match=os.strerror(number)):
                log.append([payload(3)])
            assert tree(directory) == before
            assert log.last_seq == log.durable_seq == 2
            fill(log, 2)
        assert contents(directory) == expected(4)


def test_short_writes_are_completed(tmp_path: Path) -> None:
    files = FaultyFiles()
    with Log.create(str(tmp_path / "log"), files, ID) as log:
        files.fail(1, "short", forever=True, only={"write"})
        fill(log, 3)
    assert files.count("write") > 15
    assert contents(tmp_path / "log") == expected(3)


def test_append_that_cannot_be_undone_poisons(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    fill(log, 2)
    files.fail(1, "half", only={"write"})
    files.fail(1, "EIO", only={"truncate"})
    with pytest.raises(PoisonedError) as caught:
        log.append([payload(3)])
    assert caught.value.unknown == 3
    assert log.poisoned
    log.close()
    assert contents(tmp_path / "log") == expected(2)


def test_failed_sync_poisons_for_good_and_is_not_retried(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    fill(log, 2)
    seq = log.append([payload(3)])
    files.fail(1, "EIO", only={"sync_data"})
    with pytest.raises(PoisonedError) as caught:
        log.sync(seq)
    assert caught.value.unknown == 3
    assert isinstance(caught.value.cause, OSError)
    syncs = files.count("sync_data")
    with pytest.raises(PoisonedError) as caught:
        log.append([b"x"])
    assert caught.value.unknown is None
    with pytest.raises(PoisonedError):
        log.sync(seq)
    log.sync(2)  # was on the disk before
    assert {seq: bytes(data) for seq, data in log.replay()} == expected(3)
    log.close()
    assert files.count("sync_data") == syncs


def test_what_a_failed_sync_dropped_is_written_again_on_open(tmp_path: Path) -> None:
    """After a failed fsync the page cache looks clean; the disk does not have the data."""
    files = FaultyFiles()
    root = str(tmp_path)
    log = Log.create(str(tmp_path / "log"), files, ID)
    fill(log, 2)
    seq = log.append([payload(3)])
    files.fail(1, "EIO", only={"sync_data"})
    with pytest.raises(PoisonedError):
        log.sync(seq)
    log.close()
    with Log.open(str(tmp_path / "log"), files, ID) as log:
        assert log.last_seq == 3
        fill(log, 1)
        files.crash_image(root, str(tmp_path) + "-after")
    assert contents(Path(str(tmp_path) + "-after") / "log") == expected(4)


class Run:
    """A writer that goes on after errors, over changes of segments and an open in between."""

    def __init__(self, files: FaultyFiles, root: Path) -> None:
        self.files, self.root = files, root
        self.acknowledged = self.attempted = 0
        self.created = False

    def go(self) -> None:
        try:
            with Log.create(str(self.root / "log"), self.files, ID, segment_bytes=150) as log:
                self.created = True
                self.write(log)
            with Log.open(str(self.root / "log"), self.files, ID, segment_bytes=150) as log:
                assert log.last_seq >= self.acknowledged
                self.write(log)
        except (OSError, PoisonedError, Crash):
            pass

    def write(self, log: Log) -> None:
        for _ in range(5):
            seq = log.last_seq + 1
            self.attempted = max(self.attempted, seq)
            try:
                log.append([payload(seq)])
            except OSError:  # refused: the same number again
                assert log.last_seq == seq - 1
                continue
            log.sync(seq)
            self.acknowledged = seq

    def check(self, dest: Path) -> None:
        """Lose the power in several ways, and look whether all that was acknowledged is there."""
        for number, (tail, names) in enumerate(
            [
                ("lost", "lost"),
                ("kept", "kept"),
                ("lost", "kept"),
                ("kept", "lost"),
                ("zeros", "lost"),
            ]
        ):
            image = dest / str(number)
            self.files.crash_image(str(self.root), str(image), tail=tail, names=names)
            if not self.created and not list(image.glob("log/*.log")):
                continue
            found = contents(image / "log")
            assert self.acknowledged <= len(found) <= self.attempted
            assert found == expected(len(found))
            assert contents(image / "log") == found
            shutil.rmtree(image)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "half", "crash"])
@pytest.mark.parametrize("forever", [False, True])
def test_any_operation_may_fail_and_nothing_acknowledged_is_lost(
    tmp_path: Path, fault: str, forever: bool
) -> None:
    points = 0
    for at in range(1, 1000):
        (tmp_path / f"{at}").mkdir()
        (tmp_path / f"{at}-images").mkdir()
        files = FaultyFiles()
        files.fail(at, fault, forever=forever)
        run = Run(files, tmp_path / f"{at}")
        run.go()
        run.check(tmp_path / f"{at}-images")
        if len(files.log) < at:
            break
        points += 1
    assert points > 60


class NoSync(FaultyFiles):
    def sync_data(self, fd: int) -> None:
        pass


@pytest.mark.parametrize("bug", [NoSync, NoDirectorySync, RetriedSync])
def test_the_check_above_finds_planted_bugs(tmp_path: Path, bug: type[FaultyFiles]) -> None:
    files = bug()
    files.fail(2, "EIO", only={"sync_data"})
    run = Run(files, tmp_path / "run")
    run.root.mkdir()
    run.go()
    (tmp_path / "images").mkdir()
    with pytest.raises((AssertionError, CorruptionError, FileNotFoundError)):
        run.check(tmp_path / "images")


def test_power_loss_at_any_byte_of_the_unsynced_tail(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    fill(log, 2)
    fill(log, 2, sync=False)
    ((_, node),) = files.pending()
    size = sum(len(data or b"") for _, data in node.pending)
    for tail in ("torn", "zeros"):
        for at in range(size + 1):
            image = tmp_path.parent / f"{tmp_path.name}-{tail}-{at}"
            files.crash_image(str(tmp_path), str(image), tail=tail, at=at)
            found = contents(image / "log")
            assert 2 <= len(found) <= 4
            assert found == expected(len(found))
            assert (len(found) == 4) == (at == size)


def test_full_disk_at_a_change_of_segments_keeps_the_present_one(tmp_path: Path) -> None:
    files = FaultyFiles()
    with Log.create(str(tmp_path / "log"), files, ID, segment_bytes=100) as log:
        fill(log, 2)
        files.fail(1, "ENOSPC", forever=True, only={"create"})
        fill(log, 3)
        segments = len(list((tmp_path / "log").iterdir()))
        files.heal()
        fill(log, 1)
        assert len(list((tmp_path / "log").iterdir())) == segments + 1
    assert contents(tmp_path / "log") == expected(6)


# Group commit


class SlowFiles(FaultyFiles):
    """A disk on which a sync takes its time, as on a real one."""

    def sync_data(self, fd: int) -> None:
        assert not self.syncing, "two syncs of one file at a time"
        self.syncing = True
        time.sleep(0.003)
        super().sync_data(fd)
        self.syncing = False

    syncing = False


def run_threads(count: int, work: object) -> list[Exception]:
    errors: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_eight_threads_share_their_syncs(tmp_path: Path) -> None:
    files = SlowFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    one_at_a_time = threading.Lock()  # as the collection's writer lock

    def work() -> None:
        for _ in range(25):
            with one_at_a_time:
                seq = log.append([payload(log.last_seq + 1)])
            log.sync(seq)
            assert log.durable_seq >= seq

    assert run_threads(8, work) == []
    assert log.syncs <= 200 / 3
    log.close()
    assert contents(tmp_path / "log") == expected(200)


def test_sync_covers_only_what_was_appended_before_it_began(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    fill(log, 1, sync=False)

    def append_meanwhile(operation: object) -> None:
        files.before = None
        log.append([payload(2)])

    files.before = append_meanwhile
    log.sync(1)
    assert (log.durable_seq, log.last_seq) == (1, 2)
    log.sync(2)
    assert log.syncs == 2


def test_failed_sync_reaches_every_waiting_thread(tmp_path: Path) -> None:
    files = SlowFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    files.fail(3, "EIO", only={"sync_data"})
    acknowledged: list[int] = []

    def work() -> None:
        for _ in range(20):
            seq = log.append([b"x"])
            log.sync(seq)
            acknowledged.append(seq)

    errors = run_threads(6, work)
    assert len(errors) == 6
    assert all(isinstance(error, PoisonedError) for error in errors)
    assert max(acknowledged) <= log.durable_seq


def test_threads_that_append_while_segments_change_lose_nothing(tmp_path: Path) -> None:
    with Log.create(str(tmp_path / "log"), SlowFiles(), ID, segment_bytes=300) as log:

        def work() -> None:
            for step in range(10):
                log.sync(log.append([bytes(50)]))
                if step % 4 == 0:
                    log.rotate()

        assert run_threads(6, work) == []
    assert list(contents(tmp_path / "log")) == list(range(1, 61))


# Durability


def test_os_mode_syncs_only_when_told(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID, durability="os")
    fill(log, 10)
    assert files.count("sync_data") == 0
    log.flush()
    assert (files.count("sync_data"), log.durable_seq) == (1, 10)
    log.close()
    assert contents(tmp_path / "log") == expected(10)


def test_interval_mode_syncs_in_the_background(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID, durability="interval", interval_s=0.02)
    started = time.monotonic()
    fill(log, 10)
    while log.durable_seq < 10:
        assert time.monotonic() - started < 5
        time.sleep(0.005)
    assert files.count("sync_data") <= 3
    log.close()
    assert not any(thread.name == "upvec-log-sync" for thread in threading.enumerate())


def test_failure_in_the_background_is_told_to_the_next_call(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID, durability="interval", interval_s=0.01)
    files.fail(1, "EIO", only={"sync_data"})
    fill(log, 1)
    while not log.poisoned:
        time.sleep(0.005)
    with pytest.raises(PoisonedError):
        log.sync(1)
    with pytest.raises(PoisonedError):
        log.append([b"x"])
    with pytest.raises(PoisonedError):
        log.close()


@pytest.mark.parametrize("durability", ["interval", "os"])
def test_close_does_not_hide_that_commits_were_not_synced(
    tmp_path: Path, durability: Durability
) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID, durability=durability, interval_s=0.01)
    files.fail(1, "EIO", only={"sync_data"})
    fill(log, 1)
    if durability == "os":
        with pytest.raises(PoisonedError):  # a checkpoint in the background, say
            log.flush()
    while not log.poisoned:
        time.sleep(0.005)
    with pytest.raises(PoisonedError) as caught:
        log.close()
    assert caught.value.unknown == 1
    log.close()


# Readers beside a writer


def test_reader_follows_a_writer_through_segments(tmp_path: Path) -> None:
    with Log.create(str(tmp_path / "log"), Files(), ID, segment_bytes=300) as log:
        reader = Log.open(str(tmp_path / "log"), Files(), ID, read_only=True)
        seen: dict[int, bytes] = {}
        for _ in range(12):
            fill(log, 3)
            for seq, data in reader.replay(max(seen, default=0)):
                seen[seq] = bytes(data)
            assert seen == expected(log.last_seq)
        reader.close()


def test_reader_takes_an_incomplete_record_as_not_yet_written(tmp_path: Path) -> None:
    make(tmp_path / "log", 4, close=False)
    segment = only_segment(tmp_path / "log")
    data = segment.read_bytes()
    segment.write_bytes(data[:-7])
    before = tree(tmp_path / "log")
    with Log.open(str(tmp_path / "log"), Files(), ID, read_only=True) as reader:
        assert len(list(reader.replay())) == 3
        assert tree(tmp_path / "log") == before
        segment.write_bytes(data)
        assert [seq for seq, _ in reader.replay(3)] == [4]
        with pytest.raises(ReadOnlyError):
            reader.append([b"x"])
        with pytest.raises(ReadOnlyError):
            reader.drop_before(1)
    assert segment.read_bytes() == data


def test_reader_that_is_too_far_behind_is_told_so(tmp_path: Path) -> None:
    with Log.create(str(tmp_path / "log"), Files(), ID, segment_bytes=300) as log:
        fill(log, 3)
        reader = Log.open(str(tmp_path / "log"), Files(), ID, read_only=True)
        fill(log, 30)
        log.drop_before(30)
        with pytest.raises(LogTrimmedError):
            list(reader.replay(3))
        assert [seq for seq, _ in reader.replay(30)] == [31, 32, 33]


def test_reader_beside_a_busy_writer_never_sees_corruption(tmp_path: Path) -> None:
    log = Log.create(str(tmp_path / "log"), Files(), ID, segment_bytes=4000, durability="os")
    done = threading.Event()

    def read() -> None:
        reader = Log.open(str(tmp_path / "log"), Files(), ID, read_only=True)
        at = 0
        while not (done.is_set() and at == log.last_seq):
            for seq, data in reader.replay(at):
                assert seq == at + 1
                assert data == payload(seq)
                at = seq

    def write() -> None:
        fill(log, 400)
        done.set()

    errors: list[Exception] = []
    roles = iter((read, write))
    lock = threading.Lock()

    def work() -> None:
        with lock:
            role = next(roles)
        role()

    errors = run_threads(2, work)
    assert errors == []
    log.close()


# Ends


def test_closed_log_refuses(tmp_path: Path) -> None:
    log = make(tmp_path / "log")
    log.close()
    for call in (lambda: log.append([b"x"]), lambda: list(log.replay()), log.rotate):
        with pytest.raises(ClosedError):
            call()


def test_close_on_a_full_disk_still_closes(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    fill(log, 2)
    files.fail(1, "half", forever=True, only={"write"})
    log.close()
    assert contents(tmp_path / "log") == expected(2)


def test_forked_child_refuses_and_writes_nothing(tmp_path: Path, monkeypatch: object) -> None:
    log = make(tmp_path / "log", 3, close=False)
    before = tree(tmp_path / "log")
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        for call in (lambda: log.append([b"x"]), log.sync, log.rotate, lambda: log.drop_before(1)):
            with pytest.raises(ForkedError) as caught:
                call()
            assert caught.value.pid == parent
        with pytest.raises(ForkedError):
            next(log.replay())
        log.close()
    assert tree(tmp_path / "log") == before


def test_interrupted_create_leaves_nothing_or_an_empty_log(tmp_path: Path) -> None:
    for at in range(1, 20):
        work = tmp_path / str(at)
        work.mkdir()
        files = FaultyFiles()
        files.fail(at, "crash")
        try:
            Log.create(str(work / "log"), files, ID).close()
        except Crash:
            image = tmp_path / f"{at}-image"
            files.crash_image(str(work), str(image))
            Log.create(str(image / "log"), Files(), ID).close()
            assert contents(image / "log") == {}
        else:
            break
    else:
        pytest.fail("creation never ended")


@pytest.mark.parametrize("options", [{"durability": "never"}, {"collection_id": b"short"}])
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    arguments = {"collection_id": ID, **options}
    with pytest.raises(ValueError, match="want"):
        Log.create(str(tmp_path / "log"), Files(), **arguments)
    assert not (tmp_path / "log").exists()


def test_a_sync_that_was_begun_soon_is_waited_for(tmp_path: Path) -> None:
    class Slow(UnsyncedFiles):
        def __init__(self) -> None:
            self.entered, self.go_on, self.syncs = threading.Event(), threading.Event(), 0

        def sync_data(self, fd: int) -> None:
            self.syncs += 1
            self.entered.set()
            assert self.go_on.wait(20)

    files = Slow()
    log = Log.create(str(tmp_path / "log"), files, ID)
    seq = log.append([payload(1)])
    log.sync_soon()
    assert files.entered.wait(20)
    assert log.durable_seq == 0  # it goes on beside whoever began it
    waiting = threading.Thread(target=log.sync, args=(seq,))
    waiting.start()
    files.go_on.set()
    waiting.join()
    assert (log.durable_seq, files.syncs) == (1, 1)
    log.close()
    assert not any(thread.name == "upvec-log-sync" for thread in threading.enumerate())


def test_failure_of_a_sync_that_was_begun_soon_is_told_to_who_waits(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = Log.create(str(tmp_path / "log"), files, ID)
    seq = log.append([payload(1)])
    files.fail(1, "EIO", only={"sync_data"})
    log.sync_soon()
    with pytest.raises(PoisonedError) as caught:
        log.sync(seq)
    assert caught.value.unknown == seq
    with pytest.raises(PoisonedError):
        log.sync_soon()
    log.close()


def test_other_modes_sync_no_sooner_than_they_promise(tmp_path: Path) -> None:
    files = FaultyFiles()
    with Log.create(str(tmp_path / "log"), files, ID, durability="os") as log:
        log.append([payload(1)])
        log.sync_soon()
        assert files.count("sync_data") == 0
