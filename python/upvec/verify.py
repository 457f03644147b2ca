"""Looking for damage: every byte of every file of a collection against its checksum.

Nothing is written, and nothing is decided: what is damaged is named, with what it affects. It works
on a directory that cannot be opened, and beside a writer, which may be adding to the log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .blocks import damaged_blocks
from .checkpoint import LOCK, LOG, MANIFEST, read_manifest, verify_file
from .codec import decode
from .errors import CorruptionError, SchemaError
from .files import Files
from .schema import Schema
from .segment import (
    MARKER,
    SYNCED_BEFORE,
    Position,
    Segment,
    is_segment_name,
    later_headers,
    read_record,
    read_segment_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._core import Index
    from .checkpoint import Checkpoint, Manifest

__all__ = ["Problem", "VerifyReport", "verify"]


@dataclass(frozen=True)
class Problem:
    """One piece of damage.

    Attributes
    ----------
    path : str
        The file.
    offset : int or None
        Where in it, in bytes, as far as that is known.
    what : str
    affects : str
        What cannot be relied on because of it.
    """

    path: str
    offset: int | None
    what: str
    affects: str

    def __str__(self) -> str:
        at = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{at}: {self.what}; affects {self.affects}"


@dataclass
class VerifyReport:
    """What :func:`verify` found.

    Attributes
    ----------
    problems : list of Problem
    notes : list of str
        What is unusual and no damage: files that do not belong there.
    files, bytes, commits : int
        How much was looked at.
    last_seq : int
        The newest commit that is whole, with all before it.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    commits: int = 0
    last_seq: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is no damage."""
        return not self.problems

    def __repr__(self) -> str:
        looked = f"{self.files} files, {self.bytes} bytes, {self.commits} commits"
        return f"VerifyReport({'ok' if self.ok else f'{len(self.problems)} problems'}; {looked})"


def verify(
    path: str | os.PathLike[str], *, files: Files | None = None, until: int | None = None
) -> VerifyReport:
    """Compare every byte of a collection's files with its checksum.

    Parameters
    ----------
    path : str or path
        The directory. It need not be possible to open it.
    files : Files
        The file system, if it is not the usual one.
    until : int
        Beside a writer: the last commit that must be whole. What comes after it may be being
        written.

    Returns
    -------
    VerifyReport

    Raises
    ------
    FileNotFoundError
        There is no directory.

    Examples
    --------
    >>> import tempfile, upvec
    >>> folder = tempfile.mkdtemp()
    >>> schema = upvec.Schema(upvec.Field("id", "int64", primary=True))
    >>> with upvec.open(folder, schema) as col:
    ...     _ = col.upsert([{"id": 1}])
    >>> upvec.verify(folder).ok
    True
    """
    return _Verifier(os.path.abspath(os.fsdecode(path)), files or Files(), until).run()


class _Verifier:
    def __init__(self, root: str, files: Files, until: int | None) -> None:
        self._root = root
        self._files = files
        self._until = until
        self._report = VerifyReport()

    def run(self) -> VerifyReport:
        names = self._files.list(self._root)
        manifest = self._manifest()
        if manifest is not None:
            for checkpoint in manifest.checkpoints:
                self._checkpoint(checkpoint)
        known = {LOCK, MANIFEST, LOG, *_directories(manifest)}
        for name in names:
            if name not in known:
                self._report.notes.append(f"{os.path.join(self._root, name)} is not part of it")
        lock = os.path.join(self._root, LOCK)
        if LOCK in names and (size := self._files.size_of(lock)):
            self._problem(lock, 0, f"has {size} bytes; wanted none", "nothing")
        self._log(manifest)
        return self._report

    def _problem(self, path: str, offset: int | None, what: str, affects: str) -> None:
        self._report.problems.append(Problem(path, offset, what, affects))

    def _manifest(self) -> Manifest | None:
        path = os.path.join(self._root, MANIFEST)
        try:
            manifest = read_manifest(self._root, self._files)
        except CorruptionError as error:
            self._problem(error.path or path, error.offset, str(error), "the whole collection")
            return None
        if manifest is None:
            self._problem(path, None, "is missing", "the whole collection")
        else:
            self._report.files += 1
            self._report.bytes += self._files.size_of(path)
        return manifest

    # Checkpoints

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        folder = os.path.join(self._root, checkpoint.directory)
        names = _names(checkpoint)
        for name, (size, checksum) in checkpoint.files.items():
            path = os.path.join(folder, name)
            self._report.files += 1
            self._report.bytes += size
            try:
                verify_file(path, self._files, size, checksum, checksums=True)
            except CorruptionError as error:
                where = f"the checkpoint of commit {checkpoint.seq}"
                for offset, affects in self._affected(path, name, names):
                    self._problem(path, offset, str(error), f"{affects}, in {where}")
        if self._files.is_directory(folder):
            for name in self._files.list(folder):
                if name not in checkpoint.files:
                    self._report.notes.append(f"{os.path.join(folder, name)} is not part of it")

    def _affected(
        self, path: str, file: str, names: dict[int, str]
    ) -> Iterator[tuple[int | None, str]]:
        """Say where a damaged file of a checkpoint is damaged, and what is there."""
        kind, _, number = file.partition("-")
        is_field = kind in {"field", "vector"} and number.isdigit()
        what = f"{kind} {names.get(int(number), number)}" if is_field else file
        if kind == "vector":
            yield None, what
            return
        try:
            damaged = list(damaged_blocks(self._files.read_all(path)))
        except FileNotFoundError:
            damaged = []
        if not damaged:
            yield None, what
        for offset, first, end in damaged:
            yield offset, f"{what}, rows {first} to {'the end' if end is None else end - 1}"

    # The log

    def _log(self, manifest: Manifest | None) -> None:
        folder = os.path.join(self._root, LOG)
        if not self._files.is_directory(folder):
            self._problem(folder, None, "is missing", "every commit after the last checkpoint")
            return
        segments = []
        for name in self._files.list(folder):
            path = os.path.join(folder, name)
            if is_segment_name(name):
                segments.append(path)
            else:
                self._report.notes.append(f"{path} is not part of it")
        _LogVerifier(self._files, self._report, manifest, segments, self._until).run()


class _LogVerifier:
    """Walks through all segments, also those that only an older checkpoint needs."""

    def __init__(
        self,
        files: Files,
        report: VerifyReport,
        manifest: Manifest | None,
        paths: Sequence[str],
        until: int | None,
    ) -> None:
        self._files = files
        self._report = report
        self._id = manifest.collection_id if manifest else None
        self._durable = manifest.durable_seq if manifest else 0
        checkpoints = manifest.checkpoints if manifest else ()
        # Gaps before the oldest checkpoint are of no consequence.
        self._needed_after = checkpoints[-1].seq if checkpoints else 0
        self._paths = paths
        self._until = until
        self._whole = True

    def run(self) -> None:
        at: Position | None = None
        for number, path in enumerate(self._paths):
            self._report.files += 1
            first = int(os.path.basename(path)[:20])
            segment = self._header(path, first)
            last = number == len(self._paths) - 1
            if segment is None:
                at = None
                self._whole = False
                continue
            if number == 0:
                self._report.last_seq = first - 1
            if at is not None and (segment.first_seq, segment.chain) != (at.seq + 1, at.chain):
                self._gap(path, at.seq, segment)
            elif at is None and number == 0 and first > self._needed_after + 1:
                self._gap(path, self._needed_after, segment)
            at = self._segment(segment, last=last)
        if not self._paths:
            self._say("log", None, "has no segment", f"every commit after {self._needed_after}")
        if self._whole and self._report.last_seq < self._durable:
            path = self._paths[-1] if self._paths else "log"
            message = f"ends at commit {self._report.last_seq}; {self._durable} was on the disk"
            self._say(path, None, message, f"commits up to {self._durable}")

    def _say(self, path: str, offset: int | None, what: str, affects: str) -> None:
        self._report.problems.append(Problem(path, offset, what, affects))

    def _gap(self, path: str, before: int, segment: Segment) -> None:
        lost = f"commits {before + 1} to {segment.first_seq - 1}"
        if segment.first_seq == before + 1:
            lost = f"commits from {segment.first_seq} on"
        self._say(path, 0, f"does not continue commit {before}", lost)
        self._whole = False

    def _header(self, path: str, first: int) -> Segment | None:
        try:
            if self._id is None:
                self._id = _collection_of(self._files, path)
            return read_segment_header(self._files, path, first, self._id)
        except CorruptionError as error:
            self._say(path, error.offset, str(error), f"commits from {first} on")
            return None

    def _segment(self, segment: Segment, *, last: bool) -> Position | None:
        """Verify the records of a segment; return the end, or None if that is unknown."""
        at = segment.start()
        fd = self._files.open(segment.path)
        try:
            size = self._files.size(fd)
            self._report.bytes += size
            while at.offset < size:
                start, found = at.offset, read_record(self._files, fd, at, size)
                if isinstance(found, str):
                    return self._invalid(fd, at, found, last=last)
                header, payload = found
                if not header.flags & MARKER:
                    self._payload(segment.path, start, header.seq, payload)
            if at.sealed and last:
                lost = f"commits after {at.seq}"
                self._say(segment.path, at.offset, "is sealed, and the next one is missing", lost)
                self._whole = False
            elif not at.sealed and not last:
                self._say(segment.path, at.offset, "ends without a seal", f"commits after {at.seq}")
                self._whole = False
            return at
        finally:
            self._files.close(fd)

    def _payload(self, path: str, offset: int, seq: int, payload: bytes) -> None:
        self._report.commits += 1
        if self._whole:
            self._report.last_seq = seq
        try:
            decode(payload)
        except CorruptionError as error:
            self._say(path, offset, str(error), f"commit {seq}")
            self._whole = False

    def _invalid(self, fd: int, at: Position, found: str, *, last: bool) -> Position | None:
        """Report an invalid record; return the end of the log if a writer may be at work on it."""
        if last and self._until is not None and at.seq >= self._until:
            return at
        later = list(later_headers(self._files, fd, at))
        newest = max([header.seq for header in later], default=None)
        durable = max([self._durable, *(header.durable_seq for header in later)])
        until = "" if newest is None else f" to {newest} at least"
        affects = f"commits {at.seq + 1}{until}"
        synced = any(header.flags & SYNCED_BEFORE for header in later)
        if last and at.seq + 1 > durable and not synced:
            # Nothing tells these apart: see the module of the log.
            found += ": the end of an interrupted write, or damage to the last record"
            affects += ", if it was ever acknowledged"
        self._say(at.segment.path, at.offset, found, affects)
        self._whole = False
        return None


def _directories(manifest: Manifest | None) -> list[str]:
    return [] if manifest is None else [one.directory for one in manifest.checkpoints]


def _names(checkpoint: Checkpoint) -> dict[int, str]:
    """Return the names of the fields by their numbers, if the schema of the checkpoint is one."""
    try:
        schema = Schema.from_dict(checkpoint.extra["schema"])
    except (KeyError, SchemaError):
        return {}
    return {number: name for name, number in schema.numbers.items()}


def wrong_with(index: Index) -> Iterator[str]:
    """Say which invariants of a graph do not hold."""
    found = index.check()
    if found["reachable"] != found["live"]:
        yield f"{found['live'] - found['reachable']} vectors that no search can reach"
    for name in (
        "dangling",
        "doubled",
        "self_links",
        "in_list_errors",
        "anchor_errors",
        "key_errors",
        "pending",
    ):
        if found[name]:
            yield f"{found[name]} {name.replace('_', ' ')} in the graph"


def _collection_of(files: Files, path: str) -> bytes:
    fd = files.open(path)
    try:
        return files.read(fd, 16, 12)
    finally:
        files.close(fd)
