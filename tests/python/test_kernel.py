"""The real kernel: killed at system calls, power cuts of real file systems, and full disks.

``UPVEC_KERNEL=all`` takes every system call, and 40 power cuts of each file system. What is not to
be had here is skipped, with a word about how to get it.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import upvec
from small_collection import SCHEMA, rows
from upvec.errors import UpvecError

ALL = os.environ.get("UPVEC_KERNEL") == "all"
HERE = Path(__file__).parent

# Says on its output what was acknowledged: the oracle lies outside of the directory.
WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
import upvec
from small_collection import SCHEMA, rows
from upvec import log
log.SEGMENT_BYTES = 20_000
col = upvec.open(sys.argv[1], SCHEMA, auto_checkpoint=False)
print("open", col.seq, flush=True)
for turn in range(int(sys.argv[3])):
    number = col.seq + 1
    col.upsert(rows(7 * number % 50, 5, number))
    print(col.seq, flush=True)
    if number % 9 == 0:
        col.checkpoint()
col.close()
print("closed", flush=True)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def writer(path: Path, turns: int) -> list[str]:
    return [sys.executable, "-c", WRITER, str(path), str(HERE), str(turns)]


def acknowledged_in(output: str) -> int | None:
    """Return the newest commit that was acknowledged; None: not even the collection."""
    numbers = re.findall(r"^(?:open )?(\d+)$", output, re.MULTILINE)
    return int(numbers[-1]) if numbers else None


def check(path: Path, acknowledged: int | None) -> None:
    """Check that all that was acknowledged is there, at most one commit more, and none by half."""
    if acknowledged is None:
        with suppress(UpvecError, FileNotFoundError):
            upvec.open(path, SCHEMA).close()
        return
    with upvec.open(path) as col:
        assert acknowledged <= col.seq <= acknowledged + 1
        digest = col.digest()
        expected: dict[int, int] = {}
        for number in range(1, col.seq + 1):
            expected |= dict.fromkeys(rows(7 * number % 50, 5, number)["id"].tolist(), number)
        found = [row for part in col.scan() for row in part.to_dicts() if row is not None]
        assert {row["id"]: row["seen"] for row in found} == expected
    with upvec.open(path) as again:
        assert again.digest() == digest


# Killed at a system call

CALLS = ("pwrite64", "fdatasync", "fsync", "rename", "unlink", "mkdir")


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_system_call(tmp_path: Path, call: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    kills = 0
    step = 1 if ALL else 7
    for at in range(1, 400, step):
        path = tmp_path / str(at)
        inject = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        inject += ["-e", f"inject={call}:signal=KILL:when={at}"]
        done = subprocess.run(
            [*inject, *writer(path, 20)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if "PTRACE" in done.stderr or "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
        acknowledged = acknowledged_in(done.stdout)
        if path.exists():
            check(path, acknowledged)
        if "closed" in done.stdout:
            break
        kills += 1
        if not ALL and kills == 4:
            break
    print(f"{call}: {kills} kills")
    assert kills


# Power cuts

FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 16, "e2fsprogs", []),
    "xfs": (["mkfs.xfs", "-q", "-f"], 300, "xfsprogs", ["-o", "nouuid"]),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 128, "btrfs-progs", []),
}


class Image:
    """A file system in a file, mounted."""

    def __init__(self, image: Path, point: Path, options: list[str]) -> None:
        self.image, self.point, self._options = image, point, options

    def __enter__(self) -> Path:
        self.point.mkdir()
        command = ["mount", *self._options, "-o", "loop", str(self.image), str(self.point)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.point.rmdir()
            pytest.skip(f"no loop mounts here: {done.stderr.strip()}")
        return self.point

    def __exit__(self, *_: object) -> None:
        for _attempt in range(50):
            done = subprocess.run(["umount", str(self.point)], capture_output=True, check=False)
            if done.returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", str(self.point)], check=False)


@pytest.fixture(params=FILE_SYSTEMS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """An empty file system in a file, and the options to mount a copy of it beside it."""
    make, size_mb, package, options = FILE_SYSTEMS[request.param]
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    if shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not installed: apt-get install {package}")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    subprocess.run([*make, str(image)], check=True, capture_output=True)
    yield image, options
    image.unlink()


def test_power_cuts(disk: tuple[Path, list[str]], tmp_path: Path) -> None:
    image, options = disk
    chance = random.Random(7)
    cuts = verified = 0
    with Image(image, tmp_path / "mounted", []) as mounted:
        for cut in range(40 if ALL else 2):
            run = subprocess.Popen(
                writer(mounted / "c", 100_000),
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            assert run.stdout is not None
            first = run.stdout.readline()
            time.sleep(chance.uniform(0.01, 0.4))
            run.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            # What is in the page cache of the inner file system is not in the copy.
            copy = tmp_path / f"cut-{cut}.img"
            subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
            run.kill()
            output = first + run.stdout.read()
            run.wait()
            run.stdout.close()
            acknowledged = acknowledged_in(output)
            with Image(copy, tmp_path / f"cut-{cut}", options) as after:
                check(after / "c", acknowledged)
            copy.unlink()
            cuts += 1
            verified += acknowledged or 0
            check(mounted / "c", acknowledged)
    print(f"{cuts} cuts, {verified} acknowledged commits verified")


# Full disks


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(col: upvec.Collection) -> int:
    """Upsert until it is refused; return how many commits there are."""

    def upsert() -> None:
        for turn in range(10_000):
            col.upsert(rows(turn * 200 % 1000, 200, turn))

    with pytest.raises(OSError, match=r"space|large"):
        upsert()
    return col.seq


def test_a_full_disk_refuses_and_goes_on_when_there_is_space(full_disk: Path) -> None:
    ballast = full_disk / "ballast"
    ballast.write_bytes(bytes(600_000))
    with upvec.open(full_disk / "c", SCHEMA, auto_checkpoint=False) as col:
        turns = fill(col)
        assert turns > 3
        digest = col.digest()
        assert len(col.get([1, 2]).found) == 2
        with pytest.raises(OSError, match="space"):
            col.checkpoint()
        assert col.digest() == digest
        ballast.unlink()
        col.delete(list(range(500)))
        col.checkpoint()
        digest = col.digest()
    with upvec.open(full_disk / "c") as again:
        assert again.digest() == digest


def test_a_limit_on_files_refuses_and_changes_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(HERE)!r})
import upvec
from small_collection import SCHEMA
from test_kernel import fill
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
col = upvec.open(sys.argv[1], SCHEMA, auto_checkpoint=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_001, resource.RLIM_INFINITY))
turns = fill(col)
digest = col.digest()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(turns, digest)
"""
    assert resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "c")],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    turns, digest = done.stdout.split()
    with upvec.open(tmp_path / "c") as again:
        assert (again.seq, again.digest()) == (int(turns), digest)
