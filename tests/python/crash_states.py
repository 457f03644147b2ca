"""Every state in which a loss of power may leave a collection, and what opening it then gives.

A `Workload` uses a collection through a `Recorder`, which takes down the disk as a model before
each file operation: a `Moment`, with the commits that had been acknowledged and begun by then.
`Explorer` draws from every moment the directories that could be found after the power came back,
opens each one with the real recovery, and compares it with what the workload was promised.

What the model of the disk allows, for each file and each change of a name on its own:

- Of the writes since the last sync of a file, any sectors of 512 bytes came to the disk, in any
  order; what lies between them up to the size is zeros, or the file is as short as that makes it.
  One sector may also end in the middle: the kernel copies into the page that is being written.
- Of the names created, renamed and removed since the last sync of their directory, any did. A
  rename comes as a whole, as journaling file systems and btrfs keep it.

Beside the collection lies a backup of it, brought up to date now and then. What is found of that
is opened too: whatever was acknowledged is there, and what was not complete is no collection.

The oracle knows of every commit whether it was acknowledged (it must be there), refused (it must
not) or neither (it is there as a whole, or not at all), and the digest and rows after it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from unittest import mock

import upvec
from faulty_files import FaultyFiles, Killed, Node, Operation, UnsyncedFiles, killed_at, write_into
from upvec.collection import open_directory
from upvec.errors import CorruptionError, LockedError, PoisonedError, SchemaError
from upvec.files import Files
from upvec.log import Durability, Log
from upvec.snapshot import Snapshot

SECTOR_BYTES = 512
SEGMENT_BYTES = 1500
SHARED_MEMORY = Path("/dev/shm")

Image: TypeAlias = "dict[str, bytes | None]"
"""The files below a directory, by relative path; None: a directory."""


class Broken(AssertionError):
    """A promise was not kept; ``kind`` says which."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


# --- The disk --------------------------------------------------------------------------------


class Change(NamedTuple):
    """A change of a directory: creation, removal, or both, which is a rename."""

    removed: str | None
    added: str | None
    inode: Any = None

    def apply(self, entries: dict[str, Any]) -> None:
        if self.removed is not None:
            entries.pop(self.removed, None)
        if self.added is not None:
            entries[self.added] = self.inode


@dataclass(eq=False)
class Directory:
    """Names as of the last sync, the changes since, and what these have come to."""

    durable: dict[str, Any] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    now: dict[str, Any] = field(default_factory=dict)

    def change(self, change: Change) -> None:
        change.apply(self.now)
        self.changes.append(change)

    def sync(self) -> None:
        self.durable = dict(self.now)
        self.changes.clear()


class FileAt(NamedTuple):
    """A file at a moment."""

    synced: bytes
    pending: tuple[tuple[int, bytes | None], ...]


class DirectoryAt(NamedTuple):
    """A directory at a moment; the inodes are those of that moment too."""

    durable: dict[str, Any]
    changes: tuple[Change, ...]


def frozen(inode: Any, known: dict[int, Any] | None = None) -> Any:
    """Return an inode as it is now, with all that it leads to."""
    known = {} if known is None else known
    if id(inode) in known:
        return known[id(inode)]
    if isinstance(inode, Node):
        one: Any = FileAt(inode.synced, tuple(inode.pending))
    else:
        durable = {name: frozen(child, known) for name, child in inode.durable.items()}
        one = DirectoryAt(
            durable,
            tuple(
                change
                if change.inode is None
                else change._replace(inode=frozen(change.inode, known))
                for change in inode.changes
            ),
        )
    known[id(inode)] = one
    return one


def unsettled(disk: DirectoryAt) -> tuple[list[FileAt], int]:
    """Return the files with unsynced writes, and the number of unsynced changes of names."""
    files, changes, seen = [], 0, set()
    waiting: list[Any] = [disk]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, FileAt):
            files += [one] if one.pending else []
            continue
        changes += len(one.changes)
        waiting += one.durable.values()
        waiting += [change.inode for change in one.changes if change.inode is not None]
    return files, changes


def image_of(
    disk: DirectoryAt, keeps: Callable[[Change], bool], contents: Callable[[FileAt], bytes]
) -> Image:
    """Return what is found of a disk, given what becomes of each change and each file."""
    image: Image = {}

    def put(directory: DirectoryAt, path: str) -> None:
        entries = dict(directory.durable)
        for change in directory.changes:
            if keeps(change):
                change.apply(entries)
        for name, inode in entries.items():
            child = os.path.join(path, name)
            if isinstance(inode, FileAt):
                image[child] = contents(inode) if inode.pending else inode.synced
            else:
                image[child] = None
                put(inode, child)

    put(disk, "")
    return image


