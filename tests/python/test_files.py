"""The file layer, and the failing one that the other tests stand on."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faulty_files import Crash, FaultyFiles
from upvec.errors import LockedError
from upvec.files import Files


def write(files: Files, path: Path, data: bytes) -> int:
    fd = files.create(str(path))
    files.write(fd, [data], 0)
    return fd


@pytest.mark.parametrize("sizes", [(), (0,), (1, 0, 2), (10, 70_000, 3), (200_000, 200_000)])
def test_parts_are_written_one_after_the_other(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    files = Files()
    parts = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    fd = files.create(str(tmp_path / "f"))
    end = files.write(fd, [memoryview(part) for part in parts], 0)
    assert end == sum(sizes) == files.size(fd)
    assert files.read(fd, 1 << 20, 0) == b"".join(parts)
    assert b"".join(files.blocks(fd, 1)) == b"".join(parts)[1:]
    files.close(fd)


def test_small_parts_are_one_write(tmp_path: Path) -> None:
    files = FaultyFiles()
    fd = files.create(str(tmp_path / "f"))
    files.write(fd, [b"a" * 44, b"b" * 1000, b"c"], 0)
    assert files.count("write") == 1
    files.close(fd)


def test_short_writes_are_completed(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail(1, "short", forever=True, only={"write"})
    fd = write(files, tmp_path / "f", bytes(range(100)))
    assert files.read(fd, 200, 0) == bytes(range(100))
    assert files.count("write") > 5
    files.close(fd)


def test_a_real_short_write_ends_in_an_error_and_not_in_less(tmp_path: Path) -> None:
    """`os.pwrite` returns 10,000 of 12,000 bytes under this limit, and raises nothing."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = Files().create(str(tmp_path / "f"))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(OSError, match="too large") as caught:
            Files().write(fd, [bytes(12_000)], 0)
        assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert Files().size(fd) == 10_000
    Files().close(fd)


def test_modes_and_descriptors_are_private(tmp_path: Path) -> None:
    files = Files()
    files.make_directory(str(tmp_path / "d"))
    fd = files.create(str(tmp_path / "d" / "f"))
    lock = files.lock(str(tmp_path / "d" / "LOCK"))
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "d" / "f").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "d" / "LOCK").stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)
    assert not os.get_inheritable(lock)
    files.close(fd)
    files.close(lock)


def test_links_are_not_followed_and_not_emptied(tmp_path: Path) -> None:
    files = Files()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("mine")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").symlink_to(tmp_path / "outside" / "f")
    (tmp_path / "d" / "directory").symlink_to(tmp_path / "outside")
    for call in (files.open, files.create):
        with pytest.raises(OSError, match="symbolic links"):
            call(str(tmp_path / "d" / "file"))
    files.remove_tree(str(tmp_path / "d"))
    assert (tmp_path / "outside" / "f").read_text() == "mine"


def test_contents_are_replaced_at_once(tmp_path: Path) -> None:
    files = Files()
    path = str(tmp_path / "f")
    files.replace_contents(path, [b"old"])
    files.replace_contents(path, [b"new", b"er"])
    assert files.read_all(path) == b"newer"
    assert files.list(str(tmp_path)) == ["f"]
    with pytest.raises(ValueError, match="has 5 bytes; at most 4"):
        files.read_all(path, limit_bytes=4)


# Locks


def test_lock_excludes_another_handle_of_the_same_process(tmp_path: Path) -> None:
    files = Files()
    path = str(tmp_path / "LOCK")
    fd = files.lock(path)
    with pytest.raises(LockedError):
        files.lock(path)
    # An unrelated open and close would drop a lockf lock.
    files.close(files.open(path))
    with pytest.raises(LockedError):
        files.lock(path, shared=True)
    files.close(fd)
    shared = files.lock(path, shared=True)
    files.close(files.lock(path, shared=True))
    with pytest.raises(LockedError):
        files.lock(path)
    files.close(shared)


def test_lock_excludes_another_process_and_ends_with_its_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "LOCK")
    code = "import sys; from upvec.files import Files; Files().lock(sys.argv[1]); print('locked')"
    run = [sys.executable, "-c", code, path]
    fd = Files().lock(path)
    other = subprocess.run(run, capture_output=True, text=True, check=False)
    assert "LockedError" in other.stderr
    Files().close(fd)
    other = subprocess.run(run, capture_output=True, text=True, check=False)
    assert other.stdout == "locked\n"
    Files().close(Files().lock(path))


