"""The collection: rows with a schema, unique keys and vectors, that outlive the process.

Writing, one commit at a time: validate the batch (no lock) → with the writer's lock, resolve it
against the newest state, log its effects, apply them → sync the log (no lock: several commits
share one sync) → publish the state → return. What fails before the log has changed nothing; what
fails after it poisons the handle, since the outcome is then unknown.

Reading takes the published state, once, and no lock. So a reader sees whole commits only, and
only such as were synced; a collection opened read-only beside a writer may see one more, whose
sync is still under way.

Thread safety: a collection may be used from any thread.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .apply import Engine
from .errors import (
    ClosedError,
    ConflictError,
    ForkedError,
    NotSupportedError,
    PoisonedError,
    ReadOnlyError,
    SchemaError,
)
from .expression import Predicate
from .files import Files
from .ingest import ingest
from .policy import Policy, Rules, rules_of
from .read import StateSource, read_rows, select
from .reader import Reader, Where
from .resolve import check_duplicates, resolve, result_of
from .result import Outcome, Rows, UpsertResult
from .schema import Schema
from .snapshot import Snapshot
from .storage import Storage, open_for_reading

if TYPE_CHECKING:
    from types import TracebackType

    from .codec import Effects
    from .log import Durability
    from .state import State

__all__ = ["Collection", "open"]

AnyArray: TypeAlias = npt.NDArray[Any]
RowIds: TypeAlias = npt.NDArray[np.int64]

_MEMORY = ":memory:"
_DURABILITIES = ("commit", "interval", "os")


def open(  # noqa: A001  (upvec.open, as the file system's)
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    read_only: bool = False,
    durability: Durability = "commit",
) -> Collection:
    """Open a collection, or create it.

    Parameters
    ----------
    path : str or path
        A directory, made if it is absent and there is a schema (its parent must exist);
        ``":memory:"`` keeps no files.
    schema : Schema
        Needed to create; otherwise, if given, it must equal the stored one.
    read_only : bool
        Read the last state in the directory, beside a writer if there is one; later commits of
        that writer are not followed.
    durability : str
        When a write returns, it survives: ``"commit"``, loss of power; ``"interval"``, the end
        of the process, and loss of power but for the last moments; ``"os"``, the end of the
        process.

    Returns
    -------
    Collection
        Close it, or use it in ``with``.

    Raises
    ------
    SchemaError
        No schema and no collection, or the stored schema is another one.
    LockedError
        Another handle is the writer.
    CorruptionError
        What had been acknowledged cannot be read; nothing was written.
    FileNotFoundError
        ``read_only``, and there is no collection.

    Examples
    --------
    >>> import upvec
    >>> schema = upvec.Schema(upvec.Field("id", "string", primary=True), upvec.Vector("emb", 2))
    >>> with upvec.open(":memory:", schema) as col:
    ...     col.upsert([{"id": "a", "emb": [0, 1]}, {"id": "b", "emb": [1, 0]}])
    ...     col.search([0.9, 0.1], k=1)["id"].tolist()
    UpsertResult(inserted=2, seq=1)
    ['b']
    """
    if durability not in _DURABILITIES:
        raise ValueError(f"durability={durability!r}; wanted one of {', '.join(_DURABILITIES)}")
    root = os.fsdecode(path)
    if schema is not None and not isinstance(schema, Schema):
        raise SchemaError(f"schema: got {type(schema).__name__}, wanted a Schema")
    if root == _MEMORY:
        if schema is None:
            raise SchemaError("a collection in memory needs a schema")
        if read_only:
            raise ValueError("a collection in memory cannot be read_only: it would stay empty")
        engine = Engine(schema, seed=int.from_bytes(os.urandom(8), "little") >> 1)
        return Collection(schema, engine, engine.start(), None)
    # The process may change its directory, and "c/" has to have the parent of "c".
    root = os.path.abspath(root)
    return open_directory(root, schema, Files(), read_only=read_only, durability=durability)


def open_directory(
    root: str,
    schema: Schema | None,
    files: Files,
    *,
    read_only: bool = False,
    durability: Durability = "commit",
) -> Collection:
    """Open a collection through a given file system layer; see :func:`open`."""

    def make_engine(storage: Storage) -> Engine:
        return Engine(storage.schema, seed=storage.seed)

    if read_only:
        storage, engine, state = open_for_reading(root, files, schema, durability, make_engine)
        return Collection(storage.schema, engine, state, storage)
    storage = Storage.for_writing(root, files, schema)
    try:
        engine = make_engine(storage)
        state = storage.recover(engine, durability)
    except BaseException:
        storage.close()
        raise
    for problem in storage.warnings:
        message = f"opened from an older checkpoint and the log; checkpoint() again: {problem}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return Collection(storage.schema, engine, state, storage)


class Collection(Reader):
    """Rows with a schema, unique keys and vectors. :func:`open` gives one.

    A context manager: leaving it closes it. ``len(col)`` is the number of rows, ``key in col``
    looks for a primary key, and ``col[key]`` is its row as a dict.

    Examples
    --------
    >>> import upvec
    >>> schema = upvec.Schema(
    ...     upvec.Field("id", "int64", primary=True),
    ...     upvec.Field("email", "string"),
    ...     upvec.Field("logins", "int64", default=0),
    ...     unique=[upvec.Unique("email")],
    ... )
    >>> col = upvec.open(":memory:", schema)
    >>> col.upsert([{"id": 1, "email": "ada@x.org"}])
    UpsertResult(inserted=1, seq=1)
    >>> r = col.upsert([{"email": "ada@x.org", "logins": 3}], on="email")
    >>> r.status.tolist(), r.key.tolist(), r.changed[0]
    ([1], [1], ('logins',))
    >>> col[1]
    {'id': 1, 'email': 'ada@x.org', 'logins': 3}
    """

    def __init__(
        self, schema: Schema, engine: Engine, state: State, storage: Storage | None
    ) -> None:
        self._schema = schema
        self._engine = engine
        self._storage = storage
        self._head = state
        self._published = state
        self._writing = threading.Lock()
        self._publishing = threading.Lock()
        self._failure: BaseException | None = None
        self._closed = False
        self._pid = os.getpid()
        # So that the lock of a handle that was never closed goes with it.
        self._finalizer = None if storage is None else weakref.finalize(self, storage.close)

    # --- Writing ----------------------------------------------------------------------------

    def upsert(
        self,
        rows: Any,
        *,
        on: str | None = None,
        policy: str | Policy = "merge",
        where: Any = None,
        if_version: Mapping[Any, int] | None = None,
        op_id: Any = None,
        duplicates: str = "error",
        on_invalid: str = "abort",
        dry_run: bool = False,
        returning: str | Iterable[str] | None = None,
        progress: bool = False,
        batch_rows: int | None = None,
    ) -> UpsertResult:
        """Store rows: update those whose key is stored, insert the others; all in one commit.

        Parameters
        ----------
        rows : list of dict, dict, structured array or DataFrame
            A field that a row does not mention is *absent*, which is not the same as null.
            Vectors are (n, dim). Everything is copied.
        on : str
            The key to match on: the primary key (default), or the name of a Unique. A null in
            a Unique matches nothing.
        policy : str or Policy
            ``"merge"``: fields present are written, absent ones kept. ``"replace"``: absent ones
            get their default, or null. ``"keep"``: stored rows are left alone. ``"fill"``: only
            what is null is written. New rows are stored whole under each of them.
        duplicates : str
            Of rows that have the same key: ``"error"``, or take the ``"first"`` or ``"last"``.
        if_version : mapping of key to int
            The version that a stored row must have; 0: there must be none. Else the row is a
            conflict. Keys are those of ``on``; each must be in the batch.
        returning : "old", "new" or both
            Rows of the result to give: as stored before, and after.
        where, op_id, on_invalid, dry_run, progress, batch_rows
            Not supported yet.

        Returns
        -------
        UpsertResult
            One outcome per row, in input order. Where nothing changes, nothing is written.

        Raises
        ------
        InvalidRowError, DimensionError
            A row that the schema does not allow.
        DuplicateKeyError
            Two rows have the same key.
        ConflictError
            A unique key is held by another row, a primary key would change, or a row has not
            the version expected; ``.result`` says which. With ``Policy(atomic=False)``
            just these rows are left out.
        ReadOnlyError, ClosedError, ForkedError, NotSupportedError
        PoisonedError
            Whether the rows are stored is unknown; see the error. All others changed nothing.
        """
        _refuse(where=where, op_id=op_id)
        _refuse(dry_run=dry_run or None, progress=progress or None, batch_rows=batch_rows)
        _refuse(on_invalid=None if on_invalid == "abort" else on_invalid)
        rules = rules_of(self._schema, policy)
        return self._upsert(rows, on, rules, duplicates, if_version, _sides(returning))

    def insert(self, rows: Any, *, duplicates: str = "error") -> UpsertResult:
        """Store new rows; a row whose primary key is stored is a conflict.

        Raises
        ------
        ConflictError
            With the rows that exist; nothing was written. Else as :meth:`upsert`.
        """
        rules = rules_of(self._schema, Policy("insert_only"), strict=True)
        return self._upsert(rows, None, rules, duplicates)

    def update(
        self, rows: Any, *, on: str | None = None, duplicates: str = "error"
    ) -> UpsertResult:
        """Change stored rows; a row whose key is not stored is a conflict.

        Raises
        ------
        ConflictError
            With the rows that are missing; nothing was written. Else as :meth:`upsert`.
        """
        rules = rules_of(self._schema, Policy("update_only"), strict=True)
        return self._upsert(rows, on, rules, duplicates)

    def delete(self, keys: Any = None, *, where: Where = None) -> UpsertResult:
        """Remove rows by primary key, by condition, or by both.

        Parameters
        ----------
        keys : sequence, array or single key
            Those that are not stored are ``skipped`` with the reason ``"missing"``, and
            those that do not fulfil ``where`` with ``"where"``.
        where : Expression or str
            Without keys: the result has a row for each row removed.

        Raises
        ------
        ValueError
            Neither keys nor where.
        InvalidRowError
            A key of the wrong type.
        ExpressionError
            A condition that does not fit the schema. Else as :meth:`upsert`.
        """
        self._check_writable()
        if keys is None and where is None:
            raise ValueError("delete() wants keys, or where=, or both; got neither")
        predicate = self._predicate(where)
        table = self._table(None)
        columns = None if keys is None else self._key_columns(table, keys)[0]
        with self._writing:
            self._check_writable()
            head = self._head
            if columns is None:
                rids = select(head, self._engine.indexes, predicate)
            else:
                rids = table.find(columns) if len(columns[0]) else np.empty(0, dtype=np.int64)
            status, reasons = self._resolve_delete(head, rids, predicate)
            gone = rids[status == Outcome.DELETED]
            key = head.columns[table.name].gather(rids)[0] if columns is None else columns[0]
            version = _versions(head, rids)
            state = head
            if len(gone):
                state = self._commit(head, self._engine.delete_effects(gone))
        self._acknowledge(state)
        return UpsertResult(status, key=key, version=version, reason=reasons, seq=state.seq)

    def checkpoint(self) -> None:
        """Write the present state to the directory, so that opening need not replay the log.

        Readers go on meanwhile; writers wait. A collection in memory has nothing to write.

        Raises
        ------
        OSError
            The checkpoint was not made; the one before it stays.
        ReadOnlyError, ClosedError, ForkedError, PoisonedError
        """
        self._check_writable()
        if self._storage is None:
            return
        with self._writing:
            self._check_writable()
            self._storage.checkpoint(self._engine, self._head)
            state = self._head
        self._publish(state)

    def _upsert(
        self,
        rows: Any,
        on: str | None,
        rules: Rules,
        duplicates: str,
        if_version: Mapping[Any, int] | None = None,
        returning: frozenset[str] = frozenset(),
    ) -> UpsertResult:
        self._check_writable()
        check_duplicates(duplicates)
        table = self._table(on)
        batch = ingest(self._schema, rows)
        with self._writing:
            self._check_writable()
            head = self._head
            try:
                resolution = resolve(
                    self._schema,
                    batch,
                    state=head,
                    tables=self._engine.tables,
                    indexes=self._engine.indexes,
                    rules=rules,
                    on=table.name,
                    duplicates=duplicates,
                    if_version=if_version,
                )
            except ConflictError:
                # What it conflicts with may not be on the disk yet.
                self._acknowledge(head)
                raise
            state, after = head, resolution.rids
            if len(resolution.inserts) or len(resolution.updates):
                effects = self._engine.upsert_effects(head, resolution, batch.rows)
                state = self._commit(head, effects)
                if len(resolution.inserts):
                    after = after.copy()
                    after[resolution.status <= Outcome.UPDATED] = effects.rids
        # Also where nothing was written: the answer may rest on a commit that is not yet synced.
        self._acknowledge(state)
        result = result_of(self._schema, batch, head, resolution, seq=state.seq)
        if "old" in returning:
            result.old = self._rows_of(head, resolution.rids)
        if "new" in returning:
            result.new = self._rows_of(state, after)
        return result

    def _rows_of(self, state: State, rids: RowIds) -> Rows:
        return read_rows(self._schema, state, self._engine.indexes, rids, self._schema.names)

    def _resolve_delete(
        self, head: State, rids: RowIds, where: Predicate | None
    ) -> tuple[npt.NDArray[np.uint8], dict[int, tuple[str, str]]]:
        status = np.full(len(rids), Outcome.DELETED, dtype=np.uint8)
        reasons: dict[int, tuple[str, str]] = {}
        left_out: list[tuple[RowIds, str, str]] = [
            (np.flatnonzero(rids < 0), "missing", "no row with this key is stored")
        ]
        first = np.unique(rids, return_index=True)[1]
        again = np.ones(len(rids), dtype=np.bool_)
        again[first] = False
        left_out.append((np.flatnonzero(again & (rids >= 0)), "duplicate", "the key came before"))
        if where is not None:
            at = np.flatnonzero(rids >= 0)
            fulfils = where.matches(StateSource(head, self._engine.indexes, rids[at]))
            left_out.append((at[~fulfils], "where", f"not {where.expression}"))
        for rows, word, sentence in left_out:
            status[rows] = Outcome.SKIPPED
            reasons.update(dict.fromkeys(rows.tolist(), (word, sentence)))
        return status, reasons

    def _commit(self, head: State, effects: Effects) -> State:
        """Log effects and apply them; the writer's lock is held. Not yet synced or published."""
        seq = head.seq + 1
        try:
            if self._storage is not None:
                seq = self._storage.write(effects)
            state = self._engine.apply(head, effects, seq)
        except BaseException as error:
            # Not by where it failed: an interrupt may come between writing and knowing of it.
            if self._storage is not None and self._storage.last_seq == head.seq:
                raise
            self._failure = error
            message = f"commit {seq} was logged and could not be applied: {error!r}"
            raise PoisonedError(message, unknown=seq, cause=error) from error
        self._head = state
        return state

    def _acknowledge(self, state: State) -> None:
        """Sync up to a state, and show it to readers."""
        if self._storage is not None:
            self._storage.sync(state.seq)
        self._publish(state)

    def _publish(self, state: State) -> None:
        # One sync covers several commits, and their threads wake in any order.
        with self._publishing:
            if state.seq > self._published.seq:
                self._published = state

    # --- Reading: see Reader -----------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Hold the present version, so that several reads see the same one.

        Returns
        -------
        Snapshot
            With the reading methods of the collection. Close it, or use it in ``with``; one
            that is dropped lets go too. Any number may be held. Closing the collection closes
            them.

        Raises
        ------
        ClosedError, ForkedError

        Examples
        --------
        >>> import upvec
        >>> schema = upvec.Schema(upvec.Field("id", "int64", primary=True))
        >>> col = upvec.open(":memory:", schema)
        >>> with col.snapshot() as snap:
        ...     _ = col.upsert([{"id": 1}])
        ...     len(snap), len(col)
        (0, 1)
        """
        return Snapshot(self, self._engine, self._reading(), self._reading)

    # --- The handle -------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The directory, or ``":memory:"``."""
        return _MEMORY if self._storage is None else self._storage.root

    @property
    def seq(self) -> int:
        """The newest commit that readers see."""
        return self._published.seq

    @property
    def read_only(self) -> bool:
        """Whether the handle was opened for reading."""
        return self._storage is not None and self._storage.read_only

    @property
    def closed(self) -> bool:
        """Whether the handle was closed."""
        return self._closed

    def stats(self) -> dict[str, Any]:
        """Return counts and sizes: rows, commits, bytes by part, and those of each vector index."""
        state = self._reading()
        engine = self._engine
        columns = {name: column.nbytes() for name, column in state.columns.items()}
        keys = {name: table.nbytes() for name, table in engine.tables.items()}
        described: dict[str, Any] = {
            "rows": state.count,
            "seq": state.seq,
            "free_rids": state.size - state.count,
            "column_bytes": columns,
            "key_bytes": keys,
            "indexes": {name: index.stats() for name, index in engine.indexes.items()},
        }
        if self._storage is not None:
            described |= self._storage.stats()
        return described

    def digest(self) -> str:
        """Return a hash of everything stored: rows, versions, free places and graphs.

        The same commits give the same digest, in a process that made them, in one that replayed
        them, and in one that began with a checkpoint.
        """
        self._reading()
        with self._writing:
            state = self._head
            content = hashlib.sha256(repr(self._schema.to_dict()).encode())
            rids = state.live_rids()
            content.update(rids.tobytes())
            content.update(state.versions.gather(rids)[0].tobytes())
            for name in self._schema.fields:
                values, null = state.columns[name].gather(rids)
                if null is not None:
                    content.update(null.tobytes())
                    values[null] = None if values.dtype.hasobject else np.zeros((), values.dtype)
                content.update(
                    repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
                )
            content.update(repr(list(self._engine.free)).encode())
            for name, index in self._engine.indexes.items():
                content.update(f"{name} {index.digest()}".encode())
            return content.hexdigest()

    def close(self) -> None:
        """Close the handle: sync the log, release the lock. Again: no effect.

        In a child process after ``fork`` it releases nothing that is the parent's.

        Raises
        ------
        PoisonedError
            The last sync failed; the handle is closed all the same.
        """
        if os.getpid() != self._pid:
            self._closed = True
            return
        with self._writing:
            if self._closed:
                return
            self._closed = True
            if self._finalizer is not None:
                self._finalizer()

    def __enter__(self) -> Collection:  # noqa: PYI034  (Self came with Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:
            return f"Collection({self.path!r}, closed)"
        return f"Collection({self.path!r}, {self._published.count} rows, seq={self.seq})"

    def _reading(self) -> State:
        """Return the state that readers see, if the handle may be used."""
        if self._closed:
            raise ClosedError(f"{self!r}: open it again")
        if os.getpid() != self._pid:
            message = f"opened by process {self._pid}, used in {os.getpid()}: open it again"
            raise ForkedError(message, pid=self._pid)
        return self._published

    def _check_writable(self) -> None:
        self._reading()
        if self.read_only:
            raise ReadOnlyError(f"{self.path} was opened with read_only=True", path=self.path)
        if self._failure is not None:
            message = f"an earlier commit failed ({self._failure!r}); open the collection again"
            raise PoisonedError(message, cause=self._failure)


def _refuse(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise NotSupportedError(f"upsert({name}=...) is not supported yet", argument=name)


def _sides(returning: str | Iterable[str] | None) -> frozenset[str]:
    sides = frozenset([returning] if isinstance(returning, str) else returning or ())
    if not sides <= {"old", "new"}:
        raise ValueError(f"returning={returning!r}; wanted 'old', 'new' or both")
    return sides


def _versions(state: State, rids: RowIds) -> RowIds:
    versions = np.zeros(len(rids), dtype=np.int64)
    stored = rids >= 0
    versions[stored] = state.versions.gather(rids[stored])[0]
    return versions
