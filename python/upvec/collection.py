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
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .alter import altered, changes_of
from .apply import Engine
from .assignment import Assignment
from .backfill import Backfill, backfilled, check_new_keys, check_widening
from .checkpointer import Checkpointer
from .condition_tree import condition_of
from .draft import Draft
from .errors import (
    ClosedError,
    ConflictError,
    ForkedError,
    NotSupportedError,
    PoisonedError,
    ReadOnlyError,
    SchemaError,
)
from .expression import Expression
from .fields import Field, Unique, Vector
from .files import Files
from .follower import Follower
from .history import Changes, changes_between, restoring_effects, restoring_result
from .ingest import Batch, ingest
from .match import AnyOf
from .operations import checked_op_id, operation
from .plan import Plan
from .policy import Policy
from .read import read_rows
from .reader import Reader, Where
from .resolve import Call, call_of, is_skipped, resolve, resolve_delete, result_of
from .result import Outcome, Rows, UpsertResult
from .schema import Schema
from .snapshot import Snapshot
from .storage import Storage, check_storable, open_for_reading
from .sync import ALL, Sync, checked_share
from .transaction import Transaction
from .ttl import is_expired, now_us
from .verify import Problem, VerifyReport, wrong_with

if TYPE_CHECKING:
    from types import TracebackType

    from .backup import Backup
    from .base import Base
    from .checkpoint import Contents
    from .codec import Effects
    from .log import Durability
    from .state import State

__all__ = ["Collection", "open"]

_logger = logging.getLogger(__name__)

AnyArray: TypeAlias = npt.NDArray[Any]
RowIds: TypeAlias = npt.NDArray[np.int64]

# What is written, once it is known over what.
Made: TypeAlias = "Callable[[State], Batch]"

_MEMORY = ":memory:"
_DURABILITIES = ("commit", "interval", "os")


