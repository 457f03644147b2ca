"""Every file access of a collection: one layer, so that a failing one can take its place.

Raw descriptors, no buffers: what a call has written is with the kernel when it returns, and what
a sync has covered is on the disk. Three rules live here, so that nobody above has to know them:

- ``os.pwrite`` may write less than it was given without an error (full disk, file size limit);
  `Files.write` goes on until all is written or an error says why not.
- A created, renamed or removed name is on the disk only after its *directory* was synced, on
  ext4, XFS and btrfs alike: `Files.sync_directory`.
- On macOS ``fsync`` leaves data in the drive's cache; ``F_FULLFSYNC`` does not.

Directories are made with mode 0700 and files with 0600, descriptors are not inherited by programs
that are started, and links are not followed where a file is opened.

Thread safety: no state; any thread may call anything.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .errors import LockedError

if TYPE_CHECKING:
    from .codec import Buffer

__all__ = ["Files"]

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
# Pieces up to this are joined, so that a small record is one call and not several.
_JOIN_BYTES = 64 * 1024
_READ_BYTES = 1 << 20


class Files:
    """The file system as a collection sees it. Paths are ``str``, descriptors ``int``.

    All methods raise `OSError` when the system says no, and do nothing else then (but `write`,
    which may have written a part).
    """

    # Opening and closing

    def open(self, path: str, *, write: bool = False) -> int:
        """Open an existing file for reading, or for reading and writing."""
        return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _OPEN_FLAGS)

    def create(self, path: str) -> int:
        """Create an empty file, replacing what is there, and open it for writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _OPEN_FLAGS
        return os.open(path, flags, _FILE_MODE)

    def close(self, fd: int) -> None:
        """Close a descriptor; a lock held through it alone is released."""
        os.close(fd)

    # Contents

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        data = os.pread(fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        read = len(data)
        while read < size and (data := os.pread(fd, size - read, offset + read)):
            pieces.append(data)
            read += len(data)
        return b"".join(pieces)

    def write(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        """Write all the parts one after the other from ``offset``; return where they end."""
        if sum(len(part) for part in parts) <= _JOIN_BYTES:
            parts = (b"".join(parts),)
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:
                written = self.write_some(fd, rest, offset)
                if written == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
                rest = rest[written:]
                offset += written
        return offset

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        """Write some of ``data`` and return how many bytes. Use `write`."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file off at ``size`` bytes."""
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        """Return the size of an open file, in bytes."""
        return os.fstat(fd).st_size

    def blocks(self, fd: int, start: int = 0) -> Iterator[bytes]:
        """Read the file from ``start`` to its end, a mebibyte at a time."""
        while data := self.read(fd, _READ_BYTES, start):
            yield data
            start += len(data)

    # Getting it onto the disk

    def sync_data(self, fd: int) -> None:
        """Make the contents durable, and the size, but not times and modes (``fdatasync``)."""
        _sync_data(fd)

    def sync(self, fd: int) -> None:
        """Make contents and all of the file's metadata durable (``fsync``)."""
        _sync(fd)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable: created, renamed and removed ones."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync(fd)
        finally:
            os.close(fd)

    # Names

    def replace(self, old: str, new: str) -> None:
        """Rename, taking the place of what is there."""
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Make a directory that is not there yet."""
        os.mkdir(path, _DIRECTORY_MODE)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return sorted(os.listdir(path))

    def is_directory(self, path: str) -> bool:
        """Tell whether there is a directory (not a link to one) at ``path``."""
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at ``path``."""
        return os.path.lexists(path)

    # Locks

    def lock(self, path: str, *, shared: bool = False) -> int:
        """Lock a file or directory, and return the descriptor.

        A file that is absent is made, unless the lock is to be shared.

        The lock lasts until every copy of the descriptor is closed, at the latest until the
        process ends. It is ``flock``: a ``lockf`` lock would be dropped when any part of the
        process opens and closes the same file. Never unlock it explicitly: a forked child that
        did so would take the lock from its parent.

        Raises
        ------
        LockedError
            If somebody else holds a lock that excludes this one.
        """
        kind = os.O_RDONLY if shared or self.is_directory(path) else os.O_RDWR | os.O_CREAT
        fd = os.open(path, kind | _OPEN_FLAGS, _FILE_MODE)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise LockedError(f"{path} is locked by another handle", path=path) from None
        except BaseException:
            os.close(fd)
            raise
        return fd

    # Combinations of the above

    def size_of(self, path: str) -> int:
        """Return the size of a file, in bytes."""
        fd = self.open(path)
        try:
            return self.size(fd)
        finally:
            self.close(fd)

    def read_all(self, path: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the contents of a file; `ValueError` if it is larger than the limit."""
        fd = self.open(path)
        try:
            size = self.size(fd)
            if limit_bytes is not None and size > limit_bytes:
                raise ValueError(f"{path} has {size} bytes; at most {limit_bytes} are expected")
            return self.read(fd, size, 0)
        finally:
            self.close(fd)

    def write_new(self, path: str, parts: Sequence[Buffer]) -> None:
        """Create a file with this content and sync it (the name is not yet durable)."""
        fd = self.create(path)
        try:
            self.write(fd, parts, 0)
            self.sync(fd)
        finally:
            self.close(fd)

    def replace_contents(self, path: str, parts: Sequence[Buffer]) -> None:
        """Put new contents under ``path``, durably and at once: the old ones or the new ones.

        A file ``path + ".tmp"`` may be left behind if this fails.
        """
        self.write_new(path + ".tmp", parts)
        self.replace(path + ".tmp", path)
        self.sync_directory(os.path.dirname(path) or ".")

    def remove_tree(self, path: str) -> None:
        """Remove a directory and everything in it; links are removed, not followed."""
        for name in self.list(path):
            child = os.path.join(path, name)
            if self.is_directory(child):
                self.remove_tree(child)
            else:
                self.unlink(child)
        self.remove_directory(path)


if sys.platform == "darwin":

    def _sync(fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError as error:
            # File systems that do not know it say so; any other failure is one.
            if error.errno not in {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}:
                raise
            os.fsync(fd)

    _sync_data = _sync  # there is no fdatasync

else:
    _sync = os.fsync
    _sync_data = os.fdatasync
