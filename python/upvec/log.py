"""An append-only log: one record per commit, in segments, checked and synced.

The record is the commit, so that a batch is there as a whole or not at all. `Log` knows nothing
of what its payloads mean.

Files
-----
``<first seq, 20 digits>.log``
    A segment; its bytes are described in `upvec.segment`.
``….log.tmp``
    The next segment before the current one is sealed. After that it is completed on open.
``….log.<offset>.broken``
    What a writer cut off the log at that offset, kept for a person to look at.

What is corruption and what is not
----------------------------------
A crash loses or tears what had not been synced, in any order, page by page; ext4 may leave zeros
in its place. Let n be the seq that the first invalid record should have had. It is **corruption**
when the record is known to have been on the disk: the caller's ``durable_seq`` (that of the
checkpoint) or the durable seq of any later valid header is n or more, or such a header says that
everything before it was on the disk, or the segment is not the last (a segment is synced before
the next one is used). Missing, swapped, doubled and foreign segments are corruption too. Then
`CorruptionError` is raised and nothing is written. Otherwise it is a **torn tail**: nothing in it
was acknowledged. It is kept in a ``.broken`` file (unless it is all zeros), cut off, and the cut
is synced before anything is appended.

One case cannot be told apart: damage to the last records that were synced, with nothing written
after that sync, looks like a torn tail. These are one record where one thread commits, and those of
the last group, or of the whole time since the last sync, otherwise. The marker that `Log.close`
writes protects them.

After a crash of the process alone, the tail that is read may be in the page cache only, and if a
sync had failed the kernel counts those pages as clean, so that a sync would "succeed" without
writing them. So what is not known to be on the disk is written once more before it is trusted.

Group commit
------------
`append` writes without syncing; `sync` makes durable. At most one sync runs at a time: the first
thread in is the leader, its one ``fdatasync`` covers every record appended before it began, and
the others wait for it or for the next. Appending goes on while a sync runs, and these records
are covered by the next sync only. This is safe: should the sync fail, neither group was
acknowledged, and recovery drops both, as neither is known to be durable. Two syncs at a time
would not be safe: Linux reports a write error to only one of two ``fsync`` of a descriptor.

A batch that takes long to plan need not wait for its sync after that: `sync_soon` has a thread in
the background begin, and `sync` waits for what is left of it.

Thread safety: `Log` may be used from any thread; it holds its lock while writing, and not while
syncing. One writer per directory: the caller holds the lock of the collection.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from .errors import (
    ClosedError,
    ForkedError,
    LimitError,
    PoisonedError,
    ReadOnlyError,
)
from .segment import (
    CLOSED,
    HEADER_BYTES,
    MARKER,
    SEALED,
    SEGMENT_HEADER_BYTES,
    SYNCED_BEFORE,
    Header,
    Position,
    Segment,
    corrupt,
    headers,
    is_segment_name,
    later_headers,
    pack_header,
    pack_segment_header,
    read_record,
    read_segment_header,
    segment_name,
)

if TYPE_CHECKING:
    from .codec import Buffer
    from .files import Files

__all__ = ["Durability", "Log", "LogTrimmedError"]

_logger = logging.getLogger(__name__)

Durability: TypeAlias = Literal["commit", "interval", "os"]

SEGMENT_BYTES = 64 << 20
MAX_PAYLOAD_BYTES = 1 << 40
_COPY_BYTES = 1 << 20


class LogTrimmedError(Exception):
    """The log begins after the asked-for seq: read the newer checkpoint first."""


class Log:
    """The log of one collection, in one directory.

    Make one with `Log.create` or `Log.open`. A context manager: leaving it closes it.

    The three modes of ``durability`` say what `sync` promises when it returns:

    - ``"commit"``: the commit survives a crash of the process, of the system, and loss of power.
    - ``"interval"``: it survives a crash of the process at once. A thread syncs in the
      background; loss of power loses at most the last ``interval_s`` seconds (and the time of
      one sync), and never a commit without those after it.
    - ``"os"``: it survives a crash of the process. When it reaches the disk is up to the
      operating system, except that `flush`, `close` and the change of segments sync. Loss of
      power loses the commits since then, some or all, always from a point to the end.

    Attributes
    ----------
    last_seq : int
        The newest commit in the log (that before the first segment, if there is none yet).
    durable_seq : int
        The newest commit known to be on the disk.
    """

    def __init__(
        self,
        directory: str,
        files: Files,
        collection_id: bytes,
        *,
        read_only: bool,
        durability: Durability,
        segment_bytes: int | None,
        interval_s: float,
    ) -> None:
        if durability not in {"commit", "interval", "os"}:
            raise ValueError(f'durability is {durability!r}; want "commit", "interval" or "os"')
        if len(collection_id) != 16:
            raise ValueError(f"the id has {len(collection_id)} bytes; want 16")
        self._directory = directory
        self._files = files
        self._id = collection_id
        self._read_only = read_only
        self._durability = durability
        self._segment_bytes = SEGMENT_BYTES if segment_bytes is None else segment_bytes
        self._interval_s = interval_s
        self._pid = os.getpid()
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # a sync has ended, or the log
        self._idle = threading.Condition(lock)  # whoever had the end of the log is done with it
        self._arrived = threading.Condition(lock)  # one more thread wants a sync
        self._told = threading.Condition(lock)  # the thread in the background has something to do
        self._syncing = False
        self._soon = False
        self._leading = False
        self._wanting = 0
        self._expected = 1
        self._sync_s = 0.0
        self._closed = False
        self._failure: BaseException | None = None
        self._syncer: threading.Thread | None = None
        self._busy = False
        self._fd = -1
        self._segments: list[Segment] = []
        self._at = Segment("", 1, 0, 0).start()
        self._seen = self._at
        self._kept_from: list[int] = []
        self._durable_offset = 0
        self.durable_seq = 0
        self.syncs = 0

    # Opening

    @classmethod
    def create(
        cls,
        directory: str,
        files: Files,
        collection_id: bytes,
        *,
        first_seq: int = 1,
        durability: Durability = "commit",
        segment_bytes: int | None = None,
        interval_s: float = 0.1,
    ) -> Log:
        """Make the directory of a log with an empty first segment, all of it synced.

        The directory may exist with what an interrupted creation has left; its name in the
        parent is synced too.
        """
        log = cls(
            directory,
            files,
            collection_id,
            read_only=False,
            durability=durability,
            segment_bytes=segment_bytes,
            interval_s=interval_s,
        )
        if not files.is_directory(directory):
            files.make_directory(directory)
        segment = log._write_segment(first_seq, chain=0)
        files.replace(segment.path + ".tmp", segment.path)
        files.sync_directory(directory)
        files.sync_directory(os.path.dirname(directory) or ".")
        log._segments = [segment]
        log._at = segment.start()
        log._start_appending()
        return log

    @classmethod
    def open(
        cls,
        directory: str,
        files: Files,
        collection_id: bytes,
        *,
        after_seq: int = 0,
        durable_seq: int = 0,
        read_only: bool = False,
        durability: Durability = "commit",
        segment_bytes: int | None = None,
        interval_s: float = 0.1,
    ) -> Log:
        """Check the log after ``after_seq``, repair a torn tail, and make it ready.

        Parameters
        ----------
        after_seq : int
            The checkpoint that the log continues; what is at or before it is not read.
        durable_seq : int
            The newest commit known, from elsewhere, to have been on the disk.
        read_only : bool
            Write nothing, and take an invalid tail as not yet written. For use beside a writer.

        Raises
        ------
        CorruptionError
            If the log has lost what it had acknowledged, or is not the log of this collection;
            with the path and offset. Nothing was written.
        LogTrimmedError
            Read-only: a writer has removed what follows ``after_seq``.
        """
        log = cls(
            directory,
            files,
            collection_id,
            read_only=read_only,
            durability=durability,
            segment_bytes=segment_bytes,
            interval_s=interval_s,
        )
        log._recover(after_seq, durable_seq)
        return log

    @property
    def last_seq(self) -> int:
        """The newest commit in the log."""
        return self._at.seq

    @property
    def size_bytes(self) -> int:
        """Bytes of the segments that are kept (not of ``.broken`` files)."""
        with self._changed:
            segments = list(self._segments)
        total = 0
        for segment in segments:
            with suppress(FileNotFoundError):  # dropped meanwhile
                total += self._files.size_of(segment.path)
        return total

    @property
    def poisoned(self) -> bool:
        """Whether a failed sync has ended the life of this handle."""
        return self._failure is not None

    # Writing

    def append(self, payload: Sequence[Buffer]) -> int:
        """Write one commit, not yet synced, and return its seq.

        Raises
        ------
        OSError
            The system refused, for instance for want of space. The log is as it was before:
            what had been written was cut off again.
        PoisonedError
            An earlier sync has failed (``unknown`` is None), or cutting off failed too.
        """
        self.check_owner()
        with self._changed, self._alone():
            if self._at.offset >= self._segment_bytes:
                self._rotate()
            if self._durability == "interval" and self._syncer is None:
                self._start_syncer(self._sync_in_background)
            seq = self._at.seq + 1
            self._write_record(seq, payload)
            return seq

    def sync(self, seq: int | None = None) -> None:
        """Keep the promise of the durability mode for all commits up to ``seq`` (None: all).

        Raises
        ------
        PoisonedError
            The sync failed: whether the commit is on the disk is unknown (``unknown`` is its
            seq), and this handle writes no more. There is no retry: the kernel may have dropped
            the data, and a second sync would succeed without it. (An interrupt while it waits
            leaves the commit in the log, and the handle goes on.)
        """
        if self._durability == "commit":
            self.flush(seq)
            return
        self.check_owner()
        if self._failure is not None:
            raise self._poisoned(self._at.seq if seq is None else seq)

    def sync_soon(self) -> None:
        """Begin to sync what was appended, in the background, if `sync` is going to.

        For who has something else to do before asking for it: planning a large batch, say.
        """
        if self._durability != "commit":
            return
        self.check_owner()
        with self._changed:
            self._check_writable()
            self._soon = True
            if self._syncer is None:
                with suppress(RuntimeError):  # no more threads: then `sync` does it all
                    self._start_syncer(self._sync_when_told)
            self._told.notify()

    def flush(self, seq: int | None = None) -> None:
        """Put all commits up to ``seq`` (None: all) on the disk, in every mode.

        Raises
        ------
        PoisonedError
            As `sync`.
        """
        self.check_owner()
        with self._changed:
            wanted = self._at.seq if seq is None else seq
            if wanted > self._at.seq:
                raise ValueError(f"commit {wanted} is to be synced; the newest is {self._at.seq}")
            while self.durable_seq < wanted and not self._read_only:
                if self._failure is not None:
                    raise self._poisoned(wanted)
                self._check_open()
                self._wanting += 1
                self._arrived.notify()
                try:
                    if self._leading or self._syncing:
                        self._changed.wait()
                    else:
                        self._lead()
                finally:
                    self._wanting -= 1

    def rotate(self) -> None:
        """Begin a new segment, so that `drop_before` can remove the present one.

        On a full disk the present segment goes on.
        """
        self.check_owner()
        with self._changed, self._alone():
            if self._at.seq >= self._at.segment.first_seq:
                self._rotate()

    def drop_before(self, seq: int) -> int:
        """Remove the segments that hold nothing after ``seq``; return how many.

        Only after a checkpoint at ``seq`` is on the disk. The segment in use always stays, and so
        does what `kept_from` asks for.
        """
        self.check_owner()
        with self._changed:
            self._check_open()
            seq = min([seq, *self._kept_from])
            if self._read_only:
                raise ReadOnlyError("the log was opened for reading", path=self._directory)
            # Oldest first. Should only some of it reach the disk, what is left lies before the
            # checkpoint, where `open` does not mind gaps.
            dropped = 0
            while len(self._segments) > 1 and self._segments[1].first_seq <= seq + 1:
                with suppress(FileNotFoundError):
                    self._files.unlink(self._segments[0].path)
                del self._segments[0]
                dropped += 1
            if dropped:
                self._files.sync_directory(self._directory)
            return dropped

    @contextmanager
    def kept_from(self, seq: int) -> Iterator[None]:
        """Let `drop_before` leave the commits after ``seq`` where they are, meanwhile."""
        with self._changed:
            self._kept_from.append(seq)
        try:
            yield
        finally:
            with self._changed:
                self._kept_from.remove(seq)

    def close(self) -> None:
        """Sync, mark the end as clean, and release the file. Again: no effect.

        In a forked child it only closes the descriptor.

        Raises
        ------
        PoisonedError
            This sync failed, or an earlier one did and `sync` had not waited for it ("interval"
            and "os"): the last commits may be lost. The log is closed all the same.
        """
        if self._pid != os.getpid():
            self._closed = True
            self._close_file()
            return
        with self._changed:
            while self._busy:
                self._idle.wait()
            if self._closed:
                return
            self._busy = True
            try:
                self._mark_end()
            finally:
                self._closed = True
                self._busy = False
                self._close_file()
                self._changed.notify_all()
                self._idle.notify_all()
                self._told.notify_all()
        if self._syncer is not None:
            self._syncer.join()

    def __enter__(self) -> Log:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check_owner(self) -> None:
        """Refuse to work in a forked child.

        Raises
        ------
        ForkedError
            The child shares the file and its lock with the parent, but not the lock's state.
        """
        if self._pid != os.getpid():
            raise ForkedError(
                f"opened by process {self._pid}, used in process {os.getpid()}: open it again",
                pid=self._pid,
            )

    # Reading

    def replay(self, after_seq: int = 0) -> Iterator[tuple[int, memoryview]]:
        """Yield (seq, payload) of every commit after ``after_seq``, in order, each verified.

        On a read-only log it begins by looking for what a writer has added since, and ends at
        what is not yet wholly written: call it again to follow the writer.

        Raises
        ------
        CorruptionError
            If the bytes are not what was written.
        LogTrimmedError
            Read-only: a writer has removed what follows ``after_seq``.
        """
        self.check_owner()
        self._check_open()
        try:
            if self._read_only:
                self._recover(after_seq, self.durable_seq)
            with self._changed:
                end = self._at.seq
                needed = self._needed(self._segments, after_seq)
            seen = self._seen if self._seen.seq <= after_seq else needed[0].start()
            at = self._continue(seen, needed[0])
            for segment in needed:
                if segment.path != at.segment.path:
                    at = segment.start()
                for header, payload in self._walk(at, end):
                    if header.seq > after_seq and not header.flags & MARKER:
                        yield header.seq, memoryview(payload)
        except FileNotFoundError as error:
            raise LogTrimmedError(f"{error.filename} was removed after a checkpoint") from None
        if at.seq < end:
            raise corrupt(at.segment.path, at.offset, f"commit {at.seq + 1} is missing")
        self._seen = at

    def spans(self, after_seq: int, until: int) -> list[tuple[str, int]]:
        """Return the segments that hold the commits after one up to another, and where that ends.

        Raises
        ------
        LogTrimmedError
            Read-only: a writer has removed what follows ``after_seq``.
        """
        spans = []
        with self._changed:
            needed = [
                segment
                for segment in self._needed(self._segments, after_seq)
                if segment.first_seq <= max(until, after_seq + 1)
            ]
        for segment in needed:
            fd = self._files.open(segment.path)
            try:
                end = self._files.size(fd)
                if segment is needed[-1]:
                    end = self._end_of(fd, segment, until, end)
            finally:
                self._files.close(fd)
            spans.append((segment.path, end))
        return spans

    def _end_of(self, fd: int, segment: Segment, seq: int, size: int) -> int:
        """Return the offset behind the record of a commit."""
        end = SEGMENT_HEADER_BYTES
        for offset, header in headers(self._files, fd, segment.start(), size):
            if header.seq > seq:
                break
            if not header.flags & MARKER:
                end = offset + HEADER_BYTES + header.size
            if header.seq == seq:
                break
        return end

    def _walk(self, at: Position, end: int) -> Iterator[tuple[Header, bytes]]:
        """Move the position through its segment, up to commit ``end``."""
        fd = self._files.open(at.segment.path)
        try:
            size = self._files.size(fd)
            while at.seq < end and at.offset < size:
                record = read_record(self._files, fd, at, size)
                if isinstance(record, str):
                    raise corrupt(at.segment.path, at.offset, record)
                yield record
        finally:
            self._files.close(fd)

    # Recovery

    def _recover(self, after_seq: int, durable_seq: int) -> None:
        """Find the end of the log; for a writer also repair it and open it for appending."""
        segments, unfinished = self._find_segments()
        needed = self._needed(segments, after_seq)
        # A reader that follows goes on where it has checked up to; the first time that is nowhere.
        known = [s.path for s in needed]
        checked = known.index(self._at.segment.path) if self._at.segment.path in known else 0
        at = self._continue(self._at, needed[checked])
        for segment in needed[checked:]:
            if segment.path != at.segment.path:
                self._check_successor(at, segment)
                at = segment.start()
            durable_seq = self._scan(at, durable_seq, last=segment is needed[-1])
        following = self._unfinished_rotation(at, unfinished) if at.sealed else None
        if at.seq < durable_seq:
            raise corrupt(
                at.segment.path,
                at.offset,
                f"the log ends at commit {at.seq}, but {durable_seq} was on the disk",
            )
        self._segments = segments
        self.durable_seq = durable_seq
        self._at = at
        if not self._read_only:
            if not at.closed and at.offset > SEGMENT_HEADER_BYTES:
                message = "took over %s at commit %d from a writer that did not close it"
                _logger.info(message, self._directory, at.seq)
            self._repair(following)

    def _find_segments(self) -> tuple[list[Segment], set[str]]:
        """Read the headers of all segments; also return the names of unfinished files."""
        segments = []
        unfinished = set()
        for name in self._files.list(self._directory):
            path = os.path.join(self._directory, name)
            if name.endswith(".tmp"):
                unfinished.add(name)
            elif is_segment_name(name):
                with self._if_still_there():
                    segments.append(
                        read_segment_header(self._files, path, int(name[:20]), self._id)
                    )
            elif name.endswith(".log"):
                raise corrupt(path, 0, "not a segment of this log")
        return segments, unfinished

    @contextmanager
    def _if_still_there(self) -> Iterator[None]:
        """Let a reader pass over what a writer has removed since it was listed."""
        try:
            yield
        except FileNotFoundError:
            if not self._read_only:
                raise

    def _needed(self, segments: Sequence[Segment], after_seq: int) -> list[Segment]:
        """Return the segments from the one that holds the commit after ``after_seq``."""
        first = [s for s in segments if s.first_seq <= after_seq + 1][-1:]
        if not first:
            begin = f"at commit {segments[0].first_seq}" if segments else "nowhere"
            message = f"commit {after_seq + 1} is missing: the log begins {begin}"
            if self._read_only or self._fd >= 0:
                raise LogTrimmedError(message)
            raise corrupt(self._directory, 0, message)
        return [s for s in segments if s.first_seq >= first[0].first_seq]

    @staticmethod
    def _continue(earlier: Position, segment: Segment) -> Position:
        """Return a copy of the earlier position if it lies in the segment, else its start."""
        return replace(earlier) if earlier.segment.path == segment.path else segment.start()

    def _check_successor(self, before: Position, segment: Segment) -> None:
        if segment.first_seq != before.seq + 1:
            raise corrupt(
                self._directory,
                0,
                f"the segment of commit {before.seq + 1} is missing before {segment.path}",
            )
        if segment.chain != before.chain:
            raise corrupt(segment.path, 32, "does not continue the segment before it")

    def _unfinished_rotation(self, at: Position, unfinished: set[str]) -> Segment | None:
        """Return the segment that a sealed last one promises; for readers it may be to come."""
        if self._read_only:
            return None
        path = self._segment_path(at.seq + 1)
        if os.path.basename(path) + ".tmp" not in unfinished:
            raise corrupt(self._directory, 0, f"{at.segment.path} is sealed, but {path} is missing")
        segment = read_segment_header(self._files, path + ".tmp", at.seq + 1, self._id)
        segment.path = path
        self._check_successor(at, segment)
        return segment

    def _scan(self, at: Position, durable_seq: int, *, last: bool) -> int:
        """Move the position to the end of its segment; return the newest durable seq known."""
        fd = self._files.open(at.segment.path)
        try:
            while at.offset < (size := self._files.size(fd)):
                record = read_record(self._files, fd, at, size)
                if isinstance(record, str):
                    problem = self._judge(fd, at, record, durable_seq, last=last)
                    if problem is None:
                        break
                    # Beside a live writer the record may have been completed after it was
                    # read, and before it was judged by those that follow it.
                    if self._read_only:
                        record = read_record(self._files, fd, at, self._files.size(fd))
                    if isinstance(record, str):
                        raise corrupt(at.segment.path, at.offset, problem)
                durable_seq = max(durable_seq, record[0].durable_seq)
        finally:
            self._files.close(fd)
        return durable_seq

    def _judge(
        self, fd: int, at: Position, problem: str, durable_seq: int, *, last: bool
    ) -> str | None:
        """Say why the invalid record at the position is corruption; None: it is a torn tail."""
        if not last:
            return f"{problem}, in a segment that is not the last"
        for header in later_headers(self._files, fd, at):
            durable_seq = max(durable_seq, header.durable_seq)
            if header.flags & SYNCED_BEFORE:
                return f"{problem}, but it was on the disk before commit {header.seq}"
        if at.seq + 1 <= durable_seq:
            return f"{problem}, but commit {durable_seq} was on the disk"
        return None

    def _repair(self, following: Segment | None) -> None:
        """Cut off a torn tail, complete a change of segments, and make all of it durable."""
        self._cut_and_settle(self._at)
        if following is not None:
            self._files.replace(following.path + ".tmp", following.path)
            self._segments.append(following)
            self._at = following.start()
        for name in self._files.list(self._directory):
            if name.endswith(".tmp"):
                self._files.unlink(os.path.join(self._directory, name))
        # Also for the name of the last segment, should its creator have died before this.
        self._files.sync_directory(self._directory)
        self._start_appending()

    def _cut_and_settle(self, at: Position) -> None:
        """Cut off a torn tail, and put on the disk what may be in the page cache only."""
        files = self._files
        fd = files.open(at.segment.path, write=True)
        try:
            torn_bytes = files.size(fd) - at.offset
            if torn_bytes > 0:
                message = "cut %d bytes after commit %d off %s: of no commit that was acknowledged"
                _logger.warning(message, torn_bytes, at.seq, at.segment.path)
                if any(any(block) for block in files.blocks(fd, at.offset)):
                    self._keep_broken(fd, at)
                files.truncate(fd, at.offset)
            start = self._first_in_doubt(fd, at)
            while start < at.offset:
                block = files.read(fd, min(_COPY_BYTES, at.offset - start), start)
                start = files.write(fd, [block], start)
            files.sync(fd)
        finally:
            files.close(fd)

    def _first_in_doubt(self, fd: int, at: Position) -> int:
        """Return the offset from which on nothing says that it was on the disk."""
        settled = SEGMENT_HEADER_BYTES
        for offset, header in headers(self._files, fd, at.segment.start(), at.offset):
            if header.flags & SYNCED_BEFORE:
                settled = offset
            if header.seq <= self.durable_seq and not header.flags & MARKER:
                settled = offset + HEADER_BYTES + header.size
        return settled

    def _keep_broken(self, fd: int, at: Position) -> None:
        """Copy the torn tail to a file of its own; the name is the same if this is repeated."""
        path = f"{at.segment.path}.{at.offset}.broken"
        copy = self._files.create(path + ".tmp")
        try:
            end = 0
            for block in self._files.blocks(fd, at.offset):
                end = self._files.write(copy, [block], end)
            self._files.sync(copy)
        finally:
            self._files.close(copy)
        self._files.replace(path + ".tmp", path)
        self._files.sync_directory(self._directory)

    # With the lock held

    def _start_appending(self) -> None:
        """Go on at the present position, up to which everything is on the disk."""
        self._fd = self._files.open(self._at.segment.path, write=True)
        self.durable_seq = self._at.seq
        self._durable_offset = self._at.offset

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out, although the lock is released while syncing."""
        while self._busy:
            self._idle.wait()
        self._check_writable()
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self._idle.notify()

    def _wait_for_sync(self) -> None:
        while self._syncing:
            self._changed.wait()

    def _write_record(self, seq: int, payload: Sequence[Buffer], flags: int = 0) -> None:
        at = self._at
        size = sum(len(part) for part in payload)
        if size > MAX_PAYLOAD_BYTES:
            raise LimitError(
                f"a commit of {size} bytes; at most {MAX_PAYLOAD_BYTES}",
                got=size,
                want=MAX_PAYLOAD_BYTES,
            )
        checksum = at.chain
        for part in payload:
            checksum = zlib.crc32(part, checksum)
        if self._durable_offset == at.offset:
            flags |= SYNCED_BEFORE
        header = Header(seq, size, checksum, at.chain, self.durable_seq, flags)
        try:
            raw = pack_header(header, at.segment.salt)
            end = self._files.write(self._fd, [raw, *payload], at.offset)
        except BaseException as error:
            self._retreat(error)
            raise
        sealed, closed = bool(flags & SEALED), bool(flags & CLOSED)
        self._at = Position(at.segment, end, seq, checksum, sealed, closed)

    def _retreat(self, cause: BaseException) -> None:
        """Cut off what a failed write has left, durably, before anything else is written."""
        try:
            self._files.truncate(self._fd, self._at.offset)
            self._wait_for_sync()
            self._sync_now()
        except BaseException as error:  # noqa: BLE001 - raised again, as what it means
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()
            raise self._poisoned(self._at.seq + 1) from cause

    def _lead(self) -> None:
        """Sync for all who want it, once those are here who will want it in a moment.

        The threads that the last sync has released are about to come again. Without a pause the
        next sync would begin before they do, so that two groups take turns and everybody waits
        for two syncs. It ends when as many threads are here as there were, and lasts a quarter of
        a sync at most; a single thread never waits. Commits of 16 threads by those of one, syncs
        of 4 ms, two busy cores: 8.1 without, 8.8 with at most 1/8, 11.5 with 1/4, 10.9 with 1/2.
        To wait for as long as threads keep coming, up to a whole sync, gives what 1/4 does.
        """
        self._leading = True
        try:
            until = time.monotonic() + self._sync_s / 4
            while self._wanting < self._expected and (rest := until - time.monotonic()) > 0:
                self._arrived.wait(rest)
            self._wait_for_sync()
            if self._failure is None and self.durable_seq < self._at.seq:
                self._sync_now()
        finally:
            self._leading = False
            self._changed.notify_all()

    def _sync_now(self) -> None:
        """Sync everything written so far; the lock is released meanwhile, and nobody else syncs.

        An interrupt says nothing of the sync, which may be made again; a failure may not, also
        where an interrupt hides it.
        """
        seq, offset, fd = self._at.seq, self._at.offset, self._fd
        self._syncing = True
        began = time.monotonic()
        self._changed.release()
        try:
            self._files.sync_data(fd)
        except OSError as error:
            self._failure = error
            _logger.critical("no sync of %s: %r", self._directory, error)
        except BaseException as error:
            if isinstance(error.__context__, OSError):
                self._failure = error.__context__
            raise
        finally:
            self._changed.acquire()
            self._syncing = False
            self._sync_s = time.monotonic() - began
            self._expected = self._wanting
            self._changed.notify_all()
        self.syncs += 1
        if self._failure is not None:
            raise self._poisoned(seq) from self._failure
        self.durable_seq, self._durable_offset = seq, offset

    def _rotate(self) -> None:
        """Begin a new segment; if that is refused, stay with the present one."""
        self._wait_for_sync()
        self._check_writable()
        first_seq, chain = self._at.seq + 1, self._at.chain
        try:
            segment = self._write_segment(first_seq, chain)
            self._files.sync_directory(self._directory)
        except OSError:
            with suppress(OSError):
                self._files.unlink(self._segment_path(first_seq) + ".tmp")
            return
        # The seal promises a next segment, so that one is on the disk before it, under a name
        # that nothing reads: a crash before the seal leaves a file to remove, one after it a
        # name to put right.
        self._write_record(self._at.seq, (), SEALED)
        try:
            self._sync_now()
            self._files.replace(segment.path + ".tmp", segment.path)
            self._files.sync_directory(self._directory)
            self._close_file()
            self._fd = self._files.open(segment.path, write=True)
        except BaseException as error:
            # Whatever it was, an interrupt even: nothing may follow the seal in this segment.
            if self._failure is None:
                self._failure = error
            raise self._poisoned(None) from error
        self._segments.append(segment)
        self._at = segment.start()
        self._durable_offset = self._at.offset

    def _write_segment(self, first_seq: int, chain: int) -> Segment:
        """Write and sync an empty segment under its temporary name."""
        salt = int.from_bytes(os.urandom(4), "little")
        segment = Segment(self._segment_path(first_seq), first_seq, salt, chain)
        self._files.write_new(segment.path + ".tmp", [pack_segment_header(self._id, segment)])
        return segment

    def _mark_end(self) -> None:
        """Sync, and mark the end as clean if there is anything to mark."""
        self._wait_for_sync()
        if self._read_only:
            return
        if self._failure is not None:
            # Of "commit" everybody was told by `sync`; the others had the promise of this one.
            if self._durability != "commit" and self.durable_seq < self._at.seq:
                raise self._poisoned(self._at.seq)
            return
        if self.durable_seq < self._at.seq:
            self._sync_now()
        if self._at.closed or self._at.offset == SEGMENT_HEADER_BYTES:
            return
        # All commits are on the disk. The marker helps recovery, but nobody has to know of a
        # disk too full for it.
        with suppress(OSError, PoisonedError):
            self._write_record(self._at.seq, (), CLOSED)
            self._sync_now()

    def _start_syncer(self, work: Callable[[], None]) -> None:
        syncer = threading.Thread(target=work, name="upvec-log-sync", daemon=True)
        syncer.start()
        self._syncer = syncer

    def _sync_when_told(self) -> None:
        with self._changed:
            while self._is_working():
                if not self._soon:
                    self._told.wait()
                    continue
                self._soon = False
                if not self._syncing and not self._leading and self.durable_seq < self._at.seq:
                    with suppress(PoisonedError):  # whoever waits for it raises it
                        self._sync_now()

    def _sync_in_background(self) -> None:
        with self._changed:
            while self._is_working():
                due = time.monotonic() + self._interval_s
                while self._is_working() and (rest := due - time.monotonic()) > 0:
                    self._changed.wait(rest)
                if not self._syncing and self._is_working() and self.durable_seq < self._at.seq:
                    with suppress(PoisonedError):  # the next append or sync raises it
                        self._sync_now()

    def _is_working(self) -> bool:
        return not self._closed and self._failure is None

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the log is closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise ReadOnlyError("the log was opened for reading", path=self._directory)
        if self._failure is not None:
            raise self._poisoned(None)

    def _poisoned(self, unknown: int | None) -> PoisonedError:
        what = "" if unknown is None else f"; whether commit {unknown} is on the disk is unknown"
        return PoisonedError(
            f"the log takes no more commits after a failure ({self._failure}){what}",
            unknown=unknown,
            cause=self._failure,
        )

    def _close_file(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._files.close(fd)

    def _segment_path(self, first_seq: int) -> str:
        return os.path.join(self._directory, segment_name(first_seq))
