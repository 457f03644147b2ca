"""Conditions over a state: which rows fulfil one, as bits.

Every comparison of a condition is answered for all rows at once, as two bitmaps: where it is
true, and where it is null. By the index of its field, if it has one; from what is remembered of
an earlier evaluation, after looking at the chunks that have changed since; or by looking at the
column. What is left when few rows fulfil the rest of an ``and`` is looked at for these alone.

What a comparison means is said in ``expression.py`` alone: columns, the values of a dictionary and
single rows are all put before its evaluators. Only indexes answer by themselves, and where one
cannot tell what an evaluator would say, it is not asked.

Thread safety: a :class:`Selector` may be used from any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import bits_of_rids, count_bits, none_mask
from .bitmap import Bitmap, Words, no_words, packed
from .columns import CHUNK_ROWS, Column, objects
from .condition_tree import Join, Leaf, Negation, condition_of, leaf_of, leaves_of
from .expression import ELEMENT_TYPES, Compare, FieldRef
from .read import StateSource
from .scalar_index import FieldIndex, FieldIndexes, changed_chunks, is_indexed
from .ttl import expired_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .condition_tree import Condition, Node
    from .expression import Evaluate, Expression
    from .state import State

__all__ = ["Selected", "Selector", "condition_in", "select_bits"]

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
RowIds: TypeAlias = npt.NDArray[np.int64]
# Where a condition is true, and where it is null; None: nowhere.
Truth: TypeAlias = "tuple[Words, Words | None]"
# What was evaluated, how, and where it was true.
Step: TypeAlias = "tuple[Expression | str, str, Words]"

_CHUNK_WORDS: Final = CHUNK_ROWS // 64
# Chunks that are looked at together, which saves calls and costs a copy. 10^6 int64 by 1, 4, 16, 32
# and 128 chunks: 5.4, 2.6, 2.5, 2.1 and 1.9 ms; strings by 1 and 16: 23 and 37 ms.
_JOINED: Final = 32
_JOINED_OBJECTS: Final = 1
_MAX_ENTRIES: Final = 256
_MAX_BYTES: Final = 64 << 20

# What looking costs, in nanoseconds: at one of all rows of a column of numbers, or of objects; at
# one of some rows, by its id; and besides at each chunk that these lie in. 10^6 rows, all of them:
# 2 and 23 ms; 100 scattered ones .28 and .30 ms, 1,000 1.2 and 1.5 ms, 100,000 3.3 and 27 ms.
_NUMBER_NS: Final = 2
_OBJECT_NS: Final = 23
_NUMBER_BY_ID_NS: Final = 15
_OBJECT_BY_ID_NS: Final = 250
_PIECE_NS: Final = 2_800
# Besides, what it costs to read a json text; see json_path.py for the case that most need not be.
_JSON_NS: Final = 2_500
# Columns are remembered, and single rows are not: so these have to be so much cheaper.
_WORTH: Final = 4


class Selector:
    """What the states of a collection evaluate conditions with: its indexes, and its memory."""

    def __init__(self) -> None:
        self.indexes = FieldIndexes()
        self._lock = threading.Lock()
        self._entries: OrderedDict[Any, _Entry] = OrderedDict()
        self._bytes = 0

    def recall(self, key: Any) -> Any:
        """Return what is remembered under a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry.content

    def remember(self, key: Any, content: Any, size_bytes: int) -> None:
        """Keep something that will never change, in the place of what was under the key."""
        with self._lock:
            old = self._entries.pop(key, None)
            self._bytes += size_bytes - (0 if old is None else old.size_bytes)
            self._entries[key] = _Entry(content, size_bytes)
            while len(self._entries) > _MAX_ENTRIES or self._bytes > _MAX_BYTES:
                self._bytes -= self._entries.popitem(last=False)[1].size_bytes

    def nbytes(self) -> int:
        """Return the bytes that are remembered."""
        return self._bytes


@dataclass(frozen=True)
class _Entry:
    content: Any
    size_bytes: int