# --- What becomes of a file ------------------------------------------------------------------


def sectors(file: FileAt) -> list[tuple[int, bytes | None]]:
    """Return the unsynced writes, in pieces that end where sectors of the file do."""
    pieces: list[tuple[int, bytes | None]] = []
    for start, data in file.pending:
        at, rest = start, data
        while rest:
            size = SECTOR_BYTES - at % SECTOR_BYTES
            pieces.append((at, rest[:size]))
            at, rest = at + size, rest[size:]
        if data is None:
            pieces.append((start, None))
    return pieces


def contents_with(
    file: FileAt, pieces: list[tuple[int, bytes | None]], reached: list[bool], *, grown: bool
) -> bytes:
    """Return the contents when only some pieces reached the disk.

    ``grown``: the size did anyway, and what is missing of a longer file reads as zeros.
    """
    image = bytearray(file.synced)
    for (offset, data), there in zip(pieces, reached, strict=True):
        if data is None:
            if there:
                del image[offset:]
        elif there or grown:
            write_into(image, offset, data if there else bytes(len(data)), only_extend=not there)
            if there:
                image[offset : offset + len(data)] = data
    return bytes(image)


def drawn_contents(file: FileAt, rng: random.Random) -> bytes:
    """Return one of the many contents that a file may be found with."""
    pieces = sectors(file)
    count = len(pieces)
    grown = rng.random() < 0.5
    how = rng.choice(["lost", "kept", "first", "any", "cut", "writes"])
    if how == "lost":
        reached = [False] * count
    elif how == "kept":
        reached = [True] * count
    elif how == "any":
        reached = [rng.random() < 0.5 for _ in pieces]
    elif how == "writes":
        whole = {start: rng.random() < 0.5 for start, _ in file.pending}
        starts = sorted(whole)
        reached = [whole[max(s for s in starts if s <= at)] for at, _ in pieces]
    else:
        first = rng.randrange(count + 1)
        reached = [number < first for number in range(count)]
        if how == "cut" and first < count and (data := pieces[first][1]):
            pieces[first] = (pieces[first][0], data[: rng.randrange(len(data))])
            reached[first] = True
    return contents_with(file, pieces, reached, grown=grown)


def images_of(disk: DirectoryAt, rng: random.Random, draws: int) -> Iterator[Image]:
    """Yield the corners of what may be left of a disk, and so many drawn from between them."""
    files, changes = unsettled(disk)
    if not files and not changes:
        yield image_of(disk, lambda _: True, lambda file: file.synced)
        return

    def all_alike(name: bool, until: int | None, grown: bool) -> Image:
        def contents(file: FileAt) -> bytes:
            pieces = sectors(file)
            reached = [until is None or number < until for number in range(len(pieces))]
            return contents_with(file, pieces, reached, grown=grown)

        return image_of(disk, lambda _: name, contents)

    most = max((len(sectors(file)) for file in files), default=0)
    for name in (False, True):
        yield all_alike(name, None, False)
        for until in range(min(most, 4)):
            for grown in (False, True):
                yield all_alike(name, until, grown)
    for _ in range(draws):
        chosen = {id(file): drawn_contents(file, rng) for file in files}
        kept: dict[int, bool] = {}
        share = rng.choice([0.2, 0.5, 0.8, 1.0])

        def keeps(change: Change, kept: dict[int, bool] = kept, share: float = share) -> bool:
            return kept.setdefault(id(change), rng.random() < share)

        yield image_of(
            disk,
            keeps,
            lambda file, chosen=chosen: chosen[id(file)],  # type: ignore[misc]
        )


def damaged(image: Image, rng: random.Random) -> Image:
    """Return the image with a bit of one file turned, or a sector of it zero.

    Not a sector of the log: it may hold several of the last commits, which then are torn.
    """
    names = sorted(name for name, data in image.items() if data)
    name = rng.choice(names)
    data = bytearray(image[name] or b"")
    at = rng.randrange(len(data))
    if name.endswith(".log") or rng.random() < 0.5:
        data[at] ^= 1 << rng.randrange(8)
    else:
        at -= at % SECTOR_BYTES
        data[at : at + SECTOR_BYTES] = bytes(len(data[at : at + SECTOR_BYTES]))
    return {**image, name: bytes(data)}


def key_of(image: Image) -> bytes:
    """Return a hash of an image."""
    content = hashlib.blake2b(digest_size=16)
    for name, data in sorted(image.items()):
        content.update(f"{name}\0{-1 if data is None else len(data)}\0".encode())
        content.update(data or b"")
    return content.digest()


