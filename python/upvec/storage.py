"""A collection's directory: finding the last state in it, and writing to it.

:class:`Storage` ties the files of `checkpoint`, `image`, `log` and `codec` to an :class:`Engine`.
It knows nothing of rows or policies.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from .apply import Engine
from .backup import Backup, back_up
from .checkpoint import (
    create_collection,
    find_checkpoint,
    lock_collection,
    read_manifest,
    remove_leftovers,
    write_checkpoint,
)
from .codec import Effects, decode, encode
from .errors import CorruptionError, HistoryError, SchemaError
from .history import History
from .image import contents_of, state_of
from .log import Log, LogTrimmedError
from .schema import Schema
from .verify import VerifyReport, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .checkpoint import Contents, Found, Manifest
    from .files import Files
    from .log import Durability
    from .state import State

__all__ = ["Storage", "check_storable", "open_for_reading"]

_logger = logging.getLogger(__name__)

# A checkpoint is due when the log after the last one has grown to that one's size: so all
# checkpoints together write as many bytes as the log, at most twice what is logged is written, and
# replaying never takes longer than writing the collection anew would. Below this a checkpoint is
# not worth its syncs.
LEAST_LOG_BYTES = 64 << 20
# Closing writes one for less, so that opening need not replay: what is logged is replayed at 7 to
# 18 MB/s, and checkpoints are written at 500 MB/s (2,000 to 100,000 x 128: .06, 1.2 and 7.9 s for
# .007, .03 and .10 s). So that takes at most a quarter of what it saves; who opens, writes little
# and closes again and again has at most 16 times as many bytes written as are logged.
_CLOSING_SHARE = 16
LEAST_CLOSING_BYTES = 1 << 20
_NO_RIDS = np.empty(0, dtype=np.int64)
_NOTHING = Effects(_NO_RIDS, _NO_RIDS, _NO_RIDS)
# From so many bytes on a commit is synced while it is applied: to hand it over takes 50 us.
_SYNC_SOON_BYTES = 32 << 10
# How often a reader starts again when a writer has taken away what it was about to read.
_ATTEMPTS = 20


class Storage:
    """The files of one open collection, for writing or only for reading.

    Thread safety: as its log; :meth:`write` and :meth:`contents` belong to the writer.
    """

    def __init__(self, root: str, files: Files, manifest: Manifest, *, lock: int) -> None:
        self.root = root
        self.warnings: tuple[str, ...] = ()
        self._files = files
        self._manifest = manifest
        self._lock = lock
        self._log: Log | None = None
        # Of commits after the last checkpoint; those of the one that is being written. The writer
        # adds to them while a checkpoint takes off what it holds.
        self._counting = threading.Lock()
        self._log_bytes = self._captured_bytes = 0
        self._due_bytes = 0
        # The checkpoint known to be sound: the one that was read, then the last one written.
        self._rests_on: str | None = None
        self._set_due()
        self._engine_is_broken = False
        _open.add(self)

    @classmethod
    def for_writing(cls, root: str, files: Files, schema: Schema | None) -> Storage:
        """Lock the directory, creating the collection if there is none.

        Raises
        ------
        LockedError, CorruptionError, SchemaError
        """
        exists = files.exists(root) and read_manifest(root, files) is not None
        if not exists and schema is None:
            raise SchemaError(f"there is no collection at {root}; a schema would create one")
        if not exists and schema is not None:
            check_storable(schema)
        lock = lock_collection(root, files, create=schema is not None)
        try:
            manifest = read_manifest(root, files)
            if manifest is None:
                described = None if schema is None else schema.to_dict()
                extra = {"schema": described}
                manifest = create_collection(root, files, os.urandom(16), extra)
            else:
                remove_leftovers(root, files, manifest)
            return cls(root, files, manifest, lock=lock)
        except BaseException:
            files.close(lock)
            raise

    @classmethod
    def for_reading(cls, root: str, files: Files) -> Storage:
        """Read what the directory is, without a lock.

        Raises
        ------
        FileNotFoundError, CorruptionError
        """
        manifest = read_manifest(root, files)
        if manifest is None:
            raise FileNotFoundError(f"there is no collection at {root}")
        return cls(root, files, manifest, lock=-1)

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._lock < 0

    def recover(
        self, given: Schema | None, durability: Durability, *, until: int | None = None
    ) -> tuple[Engine, State]:
        """Load the last checkpoint into an engine, and replay the log after it.

        Commits are replayed under the schema that they were written with: that of the checkpoint,
        until one of them changes it.

        Parameters
        ----------
        given : Schema or None
            What the schema is to be in the end.
        until : int
            The last commit to replay, at least that of the checkpoint; None: all.

        Raises
        ------
        CorruptionError
            What was acknowledged cannot be read.
        SchemaError
            The schema is another one than was given.
        LogTrimmedError, FileNotFoundError
            Reading only: a writer has just removed what was to be read. Start again.
        """
        found = find_checkpoint(self.root, self._files, self._manifest, pin=self.read_only)
        engine, state = self._loaded(Engine, found, self._manifest)
        self._engine_is_broken = False
        self.warnings = () if found is None else found.damaged
        self._rests_on = None if found is None else found.checkpoint.directory
        self._log_bytes = 0
        log = Log.open(
            os.path.join(self.root, "log"),
            self._files,
            self._manifest.collection_id,
            after_seq=state.seq,
            durable_seq=self._manifest.durable_seq,
            read_only=self.read_only,
            durability=durability,
        )
        if self._log is not None:  # not before: should opening fail, the reader goes on with it
            self._log.close()
        self._log = log
        for seq, payload in log.replay(state.seq):
            if until is not None and seq > until:
                break
            state = engine.apply(state, self._decoded(payload, seq), seq)
            self._log_bytes += len(payload)
        if self._log_bytes:
            message = "replayed the log of %s up to commit %d: %d bytes"
            _logger.info(message, self.root, state.seq, self._log_bytes)
        if given is not None:
            engine.adopt(state, _agreed(state.schema, given, self.root))
        return engine, state

    @property
    def last_seq(self) -> int:
        """The newest commit in the log, synced or not."""
        return self._open_log().last_seq

    def write(self, effects: Effects) -> int:
        """Append one commit to the log, not yet synced; return its seq."""
        payload = encode(effects)
        seq = self._open_log().append(payload)
        size = sum(len(part) for part in payload)
        self._count(size)
        if size >= _SYNC_SOON_BYTES:
            self._open_log().sync_soon()
        return seq

    def sync(self, seq: int) -> None:
        """Keep the promise of the durability mode for all commits up to ``seq``."""
        self._open_log().sync(seq)

    def contents(self, engine: Engine, state: State) -> Contents:
        """Hold what a checkpoint of ``state``, the newest, writes; the writer's lock is held."""
        self._captured_bytes = self._log_bytes
        return contents_of(engine, state)

    def checkpoint(self, state: State, contents: Contents) -> None:
        """Write what is held of ``state``, so that opening begins with it; no lock is needed.

        One call at a time.
        """
        captured, began = self._captured_bytes, time.monotonic()
        self._manifest = write_checkpoint(
            self.root,
            self._files,
            state.seq,
            self._manifest.collection_id,
            contents,
            {"schema": state.schema.to_dict()},
            log=self._open_log(),
            rests_on=self._rests_on,
        )
        self._rests_on = self._manifest.checkpoints[0].directory
        self._count(-captured)
        self._set_due()
        self._open_log().rotate()
        message = "wrote a checkpoint of %s at commit %d: %d bytes in %.3f s"
        size, took = self._checkpoint_bytes(), time.monotonic() - began
        _logger.info(message, self.root, state.seq, size, took)

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the log since the last checkpoint is as large as that checkpoint, or more."""
        return self._log_bytes >= self._due_bytes

    @property
    def checkpoint_pays(self) -> bool:
        """Whether replaying the log since the last checkpoint takes longer than to write one."""
        least = max(self._checkpoint_bytes() // _CLOSING_SHARE, LEAST_CLOSING_BYTES)
        return self._log_bytes >= least

    def postpone_checkpoint(self) -> None:
        """After a failure: a checkpoint is due when as much again has been logged."""
        self._due_bytes = 2 * self._log_bytes

    def _count(self, more_bytes: int) -> None:
        with self._counting:
            self._log_bytes += more_bytes

    def _set_due(self) -> None:
        self._due_bytes = max(self._checkpoint_bytes(), LEAST_LOG_BYTES)

    def _checkpoint_bytes(self) -> int:
        last = self._manifest.checkpoints[:1]
        return sum(size for one in last for size, _ in one.files.values())

    def follow(self, engine: Engine, state: State) -> Iterator[tuple[Engine, State]]:
        """Yield the states that a writer has made since ``state``, which was read from here.

        Where the writer has removed the log up to there, the next one is that of its checkpoint,
        with another engine.

        Raises
        ------
        CorruptionError
        """
        if self._engine_is_broken:
            yield self.read_again(None, "os")
            return
        try:
            for seq, payload in self._open_log().replay(state.seq):
                effects = self._decoded(payload, seq)
                self._engine_is_broken = True  # should it end half-way
                state = engine.apply(state, effects, seq)
                self._engine_is_broken = False
                yield engine, state
        except LogTrimmedError:
            message = "reads %s again after commit %d: its writer has removed what follows"
            _logger.info(message, self.root, state.seq)
            yield self.read_again(None, "os")

    def read_again(self, given: Schema | None, durability: Durability) -> tuple[Engine, State]:
        """Read the last state beside a writer that may be removing older files meanwhile."""
        for attempt in range(_ATTEMPTS):
            manifest = read_manifest(self.root, self._files)
            if manifest is None:
                raise CorruptionError(f"{self.root} has lost its manifest", path=self.root)
            self._manifest = manifest
            try:
                return self.recover(given, durability)
            except (LogTrimmedError, FileNotFoundError):
                if attempt == _ATTEMPTS - 1:
                    raise
        raise CorruptionError(f"{self.root} changes too fast to be read", path=self.root)

    def back_up(self, dest: str, seq: int) -> Backup:
        """Copy the collection as of a commit; see `backup`."""
        with self._open_log().kept_from(0):
            return back_up(self.root, self._files, dest, seq)

    def verify(self, until: int) -> VerifyReport:
        """Look for damage in the files; what follows a commit may be being written."""
        with self._open_log().kept_from(0):
            return verify(self.root, files=self._files, until=until)

    def history(self, since: int, until: int) -> Iterator[tuple[State, State, Effects]]:
        """Return the commits after ``since`` up to ``until``: what was before each, and after.

        While the iterator lives, what it needs stays on the disk, if this handle is the writer.

        Raises
        ------
        HistoryError
            What is kept begins after ``since``.
        CorruptionError
        """
        steps = self._told_if_trimmed(self._history(since, until), since)
        next(steps)  # whatever is wrong with the beginning is raised here
        return steps

    def state_at(self, seq: int) -> State:
        """Return the state after a commit; its vectors can be read, and not be searched.

        Raises
        ------
        HistoryError, CorruptionError
        """
        for _, state, _ in self._told_if_trimmed(self._history(seq, seq), seq):
            return state
        raise CorruptionError(f"{self.root} does not hold commit {seq}", path=self.root)

    @staticmethod
    def _told_if_trimmed(
        steps: Iterator[tuple[State, State, Effects]], since: int
    ) -> Iterator[tuple[State, State, Effects]]:
        try:
            yield from steps
        except LogTrimmedError as error:
            message = f"a writer has removed what follows commit {since}: {error}"
            raise HistoryError(message, seq=since) from None

    def _history(self, since: int, until: int) -> Iterator[tuple[State, State, Effects]]:
        """Yield the state of ``since`` first, and then every step from there."""
        # From the beginning: the replay begins with a checkpoint that may lie before `since`.
        with self._open_log().kept_from(0):
            engine, state = self._begin_history(since)
            log = self._log_for_reading(state.seq)
            begun = False
            for seq, payload in log.replay(state.seq):
                if seq > since and not begun:
                    begun = True
                    yield state, state, _NOTHING
                if seq > until:
                    return
                effects = self._decoded(payload, seq)
                before, state = state, engine.apply(state, effects, seq)
                if seq > since:
                    yield before, state, effects
            if not begun and state.seq == since:
                yield state, state, _NOTHING

    def _begin_history(self, since: int) -> tuple[Engine, State]:
        for _ in range(_ATTEMPTS):
            manifest = read_manifest(self.root, self._files)
            if manifest is None:
                break
            oldest = manifest.checkpoints[-1].seq if manifest.checkpoints else 0
            if since < oldest:
                message = f"commit {since} is not kept any more; the oldest is {oldest}"
                raise HistoryError(message, seq=since, oldest=oldest)
            with contextlib.suppress(FileNotFoundError):
                found = find_checkpoint(self.root, self._files, manifest, pin=True, until=since)
                return self._loaded(History, found, manifest)
        raise CorruptionError(f"{self.root} changes too fast to be read", path=self.root)

    def _loaded(
        self, kind: type[Engine], found: Found | None, manifest: Manifest
    ) -> tuple[Engine, State]:
        """Return an engine with what a checkpoint holds, or nothing, and let go of the pin."""
        extra = manifest.extra if found is None else found.checkpoint.extra
        try:
            # The hashes of a collection have a seed of its own.
            seed = int.from_bytes(manifest.collection_id[:8], "little") >> 1
            engine = kind(_stored_schema(extra, self.root), seed=seed)
            state = engine.start() if found is None else state_of(engine, found, self._files)
        finally:
            if found is not None and found.pin >= 0:
                self._files.close(found.pin)
        return engine, state

    def _decoded(self, payload: memoryview, seq: int) -> Effects:
        try:
            return decode(payload)
        except CorruptionError as error:
            path = os.path.join(self.root, "log")
            raise CorruptionError(f"{path}, commit {seq}: {error}", path=path) from None

    def _log_for_reading(self, after_seq: int) -> Log:
        return Log.open(
            os.path.join(self.root, "log"),
            self._files,
            self._manifest.collection_id,
            after_seq=after_seq,
            read_only=True,
        )

    def stats(self) -> dict[str, int]:
        """Return the size of the log, and the commits it knows."""
        log = self._open_log()
        return {
            "log_bytes": log.size_bytes,
            "durable_seq": log.durable_seq,
            "checkpoint_seq": self._manifest.durable_seq,
            "syncs": log.syncs,
        }

    def close(self) -> None:
        """Close the log, which syncs it, and release the lock. Again: no effect."""
        lock, self._lock = self._lock, -1
        try:
            # It stays at hand: a thread that has appended may yet ask whether that was synced.
            if self._log is not None:
                self._log.close()
        finally:
            if lock >= 0:
                self._files.close(lock)

    def let_go_of_lock(self) -> None:
        """Close a forked child's copy of the lock, which would outlive the parent's."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._files.close(self._lock)
            self._lock = -1

    def _open_log(self) -> Log:
        if self._log is None:
            raise CorruptionError("the log is not open", path=self.root)
        return self._log