class Selected:
    """The rows that fulfil a condition."""

    __slots__ = ("_live", "_steps", "bits", "key", "versions")

    def __init__(
        self,
        bits: Bitmap,
        live: Callable[[], Words],
        steps: Sequence[Step],
        key: Any,
        versions: tuple[int, ...],
    ) -> None:
        self.bits = bits
        # The same condition over columns of these versions has the same rows; None: it may not.
        self.key = key
        self.versions = versions
        self._live = live
        self._steps = steps

    @property
    def count(self) -> int:
        """How many rows they are."""
        return self.bits.count

    def rids(self) -> RowIds:
        """Return their ids, in order; int64 (count,)."""
        return self.bits.rids()

    @property
    def explanation(self) -> list[str]:
        """What was evaluated, how, and how many rows it left."""
        live = self._live()
        return [
            f"{what}: {how}, {count_bits(found & live)} rows" for what, how, found in self._steps
        ]


def condition_in(state: State, where: Expression | str) -> Condition:
    """Return a condition on the rows of a state, checked.

    Raises
    ------
    ExpressionError
    """
    if not isinstance(where, str):
        return condition_of(state.schema, where)
    known = state.selector.recall(("condition", where))
    if known is not None and known[0] is state.schema:
        remembered: Condition = known[1]
        return remembered
    condition = condition_of(state.schema, where)
    # About what a comparison takes; more important is how many there are.
    state.selector.remember(("condition", where), (state.schema, condition), 1_000 + len(where))
    return condition


def select_bits(state: State, where: Condition | None) -> Selected:
    """Return the rows that live, are not expired, and fulfil a condition, if there is one."""
    return _Evaluation(state).selected(where)


# --- Evaluation ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """The truth of a comparison for all rows of the columns that had these stamps."""

    versions: tuple[int, ...]
    stamps: tuple[RowIds, ...]
    truth: Truth