def write_image(image: Image, base: str) -> None:
    """Write an image into an empty directory."""
    for name, data in image.items():  # a directory comes before what it holds
        path = os.path.join(base, name)
        if data is None:
            os.mkdir(path)
        else:
            with open(path, "wb") as file:
                file.write(data)


# --- Recording -------------------------------------------------------------------------------


class Recorder(FaultyFiles):
    """A `FaultyFiles` that also knows the changes of names one by one.

    ``base`` is the directory that holds the collection's; what is in it counts as durable.
    """

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.adopt(base)
        self.disk = self._found(base)

    def _found(self, path: str) -> Directory:
        entries: dict[str, Any] = {}
        for name in sorted(os.listdir(path)):
            child = os.path.join(path, name)
            entries[name] = self._nodes[child] or self._found(child)
        return Directory(entries, [], dict(entries))

    def _directory(self, path: str) -> Directory:
        one = self.disk
        for name in os.path.relpath(path, self.base).split(os.sep):
            one = one if name == "." else one.now[name]
        return one

    def _parent(self, path: str) -> Directory:
        return self._directory(os.path.dirname(path))

    def _link(self, path: str, inode: Any) -> None:
        parent, name = self._parent(path), os.path.basename(path)
        if name not in parent.now:
            parent.change(Change(None, name, inode))

    def create(self, path: str) -> int:
        fd = super().create(path)
        self._link(path, self._nodes[path])
        return fd

    def lock(self, path: str, *, shared: bool = False) -> int:
        fd = super().lock(path, shared=shared)
        self._link(path, self._nodes[path])
        return fd

    def make_directory(self, path: str) -> None:
        super().make_directory(path)
        self._link(path, Directory())

    def replace(self, old: str, new: str) -> None:
        super().replace(old, new)
        parent, name = self._parent(old), os.path.basename(old)
        parent.change(Change(name, os.path.basename(new), parent.now[name]))

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self._parent(path).change(Change(os.path.basename(path), None))

    def remove_directory(self, path: str) -> None:
        super().remove_directory(path)
        self._parent(path).change(Change(os.path.basename(path), None))

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self._directory(path).sync()


class View(NamedTuple):
    """What a collection holds after a commit."""

    digest: str
    rows: dict[Any, str]


class Copied(NamedTuple):
    """What is known of the backup.

    ``acknowledged``: the newest commit in the last one that was completed; -1 without one.
    ``attempts``: those of the calls since, of which all but perhaps the last have failed.
    ``history``: as of a `Moment`.
    """

    acknowledged: int = -1
    attempts: tuple[int, ...] = ()
    history: Mapping[int, View] = {}


NO_COPY = Copied()


@dataclass
class Moment:
    """The disk before an operation; ``history``: what each commit gave, filled in later too.

    ``acknowledged`` is -1 before the collection was opened for the first time; ``attempted`` is
    the newest commit that may have come to the disk.
    """

    operation: str
    disk: DirectoryAt
    acknowledged: int
    attempted: int
    history: dict[int, View]
    copied: Copied = NO_COPY


def view_of(col: upvec.Collection) -> View:
    """Return what is in the newest state, be it synced and shown to readers or not."""
    rows = {
        row["id"]: repr({name: getattr(v, "tolist", lambda v=v: v)() for name, v in row.items()})
        for batch in Snapshot(col, col._head, lambda: col._head).scan()
        for row in batch
    }
    return View(col.digest(), rows)


def abandon(col: upvec.Collection) -> None:
    """Let go of a collection as the end of its process does: nothing is written."""
    storage = col._storage
    assert storage is not None
    col._finalizer.detach()
    storage.let_go_of_lock()
    if storage._log is not None:
        storage._log._close_file()


@contextmanager
def small_segments() -> Iterator[None]:
    """Let logs change their segment every few commits."""
    defaults = Log.open.__func__.__kwdefaults__  # type: ignore[attr-defined]
    with mock.patch.dict(defaults, segment_bytes=SEGMENT_BYTES):
        yield


# --- The workload ----------------------------------------------------------------------------


def schema_of(kind: str) -> upvec.Schema:
    """Return a schema with one of everything, whose primary key is of that type."""
    return upvec.Schema(
        upvec.Field("id", kind, primary=True),
        upvec.Field("text", "string", nullable=True),
        upvec.Field("part", "int64", default=0),
        upvec.Field("seen", "int64", default=0),
        upvec.Vector("emb", 3, nullable=True),
        unique=[upvec.Unique("text")],
        order_by="seen",
    )