_open: weakref.WeakSet[Storage] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for storage in list(_open):
        storage.let_go_of_lock()


os.register_at_fork(after_in_child=_let_go_in_child)


def open_for_reading(
    root: str, files: Files, schema: Schema | None, durability: Durability
) -> tuple[Storage, Engine, State]:
    """Open the last state beside a writer, if there is one."""
    storage = Storage.for_reading(root, files)
    try:
        return storage, *storage.read_again(schema, durability)
    except BaseException:
        with contextlib.suppress(OSError):
            storage.close()
        raise


def check_storable(schema: Schema) -> None:
    """Refuse a schema whose description would not give it back, before anything is written."""
    try:
        text = json.dumps(schema.to_dict(), ensure_ascii=False, allow_nan=False)
        same = Schema.from_dict(json.loads(text.encode())) == schema
    except ValueError as error:
        raise SchemaError(f"the schema cannot be stored: {error}") from None
    if not same:
        raise SchemaError(f"the schema cannot be stored: its description gives another one: {text}")


def _stored_schema(extra: Mapping[str, Any], root: str) -> Schema:
    try:
        return Schema.from_dict(extra["schema"])
    except (KeyError, SchemaError) as error:
        raise CorruptionError(f"{root}: the manifest has no schema: {error}", path=root) from None


def _agreed(stored: Schema, given: Schema, root: str) -> Schema:
    if given != stored:
        raise SchemaError(f"the collection at {root} has another schema: {stored!r}, got {given!r}")
    # Equal, but for what no file holds: the functions of custom merge rules.
    return given.numbered(stored.numbers, stored.next_number)