@dataclass
class _Evaluation:
    """One condition over one state."""

    state: State
    steps: list[Step] = dataclass_field(default_factory=list)

    def selected(self, where: Condition | None) -> Selected:
        """Return the rows that fulfil a condition."""
        state = self.state
        if where is None:
            return self._unexpired(Bitmap(self._live(), state.size), None, ())
        versions: tuple[int, ...] = (state.live.version,)
        if where.has_vectors:  # what vectors there are is said by no version
            bits = Bitmap(self._conjunction(where.node), state.size)
            return self._unexpired(bits, None, versions)
        versions += tuple(state.columns[name].version for name in where.names)
        key = ("where", where.node.key)
        known = state.selector.recall(key)
        if known is not None and known[0] == versions:
            bits = known[1]
            self.steps.append((where.expression, "cached", bits.words))
        else:
            bits = Bitmap(self._conjunction(where.node), state.size)
            state.selector.remember(key, (versions, bits), bits.words.nbytes)
        return self._unexpired(bits, where.node.key, versions)

    def _live(self) -> Words:
        column = self.state.live
        return self._of_columns(("live",), (column,), ("",), lambda source: source.column(""))[0]

    def _unexpired(self, bits: Bitmap, key: Any, versions: tuple[int, ...]) -> Selected:
        schema = self.state.schema
        since = None if schema.ttl is None else expired_since(schema)
        if schema.ttl is not None and since is not None:
            expired = Compare("<=", FieldRef(schema.ttl[0]), since)
            leaf, how = leaf_of(expired, schema), "index"
            truth = self._by_index(leaf)
            if truth is None:  # not remembered: the next time, the time is another one
                column, how = self.state.columns[schema.ttl[0]], "column"
                truth = self._looked_at((column,), leaf.fields, leaf.evaluate, None)
            bits, key = Bitmap(bits.words & ~truth[0], bits.size), None
            self.steps.append(("not expired", how, bits.words))
        return Selected(bits, self._live, self.steps, key, versions)

    def _conjunction(self, node: Node) -> Words:
        """Return the rows that live and for which a condition is true."""
        words = self._live()
        parts: Sequence[Node] = (node,)
        if isinstance(node, Join) and node.expression.word == "and":
            parts = node.parts
        for part in sorted(parts, key=self._cost_ns):
            cost = self._cost_ns(part)
            if cost:
                left = count_bits(words)
                if _WORTH * self._candidates_ns(part, left) < cost:
                    words = self._of_candidates(part, words)
                    continue
            words = words & self._truth(part, with_null=False)[0]
        return words

    def _of_candidates(self, node: Node, words: Words) -> Words:
        """Return those of some rows for which a condition is true, looking at no others."""
        size = self.state.size
        rids = Bitmap(words, size).rids()
        if len(rids):
            evaluate = node.expression.compiled(self.state.schema.types)
            rids = rids[evaluate(StateSource(self.state, rids))[0]]
        found: Words = bits_of_rids(rids, size)
        self.steps.append((node.expression, "candidates only", found))
        return found

    def _truth(self, node: Node, *, with_null: bool) -> Truth:
        """Return where a condition is true, and, if that is asked for, where it is null."""
        match node:
            case Leaf():
                return self._leaf_truth(node, with_null=with_null)
            case Negation(inner=inner):
                true, null = self._truth(inner, with_null=True)
                return (~true if null is None else ~(true | null)), null
        true, null = self._truth(node.parts[0], with_null=with_null)
        for part in node.parts[1:]:
            more, more_null = self._truth(part, with_null=with_null)
            true, null = _joined(node.expression.word, (true, null), (more, more_null))
        return true, null

    def _leaf_truth(self, leaf: Leaf, *, with_null: bool) -> Truth:
        name = leaf.fields[0]
        if name in self.state.schema.vectors:
            index, snapshot = self.state.indexes[name], self.state.snapshots[name]
            present = np.asarray(index.keys(snapshot=snapshot), dtype=np.int64)
            held = Bitmap.from_rids(present[present < self.state.size], self.state.size)
            without = (~held).words
            self.steps.append((leaf.expression, "vectors", without))
            return without, None
        truth = self._by_index(leaf, with_null=with_null)
        if truth is None:
            columns = tuple(self.state.columns[field] for field in leaf.fields)
            return self._of_columns(leaf.key, columns, leaf.fields, leaf.evaluate, leaf)
        self.steps.append((leaf.expression, "index", truth[0]))
        return truth

    # --- By index -----------------------------------------------------------------------------

    def _index(self, leaf: Leaf) -> FieldIndex | None:
        if len(leaf.fields) != 1:
            return None
        name = leaf.fields[0]
        schema = self.state.schema
        if name not in schema.fields or not is_indexed(schema.fields[name]):
            return None
        return self.state.selector.indexes.at(schema, name, self.state.columns[name])

    def _by_index(self, leaf: Leaf, *, with_null: bool = False) -> Truth | None:
        """Return the truth of a comparison by the index of its field, if that can tell it."""
        index = self._index(leaf)
        if index is None:
            return None
        symbol, literal = leaf.key[0], leaf.literal
        if symbol == "is null":
            null = index.null()
            return (no_words(self.state.size) if null is None else null), None
        differs = symbol == "!="
        if symbol == "is true":
            true: Words | None = index.compared("==", 1)
        elif symbol == "in":
            true = index.any_of(literal)
        elif symbol == "contains" and index.kind in ELEMENT_TYPES:
            true = index.containing(literal)
        elif symbol in {"==", "!="} or index.dictionary is None:
            true = index.compared("==" if differs else symbol, literal)
        else:
            true = index.named(self._of_names(leaf, index))
        if true is None:
            return None
        null = index.null() if with_null or differs else None
        if differs:
            true = ~true if null is None else ~(true | null)
        return true, null

    def _of_names(self, leaf: Leaf, index: FieldIndex) -> BoolArray:
        """Return the values of the dictionary for which a comparison is true; bool (n,)."""
        assert index.dictionary is not None  # noqa: S101  (for the type checker)
        names, selector = index.dictionary.names, self.state.selector
        key = ("names", index.dictionary.serial, leaf.key)
        recalled: BoolArray | None = selector.recall(key)
        known = np.empty(0, dtype=np.bool_) if recalled is None else recalled
        until = len(names)  # others may be adding to it
        if len(known) < until:
            more = objects(names[len(known) : until])
            found = leaf.evaluate(_Columns({leaf.fields[0]: (more, None)}))[0]
            known = np.concatenate([known, found])
            selector.remember(key, known, known.nbytes)
        return known

    # --- By columns ---------------------------------------------------------------------------

    def _of_columns(
        self,
        key: Any,
        columns: tuple[Column, ...],
        names: tuple[str, ...],
        evaluate: Evaluate,
        leaf: Leaf | None = None,
    ) -> Truth:
        """Return the truth of a comparison from memory, brought up to date by the columns."""
        selector = self.state.selector
        known: _Known | None = selector.recall(key)
        versions = tuple(column.version for column in columns)
        if known is not None and known.versions == versions:
            truth = known.truth
            how = "cached"
        else:
            stamps = tuple(column.stamps for column in columns)
            truth = self._looked_at(columns, names, evaluate, known)
            size = truth[0].nbytes + (0 if truth[1] is None else truth[1].nbytes)
            size += sum(stamp.nbytes for stamp in stamps)
            selector.remember(key, _Known(versions, stamps, truth), size)
            how = "column" if known is None else "cached and column"
        if leaf is not None:
            self.steps.append((leaf.expression, how, truth[0]))
        return truth

    def _looked_at(
        self,
        columns: tuple[Column, ...],
        names: tuple[str, ...],
        evaluate: Evaluate,
        known: _Known | None,
    ) -> Truth:
        """Look at the chunks of columns that are not as they were when a truth was found."""
        size = self.state.size
        true = no_words(size)
        null: Words | None = None
        changed = np.arange(len(columns[0].stamps), dtype=np.int64)
        if known is not None:
            changed = _changed(known, columns)
            _copy_words(known.truth[0], true, changed)
            if known.truth[1] is not None:
                null = no_words(size)
                _copy_words(known.truth[1], null, changed)
        is_object = any(column.dtype.hasobject for column in columns)
        for first, last in _runs(changed, _JOINED_OBJECTS if is_object else _JOINED):
            rows = slice(first * CHUNK_ROWS, min(last * CHUNK_ROWS, size))
            found, unknown = evaluate(_Chunks(names, columns, first, last, rows.stop - rows.start))
            _put(true, first, found)
            if unknown is not None:
                null = no_words(size) if null is None else null
                _put(null, first, unknown)
        return true, null

    # --- What it costs ------------------------------------------------------------------------

    def _cost_ns(self, node: Node) -> int:
        """Return about what it costs to look at columns; 0: none has to be looked at."""
        return sum(map(self._leaf_cost_ns, leaves_of(node)))

    def _leaf_cost_ns(self, leaf: Leaf) -> int:
        schema, size = self.state.schema, self.state.size
        if leaf.fields[0] in schema.vectors:
            return _NUMBER_NS * size
        per_row = sum(self._row_ns(name) for name in leaf.fields) + _reading_ns(leaf)
        index = self._index(leaf)
        if index is not None:
            if leaf.key[0] in _BY_CODE or index.dictionary is None:
                return 0
            known = self.state.selector.recall(("names", index.dictionary.serial, leaf.key))
            fresh = len(index.dictionary.names) - (0 if known is None else len(known))
            return per_row * fresh
        columns = tuple(self.state.columns[name] for name in leaf.fields)
        known = self.state.selector.recall(leaf.key)
        if known is None:
            return per_row * size
        return per_row * CHUNK_ROWS * len(_changed(known, columns))

    def _candidates_ns(self, node: Node, rows: int) -> int:
        pieces = min(rows, len(self.state.live.chunks))
        leaves = list(leaves_of(node))
        names = [name for leaf in leaves for name in leaf.fields]
        return rows * sum(map(_reading_ns, leaves)) + sum(
            pieces * _PIECE_NS
            + rows * (_OBJECT_BY_ID_NS if self._has_objects(name) else _NUMBER_BY_ID_NS)
            for name in names
        )

    def _row_ns(self, name: str) -> int:
        return _OBJECT_NS if self._has_objects(name) else _NUMBER_NS

    def _has_objects(self, name: str) -> bool:
        field = self.state.schema.fields.get(name)
        return field is not None and field.dtype.hasobject


