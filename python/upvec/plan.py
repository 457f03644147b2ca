"""What an upsert would do, to be looked at before it is done: :class:`Plan`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .codec import Effects, VectorEffect
from .errors import ConflictError, InvalidRowError
from .ingest import vector_column
from .read import read_rows
from .resolve import resolve, result_of
from .result import Rows

if TYPE_CHECKING:
    from .collection import Collection
    from .draft import Draft
    from .ingest import Batch
    from .resolve import Call
    from .result import UpsertResult

__all__ = ["Plan"]

RowIds: TypeAlias = npt.NDArray[np.int64]


class Plan:
    """An upsert that was resolved and not written. ``upsert(..., dry_run=True)`` gives one.

    It holds the versions of the rows that it matched and the keys that it found absent; if one of
    them is not so any more, :meth:`commit` raises and writes nothing.

    Attributes
    ----------
    result : UpsertResult
        What the upsert would return; ``seq`` and new versions are those of the next commit.

    Examples
    --------
    >>> import upvec
    >>> schema = upvec.Schema(
    ...     upvec.Field("id", "int64", primary=True),
    ...     upvec.Field("bio", "string"),
    ...     upvec.Vector("emb", 2, source="bio"),
    ... )
    >>> col = upvec.open(":memory:", schema)
    >>> _ = col.upsert([{"id": 1, "bio": "painter", "emb": [0, 1]}])
    >>> plan = col.upsert([{"id": 1, "bio": "painter"}, {"id": 2, "bio": "poet"}], dry_run=True)
    >>> plan.result, plan.stale("emb")["bio"].tolist()
    (UpsertResult(inserted=1, unchanged=1, seq=2), ['poet'])
    >>> plan.commit(emb=[[1, 0]])
    UpsertResult(inserted=1, unchanged=1, seq=2)
    """

    def __init__(self, collection: Collection, draft: Draft, batch: Batch, call: Call) -> None:
        self._collection = collection
        self._schema = schema = draft.schema
        self._call = replace(
            call, awaited=frozenset(n for n, v in schema.vectors.items() if v.source)
        )
        self._batch = batch
        self._draft = draft
        self._before = head = draft.begin()
        base = draft.based_on(head)
        try:
            self._resolution = resolution = resolve(base, self._batch, self._call)
        except ConflictError as error:
            self._conflict: ConflictError | None = error
            if error.result is None:
                raise
            self.result: UpsertResult = error.result
            return
        self._conflict = None
        draft.rely_on(base, self._batch, self._call)
        self._state = head
        after = resolution.rids
        if resolution.writes_anything:
            effects = draft.upsert_effects(head, resolution, self._batch.rows)
            self._state = draft.apply(head, effects, head.seq)
            after = resolution.rids_after(effects.rids)
        self._after = after
        seq = head.seq + 1 if resolution.writes_anything else head.seq
        self.result = result_of(base, self._batch, resolution, seq=seq)
        self._written = self.result.version == head.seq + 1
        self._committed = False

    def stale(self, vector: str) -> Rows:
        """Return the rows whose vector has to be computed again, as they will be.

        They are those that are new, or whose ``source`` changes, and for which no vector came
        along; in input order, each once.

        Raises
        ------
        ValueError
            There is no such vector field, or it has no ``source``.
        """
        rids = self._stale_rids(vector)
        return read_rows(self._state, rids, self._schema.names)

    def explain(self) -> str:
        """Return in words what would be done, and by which rules."""
        if self._conflict is not None:
            return f"refused: {self._conflict}"
        rules = self._call.rules
        counts = {name: n for name, n in self.result.counts.items() if n}
        lines = [
            f"match on {', then '.join(self._call.on)}; duplicates: {self._call.duplicates}",
            f"{self._batch.rows} rows: " + ", ".join(f"{n} {name}" for name, n in counts.items()),
        ]
        touched = [name for name in self._schema.names if name in self._batch.cells]
        for name in touched:
            rule = rules.merge[name]
            changes = int(self._resolution.changed.get(name, np.zeros(1, np.bool_)).sum())
            clock = self._schema.clocks.get(name)
            by = "" if clock is None else f", ordered by {clock}"
            lines.append(f"{name}: {rule!r}{by}; {changes} changes")
        again = [n for n in touched if not rules.merge[n].idempotent]
        safe = "retry-safe" if not again else f"not retry-safe ({', '.join(again)}): use op_id"
        lines.append(safe)
        for name, item in self._schema.vectors.items():
            if item.source:
                lines.append(f"{name}: {len(self._stale_rids(name))} rows to compute again")
        for row, (word, sentence) in sorted(self.result.reasons.items())[:10]:
            lines.append(f"row {row}: {word}: {sentence}")
        return "\n".join(lines)

    def commit(self, **vectors: Any) -> UpsertResult:
        """Write what was planned.

        Parameters
        ----------
        **vectors : array (m, dim)
            By vector field, a vector for each row that :meth:`stale` names, in its order.

        Returns
        -------
        UpsertResult
            :attr:`result`, with the commit's number.

        Raises
        ------
        ConflictError
            A row or a key that the plan relies on changed meanwhile, or the plan was committed
            already; nothing was written.
        InvalidRowError, DimensionError
            Vectors that do not fit, or are missing where a row must have one.
        """
        if self._conflict is not None:
            raise self._conflict
        if self._committed:
            raise ConflictError("the plan was committed already", result=self.result)
        state, mark = self._state, self._draft.marked()
        try:
            for name, given in vectors.items():
                state = self._with_vectors(state, name, given)
            self._refuse_missing(vectors)
            end = self._collection._commit_draft(self._draft, state)  # noqa: SLF001
        except BaseException:
            self._draft.back_to(mark)
            raise
        self._committed = True
        if self._written.any() or end.seq > self._before.seq:
            self.result.version[self._written] = end.seq
            self.result.seq = end.seq
        return self.result

    def _with_vectors(self, state: Any, name: str, given: Any) -> Any:
        rids = self._stale_rids(name)
        values, null = vector_column(self._schema.vectors[name], given)
        if len(values) != len(rids):
            message = f"commit({name}=...): got {len(values)} vectors for {len(rids)} stale rows"
            raise InvalidRowError(message, field=name, got=len(values), want=len(rids))
        if not len(rids):
            return state
        order = np.argsort(rids)
        missing = np.zeros(len(rids), dtype=np.bool_) if null is None else null
        effect = VectorEffect(None, values[order], missing[order])
        effects = Effects(
            np.empty(0, dtype=np.int64),
            rids[order],
            np.full(len(rids), state.seq + 1, dtype=np.int64),
            {},
            {self._schema.numbers[name]: effect},
        )
        return self._draft.apply(state, effects, state.seq)

    def _refuse_missing(self, given: dict[str, Any]) -> None:
        for name in self._call.awaited - given.keys():
            vector = self._schema.vectors[name]
            if vector.nullable or not len(self._resolution.inserts):
                continue
            new = self._after[self._resolution.inserts]
            lacking = self._resolution.inserts[~self._draft.indexes[name].get(new)[1]]
            if len(lacking):
                rows = lacking.tolist()
                message = f"row {rows[0]}, field {name!r}: got nothing, wanted commit({name}=...)"
                raise InvalidRowError(message, rows=rows, field=name, want="a vector")

    def _stale_rids(self, name: str) -> RowIds:
        vector = self._schema.vectors.get(name)
        if vector is None or not vector.source:
            known = ", ".join(n for n, v in self._schema.vectors.items() if v.source) or "none"
            raise ValueError(f"stale({name!r}): no vector field with a source; there are: {known}")
        if self._conflict is not None:
            raise self._conflict
        rows = self._batch.rows
        stale = np.zeros(rows, dtype=np.bool_)
        for source in vector.source:
            changed = self._resolution.changed.get(source)
            if changed is not None:
                stale |= changed
        stale &= self._after >= 0
        cells = self._batch.cells.get(name)
        if cells is not None:
            stale &= np.zeros(rows, np.bool_) if cells.present is None else ~cells.present
        rids = self._after[stale]
        first: RowIds = rids[np.sort(np.unique(rids, return_index=True)[1])]
        return first

    def __repr__(self) -> str:
        return f"Plan({self.result!r})"