def test_shared_lock_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Files().lock(str(tmp_path / "LOCK"), shared=True)
    fd = Files().lock(str(tmp_path), shared=True)
    Files().close(fd)
    assert list(tmp_path.iterdir()) == []


# The failing layer


def test_faults_hit_the_chosen_operation_and_are_recorded(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail(2, "EIO", only={"write"})
    fd = write(files, tmp_path / "f", b"one")
    with pytest.raises(OSError, match="Input/output"):
        files.write(fd, [b"two"], 3)
    files.write(fd, [b"three"], 3)
    assert files.read(fd, 100, 0) == b"onethree"
    assert [(op.name, op.size) for op in files.log[1:]] == [
        ("write", 3),
        ("write", 3),
        ("write", 5),
    ]
    files.fail(1, "crash")
    with pytest.raises(Crash):
        files.sync(fd)
    with pytest.raises(Crash):
        files.truncate(fd, 0)
    files.close(fd)


def image(files: FaultyFiles, root: Path, number: int, **options: object) -> dict[str, bytes]:
    dest = root.parent / f"{root.name}-{number}"
    files.crash_image(str(root), str(dest), **options)
    return {str(p.relative_to(dest)): p.read_bytes() for p in dest.rglob("*") if p.is_file()}


def test_crash_loses_what_was_not_synced(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.adopt(str(tmp_path))
    fd = write(files, tmp_path / "f", b"synced")
    files.sync(fd)
    files.sync_directory(str(tmp_path))
    files.write(fd, [b"12345678"], 6)
    assert image(files, tmp_path, 0) == {"f": b"synced"}
    assert image(files, tmp_path, 1, tail="kept") == {"f": b"synced12345678"}
    assert image(files, tmp_path, 2, tail="torn", at=3) == {"f": b"synced123"}
    assert image(files, tmp_path, 3, tail="zeros", at=3) == {"f": b"synced123" + bytes(5)}
    files.truncate(fd, 2)
    assert image(files, tmp_path, 4) == {"f": b"synced"}
    assert image(files, tmp_path, 5, tail="kept") == {"f": b"sy"}
    assert image(files, tmp_path, 6, tail=lambda path, node: node.synced[::-1]) == {"f": b"decnys"}
    files.close(fd)


def test_crash_loses_names_whose_directory_was_not_synced(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.adopt(str(tmp_path))
    for name in ("a", "b"):
        files.write_new(str(tmp_path / name), [name.encode()])
    assert image(files, tmp_path, 0) == {}
    assert image(files, tmp_path, 1, names="kept") == {"a": b"a", "b": b"b"}
    files.sync_directory(str(tmp_path))
    assert image(files, tmp_path, 2) == {"a": b"a", "b": b"b"}
    files.replace(str(tmp_path / "a"), str(tmp_path / "b"))
    assert image(files, tmp_path, 3) == {"a": b"a", "b": b"b"}
    assert image(files, tmp_path, 4, names="kept") == {"b": b"a"}
    files.sync_directory(str(tmp_path))
    files.unlink(str(tmp_path / "b"))
    assert image(files, tmp_path, 5) == {"b": b"a"}
    files.sync_directory(str(tmp_path))
    assert image(files, tmp_path, 6) == {}


def test_renamed_directory_keeps_what_is_in_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.adopt(str(tmp_path))
    files.make_directory(str(tmp_path / "d.tmp"))
    files.write_new(str(tmp_path / "d.tmp" / "f"), [b"x"])
    files.write_new(str(tmp_path / "d.tmp" / "g"), [b"y"])
    files.sync_directory(str(tmp_path / "d.tmp"))
    files.write_new(str(tmp_path / "d.tmp" / "h"), [b"z"])
    files.replace(str(tmp_path / "d.tmp"), str(tmp_path / "d"))
    files.sync_directory(str(tmp_path))
    assert image(files, tmp_path, 0) == {"d/f": b"x", "d/g": b"y"}
    files.remove_tree(str(tmp_path / "d"))
    assert image(files, tmp_path, 1) == {"d/f": b"x", "d/g": b"y"}
    assert image(files, tmp_path, 2, names="kept") == {}


def test_failed_sync_drops_pages_that_a_later_sync_does_not_bring_back(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.adopt(str(tmp_path))
    fd = write(files, tmp_path / "f", b"dropped")
    files.fail(1, "EIO", only={"sync_data"})
    with pytest.raises(OSError, match="Input/output"):
        files.sync_data(fd)
    files.write(fd, [b"kept"], 7)
    files.sync_data(fd)
    files.sync_directory(str(tmp_path))
    assert image(files, tmp_path, 0) == {"f": bytes(7) + b"kept"}
    files.close(fd)