def _reading_ns(leaf: Leaf) -> int:
    return _JSON_NS if leaf.key[0] == "json" else 0


# Comparisons of a string that its code answers; others look at all values of the dictionary.
_BY_CODE: Final = frozenset({"==", "!=", "in", "is null"})


class _Columns:
    """Values that are at hand, for an evaluator."""

    def __init__(self, columns: dict[str, tuple[AnyArray, BoolArray | None]]) -> None:
        self._columns = columns

    def column(self, name: str) -> tuple[AnyArray, BoolArray | None]:
        return self._columns[name]


class _Chunks:
    """The rows of some chunks that lie one behind the other, for an evaluator."""

    def __init__(
        self, names: tuple[str, ...], columns: tuple[Column, ...], first: int, last: int, rows: int
    ) -> None:
        self._columns = dict(zip(names, columns, strict=True))
        self._first, self._last, self._rows = first, last, rows

    def column(self, name: str) -> tuple[AnyArray, BoolArray | None]:
        column = self._columns[name]
        chunks = column.chunks[self._first : self._last]
        nulls = column.nulls[self._first : self._last]
        # Rows beyond the size of the column may be being written.
        values = (chunks[0] if len(chunks) == 1 else np.concatenate(chunks))[: self._rows]
        if column.dtype.hasobject:
            # Also where no null was written: a row that does not live may never have been.
            return values, none_mask(values)
        if all(null is None for null in nulls):
            return values, None
        none = np.zeros(CHUNK_ROWS, dtype=np.bool_)
        masks = [none if null is None else null for null in nulls]
        null = masks[0] if len(masks) == 1 else np.concatenate(masks)
        return values, null[: self._rows]


