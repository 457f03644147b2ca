"""Several writes that become one commit: :class:`Transaction`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .assignment import Assignment
from .errors import ClosedError
from .ingest import Batch, ingest
from .policy import Policy
from .read import read_rows
from .reader import Reader, Where
from .resolve import Call, call_of, is_skipped, resolve, resolve_delete, result_of
from .result import Outcome, UpsertResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from .collection import Collection
    from .expression import Expression
    from .match import AnyOf
    from .schema import Schema
    from .state import State

__all__ = ["Savepoint", "Transaction"]


class Transaction(Reader):
    """Writes that are committed together. :meth:`Collection.transaction` gives one.

    ``search``, ``get``, ``scan``, ``count``, ``len(tx)``, ``key in tx`` and ``tx[key]`` show the
    collection as it was when the transaction began, with its own writes. Nobody else sees these
    until they are committed, as one commit and one record of the log. One thread at a time may
    use it.

    Results of its writes have the version and ``seq`` that they would get if nobody else
    committed; committing corrects them.

    Examples
    --------
    >>> import upvec
    >>> schema = upvec.Schema(upvec.Field("id", "int64", primary=True))
    >>> col = upvec.open(":memory:", schema)
    >>> with col.transaction() as tx:
    ...     _ = tx.upsert([{"id": 1}])
    ...     with tx.savepoint() as point:
    ...         _ = tx.upsert([{"id": 2}])
    ...         point.rollback()
    ...     tx.count()
    1
    >>> len(col)
    1
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._draft = collection._begin_draft()  # noqa: SLF001
        self._schema = self._draft.schema
        self._state = self._draft.begin()
        self._start = Savepoint(self)
        self._results: list[tuple[UpsertResult, Any]] = []
        self._open = True

    @property
    def schema(self) -> Schema:
        """The schema of the rows, as it was when the transaction began."""
        return self._schema

    # --- Writing ------------------------------------------------------------------------------

    def upsert(
        self,
        rows: Any,
        *,
        on: str | AnyOf | None = None,
        policy: str | Policy = "merge",
        where: Expression | str | None = None,
        if_version: Mapping[Any, int] | None = None,
        duplicates: str = "error",
        on_invalid: str = "abort",
        returning: str | Iterable[str] | None = None,
    ) -> UpsertResult:
        """Store rows, as :meth:`Collection.upsert`; what it raises has changed nothing."""
        self._reading()
        sides = frozenset([returning] if isinstance(returning, str) else returning or ())
        call = call_of(self._schema, on, policy, duplicates, where, if_version)
        batch = ingest(self._schema, rows, skip=is_skipped(on_invalid))
        return self._upsert(batch, call, sides)

    def insert(self, rows: Any, *, duplicates: str = "error") -> UpsertResult:
        """Store new rows, as :meth:`Collection.insert`."""
        self._reading()
        call = call_of(self._schema, None, Policy("insert_only"), duplicates, strict=True)
        return self._upsert(rows, call)

    def update(
        self,
        rows: Any,
        *,
        on: str | AnyOf | None = None,
        where: Expression | str | None = None,
        duplicates: str = "error",
    ) -> UpsertResult:
        """Change stored rows, as :meth:`Collection.update`."""
        self._reading()
        policy = Policy("update_only")
        call = call_of(self._schema, on, policy, duplicates, where, strict=True)
        return self._upsert(rows, call)

    def update_where(self, where: Expression | str, values: Mapping[str, Any]) -> UpsertResult:
        """Change rows by a condition, as :meth:`Collection.update_where`."""
        head = self._reading()
        asked = Assignment.checked(self._schema, where, values)
        call = call_of(self._schema, None, Policy("update_only"), "error", strict=True)
        return self._upsert(asked.batch(head, self._select(head, asked.condition)), call)

    def delete(self, keys: Any = None, *, where: Where = None) -> UpsertResult:
        """Remove rows, as :meth:`Collection.delete`."""
        head = self._reading()
        if keys is None and where is None:
            raise ValueError("delete() wants keys, or where=, or both; got neither")
        condition = self._condition(head, where)
        table = self._table(head, None)
        columns = None if keys is None else self._key_columns(head, table, keys)[0]
        if columns is None:
            rids = self._select(head, condition).rids()
            key = head.columns[table.name].gather(rids)[0]
        else:
            rids = np.empty(0, dtype=np.int64)
            if len(columns[0]):
                rids = self._draft.based_on(head).find(table, columns)
            key = columns[0]
        status, reasons = resolve_delete(head, rids, condition)
        self._draft.rely_on_rows(rids)
        version = np.zeros(len(rids), dtype=np.int64)
        version[rids >= 0] = head.versions.gather(rids[rids >= 0])[0]
        gone = rids[status == Outcome.DELETED]
        if len(gone):
            effects = self._draft.delete_effects(gone)
            self._state = self._draft.apply(head, effects, head.seq)
        result = UpsertResult(status, key=key, version=version, reason=reasons, seq=head.seq + 1)
        self._results.append((result, None))
        return result

    def _upsert(
        self, rows: Any, call: Call, returning: frozenset[str] = frozenset()
    ) -> UpsertResult:
        batch = rows if isinstance(rows, Batch) else ingest(self._schema, rows)
        head = self._state
        base = self._draft.based_on(head)
        resolution = resolve(base, batch, call)
        self._draft.rely_on(base, batch, call)
        after = resolution.rids
        result = result_of(base, batch, resolution, seq=head.seq + 1)
        if resolution.writes_anything:
            effects = self._draft.upsert_effects(head, resolution, batch.rows)
            self._state = self._draft.apply(head, effects, head.seq)
            after = resolution.rids_after(effects.rids)
        if "old" in returning:
            result.old = self._rows_of(head, resolution.rids)
        if "new" in returning:
            result.new = self._rows_of(self._state, after)
        self._results.append((result, result.version == head.seq + 1))
        return result

    def _rows_of(self, state: State, rids: Any) -> Any:
        return read_rows(state, rids, self._schema.names)

    # --- The end ------------------------------------------------------------------------------

    def savepoint(self) -> Savepoint:
        """Return a point to come back to; in ``with``, an exception undoes what the block wrote."""
        self._reading()
        return Savepoint(self)

    def rollback(self, to: Savepoint | None = None) -> None:
        """Undo all writes, or those since a savepoint; the transaction goes on from there."""
        self._reading()
        (self._start if to is None else to).rollback()

    def _reading(self) -> State:
        if not self._open:
            raise ClosedError("the transaction has ended; begin another one")
        self._collection._check_writable()  # noqa: SLF001
        return self._state

    def __enter__(self) -> Transaction:  # noqa: PYI034  (Self came with Python 3.11)
        self._reading()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        opened, self._open = self._open, False
        if kind is not None or not opened:
            return
        state = self._collection._commit_draft(self._draft, self._state)  # noqa: SLF001
        for result, written in self._results:
            result.seq = state.seq
            if written is not None:
                result.version[written] = state.seq

    def __repr__(self) -> str:
        state = "open" if self._open else "ended"
        return f"Transaction({self._state.count} rows, {state})"


class Savepoint:
    """A point of a transaction; :meth:`Transaction.savepoint` gives one."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._state = transaction._state  # noqa: SLF001
        self._mark = transaction._draft.marked()  # noqa: SLF001

    def rollback(self) -> None:
        """Undo what was written since."""
        self._transaction._draft.back_to(self._mark)  # noqa: SLF001
        self._transaction._state = self._state  # noqa: SLF001

    def __enter__(self) -> Savepoint:  # noqa: PYI034  (Self came with Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.rollback()
