"""Every state that a loss of power may leave of a collection, and what recovery makes of it.

A workload runs on `FaultyFiles`. Before each operation on a file, that is, after every prefix of
all operations, the model of the disk gives what could be found after a loss of power there:
unsynced writes lost, kept, torn at a sector of 512 bytes, some sectors or all zero, reordered, each
file for itself, and unsynced names lost or kept, each for itself, but a rename as a whole. All
combinations would be too many, so besides the uniform ones some are drawn. Real recovery runs on
each; equal ones are recovered once.

The oracle: what was acknowledged is there; at most the commit under way is there besides, whole or
not at all; and the digest is the one that the collection had after that commit.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import upvec
from faulty_files import Crash, FaultyFiles, Image, Node, UnsyncedFiles, write_image, write_into
from upvec.collection import open_directory
from upvec.errors import CorruptionError, PoisonedError, UpvecError
from upvec.files import Files

SCHEMA = upvec.Schema(
    upvec.Field("id", "int64", primary=True),
    upvec.Field("text", "string", nullable=True),
    upvec.Field("seen", "int64", default=0),
    upvec.Vector("emb", 3),
    unique=[upvec.Unique("text")],
    order_by="seen",
)
_SECTOR = 512
_MEMORY = "/dev/shm"


def rows(first: int, count: int, seen: int) -> dict[str, Any]:
    ids = np.arange(first, first + count)
    return {
        "id": ids,
        "text": [f"{i} at {seen}" for i in ids.tolist()],
        "seen": np.full(count, seen),
        "emb": np.stack([ids % 7, ids * 0 + seen, ids], axis=1).astype(np.float32),
    }


def transact(col: upvec.Collection) -> None:
    with col.transaction() as tx:
        tx.delete([1])
        tx.upsert(rows(40, 3, 9))
        tx.upsert(rows(2, 1, 9))


# Each step makes one commit, or a checkpoint.
STEPS: tuple[Callable[[upvec.Collection], object], ...] = (
    lambda col: col.upsert(rows(0, 5, 1)),
    lambda col: col.upsert(rows(3, 9, 2)),
    lambda col: col.delete([4, 5]),
    transact,
    lambda col: col.checkpoint(),
    lambda col: col.upsert(rows(0, 1, 10), op_id=("writer", 1)),
    lambda col: col.upsert(rows(50, 40, 3)),
    lambda col: col.alter(add=[upvec.Field("note", "string", default="-")]),
    lambda col: col.sync(rows(50, 35, 4), scope="id >= 50", max_delete=0.5),
    lambda col: col.checkpoint(),
    lambda col: col.upsert(rows(4, 1, 11)),
    lambda col: col.checkpoint(),
    lambda col: col.upsert(rows(7, 6, 12)),
)
REOPEN_AT = 7  # the collection is closed and opened again before this step


@dataclass
class Counts:
    """What an enumeration has looked at, and what it has found wrong."""

    operations: int = 0
    states: int = 0
    distinct: int = 0
    recoveries: int = 0
    lost: int = 0  # acknowledged commits that are not there
    partial: int = 0  # digests of no state that ever was
    refused: int = 0  # recoveries that raised
    unstable: int = 0  # what opening again, or writing on, shows otherwise
    wrong: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.partial or self.refused or self.unstable)


class Workload:
    """The steps on one collection, with what was acknowledged and attempted so far."""

    def __init__(self, root: str, files: Files) -> None:
        self.root = root
        self.files = files
        self.acknowledged = -1  # not even the collection
        self.attempted = 0
        self.digests: dict[int, str] = {}
        self.failed = False

    def run(self) -> None:
        """Take all steps; after an error, end there."""
        try:
            col = self._open(SCHEMA)
            for number, step in enumerate(STEPS):
                if number == REOPEN_AT:
                    col.close()
                    col = self._open(None)
                self.attempted = col.seq + 1
                step(col)
                self._acknowledge(col)
            col.close()
        except (OSError, PoisonedError, Crash):
            self.failed = True

    def _open(self, schema: upvec.Schema | None) -> upvec.Collection:
        col = open_directory(self.root, schema, self.files, auto_checkpoint=False)
        self._acknowledge(col)
        return col

    def _acknowledge(self, col: upvec.Collection) -> None:
        self.digests[col.seq] = col.digest()
        self.acknowledged = self.attempted = col.seq


def digests_of_all_states() -> dict[int, str]:
    with tempfile.TemporaryDirectory() as folder:
        work = Workload(os.path.join(folder, "c"), UnsyncedFiles())
        work.run()
        assert not work.failed
        return work.digests


class Enumeration:
    """Runs the workload, and recovers from what a loss of power before each operation leaves.

    Parameters
    ----------
    drawn : int
        Combinations to draw at each operation, besides the uniform ones.
    inside : int
        In so many of the distinct states, once, power is lost again at every operation of recovery.
    """

    def __init__(
        self,
        files: FaultyFiles,
        *,
        drawn: int,
        inside: int,
        seed: int = 0,
        every: int = 1,
        digests: dict[int, str] | None = None,
    ) -> None:
        self.counts = Counts()
        self._files = files
        self._drawn = drawn
        self._inside = inside
        self._every = every
        self._rng = random.Random(seed)
        self._digests = digests_of_all_states() if digests is None else digests
        self._known: dict[bytes, int | None] = {}
        self._folder = tempfile.mkdtemp(dir=_MEMORY if os.path.isdir(_MEMORY) else None)
        self._work = Workload(os.path.join(self._folder, "run", "c"), files)
        self._number = 0

    def run(self) -> Counts:
        os.mkdir(os.path.dirname(self._work.root))
        self._files.before = lambda _: self._before()
        try:
            self._work.run()
            self._files.before = None
            self._look(self._every)
        finally:
            shutil.rmtree(self._folder)
        assert self._work.failed or self._work.digests == self._digests
        return self.counts

    def _before(self) -> None:
        self.counts.operations += 1
        if self.counts.operations % self._every == 0:
            self._look(self._drawn)

    def _look(self, drawn: int) -> None:
        for tail in ("lost", "kept", "zeros"):
            for names in ("lost", "kept"):
                self._check(self._image(tail=tail, names=names))
        for _ in range(drawn):
            self._check(self._drawn_image())

    def _image(self, **options: Any) -> Image:
        return self._files.image(os.path.dirname(self._work.root), **options)

    def _drawn_image(self) -> Image:
        kept = {
            name: self._rng.random() < 0.5
            for name in self._files.unsynced_names(os.path.dirname(self._work.root))
        }
        for new, old in self._files.renamed.items():
            kept[old] = kept.get(new, True)
        return self._image(tail=self._drawn_tail, names=lambda path: kept.get(path, True))

    def _drawn_tail(self, path: str, node: Node) -> bytes:
        del path
        image = bytearray(node.synced)
        for offset, data in node.pending:
            fate = self._rng.choice(("lost", "kept", "kept", "torn", "zeros", "sectors"))
            if fate == "lost":
                continue
            if data is None:
                del image[offset:]
                continue
            end = len(data) if fate == "kept" else _SECTOR * self._rng.randrange(4)
            reached = bytes(len(data)) if fate == "zeros" else data[:end]
            write_into(image, offset, self._some_sectors(data) if fate == "sectors" else reached)
        return bytes(image)

    def _some_sectors(self, data: bytes) -> bytes:
        """Return what is there of new data when its sectors have come to the disk in any order."""
        parts = [data[at : at + _SECTOR] for at in range(0, len(data), _SECTOR)]
        return b"".join(part if self._rng.random() < 0.5 else bytes(len(part)) for part in parts)

    # What recovery makes of it

    def _check(self, image: Image) -> None:
        self.counts.states += 1
        key = hashlib.sha256(repr(sorted(image.items())).encode()).digest()
        if key not in self._known:
            self.counts.distinct += 1
            self._known[key] = self._recovered(image)
            if self._inside > 0 and self._rng.random() < 0.2:
                self._inside -= 1
                self._lose_power_inside(image, self._known[key])
        seq = self._known[key]
        least, most = self._work.acknowledged, self._work.attempted
        if seq is None:
            if least >= 0:
                self._wrong("lost", f"nothing is there, and {least} was acknowledged")
        elif not max(0, least) <= seq <= most:
            self._wrong("lost", f"commit {seq} is the last, not one of {least} to {most}")

    def _wrong(self, what: str, message: str) -> None:
        setattr(self.counts, what, getattr(self.counts, what) + 1)
        at = f"operation {self.counts.operations}"
        if len(self.counts.wrong) < 20:
            self.counts.wrong.append(f"{at}: {message}")

    def _place(self, image: Image) -> str:
        self._number += 1
        dest = os.path.join(self._folder, str(self._number))
        write_image(image, dest)
        return dest

    def _recovered(self, image: Image) -> int | None:
        """Return the commit that recovery reaches; None where there is no collection."""
        dest = self._place(image)
        try:
            first = self._open(dest)
            if first is None:
                return None
            seq, digest = first
            if digest != self._digests.get(seq):
                self._wrong("partial", f"commit {seq} has another digest")
            if self._open(dest) != first:
                self._wrong("unstable", f"commit {seq}, and another when it is opened again")
            self._write_on(dest, seq)
            return seq
        finally:
            shutil.rmtree(dest)

    def _open(self, dest: str, files: Files | None = None) -> tuple[int, str] | None:
        self.counts.recoveries += 1
        root = os.path.join(dest, "c")
        try:
            col = open_directory(root, None, files or UnsyncedFiles(), auto_checkpoint=False)
        except (UpvecError, OSError) as error:
            if self._work.acknowledged >= 0 or not self._may_be_made(root):
                self._wrong("refused", f"{error!r}")
            return None
        with col:
            return col.seq, col.digest()

    def _may_be_made(self, root: str) -> bool:
        """Tell whether what is there, a creation that was interrupted, is completed by another."""
        try:
            open_directory(root, SCHEMA, UnsyncedFiles(), auto_checkpoint=False).close()
        except CorruptionError:
            return False
        return True

    def _write_on(self, dest: str, seq: int) -> None:
        root = os.path.join(dest, "c")
        with open_directory(root, None, UnsyncedFiles(), auto_checkpoint=False) as col:
            col.upsert(rows(900, 2, 90))
            digest = col.digest()
        if self._open(dest) != (seq + 1, digest):
            self._wrong("unstable", f"what is written after commit {seq} is not there")

    def _lose_power_inside(self, image: Image, expected: int | None) -> None:
        """Lose power before every operation of recovery, and recover from that."""
        at = 0
        crashed = True
        while crashed and at < 500:
            at += 1
            dest = self._place(image)
            files = FaultyFiles()
            files.adopt(dest)
            files.fail(at, "crash")
            crashed = False
            try:
                open_directory(os.path.join(dest, "c"), None, files, auto_checkpoint=False).close()
            except Crash:
                crashed = True
            except (UpvecError, OSError):
                pass
            for tail, names in (("lost", "lost"), ("kept", "kept"), ("lost", "kept")):
                again = files.image(dest, tail=tail, names=names)
                if expected is not None and self._recovered(again) != expected:
                    self._wrong("unstable", f"power lost at operation {at} of recovery")
            shutil.rmtree(dest)