CALM = (
    "single",
    "batch",
    "update",
    "delete",
    "transaction",
    "alter",
    "sync",
    "checkpoint",
    "group",
    "background",
    "backup",
)
HANDLES = ("reopen", "kill", "second_writer")
FAULTS = (
    "refused_append",
    "failed_sync",
    "failed_group",
    "failed_any",
    "failed_checkpoint",
    "failed_backup",
)
DEADLINE_S = 20


class Workload:
    """A collection that is written to, and what is known of each of its commits."""

    def __init__(
        self, base: str, seed: int, durability: Durability, files: Recorder | None = None
    ) -> None:
        self.files = files or Recorder(base)
        self.files.before = self._take_down
        self.moments: list[Moment] = []
        self.outcomes: Counter[str] = Counter()
        self.schema = schema_of("int64" if seed % 2 else "string")
        self._root = os.path.join(base, "c")
        self._rng = random.Random(seed)
        self._durability = durability
        self._acknowledged, self._attempted = -1, 0
        self._history: dict[int, View] = {}
        self._copy = os.path.join(base, "b")
        self._copied = NO_COPY
        self._count = 0
        self._extra: str | None = None

    def run(self, steps: list[str]) -> None:
        """Open the collection, take the steps, close it; raises `Broken`."""
        with small_segments(), mock.patch("os.urandom", self._rng.randbytes):
            self._open(self.schema)
            try:
                for step in steps:
                    getattr(self, f"_{step}")()
                self._close()
                self._take_down(Operation(len(self.files.log) + 1, "the end", ""))
            finally:
                abandon(self.col)

    def _take_down(self, operation: Operation) -> None:
        where = f"{operation.number}: {operation.name} {operation.path}"
        self.moments.append(
            Moment(
                where,
                frozen(self.files.disk),
                self._acknowledged,
                self._attempted,
                self._history,
                self._copied,
            )
        )

    # The handle

    def _open(self, schema: upvec.Schema | None) -> None:
        options: dict[str, Any] = {"durability": self._durability, "auto_checkpoint": False}
        self.col = open_directory(self._root, schema, self.files, **options)
        seq = self.col.seq
        if not max(0, self._acknowledged) <= seq <= self._attempted:
            raise Broken("lost", f"reached {seq} of {self._acknowledged} to {self._attempted}")
        view = view_of(self.col)
        if self._history.setdefault(seq, view) != view:
            raise Broken("partial", f"commit {seq} differs after opening again")
        # What recovery has found it has put on the disk; what it has not found is no more.
        self._history = {s: v for s, v in self._history.items() if s <= seq}
        self._acknowledged = self._attempted = seq

    def _close(self) -> None:
        self.col.close()
        self._acknowledged = self._attempted

    def _start_again(self) -> None:
        """Open again after a failure that leaves open what is on the disk."""
        self.files.heal()
        with suppress(PoisonedError):
            self.col.close()
        abandon(self.col)
        self._open(None)

    def _reopen(self) -> None:
        self._close()
        abandon(self.col)
        self._open(None)

    def _kill(self) -> None:
        abandon(self.col)
        self._open(None)

    def _second_writer(self) -> None:
        """Another writer is refused; one that is not has a promise of its own."""
        try:
            other = open_directory(self._root, None, self.files, auto_checkpoint=False)
        except LockedError:
            return
        self._attempted = max(self._attempted, other.seq + 1)
        other.upsert(self._rows(1))
        self._acknowledged = self._attempted = other.seq
        self._history[other.seq] = view_of(other)
        abandon(other)

    # Commits

    def _call(self, write: Callable[[], object]) -> None:
        """Make a commit; what comes of it must be one of the three outcomes."""
        before = view_of(self.col)
        self._attempted = max(self._attempted, self.col._head.seq + 1)
        try:
            write()
        except PoisonedError:
            self.outcomes["unknown"] += 1
            # Whether it is there is told by opening again.
            self._history.setdefault(self.col._head.seq, view_of(self.col))
            self._start_again()
            return
        except OSError as error:
            self.outcomes["failed"] += 1
            if view_of(self.col) != before:
                raise Broken("partial", f"a refused commit has left something: {error}") from None
            self._attempted = max(self._acknowledged, self.col._head.seq)
            return
        seq = self.col.seq
        self.outcomes["acknowledged"] += 1
        self._history.setdefault(seq, view_of(self.col))
        self._attempted = max(self._acknowledged, seq)
        if self._durability == "commit":
            self._acknowledged = self._attempted

    def _rows(self, count: int, part: int | None = None) -> list[dict[str, Any]]:
        rows = []
        for key in self._rng.sample(range(12), count):
            self._count += 1
            n = self._count
            rows.append(
                {
                    "id": self._key(key),
                    "text": f"{n} " + "x" * self._rng.choice([0, 30, 300]),
                    "part": n % 3 if part is None else part,
                    "seen": n,
                    "emb": [n % 7, n % 5, self._rng.random()],
                }
            )
        return rows

    def _key(self, number: int) -> Any:
        return number if self.schema.primary.type == "int64" else f"key {number}"

    def _single(self) -> None:
        self._call(lambda: self.col.upsert(self._rows(1)))

    def _batch(self) -> None:
        self._call(lambda: self.col.upsert(self._rows(self._rng.randrange(3, 9))))

    def _update(self) -> None:
        rows = [{"id": row["id"], "seen": row["seen"], "part": 7} for row in self._rows(4)]
        self._call(lambda: self.col.upsert(rows, policy="merge"))

    def _delete(self) -> None:
        keys = [self._key(number) for number in self._rng.sample(range(12), 3)]
        self._call(lambda: self.col.delete(keys))

    def _transaction(self) -> None:
        def write() -> None:
            with self.col.transaction() as tx:
                tx.upsert(self._rows(3))
                tx.delete([self._key(self._rng.randrange(12))])
                tx.upsert(self._rows(2))

        self._call(write)

    def _alter(self) -> None:
        before = self._extra
        self._count += 1
        self._extra = f"extra{self._count}"
        added = upvec.Field(self._extra, "int64", default=self._count)
        self._call(lambda: self.col.alter(add=[added], drop=[] if before is None else [before]))
        self._extra = next((n for n in self.col.schema.fields if n.startswith("extra")), None)

    def _sync(self) -> None:
        rows = self._rows(3, part=1)
        self._call(lambda: self.col.sync(rows, scope="part = 1", max_delete=1.0))

    def _group(self) -> None:
        """Make two commits, the second of which is written while the first is being synced."""
        self._call(lambda: self._two_at_once(self._rows(2), self._rows(2)))

    def _two_at_once(self, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
        col, errors = self.col, []

        def write() -> None:
            try:
                col.upsert(second)
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)

        thread = threading.Thread(target=write)

        def before(operation: Operation) -> None:
            self._take_down(operation)
            # A change of segments keeps other writers out, or would have to wait for this sync.
            ready = not col._writing.locked() and not self._is_segment_full()
            if operation.name == "sync_data" and ready and thread.ident is None:
                self._history.setdefault(col._head.seq, view_of(col))
                self._attempted = col._head.seq + 1
                count, until = len(self.files.log), time.monotonic() + DEADLINE_S
                thread.start()
                while len(self.files.log) == count or col._writing.locked():
                    assert time.monotonic() < until, "the second commit was not written"
                    time.sleep(0.0005)

        self.files.before = before
        try:
            col.upsert(first)
        finally:
            if thread.ident is not None:
                thread.join()
            self.files.before = self._take_down
        if errors:
            raise errors[0]

    def _is_segment_full(self) -> bool:
        assert self.col._storage is not None
        return self.col._storage._open_log()._at.offset >= SEGMENT_BYTES

    def _checkpoint(self) -> None:
        before = view_of(self.col)
        try:
            self.col.checkpoint()
        except PoisonedError:
            self._start_again()
        except OSError:
            pass
        else:
            self._acknowledged = self._attempted
        if view_of(self.col) != before and self._acknowledged >= self.col.seq:
            raise Broken("partial", "a checkpoint has changed the collection")

    def _background(self) -> None:
        """Make a commit that begins a checkpoint by itself, and one while that is written."""
        self._call(lambda: self._write_beside_checkpoint(self._rows(2), self._rows(2)))
        stats = self.col.stats()
        assert stats["checkpoint_failure"] is None
        self._acknowledged = max(self._acknowledged, stats["checkpoint_seq"])

    def _write_beside_checkpoint(
        self, first: list[dict[str, Any]], second: list[dict[str, Any]]
    ) -> None:
        col, left = self.col, self._rng.randrange(40)

        def run_here(thread: threading.Thread) -> None:
            assert thread.name == "upvec-checkpoint"
            self._note()
            self.files.before = before
            try:
                thread.run()
            finally:
                self.files.before = self._take_down

        def before(operation: Operation) -> None:
            nonlocal left
            self._take_down(operation)
            left -= 1
            # Operations upon the log keep other writers out.
            if left < 0 and not operation.path.startswith(os.path.join(self._root, "log")):
                self.files.before = self._take_down
                self._attempted = col._head.seq + 1
                col.upsert(second)
                self._note()

        assert col._storage is not None
        assert col._checkpointer is not None
        with (
            mock.patch.object(col._checkpointer, "_automatic", new=True),
            mock.patch.object(col._storage, "_due_bytes", 0),
            mock.patch.object(threading.Thread, "start", run_here),
        ):
            col.upsert(first)

    def _note(self) -> None:
        """Take down what a commit gave that is on the disk, in the middle of another call."""
        seq = self.col._head.seq
        self._history.setdefault(seq, view_of(self.col))
        if self._durability == "commit":
            self._acknowledged = max(self._acknowledged, seq)

    def _backup(self) -> None:
        """Make the backup, or bring it up to date."""
        done, attempts, _ = self._copied
        seq = self.col.seq
        self._copied = Copied(done, (*attempts, seq), self._history)
        try:
            self.col.backup(self._copy)
        except OSError:
            return
        except CorruptionError as error:
            raise Broken("lost", f"no backup can be made: {error}") from None
        self._copied = Copied(seq, (), self._history)

    # Commits that fail

    def _refused_append(self) -> None:
        self.files.fail(1, "half", only={"write"}, forever=True)
        self._batch()
        self.files.heal()

    def _failed_sync(self) -> None:
        self.files.fail(1, "EIO", only={"sync_data"})
        self._batch()
        self.files.heal()

    def _failed_group(self) -> None:
        self.files.fail(1, "EIO", only={"sync_data"})
        self._group()
        self.files.heal()

    def _failed_any(self) -> None:
        self.files.fail(self._rng.randrange(1, 5), self._rng.choice(["EIO", "ENOSPC"]))
        getattr(self, f"_{self._rng.choice(CALM[:7])}")()
        self.files.heal()

    def _failed_backup(self) -> None:
        """Fail, and go on: the first one has left something, which is not all to be believed."""
        at, fault = self._rng.randrange(1, 30), self._rng.choice(["EIO", "half", "kill"])
        if fault == "kill":
            with suppress(Killed), killed_at(at, self.files):
                self._backup()
        else:
            self.files.fail(at, fault)
            self._backup()
        self.files.heal()
        self._backup()

    def _failed_checkpoint(self) -> None:
        self.files.fail(self._rng.randrange(1, 60), self._rng.choice(["EIO", "half"]))
        self._checkpoint()
        self.files.heal()