def _changed(known: _Known, columns: tuple[Column, ...]) -> RowIds:
    """Return the chunks of columns that are not as they were."""
    changed = changed_chunks(known.stamps[0], columns[0].stamps)
    for stamps, column in zip(known.stamps[1:], columns[1:], strict=True):
        changed = np.union1d(changed, changed_chunks(stamps, column.stamps))
    return changed


def _runs(chunks: RowIds, most: int) -> Iterable[tuple[int, int]]:
    """Yield chunks that follow each other, so many at most: the first, and one past the last."""
    at, listed = 0, chunks.tolist()
    while at < len(listed):
        end = at + 1
        while end < len(listed) and listed[end] == listed[end - 1] + 1 and end - at < most:
            end += 1
        yield listed[at], listed[end - 1] + 1
        at = end


def _copy_words(known: Words, words: Words, changed: RowIds) -> None:
    """Copy the bits of all chunks but those that have changed."""
    both = min(len(known), len(words))
    words[:both] = known[:both]
    for chunk in changed.tolist():
        words[chunk * _CHUNK_WORDS : (chunk + 1) * _CHUNK_WORDS] = 0


def _put(words: Words, chunk: int, mask: BoolArray) -> None:
    bits = packed(mask)
    start = chunk * _CHUNK_WORDS * 8
    words.view(np.uint8)[start : start + len(bits)] = bits


def _joined(word: str, left: Truth, right: Truth) -> Truth:
    """Return ``and`` or ``or`` of two truths, as SQL has it."""
    (a, a_null), (b, b_null) = left, right
    true = a & b if word == "and" else a | b
    if a_null is None and b_null is None:
        return true, None
    nothing = np.zeros_like(a)
    a_null = nothing if a_null is None else a_null
    b_null = nothing if b_null is None else b_null
    if word == "and":  # null where neither is false, and one is null
        return true, (a | a_null) & (b | b_null) & (a_null | b_null)
    return true, (a_null | b_null) & ~true
