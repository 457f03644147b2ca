"""A copy of a collection in another directory, beside writers; begun again, it goes on.

A backup is a collection like any other: its newest checkpoint and the log after it, up to the
commit that was the newest when it began. It has no MANIFEST before all of that is on the disk, so
an interrupted one is not taken for a collection; called again with the same directory, it keeps
what is there already. A complete one is brought up to date the same way: files of checkpoints and
of the log never change but for what is added to the last segment, so only what is new is copied.

What is copied is compared with its checksums on the way, so that damage is not spread.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .checkpoint import (
    BACKUP,
    LOCK,
    LOG,
    MANIFEST,
    find_checkpoint,
    read_manifest,
    remove_leftovers,
    verify_file,
    write_manifest,
)
from .errors import CorruptionError, HistoryError, LockedError
from .log import Log, LogTrimmedError
from .segment import is_segment_name

if TYPE_CHECKING:
    from .checkpoint import Found, Manifest
    from .files import Files

__all__ = ["Backup", "back_up"]

_COPY_BYTES = 1 << 20
# In the manifest of a backup that nobody has checkpointed: its last segment, and the size of that.
_END = "backup"
# How often a backup beside a writer in another process begins again when that has removed what was
# to be copied.
_ATTEMPTS = 20


@dataclass(frozen=True)
class Backup:
    """What :meth:`Collection.backup` did.

    Attributes
    ----------
    path : str
        The directory. Open it as any other collection.
    seq : int
        The newest commit in it.
    copied_bytes, kept_bytes : int
        What was written, and what was there already.
    """

    path: str
    seq: int
    copied_bytes: int
    kept_bytes: int


def back_up(root: str, files: Files, dest: str, seq: int) -> Backup:
    """Copy the collection at ``root``, as of commit ``seq``, to the directory ``dest``.

    Raises
    ------
    CorruptionError
        What is to be copied is damaged; or ``dest`` is something else than an earlier backup of
        the same collection that nobody has written to. Nothing that was there has changed then.
    LockedError
        ``dest`` is in use.
    HistoryError
        A reader's commit is older than what the writer keeps: refresh it.
    OSError
        Call it again, to go on.
    """
    if not files.exists(dest):
        files.make_directory(dest)
    for _ in range(_ATTEMPTS):
        with suppress(LogTrimmedError, FileNotFoundError):
            return _Copy(root, files, dest, seq).run()
    raise CorruptionError(f"{root} changes too fast to be copied", path=root)


class _Copy:
    def __init__(self, root: str, files: Files, dest: str, seq: int) -> None:
        self._root = root
        self._files = files
        self._dest = dest
        self._seq = seq
        self._copied = self._kept = 0
        self._goes_on = False

    def run(self) -> Backup:
        files = self._files
        manifest = read_manifest(self._root, files)
        if manifest is None:
            raise CorruptionError(f"{self._root} has lost its manifest", path=self._root)
        oldest = manifest.checkpoints[-1].seq if manifest.checkpoints else 0
        if self._seq < oldest:
            message = f"commit {self._seq} is not kept any more; refresh() first"
            raise HistoryError(message, seq=self._seq, oldest=oldest)
        lock = self._lock()
        try:
            found = find_checkpoint(self._root, files, manifest, pin=True, until=self._seq)
            try:
                self._copy(manifest, found)
            finally:
                if found is not None and found.pin >= 0:
                    files.close(found.pin)
        finally:
            files.close(lock)
        return Backup(self._dest, self._seq, self._copied, self._kept)

    def _lock(self) -> int:
        """Lock the directory of the backup, if it is one or empty."""
        files, dest = self._files, self._dest
        names = set(files.list(dest))
        if names - {LOCK} and not names & {MANIFEST, BACKUP}:
            raise _other(dest, f"it holds {min(names)!r}")
        try:
            return files.lock(os.path.join(dest, LOCK))
        except LockedError:
            raise LockedError(f"{dest} is in use", path=dest) from None

    def _copy(self, manifest: Manifest, found: Found | None) -> None:
        files, dest = self._files, self._dest
        begin = 0 if found is None else found.checkpoint.seq
        with Log.open(
            os.path.join(self._root, LOG),
            files,
            manifest.collection_id,
            after_seq=begin,
            read_only=True,
        ) as log:
            spans = log.spans(begin, self._seq)
        begun = os.path.join(dest, BACKUP)
        self._goes_on = files.exists(begun)
        if not self._goes_on:
            self._check_same(manifest, spans)
            files.write_new(begun, [])
            files.sync_directory(dest)
        if found is not None:
            self._checkpoint(found)
        self._segments(spans)
        kept = () if found is None else (found.checkpoint,)
        extra = manifest.extra if found is None else found.checkpoint.extra
        # What is there after this; whoever writes to it changes one or the other.
        extra = {**extra, _END: _end_of(spans)}
        copy = replace(manifest, extra=extra, checkpoints=kept)
        files.sync_directory(os.path.dirname(dest) or ".")
        write_manifest(dest, files, copy)
        remove_leftovers(dest, files, copy)
        files.unlink(begun)
        files.sync_directory(dest)
        self._drop({os.path.basename(path) for path, _ in spans})

    def _check_same(self, manifest: Manifest, spans: list[tuple[str, int]]) -> None:
        """Refuse what is no earlier backup of this collection, before anything is changed."""
        files, dest = self._files, self._dest
        if not files.exists(os.path.join(dest, MANIFEST)):
            return  # an empty directory
        there = read_manifest(dest, files)
        if there is None or there.collection_id != manifest.collection_id:
            raise _other(dest, "another collection is there")
        folder = os.path.join(dest, LOG)
        newest = max(filter(is_segment_name, files.list(folder)), default="")
        held = [newest, files.size_of(os.path.join(folder, newest))] if newest else None
        if there.extra.get(_END) != held:
            raise _other(dest, "somebody has written to it")
        ends = {os.path.basename(path): (path, end) for path, end in spans}
        for name in files.list(folder):
            if name in ends:
                path, end = ends[name]
                target = os.path.join(folder, name)
                if self._common(path, target, end) < files.size_of(target):
                    raise _other(dest, f"{target} is not the beginning of {path}")
            elif is_segment_name(name) and spans and name > os.path.basename(spans[-1][0]):
                raise _other(dest, f"it has a later log, {name}")

    def _common(self, source: str, target: str, end: int) -> int:
        """Return how many bytes of the two, before ``end``, are known to be the same."""
        files = self._files
        a, b = files.open(source), files.open(target)
        try:
            size = min(files.size(b), end)
            at = 0
            while at < size:
                step = min(_COPY_BYTES, size - at)
                if files.read(a, step, at) != files.read(b, step, at):
                    break
                at += step
            return at
        finally:
            files.close(a)
            files.close(b)

    def _checkpoint(self, found: Found) -> None:
        files = self._files
        target = os.path.join(self._dest, found.checkpoint.directory)
        if not files.is_directory(target):
            files.make_directory(target)
        for name, (size, checksum) in found.checkpoint.files.items():
            path = os.path.join(target, name)
            if self._holds(path, size, checksum):
                self._kept += size
                continue
            source = os.path.join(found.path, name)
            if self._copy_file(source, path, size) != checksum:
                raise CorruptionError(f"{source} does not match its checksum", path=source)
        files.sync_directory(target)
        files.sync_directory(self._dest)

    def _holds(self, path: str, size: int, checksum: int) -> bool:
        files = self._files
        try:
            verify_file(path, files, size, checksum, checksums=True)
        except CorruptionError:
            return False
        if self._goes_on:  # whoever wrote it may not have come to syncing it
            fd = files.open(path, write=True)
            try:
                files.sync(fd)
            finally:
                files.close(fd)
        return True

    def _copy_file(self, source: str, target: str, size: int) -> int:
        """Copy a file from its beginning; return the checksum of what was copied."""
        files = self._files
        checksum = at = 0
        fd, out = files.open(source), files.create(target)
        try:
            while at < size and (block := files.read(fd, min(_COPY_BYTES, size - at), at)):
                checksum = zlib.crc32(block, checksum)
                at = files.write(out, [block], at)
            files.sync(out)
        except BaseException:
            self._disown(out, 0)
            raise
        finally:
            files.close(fd)
            files.close(out)
        self._copied += at
        return checksum

    def _disown(self, fd: int, size: int) -> None:
        """Cut off what may be not on the disk, although it can be read after a failed sync."""
        with suppress(OSError):
            self._files.truncate(fd, size)

    def _segments(self, spans: list[tuple[str, int]]) -> None:
        files = self._files
        folder = os.path.join(self._dest, LOG)
        if not files.is_directory(folder):
            files.make_directory(folder)
        for path, end in spans:
            self._add_to(path, os.path.join(folder, os.path.basename(path)), end)
        files.sync_directory(folder)
        files.sync_directory(self._dest)

    def _add_to(self, source: str, target: str, end: int) -> None:
        """Copy what a segment has up to ``end``, after what is there already."""
        files = self._files
        begin = at = self._common(source, target, end) if files.exists(target) else 0
        self._kept += at
        fd = files.open(source)
        out = files.open(target, write=True) if at else files.create(target)
        try:
            # What was not synced when an earlier call was interrupted may be anything.
            if files.size(out) > at:
                files.truncate(out, at)
            while at < end and (block := files.read(fd, min(_COPY_BYTES, end - at), at)):
                self._copied += len(block)
                at = files.write(out, [block], at)
            files.sync(out)
        except BaseException:
            self._disown(out, begin)
            raise
        finally:
            files.close(fd)
            files.close(out)

    def _drop(self, needed: set[str]) -> None:
        """Remove the segments that the copied checkpoint has made superfluous, oldest first."""
        folder = os.path.join(self._dest, LOG)
        with suppress(OSError):
            for name in self._files.list(folder):
                if name not in needed:
                    self._files.unlink(os.path.join(folder, name))
            self._files.sync_directory(folder)


def _end_of(spans: list[tuple[str, int]]) -> list[str | int]:
    """Return the name of the last segment, and its size."""
    path, size = spans[-1]
    return [os.path.basename(path), size]


def _other(dest: str, why: str) -> CorruptionError:
    return CorruptionError(f"{dest} is not an earlier backup of this collection: {why}", path=dest)