def steps_of(seed: int, *, faults: bool, rounds: int = 2) -> list[str]:
    """Return every kind of step, in an order of the seed."""
    rng = random.Random(seed)
    steps: list[str] = ["batch", "single"]
    for _ in range(rounds):
        some = [*CALM, "single", "batch", *HANDLES, *(FAULTS if faults else ())]
        rng.shuffle(some)
        steps += some
    return steps


# --- Recovering ------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What opening an image gave. ``seq`` is -1 where there was no collection."""

    seq: int
    view: View | None
    broken: str | None = None
    corrupt: bool = False


def open_found(root: str, schema: upvec.Schema, files: Files) -> tuple[upvec.Collection, bool]:
    """Open what is there, or create what is not; say whether it was there."""
    try:
        return open_directory(root, None, files, auto_checkpoint=False), True
    except SchemaError:
        return open_directory(root, schema, files, auto_checkpoint=False), False


def recovered(base: str, schema: upvec.Schema) -> Outcome:
    """Open what is in a directory, again, write to it, and open it once more."""
    root, files = os.path.join(base, "c"), UnsyncedFiles()
    try:
        col, existed = open_found(root, schema, files)
    except CorruptionError as error:
        return Outcome(-1, None, f"refused: {error}", corrupt=True)
    seq, view = col.seq, view_of(col)
    abandon(col)
    if not existed:
        return Outcome(-1, view, None if (seq, view.rows) == (0, {}) else "rows from nowhere")
    again, _ = open_found(root, schema, files)
    if (again.seq, view_of(again)) != (seq, view):
        return Outcome(seq, view, "opening again gives something else")
    key = 77 if schema.primary.type == "int64" else "another"
    again.upsert([{"id": key, "text": "another", "seen": 1 << 40, "emb": [1, 2, 3]}])
    after = (again.seq, view_of(again))
    abandon(again)
    last, _ = open_found(root, schema, files)
    found = (last.seq, view_of(last))
    abandon(last)
    if found != after or found[0] != seq + 1:
        return Outcome(seq, view, "a commit after recovery does not survive")
    return Outcome(seq, view)


