"""A file layer that fails on request, and that knows what a loss of power would leave.

`FaultyFiles` works on real files. Beside them it keeps a model of the disk: for every file the
contents as of its last sync and the writes since, and for every directory the names as of its last
sync. `FaultyFiles.crash_image` writes a directory as it could be found after the power came back.

What is written around the layer (by the C++ core, say) is unknown to the model until the file is
synced through it. What was there before counts as durable; it has to be shown to the model with
`FaultyFiles.adopt`, or it is known only from its first use.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from upvec.files import Files

Fault = Literal["EIO", "ENOSPC", "EINTR", "short", "half", "memory", "crash"]
Tail = Literal["lost", "kept", "torn", "zeros"]
# What is found in a directory: contents of files by path below it, None for directories.
Image = dict[str, bytes | None]


class Crash(BaseException):
    """The process is gone; not an `Exception`, so that nothing tidies up after it."""


@dataclass
class Operation:
    number: int
    name: str
    path: str
    size: int = 0


@dataclass
class Node:
    """A file: what the disk has for certain, and what may follow, in order of writing."""

    synced: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut off there
    lost: list[tuple[int, bytes | None]] = field(default_factory=list)

    def apply(self, tail: Tail, at: int) -> bytes:
        """Return the contents after a crash; ``at``: how many pending bytes reached the disk."""
        image = bytearray(self.synced)
        if tail == "lost":
            return bytes(image)
        for offset, data in self.pending:
            if data is None:
                del image[offset:]
                continue
            reached = data if tail == "kept" else data[:at]
            at = max(0, at - len(data))
            if tail == "zeros":
                reached += bytes(len(data) - len(reached))
            write_into(image, offset, reached)
        return bytes(image)

    def sync(self) -> None:
        self.synced = self.apply("kept", 0)
        self.pending.clear()

    def fail_sync(self) -> None:
        """Drop the dirty pages, as Linux does: a later sync succeeds without them."""
        image = bytearray(self.synced)
        for offset, data in self.pending:
            if data is None:
                del image[offset:]
            else:
                write_into(image, offset, bytes(len(data)), only_extend=True)
        self.synced = bytes(image)
        self.lost += self.pending
        self.pending.clear()


def write_into(image: bytearray, offset: int, data: bytes, *, only_extend: bool = False) -> None:
    if len(image) < offset + len(data):
        image.extend(bytes(offset + len(data) - len(image)))
    elif only_extend:
        return
    if not only_extend:
        image[offset : offset + len(data)] = data


def write_image(image: Image, dest: str) -> None:
    """Make a directory of what was found."""
    for inside, contents in sorted(image.items()):
        if contents is None:
            os.mkdir(dest + inside, 0o700)
            continue
        with open(dest + inside, "wb") as file:
            file.write(contents)


class UnsyncedFiles(Files):
    """Files whose syncs cost nothing: for tests that lose power in a model only."""

    def sync_data(self, fd: int) -> None:
        pass

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: str) -> None:
        pass


class FaultyFiles(UnsyncedFiles):
    """Files that record, fail, and remember what was synced.

    Every call that changes something, or takes a lock, is an operation with a number, from 1.
    ``log`` lists them. Reading calls are recorded only with ``count_reads``.
    """

    def __init__(self, *, count_reads: bool = False) -> None:
        self.log: list[Operation] = []
        self.count_reads = count_reads
        self.before: Callable[[Operation], None] | None = None
        self._faults: list[tuple[int, Fault, bool, Collection[str] | None]] = []
        self._crashed = False
        self._short = False
        self._paths: dict[int, str] = {}
        self._nodes: dict[str, Node | None] = {}  # every path as it is now; None: a directory
        self._durable: dict[str, Node | None] = {}  # every path as of the sync of its directory
        # Old names by new ones, as long as it is not durable: file systems that keep a journal
        # keep both or neither.
        self.renamed: dict[str, str] = {}

    # Faults

    def fail(
        self, at: int, fault: Fault, *, forever: bool = False, only: Collection[str] | None = None
    ) -> None:
        """Let the ``at``-th operation from now (of those named in ``only``) fail.

        "short" writes a half and says so; "half" writes a half and raises ENOSPC; "crash" raises
        `Crash` before the operation, then and ever after.
        """
        self._faults.append((at, fault, forever, only))

    def heal(self) -> None:
        self._faults.clear()

    def count(self, *names: str) -> int:
        return sum(operation.name in names for operation in self.log)

    def _step(self, name: str, path: str, size: int = 0) -> Fault | None:
        if self._crashed:
            raise Crash
        operation = Operation(len(self.log) + 1, name, path, size)
        self.log.append(operation)
        if self.before is not None:
            self.before(operation)
        hit: Fault | None = None
        waiting = []
        for at, fault, forever, only in self._faults:
            counts = only is None or name in only
            due = counts and at <= 1
            if due:
                hit = fault
            if not due or forever:
                waiting.append((at - 1 if counts and at > 1 else at, fault, forever, only))
        self._faults = waiting
        if hit == "crash":
            self._crashed = True
            raise Crash
        if hit is None or (hit in {"short", "half"} and name == "write"):
            return hit
        if hit == "short":
            return None
        if name in {"sync", "sync_data"}:
            self._node(path).fail_sync()
        if hit == "memory":
            raise MemoryError
        number = {"EIO": errno.EIO, "EINTR": errno.EINTR}.get(hit, errno.ENOSPC)
        raise OSError(number, os.strerror(number), path)

    # The model

    def _know(self, path: str) -> None:
        """Take what the model has not seen as durable."""
        if path not in self._nodes and os.path.lexists(path):
            node = None
            if not os.path.isdir(path):
                with open(path, "rb") as file:
                    node = Node(file.read())
            self._nodes[path] = self._durable[path] = node

    def adopt(self, root: str) -> None:
        """Take everything below ``root`` as durable."""
        self._know(root)
        for directory, names, file_names in os.walk(root):
            for name in (*names, *file_names):
                self._know(os.path.join(directory, name))

    def _node(self, path: str) -> Node:
        self._know(path)
        node = self._nodes[path]
        assert node is not None, f"{path} is a directory"
        return node

    def _children(self, names: dict[str, Node | None], directory: str) -> list[str]:
        return [path for path in names if os.path.dirname(path) == directory]

    def crash_image(
        self,
        root: str,
        dest: str,
        *,
        tail: Tail | Callable[[str, Node], bytes] = "lost",
        at: int = 0,
        names: Literal["lost", "kept"] | Callable[[str], bool] = "lost",
    ) -> None:
        """Write what could be found of ``root`` after a loss of power as the new ``dest``."""
        image = self.image(root, tail=tail, at=at, names=names)
        write_image(image, dest)

    def image(
        self,
        root: str,
        *,
        tail: Tail | Callable[[str, Node], bytes] = "lost",
        at: int = 0,
        names: Literal["lost", "kept"] | Callable[[str], bool] = "lost",
    ) -> Image:
        """Return what could be found of ``root`` after a loss of power.

        Parameters
        ----------
        tail
            What became of unsynced writes, file by file: "lost", "kept", "torn" (only the first
            ``at`` bytes came to the disk), "zeros" (so did the size, but the rest reads as
            zeros), or a function of path and node that returns the contents.
        names
            What became of names that were created, replaced or removed since their directory
            was synced: "lost", "kept", or a function that says whether the change of this path
            was kept.
        """
        keep = names if callable(names) else lambda _: names == "kept"
        image: Image = {"": None}
        for path in sorted({*self._nodes, *self._durable}):
            if path != root and not path.startswith(root + os.sep):
                continue
            source = self._nodes if keep(path) else self._durable
            inside = path[len(root) :]
            if path not in source or image.get(inside.rpartition(os.sep)[0], b"") is not None:
                continue
            node = source[path]
            if node is None:
                image[inside] = None
            else:
                image[inside] = tail(path, node) if callable(tail) else node.apply(tail, at)
        return image

    def unsynced_names(self, root: str) -> list[str]:
        """Return the paths that were created, replaced or removed since their directory's sync."""
        inside = [path for path in {*self._nodes, *self._durable} if path.startswith(root + os.sep)]
        nothing = object()
        return sorted(
            path
            for path in inside
            if self._nodes.get(path, nothing) is not self._durable.get(path, nothing)
        )

    def pending(self) -> Iterator[tuple[str, Node]]:
        """Yield the files that have unsynced writes."""
        for path, node in self._nodes.items():
            if node is not None and node.pending:
                yield path, node

    # Operations

    def open(self, path: str, *, write: bool = False) -> int:
        if self.count_reads:
            self._step("open", path)
        fd = super().open(path, write=write)
        self._know(path)
        self._paths[fd] = path
        return fd

    def create(self, path: str) -> int:
        self._know(os.path.dirname(path))
        self._know(path)
        self._step("create", path)
        fd = super().create(path)
        if (node := self._nodes.get(path)) is not None:
            node.pending.append((0, None))
        else:
            self._nodes[path] = Node()
        self._paths[fd] = path
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        if self.count_reads:
            self._step("read", self._paths[fd], size)
        return super().read(fd, size, offset)

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        path = self._paths[fd]
        fault = self._step("write", path, len(data))
        if fault is not None:
            data = data[: (len(data) + (fault == "short")) // 2]
        written = super().write_some(fd, data, offset) if data else 0
        self._node(path).pending.append((offset, bytes(data[:written])))
        if fault == "half":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return written

    def truncate(self, fd: int, size: int) -> None:
        path = self._paths[fd]
        self._step("truncate", path, size)
        super().truncate(fd, size)
        self._node(path).pending.append((size, None))

    def sync_data(self, fd: int) -> None:
        path = self._paths[fd]
        pending = len(self._node(path).pending)
        self._step("sync_data", path)
        super().sync_data(fd)
        self._settle(path, pending)

    def sync(self, fd: int) -> None:
        path = self._paths[fd]
        self._know(path)
        self._step("sync", path)
        super().sync(fd)
        with open(path, "rb") as file:  # also what was written around this layer
            node = self._node(path)
            if not node.lost:
                node.synced = file.read()
                node.pending.clear()
        node.sync()

    def _settle(self, path: str, pending: int) -> None:
        """Only what was written before a sync began is certain after it."""
        node = self._node(path)
        later = node.pending[pending:]
        del node.pending[pending:]
        node.sync()
        node.pending = later

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory", path)
        super().sync_directory(path)
        for child in self._children(self._durable, path):
            if child not in self._nodes:
                for gone in [p for p in self._durable if (p + os.sep).startswith(child + os.sep)]:
                    del self._durable[gone]
        for name in os.listdir(path):
            child = os.path.join(path, name)
            if child not in self._nodes:
                self._know(child)
            self._durable[child] = self._nodes[child]
        if path in self._nodes:
            self._durable.setdefault(path, None)
        for child in self._children(dict.fromkeys(self.renamed), path):
            del self.renamed[child]

    def replace(self, old: str, new: str) -> None:
        self._know(old)
        self._know(new)
        self._step("replace", old)
        super().replace(old, new)
        self.renamed[new] = old
        for path in [p for p in self._nodes if p == old or p.startswith(old + os.sep)]:
            self._nodes[new + path[len(old) :]] = self._nodes.pop(path)
        # What is inside a directory is as durable as it was, under whatever name it is found.
        for path in [p for p in self._durable if p.startswith(old + os.sep)]:
            self._durable[new + path[len(old) :]] = self._durable[path]
        for fd, path in self._paths.items():
            if path == old:
                self._paths[fd] = new

    def unlink(self, path: str) -> None:
        self._know(path)
        self._step("unlink", path)
        super().unlink(path)
        self._nodes.pop(path, None)

    def make_directory(self, path: str) -> None:
        self._know(os.path.dirname(path))
        self._step("make_directory", path)
        super().make_directory(path)
        self._nodes[path] = None

    def remove_directory(self, path: str) -> None:
        self._know(path)
        self._step("remove_directory", path)
        super().remove_directory(path)
        self._nodes.pop(path, None)

    def lock(self, path: str, *, shared: bool = False) -> int:
        self._step("lock", path)
        self._know(path)
        fd = super().lock(path, shared=shared)
        if path not in self._nodes:
            self._nodes[path] = Node()
        self._paths[fd] = path
        return fd


class Killed(BaseException):
    """The process has ended, and what it has written is in the page cache."""


@contextmanager
def killed_at(at: int, files: FaultyFiles) -> Iterator[None]:
    """Raise `Killed` instead of the ``at``-th operation, and of any after it."""
    earlier, last = files.before, len(files.log) + at

    def before(operation: Operation) -> None:
        if operation.number >= last:
            raise Killed
        if earlier is not None:
            earlier(operation)

    files.before = before
    try:
        yield
    finally:
        files.before = earlier


class NoDirectorySync(FaultyFiles):
    """A planted bug."""

    def sync_directory(self, path: str) -> None:
        pass


class RetriedSync(FaultyFiles):
    """A planted bug: a second sync succeeds without the data."""

    def sync_data(self, fd: int) -> None:
        try:
            super().sync_data(fd)
        except OSError:
            super().sync_data(fd)