def open(  # noqa: A001  (upvec.open, as the file system's)
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    read_only: bool = False,
    durability: Durability = "commit",
    auto_checkpoint: bool = True,
    refresh_s: float | None = None,
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
        Read the last state in the directory, beside a writer if there is one.
        :meth:`Collection.refresh` goes on to what that writer has committed since.
    durability : str
        When a write returns, it survives: ``"commit"``, loss of power; ``"interval"``, the end
        of the process, and loss of power but for the last moments; ``"os"``, the end of the
        process.
    auto_checkpoint : bool
        Write a checkpoint in the background when the log since the last one has grown to its
        size, and to 64 MiB at least; and at the end of :meth:`Collection.close`, when it has
        grown to a sixteenth of that size, and to 1 MiB. Otherwise only
        :meth:`Collection.checkpoint` does.
    refresh_s : float
        With ``read_only``: :meth:`Collection.refresh` every so many seconds, in the background.

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
    if refresh_s is not None and not (read_only and refresh_s > 0):
        raise ValueError(
            f"refresh_s={refresh_s!r} with read_only={read_only}; wanted a positive"
            " number of seconds, with read_only=True"
        )
    root = os.fsdecode(path)
    if schema is not None and not isinstance(schema, Schema):
        raise SchemaError(f"schema: got {type(schema).__name__}, wanted a Schema")
    if root == _MEMORY:
        if schema is None:
            raise SchemaError("a collection in memory needs a schema")
        if read_only:
            raise ValueError("a collection in memory cannot be read_only: it would stay empty")
        engine = Engine(schema, seed=int.from_bytes(os.urandom(8), "little") >> 1)
        return Collection(engine, engine.start(), None)
    # The process may change its directory, and "c/" has to have the parent of "c".
    root = os.path.abspath(root)
    return open_directory(
        root,
        schema,
        Files(),
        read_only=read_only,
        durability=durability,
        auto_checkpoint=auto_checkpoint,
        refresh_s=refresh_s,
    )


def open_directory(
    root: str,
    schema: Schema | None,
    files: Files,
    *,
    read_only: bool = False,
    durability: Durability = "commit",
    auto_checkpoint: bool = True,
    refresh_s: float | None = None,
) -> Collection:
    """Open a collection through a given file system layer; see :func:`open`."""
    if read_only:
        storage, engine, state = open_for_reading(root, files, schema, durability)
        _logger.info("opened %s for reading: %d rows, commit %d", root, state.count, state.seq)
        return Collection(engine, state, storage, refresh_s=refresh_s)
    storage = Storage.for_writing(root, files, schema)
    try:
        engine, state = storage.recover(schema, durability)
    except BaseException:
        storage.close()
        raise
    for problem in storage.warnings:
        message = f"opened from an older checkpoint and the log; checkpoint() again: {problem}"
        _logger.warning("%s: %s", root, message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    _logger.info("opened %s: %d rows, commit %d", root, state.count, state.seq)
    return Collection(engine, state, storage, auto_checkpoint=auto_checkpoint)


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
        self,
        engine: Engine,
        state: State,
        storage: Storage | None,
        *,
        auto_checkpoint: bool = False,
        refresh_s: float | None = None,
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._head = state
        self._published = state
        self._writing = threading.Lock()
        self._publishing = threading.Lock()
        self._failure: BaseException | None = None
        self._closed = False
        self._pid = os.getpid()
        self._checkpointer: Checkpointer | None = None
        self._follower: Follower | None = None
        if storage is not None:
            self._checkpointer = Checkpointer(storage, self._hold, automatic=auto_checkpoint)
            if refresh_s is not None:
                self._follower = Follower(self.refresh, refresh_s)
            # So that the lock of a handle that was never closed goes with it.
            self._finalizer = weakref.finalize(
                self, _release, self._pid, storage, self._checkpointer, self._follower
            )

    # --- Writing ----------------------------------------------------------------------------

    def upsert(
        self,
        rows: Any,
        *,
        on: str | AnyOf | None = None,
        policy: str | Policy = "merge",
        where: Expression | str | None = None,
        if_version: Mapping[Any, int] | None = None,
        op_id: tuple[str, int] | None = None,
        duplicates: str = "error",
        on_invalid: str = "abort",
        dry_run: bool = False,
        returning: str | Iterable[str] | None = None,
        progress: bool = False,
        batch_rows: int | None = None,
    ) -> Any:
        """Store rows: update those whose key is stored, insert the others; all in one commit.

        Parameters
        ----------
        rows : list or iterator of dicts, dataclasses or models; dict, structured array, DataFrame
            A field that a row does not mention is *absent*, which is not the same as null.
            Vectors are (n, dim). Everything is copied.
        on : str or any_of(...)
            The key to match on: the primary key (default), the name of a Unique, or
            :func:`any_of` several. A null in a Unique matches nothing.
        policy : str or Policy
            ``"merge"``: fields present are written, absent ones kept. ``"replace"``: absent ones
            get their default, or null. ``"keep"``: stored rows are left alone. ``"fill"``: only
            what is null is written. New rows are stored whole under each of them.
        where : Expression or str
            Of stored rows, those that do not fulfil it are ``skipped``; ``new.f`` is the
            incoming row's field (null where it does not mention it), and ``old.f`` or ``f``
            the stored one: ``"new.logins > old.logins"``.
        duplicates : str
            Of rows that mean the same row: ``"error"``; take the ``"first"`` or ``"last"``; or
            ``"fold"``: apply one after another, by ``order_by`` and then in input order, each
            with an outcome of its own.
        if_version : mapping of key to int
            The version that a stored row must have; 0: there must be none. Else the row is a
            conflict. Keys are those of ``on``; each must be in the batch.
        op_id : (str, int)
            A name for this call: who writes, and a number that it uses once. A call that is
            repeated under the same name, as its answer was lost, gets the answer of the first
            time and changes nothing; the rows are not looked at (so ``returning`` gives nothing).
            Of every writer the newest 1,024 numbers are remembered, also when the collection is
            opened again.
        returning : "old", "new" or both
            Rows of the result to give: as stored before, and after.
        dry_run : bool
            Resolve the rows, write nothing, and return a :class:`Plan`, which can be looked at
            and committed.
        on_invalid : str
            ``"abort"``: a bad row raises. ``"skip"``: bad rows are ``rejected`` as ``"invalid"``,
            each with its reason, and the others stored.
        progress, batch_rows
            Not supported yet.

        Returns
        -------
        UpsertResult or Plan
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
        named = checked_op_id(op_id)
        _refuse(progress=progress or None, batch_rows=batch_rows)
        self._check_writable()
        sides, skip = _sides(returning), is_skipped(on_invalid)

        def call_under(schema: Schema) -> Call:
            return call_of(schema, on, policy, duplicates, where, if_version)

        if dry_run:
            draft = self._begin_draft()
            batch = ingest(draft.schema, rows, skip=skip)
            return Plan(self, draft, batch, call_under(draft.schema))
        return self._upsert(rows, call_under, skip=skip, returning=sides, op_id=named)

    def insert(self, rows: Any, *, duplicates: str = "error") -> UpsertResult:
        """Store new rows; a row whose primary key is stored is a conflict.

        Raises
        ------
        ConflictError
            With the rows that exist; nothing was written. Else as :meth:`upsert`.
        """
        self._check_writable()
        policy = Policy("insert_only")
        return self._upsert(
            rows, lambda schema: call_of(schema, None, policy, duplicates, strict=True)
        )

    def update(
        self,
        rows: Any,
        *,
        on: str | AnyOf | None = None,
        where: Expression | str | None = None,
        duplicates: str = "error",
    ) -> UpsertResult:
        """Change stored rows; a row whose key is not stored is a conflict.

        Parameters are those of :meth:`upsert`. :meth:`update_where` changes the rows that fulfil a
        condition, without naming them.

        Raises
        ------
        ConflictError
            With the rows that are missing; nothing was written. Else as :meth:`upsert`.
        """
        self._check_writable()
        policy = Policy("update_only")
        return self._upsert(
            rows, lambda schema: call_of(schema, on, policy, duplicates, where, strict=True)
        )

    def update_where(
        self,
        where: Expression | str,
        values: Mapping[str, Any],
        *,
        returning: str | Iterable[str] | None = None,
    ) -> UpsertResult:
        """Give the same values to all rows that fulfil a condition, in one commit.

        Parameters
        ----------
        where : Expression or str
            A condition on the stored rows; ``upvec.ALL`` for all of them.
        values : mapping of str to value
            By field, not the primary key. Each is written by its field's merge rule: a field
            with ``merge=sum_()`` is increased.
        returning : str or sequence of str
            ``"old"``, ``"new"`` or both: the rows before and after, in ``.old`` and ``.new``.

        Returns
        -------
        UpsertResult
            A row for each that fulfils the condition: ``updated`` or ``unchanged``.

        Raises
        ------
        ExpressionError
            A condition that does not fit the schema.
        ValueError
            No values, or one for the primary key. Else as :meth:`upsert`.

        Examples
        --------
        >>> import upvec
        >>> schema = upvec.Schema(
        ...     upvec.Field("id", "int64", primary=True), upvec.Field("spent", "float64"),
        ...     upvec.Field("tier", "string", default="plain"),
        ... )
        >>> col = upvec.open(":memory:", schema)
        >>> _ = col.upsert([{"id": 1, "spent": 20}, {"id": 2, "spent": 300}])
        >>> col.update_where("spent >= 100", {"tier": "gold"})
        UpsertResult(updated=1, seq=2)
        >>> col.get([1, 2])["tier"].tolist()
        ['plain', 'gold']
        """
        self._check_writable()
        sides = _sides(returning)

        while True:
            schema = self._head.schema
            asked = Assignment.checked(schema, where, values)
            call = call_of(schema, None, Policy("update_only"), "error", strict=True)

            def made(head: State, asked: Assignment = asked) -> Batch:
                return asked.batch(head, self._select(head, asked.condition))

            result = self._upsert_batch(made, call, sides, None)
            if result is not None:
                return result

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
        keys = _listed(keys)
        state = self._head
        while True:
            result = self._delete(state, keys, where)
            if result is not None:
                return result
            state = self._head

    def _delete(self, seen: State, keys: Any, where: Where) -> UpsertResult | None:
        """Delete rows; None if the schema is not that of ``seen`` any more."""
        condition = self._condition(seen, where)
        table = self._table(seen, None)
        columns = None if keys is None else self._key_columns(seen, table, keys)[0]
        with self._writing:
            self._check_writable()
            head = self._head
            if head.schema is not seen.schema:
                return None
            if columns is None:
                rids = self._select(head, condition).rids()
            else:
                rids = np.empty(0, dtype=np.int64)
                if len(columns[0]):
                    rids = self._base().find(table, columns)
            status, reasons = resolve_delete(head, rids, condition)
            gone = rids[status == Outcome.DELETED]
            key = head.columns[table.name].gather(rids)[0] if columns is None else columns[0]
            version = _versions(head, rids)
            state = head
            if len(gone):
                state = self._commit(head, self._engine.delete_effects(gone))
        self._acknowledge(state)
        return UpsertResult(status, key=key, version=version, reason=reasons, seq=state.seq)

    def sync(
        self,
        rows: Any,
        *,
        scope: Expression | str | object,
        max_delete: float = 0.2,
        on: str | AnyOf | None = None,
        policy: str | Policy = "merge",
        duplicates: str = "error",
    ) -> UpsertResult:
        """Make the rows of a scope those of a source: upsert them, and delete the others.

        All in one commit, so nobody sees a part of it.

        Parameters
        ----------
        rows : list of dict, dict, structured array or DataFrame
            The whole source, as for :meth:`upsert`. An empty one is refused.
        scope : Expression, str or upvec.ALL
            The stored rows that the source speaks of, such as ``"tenant = 'crm'"``: those of them
            that nothing in the source matches are deleted.
        max_delete : float
            The largest share of the rows in the scope that may be deleted; more is refused, as
            the sign of a broken source.
        on, policy, duplicates
            As for :meth:`upsert`.

        Returns
        -------
        UpsertResult
            One outcome per row of the source; ``.deleted`` has the primary keys of the others.

        Raises
        ------
        ValueError
            The source is empty, or too much would be deleted. Else as :meth:`upsert`.
        """
        self._check_writable()
        if scope is None:
            raise ValueError("sync: got scope=None; wanted a condition, or upvec.ALL")
        share = checked_share(max_delete)

        def call_under(schema: Schema) -> Call:
            within = None if scope is ALL else condition_of(schema, scope)  # type: ignore[arg-type]
            return call_of(schema, on, policy, duplicates, sync=Sync(within, share))

        return self._upsert(rows, call_under)

    def transaction(self) -> Transaction:
        """Begin several writes that become one commit, in ``with``.

        Returns
        -------
        Transaction
            With the reading methods of the collection, which see its own writes, and ``upsert``,
            ``insert``, ``update``, ``delete``, ``savepoint`` and ``rollback``. Leaving the block
            commits; leaving it by an exception changes nothing. Other writers go on meanwhile;
            if one of them changes a row that this one has matched, or stores a key that this
            one has found absent, committing raises :class:`ConflictError`.

        Examples
        --------
        >>> import upvec
        >>> schema = upvec.Schema(
        ...     upvec.Field("id", "int64", primary=True), upvec.Field("n", "int64", default=0)
        ... )
        >>> col = upvec.open(":memory:", schema)
        >>> with col.transaction() as tx:
        ...     _ = tx.upsert([{"id": 1}, {"id": 2}])
        ...     _ = tx.delete([1])
        ...     len(tx), len(col)
        (1, 0)
        >>> len(col), col.seq
        (1, 1)
        """
        self._check_writable()
        return Transaction(self)

    def _begin_draft(self) -> Draft:
        """Return a draft that goes on from what readers see."""
        self._check_writable()
        return Draft(self._engine, self._reading())

    def _commit_draft(self, draft: Draft, final: State) -> State:
        """Make one commit of a draft, if what it relied on still holds."""
        with self._writing:
            self._check_writable()
            head = self._head
            try:
                state = self._commit_checked(draft, head, final)
            except ConflictError:
                self._acknowledge(head)
                raise
        self._acknowledge(state)
        return state

    def _commit_checked(self, draft: Draft, head: State, final: State) -> State:
        draft.claims()
        changed = draft.check(head)
        if changed:
            name = head.schema.primary.name
            rids = np.array(sorted(changed), dtype=np.int64)
            keys = draft.base.columns[name].gather(rids)[0].tolist()
            shown = ", ".join(map(repr, keys[:5]))
            message = f"{len(keys)} rows were changed by others meanwhile, such as {shown}"
            raise ConflictError(f"{message}; nothing was written")
        effects = draft.effects(head, final)
        return head if effects is None else self._commit(head, effects)

    def reap(self) -> int:
        """Delete the rows that are expired, in one commit; return how many.

        No read shows them either way: this frees what they hold.

        Raises
        ------
        ReadOnlyError, ClosedError, ForkedError, PoisonedError
        """
        self._check_writable()
        with self._writing:
            self._check_writable()
            state = self._head
            rids = state.live_rids()
            gone = rids[is_expired(state, rids, now_us())]
            if len(gone):
                state = self._commit(state, self._engine.delete_effects(gone))
        self._acknowledge(state)
        return len(gone)

    def alter(
        self,
        *,
        add: Field | Vector | Iterable[Field | Vector] = (),
        drop: str | Iterable[str] = (),
        rename: Mapping[str, str] | None = None,
        widen: Mapping[str, str] | None = None,
        add_unique: Unique | Iterable[Unique] = (),
        drop_unique: str | Iterable[str] = (),
        backfill: Mapping[str, Backfill] | None = None,
    ) -> Schema:
        """Change the schema, and with it the stored rows, in one commit.

        The log keeps the schema with the commit that made it, so that older commits are replayed
        under the schema that they were written with. Versions of rows stay. Snapshots go on with
        the schema that they began with; a transaction or a plan that began before, and relies on
        something, is refused when it commits. Rows that have expired go by the same commit.

        Parameters
        ----------
        add : Field, Vector or sequence of them
            They come behind the others. Stored rows get what ``backfill`` says, else what they
            store under this name as unknown to the schema (``extra="store"``), else the default,
            else null; a field that allows none of these is refused unless there are no rows.
        drop : str or sequence of str
            Names of fields and vectors. Of what a Unique is made goes with ``drop_unique`` only.
        rename : mapping of str to str
            New names by old ones. Uniques, clocks, checks and sources follow.
        widen : mapping of str to str
            New types by name: int64 to float64, bool to int64 or float64, list<int64> to
            list<float64>, string to json; or ``"nullable"``.
        add_unique : Unique or sequence of Unique
            In the new names.
        drop_unique : str or sequence of str
            Names of Uniques, whose fields stay.
        backfill : mapping of str to str, Expression, callable or value
            Values of added fields for the rows that are stored: an expression in the names of
            before, such as ``"price * 1.25"`` or ``"first + ' ' + last"``; a value that
            is no text, for all rows; or a function that gets up to 65,536 rows (:class:`Rows`) at a
            time and returns a column of as many values, or (m, dim) for a vector; as in the rows
            that it gets, a NaN is a null where the field may be null. Writers wait meanwhile,
            so it must not write to the collection.

        Returns
        -------
        Schema
            The new one.

        Raises
        ------
        SchemaError
            The changes contradict the schema.
        ViolationError
            Stored rows are in the way: equal values of a new Unique, or values that the wider type
            does not hold. It is a SchemaError and a ConflictError.
        InvalidRowError, DimensionError, ExpressionError
            A value of ``backfill`` that does not fit. All of them have changed nothing.
        ReadOnlyError, ClosedError, ForkedError, PoisonedError

        Examples
        --------
        >>> import upvec
        >>> schema = upvec.Schema(
        ...     upvec.Field("id", "int64", primary=True), upvec.Field("price", "int64")
        ... )
        >>> col = upvec.open(":memory:", schema)
        >>> _ = col.upsert([{"id": 1, "price": 8}])
        >>> _ = col.alter(
        ...     add=[upvec.Field("gross", "float64")],
        ...     rename={"price": "net"},
        ...     backfill={"gross": "price * 1.25"},
        ... )
        >>> col[1]
        {'id': 1, 'net': 8, 'gross': 10.0}
        """
        self._check_writable()
        changes = changes_of(
            add=add,
            drop=drop,
            rename=rename,
            widen=widen,
            add_unique=add_unique,
            drop_unique=drop_unique,
        )
        with self._writing:
            self._check_writable()
            head = self._head
            schema = altered(head.schema, changes)
            check_storable(schema)
            rids = head.live_rids()
            # No read shows them, so neither may they stand in the way.
            expired = is_expired(head, rids, now_us())
            gone, rids = rids[expired], rids[~expired]
            check_widening(head, rids, changes.widen, self._engine.remembered)
            filled = backfilled(
                head, schema, rids, changes.add, {} if backfill is None else backfill
            )
            check_new_keys(head, schema, rids, (one.name for one in changes.add_unique), filled)
            effects = self._engine.alter_effects(schema, filled, gone)
            state = self._commit(head, effects, schema=schema)
        self._acknowledge(state)
        return schema

    def checkpoint(self) -> None:
        """Write the present state to the directory, so that opening need not replay the log.

        Readers go on meanwhile, and so do writers, but for a moment at its beginning. A collection
        in memory has nothing to write.

        Raises
        ------
        OSError
            The checkpoint was not made; the one before it stays.
        ReadOnlyError, ClosedError, ForkedError, PoisonedError
        """
        self._check_writable()
        if self._checkpointer is not None:
            self._publish(self._checkpointer.run())

    def changes(self, *, since: int) -> Iterator[Changes]:
        """Return what was changed after a commit, commit by commit, up to what readers see now.

        Parameters
        ----------
        since : int
            A commit, such as the ``seq`` of a result; 0: the beginning.

        Returns
        -------
        iterator of Changes
            With the rows before and after. While it lives, a writer keeps on the disk what it
            needs.

        Raises
        ------
        HistoryError
            What is kept begins later: with the checkpoint before the last one.
        ValueError
            There is no such commit yet, or the collection is in memory.
        CorruptionError, ClosedError, ForkedError

        Notes
        -----
        It begins with a checkpoint and replays the log, without building graphs: so it takes the
        memory of the rows once more, and the time to read them.
        """
        until = self._reading().seq
        _check_seq("since", since, until)
        steps = self._stored().history(since, until)
        return (changes_between(*step) for step in steps)

    def restore(self, *, seq: int) -> UpsertResult:
        """Make the rows what they were after a commit, by a new commit.

        So nothing is lost by it, and followers see it as any other. Rows that have not changed
        since keep their versions.

        Parameters
        ----------
        seq : int
            A commit under the present schema.

        Returns
        -------
        UpsertResult
            One outcome per row that changed: deleted, inserted or updated.

        Raises
        ------
        HistoryError
            What is kept begins later: with the checkpoint before the last one.
        SchemaError
            The schema was another one.
        ValueError
            There is no such commit yet, or the collection is in memory.
        ReadOnlyError, CorruptionError, ClosedError, ForkedError, PoisonedError
        """
        self._check_writable()
        _check_seq("seq", seq, self._published.seq)
        wanted = self._stored().state_at(seq)
        with self._writing:
            self._check_writable()
            head = self._head
            effects = restoring_effects(head, wanted)
            state = head
            if len(effects.deleted) or len(effects.rids):
                state = self._commit(head, effects)
        self._acknowledge(state)
        return restoring_result(head, state, effects)

    def backup(self, dest: str | os.PathLike[str]) -> Backup:
        """Copy the collection, as readers see it now, to another directory; writers go on.

        The copy is a collection like any other, complete when this returns. If it is interrupted,
        call it again with the same directory: what was copied is kept. Also a complete backup
        is brought up to date by copying what is new, unless somebody has written to it.

        Parameters
        ----------
        dest : str or path
            A directory, made if it is absent (its parent must exist): empty, or an earlier backup
            of this collection.

        Returns
        -------
        Backup

        Raises
        ------
        CorruptionError
            The directory is something else, or what is to be copied is damaged.
        LockedError
            The directory is in use.
        HistoryError
            This handle reads, and is behind what its writer keeps: refresh it.
        ValueError
            It lies inside the collection, or the collection is in memory.
        OSError, ClosedError, ForkedError
        """
        seq = self._reading().seq
        storage, target = self._stored(), os.path.abspath(os.fsdecode(dest))
        here = os.path.realpath(storage.root)
        if os.path.commonpath([os.path.realpath(target), here]) == here:
            raise ValueError(f"backup({target!r}): wanted a directory outside of {storage.root!r}")
        return storage.back_up(target, seq)

    def verify(self) -> VerifyReport:
        """Compare every byte of the files with its checksum, and the graphs with their invariants.

        Writers wait while the graphs are looked at.

        Returns
        -------
        VerifyReport
            See :func:`upvec.verify`, which looks at a directory that cannot be opened, too.

        Raises
        ------
        ClosedError, ForkedError
        """
        seq = self._reading().seq
        report = VerifyReport() if self._storage is None else self._storage.verify(seq)
        with self._writing:
            for name, index in self._head.indexes.items():
                for what in wrong_with(index):
                    report.problems.append(Problem(self.path, None, what, f"searches of {name}"))
        return report

    def _write(self, effects: Effects) -> None:
        """Make one commit of effects that fit the newest state."""
        with self._writing:
            self._check_writable()
            state = self._commit(self._head, effects)
        self._acknowledge(state)

    def _hold(self) -> tuple[State, Contents]:
        """Hold the newest state for a checkpoint."""
        with self._writing:
            self._check_writable()
            return self._head, self._stored().contents(self._engine, self._head)

    def _upsert(
        self,
        rows: Any,
        call_under: Callable[[Schema], Call],
        *,
        skip: bool = False,
        returning: frozenset[str] = frozenset(),
        op_id: tuple[str, int] | None = None,
    ) -> UpsertResult:
        while True:
            schema = self._head.schema
            call = call_under(schema)
            if isinstance(rows, Iterator):  # perhaps to be read twice
                rows = list(rows)
            batch = ingest(schema, rows, skip=skip)
            if call.sync is not None and not batch.rows:
                message = "sync: the source has no rows; delete(where=...) would delete them"
                raise ValueError(message)

            def made(_: State, batch: Batch = batch) -> Batch:
                return batch

            result = self._upsert_batch(made, call, returning, op_id)
            if result is not None:
                return result

    def _upsert_batch(
        self,
        made: Made,
        call: Call,
        returning: frozenset[str],
        op_id: tuple[str, int] | None,
    ) -> UpsertResult | None:
        """Make one commit of a batch; None if the schema is another one by now."""
        with self._writing:
            self._check_writable()
            head = self._head
            if head.schema is not call.schema:
                return None
            if op_id is not None:
                again = self._engine.operations.result(head.schema, op_id)
                if again is not None:
                    self._acknowledge(head)
                    return again
            base, batch = self._base(), made(head)
            try:
                resolution = resolve(base, batch, call)
            except ConflictError:
                # What it conflicts with may not be on the disk yet.
                self._acknowledge(head)
                raise
            writes = resolution.writes_anything or (call.sync is not None and base.leaving)
            seq = head.seq + 1 if writes else head.seq
            result = result_of(base, batch, resolution, seq=seq)
            state, after = head, resolution.rids
            if writes or op_id is not None:
                op = None if op_id is None else operation(head.schema, op_id, result)
                effects = self._engine.upsert_effects(head, resolution, batch.rows, op)
                state = self._commit(head, effects)
                after = resolution.rids_after(effects.rids)
        # Also where nothing was written: the answer may rest on a commit that is not yet synced.
        self._acknowledge(state)
        if call.sync is not None:
            name = head.schema.primary.name
            result.deleted = head.columns[name].gather(resolution.leaving)[0]
        if "old" in returning:
            result.old = self._rows_of(head, resolution.rids)
        if "new" in returning:
            result.new = self._rows_of(state, after)
        return result

    def _base(self) -> Base:
        """Return what a write is resolved against; the writer's lock is held."""
        return self._engine.based_on(self._head)

    def _rows_of(self, state: State, rids: RowIds) -> Rows:
        return read_rows(state, rids, state.schema.names)

    def _commit(self, head: State, effects: Effects, schema: Schema | None = None) -> State:
        """Log effects and apply them; the writer's lock is held. Not yet synced or published."""
        seq = head.seq + 1
        try:
            if self._storage is not None:
                seq = self._storage.write(effects)
            state = self._engine.apply(head, effects, seq, schema=schema)
        except BaseException as error:
            # Not by where it failed: an interrupt may come between writing and knowing of it.
            if self._storage is not None and self._storage.last_seq == head.seq:
                raise
            self._failure = error
            message = "commit %d of %s was logged and not applied: %r"
            _logger.critical(message, seq, self.path, error)
            message = f"commit {seq} was logged and could not be applied: {error!r}"
            raise PoisonedError(message, unknown=seq, cause=error) from error
        self._head = state
        return state

    def _acknowledge(self, state: State) -> None:
        """Sync up to a state, and show it to readers."""
        if self._storage is not None:
            self._storage.sync(state.seq)
        self._publish(state)
        if self._checkpointer is not None:
            self._checkpointer.begin_if_due()

    def _stored(self) -> Storage:
        if self._storage is None:
            raise ValueError("a collection in memory keeps no files, and so no history")
        return self._storage

    def _publish(self, state: State) -> None:
        # One sync covers several commits, and their threads wake in any order.
        with self._publishing:
            if state.seq > self._published.seq:
                self._published = state

    # --- Reading: see Reader -----------------------------------------------------------------

    def refresh(self) -> int:
        """Go on to what a writer has committed since this was opened for reading, or refreshed.

        Readers see whole commits only, and may go on meanwhile. A handle that writes is never
        behind.

        Returns
        -------
        int
            The commit that readers see now.

        Raises
        ------
        CorruptionError
            What is in the directory cannot be read; readers go on with what they have seen.
        ClosedError, ForkedError
        """
        self._reading()
        if self._storage is None or not self.read_only:
            return self._published.seq
        with self._writing:
            self._reading()
            for engine, state in self._storage.follow(self._engine, self._head):
                self._engine, self._head = engine, state
                self._publish(state)
            return self._published.seq

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
        return Snapshot(self, self._reading(), self._reading)

    # --- The handle -------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        """The schema of the rows that readers see."""
        return self._published.schema

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
        """Return counts and sizes: rows, commits, bytes by part, and those of each vector index.

        ``index_bytes`` are those of fields with ``index=True``, ``condition_bytes`` what is
        remembered of conditions, at most 64 MiB.
        ``remembered_deletes`` are keys whose order value is kept, so that an older row does not
        bring them back (``order_by``): as many as were deleted and did not come again.
        """
        state = self._reading()
        columns = {name: column.nbytes() for name, column in state.columns.items()}
        keys = {name: table.nbytes() for name, table in state.tables.items()}
        described: dict[str, Any] = {
            "rows": state.count,
            "seq": state.seq,
            "free_rids": state.size - state.count,
            "remembered_deletes": len(self._engine.remembered),
            "column_bytes": columns,
            "key_bytes": keys,
            "index_bytes": state.selector.indexes.nbytes(),
            "condition_bytes": state.selector.nbytes(),
            "indexes": {name: index.stats() for name, index in state.indexes.items()},
        }
        if self._storage is not None:
            described |= self._storage.stats()
        for name, worker in (("checkpoint", self._checkpointer), ("refresh", self._follower)):
            if worker is not None:
                described[f"{name}_failure"] = (
                    None if worker.failure is None else repr(worker.failure)
                )
        return described

    def digest(self) -> str:
        """Return a hash of everything stored: rows, versions, free places and graphs.

        The same commits give the same digest, in a process that made them, in one that replayed
        them, and in one that began with a checkpoint.
        """
        self._reading()
        with self._writing:
            state = self._head
            content = hashlib.sha256(repr(state.schema.to_dict()).encode())
            rids = state.live_rids()
            content.update(rids.tobytes())
            content.update(state.versions.gather(rids)[0].tobytes())
            for name in state.schema.fields:
                values, null = state.columns[name].gather(rids)
                if null is not None:
                    content.update(null.tobytes())
                    values[null] = None if values.dtype.hasobject else np.zeros((), values.dtype)
                content.update(
                    repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
                )
            content.update(repr(list(self._engine.free)).encode())
            for name, index in state.indexes.items():
                content.update(f"{name} {index.digest()}".encode())
            return content.hexdigest()

    def close(self) -> None:
        """Close the handle: sync the log, release the lock. Again: no effect.

        Where replaying the log would take the next opening much longer than a checkpoint takes to
        write, one is written first, unless ``auto_checkpoint`` is False; a failure of that is a
        RuntimeWarning. In a child process after ``fork`` it releases nothing that is the parent's.

        Raises
        ------
        PoisonedError
            The last sync failed; the handle is closed all the same.
        """
        if os.getpid() != self._pid:
            self._closed = True
            return
        try:
            if self._checkpointer is not None and not self._closed:
                self._checkpointer.finish()
        finally:
            self._close()

    def _close(self) -> None:
        with self._writing:
            if self._closed:
                return
            self._closed = True
        # Without the lock: a checkpoint that is about to begin waits for it.
        if self._storage is not None:
            self._finalizer()
            _logger.info("closed %s at commit %d", self.path, self._head.seq)

    def __enter__(self) -> Collection:  # noqa: PYI034  (Self came with Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and not issubclass(kind, Exception) and os.getpid() == self._pid:
            self._close()  # interrupted: somebody wants to get away
            return
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


def _release(
    pid: int, storage: Storage, checkpointer: Checkpointer, follower: Follower | None
) -> None:
    if os.getpid() != pid:  # a forked child has neither of the threads, and perhaps their locks
        storage.close()
        return
    if follower is not None:
        follower.stop()
    checkpointer.stop(storage.close)


def _refuse(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise NotSupportedError(f"upsert({name}=...) is not supported yet", argument=name)


def _check_seq(name: str, seq: int, newest: int) -> None:
    if type(seq) is not int or not 0 <= seq <= newest:
        raise ValueError(f"{name}={seq!r}; wanted a commit from 0 to {newest}")


def _sides(returning: str | Iterable[str] | None) -> frozenset[str]:
    sides = frozenset([returning] if isinstance(returning, str) else returning or ())
    if not sides <= {"old", "new"}:
        raise ValueError(f"returning={returning!r}; wanted 'old', 'new' or both")
    return sides


def _listed(keys: Any) -> Any:
    """Return keys that can be looked at again."""
    return list(keys) if isinstance(keys, Iterator) else keys


def _versions(state: State, rids: RowIds) -> RowIds:
    versions = np.zeros(len(rids), dtype=np.int64)
    stored = rids >= 0
    versions[stored] = state.versions.gather(rids[stored])[0]
    return versions