class Copy(NamedTuple):
    """What opening the backup of an image gave. ``seq`` is -1 where it is no collection."""

    seq: int = -1
    view: View | None = None
    refused: str | None = None


def copy_of(base: str) -> Copy:
    """Open the backup below a directory."""
    try:
        col = open_directory(os.path.join(base, "b"), None, UnsyncedFiles(), auto_checkpoint=False)
    except SchemaError:
        return Copy()
    except CorruptionError as error:
        return Copy(refused=str(error))
    copy = Copy(col.seq, view_of(col))
    abandon(col)
    return copy


@dataclass
class Report:
    """What was done, and what was found wrong."""

    operations: int = 0
    states: int = 0
    distinct: int = 0
    recoveries: int = 0
    in_recovery: int = 0
    damages: int = 0
    copies: int = 0
    whole_copies: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        wrong = {kind: self.failures[kind] for kind in ("lost", "partial", "hole", "other")}
        return (
            f"{self.operations} operations, {self.states} states, {self.distinct} distinct, "
            f"{self.recoveries} recoveries, of them {self.in_recovery} after a crash inside "
            f"recovery and {self.damages} of damaged states; {self.copies} backups, "
            f"{self.whole_copies} of them whole; commits {dict(self.outcomes)}; "
            f"wrong: {wrong}"
        )


