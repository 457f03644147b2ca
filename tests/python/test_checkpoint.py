"""Collections and checkpoints come into being at once or not at all."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from faulty_files import Crash, FaultyFiles, NoDirectorySync, UnsyncedFiles
from upvec.checkpoint import (
    Contents,
    Manifest,
    create_collection,
    find_checkpoint,
    lock_collection,
    read_manifest,
    remove_leftovers,
    write_checkpoint,
    write_manifest,
)
from upvec.errors import CorruptionError, LockedError, PoisonedError
from upvec.files import Files
from upvec.log import Log

ID = bytes(range(16))
EXTRA = {"schema": {"fields": ["id", "näme"]}}


def contents(seq: int) -> Contents:
    """Three files; what is in them tells of which commit they are."""

    text, noise = f"columns of {seq}".encode(), random.Random(seq).randbytes(5000)
    return {
        "columns.bin": [(0, text), (len(text), bytes(3000))],
        "vectors.upvec": [(16, noise[16:]), (0, noise[:16])],  # what comes first is known last
        "empty": [],
    }


def checkpoint(
    root: Path, seq: int, files: Files | None = None, log: Log | None = None
) -> Manifest:
    return write_checkpoint(
        str(root), files or UnsyncedFiles(), seq, ID, contents(seq), EXTRA, log=log
    )


def make(root: Path, *seqs: int) -> Path:
    fd = lock_collection(str(root), UnsyncedFiles(), create=True)
    create_collection(str(root), UnsyncedFiles(), ID, EXTRA)
    Files().close(fd)
    for seq in seqs:
        checkpoint(root, seq)
    return root


def found_seq(root: Path, files: Files | None = None) -> int | None:
    """Read the collection as opening it does, and compare what is found; None: there is none."""
    files = files or UnsyncedFiles()
    manifest = read_manifest(str(root), files)
    if manifest is None:
        return None
    assert manifest.collection_id == ID
    assert manifest.extra == EXTRA
    found = find_checkpoint(str(root), files, manifest)
    if found is None:
        return 0
    path = Path(found.path)
    seq = found.checkpoint.seq
    assert (path / "columns.bin").read_bytes() == f"columns of {seq}".encode() + bytes(3000)
    assert (path / "vectors.upvec").read_bytes() == random.Random(seq).randbytes(5000)
    assert (path / "empty").read_bytes() == b""
    return seq


def names(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# The collection


def test_created_collection_is_empty_and_complete(tmp_path: Path) -> None:
    root = make(tmp_path / "c")
    assert names(root) == ["LOCK", "MANIFEST", "log"]
    assert found_seq(root) == 0
    with Log.open(str(root / "log"), Files(), ID) as log:
        assert list(log.replay()) == []


def test_second_writer_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "c")
    fd = lock_collection(str(root), Files())
    with pytest.raises(LockedError) as caught:
        lock_collection(str(root), Files())
    assert caught.value.path == str(root)
    Files().close(fd)
    Files().close(lock_collection(str(root), Files()))


@pytest.mark.parametrize("opening", [lock_collection, read_manifest])
def test_collection_that_another_creates_meanwhile_is_no_corruption(
    tmp_path: Path, opening: Callable[[str, Files], object]
) -> None:
    root = str(tmp_path / "c")

    class CreatedMeanwhile(Files):
        """Another process creates the collection between two looks at its directory."""

        lock_of_other = -1

        def list(self, path: str) -> list[str]:
            if self.lock_of_other < 0:
                self.lock_of_other = lock_collection(root, Files(), create=True)
                create_collection(root, Files(), bytes(16), {})
            return super().list(path)

    (tmp_path / "c").mkdir()
    files = CreatedMeanwhile()
    if opening is lock_collection:
        with pytest.raises(LockedError):
            opening(root, files)
    else:
        assert opening(root, files) is None  # as it was when the look began
        assert opening(root, files) is not None
    files.close(files.lock_of_other)


def test_absent_directory_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock_collection(str(tmp_path / "c"), Files())
    with pytest.raises(FileNotFoundError):
        read_manifest(str(tmp_path / "c"), Files())
    assert names(tmp_path) == []


def test_empty_directory_may_become_a_collection(tmp_path: Path) -> None:
    assert read_manifest(str(tmp_path), Files()) is None
    Files().close(lock_collection(str(tmp_path), Files()))
    create_collection(str(tmp_path), Files(), ID, EXTRA)
    assert found_seq(tmp_path) == 0


def test_directory_that_was_there_already_is_durable_once_it_is_a_collection(
    tmp_path: Path,
) -> None:
    root = tmp_path / "a" / "c"
    root.parent.mkdir()
    files = FaultyFiles()
    files.make_directory(str(root))  # by somebody who died before syncing its parent
    files.close(lock_collection(str(root), files, create=True))
    create_collection(str(root), files, ID, EXTRA)
    files.crash_image(str(root.parent), str(tmp_path / "after"))
    assert found_seq(tmp_path / "after" / "c") == 0


@pytest.mark.parametrize("name", ["notes.txt", "log", "checkpoint-00000000000000000007"])
def test_foreign_directory_is_refused_and_not_touched(tmp_path: Path, name: str) -> None:
    if name == "log":
        (tmp_path / "log").mkdir()
        (tmp_path / "log" / "server.log").write_text("GET /")
    else:
        (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    for call in (
        lambda: lock_collection(str(tmp_path), Files(), create=True),
        lambda: read_manifest(str(tmp_path), Files()),
        lambda: create_collection(str(tmp_path), Files(), ID, EXTRA),
    ):
        with pytest.raises(CorruptionError, match=name):
            call()
    assert tree(tmp_path) == before


def test_data_without_manifest_is_never_taken_for_a_new_collection(tmp_path: Path) -> None:
    root = make(tmp_path / "c")
    with Log.open(str(root / "log"), Files(), ID) as log:
        log.append([b"x"])
    (root / "MANIFEST").unlink()
    with pytest.raises(CorruptionError, match="MANIFEST: is missing, although there is log"):
        read_manifest(str(root), Files())


def test_collection_is_not_created_over_another(tmp_path: Path) -> None:
    root = make(tmp_path / "c")
    with pytest.raises(CorruptionError, match="is a collection already"):
        create_collection(str(root), Files(), bytes(16), {})


@pytest.mark.parametrize("image", [("lost", "lost"), ("kept", "kept"), ("lost", "kept")])
def test_creation_killed_anywhere_leaves_nothing_or_all(tmp_path: Path, image: tuple) -> None:
    tail, kept = image
    complete = 0
    for at in range(1, 100):
        root = tmp_path / str(at) / "c"
        root.parent.mkdir()
        files = FaultyFiles()
        files.fail(at, "crash")
        crashed = False
        try:
            files.close(lock_collection(str(root), files, create=True))
            create_collection(str(root), files, ID, EXTRA)
        except Crash:
            crashed = True
        after = tmp_path / f"{at}-after"
        files.crash_image(str(root.parent), str(after), tail=tail, names=kept)
        root = after / "c"
        if not crashed:
            assert found_seq(root) == 0
            break
        if root.exists() and read_manifest(str(root), Files()) is not None:
            assert found_seq(root) == 0
            complete += 1
        else:
            make(root, 3)
            assert found_seq(root) == 3
    else:
        pytest.fail("creation never ended")
    assert complete <= 2


# Checkpoints


def test_checkpoint_is_found_again(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    assert found_seq(root) == 5
    manifest = read_manifest(str(root), Files())
    assert manifest.durable_seq == 5
    assert manifest.checkpoints[0].files["empty"] == (0, 0)
    assert (root / "checkpoint-00000000000000000005").stat().st_mode & 0o777 == 0o700


def test_one_older_checkpoint_is_kept_and_the_log_after_it(tmp_path: Path) -> None:
    root = make(tmp_path / "c")
    with Log.open(str(root / "log"), Files(), ID, segment_bytes=100) as log:
        for seq in range(1, 31):
            log.append([bytes(60)])
            if seq % 10 == 0:
                checkpoint(root, seq, log=log)
                assert log.durable_seq == seq
        assert names(root)[2:4] == [f"checkpoint-{seq:020}" for seq in (20, 30)]
        assert [seq for seq, _ in log.replay(20)] == list(range(21, 31))
        segments = len(list((root / "log").iterdir()))
        assert segments <= 12


def test_damaged_newest_checkpoint_falls_back_and_says_so(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5, 9)
    (root / f"checkpoint-{9:020}" / "vectors.upvec").write_bytes(bytes(5000))
    manifest = read_manifest(str(root), Files())
    found = find_checkpoint(str(root), Files(), manifest)
    assert found.checkpoint.seq == 5
    assert "vectors.upvec: does not match the checksum" in found.damaged[0]
    assert manifest.durable_seq == 9  # the log has to reach the newest one all the same


@pytest.mark.parametrize("name", ["columns.bin", "vectors.upvec", "empty"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "c", 5)
    (root / f"checkpoint-{5:020}" / name).unlink()
    with pytest.raises(CorruptionError, match=f"{name}: is missing"):
        found_seq(root)


def test_any_flipped_byte_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    file = root / f"checkpoint-{5:020}" / "columns.bin"
    data = file.read_bytes()
    for at in range(0, len(data), 97):
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CorruptionError, match=r"columns\.bin"):
            found_seq(root)


def test_truncated_file_is_found_without_reading_it(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    file = root / f"checkpoint-{5:020}" / "columns.bin"
    file.write_bytes(file.read_bytes()[:-1])
    manifest = read_manifest(str(root), Files())
    with pytest.raises(CorruptionError, match="bytes; the manifest says"):
        find_checkpoint(str(root), Files(), manifest, verify=False)


def test_same_commit_may_be_written_again(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5, 5, 5)
    assert found_seq(root) == 5
    assert sum(name.startswith("checkpoint-") for name in names(root)) == 2


def test_checkpoint_before_the_last_one_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    with pytest.raises(ValueError, match="checkpoint of commit 4; there is one of 5"):
        checkpoint(root, 4)
    with pytest.raises(ValueError, match="cannot be the name"):
        write_checkpoint(str(root), Files(), 6, ID, {"../x": []}, EXTRA)
    with pytest.raises(CorruptionError, match="is not collection"):
        write_checkpoint(str(root), Files(), 6, bytes(16), {}, EXTRA)


def test_checkpoint_after_a_failed_sync_of_the_log_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "c")
    files = FaultyFiles()
    log = Log.open(str(root / "log"), files, ID)
    seq = log.append([b"x"])
    files.fail(1, "EIO", only={"sync_data"})
    with pytest.raises(PoisonedError):
        log.sync(seq)
    with pytest.raises(PoisonedError):
        checkpoint(root, seq, files, log)
    assert found_seq(root) == 0
    assert names(root) == ["LOCK", "MANIFEST", "log"]
    log.close()


def test_pinned_checkpoint_outlives_its_successors(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    manifest = read_manifest(str(root), Files())
    found = find_checkpoint(str(root), Files(), manifest, pin=True)
    for seq in (6, 7, 8):
        checkpoint(root, seq)
    assert (Path(found.path) / "columns.bin").exists()
    Files().close(found.pin)
    checkpoint(root, 9)
    with pytest.raises(FileNotFoundError, match="removed by the writer"):
        find_checkpoint(str(root), Files(), manifest, pin=True)
    assert not Path(found.path).exists()
    assert found_seq(root) == 9


def test_reader_leaves_no_file_behind(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    before = names(root)
    Files().remove_tree(str(root / f"checkpoint-{5:020}"))
    manifest = read_manifest(str(root), Files())
    with pytest.raises(CorruptionError, match="is missing"):
        find_checkpoint(str(root), Files(), manifest, pin=True)
    assert names(root) == [name for name in before if not name.startswith("checkpoint")]


def test_leftovers_go_and_foreign_files_stay(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    (root / f"checkpoint-{6:020}.tmp").mkdir()
    (root / f"checkpoint-{6:020}.tmp" / "half").write_bytes(b"x")
    (root / f"checkpoint-{7:020}").mkdir()
    (root / "MANIFEST.tmp").write_bytes(b"{")
    (root / "README.txt").write_text("mine")
    (root / "notes.tmp").write_text("mine too")
    remove_leftovers(str(root), Files(), read_manifest(str(root), Files()))
    assert names(root) == sorted(
        ["LOCK", "MANIFEST", "README.txt", f"checkpoint-{5:020}", "log", "notes.tmp"]
    )


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "half", "crash"])
@pytest.mark.parametrize("forever", [False, True])
def test_checkpoint_that_fails_anywhere_leaves_the_old_or_the_new_one(
    tmp_path: Path, fault: str, forever: bool
) -> None:
    points = 0
    for at in range(1, 200):
        (tmp_path / str(at)).mkdir()
        root = make(tmp_path / str(at) / "c", 1, 2)
        files = FaultyFiles()
        files.adopt(str(root))
        log = Log.open(str(root / "log"), files, ID)
        for _ in range(2):
            log.sync(log.append([b"x"]))
        log.append([b"x"])
        first = len(files.log)
        files.fail(at, fault, forever=forever)
        made = False
        try:
            checkpoint(root, 3, files, log)
            made = True
        except (OSError, PoisonedError, Crash):
            pass
        for number, (tail, kept) in enumerate(
            [("lost", "lost"), ("kept", "kept"), ("kept", "lost"), ("lost", "kept")]
        ):
            after = tmp_path / f"{at}-{number}"
            files.crash_image(str(root), str(after), tail=tail, names=kept)
            seq = found_seq(after)
            assert seq in ({3} if made else {2, 3})
            with Log.open(str(after / "log"), Files(), ID, after_seq=seq, durable_seq=seq) as again:
                assert again.last_seq >= seq
            checkpoint(after, 4)
            assert found_seq(after) == 4
            shutil.rmtree(after)
        if made and len(files.log) - first < at:
            break
        points += 1
        if not made and fault != "crash" and not forever:
            files.heal()
            if not log.poisoned:
                checkpoint(root, 3, files, log)
                assert found_seq(root) == 3
        with suppress(Crash, PoisonedError):
            log.close()
    assert points > 15


class NoFileSync(FaultyFiles):
    def sync(self, fd: int) -> None:
        pass


@pytest.mark.parametrize("bug", [NoFileSync, NoDirectorySync])
def test_the_check_above_finds_planted_bugs(tmp_path: Path, bug: type[FaultyFiles]) -> None:
    root = make(tmp_path / "c", 1)
    files = bug()
    files.adopt(str(root))
    checkpoint(root, 2, files)
    after = tmp_path / "after"
    files.crash_image(str(root), str(after))
    seq = None
    with suppress(CorruptionError):
        seq = found_seq(after)
    assert seq != 2


def test_full_disk_keeps_nothing_of_a_failed_checkpoint(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    before = names(root)
    for at in range(1, 20):
        files = FaultyFiles()
        files.fail(at, "half", only={"write"})
        try:
            checkpoint(root, 6, files)
        except OSError:
            assert names(root) == before
        else:
            break
    assert found_seq(root) == 6


# The newest is damaged


def opened_from_the_older(root: Path, files: Files) -> tuple[Log, str]:
    """Make a collection with checkpoints at 10 and 20 and 30 commits, and damage the newer one."""
    make(root)
    with Log.open(str(root / "log"), UnsyncedFiles(), ID, segment_bytes=100) as log:
        for seq in range(1, 31):
            log.sync(log.append([bytes(60)]))
            if seq in {10, 20}:
                checkpoint(root, seq, log=log)
    (root / f"checkpoint-{20:020}" / "vectors.upvec").write_bytes(bytes(5000))
    found = find_checkpoint(str(root), files, read_manifest(str(root), files))
    assert found.checkpoint.seq == 10
    opened = Log.open(str(root / "log"), files, ID, after_seq=10, durable_seq=20, segment_bytes=100)
    return opened, found.checkpoint.directory


def test_the_checkpoint_opened_from_stays_and_the_damaged_one_goes(tmp_path: Path) -> None:
    root = tmp_path / "c"
    log, older = opened_from_the_older(root, UnsyncedFiles())
    write_checkpoint(
        str(root), UnsyncedFiles(), 30, ID, contents(30), EXTRA, log=log, rests_on=older
    )
    assert names(root)[2:4] == [f"checkpoint-{seq:020}" for seq in (10, 30)]
    (root / f"checkpoint-{30:020}" / "vectors.upvec").write_bytes(bytes(5000))
    assert found_seq(root) == 10
    assert [seq for seq, _ in log.replay(10)] == list(range(11, 31))
    log.close()


@pytest.mark.parametrize("image", [("lost", "lost"), ("kept", "kept"), ("lost", "kept")])
def test_a_sound_checkpoint_and_its_log_are_there_wherever_the_next_one_ends(
    tmp_path: Path, image: tuple
) -> None:
    tail, kept = image
    for at in range(1, 200):
        (tmp_path / str(at)).mkdir()
        root = tmp_path / str(at) / "c"
        files = FaultyFiles()
        log, older = opened_from_the_older(root, files)
        files.adopt(str(root))
        files.fail(at, "crash")
        made = False
        with suppress(Crash):
            write_checkpoint(str(root), files, 30, ID, contents(30), EXTRA, log=log, rests_on=older)
            made = True
        after = tmp_path / f"{at}-after"
        files.crash_image(str(root), str(after), tail=tail, names=kept)
        assert found_seq(after) in ({30} if made else {10, 30})
        for path in after.glob(f"checkpoint-{30:020}/*"):
            path.write_bytes(b"damaged")
        assert found_seq(after) == 10
        with Log.open(str(after / "log"), Files(), ID, after_seq=10, durable_seq=20) as again:
            assert [seq for seq, _ in again.replay(10)] == list(range(11, 31))
        with suppress(Crash):
            log.close()
        if made:
            break
    assert at > 15


# The manifest


def sealed(body: object) -> bytes:
    text = json.dumps(body).encode() + b"\n"
    return text + f"crc32 {zlib.crc32(text):08x}\n".encode()


def test_any_flipped_or_missing_byte_of_the_manifest_is_found(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    data = (root / "MANIFEST").read_bytes()
    chance = random.Random(3)
    for at in range(len(data)):
        for damaged in (
            data[:at],
            data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :],
        ):
            (root / "MANIFEST").write_bytes(damaged)
            with pytest.raises(CorruptionError, match="MANIFEST"):
                read_manifest(str(root), Files())


def test_newer_manifest_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST").write_bytes(sealed({"format": 2, "anything": 1}))
    with pytest.raises(CorruptionError, match="MANIFEST: format version 2; this build reads 1"):
        read_manifest(str(tmp_path), Files())


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"format": 1, "collection": "zz", "extra": {}, "checkpoints": []},
        {"format": 1, "collection": "00", "extra": {}, "checkpoints": []},
        {"format": 1, "collection": "00" * 16, "extra": 5, "checkpoints": []},
        {"format": 1, "collection": "00" * 16, "extra": {}, "checkpoints": [7]},
        *(
            {
                "format": 1,
                "collection": "00" * 16,
                "extra": {},
                "checkpoints": [
                    {
                        "directory": f"checkpoint-{5:020}",
                        "seq": 5,
                        "extra": {},
                        "files": {"a": [1, "00000000"]},
                        **change,
                    }
                ],
            }
            for change in (
                {"directory": "../../etc"},
                {"seq": -1},
                {"seq": "5"},
                {"files": {"../a": [1, "00000000"]}},
                {"files": {"a": [-1, "00000000"]}},
                {"files": {"a": [1]}},
                {"files": {"a": [1, "xyz"]}},
            )
        ),
    ],
)
def test_manifest_that_says_nonsense_is_corruption(tmp_path: Path, body: object) -> None:
    (tmp_path / "MANIFEST").write_bytes(sealed(body))
    with pytest.raises(CorruptionError, match="MANIFEST"):
        read_manifest(str(tmp_path), Files())


def test_deeply_nested_manifest_is_corruption(tmp_path: Path) -> None:
    text = b"[" * 200_000 + b"\n"
    data = text + f"crc32 {zlib.crc32(text):08x}\n".encode()
    (tmp_path / "MANIFEST").write_bytes(data)
    with pytest.raises(CorruptionError, match="MANIFEST"):
        read_manifest(str(tmp_path), Files())


def test_manifest_survives_a_failed_replacement(tmp_path: Path) -> None:
    root = make(tmp_path / "c", 5)
    before = (root / "MANIFEST").read_bytes()
    files = FaultyFiles()
    files.fail(1, "half", only={"write"})
    with pytest.raises(OSError, match="No space"):
        write_manifest(str(root), files, Manifest(ID, {}))
    assert (root / "MANIFEST").read_bytes() == before