class Explorer:
    """Recovers the states that a workload may leave, each distinct one once."""

    def __init__(self, seed: int = 0, *, keep_going: bool = True) -> None:
        self.report = Report()
        self._rng = random.Random(seed)
        self._known: dict[bytes, Outcome] = {}
        self._known_copies: dict[bytes, Copy] = {}
        self._keep_going = keep_going

    def explore(
        self,
        work: Workload,
        *,
        draws: int = 4,
        inside: float = 0.02,
        damages: int = 0,
        share: float = 1,
    ) -> None:
        """Look at the moments of a workload.

        Parameters
        ----------
        draws
            How many states are drawn from each moment, beside the corners.
        inside
            The share of states where recovery is interrupted as well, at each of its operations.
        damages
            How many states, drawn from all moments, are damaged in what was synced.
        share
            Of the moments, beside those of backups.
        """
        self.report.operations += len(work.files.log)
        self.report.outcomes += work.outcomes
        self._known.clear()
        self._known_copies.clear()  # no two collections have the same id
        with small_segments():
            for moment in work.moments:
                # While a backup is written the collection stays as it is, and need not be opened.
                if self._rng.random() >= share and not moment.copied.attempts:
                    continue
                for image in images_of(moment.disk, self._rng, draws):
                    new = self._look(image, moment, work.schema)
                    if new and self._rng.random() < inside:
                        self._interrupt(image, moment, work.schema)
            for _ in range(damages):
                self._damage(self._rng.choice(work.moments), work.schema)

    def _look(self, image: Image, moment: Moment, schema: upvec.Schema) -> bool:
        """Recover an image unless that was done, compare; return whether it is a new one."""
        self.report.states += 1
        copy = part_of(image, "b")
        image = part_of(image, "c")
        key = key_of(image)
        outcome = self._known.get(key)
        new = outcome is None
        if outcome is None:
            self.report.distinct += 1
            outcome = self._known[key] = self._recover(image, schema)
        self._judge(outcome, moment)
        self._look_at_copy(copy, moment)
        return new

    def _look_at_copy(self, image: Image, moment: Moment) -> None:
        """Open the backup of an image unless that was done, and compare."""
        key = key_of(image)
        copy = self._known_copies.get(key)
        if copy is None:
            with scratch() as base, warnings.catch_warnings():
                warnings.simplefilter("error")
                write_image(image, base)
                try:
                    copy = copy_of(base)
                except Exception as error:  # noqa: BLE001 - it must not raise anything else
                    self._fail("other", f"{moment.operation}: the backup raised {error!r}")
                    copy = Copy(refused=repr(error))
            self._known_copies[key] = copy
            self.report.copies += 1
            self.report.whole_copies += copy.seq >= 0
        kind = verdict_of_copy(copy, moment.copied)
        if kind is not None:
            found = copy.refused or f"reached {copy.seq}"
            done, attempts, _ = moment.copied
            self._fail(kind, f"{moment.operation}: backup of {done}, {attempts}: {found}")

    def _recover(self, image: Image, schema: upvec.Schema, *, warned: bool = False) -> Outcome:
        self.report.recoveries += 1
        with scratch() as base, warnings.catch_warnings():
            warnings.simplefilter("ignore" if warned else "error")
            write_image(image, base)
            try:
                outcome = recovered(base, schema)
            except Exception as error:  # noqa: BLE001 - whatever it is, opening must not raise it
                return Outcome(-1, None, f"raised {error!r}")
            if outcome.corrupt and log_files(base) != {
                name: data for name, data in image.items() if name.startswith("c/log/")
            }:
                return Outcome(-1, None, "a log that was refused was written to")
            return outcome

    def _interrupt(self, image: Image, moment: Moment, schema: upvec.Schema) -> None:
        """Lose the power again at each operation of the recovery of an image."""
        disks: list[tuple[str, DirectoryAt]] = []
        with scratch() as base:
            write_image(image, base)
            files = Recorder(base)
            files.before = lambda operation: disks.append(
                (f"{moment.operation}, {operation.name}", frozen(files.disk))
            )
            try:
                abandon(open_found(os.path.join(base, "c"), schema, files)[0])
            except Exception:  # noqa: BLE001 - judged already, when it was recovered
                return
            disks.append((f"{moment.operation}, recovered", frozen(files.disk)))
        for where, disk in disks:
            found = replace(moment, operation=where, disk=disk)
            for later in images_of(disk, self._rng, 2):
                before = self.report.recoveries
                self._look(later, found, schema)
                self.report.in_recovery += self.report.recoveries - before

    def _damage(self, moment: Moment, schema: upvec.Schema) -> None:
        """Damage what was synced: that is refused, or harmless."""
        if moment.acknowledged < 0:
            return
        image = part_of(image_of(moment.disk, lambda _: True, lambda file: file.synced), "c")
        self.report.damages += 1
        outcome = self._recover(damaged(image, self._rng), schema, warned=True)
        if not outcome.corrupt:
            # Damage to the last commits looks like a torn tail, see `upvec.log`: to one, or to
            # two of which the second was written before the first was synced.
            floor = max(0, moment.acknowledged - 2)
            where = f"{moment.operation}, damaged"
            bounds = replace(moment, operation=where, acknowledged=floor)
            self._judge(outcome, bounds)

    def _judge(self, outcome: Outcome, moment: Moment) -> None:
        kind = verdict(outcome, moment)
        if kind is None:
            return
        message = (
            f"{moment.operation}: reached {outcome.seq} of {moment.acknowledged} to "
            f"{moment.attempted}; {outcome.broken}"
        )
        self._fail(kind, message)

    def _fail(self, kind: str, message: str) -> None:
        if not self._keep_going:
            raise Broken(kind, message)
        self.report.failures[kind] += 1
        if len(self.report.examples) < 10:
            self.report.examples.append(f"{kind}: {message}")


def verdict(outcome: Outcome, moment: Moment) -> str | None:
    """Say which promise an outcome breaks, if any."""
    if outcome.corrupt:
        return "lost"
    if outcome.broken is not None:
        return "other"
    if outcome.seq < moment.acknowledged:
        return "lost"
    if outcome.seq < 0:
        return None
    if outcome.seq > moment.attempted:
        return "other"
    wanted = moment.history.get(outcome.seq)
    if wanted == outcome.view:
        return None
    # What differs from the commit before is what this one wrote, or there are earlier ones missing.
    before = moment.history.get(outcome.seq - 1)
    if wanted is None or before is None or outcome.view is None:
        return "other"
    written = {k for k in wanted.rows | before.rows if wanted.rows.get(k) != before.rows.get(k)}
    differing = {
        k for k in wanted.rows | outcome.view.rows if wanted.rows.get(k) != outcome.view.rows.get(k)
    }
    return "partial" if differing <= written else "hole"


def verdict_of_copy(copy: Copy, copied: Copied) -> str | None:
    """Say which promise a backup breaks, if any.

    A complete one gives its commit, and one that was begun nothing, or its commit. One that is
    being brought up to date may give what lies between; or it says that it is to be made again.
    """
    done, attempts, history = copied
    if copy.seq < 0:
        refused = copy.refused is not None and bool(attempts)
        return None if done < 0 or refused else "lost"
    if not attempts:
        allowed = range(done, done + 1)
    elif done < 0:
        allowed = range(attempts[0], attempts[-1] + 1)
    else:
        allowed = range(done, attempts[-1] + 1)
    if copy.seq not in allowed:
        return "partial" if done < 0 <= copy.seq else "lost" if copy.seq < done else "other"
    return None if history.get(copy.seq) == copy.view else "other"


def part_of(image: Image, name: str) -> Image:
    """Return what an image has of one directory in its base."""
    return {path: data for path, data in image.items() if path.split(os.sep, 1)[0] == name}


def log_files(base: str) -> Image:
    """Return the segments of the log below a directory, and what was kept of broken ones."""
    log = Path(base, "c", "log")
    return {f"c/log/{path.name}": path.read_bytes() for path in log.iterdir()}


@contextmanager
def scratch() -> Iterator[str]:
    """Make a directory in memory, if the system has that, and remove it."""
    base = tempfile.mkdtemp(prefix="upvec-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
    try:
        yield base
    finally:
        shutil.rmtree(base)
